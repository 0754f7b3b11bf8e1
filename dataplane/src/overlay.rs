//! One configuration laid over another: what a reload makes for the workers.
//!
//! Flows, tables, counters, monitors and runs of scripts refer to things by their places in the lists of a
//! [`Snapshot`]. So a reload does not use the new configuration as it was read but [`Snapshot::overlaid`]: the new one with
//! all that there was before in its place.
//!
//! - A pool and a pool group are known by their names, a server by its pool, address and port: the same name has the same
//!   place, with what the new configuration says of it. Balancing is asked about flows that begin, and these go by the new
//!   one.
//! - A service and a DataScript set are what flows ask later on: for timeouts, for scripts. If anything about one is
//!   different it gets a new place, and the old one stays as it was, for the flows that began there.
//! - What is not in the new configuration is [`Retired`]: it stays in its place, complete, without VIPs for new flows and
//!   without being in anybody's choice. One that comes back takes its place again.
//!
//! Places are never given to something else. A retired service to which no flow refers any more is emptied, with the sets
//! that only it had.

mod changes;
mod places;

use std::collections::BTreeSet;

use crate::snapshot::{
    FailAction, Pool, PoolGroupId, PoolId, ScriptSet, ScriptSetId, Server, ServerId, Service, ServiceId,
    Snapshot,
};
use crate::tokens::SharedTokens;
pub use changes::{Changes, Differences};
use places::{Places, in_order, put, retire, socket, versions};

/// What earlier configurations had and the present one has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Also each earlier state of a service that was changed.
    pub services: BTreeSet<ServiceId>,
    /// Pools.
    pub pools: BTreeSet<PoolId>,
    /// Servers; their pools may be there.
    pub servers: BTreeSet<ServerId>,
    /// Pool groups.
    pub pool_groups: BTreeSet<PoolGroupId>,
    /// Also each earlier state of a set that was changed.
    pub script_sets: BTreeSet<ScriptSetId>,
}

/// No place is left: too many different things since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("since the start of weir there were more than {MOST} different {0}, which needs a restart")]
pub struct Exhausted(&'static str);

/// Places in a list.
const MOST: usize = 65_535;

impl Snapshot {
    /// `next`, which was just read, with all that this configuration has in its place, and what is different. Interfaces,
    /// routes, SNAT pool and limits stay those of this one. `used` are those of [`Snapshot::departing`] that have flows.
    ///
    /// # Errors
    /// When there is no place left.
    pub fn overlaid(
        &self,
        next: &Snapshot,
        used: &BTreeSet<ServiceId>,
    ) -> Result<(Snapshot, Changes), Exhausted> {
        let places = Places::new(self, next)?;
        let mut laid = Laid { out: self.clone(), changes: Changes::default(), old: self, places };
        laid.pools(next);
        laid.servers(next);
        laid.groups(next);
        let sets = laid.sets(next)?;
        laid.services(next, &sets)?;
        laid.empty_unused(used);
        laid.out.tokens = SharedTokens::overlaid(self, &laid.out);
        Ok((laid.out, laid.changes))
    }

    /// Retired services that may have flows.
    pub fn departing(&self) -> impl Iterator<Item = ServiceId> {
        let there = |id: &ServiceId| self.services.get(id.index()).is_some_and(|s| !is_empty(s));
        self.retired.services.iter().copied().filter(there)
    }
}

/// Nothing is left of it but its name.
fn is_empty(service: &Service) -> bool {
    service.addresses.is_empty() && service.ports.is_empty() && service.script_sets.is_empty()
}

/// A new configuration in the making.
struct Laid<'a> {
    old: &'a Snapshot,
    out: Snapshot,
    changes: Changes,
    places: Places,
}

