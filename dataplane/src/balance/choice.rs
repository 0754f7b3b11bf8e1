//! The choice of a server: what was selected, pools and groups, and where a flow goes that its pool cannot take.

use super::algorithms::next_in_turn;
use super::{Balancer, Client, FAIL_ACTION_HOPS, NoPool, Pick, ServerState, Wanted};
use crate::policy::Selection;
use crate::snapshot::{FailAction, PoolGroupId, PoolId, ServerId, Snapshot, Target};
use crate::tokens::WorkerTokens;

/// How often the pools of a group are looked through while other workers take the room that was seen.
const GROUP_LOOKS: usize = 64;

impl Balancer {
    /// Chooses the server of a flow from `client`: one that is up and not full, of the address family of its packets, and
    /// not in `exclude` (those to which connecting failed). A pool without any is left by its `fail_action`, at most
    /// [`FAIL_ACTION_HOPS`] times; a chain that is longer ends in [`FailAction::Reset`].
    ///
    /// A group without any pool to choose fails as its first pool of the highest priority does.
    pub fn pick(
        &mut self,
        snapshot: &Snapshot,
        target: Target,
        client: impl Into<Client>,
        exclude: &[ServerId],
    ) -> Pick {
        self.pick_among(snapshot, target, &Wanted { client: client.into(), exclude, known: None })
    }

    /// What [`Balancer::pick`] and then [`Balancer::take`] come to for most flows: any server of a pool that has its servers in
    /// turn and no limits. `None`, and nothing done, where more has to be looked at.
    #[inline]
    pub fn take_next(&mut self, pool: PoolId, client: Client) -> Option<ServerId> {
        let state = self.pools.get_mut(pool.index()).filter(|state| state.rotates && !state.limited)?;
        let turns = client.family.choose(state.turns.each_mut());
        let server = next_in_turn(turns, |_| true)?;
        let status = &mut self.servers.get_mut(server.index())?.status;
        status.flows = status.flows.saturating_add(1);
        Some(server)
    }

    /// As [`Balancer::pick`], for what a script chose. A server that the script named is taken if it is up and not full, of
    /// the client's family and not in `exclude`; it is never replaced by another one: where its pool would go on to
    /// another pool, the flow ends in [`FailAction::Reset`].
    pub fn pick_selection(
        &mut self,
        snapshot: &Snapshot,
        selection: Selection,
        client: impl Into<Client>,
        exclude: &[ServerId],
    ) -> Pick {
        self.pick_selected(snapshot, selection, &Wanted { client: client.into(), exclude, known: None })
    }

    /// As [`Balancer::pick_selection`], for a datagram that is balanced by itself: a server for which `known` is true has a
    /// flow for it already, so it may be full.
    pub fn pick_for_datagram(
        &mut self,
        snapshot: &Snapshot,
        selection: Selection,
        client: impl Into<Client>,
        exclude: &[ServerId],
        known: &dyn Fn(ServerId) -> bool,
    ) -> Pick {
        let wanted = Wanted { client: client.into(), exclude, known: Some(known) };
        self.pick_selected(snapshot, selection, &wanted)
    }

    fn pick_among(&mut self, snapshot: &Snapshot, target: Target, wanted: &Wanted<'_>) -> Pick {
        let (mut pool, mut full) = match target {
            Target::Pool(pool) => (pool, None),
            Target::PoolGroup(group) => match self.pick_in_group(snapshot, group, wanted) {
                Ok(server) => return Pick::Server(server),
                Err((Some(failing), full)) => (failing, full),
                Err((None, _)) => return Pick::Failed(FailAction::Reset),
            },
        };
        let mut end = FailAction::Reset;
        for _ in 0..=FAIL_ACTION_HOPS {
            if let Some(server) = self.pick_server(snapshot, pool, wanted) {
                return Pick::Server(server);
            }
            full = full.or_else(|| self.has_full(snapshot, pool, wanted).then_some(pool));
            match snapshot.pools.get(pool.index()).map(|p| p.fail_action) {
                Some(FailAction::Pool(next)) => pool = next,
                Some(action) => {
                    end = action;
                    break;
                }
                None => break,
            }
        }
        full.map_or(Pick::Failed(end), |pool| Pick::Full(end, pool))
    }

