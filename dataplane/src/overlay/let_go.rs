//! What nobody needs any more, and then nobody names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::is_empty;
use crate::snapshot::{
    FailAction, Pool, PoolGroupId, PoolId, ScriptSet, ScriptSetId, ServerId, Service, ServiceId, Snapshot,
    Target,
};

/// What of the [`Retired`](super::Retired) somebody names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Flows began by them.
    pub services: BTreeSet<ServiceId>,
    /// Flows have them, or have tried them, or are about to get them.
    pub servers: BTreeSet<ServerId>,
    /// Flows may still choose of them.
    pub pools: BTreeSet<PoolId>,
    /// Flows may still choose of them.
    pub pool_groups: BTreeSet<PoolGroupId>,
    /// Their tables have entries.
    pub tables: BTreeSet<ServiceId>,
}

impl InUse {
    /// Adds what another worker, or another part of a worker, names.
    pub fn add(&mut self, other: InUse) {
        self.services.extend(other.services);
        self.servers.extend(other.servers);
        self.pools.extend(other.pools);
        self.pool_groups.extend(other.pool_groups);
        self.tables.extend(other.tables);
    }

    /// Names all retired things and nothing else: what is known before anybody was asked.
    #[must_use]
    pub fn everything(snapshot: &Snapshot) -> InUse {
        let retired = &snapshot.retired;
        InUse {
            services: retired.services.clone(),
            servers: retired.servers.clone(),
            pools: retired.pools.clone(),
            pool_groups: retired.pool_groups.clone(),
            tables: retired.services.clone(),
        }
    }
}

/// Empties what is not needed any more in `out`, which is laid over `old`, and lets go what nobody names. Only what was retired in
/// `old` already can be named by nobody: as long as something is live flows may get it. And only what no service with
/// flows leads to: they might still choose it.
pub(super) fn let_go(old: &Snapshot, out: &mut Snapshot, in_use: &InUse) {
    empty_services(old, out, in_use);
    let_sets_go(out);
    let_services_go(out, in_use);
    let reach = Reach::new([old, out], in_use);
    let_pools_go(old, out, in_use, &reach);
    let_servers_go(old, out, in_use);
}

/// Nobody needs what is inside of retired services without flows.
fn empty_services(old: &Snapshot, out: &mut Snapshot, in_use: &InUse) {
    let departing: Vec<ServiceId> = old.departing().filter(|id| !in_use.services.contains(id)).collect();
    let still_retired = &out.retired.services;
    for id in departing.iter().filter(|id| still_retired.contains(id)) {
        let Some(service) = out.services.get_mut(id.index()) else { continue };
        (service.addresses, service.ports, service.script_sets) = (Vec::new(), Vec::new(), Vec::new());
        service.default = None;
    }
}

/// Retired sets that no service has.
fn let_sets_go(out: &mut Snapshot) {
    let needed: BTreeSet<ScriptSetId> =
        out.services.iter().flat_map(|service| service.script_sets.iter().copied()).collect();
    for id in out.retired.script_sets.difference(&needed) {
        let Some(set) = out.script_sets.get_mut(id.index()) else { continue };
        *set = ScriptSet {
            name: std::mem::take(&mut set.name),
            request: None,
            response: None,
            pools: Vec::new(),
            pool_groups: Vec::new(),
            parsers: Vec::new(),
        };
        note(&mut out.retired.spare.script_sets, *id, out.retired.generation);
    }
}

/// Retired services that are empty; of one whose tables are those of others of its name, when these are let go.
fn let_services_go(out: &mut Snapshot, in_use: &InUse) {
    let owners = out.table_owners();
    let mut sharing: HashMap<ServiceId, usize> = HashMap::new();
    for (owner, id) in owners.iter().zip((0..).map(ServiceId)) {
        let spare = out.retired.spare.services.contains_key(&id);
        *sharing.entry(*owner).or_default() += usize::from(!spare);
    }
    for id in &out.retired.services {
        let empty = out.services.get(id.index()).is_some_and(is_empty);
        let owns = owners.get(id.index()) == Some(id);
        let shared = owns && (sharing.get(id).is_some_and(|all| *all > 1) || in_use.tables.contains(id));
        if empty && !shared && !in_use.services.contains(id) {
            note(&mut out.retired.spare.services, *id, out.retired.generation);
        }
    }
}

