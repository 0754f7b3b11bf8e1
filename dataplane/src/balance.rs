//! Chooses servers: states (healthy, enabled, open flows) and the algorithms of pools and pool groups.
//!
//! One [`Balancer`] per worker, built from a [`Snapshot`] and used with that snapshot only. The control thread finds
//! out about health and sends every change to every worker; a server of a pool with monitors is down until the
//! first good news, so that scripts which ask for its status are told the truth. Round robin, least connections and
//! groups count per worker; the client address hash gives the same answer on every worker and on every machine with
//! the same configuration and the same servers up.
//!
//! [`Balancer::pick`] does not allocate. It costs one pass over the members of the pool, for
//! [`Algorithm::SourceIpHash`] one table lookup. A change of health costs a pass over all servers and, for a pool with
//! that algorithm, a rebuild of its tables: some ten accesses per slot, 1021 slots for up to 10 servers of equal
//! weight, 65537 for more than 320.

mod maglev;

use std::net::IpAddr;

use crate::policy::Selection;
use crate::snapshot::{Algorithm, FailAction, PoolGroupId, PoolId, ServerId, Snapshot, Target};
use maglev::Maglev;

/// How many times [`FailAction::Pool`] is followed before a flow is refused.
pub const FAIL_ACTION_HOPS: usize = 4;

/// Address family, also the index of what is kept per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The one of a pair (IPv4, IPv6) that belongs to this family.
    fn choose<T>(self, [v4, v6]: [T; 2]) -> T {
        match self {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// Whom a server is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What the client address hash is about.
    address: IpAddr,
    /// Of the packets, and therefore of the server.
    family: Family,
}

impl Client {
    /// Somebody at `address` whose packets have the family of `vip`: not always that of the address, if a PROXY header
    /// names it.
    #[must_use]
    pub fn reached_at(address: IpAddr, vip: IpAddr) -> Self {
        Client { address, family: Family::of(vip) }
    }
}

impl From<IpAddr> for Client {
    /// Somebody whose packets come from this address.
    fn from(address: IpAddr) -> Self {
        Client { address, family: Family::of(address) }
    }
}

/// What a choice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The flow goes here.
    Server(ServerId),
    /// No server is up: end the flow like this. [`FailAction::Pool`] was followed already and never comes out.
    Failed(FailAction),
}

/// State of one server on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its monitors say that it works, or it has none.
    pub healthy: bool,
    /// It may take new flows.
    pub enabled: bool,
    /// Flows open now on this worker.
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
    /// What smooth weighted round robin owes this server.
    credit: i64,
}

impl ServerState {
    fn up(&self) -> bool {
        self.status.healthy && self.status.enabled
    }
}

/// A pool as this module sees it.
#[derive(Clone, Debug, Default)]
struct PoolState {
    /// Servers up, by family.
    up: [u16; 2],
    /// Place among the members at which least connections begins to look, so that ties are served in turn.
    turn: usize,
    /// Hash tables by family, where the pool's algorithm and its servers ask for one.
    maglev: [Option<Maglev>; 2],
}

/// Server states and choice; one per worker.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// By [`ServerId`].
    servers: Vec<ServerState>,
    /// By [`PoolId`].
    pools: Vec<PoolState>,
    /// What smooth weighted round robin owes the members of each group, by [`PoolGroupId`].
    group_credits: Vec<Vec<i64>>,
}

