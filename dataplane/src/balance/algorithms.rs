//! How one of the eligible servers, or of the pools of a group, is chosen.

use super::{Balancer, ServerState, Turn, Wanted};
use crate::snapshot::{Algorithm, PoolGroupId, PoolId, ServerId, Snapshot};

impl Balancer {
    /// The pool of a group that takes the next flow, by ratio, among those of this priority that have an eligible server.
    pub(super) fn share_by_ratio(
        &mut self,
        snapshot: &Snapshot,
        group: PoolGroupId,
        priority: u16,
        wanted: &Wanted<'_>,
    ) -> Option<PoolId> {
        let mut total = 0i64;
        let mut best: Option<(usize, PoolId, i64)> = None;
        for (place, member) in snapshot.pool_groups.get(group.index())?.members.iter().enumerate() {
            let takes = member.ratio > 0 && member.priority == priority;
            if !takes || !self.has_eligible(snapshot, member.pool, wanted) {
                continue;
            }
            let credit = self.group_credits.get_mut(group.index())?.get_mut(place)?;
            *credit = credit.saturating_add(i64::from(member.ratio));
            total += i64::from(member.ratio);
            if best.is_none_or(|(_, _, most)| *credit > most) {
                best = Some((place, member.pool, *credit));
            }
        }
        let (place, pool, _) = best?;
        let credit = self.group_credits.get_mut(group.index())?.get_mut(place)?;
        *credit = credit.saturating_sub(total);
        Some(pool)
    }

    /// The server of a pool that takes the next flow, by the pool's algorithm.
    pub(super) fn pick_server(
        &mut self,
        snapshot: &Snapshot,
        pool: PoolId,
        wanted: &Wanted<'_>,
    ) -> Option<ServerId> {
        let config = snapshot.pools.get(pool.index())?;
        if config.algorithm == Algorithm::RoundRobin {
            return self.round_robin(pool, wanted);
        }
        if !self.has_eligible(snapshot, pool, wanted) {
            return None;
        }
        match config.algorithm {
            Algorithm::RoundRobin => None,
            Algorithm::LeastConnections => self.least_connections(pool, &config.servers, wanted),
            Algorithm::SourceIpHash => self.by_hash(pool, &config.servers, wanted),
        }
    }

    /// The server of the client's slot, or, where that one is not eligible, of a slot behind it.
    fn by_hash(&self, pool: PoolId, members: &[ServerId], wanted: &Wanted<'_>) -> Option<ServerId> {
        let [v4, v6] = &self.pools.get(pool.index())?.maglev;
        let table = wanted.client.family.choose([v4, v6]).as_ref()?;
        let takes = |id: ServerId| {
            self.servers.get(id.index()).is_some_and(|state| wanted.takes(state, id, &self.tokens))
        };
        table
            .find(wanted.client.address.ip(), takes)
            .or_else(|| members.iter().copied().find(|&id| takes(id)))
    }

    /// Smooth weighted round robin. Most flows take any server that is up: then nothing else is looked at.
    #[inline]
    fn round_robin(&mut self, pool: PoolId, wanted: &Wanted<'_>) -> Option<ServerId> {
        let Balancer { servers, pools, tokens, .. } = self;
        let state = pools.get_mut(pool.index())?;
        let turns = wanted.client.family.choose(state.turns.each_mut());
        if wanted.exclude.is_empty() && !state.limited {
            return next_in_turn(turns, |_| true);
        }
        next_in_turn(turns, |id| servers.get(id.index()).is_some_and(|state| wanted.takes(state, id, tokens)))
    }

    /// The fewest open flows per weight; among equals the first one after the last choice.
    fn least_connections(
        &mut self,
        pool: PoolId,
        members: &[ServerId],
        wanted: &Wanted<'_>,
    ) -> Option<ServerId> {
        let state = self.pools.get_mut(pool.index())?;
        let (early, late) = members.split_at_checked(state.turn).unwrap_or((&[], members));
        let mut best: Option<(usize, ServerId, &ServerState)> = None;
        let in_turn = (state.turn..).zip(late).chain((0..).zip(early));
        for (place, &id) in in_turn {
            let Some(server) = self.servers.get(id.index()) else { continue };
            if wanted.takes(server, id, &self.tokens)
                && best.is_none_or(|(_, _, least)| fewer_flows(server, least))
            {
                best = Some((place, id, server));
            }
        }
        let (place, id, _) = best?;
        state.turn = if place + 1 < members.len() { place + 1 } else { 0 };
        Some(id)
    }
}

/// Every server that takes part is owed its weight per choice, the one that is owed most is chosen and pays the weights of
/// all. The sum of what they are owed stays the same, and nobody owes more than all weights: nothing here comes near an overflow.
#[inline]
pub(super) fn next_in_turn(turns: &mut [Turn], takes: impl Fn(ServerId) -> bool) -> Option<ServerId> {
    let mut total = 0i64;
    let mut best: Option<&mut Turn> = None;
    for turn in turns {
        if !takes(turn.server) {
            continue;
        }
        turn.credit = turn.credit.wrapping_add(i64::from(turn.weight));
        total += i64::from(turn.weight);
        if best.as_ref().is_none_or(|best| turn.credit > best.credit) {
            best = Some(turn);
        }
    }
    let chosen = best?;
    chosen.credit = chosen.credit.wrapping_sub(total);
    Some(chosen.server)
}

/// True if `a` has fewer open flows per weight than `b`.
fn fewer_flows(a: &ServerState, b: &ServerState) -> bool {
    u64::from(a.status.flows) * u64::from(b.weight) < u64::from(b.status.flows) * u64::from(a.weight)
}
