//! Where things come to lie.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use super::{Differences, Exhausted, MOST};
use crate::snapshot::{Pool, PoolGroup, PoolGroupId, PoolId, Server, ServerId, Snapshot, Target};

/// Where things that are known by a name come to lie, by their places in the new configuration.
pub(super) struct Places {
    pub(super) pools: Found,
    pub(super) servers: Found,
    pub(super) groups: Found,
}

/// Where the things of one list come to lie.
pub(super) struct Found {
    /// By their places in the new configuration.
    pub(super) places: Vec<u16>,
    /// Those of the places that have had something else before, or nothing.
    pub(super) given: Vec<u16>,
}

impl Found {
    fn place(&self, next: u16) -> u16 {
        self.places.get(usize::from(next)).copied().unwrap_or(next)
    }
}

impl Places {
    pub(super) fn new(old: &Snapshot, next: &Snapshot, since: u32) -> Result<Self, Exhausted> {
        let spare = &old.retired.spare;
        let names = |list: &[Pool]| list.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
        let free = rested(&spare.pools, since).map(|id| id.0);
        let known = names(&old.pools).into_iter().zip(0..).collect();
        let pools = places::<String>(known, names(&next.pools), free, old.pools.len(), "pools")?;
        let names = |list: &[PoolGroup]| list.iter().map(|group| group.name.clone()).collect::<Vec<_>>();
        let free = rested(&spare.pool_groups, since).map(|id| id.0);
        let known = names(&old.pool_groups).into_iter().zip(0..).collect();
        let behind = old.pool_groups.len();
        let groups = places::<String>(known, names(&next.pool_groups), free, behind, "pool groups")?;
        let known = known_servers(old, &pools);
        let wanted = next.servers.iter().map(|server| (PoolId(pools.place(server.pool.0)), socket(server)));
        let free = rested(&spare.servers, since).map(|id| id.0);
        let behind = old.servers.len();
        let servers = places::<(PoolId, SocketAddr)>(known, wanted.collect(), free, behind, "servers")?;
        Ok(Places { pools, servers, groups })
    }

    pub(super) fn pool(&self, PoolId(next): PoolId) -> PoolId {
        PoolId(self.pools.place(next))
    }

    pub(super) fn server(&self, ServerId(next): ServerId) -> ServerId {
        ServerId(self.servers.place(next))
    }

    pub(super) fn group(&self, PoolGroupId(next): PoolGroupId) -> PoolGroupId {
        PoolGroupId(self.groups.place(next))
    }

    pub(super) fn target(&self, target: Target) -> Target {
        match target {
            Target::Pool(pool) => Target::Pool(self.pool(pool)),
            Target::PoolGroup(group) => Target::PoolGroup(self.group(group)),
        }
    }
}

/// True if the servers that are in both come in the same order: scripts that name an address get the first.
pub(super) fn in_order(before: &[ServerId], now: &[ServerId]) -> bool {
    let stay = |these: &[ServerId], others: &[ServerId]| -> Vec<ServerId> {
        let others: BTreeSet<&ServerId> = others.iter().collect();
        these.iter().filter(|id| others.contains(id)).copied().collect()
    };
    stay(before, now) == stay(now, before)
}

pub(super) fn socket(server: &Server) -> SocketAddr {
    SocketAddr::new(server.address, server.port)
}

/// Where each server is known to be. Those that were let go count only if their pool is still the same, and less than others.
fn known_servers(old: &Snapshot, pools: &Found) -> HashMap<(PoolId, SocketAddr), u16> {
    let is_spare = |id: u16| old.retired.spare.servers.contains_key(&ServerId(id));
    let given: HashSet<u16> = pools.given.iter().copied().collect();
    let all = || old.servers.iter().zip(0u16..);
    let same_pool = |server: &Server, id: u16| {
        !given.contains(&server.pool.0) && !old.retired.is_of_earlier_pool(ServerId(id), server)
    };
    let spare = all().filter(|(server, id)| is_spare(*id) && same_pool(server, *id));
    let others = all().filter(|(_, id)| !is_spare(*id));
    spare.chain(others).map(|(server, id)| ((server.pool, socket(server)), id)).collect()
}

