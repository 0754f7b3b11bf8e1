//! Servers with `max_connections`.

use std::net::IpAddr;

use proptest::prelude::*;

use super::fixture::{icmp_monitor, ip};
use super::*;
use crate::policy::Selection;
use crate::snapshot::Algorithm::{LeastConnections, RoundRobin, SourceIpHash};
use crate::snapshot::{PoolGroupId, Target};

const THREE: &[&str] = &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
const POOL: Target = Target::Pool(PoolId(0));

fn limited(algorithm: Algorithm, most: u32) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.add_pool("web", algorithm, THREE);
    snapshot.limit_servers(most);
    snapshot
}

fn client() -> IpAddr {
    ip("192.0.2.7")
}

fn fill(balancer: &mut Balancer, server: u16, flows: u32) {
    for _ in 0..flows {
        assert!(balancer.take(ServerId(server)));
        balancer.opened(ServerId(server));
    }
}

/// Opens a flow to whatever server is chosen.
fn open(balancer: &mut Balancer, snapshot: &Snapshot) -> Result<u16, Pick> {
    match balancer.pick(snapshot, POOL, client(), &[]) {
        Pick::Server(server) => {
            fill(balancer, server.0, 1);
            Ok(server.0)
        }
        failed => Err(failed),
    }
}

#[test]
fn every_algorithm_leaves_full_servers_out_until_a_flow_ends() {
    for algorithm in [RoundRobin, LeastConnections, SourceIpHash] {
        let snapshot = limited(algorithm, 2);
        let mut balancer = Balancer::new(&snapshot);
        let mut opened: Vec<u16> = (0..6).map(|_| open(&mut balancer, &snapshot).unwrap()).collect();
        opened.sort_unstable();
        assert_eq!(opened, [0, 0, 1, 1, 2, 2], "{algorithm:?}");
        let full = Pick::Full(FailAction::Reset, PoolId(0));
        assert_eq!(open(&mut balancer, &snapshot), Err(full), "{algorithm:?}");
        assert_eq!(balancer.servers_up(&snapshot, PoolId(0)), (3, 3), "full is not down");
        assert!(balancer.is_up(ServerId(1)) && !balancer.is_available(ServerId(1)));
        balancer.closed(ServerId(1));
        assert!(balancer.is_available(ServerId(1)));
        assert_eq!(open(&mut balancer, &snapshot), Ok(1), "{algorithm:?}");
        assert_eq!(open(&mut balancer, &snapshot), Err(full), "{algorithm:?}");
    }
}

#[test]
fn only_clients_of_the_full_server_are_sent_elsewhere_by_the_hash() {
    let snapshot = limited(SourceIpHash, 1);
    let mut balancer = Balancer::new(&snapshot);
    let clients: Vec<IpAddr> = (0..200).map(|last| ip(&format!("198.51.100.{last}"))).collect();
    let choices = |balancer: &mut Balancer| -> Vec<Pick> {
        clients.iter().map(|client| balancer.pick(&snapshot, POOL, *client, &[])).collect()
    };
    let before = choices(&mut balancer);
    fill(&mut balancer, 1, 1);
    for (before, now) in before.iter().zip(choices(&mut balancer)) {
        match before {
            Pick::Server(ServerId(1)) => assert!(matches!(now, Pick::Server(ServerId(0 | 2)))),
            other => assert_eq!(*other, now),
        }
    }
    balancer.closed(ServerId(1));
    assert_eq!(choices(&mut balancer), before);
}

#[test]
fn limits_are_each_servers_own_and_some_have_none() {
    let mut snapshot = limited(LeastConnections, 1);
    snapshot.servers[0].max_connections = Some(3);
    snapshot.servers[2].max_connections = None;
    let mut balancer = Balancer::new(&snapshot);
    for _ in 0..20 {
        open(&mut balancer, &snapshot).unwrap();
    }
    let flows = [0, 1, 2].map(|server| balancer.status(ServerId(server)).flows);
    assert_eq!(flows, [3, 1, 16]);
    let rooms = [0, 1, 2].map(|server| balancer.room(ServerId(server)));
    assert_eq!(rooms, [Some(0), Some(0), None]);
}

