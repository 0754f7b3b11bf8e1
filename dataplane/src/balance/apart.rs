//! Workers that choose in turn begin at different servers: else the first flow of each would go to the same one, and again
//! after every change of a server's state.

use super::{Balancer, ServerState};
use crate::snapshot::Snapshot;
use crate::steering::Seat;

/// Where a worker begins among so many: the workers are as far from each other as possible.
fn beginning(seat: Seat, choices: usize) -> usize {
    choices * usize::from(seat.number) / usize::from(seat.of.max(1))
}

/// What smooth weighted round robin owes each of these weights when the first `chosen` of them have just been chosen once: what
/// adds up to 0.
fn owed(chosen: usize, weights: impl Iterator<Item = i64> + Clone) -> impl Iterator<Item = i64> {
    let total: i64 = weights.clone().sum();
    let turns = i64::try_from(chosen).unwrap_or(0);
    weights.enumerate().map(move |(place, weight)| turns * weight - if place < chosen { total } else { 0 })
}

/// Whose turn it is among the servers of a pool when their states have changed.
pub(super) fn begin_turns<'a>(seat: Seat, servers: impl Iterator<Item = &'a mut ServerState>) {
    let (mut up, down): (Vec<_>, Vec<_>) = servers.partition(|server| server.up());
    down.into_iter().for_each(|server| server.credit = 0);
    let weights: Vec<i64> = up.iter().map(|server| i64::from(server.weight)).collect();
    for (server, credit) in up.iter_mut().zip(owed(beginning(seat, weights.len()), weights.iter().copied())) {
        server.credit = credit;
    }
}

impl Balancer {
    /// Whose turn it is at the start, but for [`begin_turns`]: among the pools of groups, and among servers that have
    /// equally few flows.
    pub(super) fn begin_apart(&mut self, snapshot: &Snapshot) {
        for (credits, group) in self.group_credits.iter_mut().zip(&snapshot.pool_groups) {
            let ratios = group.members.iter().map(|member| i64::from(member.ratio));
            *credits = owed(beginning(self.seat, group.members.len()), ratios).collect();
        }
        for (state, pool) in self.pools.iter_mut().zip(&snapshot.pools) {
            state.turn = beginning(self.seat, pool.servers.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn nothing_is_owed_in_all_and_the_next_is_owed_most() {
        for chosen in 0..3 {
            let credits: Vec<i64> = owed(chosen, [2, 2, 2].into_iter()).collect();
            assert_eq!(credits.iter().sum::<i64>(), 0);
            let most = credits.iter().max().unwrap();
            assert_eq!(credits.iter().position(|credit| credit == most), Some(chosen));
        }
        assert_eq!(owed(2, [5, 1, 1].into_iter()).collect::<Vec<_>>(), [3, -5, 2]);
    }
}