/// Places that were let go in this generation or before.
pub(super) fn rested<T: Copy>(spare: &BTreeMap<T, u32>, since: u32) -> impl Iterator<Item = T> {
    spare.iter().filter(move |(_, generation)| **generation <= since).map(|(id, _)| *id)
}

/// For each of `next` the place of its equal, or one that is free, or a new one behind.
fn places<K: Eq + std::hash::Hash>(
    known: HashMap<K, u16>,
    next: Vec<K>,
    free: impl Iterator<Item = u16>,
    mut behind: usize,
    kind: &'static str,
) -> Result<Found, Exhausted> {
    let claimed: HashSet<u16> = next.iter().filter_map(|key| known.get(key).copied()).collect();
    let mut free = free.filter(|place| !claimed.contains(place));
    let mut found = Found { places: Vec::with_capacity(next.len()), given: Vec::new() };
    for key in next {
        let place = match known.get(&key) {
            Some(place) => *place,
            None => {
                let place = match free.next() {
                    Some(place) => place,
                    None => {
                        behind += 1;
                        u16::try_from(behind - 1).ok().filter(|_| behind <= MOST).ok_or(Exhausted(kind))?
                    }
                };
                found.given.push(place);
                place
            }
        };
        found.places.push(place);
    }
    Ok(found)
}

/// Puts a thing into its place, which is there or the next one.
pub(super) fn put<T>(list: &mut Vec<T>, place: u16, thing: T) {
    match list.get_mut(usize::from(place)) {
        Some(there) => *there = thing,
        None => list.push(thing),
    }
}

/// All places that are not live.
pub(super) fn retire<T: Copy + Ord>(places: usize, id: fn(u16) -> T, live: &BTreeSet<T>) -> BTreeSet<T> {
    let all = (0..places).filter_map(|place| u16::try_from(place).ok()).map(id);
    all.filter(|id| !live.contains(id)).collect()
}

/// Puts things into a list of which each state has a place of its own. `was` says of a place whether it was live.
pub(super) fn versions<T: PartialEq>(
    list: &mut Vec<T>,
    next: impl Iterator<Item = T>,
    name: impl Fn(&T) -> String,
    was: impl Fn(u16) -> bool,
    mut free: impl Iterator<Item = u16>,
    kind: &'static str,
) -> Result<(Found, Differences), Exhausted> {
    let mut before: HashMap<String, u16> = list
        .iter()
        .zip(0..)
        .filter(|(_, place)| was(*place))
        .map(|(thing, place)| (name(thing), place))
        .collect();
    let mut by_name: HashMap<String, Vec<u16>> = HashMap::new();
    list.iter().zip(0..).for_each(|(thing, place)| by_name.entry(name(thing)).or_default().push(place));
    let mut found = Found { places: Vec::new(), given: Vec::new() };
    let mut differences = Differences::default();
    for thing in next {
        let name = name(&thing);
        let states = by_name.get(&name).map_or(&[][..], Vec::as_slice);
        let equal = |place: &&u16| list.get(usize::from(**place)) == Some(&thing);
        let place = match states.iter().find(equal) {
            Some(place) => *place,
            None => {
                let place = match free.next() {
                    Some(place) => place,
                    None => {
                        u16::try_from(list.len()).ok().filter(|_| list.len() < MOST).ok_or(Exhausted(kind))?
                    }
                };
                put(list, place, thing);
                found.given.push(place);
                place
            }
        };
        let same = before.remove(&name).map(|before| before == place);
        differences.note(same, || name);
        found.places.push(place);
    }
    differences.removed = before.into_keys().collect();
    differences.removed.sort();
    Ok((found, differences))
}