#[test]
fn a_full_pool_is_left_by_its_fail_action_and_named_in_the_end() {
    let mut snapshot = Snapshot::default();
    for pool in 0..3u16 {
        let id = snapshot.add_pool(&format!("p{pool}"), RoundRobin, &[&format!("10.0.{pool}.1:80")]);
        snapshot.pools[id.index()].fail_action = match pool {
            2 => FailAction::Close,
            _ => FailAction::Pool(PoolId(pool + 1)),
        };
    }
    snapshot.limit_servers(1);
    let mut balancer = Balancer::new(&snapshot);
    balancer.set_health(ServerId(0), false);
    assert_eq!(open(&mut balancer, &snapshot), Ok(1));
    assert_eq!(open(&mut balancer, &snapshot), Ok(2));
    assert_eq!(open(&mut balancer, &snapshot), Err(Pick::Full(FailAction::Close, PoolId(1))));
    balancer.set_health(ServerId(1), false);
    balancer.set_enabled(ServerId(2), false);
    assert_eq!(open(&mut balancer, &snapshot), Err(Pick::Failed(FailAction::Close)), "all are down");
}

#[test]
fn a_group_goes_on_to_pools_with_room() {
    let mut snapshot = Snapshot::default();
    for pool in 0..3 {
        snapshot.add_pool(&format!("p{pool}"), RoundRobin, &[&format!("10.0.{pool}.1:80")]);
    }
    snapshot.limit_servers(2);
    snapshot.add_group("group", &[(PoolId(0), 10, 1), (PoolId(1), 10, 1), (PoolId(2), 5, 1)]);
    let mut balancer = Balancer::new(&snapshot);
    let group = Target::PoolGroup(PoolGroupId(0));
    let open = |balancer: &mut Balancer| match balancer.pick(&snapshot, group, client(), &[]) {
        Pick::Server(server) => {
            fill(balancer, server.0, 1);
            Ok(server.0)
        }
        failed => Err(failed),
    };
    fill(&mut balancer, 0, 1);
    let opened: Vec<u16> = (0..5).map(|_| open(&mut balancer).unwrap()).collect();
    assert_eq!(opened, [0, 1, 1, 2, 2], "the other pool of the same priority, then the lower priority");
    assert_eq!(open(&mut balancer), Err(Pick::Full(FailAction::Reset, PoolId(0))));
    balancer.set_health(ServerId(0), false);
    assert_eq!(
        open(&mut balancer),
        Err(Pick::Full(FailAction::Reset, PoolId(1))),
        "it is full, the first is down"
    );
    balancer.closed(ServerId(1));
    assert_eq!(open(&mut balancer), Ok(1));
}

#[test]
fn a_full_server_that_a_script_named_is_not_replaced() {
    let mut snapshot = limited(RoundRobin, 1);
    let other = snapshot.add_pool("other", RoundRobin, &["10.0.1.1:80"]);
    let mut balancer = Balancer::new(&snapshot);
    let named = Selection::Server(ServerId(1));
    assert_eq!(balancer.pick_selection(&snapshot, named, client(), &[]), Pick::Server(ServerId(1)));
    fill(&mut balancer, 1, 1);
    for (action, end) in [
        (FailAction::Reset, FailAction::Reset),
        (FailAction::Close, FailAction::Close),
        (FailAction::Pool(other), FailAction::Reset),
    ] {
        snapshot.pools[0].fail_action = action;
        let full = Pick::Full(end, PoolId(0));
        assert_eq!(balancer.pick_selection(&snapshot, named, client(), &[]), full);
        let failed = Pick::Failed(end);
        assert_eq!(
            balancer.pick_selection(&snapshot, named, client(), &[ServerId(1)]),
            failed,
            "it was tried"
        );
        assert_eq!(balancer.pick_selection(&snapshot, named, ip("2001:db8::9"), &[]), failed);
    }
}

