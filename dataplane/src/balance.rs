//! Chooses servers: states (healthy, enabled, open flows) and the algorithms of pools and pool groups.
//!
//! One [`Balancer`] per worker, built from a [`Snapshot`] and used with that snapshot only, until [`Balancer::lay_over`]. The control thread finds
//! out about health and sends every change to every worker; a server of a pool with monitors is down until the
//! first good news, so that scripts which ask for its status are told the truth. Round robin, least connections and
//! groups count per worker; the client address hash gives the same answer on every worker and on every machine with
//! the same configuration and the same servers up.
//!
//! A server with `max_connections` and as many flows, on all workers together, is full: it takes part in nothing until one
//! of them ends, as if it were down ([`crate::tokens`]). Whoever has picked a server calls [`Balancer::take`] before the
//! flow gets it, [`Balancer::opened`] when it has it, and [`Balancer::closed`] at its end, or at once if it did not get it.
//!
//! [`Balancer::pick`] does not allocate. It costs one pass over the members of the pool (for
//! [`Algorithm::RoundRobin`] those that are up), for [`Algorithm::SourceIpHash`] one table lookup. A change of health costs a pass over all servers and, for a pool with
//! that algorithm, a rebuild of its tables: some ten accesses per slot, 1021 slots for up to 10 servers of equal
//! weight, 65537 for more than 320.

mod algorithms;
mod apart;
mod choice;
mod client;
mod maglev;
mod overlay;
mod preference;

use crate::snapshot::{Algorithm, FailAction, Pool, PoolId, ServerId, Snapshot};
use crate::steering::Seat;
use crate::tokens::{Place, WorkerTokens};
pub use client::Client;
use client::Family;
use maglev::Maglev;
pub use preference::Preference;

/// How many times [`FailAction::Pool`] is followed before a flow is refused.
pub const FAIL_ACTION_HOPS: usize = 4;

/// Why no pool of a group takes a flow: the one whose `fail_action` counts, and one that is full, if any is.
type NoPool = (Option<PoolId>, Option<PoolId>);

/// What a choice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The flow goes here.
    Server(ServerId),
    /// No server is up: end the flow like this. [`FailAction::Pool`] was followed already and never comes out.
    Failed(FailAction),
    /// As [`Pick::Failed`], but this pool has servers that are up and full.
    Full(FailAction, PoolId),
}

/// What a server must be to be chosen.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    client: Client,
    /// Not one of these.
    exclude: &'a [ServerId],
    /// Servers for which this is true need no room for another flow; asked for full servers only.
    known: Option<&'a dyn Fn(ServerId) -> bool>,
}

/// State of one server on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its monitors say that it works, or it has none.
    pub healthy: bool,
    /// It may take new flows.
    pub enabled: bool,
    /// Flows open now on this worker, and those that are about to get the server.
    pub flows: u32,
    /// Flows opened since start on this worker.
    pub total: u64,
}

/// A server as this module sees it.
#[derive(Clone, Debug)]
struct ServerState {
    status: ServerStatus,
    pool: PoolId,
    family: Family,
    /// 1 to 256.
    weight: u16,
    /// Its tokens, if it has a limit.
    place: Option<Place>,
    /// It is one of its pool's servers: it was not removed from the configuration.
    member: bool,
}

impl PoolState {
    /// This pool before any of its servers is up.
    fn of(pool: &Pool) -> Self {
        let rotates = pool.algorithm == Algorithm::RoundRobin;
        PoolState { members: pool.servers.clone(), rotates, ..PoolState::default() }
    }
}

impl ServerState {
    fn up(&self) -> bool {
        self.status.healthy && self.status.enabled && self.member
    }
}

/// A server that is up, as smooth weighted round robin sees it.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// What it is owed.
    credit: i64,
    weight: u16,
    server: ServerId,
}

/// A pool as this module sees it.
#[derive(Clone, Debug, Default)]
struct PoolState {
    /// Its servers, in the order of the configuration.
    members: Vec<ServerId>,
    /// Those that are up, by family, in the same order.
    turns: [Vec<Turn>; 2],
    /// Place among the members at which least connections begins to look, so that ties are served in turn.
    turn: usize,
    /// Hash tables by family, where the pool's algorithm and its servers ask for one.
    maglev: [Option<Maglev>; 2],
    /// Its servers are chosen in turn.
    rotates: bool,
    /// A server of it has a limit.
    limited: bool,
    /// Flows that were refused because its servers were full.
    refused: u64,
}

