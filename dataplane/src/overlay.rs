//! One configuration laid over another: what a reload makes for the workers.
//!
//! Flows, tables, counters, monitors and runs of scripts refer to things by their places in the lists of a
//! [`Snapshot`]. So a reload does not use the new configuration as it was read but [`Snapshot::overlaid`]: the new one with
//! all that somebody may still name in its place.
//!
//! - A pool and a pool group are known by their names, a server by its pool, address and port: the same name has the same
//!   place, with what the new configuration says of it. Balancing is asked about flows that begin, and these go by the new
//!   one.
//! - A service and a DataScript set are what flows ask later on: for timeouts, for scripts. If anything about one is
//!   different it gets a new place, and the old one stays as it was, for the flows that began there.
//! - What is not in the new configuration is [`Retired`]: it stays in its place, complete, without VIPs for new flows and
//!   without being in anybody's choice. One that comes back takes its place again, unless that has gone to something else.
//!
//! A retired service to which no flow refers any more is emptied, with the sets that only it had. What nobody names at all
//! any more is [`Retired::spare`]: its place keeps its name, for those who read of it late, and is given to something else by a
//! later reload, when these are through with it, too.

mod changes;
mod let_go;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use crate::snapshot::{
    FailAction, Pool, PoolGroupId, PoolId, ScriptSet, ScriptSetId, Server, ServerId, Service, ServiceId,
    Snapshot,
};
use crate::tokens::SharedTokens;
pub use changes::{Changes, Differences};
pub use let_go::InUse;
use places::{Found, Places, in_order, put, rested, retire, socket, versions};

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
    /// Those of them that nobody names any more, since when.
    pub spare: Generations,
    /// When each place was given to what it has now, but for what was there from the start.
    pub given: Generations,
    /// How many configurations have been laid over the first one.
    pub generation: u32,
}

impl Retired {
    /// The generation in which a place was given to the server that has it now; 0 for one that was there from the start.
    #[must_use]
    pub fn server_given(&self, server: ServerId) -> u32 {
        self.given.servers.get(&server).copied().unwrap_or(0)
    }

    /// The same of a pool.
    #[must_use]
    pub fn pool_given(&self, pool: PoolId) -> u32 {
        self.given.pools.get(&pool).copied().unwrap_or(0)
    }

    /// True of a server that was let go before the place of its pool was given to the pool that has it now: it is not of that
    /// one.
    #[must_use]
    pub fn is_of_earlier_pool(&self, id: ServerId, server: &Server) -> bool {
        self.spare.servers.get(&id).is_some_and(|let_go| *let_go < self.pool_given(server.pool))
    }
}

/// Places, and in which [generation](Retired::generation) something happened to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// Of services.
    pub services: BTreeMap<ServiceId, u32>,
    /// Of pools.
    pub pools: BTreeMap<PoolId, u32>,
    /// Of servers.
    pub servers: BTreeMap<ServerId, u32>,
    /// Of pool groups.
    pub pool_groups: BTreeMap<PoolGroupId, u32>,
    /// Of DataScript sets.
    pub script_sets: BTreeMap<ScriptSetId, u32>,
}

