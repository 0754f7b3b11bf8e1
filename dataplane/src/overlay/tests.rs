//! Configurations laid over each other, against what the names say.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::balance::fixture::{icmp_monitor, ip};
use crate::snapshot::{Algorithm, PortRange, Protocol, Source, Target};

const POOLS: [&str; 4] = ["a", "b", "c", "d"];
const SERVICES: [&str; 3] = ["x", "y", "z"];

/// A configuration in few numbers, each of which means little.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// By name, unless it is missing: connect retries, and a weight for each server that is there.
    pools: Vec<Option<(u8, [u16; 4])>>,
    /// By name: the text of its script, and which pools it may name.
    sets: Vec<Option<(u8, [bool; 4])>>,
    /// By name: its port, its pool, whether it goes by the group, its set.
    services: Vec<Option<(u16, usize, bool, usize)>>,
    /// The list is written the other way round.
    backwards: bool,
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    let weights = proptest::array::uniform4(0u16..3);
    let pool = prop::option::weighted(0.7, (0u8..2, weights));
    let set = prop::option::weighted(0.8, (0u8..2, proptest::array::uniform4(any::<bool>())));
    let service = prop::option::weighted(0.8, (1u16..3, 0usize..4, any::<bool>(), 0usize..3));
    let lists = (
        prop::collection::vec(pool, POOLS.len()),
        prop::collection::vec(set, 2),
        prop::collection::vec(service, SERVICES.len()),
        any::<bool>(),
    );
    lists.prop_map(|(pools, sets, services, backwards)| Plan { pools, sets, services, backwards })
}

impl Plan {
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let order = |count: usize| -> Vec<usize> {
            if self.backwards { (0..count).rev().collect() } else { (0..count).collect() }
        };
        for at in order(POOLS.len()) {
            let Some((retries, weights)) = &self.pools[at] else { continue };
            let servers: Vec<(u16, String)> = (1..)
                .zip(weights)
                .filter(|(_, w)| **w > 0)
                .map(|(n, w)| (*w, format!("10.0.0.{n}:80")))
                .collect();
            let addresses: Vec<&str> = servers.iter().map(|(_, address)| address.as_str()).collect();
            let id = snapshot.add_pool(POOLS[at], Algorithm::RoundRobin, &addresses);
            snapshot.pools[id.index()].tcp.connect_retries = *retries;
            for (server, (weight, _)) in snapshot.pools[id.index()].servers.clone().iter().zip(&servers) {
                snapshot.servers[server.index()].weight = *weight;
            }
        }
        let members: Vec<_> = (0..snapshot.pools.len() as u16).map(|id| (PoolId(id), 1, id)).collect();
        if !members.is_empty() {
            snapshot.add_group("all", &members);
        }
        for at in order(2) {
            let Some((text, named)) = &self.sets[at] else { continue };
            let named: Vec<PoolId> =
                (0..4).filter(|at| named[*at]).filter_map(|at| snapshot.pool_named(POOLS[at])).collect();
            let id = snapshot.add_set(&named, &[]);
            let set = &mut snapshot.script_sets[id.index()];
            set.name = format!("set {at}");
            set.request = Some(Source { name: "set.lua".into(), text: vec![b'0' + text] });
        }
        for at in order(SERVICES.len()) {
            let Some((port, pool, grouped, set)) = self.services[at] else { continue };
            let pool = snapshot.pool_named(POOLS[pool]).map(Target::Pool);
            let group = snapshot.pool_group_named("all").map(Target::PoolGroup).filter(|_| grouped);
            snapshot.add_service(SERVICES[at], group.or(pool), 10);
            let named = (0u16..).zip(&snapshot.script_sets).filter(|(_, s)| s.name == format!("set {set}"));
            let sets = named.map(|(id, _)| ScriptSetId(id)).collect();
            let service = snapshot.services.last_mut().unwrap();
            service.script_sets = sets;
            service.addresses = vec![ip("192.0.2.1")];
            service.ports = vec![PortRange { protocol: Protocol::Tcp, first: port, last: port }];
        }
        snapshot
    }
}