/// Retired pools and pool groups that nothing leads to.
fn let_pools_go(old: &Snapshot, out: &mut Snapshot, in_use: &InUse, reach: &Reach) {
    let busy: BTreeSet<PoolId> = in_use
        .servers
        .iter()
        .filter_map(|id| out.servers.get(id.index()))
        .map(|server| server.pool)
        .collect();
    let generation = out.retired.generation;
    for id in out.retired.pools.intersection(&old.retired.pools) {
        let Some(pool) = out.pools.get_mut(id.index()) else { continue };
        if reach.pools.contains(id) || busy.contains(id) {
            continue;
        }
        pool.servers = Vec::new();
        pool.monitors = Vec::new();
        pool.fail_action = FailAction::Reset;
        note(&mut out.retired.spare.pools, *id, generation);
    }
    for id in out.retired.pool_groups.intersection(&old.retired.pool_groups) {
        let Some(group) = out.pool_groups.get_mut(id.index()).filter(|_| !reach.groups.contains(id)) else {
            continue;
        };
        group.members = Vec::new();
        note(&mut out.retired.spare.pool_groups, *id, generation);
    }
}

/// Retired servers that are in no pool.
fn let_servers_go(old: &Snapshot, out: &mut Snapshot, in_use: &InUse) {
    let members: BTreeSet<ServerId> =
        out.pools.iter().flat_map(|pool| pool.servers.iter().copied()).collect();
    for id in out.retired.servers.intersection(&old.retired.servers) {
        let free = !members.contains(id) && !in_use.servers.contains(id);
        let Some(server) = out.servers.get_mut(id.index()).filter(|_| free) else { continue };
        (server.max_connections, server.hostname) = (None, None);
        note(&mut out.retired.spare.servers, *id, out.retired.generation);
    }
}

fn note<T: Ord>(spare: &mut BTreeMap<T, u32>, id: T, generation: u32) {
    spare.entry(id).or_insert(generation);
}

/// What flows may still be given to.
#[derive(Default)]
struct Reach {
    pools: BTreeSet<PoolId>,
    groups: BTreeSet<PoolGroupId>,
}

impl Reach {
    /// From the services that have flows or may get some, and from what flows have chosen already.
    fn new(snapshots: [&Snapshot; 2], in_use: &InUse) -> Self {
        let mut reach = Reach { pools: in_use.pools.clone(), groups: in_use.pool_groups.clone() };
        for snapshot in snapshots {
            for service in snapshot.services.iter().filter(|service| !is_empty(service)) {
                reach.pools.extend(snapshot.pools_of(service));
                reach.groups.extend(groups_of(snapshot, service));
            }
            let groups = reach.groups.iter().filter_map(|id| snapshot.pool_groups.get(id.index()));
            reach.pools.extend(groups.flat_map(|group| group.members.iter().map(|member| member.pool)));
            reach.follow(snapshot);
        }
        reach
    }

    /// Where pools without a server that is up send their flows.
    fn follow(&mut self, snapshot: &Snapshot) {
        let mut pools: Vec<PoolId> = self.pools.iter().copied().collect();
        while let Some(id) = pools.pop() {
            if let Some(Pool { fail_action: FailAction::Pool(next), .. }) = snapshot.pools.get(id.index())
                && self.pools.insert(*next)
            {
                pools.push(*next);
            }
        }
    }
}

/// The pool groups that flows of a service may choose of.
fn groups_of(snapshot: &Snapshot, service: &Service) -> BTreeSet<PoolGroupId> {
    let sets = service.script_sets.iter().filter_map(|id| snapshot.script_sets.get(id.index()));
    let default = match service.default {
        Some(Target::PoolGroup(group)) => Some(group),
        _ => None,
    };
    sets.flat_map(|set| set.pool_groups.iter().copied()).chain(default).collect()
}