    fn pick_selected(&mut self, snapshot: &Snapshot, selection: Selection, wanted: &Wanted<'_>) -> Pick {
        let server = match selection {
            Selection::Pool(pool) => return self.pick_among(snapshot, Target::Pool(pool), wanted),
            Selection::PoolGroup(group) => {
                return self.pick_among(snapshot, Target::PoolGroup(group), wanted);
            }
            Selection::Server(server) => server,
        };
        let Some(state) = self.servers.get(server.index()) else { return Pick::Failed(FailAction::Reset) };
        if wanted.takes(state, server, &self.tokens) {
            return Pick::Server(server);
        }
        let end = match snapshot.pools.get(state.pool.index()).map(|p| p.fail_action) {
            None | Some(FailAction::Pool(_)) => FailAction::Reset,
            Some(action) => action,
        };
        if wanted.would_take(state, server) { Pick::Full(end, state.pool) } else { Pick::Failed(end) }
    }

    /// A server of the pool of a group that takes the next flow. Another worker may take a pool's last room between the
    /// choice of the pool and that of its server: then all are looked at again.
    fn pick_in_group(
        &mut self,
        snapshot: &Snapshot,
        group: PoolGroupId,
        wanted: &Wanted<'_>,
    ) -> Result<ServerId, NoPool> {
        let mut failed = (None, None);
        for _ in 0..GROUP_LOOKS {
            let pool = self.pick_pool(snapshot, group, wanted)?;
            if let Some(server) = pool.and_then(|pool| self.pick_server(snapshot, pool, wanted)) {
                return Ok(server);
            }
            failed = (pool.or(failed.0), pool.or(failed.1));
        }
        Err(failed)
    }

    /// The pool of a group that takes the next flow; `None` if it has lost its last room while it was chosen.
    fn pick_pool(
        &mut self,
        snapshot: &Snapshot,
        group: PoolGroupId,
        wanted: &Wanted<'_>,
    ) -> Result<Option<PoolId>, NoPool> {
        let Some(members) = snapshot.pool_groups.get(group.index()).map(|group| &group.members) else {
            return Err((None, None));
        };
        let offered = members.iter().filter(|m| m.ratio > 0);
        let able = offered.clone().filter(|m| self.has_eligible(snapshot, m.pool, wanted));
        let Some(priority) = able.map(|m| m.priority).max() else {
            let highest = offered.clone().map(|m| m.priority).max();
            let failing = offered.clone().find(|m| Some(m.priority) == highest).map(|m| m.pool);
            let full = offered.map(|m| m.pool).find(|pool| self.has_full(snapshot, *pool, wanted));
            return Err((failing, full));
        };
        Ok(self.share_by_ratio(snapshot, group, priority, wanted))
    }

    /// True if the pool has a server for such a flow.
    pub(super) fn has_eligible(&self, snapshot: &Snapshot, pool: PoolId, wanted: &Wanted<'_>) -> bool {
        let Some(state) = self.pools.get(pool.index()) else { return false };
        if wanted.client.family.choose(state.turns.each_ref()).is_empty() {
            return false;
        }
        if wanted.exclude.is_empty() && !state.limited {
            return true;
        }
        self.any_member(snapshot, pool, |state, id| wanted.takes(state, id, &self.tokens))
    }

    /// True if the pool, which has no eligible server, has one that would be eligible if it were not full.
    fn has_full(&self, snapshot: &Snapshot, pool: PoolId, wanted: &Wanted<'_>) -> bool {
        let limited = self.pools.get(pool.index()).is_some_and(|state| state.limited);
        limited && self.any_member(snapshot, pool, |state, id| wanted.would_take(state, id))
    }

    fn any_member(
        &self,
        snapshot: &Snapshot,
        pool: PoolId,
        is: impl Fn(&ServerState, ServerId) -> bool,
    ) -> bool {
        let members = snapshot.pools.get(pool.index()).map_or(&[][..], |pool| &pool.servers);
        members.iter().any(|&id| self.servers.get(id.index()).is_some_and(|state| is(state, id)))
    }
}

impl Wanted<'_> {
    /// True if the server is eligible, unless it is full.
    fn would_take(&self, state: &ServerState, id: ServerId) -> bool {
        state.up() && state.family == self.client.family && !self.exclude.contains(&id)
    }

    /// True if the server is eligible.
    pub(super) fn takes(&self, state: &ServerState, id: ServerId, tokens: &WorkerTokens) -> bool {
        self.would_take(state, id)
            && state
                .place
                .is_none_or(|place| tokens.any(place) || self.known.is_some_and(|is_known| is_known(id)))
    }
}
