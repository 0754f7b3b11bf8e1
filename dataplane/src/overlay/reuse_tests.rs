//! Places that are given to something else, against who names them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{groups, plan, pools, servers, service_text, services, sets, texts};
use super::*;
use crate::balance::fixture::ip;
use crate::snapshot::{Algorithm, PortRange, Protocol, Target};

/// A flow, and what it has to find in the places that it names.
#[derive(Clone, Debug)]
struct Flow {
    service: (ServiceId, String),
    /// It has it, or will, or has tried it.
    server: Option<(ServerId, String)>,
    pool: Option<(PoolId, String)>,
}

fn server_name(snapshot: &Snapshot, id: ServerId) -> String {
    title(&snapshot.pools, &snapshot.servers[id.index()])
}

/// A flow of some service that is live, with a server to which it leads.
fn begin(snapshot: &Snapshot, number: u16) -> Option<Flow> {
    let live: Vec<ServiceId> = services(snapshot).into_values().map(|(id, _)| id).collect();
    let id = *live.get(usize::from(number) % live.len().max(1))?;
    Some(choose(
        snapshot,
        number,
        Flow { service: (id, service_text(snapshot, id)), server: None, pool: None },
    ))
}

/// Flows choose of what their service leads to, whether it is live or not.
fn choose(snapshot: &Snapshot, number: u16, flow: Flow) -> Flow {
    let pools = snapshot.pools_of(&snapshot.services[flow.service.0.index()]);
    let Some(pool) = pools.get(usize::from(number / 8) % pools.len().max(1)).copied() else { return flow };
    let name = |pool: PoolId| (pool, snapshot.pools[pool.index()].name.clone());
    if number.is_multiple_of(3) {
        return Flow { pool: Some(name(pool)), ..flow };
    }
    let members = &snapshot.pools[pool.index()].servers;
    let server = members.get(usize::from(number / 64) % members.len().max(1));
    Flow { server: server.map(|id| (*id, server_name(snapshot, *id))), ..flow }
}

fn in_use(snapshot: &Snapshot, flows: &[Flow], tables: &BTreeMap<String, u8>) -> InUse {
    let retired = &snapshot.retired;
    let name = |id: &ServiceId| snapshot.services[id.index()].name.clone();
    let services = flows.iter().map(|flow| flow.service.0);
    let servers = flows.iter().filter_map(|flow| flow.server.as_ref()).map(|(id, _)| *id);
    let pools = flows.iter().filter_map(|flow| flow.pool.as_ref()).map(|(id, _)| *id);
    InUse {
        services: services.filter(|id| retired.services.contains(id)).collect(),
        servers: servers.filter(|id| retired.servers.contains(id)).collect(),
        pools: pools.filter(|id| retired.pools.contains(id)).collect(),
        pool_groups: BTreeSet::new(),
        tables: retired.services.iter().copied().filter(|id| tables.contains_key(&name(id))).collect(),
    }
}

/// Whoever names something finds in its place what it was.
fn assert_found(snapshot: &Snapshot, flows: &[Flow]) {
    for flow in flows {
        assert_eq!(service_text(snapshot, flow.service.0), flow.service.1);
        if let Some((id, name)) = &flow.server {
            assert_eq!(server_name(snapshot, *id), *name);
        }
        if let Some((id, name)) = &flow.pool {
            assert_eq!(snapshot.pools[id.index()].name, *name);
            let gone = snapshot.retired.spare.pools.contains_key(id);
            assert!(!gone, "it may still get a server of it");
        }
    }
}