impl Balancer {
    /// For this configuration: servers of pools with monitors start as not healthy, others as healthy.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let servers = snapshot.servers.iter().map(|server| {
            let unwatched = snapshot.pools.get(server.pool.index()).is_none_or(|p| p.monitors.is_empty());
            ServerState {
                status: ServerStatus { healthy: unwatched, enabled: server.enabled, flows: 0, total: 0 },
                pool: server.pool,
                family: Family::of(server.address),
                weight: server.weight.max(1),
                credit: 0,
            }
        });
        let mut balancer = Balancer {
            servers: servers.collect(),
            pools: vec![PoolState::default(); snapshot.pools.len()],
            group_credits: snapshot.pool_groups.iter().map(|g| vec![0; g.members.len()]).collect(),
        };
        for (state, pool) in balancer.pools.iter_mut().zip(&snapshot.pools) {
            if pool.algorithm == Algorithm::SourceIpHash {
                let table = |v4: bool| Maglev::new(snapshot, &pool.servers, v4);
                state.maglev = [table(true), table(false)];
            }
        }
        for pool in 0..balancer.pools.len() {
            balancer.refresh_pool(pool);
        }
        balancer
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
        pool.up = [0; 2];
        let [up_v4, up_v6] = &mut pool.up;
        for server in self.servers.iter_mut().filter(|s| s.pool.index() == index) {
            server.credit = 0;
            if server.up() {
                let count = server.family.choose([&mut *up_v4, &mut *up_v6]);
                *count = count.saturating_add(1);
            }
        }
        let servers = &self.servers;
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
        let [v4, v6] = self.pools.get(pool.index()).map_or([0; 2], |p| p.up);
        (usize::from(v4) + usize::from(v6), total)
    }

    /// A flow to this server was opened.
    pub fn opened(&mut self, server: ServerId) {
        if let Some(state) = self.servers.get_mut(server.index()) {
            state.status.flows = state.status.flows.saturating_add(1);
            state.status.total = state.status.total.saturating_add(1);
        }
    }

    /// A flow to this server ended; exactly once for each [`Balancer::opened`].
    pub fn closed(&mut self, server: ServerId) {
        if let Some(state) = self.servers.get_mut(server.index()) {
            state.status.flows = state.status.flows.saturating_sub(1);
        }
    }

    /// Chooses the server of a flow from `client`: one that is up, of the address family of its packets, and not in
    /// `exclude` (those to which connecting failed). A pool without any is left by its `fail_action`, at most
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
        let client = client.into();
        let first = match target {
            Target::Pool(pool) => Some(pool),
            Target::PoolGroup(group) => self.pick_pool(snapshot, group, client, exclude),
        };
        let Some(mut pool) = first else { return Pick::Failed(FailAction::Reset) };
        for _ in 0..=FAIL_ACTION_HOPS {
            if let Some(server) = self.pick_server(snapshot, pool, client, exclude) {
                return Pick::Server(server);
            }
            match snapshot.pools.get(pool.index()).map(|p| p.fail_action) {
                Some(FailAction::Pool(next)) => pool = next,
                Some(action) => return Pick::Failed(action),
                None => break,
            }
        }
        Pick::Failed(FailAction::Reset)
    }

    /// As [`Balancer::pick`], for what a script chose. A server that the script named is taken if it is up, of the
    /// client's family and not in `exclude`; it is never replaced by another one: where its pool would go on to
    /// another pool, the flow ends in [`FailAction::Reset`].
    pub fn pick_selection(
        &mut self,
        snapshot: &Snapshot,
        selection: Selection,
        client: impl Into<Client>,
        exclude: &[ServerId],
    ) -> Pick {
        let client = client.into();
        let server = match selection {
            Selection::Pool(pool) => return self.pick(snapshot, Target::Pool(pool), client, exclude),
            Selection::PoolGroup(group) => {
                return self.pick(snapshot, Target::PoolGroup(group), client, exclude);
            }
            Selection::Server(server) => server,
        };
        let Some(state) = self.servers.get(server.index()) else { return Pick::Failed(FailAction::Reset) };
        if eligible(state, server, client.family, exclude) {
            return Pick::Server(server);
        }
        match snapshot.pools.get(state.pool.index()).map(|p| p.fail_action) {
            None | Some(FailAction::Pool(_)) => Pick::Failed(FailAction::Reset),
            Some(action) => Pick::Failed(action),
        }
    }

    /// The pool of a group that takes the next flow; when none can, the one whose `fail_action` counts.
    fn pick_pool(
        &mut self,
        snapshot: &Snapshot,
        group: PoolGroupId,
        client: Client,
        exclude: &[ServerId],
    ) -> Option<PoolId> {
        let members = &snapshot.pool_groups.get(group.index())?.members;
        let family = client.family;
        let takes = |balancer: &Self, pool| balancer.has_eligible(snapshot, pool, family, exclude);
        let offered = members.iter().filter(|m| m.ratio > 0);
        let Some(priority) = offered.clone().filter(|m| takes(self, m.pool)).map(|m| m.priority).max() else {
            let highest = offered.clone().map(|m| m.priority).max()?;
            return offered.clone().find(|m| m.priority == highest).map(|m| m.pool);
        };
        let mut total = 0i64;
        let mut best: Option<(usize, PoolId, i64)> = None;
        for (place, member) in members.iter().enumerate() {
            if member.ratio == 0 || member.priority != priority || !takes(self, member.pool) {
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

    /// True if the pool has a server for such a flow.
    fn has_eligible(&self, snapshot: &Snapshot, pool: PoolId, family: Family, exclude: &[ServerId]) -> bool {
        if self.pools.get(pool.index()).is_none_or(|p| family.choose(p.up) == 0) {
            return false;
        }
        exclude.is_empty()
            || snapshot.pools.get(pool.index()).is_some_and(|p| {
                p.servers
                    .iter()
                    .any(|&id| self.servers.get(id.index()).is_some_and(|s| eligible(s, id, family, exclude)))
            })
    }

    /// The server of a pool that takes the next flow, by the pool's algorithm.
    fn pick_server(
        &mut self,
        snapshot: &Snapshot,
        pool: PoolId,
        client: Client,
        exclude: &[ServerId],
    ) -> Option<ServerId> {
        let config = snapshot.pools.get(pool.index())?;
        let family = client.family;
        if !self.has_eligible(snapshot, pool, family, exclude) {
            return None;
        }
        match config.algorithm {
            Algorithm::RoundRobin => self.round_robin(&config.servers, family, exclude),
            Algorithm::LeastConnections => self.least_connections(pool, &config.servers, family, exclude),
            Algorithm::SourceIpHash => {
                let tables = &self.pools.get(pool.index())?.maglev;
                let [v4, v6] = tables;
                let table = family.choose([v4, v6]).as_ref()?;
                table.find(client.address, |server| !exclude.contains(&server)).or_else(|| {
                    config.servers.iter().copied().find(|&id| {
                        self.servers.get(id.index()).is_some_and(|s| eligible(s, id, family, exclude))
                    })
                })
            }
        }
    }

    /// Smooth weighted round robin: every server is owed its weight per choice, the one that is owed most is
    /// chosen and pays the weights of all.
    fn round_robin(
        &mut self,
        members: &[ServerId],
        family: Family,
        exclude: &[ServerId],
    ) -> Option<ServerId> {
        let mut total = 0i64;
        let mut best: Option<(ServerId, i64)> = None;
        for &id in members {
            let Some(server) = self.servers.get_mut(id.index()) else { continue };
            if !eligible(server, id, family, exclude) {
                continue;
            }
            server.credit = server.credit.saturating_add(i64::from(server.weight));
            total += i64::from(server.weight);
            if best.is_none_or(|(_, most)| server.credit > most) {
                best = Some((id, server.credit));
            }
        }
        let (id, _) = best?;
        let chosen = self.servers.get_mut(id.index())?;
        chosen.credit = chosen.credit.saturating_sub(total);
        Some(id)
    }

    /// The fewest open flows per weight; among equals the first one after the last choice.
    fn least_connections(
        &mut self,
        pool: PoolId,
        members: &[ServerId],
        family: Family,
        exclude: &[ServerId],
    ) -> Option<ServerId> {
        let state = self.pools.get_mut(pool.index())?;
        let (early, late) = members.split_at_checked(state.turn).unwrap_or((&[], members));
        let mut best: Option<(usize, ServerId, &ServerState)> = None;
        let in_turn = (state.turn..).zip(late).chain((0..).zip(early));
        for (place, &id) in in_turn {
            let Some(server) = self.servers.get(id.index()) else { continue };
            if eligible(server, id, family, exclude)
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

fn eligible(state: &ServerState, id: ServerId, family: Family, exclude: &[ServerId]) -> bool {
    state.up() && state.family == family && !exclude.contains(&id)
}

/// True if `a` has fewer open flows per weight than `b`.
fn fewer_flows(a: &ServerState, b: &ServerState) -> bool {
    u64::from(a.status.flows) * u64::from(b.weight) < u64::from(b.status.flows) * u64::from(a.weight)
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