/// Server states and choice; one per worker. Dropped, it gives the tokens of its flows back.
#[derive(Debug)]
pub struct Balancer {
    /// By [`ServerId`].
    servers: Vec<ServerState>,
    /// By [`PoolId`].
    pools: Vec<PoolState>,
    /// What smooth weighted round robin owes the members of each group, by [`crate::snapshot::PoolGroupId`].
    group_credits: Vec<Vec<i64>>,
    tokens: WorkerTokens,
    seat: Seat,
    /// A copy for questions: the flows that it counts are not its own.
    rehearsal: bool,
}

impl Balancer {
    /// For this configuration on a worker that is alone: servers of pools with monitors start as not healthy, others as
    /// healthy.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        Balancer::on(snapshot, Seat::ALONE)
    }

    /// As [`Balancer::new`], for one of the workers that share the limits of this very snapshot.
    #[must_use]
    pub fn on(snapshot: &Snapshot, seat: Seat) -> Self {
        let mut balancer = Balancer::bare(snapshot, seat);
        balancer.note_limits();
        for pool in 0..balancer.pools.len() {
            balancer.prepare_pool(snapshot, pool);
        }
        balancer
    }

    /// The servers of a configuration; nothing is known of their pools.
    fn bare(snapshot: &Snapshot, seat: Seat) -> Self {
        let servers = snapshot.servers.iter().map(|server| {
            let unwatched = snapshot.pools.get(server.pool.index()).is_none_or(|p| p.monitors.is_empty());
            ServerState {
                status: ServerStatus { healthy: unwatched, enabled: server.enabled, flows: 0, total: 0 },
                pool: server.pool,
                family: Family::of(server.address),
                weight: server.weight.max(1),
                place: None,
                member: false,
            }
        });
        let mut servers: Vec<ServerState> = servers.collect();
        for id in snapshot.pools.iter().flat_map(|pool| &pool.servers) {
            if let Some(state) = servers.get_mut(id.index()) {
                state.member = true;
            }
        }
        let mut balancer = Balancer {
            servers,
            pools: snapshot.pools.iter().map(PoolState::of).collect(),
            group_credits: snapshot.pool_groups.iter().map(|g| vec![0; g.members.len()]).collect(),
            tokens: WorkerTokens::new(snapshot, seat),
            seat,
            rehearsal: false,
        };
        balancer.begin_apart(snapshot);
        balancer
    }

    /// Makes what is kept of a pool, but for its limits.
    fn prepare_pool(&mut self, snapshot: &Snapshot, index: usize) {
        if let (Some(state), Some(pool)) = (self.pools.get_mut(index), snapshot.pools.get(index))
            && pool.algorithm == Algorithm::SourceIpHash
        {
            let table = |v4: bool| Maglev::new(snapshot, &pool.servers, v4);
            state.maglev = [table(true), table(false)];
        }
        self.refresh_pool(index);
    }

    /// A copy that may be asked for choices, which do not count then. It looks at the same tokens and owns none: do not
    /// open or close flows on it.
    #[must_use]
    pub fn rehearsal(&self) -> Balancer {
        Balancer {
            servers: self.servers.clone(),
            pools: self.pools.clone(),
            group_credits: self.group_credits.clone(),
            tokens: self.tokens.clone(),
            seat: self.seat,
            rehearsal: true,
        }
    }

    /// Takes over how the servers of another balancer of the same configuration are, and whose turn it is; not its tokens:
    /// a server that is full there counts as disabled here.
    pub fn imitate(&mut self, other: &Balancer) {
        for (index, (own, its)) in self.servers.iter_mut().zip(&other.servers).enumerate() {
            let full = u16::try_from(index).is_ok_and(|id| !other.is_available(ServerId(id)));
            own.status = its.status;
            own.status.enabled &= !(full && its.up());
        }
        for pool in 0..self.pools.len() {
            self.refresh_pool(pool);
        }
        for (own, its) in self.pools.iter_mut().zip(&other.pools) {
            own.turn = its.turn;
            for (turns, theirs) in own.turns.iter_mut().zip(&its.turns) {
                // No server is up here that is not up there.
                let mut theirs = theirs.iter();
                for turn in turns {
                    let same = theirs.by_ref().find(|their| their.server == turn.server);
                    turn.credit = same.map_or(turn.credit, |same| same.credit);
                }
            }
        }
        self.group_credits.clone_from(&other.group_credits);
    }

    fn note_limits(&mut self) {
        for (server, place) in self.tokens.places() {
            let Some(state) = self.servers.get_mut(server.index()) else { continue };
            state.place = Some(place);
            if let Some(pool) = self.pools.get_mut(state.pool.index()) {
                pool.limited = true;
            }
        }
    }

    /// What the monitors found out. Unknown servers are ignored.
    pub fn set_health(&mut self, server: ServerId, up: bool) {
        self.change(server, |status| status.healthy = up);
    }

    /// What the operator wants. A server that is disabled keeps its flows and takes no new ones.
    pub fn set_enabled(&mut self, server: ServerId, enabled: bool) {
        self.change(server, |status| status.enabled = enabled);
    }

    fn change(&mut self, server: ServerId, change: impl FnOnce(&mut ServerStatus)) {
        let Some(state) = self.servers.get_mut(server.index()) else { return };
        let before = state.up();
        change(&mut state.status);
        let pool = state.pool.index();
        if state.up() != before {
            self.refresh_pool(pool);
        }
    }

    /// Brings what is kept per pool in line with the states of its servers.
    fn refresh_pool(&mut self, index: usize) {
        let Some(pool) = self.pools.get_mut(index) else { return };
        let servers = &self.servers;
        for family in [Family::V4, Family::V6] {
            let turn = |id: &ServerId| {
                let state = servers.get(id.index()).filter(|state| state.up() && state.family == family)?;
                Some(Turn { credit: 0, weight: state.weight, server: *id })
            };
            let turns = family.choose(pool.turns.each_mut());
            *turns = pool.members.iter().filter_map(turn).collect();
            apart::begin_turns(self.seat, turns);
        }
        for table in pool.maglev.iter_mut().flatten() {
            table.rebuild(|server| servers.get(server.index()).is_some_and(ServerState::up));
        }
    }

    /// True if the server is healthy and enabled.
    #[must_use]
    pub fn is_up(&self, server: ServerId) -> bool {
        self.servers.get(server.index()).is_some_and(ServerState::up)
    }

    /// State of a server; nothing but `false` and 0 for an unknown one.
    #[must_use]
    pub fn status(&self, server: ServerId) -> ServerStatus {
        self.servers.get(server.index()).map(|s| s.status).unwrap_or_default()
    }

    /// Number of servers of a pool that are up, and of all of them, both families together.
    #[must_use]
    pub fn servers_up(&self, snapshot: &Snapshot, pool: PoolId) -> (usize, usize) {
        let total = snapshot.pools.get(pool.index()).map_or(0, |p| p.servers.len());
        let up = self.pools.get(pool.index()).map_or(0, |pool| pool.turns.iter().map(Vec::len).sum());
        (up, total)
    }

    /// True if the server is up and has room for a flow.
    #[must_use]
    pub fn is_available(&self, server: ServerId) -> bool {
        self.servers.get(server.index()).is_some_and(|s| s.up() && s.place.is_none_or(|p| self.tokens.any(p)))
    }

    /// How many flows a server with a limit may still have, all workers together; exact only while they are at rest.
    #[must_use]
    pub fn room(&self, server: ServerId) -> Option<u64> {
        self.servers.get(server.index())?.place.map(|place| self.tokens.spare(place))
    }

    /// Takes the room for a flow to this server. `false`: there is none, another worker was faster.
    #[must_use]
    pub fn take(&mut self, server: ServerId) -> bool {
        let Some(state) = self.servers.get_mut(server.index()) else { return true };
        if state.place.is_some_and(|place| !self.tokens.take(place)) {
            return false;
        }
        state.status.flows = state.status.flows.saturating_add(1);
        true
    }

    /// The flow for which room was taken has the server.
    pub fn opened(&mut self, server: ServerId) {
        if let Some(state) = self.servers.get_mut(server.index()) {
            state.status.total = state.status.total.saturating_add(1);
        }
    }

    /// The flow has ended, or did not come about; exactly once for each [`Balancer::take`] that was true.
    pub fn closed(&mut self, server: ServerId) {
        let Some(state) = self.servers.get_mut(server.index()).filter(|state| state.status.flows > 0) else {
            return;
        };
        state.status.flows -= 1;
        if let Some(place) = state.place {
            self.tokens.give(place, 1);
        }
    }

    /// A flow was refused because this pool's servers are full.
    pub fn refused(&mut self, pool: PoolId) {
        if let Some(state) = self.pools.get_mut(pool.index()) {
            state.refused += 1;
        }
    }

    /// Flows that were refused because this pool's servers were full, on this worker.
    #[must_use]
    pub fn refusals(&self, pool: PoolId) -> u64 {
        self.pools.get(pool.index()).map_or(0, |state| state.refused)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if self.rehearsal {
            return;
        }
        for state in &self.servers {
            if let Some(place) = state.place {
                self.tokens.give(place, state.status.flows);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod spread_tests;
#[cfg(test)]
mod tests;