#[test]
fn a_datagram_of_a_flow_that_exists_reaches_a_full_server() {
    for algorithm in [RoundRobin, LeastConnections, SourceIpHash] {
        let snapshot = limited(algorithm, 1);
        let mut balancer = Balancer::new(&snapshot);
        (0..3).for_each(|server| fill(&mut balancer, server, 1));
        let selection = Selection::Pool(PoolId(0));
        let mut pick = |known: &dyn Fn(ServerId) -> bool| {
            balancer.pick_for_datagram(&snapshot, selection, client(), &[], known)
        };
        assert_eq!(pick(&|_| false), Pick::Full(FailAction::Reset, PoolId(0)));
        assert_eq!(pick(&|server| server == ServerId(2)), Pick::Server(ServerId(2)), "{algorithm:?}");
    }
}

#[test]
fn what_the_operator_and_the_monitors_say_changes_no_room() {
    let mut snapshot = limited(RoundRobin, 2);
    snapshot.pools[0].monitors.push(icmp_monitor());
    let mut balancer = Balancer::new(&snapshot);
    balancer.set_health(ServerId(0), true);
    fill(&mut balancer, 0, 2);
    balancer.set_enabled(ServerId(0), false);
    balancer.set_health(ServerId(0), false);
    balancer.closed(ServerId(0));
    assert_eq!((balancer.room(ServerId(0)), balancer.is_available(ServerId(0))), (Some(1), false));
    assert_eq!(open(&mut balancer, &snapshot), Err(Pick::Failed(FailAction::Reset)));
    balancer.set_enabled(ServerId(0), true);
    balancer.set_health(ServerId(0), true);
    assert_eq!(open(&mut balancer, &snapshot), Ok(0));
    assert!(open(&mut balancer, &snapshot).is_err());
}

#[test]
fn ending_more_flows_than_there_are_makes_no_room() {
    let snapshot = limited(RoundRobin, 1);
    let mut balancer = Balancer::new(&snapshot);
    fill(&mut balancer, 0, 1);
    (0..3).for_each(|_| balancer.closed(ServerId(0)));
    assert_eq!(balancer.room(ServerId(0)), Some(1));
    assert!(balancer.take(ServerId(0)) && !balancer.take(ServerId(0)));
}

#[test]
fn a_worker_that_goes_leaves_its_room_to_the_others() {
    let snapshot = limited(RoundRobin, 3);
    let [mut one, mut other] = [0, 1].map(|number| Balancer::on(&snapshot, Seat { number, of: 2 }));
    fill(&mut one, 0, 2);
    fill(&mut other, 0, 1);
    assert!(!one.take(ServerId(0)) && !other.take(ServerId(0)));
    drop(one);
    assert_eq!(other.room(ServerId(0)), Some(2));
    fill(&mut other, 0, 2);
    drop(other);
    assert_eq!(Balancer::new(&snapshot).room(ServerId(0)), Some(3));
}

#[test]
fn refusals_are_the_pools() {
    let snapshot = limited(RoundRobin, 1);
    let mut balancer = Balancer::new(&snapshot);
    balancer.refused(PoolId(0));
    balancer.refused(PoolId(9));
    assert_eq!((balancer.refusals(PoolId(0)), balancer.refusals(PoolId(9))), (1, 0));
}

proptest! {
    /// Any mix of workers fills a pool to exactly its limits, and then all say that it is full.
    #[test]
    fn workers_fill_a_pool_to_exactly_its_limits(
        limits in prop::collection::vec(1u32..12, 3),
        count in 1u8..5,
        turns in prop::collection::vec((0usize..4, any::<bool>(), 0u16..3), 40..200),
        algorithm in prop::sample::select(vec![RoundRobin, LeastConnections, SourceIpHash]),
    ) {
        let mut snapshot = limited(algorithm, 1);
        snapshot.servers.iter_mut().zip(&limits).for_each(|(server, most)| server.max_connections = Some(*most));
        let mut workers: Vec<Balancer> = Seat::all(count).map(|seat| Balancer::on(&snapshot, seat)).collect();
        let flows = |workers: &[Balancer], server| -> u32 {
            workers.iter().map(|balancer| balancer.status(ServerId(server)).flows).sum()
        };
        for (worker, opens, server) in turns {
            let worker = worker % workers.len();
            if opens {
                let full = (0..3u16).all(|server| flows(&workers, server) == limits[usize::from(server)]);
                let opened = open(&mut workers[worker], &snapshot);
                prop_assert_eq!(opened.is_err(), full);
            } else {
                workers[worker].closed(ServerId(server));
            }
            for server in 0..3u16 {
                let (open, most) = (flows(&workers, server), limits[usize::from(server)]);
                prop_assert!(open <= most);
                prop_assert_eq!(workers[0].room(ServerId(server)), Some(u64::from(most - open)));
            }
        }
        while open(&mut workers[0], &snapshot).is_ok() {}
        for server in 0..3u16 {
            prop_assert_eq!(flows(&workers, server), limits[usize::from(server)]);
        }
        prop_assert!(workers.iter_mut().all(|balancer| open(balancer, &snapshot).is_err()));
    }
}

