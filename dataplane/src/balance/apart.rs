//! Workers that choose in turn begin at different servers: else the first flow of each would go to the same one, and again
//! after every change of a server's state.

use super::{Balancer, Turn};
use crate::snapshot::{PoolGroupMember, Snapshot};
use crate::steering::Seat;

/// Where a worker begins among so many: the workers are as far from each other as possible.
fn beginning(seat: Seat, choices: usize) -> usize {
    choices * usize::from(seat.number) / usize::from(seat.of.max(1))
}

/// What smooth weighted round robin begins with where the first `chosen` are to come last: each has paid its own weight in
/// advance, and nothing for the others, of whom some may take no part.
fn owed(chosen: usize, weights: impl Iterator<Item = i64>) -> impl Iterator<Item = i64> {
    weights.enumerate().map(move |(place, weight)| if place < chosen { -weight } else { 0 })
}

/// Whose turn it is among the servers of a pool and a family when their states have changed.
pub(super) fn begin_turns(seat: Seat, turns: &mut [Turn]) {
    let mut turns: Vec<&mut Turn> = turns.iter_mut().collect();
    turns.sort_by_key(|turn| turn.server);
    let weights: Vec<i64> = turns.iter().map(|turn| i64::from(turn.weight)).collect();
    let credits = owed(beginning(seat, weights.len()), weights.into_iter());
    turns.into_iter().zip(credits).for_each(|(turn, credit)| turn.credit = credit);
}

/// Whose turn it is among the pools of a group: those that take part together, by priority.
fn begin_group(seat: Seat, members: &[PoolGroupMember]) -> Vec<i64> {
    let rank = |member: &PoolGroupMember| (member.ratio > 0).then_some(member.priority);
    let credit = |(place, member): (usize, &PoolGroupMember)| {
        let alike = |members: &[PoolGroupMember]| members.iter().filter(|m| rank(m) == rank(member)).count();
        let before = alike(members.get(..place).unwrap_or_default());
        if before < beginning(seat, alike(members)) { -i64::from(member.ratio) } else { 0 }
    };
    members.iter().enumerate().map(credit).collect()
}

impl Balancer {
    /// Whose turn it is at the start, but for [`begin_turns`]: among the pools of groups, and among servers that have
    /// equally few flows.
    pub(super) fn begin_apart(&mut self, snapshot: &Snapshot) {
        for (credits, group) in self.group_credits.iter_mut().zip(&snapshot.pool_groups) {
            *credits = begin_group(self.seat, &group.members);
        }
        for (state, pool) in self.pools.iter_mut().zip(&snapshot.pools) {
            state.turn = beginning(self.seat, pool.servers.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::PoolId;

    #[test]
    fn workers_begin_as_far_from_each_other_as_possible() {
        let of = |workers, choices| -> Vec<usize> {
            Seat::all(workers).map(|seat| beginning(seat, choices)).collect()
        };
        assert_eq!(of(1, 5), [0]);
        assert_eq!(of(4, 8), [0, 2, 4, 6]);
        assert_eq!(of(4, 2), [0, 0, 1, 1]);
        assert_eq!(of(3, 0), [0, 0, 0]);
    }

    #[test]
    fn those_that_come_last_have_paid_for_themselves() {
        assert_eq!(owed(2, [5, 1, 1].into_iter()).collect::<Vec<_>>(), [-5, -1, 0]);
        assert_eq!(owed(0, [2, 2].into_iter()).collect::<Vec<_>>(), [0, 0]);
    }

    /// A member that takes no part for now must not push the others out of their turns.
    #[test]
    fn pools_of_a_group_begin_apart_within_their_priority() {
        let member = |pool, priority, ratio| PoolGroupMember { pool: PoolId(pool), priority, ratio };
        let members = [member(0, 10, 1), member(1, 10, 1), member(2, 1, 1000), member(3, 10, 0)];
        let credits: Vec<Vec<i64>> = Seat::all(2).map(|seat| begin_group(seat, &members)).collect();
        assert_eq!(credits, [[0, 0, 0, 0], [-1, 0, 0, 0]]);
    }
}