fn pool_name(snapshot: &Snapshot, id: PoolId) -> String {
    snapshot.pools[id.index()].name.clone()
}

/// What a pool is, by names.
fn pool_text(snapshot: &Snapshot, id: PoolId) -> String {
    let pool = &snapshot.pools[id.index()];
    let server = |id: &ServerId| {
        let server = &snapshot.servers[id.index()];
        assert_eq!(pool_name(snapshot, server.pool), pool.name);
        format!("{}*{}", socket(server), server.weight)
    };
    let servers: Vec<String> = pool.servers.iter().map(server).collect();
    format!("{} {} {servers:?}", pool.name, pool.tcp.connect_retries)
}

fn set_text(snapshot: &Snapshot, id: ScriptSetId) -> String {
    let set = &snapshot.script_sets[id.index()];
    let pools: Vec<String> = set.pools.iter().map(|id| pool_name(snapshot, *id)).collect();
    format!("{} {:?} {pools:?}", set.name, set.request)
}

pub(super) fn service_text(snapshot: &Snapshot, id: ServiceId) -> String {
    let service = &snapshot.services[id.index()];
    let sets: Vec<String> = service.script_sets.iter().map(|id| set_text(snapshot, *id)).collect();
    let default = match service.default {
        Some(Target::Pool(id)) => pool_name(snapshot, id),
        Some(Target::PoolGroup(id)) => snapshot.pool_groups[id.index()].name.clone(),
        None => String::new(),
    };
    format!("{} {:?} {default} {sets:?}", service.name, service.ports)
}

fn group_text(snapshot: &Snapshot, id: PoolGroupId) -> String {
    let members = &snapshot.pool_groups[id.index()].members;
    let members: Vec<_> =
        members.iter().map(|m| (pool_name(snapshot, m.pool), m.priority, m.ratio)).collect();
    format!("{members:?}")
}

/// Names of what is live, with the place and the meaning of each.
fn live<I: Copy + Ord>(
    count: usize,
    id: fn(u16) -> I,
    retired: &BTreeSet<I>,
    name: impl Fn(I) -> String,
    text: impl Fn(I) -> String,
) -> BTreeMap<String, (I, String)> {
    let ids = (0..count as u16).map(id).filter(|id| !retired.contains(id));
    let all: Vec<_> = ids.map(|id| (name(id), (id, text(id)))).collect();
    let names = all.len();
    let map: BTreeMap<_, _> = all.into_iter().collect();
    assert_eq!(map.len(), names, "each name once");
    map
}

pub(super) type Meaning<I> = BTreeMap<String, (I, String)>;

pub(super) fn pools(s: &Snapshot) -> Meaning<PoolId> {
    live(s.pools.len(), PoolId, &s.retired.pools, |id| pool_name(s, id), |id| pool_text(s, id))
}

pub(super) fn servers(s: &Snapshot) -> Meaning<ServerId> {
    let name = |id: ServerId| title(&s.pools, &s.servers[id.index()]);
    live(s.servers.len(), ServerId, &s.retired.servers, name, |id| s.servers[id.index()].weight.to_string())
}

pub(super) fn groups(s: &Snapshot) -> Meaning<PoolGroupId> {
    let name = |id: PoolGroupId| s.pool_groups[id.index()].name.clone();
    live(s.pool_groups.len(), PoolGroupId, &s.retired.pool_groups, name, |id| group_text(s, id))
}

pub(super) fn sets(s: &Snapshot) -> Meaning<ScriptSetId> {
    let name = |id: ScriptSetId| s.script_sets[id.index()].name.clone();
    live(s.script_sets.len(), ScriptSetId, &s.retired.script_sets, name, |id| set_text(s, id))
}

pub(super) fn services(s: &Snapshot) -> Meaning<ServiceId> {
    let name = |id: ServiceId| s.services[id.index()].name.clone();
    live(s.services.len(), ServiceId, &s.retired.services, name, |id| service_text(s, id))
}

