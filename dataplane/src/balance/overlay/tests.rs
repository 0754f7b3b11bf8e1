use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::balance::fixture::{icmp_monitor, ip};
use crate::balance::{Pick, ServerStatus};
use crate::overlay::InUse;
use crate::snapshot::{Algorithm, PoolId, Target};

/// A pool in few numbers: its algorithm, whether it has a monitor, and for each server that is there weight, whether it is
/// enabled, and its limit.
type Plan = (u8, bool, [Option<(u16, bool, Option<u32>)>; 4]);

fn plans() -> impl Strategy<Value = Vec<[Plan; 2]>> {
    let server = prop::option::weighted(0.7, (1u16..4, prop::bool::weighted(0.8), prop::option::of(1u32..5)));
    let pool = (0u8..3, any::<bool>(), proptest::array::uniform4(server));
    prop::collection::vec(proptest::array::uniform2(pool), 2..8)
}

fn snapshot(plan: &[Plan; 2]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, (algorithm, watched, servers)) in ["a", "b"].iter().zip(plan) {
        let algorithms = [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::SourceIpHash];
        let there = || (1..).zip(servers).filter_map(|(n, server)| Some((n, (*server)?)));
        let addresses: Vec<String> = there().map(|(n, _)| format!("10.0.0.{n}:80")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let pool = snapshot.add_pool(name, algorithms[usize::from(*algorithm)], &addresses);
        let members = snapshot.pools[pool.index()].servers.clone();
        for (id, (_, (weight, enabled, limit))) in members.iter().zip(there()) {
            let server = &mut snapshot.servers[id.index()];
            (server.weight, server.enabled, server.max_connections) = (weight, enabled, limit);
        }
        if *watched {
            snapshot.pools[pool.index()].monitors.push(icmp_monitor());
        }
    }
    snapshot
}

/// What is known of a server beside its configuration.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    flows: u32,
    total: u64,
    healthy: bool,
    enabled: bool,
    live: bool,
}

fn key(snapshot: &Snapshot, id: usize) -> (String, SocketAddr) {
    let server = &snapshot.servers[id];
    (snapshot.pools[server.pool.index()].name.clone(), SocketAddr::new(server.address, server.port))
}

