//! How a balancer takes over from the one of the configuration before.

use super::{Balancer, PoolState, ServerState};
use crate::snapshot::{PoolId, ServerId, Snapshot};
use crate::steering::Seat;

impl Balancer {
    /// Goes on with `new`, which is laid over `old` ([`Snapshot::overlaid`]): servers keep their flows and counts, what the
    /// monitors said of them, and what the operator wished unless the configuration wishes something else now. A server
    /// that has monitors now and had none before stays up until they say otherwise. Costs a copy of all states, and for
    /// each pool whose servers, weights or states are different what a change of health costs.
    pub fn lay_over(&mut self, old: &Snapshot, new: &Snapshot, seat: Seat) {
        let mut next = Balancer::bare(new, seat);
        for (index, (state, was)) in next.servers.iter_mut().zip(&self.servers).enumerate() {
            inherit(state, was, index, old, new);
        }
        next.note_limits();
        for (state, was) in next.servers.iter().zip(&self.servers) {
            if let Some(place) = state.place.filter(|_| state.place != was.place) {
                next.tokens.bring(place, state.status.flows);
            }
        }
        for index in 0..next.pools.len() {
            let id = u16::try_from(index).ok().map(PoolId);
            let since =
                |snapshot: &Snapshot| id.and_then(|id| snapshot.retired.given.pools.get(&id).copied());
            let was = self.pools.get_mut(index).filter(|_| since(old) == since(new));
            let same = was.is_some() && is_same(&self.servers, &next.servers, index, old, new);
            let Some(state) = next.pools.get_mut(index) else { continue };
            match was {
                // Whose turn it is, too.
                Some(was) if same => {
                    let limited = state.limited;
                    *state = PoolState { limited, ..std::mem::take(was) };
                }
                was => {
                    state.refused = was.map_or(0, |was| was.refused);
                    next.prepare_pool(new, index);
                }
            }
        }
        for (index, (credits, was)) in next.group_credits.iter_mut().zip(&self.group_credits).enumerate() {
            if old.pool_groups.get(index) == new.pool_groups.get(index) {
                credits.clone_from(was);
            }
        }
        // What it holds is the new one's now.
        std::mem::replace(self, next).rehearsal = true;
    }
}

fn inherit(state: &mut ServerState, was: &ServerState, index: usize, old: &Snapshot, new: &Snapshot) {
    let Some(id) = u16::try_from(index).ok().map(ServerId) else { return };
    let since = |snapshot: &Snapshot| snapshot.retired.given.servers.get(&id).copied();
    if since(old) != since(new) {
        // Another server has the place now.
        return;
    }
    (state.status.flows, state.status.total) = (was.status.flows, was.status.total);
    if old.retired.servers.contains(&id) && !new.retired.servers.contains(&id) {
        return;
    }
    let watched = new.pools.get(state.pool.index()).is_some_and(|pool| !pool.monitors.is_empty());
    if watched {
        state.status.healthy = was.status.healthy;
    }
    let wish = |snapshot: &Snapshot| snapshot.servers.get(index).map(|server| server.enabled);
    if wish(old) == wish(new) {
        state.status.enabled = was.status.enabled;
    }
}

/// True if nothing that a pool's choice depends on is different.
fn is_same(was: &[ServerState], now: &[ServerState], index: usize, old: &Snapshot, new: &Snapshot) -> bool {
    let (Some(before), Some(after)) = (old.pools.get(index), new.pools.get(index)) else { return false };
    let alike = |id: &ServerId| match (was.get(id.index()), now.get(id.index())) {
        (Some(was), Some(now)) => was.weight == now.weight && was.up() == now.up(),
        _ => false,
    };
    before.algorithm == after.algorithm && before.servers == after.servers && after.servers.iter().all(alike)
}

#[cfg(test)]
mod tests;
