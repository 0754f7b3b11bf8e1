//! Where things come to lie.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::{Differences, Exhausted, MOST};
use crate::snapshot::{Pool, PoolGroup, PoolGroupId, PoolId, Server, ServerId, Snapshot, Target};

/// Where things that are known by a name come to lie, by their places in the new configuration.
pub(super) struct Places {
    pub(super) pools: Vec<u16>,
    pub(super) servers: Vec<u16>,
    pub(super) groups: Vec<u16>,
}

impl Places {
    pub(super) fn new(old: &Snapshot, next: &Snapshot) -> Result<Self, Exhausted> {
        let names = |list: &[Pool]| list.iter().map(|pool| pool.name.clone()).collect();
        let pools = places::<String>(names(&old.pools), names(&next.pools), "pools")?;
        let names = |list: &[PoolGroup]| list.iter().map(|group| group.name.clone()).collect();
        let groups = places::<String>(names(&old.pool_groups), names(&next.pool_groups), "pool groups")?;
        let known = old.servers.iter().map(|server| (server.pool, socket(server)));
        let wanted = next.servers.iter().map(|server| {
            let pool = pools.get(server.pool.index()).copied().map_or(server.pool, PoolId);
            (pool, socket(server))
        });
        let servers = places::<(PoolId, SocketAddr)>(known.collect(), wanted.collect(), "servers")?;
        Ok(Places { pools, servers, groups })
    }

    pub(super) fn pool(&self, PoolId(next): PoolId) -> PoolId {
        PoolId(self.pools.get(usize::from(next)).copied().unwrap_or(next))
    }

    pub(super) fn server(&self, ServerId(next): ServerId) -> ServerId {
        ServerId(self.servers.get(usize::from(next)).copied().unwrap_or(next))
    }

    pub(super) fn group(&self, PoolGroupId(next): PoolGroupId) -> PoolGroupId {
        PoolGroupId(self.groups.get(usize::from(next)).copied().unwrap_or(next))
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

/// For each of `next` the place of its equal in `old`, or a new one behind.
fn places<K: Eq + std::hash::Hash>(
    old: Vec<K>,
    next: Vec<K>,
    kind: &'static str,
) -> Result<Vec<u16>, Exhausted> {
    let mut behind = old.len();
    let known: HashMap<K, usize> = old.into_iter().zip(0..).collect();
    let mut place = |key: K| {
        let place = known.get(&key).copied().unwrap_or_else(|| {
            behind += 1;
            behind - 1
        });
        u16::try_from(place).ok().filter(|_| place < MOST).ok_or(Exhausted(kind))
    };
    next.into_iter().map(&mut place).collect()
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
    kind: &'static str,
) -> Result<(Vec<u16>, Differences), Exhausted> {
    let mut before: HashMap<String, u16> = list
        .iter()
        .zip(0..)
        .filter(|(_, place)| was(*place))
        .map(|(thing, place)| (name(thing), place))
        .collect();
    let mut by_name: HashMap<String, Vec<u16>> = HashMap::new();
    list.iter().zip(0..).for_each(|(thing, place)| by_name.entry(name(thing)).or_default().push(place));
    let (mut places, mut differences) = (Vec::new(), Differences::default());
    for thing in next {
        let name = name(&thing);
        let states = by_name.get(&name).map_or(&[][..], Vec::as_slice);
        let equal = |place: &&u16| list.get(usize::from(**place)) == Some(&thing);
        let place = match states.iter().find(equal) {
            Some(place) => *place,
            None => {
                list.push(thing);
                u16::try_from(list.len() - 1).ok().filter(|_| list.len() <= MOST).ok_or(Exhausted(kind))?
            }
        };
        let same = before.remove(&name).map(|before| before == place);
        differences.note(same, || name);
        places.push(place);
    }
    differences.removed = before.into_keys().collect();
    differences.removed.sort();
    Ok((places, differences))
}