pub(super) fn texts<I>(meaning: Meaning<I>) -> Vec<(String, String)> {
    meaning.into_iter().map(|(name, (_, text))| (name, text)).collect()
}

/// What two lists of names and meanings differ in.
fn differences<I>(old: &Meaning<I>, new: &Meaning<I>) -> Differences {
    let text = |of: &Meaning<I>, name: &String| of.get(name).map(|(_, text)| text.clone());
    let names =
        |of: &Meaning<I>, which: &dyn Fn(&String) -> bool| of.keys().filter(|n| which(n)).cloned().collect();
    Differences {
        added: names(new, &|name| text(old, name).is_none()),
        changed: names(new, &|name| text(old, name).is_some_and(|was| Some(was) != text(new, name))),
        removed: names(old, &|name| text(new, name).is_none()),
    }
}

fn sorted(differences: &Differences) -> Differences {
    let mut differences = differences.clone();
    differences.added.sort();
    differences.changed.sort();
    differences.removed.sort();
    differences
}

/// Everything that was in `old` has its place in `new`.
fn assert_kept(old: &Snapshot, new: &Snapshot, used: &BTreeSet<ServiceId>) {
    for (index, pool) in old.pools.iter().enumerate() {
        assert_eq!(new.pools[index].name, pool.name);
    }
    for (index, server) in old.servers.iter().enumerate() {
        let now = &new.servers[index];
        assert_eq!((now.pool, socket(now)), (server.pool, socket(server)));
    }
    for (index, service) in old.services.iter().enumerate() {
        let id = ServiceId(index as u16);
        assert_eq!(new.services[index].name, service.name);
        let may_be_empty = old.retired.services.contains(&id) && !used.contains(&id);
        if !may_be_empty || !is_empty(&new.services[index]) {
            assert_eq!(new.services[index], *service, "a state of a service does not change");
            let sets =
                |s: &Snapshot| service.script_sets.iter().map(|id| set_text(s, *id)).collect::<Vec<_>>();
            assert_eq!(sets(old), sets(new), "nor do its scripts");
        }
        assert!(!is_empty(&new.services[index]) || new.retired.services.contains(&id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_runs_is_what_was_written_and_everything_keeps_its_place(
        plans in prop::collection::vec((plan(), any::<u8>()), 1..12),
    ) {
        let mut running = plans[0].0.snapshot();
        let mut places: BTreeMap<String, u16> = BTreeMap::new();
        for (plan, mask) in &plans[1..] {
            let next = plan.snapshot();
            let used: BTreeSet<ServiceId> = running.departing().filter(|id| mask & (1 << (id.0 % 8)) != 0).collect();
            let in_use = InUse { services: used.clone(), ..InUse::everything(&running) };
            let (laid, changes) = running.overlaid(&next, &in_use, 0).unwrap();
            prop_assert_eq!(texts(pools(&laid)), texts(pools(&next)));
            prop_assert_eq!(texts(servers(&laid)), texts(servers(&next)));
            prop_assert_eq!(texts(groups(&laid)), texts(groups(&next)));
            prop_assert_eq!(texts(sets(&laid)), texts(sets(&next)));
            prop_assert_eq!(texts(services(&laid)), texts(services(&next)));
            assert_kept(&running, &laid, &used);
            for (name, (PoolId(place), _)) in pools(&laid) {
                prop_assert_eq!(*places.entry(format!("pool {name}")).or_insert(place), place);
            }
            for (name, (ServerId(place), _)) in servers(&laid) {
                prop_assert_eq!(*places.entry(format!("server {name}")).or_insert(place), place);
            }
            for (name, (id, text)) in services(&running) {
                let same = services(&laid).get(&name).is_some_and(|(now, _)| *now == id);
                let equal = services(&laid).get(&name).is_some_and(|(_, now)| *now == text);
                prop_assert_eq!(same, equal, "{} keeps its place if it is the same", name);
            }
            prop_assert_eq!(sorted(&changes.servers), differences(&servers(&running), &servers(&laid)));
            prop_assert_eq!(sorted(&changes.services), differences(&services(&running), &services(&laid)));
            prop_assert_eq!(sorted(&changes.script_sets), differences(&sets(&running), &sets(&laid)));
            prop_assert_eq!(sorted(&changes.pool_groups), differences(&groups(&running), &groups(&laid)));
            running = laid;
        }
        let last = plans[plans.len() - 1].0.snapshot();
        let (same, changes) = running.overlaid(&last, &InUse::everything(&running), 0).unwrap();
        prop_assert!(changes.is_empty(), "{changes}");
        let generation = running.retired.generation + 1;
        prop_assert_eq!(same.retired, Retired { generation, ..running.retired });
    }
}

fn two_pools() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let web = snapshot.add_pool("web", Algorithm::RoundRobin, &["10.0.0.1:80", "10.0.0.2:80"]);
    snapshot.add_pool("dns", Algorithm::RoundRobin, &["10.0.0.3:53"]);
    snapshot.add_service("www", Some(Target::Pool(web)), 10);
    snapshot
}

#[test]
fn what_is_different_is_told_by_name() {
    let old = two_pools();
    let mut next = two_pools();
    next.pools[1].name = "names".into();
    next.pools[0].monitors.push(icmp_monitor());
    next.servers[0].weight = 7;
    next.services[0].log_connections = false;
    let (_, changes) = old.overlaid(&next, &InUse::default(), 0).unwrap();
    let expected = "services: changed www\n\
        pools: added names; changed web; removed dns\n\
        servers: added names 10.0.0.3:53; changed web 10.0.0.1:80; removed dns 10.0.0.3:53\n";
    assert_eq!(changes.to_string(), expected);
    let (_, changes) = old.overlaid(&two_pools(), &InUse::default(), 0).unwrap();
    assert!(changes.is_empty());
}

#[test]
fn another_order_of_servers_is_a_change_of_their_pool_and_another_server_between_them_is_none() {
    let (old, mut next) = (two_pools(), two_pools());
    next.pools[0].servers.reverse();
    let (laid, changes) = old.overlaid(&next, &InUse::default(), 0).unwrap();
    assert_eq!(changes.to_string(), "pools: changed web\n");
    assert_eq!(laid.pools[0].servers, [ServerId(1), ServerId(0)]);
    next.servers[1].port = 81;
    next.pools[0].servers.reverse();
    next.pools[0].servers.insert(1, ServerId(3));
    next.servers.push(Server { port: 82, ..next.servers[0].clone() });
    let (_, changes) = old.overlaid(&next, &InUse::default(), 0).unwrap();
    let expected = "servers: added web 10.0.0.2:81, web 10.0.0.1:82; removed web 10.0.0.2:80\n";
    assert_eq!(changes.to_string(), expected);
}

#[test]
fn a_pool_that_flows_may_still_choose_keeps_its_servers_when_it_is_removed() {
    let old = two_pools();
    let mut next = Snapshot::default();
    let dns = next.add_pool("dns", Algorithm::RoundRobin, &["10.0.0.3:53"]);
    next.add_service("www", Some(Target::Pool(dns)), 10);
    let (laid, _) = old.overlaid(&next, &InUse::default(), 0).unwrap();
    assert_eq!(laid.retired.pools, [PoolId(0)].into());
    assert_eq!(laid.retired.servers, [ServerId(0), ServerId(1)].into());
    assert_eq!(laid.pools[0].servers, [ServerId(0), ServerId(1)]);
    assert_eq!(laid.services[0].default, Some(Target::Pool(PoolId(0))), "the service as it was");
    assert_eq!(laid.services[1].default, Some(Target::Pool(PoolId(1))));
}

#[test]
fn too_many_different_things_are_refused() {
    let mut old = two_pools();
    let service = old.services[0].clone();
    old.services =
        (0..MOST).map(|n| crate::snapshot::Service { name: format!("{n}"), ..service.clone() }).collect();
    let error = old.overlaid(&two_pools(), &InUse::default(), 0).unwrap_err();
    assert_eq!(error, Exhausted("virtual services"));
    assert!(error.to_string().contains("more than 65535 different virtual services at a time"));
}