/// What has another name than before had rested.
fn assert_rested(old: &Snapshot, new: &Snapshot, rested: u32) {
    let names = |snapshot: &Snapshot| {
        let mut names = BTreeMap::new();
        let spare = &snapshot.retired.spare;
        let mut add = |kind, place: usize, name: String, since: Option<&u32>| {
            names.insert((kind, place), (name, since.copied()));
        };
        for (place, id) in snapshot.services.iter().enumerate().zip((0..).map(ServiceId)) {
            add("service", place.0, place.1.name.clone(), spare.services.get(&id));
        }
        for (place, id) in snapshot.pools.iter().enumerate().zip((0..).map(PoolId)) {
            add("pool", place.0, place.1.name.clone(), spare.pools.get(&id));
        }
        for (place, id) in snapshot.servers.iter().enumerate().zip((0..).map(ServerId)) {
            add("server", place.0, server_name(snapshot, id), spare.servers.get(&id));
        }
        for (place, id) in snapshot.script_sets.iter().enumerate().zip((0..).map(ScriptSetId)) {
            add("set", place.0, place.1.name.clone(), spare.script_sets.get(&id));
        }
        names
    };
    let now = names(new);
    for (place, (name, since)) in names(old) {
        if now[&place].0 != name {
            assert!(since.is_some_and(|since| since <= rested), "{place:?} was {name} since {since:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Flows come, choose, and go while configurations follow each other; some tables have entries for some time.
    #[test]
    fn a_place_is_given_away_when_nobody_names_it_any_more(
        first in plan(),
        acts in prop::collection::vec((0u8..8, any::<u16>(), plan()), 1..60),
    ) {
        let mut running = first.snapshot();
        let mut flows: Vec<Flow> = Vec::new();
        let mut tables: BTreeMap<String, u8> = BTreeMap::new();
        let mut rested = 0;
        for (act, number, plan) in &acts {
            let some = usize::from(*number) % flows.len().max(1);
            match act {
                0 | 1 => flows.extend(begin(&running, *number)),
                2 if !flows.is_empty() => drop(flows.swap_remove(some)),
                3 if !flows.is_empty() => flows[some] = choose(&running, *number, flows[some].clone()),
                4 => {
                    tables.retain(|_, left| { *left -= 1; *left > 0 });
                    tables.extend(running.services.get(some).map(|service| (service.name.clone(), (*number % 4) as u8 + 1)));
                }
                5 => if let Some(tidied) = running.tidied(&in_use(&running, &flows, &tables)) {
                    assert_rested(&running, &tidied, 0);
                    running = tidied;
                },
                _ => {
                    let next = plan.snapshot();
                    if number.is_multiple_of(2) { rested = running.retired.generation; }
                    let before = owners(&running);
                    let (laid, _) = running.overlaid(&next, &in_use(&running, &flows, &tables), rested).unwrap();
                    prop_assert_eq!(texts(pools(&laid)), texts(pools(&next)));
                    prop_assert_eq!(texts(servers(&laid)), texts(servers(&next)));
                    prop_assert_eq!(texts(groups(&laid)), texts(groups(&next)));
                    prop_assert_eq!(texts(sets(&laid)), texts(sets(&next)));
                    prop_assert_eq!(texts(services(&laid)), texts(services(&next)));
                    assert_rested(&running, &laid, rested);
                    for (name, owner) in owners(&laid) {
                        let before = before.get(&name).filter(|_| tables.contains_key(&name));
                        prop_assert!(before.is_none_or(|before| *before == owner), "the tables of {} stay", name);
                    }
                    running = laid;
                }
            }
            assert_found(&running, &flows);
        }
        // In the end everybody has gone.
        for _ in 0..4 {
            let Some(tidied) = running.tidied(&InUse::default()) else { break };
            running = tidied;
        }
        prop_assert!(running.tidied(&InUse::default()).is_none());
        prop_assert!(!running.holds_retired(), "{:?}", running.retired);
    }
}

/// The service whose tables each name has.
fn owners(snapshot: &Snapshot) -> BTreeMap<String, ServiceId> {
    let all = snapshot.table_owners().into_iter().zip(&snapshot.services).zip((0..).map(ServiceId));
    let there = all.filter(|(_, id)| !snapshot.retired.spare.services.contains_key(id));
    there.map(|((owner, service), _)| (service.name.clone(), owner)).collect()
}

/// One service of another port, script and pool, and one server that is replaced, each time.
fn other_each_time(number: u32) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let address = |n: u32| format!("10.{}.{}.{}:80", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff);
    let web = snapshot.add_pool("web", Algorithm::RoundRobin, &["10.255.0.1:80", &address(number)]);
    let other = snapshot.add_pool(&format!("pool {number}"), Algorithm::RoundRobin, &[&address(number + 1)]);
    for server in &mut snapshot.servers {
        server.max_connections = Some(7);
    }
    let set = snapshot.add_set(&[web, other], &[]);
    snapshot.script_sets[set.index()].name = format!("set {number}");
    let group = snapshot.add_group(&format!("group {number}"), &[(web, 1, 1), (other, 2, 1)]);
    for (name, target) in
        [("www".to_owned(), Target::Pool(web)), (format!("{number}"), Target::PoolGroup(group))]
    {
        snapshot.add_service(&name, Some(target), 10);
        let service = snapshot.services.last_mut().unwrap();
        service.script_sets = vec![set];
        service.addresses = vec![ip("192.0.2.1")];
        let port = (number % 60_000) as u16 + 1;
        service.ports = vec![PortRange { protocol: Protocol::Tcp, first: port, last: port }];
    }
    snapshot
}

/// The new pool gets a server later that the one before it had, too.
#[test]
fn a_server_of_the_pool_before_is_not_one_of_the_pool_that_has_its_place() {
    let only = |pool: &str, servers: &[&str]| {
        let mut snapshot = Snapshot::default();
        let pool = snapshot.add_pool(pool, Algorithm::RoundRobin, servers);
        snapshot.add_service("www", Some(Target::Pool(pool)), 10);
        snapshot
    };
    let lay = |running: &Snapshot, next: &Snapshot| {
        let mut laid = running.overlaid(next, &InUse::default(), running.retired.generation).unwrap().0;
        while let Some(tidied) = laid.tidied(&InUse::default()) {
            laid = tidied;
        }
        laid
    };
    let first = only("first", &["10.0.0.1:80", "10.0.0.2:80"]);
    let other = lay(&first, &only("other", &["10.0.0.3:80"]));
    let last = lay(&other, &only("last", &["10.0.0.4:80"]));
    assert_eq!((last.pools[0].name.as_str(), last.pools.len()), ("last", 2), "in the place of the first");
    let earlier: Vec<bool> = (0..)
        .map(ServerId)
        .zip(&last.servers)
        .map(|(id, server)| last.retired.is_of_earlier_pool(id, server))
        .collect();
    assert_eq!((last.servers[0].port, earlier), (80, vec![false, true, false]));
    let more = lay(&last, &only("last", &["10.0.0.4:80", "10.0.0.2:80"]));
    let id = more.pools[0].servers[1];
    assert_eq!(more.retired.server_given(id), last.retired.generation + 1, "it begins anew");
    let back = lay(&last, &only("other", &["10.0.0.3:80"]));
    assert_eq!(back.pools[1].name, "other");
    assert_eq!(
        (back.pools[1].servers[0], back.retired.server_given(ServerId(2))),
        (ServerId(2), 1),
        "it goes on"
    );
}

#[test]
fn many_reloads_need_a_handful_of_places() {
    let mut running = other_each_time(0);
    for number in 1..3_000 {
        let rested = running.retired.generation.saturating_sub(3);
        running = running.overlaid(&other_each_time(number), &InUse::default(), rested).unwrap().0;
        let places = [
            running.services.len(),
            running.pools.len(),
            running.servers.len(),
            running.pool_groups.len(),
            running.script_sets.len(),
        ];
        assert!(places.iter().all(|count| *count <= 24), "after {number}: {places:?}");
        let retired = &running.retired;
        assert!(retired.given.servers.len() <= 24 && retired.spare.servers.len() <= 24);
    }
}