/// No place is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room for more than {MOST} different {0} at a time, those of earlier configurations included \
     that still have flows, or had some until a moment ago"
)]
pub struct Exhausted(&'static str);

/// Places in a list.
const MOST: usize = 65_535;

impl Snapshot {
    /// `next`, which was just read, with all that is live or named here in its place, and what is different. Interfaces,
    /// routes, SNAT pool and limits stay those of this one. `in_use` is what the workers, all of which go by this
    /// configuration, name of [`Snapshot::retired`]. Places that were let go in the generation `rested`, or before, may be given
    /// to something else: nobody is left who has read of them.
    ///
    /// # Errors
    /// When there is no place left.
    pub fn overlaid(
        &self,
        next: &Snapshot,
        in_use: &InUse,
        rested: u32,
    ) -> Result<(Snapshot, Changes), Exhausted> {
        let places = Places::new(self, next, rested)?;
        let mut laid = Laid { out: self.clone(), changes: Changes::default(), old: self, places, rested };
        laid.out.retired.generation += 1;
        laid.pools(next);
        laid.servers(next);
        laid.groups(next);
        let sets = laid.sets(next)?;
        laid.services(next, &sets)?;
        let_go::let_go(self, &mut laid.out, in_use);
        laid.out.tokens = SharedTokens::overlaid(self, &laid.out);
        Ok((laid.out, laid.changes))
    }

    /// The same configuration without what nobody needs any more; `None` if there is nothing to let go.
    #[must_use]
    pub fn tidied(&self, in_use: &InUse) -> Option<Snapshot> {
        let mut out = self.clone();
        out.retired.generation += 1;
        let_go::let_go(self, &mut out, in_use);
        let same = out.retired.spare == self.retired.spare && out.departing().eq(self.departing());
        if same {
            return None;
        }
        out.tokens = SharedTokens::overlaid(self, &out);
        Some(out)
    }

    /// True if there is something retired that may be let go when nobody names it any more.
    #[must_use]
    pub fn holds_retired(&self) -> bool {
        let Retired { services, pools, servers, pool_groups, script_sets, spare, .. } = &self.retired;
        let held = services.len() > spare.services.len() && {
            let live = |(_, id): &(ServiceId, ServiceId)| !services.contains(id);
            let owners = self.table_owners().into_iter().zip((0..).map(ServiceId)).filter(live);
            let owners: BTreeSet<ServiceId> = owners.map(|(owner, _)| owner).collect();
            // One that is empty stays as long as its tables are those of a live one.
            let stays =
                |id: &ServiceId| owners.contains(id) && self.services.get(id.index()).is_some_and(is_empty);
            services.iter().any(|id| !spare.services.contains_key(id) && !stays(id))
        };
        held || pools.len() > spare.pools.len()
            || servers.len() > spare.servers.len()
            || pool_groups.len() > spare.pool_groups.len()
            || script_sets.len() > spare.script_sets.len()
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
    rested: u32,
}

impl Laid<'_> {
    fn pools(&mut self, next: &Snapshot) {
        let old = self.old;
        let fail_action = |places: &Places, action| match action {
            FailAction::Pool(pool) => FailAction::Pool(places.pool(pool)),
            other => other,
        };
        for (pool, place) in next.pools.iter().zip(self.places.pools.places.clone()) {
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
        let retired = &mut self.out.retired;
        let given = (&mut retired.given.pools, &mut retired.spare.pools);
        retired.pools = settle(&self.places.pools, self.out.pools.len(), PoolId, given, retired.generation);
        let retired = &retired.pools;
        let removed = retired.difference(&old.retired.pools).filter_map(|id| old.pools.get(id.index()));
        self.changes.pools.removed = removed.map(|pool| pool.name.clone()).collect();
    }

    /// After the pools: that of each server has its place.
    fn servers(&mut self, next: &Snapshot) {
        let old = self.old;
        for (server, place) in next.servers.iter().zip(self.places.servers.places.clone()) {
            let server = Server { pool: self.places.pool(server.pool), ..server.clone() };
            let before = old.servers.get(usize::from(place));
            let before = before.filter(|_| !old.retired.servers.contains(&ServerId(place)));
            let same = before.map(|before| server == *before);
            let pools = &self.out.pools;
            self.changes.servers.note(same, || title(pools, &server));
            put(&mut self.out.servers, place, server);
        }
        let retired = &mut self.out.retired;
        let given = (&mut retired.given.servers, &mut retired.spare.servers);
        retired.servers =
            settle(&self.places.servers, self.out.servers.len(), ServerId, given, retired.generation);
        let retired = &retired.servers;
        let removed = retired.difference(&old.retired.servers).filter_map(|id| old.servers.get(id.index()));
        self.changes.servers.removed = removed.map(|server| title(&old.pools, server)).collect();
    }

    fn groups(&mut self, next: &Snapshot) {
        let old = self.old;
        for (group, place) in next.pool_groups.iter().zip(self.places.groups.places.clone()) {
            let mut group = group.clone();
            group.members.iter_mut().for_each(|member| member.pool = self.places.pool(member.pool));
            let before = old.pool_groups.get(usize::from(place));
            let before = before.filter(|_| !old.retired.pool_groups.contains(&PoolGroupId(place)));
            self.changes.pool_groups.note(before.map(|before| group == *before), || group.name.clone());
            put(&mut self.out.pool_groups, place, group);
        }
        let retired = &mut self.out.retired;
        let given = (&mut retired.given.pool_groups, &mut retired.spare.pool_groups);
        retired.pool_groups =
            settle(&self.places.groups, self.out.pool_groups.len(), PoolGroupId, given, retired.generation);
        let retired = &retired.pool_groups;
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
        let free = rested(&self.old.retired.spare.script_sets, self.rested).map(|id| id.0);
        let (found, differences) = versions(list, sets, name, was, free, "DataScript sets")?;
        let retired = &mut self.out.retired;
        let given = (&mut retired.given.script_sets, &mut retired.spare.script_sets);
        let count = self.out.script_sets.len();
        retired.script_sets = settle(&found, count, ScriptSetId, given, retired.generation);
        self.changes.script_sets = differences;
        Ok(found.places.into_iter().map(ScriptSetId).collect())
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
        let free = rested(&self.old.retired.spare.services, self.rested).map(|id| id.0);
        let (found, differences) = versions(list, services, name, was, free, "virtual services")?;
        let retired = &mut self.out.retired;
        let given = (&mut retired.given.services, &mut retired.spare.services);
        let count = self.out.services.len();
        retired.services = settle(&found, count, ServiceId, given, retired.generation);
        self.changes.services = differences;
        Ok(())
    }
}

/// Notes which places are live and which of them are given to something new. Returns those that are not.
fn settle<T: Copy + Ord>(
    found: &Found,
    count: usize,
    id: fn(u16) -> T,
    (given, spare): (&mut BTreeMap<T, u32>, &mut BTreeMap<T, u32>),
    generation: u32,
) -> BTreeSet<T> {
    let live: BTreeSet<T> = found.places.iter().copied().map(id).collect();
    given.extend(found.given.iter().map(|place| (id(*place), generation)));
    spare.retain(|id, _| !live.contains(id));
    retire(count, id, &live)
}

fn title(pools: &[Pool], server: &Server) -> String {
    let pool = pools.get(server.pool.index()).map_or("", |pool| pool.name.as_str());
    format!("{pool} {}", socket(server))
}

#[cfg(test)]
mod reuse_tests;
#[cfg(test)]
mod tests;