impl Laid<'_> {
    fn pools(&mut self, next: &Snapshot) {
        let old = self.old;
        let fail_action = |places: &Places, action| match action {
            FailAction::Pool(pool) => FailAction::Pool(places.pool(pool)),
            other => other,
        };
        for (pool, place) in next.pools.iter().zip(self.places.pools.clone()) {
            let servers = pool.servers.iter().map(|server| self.places.server(*server)).collect();
            let fail_action = fail_action(&self.places, pool.fail_action);
            let pool = Pool { servers, fail_action, ..pool.clone() };
            let before = old.pools.get(usize::from(place));
            let before = before.filter(|_| !old.retired.pools.contains(&PoolId(place)));
            let same = before.map(|before| {
                let alike = Pool { servers: before.servers.clone(), ..pool.clone() } == *before;
                alike && in_order(&before.servers, &pool.servers)
            });
            self.changes.pools.note(same, || pool.name.clone());
            put(&mut self.out.pools, place, pool);
        }
        let live: BTreeSet<PoolId> = self.places.pools.iter().copied().map(PoolId).collect();
        let retired = &mut self.out.retired.pools;
        *retired = retire(self.out.pools.len(), PoolId, &live);
        let removed = retired.difference(&old.retired.pools).filter_map(|id| old.pools.get(id.index()));
        self.changes.pools.removed = removed.map(|pool| pool.name.clone()).collect();
    }

    /// After the pools: that of each server has its place.
    fn servers(&mut self, next: &Snapshot) {
        let old = self.old;
        for (server, place) in next.servers.iter().zip(self.places.servers.clone()) {
            let server = Server { pool: self.places.pool(server.pool), ..server.clone() };
            let before = old.servers.get(usize::from(place));
            let before = before.filter(|_| !old.retired.servers.contains(&ServerId(place)));
            let same = before.map(|before| server == *before);
            let pools = &self.out.pools;
            self.changes.servers.note(same, || title(pools, &server));
            put(&mut self.out.servers, place, server);
        }
        let live: BTreeSet<ServerId> = self.places.servers.iter().copied().map(ServerId).collect();
        let retired = &mut self.out.retired.servers;
        *retired = retire(self.out.servers.len(), ServerId, &live);
        let removed = retired.difference(&old.retired.servers).filter_map(|id| old.servers.get(id.index()));
        self.changes.servers.removed = removed.map(|server| title(&old.pools, server)).collect();
    }

    fn groups(&mut self, next: &Snapshot) {
        let old = self.old;
        for (group, place) in next.pool_groups.iter().zip(self.places.groups.clone()) {
            let mut group = group.clone();
            group.members.iter_mut().for_each(|member| member.pool = self.places.pool(member.pool));
            let before = old.pool_groups.get(usize::from(place));
            let before = before.filter(|_| !old.retired.pool_groups.contains(&PoolGroupId(place)));
            self.changes.pool_groups.note(before.map(|before| group == *before), || group.name.clone());
            put(&mut self.out.pool_groups, place, group);
        }
        let live: BTreeSet<PoolGroupId> = self.places.groups.iter().copied().map(PoolGroupId).collect();
        let retired = &mut self.out.retired.pool_groups;
        *retired = retire(self.out.pool_groups.len(), PoolGroupId, &live);
        let removed = retired.difference(&old.retired.pool_groups);
        let removed = removed.filter_map(|id| old.pool_groups.get(id.index()));
        self.changes.pool_groups.removed = removed.map(|group| group.name.clone()).collect();
    }

    /// The places of the sets, by those in the new configuration.
    fn sets(&mut self, next: &Snapshot) -> Result<Vec<ScriptSetId>, Exhausted> {
        let places = &self.places;
        let sets = next.script_sets.iter().map(|set| ScriptSet {
            pools: set.pools.iter().map(|pool| places.pool(*pool)).collect(),
            pool_groups: set.pool_groups.iter().map(|group| places.group(*group)).collect(),
            ..set.clone()
        });
        let name = |set: &ScriptSet| set.name.clone();
        let was = |place| !self.old.retired.script_sets.contains(&ScriptSetId(place));
        let list = &mut self.out.script_sets;
        let (places, differences) = versions(list, sets, name, was, "DataScript sets")?;
        let live = places.iter().copied().map(ScriptSetId).collect();
        self.out.retired.script_sets = retire(self.out.script_sets.len(), ScriptSetId, &live);
        self.changes.script_sets = differences;
        Ok(places.into_iter().map(ScriptSetId).collect())
    }

    fn services(&mut self, next: &Snapshot, sets: &[ScriptSetId]) -> Result<(), Exhausted> {
        let places = &self.places;
        let set = |set: &ScriptSetId| sets.get(set.index()).copied().unwrap_or(*set);
        let services = next.services.iter().map(|service| Service {
            default: service.default.map(|target| places.target(target)),
            script_sets: service.script_sets.iter().map(set).collect(),
            ..service.clone()
        });
        let name = |service: &Service| service.name.clone();
        let was = |place| !self.old.retired.services.contains(&ServiceId(place));
        let list = &mut self.out.services;
        let (places, differences) = versions(list, services, name, was, "virtual services")?;
        let live = places.into_iter().map(ServiceId).collect();
        self.out.retired.services = retire(self.out.services.len(), ServiceId, &live);
        self.changes.services = differences;
        Ok(())
    }

    /// Nobody needs what is inside of retired services without flows, and of retired sets without services.
    fn empty_unused(&mut self, used: &BTreeSet<ServiceId>) {
        let departing: Vec<ServiceId> = self.old.departing().filter(|id| !used.contains(id)).collect();
        let still_retired = &self.out.retired.services;
        for id in departing.iter().filter(|id| still_retired.contains(id)) {
            let Some(service) = self.out.services.get_mut(id.index()) else { continue };
            (service.addresses, service.ports, service.script_sets) = (Vec::new(), Vec::new(), Vec::new());
        }
        let needed: BTreeSet<ScriptSetId> =
            self.out.services.iter().flat_map(|service| service.script_sets.iter().copied()).collect();
        for id in self.out.retired.script_sets.difference(&needed) {
            let Some(set) = self.out.script_sets.get_mut(id.index()) else { continue };
            *set = ScriptSet {
                name: std::mem::take(&mut set.name),
                request: None,
                response: None,
                pools: Vec::new(),
                pool_groups: Vec::new(),
                parsers: Vec::new(),
            };
        }
    }
}

fn title(pools: &[Pool], server: &Server) -> String {
    let pool = pools.get(server.pool.index()).map_or("", |pool| pool.name.as_str());
    format!("{pool} {}", socket(server))
}

#[cfg(test)]
mod tests;