/// What the next configuration makes of what was known.
fn go_on(known: &mut BTreeMap<(String, SocketAddr), Known>, old: &Snapshot, new: &Snapshot) {
    let find = |snapshot: &Snapshot, wanted: &(String, SocketAddr)| {
        (0..snapshot.servers.len()).find(|id| key(snapshot, *id) == *wanted)
    };
    for id in 0..new.servers.len() {
        let key = key(new, id);
        let live = !new.retired.servers.contains(&ServerId(id as u16));
        let watched = !new.pools[new.servers[id].pool.index()].monitors.is_empty();
        let wished = new.servers[id].enabled;
        // What is in a place that another server had is new, even if it was somewhere else before.
        let given = new.retired.given.servers.get(&ServerId(id as u16));
        let fresh = given == Some(&new.retired.generation) && new.retired.generation > 0;
        if fresh {
            known.remove(&key);
        }
        let was = known.get(&key).cloned();
        let state = known.entry(key.clone()).or_default();
        match was.filter(|was| was.live || !live) {
            None => (state.healthy, state.enabled) = (!watched, wished),
            Some(was) => {
                state.healthy = was.healthy || !watched;
                let before = find(old, &key).map(|id| old.servers[id].enabled);
                state.enabled = if before == Some(wished) { was.enabled } else { wished };
            }
        }
        state.live = live;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Two workers; flows come and go, servers go up and down, the operator has wishes, configurations follow each other.
    #[test]
    fn servers_keep_their_flows_and_states(plans in plans(), acts in prop::collection::vec((0u8..6, any::<u16>()), 0..150)) {
        let seats: Vec<Seat> = Seat::all(2).collect();
        let mut running = snapshot(&plans[0]);
        let mut workers: Vec<Balancer> = seats.iter().map(|seat| Balancer::on(&running, *seat)).collect();
        let mut known = BTreeMap::new();
        go_on(&mut known, &Snapshot::default(), &running);
        let mut flows: Vec<(usize, ServerId)> = Vec::new();
        let mut plans = plans[1..].iter();
        for (act, number) in acts {
            let worker = usize::from(number % 2);
            let server = ServerId(number / 2 % (running.servers.len().max(1) as u16));
            match act {
                0 | 1 => {
                    let pool = Target::Pool(PoolId(number / 2 % 2));
                    if let Pick::Server(id) = workers[worker].pick(&running, pool, ip("192.0.2.9"), &[]) {
                        prop_assert!(!running.retired.servers.contains(&id), "removed servers get no flows");
                        prop_assert!(workers[worker].take(id));
                        workers[worker].opened(id);
                        flows.push((worker, id));
                        let state = known.get_mut(&key(&running, id.index())).unwrap();
                        prop_assert!(state.healthy && state.enabled && state.live);
                        (state.flows, state.total) = (state.flows + 1, state.total + 1);
                    }
                }
                2 if !flows.is_empty() => {
                    let (worker, id) = flows.swap_remove(usize::from(number) % flows.len());
                    workers[worker].closed(id);
                    known.get_mut(&key(&running, id.index())).unwrap().flows -= 1;
                }
                3 if server.index() < running.servers.len() => {
                    let watched = !running.pools[running.servers[server.index()].pool.index()].monitors.is_empty();
                    let state = known.get_mut(&key(&running, server.index())).unwrap();
                    if watched && state.live {
                        state.healthy = number % 3 > 0;
                        workers.iter_mut().for_each(|worker| worker.set_health(server, number % 3 > 0));
                    }
                }
                4 if server.index() < running.servers.len() => {
                    known.get_mut(&key(&running, server.index())).unwrap().enabled = number % 3 > 0;
                    workers.iter_mut().for_each(|worker| worker.set_enabled(server, number % 3 > 0));
                }
                5 => {
                    let Some(plan) = plans.next() else { continue };
                    let servers = flows.iter().map(|(_, id)| *id).collect();
                    let in_use = InUse { servers, ..InUse::default() };
                    let rested = running.retired.generation;
                    let (laid, _) = running.overlaid(&snapshot(plan), &in_use, rested).unwrap();
                    go_on(&mut known, &running, &laid);
                    for (balancer, seat) in workers.iter_mut().zip(&seats) {
                        balancer.lay_over(&running, &laid, *seat);
                    }
                    running = laid;
                }
                _ => {}
            }
            check(&workers, &running, &known)?;
        }
        for (worker, id) in flows.drain(..) {
            workers[worker].closed(id);
        }
        for (server, id) in running.servers.iter().zip(0..) {
            let room = server.max_connections.map(u64::from);
            prop_assert_eq!(workers[0].room(ServerId(id)), room, "all of its room is there again");
        }
    }
}

fn check(
    workers: &[Balancer],
    running: &Snapshot,
    known: &BTreeMap<(String, SocketAddr), Known>,
) -> Result<(), TestCaseError> {
    for id in 0..running.servers.len() {
        let state = &known[&key(running, id)];
        let server = ServerId(id as u16);
        let status: Vec<ServerStatus> = workers.iter().map(|worker| worker.status(server)).collect();
        let flows: u32 = status.iter().map(|status| status.flows).sum();
        let total: u64 = status.iter().map(|status| status.total).sum();
        prop_assert_eq!((flows, total), (state.flows, state.total));
        for (worker, status) in workers.iter().zip(&status) {
            prop_assert_eq!((status.healthy, status.enabled), (state.healthy, state.enabled));
            let member = running.pools[running.servers[id].pool.index()].servers.contains(&server);
            prop_assert_eq!(worker.is_up(server), state.healthy && state.enabled && member);
        }
        let room = running.servers[id].max_connections.map(|most| u64::from(most.saturating_sub(flows)));
        prop_assert_eq!(workers[0].room(server), room, "what its flows leave of the limit");
    }
    for (pool, index) in running.pools.iter().zip(0..) {
        let up = pool.servers.iter().filter(|id| workers[0].is_up(**id)).count();
        prop_assert_eq!(workers[0].servers_up(running, PoolId(index)), (up, pool.servers.len()));
    }
    Ok(())
}

/// One server, or one without a limit.
fn one_server(limit: Option<u32>) -> Snapshot {
    snapshot(&[(0, false, [Some((1, true, limit)), None, None, None]), (0, false, [None; 4])])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Two to four workers go on one after the other, and flows come and go meanwhile. A limit that is another one holds for all
    /// as soon as one worker goes by it; one where none was, when all do.
    #[test]
    fn workers_hold_a_limit_that_changes(
        count in 2u8..5,
        limits in prop::collection::vec(prop::option::weighted(0.8, 1u32..9), 2..8),
        acts in prop::collection::vec((0u8..8, any::<u16>()), 20..200),
    ) {
        let seats: Vec<Seat> = Seat::all(count).collect();
        let mut limits = limits.into_iter();
        let mut limit = limits.next().unwrap();
        let mut running = one_server(limit);
        let mut workers: Vec<Balancer> = seats.iter().map(|seat| Balancer::on(&running, *seat)).collect();
        let mut flows: Vec<usize> = Vec::new();
        // The next configuration, and the workers that have not gone on with it.
        let mut coming: Option<(Snapshot, Option<u32>, Vec<usize>)> = None;
        for (act, number) in acts.into_iter().chain((0..).map(|number| (7, number)).take(40)) {
            let worker = usize::from(number) % workers.len();
            match (act, &mut coming) {
                (0..=3, _) => {
                    let let_in = workers[worker].take(ServerId(0));
                    let force = match &coming {
                        Some((_, next, behind)) if behind.len() < workers.len() => limit.and(*next),
                        _ => limit,
                    };
                    let changing = coming.as_ref().is_some_and(|(_, next, _)| limit.is_none() != next.is_none());
                    if !changing {
                        let room = force.is_none_or(|most| flows.len() < most as usize);
                        prop_assert_eq!(let_in, room, "{} flows, limit {:?}", flows.len(), force);
                    }
                    flows.extend(let_in.then_some(worker));
                }
                (4 | 5, _) if !flows.is_empty() => {
                    let worker = flows.swap_remove(usize::from(number) % flows.len());
                    workers[worker].closed(ServerId(0));
                }
                (6, None) => {
                    let Some(next) = limits.next() else { continue };
                    let laid = running.overlaid(&one_server(next), &InUse::default(), 0).unwrap().0;
                    coming = Some((laid, next, (0..workers.len()).collect()));
                }
                (7, Some((laid, next, behind))) => {
                    let worker = behind.swap_remove(usize::from(number) % behind.len());
                    workers[worker].lay_over(&running, laid, seats[worker]);
                    if behind.is_empty() {
                        limit = *next;
                        running = coming.take().unwrap().0;
                    }
                }
                _ => {}
            }
        }
        prop_assert!(coming.is_none());
        let room = |most: u32| u64::from(most).saturating_sub(flows.len() as u64);
        prop_assert_eq!(workers[0].room(ServerId(0)), limit.map(room));
        flows.iter().for_each(|worker| workers[*worker].closed(ServerId(0)));
        if let Some(limit) = limit {
            let taken = (0..2 * limit as usize).filter(|n| workers[n % seats.len()].take(ServerId(0))).count();
            prop_assert_eq!(taken, limit as usize, "all of the room and no more");
        }
    }
}

/// The flow that has no room is another worker's than those that end.
#[test]
fn a_lower_limit_is_held_by_all_workers_together() {
    let old = one_server(Some(3));
    let seats = [0, 1].map(|number| Seat { number, of: 2 });
    let mut workers = seats.map(|seat| Balancer::on(&old, seat));
    assert!(workers[0].take(ServerId(0)) && workers[0].take(ServerId(0)) && workers[1].take(ServerId(0)));
    let (new, _) = old.overlaid(&one_server(Some(2)), &InUse::default(), 0).unwrap();
    workers.iter_mut().zip(seats).for_each(|(balancer, seat)| balancer.lay_over(&old, &new, seat));
    workers[0].closed(ServerId(0));
    assert!(workers.iter_mut().all(|balancer| !balancer.take(ServerId(0))), "two flows, limit two");
    workers[1].closed(ServerId(0));
    assert!(workers[0].take(ServerId(0)) && !workers[1].take(ServerId(0)));
}

#[test]
fn a_lower_limit_ends_no_flow_and_lets_none_in_until_there_is_room() {
    let server = Some((1, true, Some(3)));
    let plan = |limit| {
        [(0, false, [Some((1, true, limit)), None, None, None]), (0, false, [server, None, None, None])]
    };
    let old = snapshot(&plan(Some(3)));
    let mut balancer = Balancer::new(&old);
    (0..3).for_each(|_| assert!(balancer.take(ServerId(0))));
    let (new, _) = old.overlaid(&snapshot(&plan(Some(2))), &InUse::default(), 0).unwrap();
    balancer.lay_over(&old, &new, Seat::ALONE);
    assert_eq!((balancer.status(ServerId(0)).flows, balancer.room(ServerId(0))), (3, Some(0)));
    balancer.closed(ServerId(0));
    assert!(!balancer.take(ServerId(0)), "two are enough");
    balancer.closed(ServerId(0));
    assert!(balancer.take(ServerId(0)) && !balancer.take(ServerId(0)));
    let (none, _) = new.overlaid(&snapshot(&plan(None)), &InUse::default(), 0).unwrap();
    balancer.lay_over(&new, &none, Seat::ALONE);
    (0..10).for_each(|_| assert!(balancer.take(ServerId(0))));
    assert_eq!(balancer.room(ServerId(1)), Some(3), "the other one's is untouched");
}

#[test]
fn monitors_that_are_new_leave_a_server_up_until_they_have_found_something() {
    let plan = |watched| {
        [(2, watched, [Some((1, true, None)), Some((1, true, None)), None, None]), (0, false, [None; 4])]
    };
    let old = snapshot(&plan(false));
    let mut balancer = Balancer::new(&old);
    let (new, _) = old.overlaid(&snapshot(&plan(true)), &InUse::default(), 0).unwrap();
    balancer.lay_over(&old, &new, Seat::ALONE);
    assert!(balancer.is_up(ServerId(0)) && balancer.is_up(ServerId(1)));
    balancer.set_health(ServerId(0), false);
    let chosen = balancer.pick(&new, Target::Pool(PoolId(0)), ip("192.0.2.9"), &[]);
    assert_eq!(chosen, Pick::Server(ServerId(1)));
    let (again, _) = new.overlaid(&snapshot(&plan(false)), &InUse::default(), 0).unwrap();
    balancer.lay_over(&new, &again, Seat::ALONE);
    assert!(balancer.is_up(ServerId(0)), "nobody watches it any more");
}