#[test]
fn a_rehearsal_sees_who_is_full_and_owns_no_tokens() {
    let snapshot = limited(RoundRobin, 2);
    let mut balancer = Balancer::new(&snapshot);
    fill(&mut balancer, 0, 2);
    fill(&mut balancer, 1, 2);
    for _ in 0..3 {
        let mut rehearsal = balancer.rehearsal();
        let pick = |b: &mut Balancer| b.pick_selection(&snapshot, POOL.into(), client(), &[]);
        assert_eq!(pick(&mut rehearsal), Pick::Server(ServerId(2)));
        assert_eq!(rehearsal.status(ServerId(0)).flows, 2);
        drop(rehearsal);
        assert!(!balancer.take(ServerId(0)), "a copy gives nothing back");
    }
}

#[test]
fn one_that_imitates_another_chooses_as_it_would_and_takes_nothing_from_it() {
    let snapshot = limited(RoundRobin, 2);
    let mut balancer = Balancer::new(&snapshot);
    fill(&mut balancer, 1, 2);
    open(&mut balancer, &snapshot).unwrap();
    // A copy of a configuration has tokens of its own.
    let copy = snapshot.clone();
    let mut other = Balancer::new(&copy);
    other.imitate(&balancer.rehearsal());
    assert_eq!(other.status(ServerId(1)).flows, 2);
    let next = other.pick_selection(&snapshot, POOL.into(), client(), &[]);
    assert_eq!(next, balancer.rehearsal().pick_selection(&snapshot, POOL.into(), client(), &[]));
    let Pick::Server(server) = next else { panic!("{next:?}") };
    assert_ne!(server, ServerId(1), "that one is full");
    let room = balancer.room(server);
    assert!(other.take(server) && balancer.room(server) == room, "what it takes is its own");
}

/// Another worker takes and gives back the last connection of one pool all the time; the other pool has room.
#[test]
fn a_group_with_room_refuses_nobody_while_another_pool_fills_up_and_empties() {
    let mut snapshot = Snapshot::default();
    let full = snapshot.add_pool("a", RoundRobin, &["10.0.0.1:80"]);
    snapshot.limit_servers(1);
    let roomy = snapshot.add_pool("b", RoundRobin, &["10.0.0.2:80"]);
    let member = |pool| crate::snapshot::PoolGroupMember { pool, priority: 1, ratio: 1 };
    let members = vec![member(full), member(roomy)];
    snapshot.pool_groups.push(crate::snapshot::PoolGroup { name: "ab".to_owned(), members });
    let (mut mine, mut theirs) = {
        let seat = |number| Seat { number, of: 2 };
        (Balancer::on(&snapshot, seat(0)), Balancer::on(&snapshot, seat(1)))
    };
    let over = std::sync::atomic::AtomicBool::new(false);
    let (over, order) = (&over, std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !over.load(order) {
                if theirs.take(ServerId(0)) {
                    theirs.closed(ServerId(0));
                }
            }
        });
        let group = Target::PoolGroup(PoolGroupId(0));
        let picks = (0..200_000).map(|_| mine.pick_selection(&snapshot, group.into(), client(), &[]));
        let refused = picks.filter(|pick| !matches!(pick, Pick::Server(_))).count();
        over.store(true, order);
        assert_eq!(refused, 0);
    });
}
