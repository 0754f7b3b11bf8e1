use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fixture::{icmp_monitor, ip};
use super::*;
use crate::policy::Selection;
use crate::snapshot::Algorithm::{LeastConnections, RoundRobin, SourceIpHash};
use crate::snapshot::{PoolGroupId, Target};

const THREE: &[&str] = &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

fn one_pool(algorithm: Algorithm, servers: &[&str], weights: &[u16]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.add_pool("web", algorithm, servers);
    for (server, weight) in snapshot.servers.iter_mut().zip(weights) {
        server.weight = *weight;
    }
    snapshot
}

fn client() -> IpAddr {
    ip("192.0.2.7")
}

/// The server numbers of the next `count` choices in pool 0.
fn choices(balancer: &mut Balancer, snapshot: &Snapshot, count: usize) -> Vec<u16> {
    let pick = |_| match balancer.pick(snapshot, Target::Pool(PoolId(0)), client(), &[]) {
        Pick::Server(server) => server.0,
        failed => panic!("{failed:?}"),
    };
    (0..count).map(pick).collect()
}

fn open(balancer: &mut Balancer, server: ServerId) {
    assert!(balancer.take(server));
    balancer.opened(server);
}

fn shares(picks: impl IntoIterator<Item = u16>) -> BTreeMap<u16, u32> {
    let mut shares = BTreeMap::new();
    for server in picks {
        *shares.entry(server).or_default() += 1;
    }
    shares
}

#[test]
fn a_monitored_server_is_down_until_it_is_found_up() {
    let mut snapshot = one_pool(RoundRobin, THREE, &[]);
    snapshot.pools[0].monitors.push(icmp_monitor());
    let mut balancer = Balancer::new(&snapshot);
    let target = Target::Pool(PoolId(0));
    assert_eq!(balancer.servers_up(&snapshot, PoolId(0)), (0, 3));
    assert_eq!(balancer.pick(&snapshot, target, client(), &[]), Pick::Failed(FailAction::Reset));
    assert_eq!(
        balancer.status(ServerId(1)),
        ServerStatus { healthy: false, enabled: true, flows: 0, total: 0 }
    );
    balancer.set_health(ServerId(1), true);
    assert!(balancer.is_up(ServerId(1)));
    assert_eq!(balancer.servers_up(&snapshot, PoolId(0)), (1, 3));
    assert_eq!(balancer.pick(&snapshot, target, client(), &[]), Pick::Server(ServerId(1)));
    balancer.set_health(ServerId(1), true);
    assert_eq!(balancer.servers_up(&snapshot, PoolId(0)), (1, 3));
}

#[test]
fn a_disabled_server_takes_no_new_flows_and_keeps_its_old_ones() {
    let mut snapshot = one_pool(RoundRobin, THREE, &[]);
    snapshot.servers[0].enabled = false;
    let mut balancer = Balancer::new(&snapshot);
    assert_eq!(choices(&mut balancer, &snapshot, 4), [1, 2, 1, 2]);
    open(&mut balancer, ServerId(1));
    balancer.set_enabled(ServerId(1), false);
    balancer.set_enabled(ServerId(0), true);
    assert_eq!(choices(&mut balancer, &snapshot, 4), [0, 2, 0, 2]);
    let status = balancer.status(ServerId(1));
    assert_eq!(status, ServerStatus { healthy: true, enabled: false, flows: 1, total: 1 });
    assert!(!balancer.is_up(ServerId(1)));
}

#[test]
fn flow_counts_never_go_below_zero() {
    let snapshot = one_pool(RoundRobin, THREE, &[]);
    let mut balancer = Balancer::new(&snapshot);
    open(&mut balancer, ServerId(2));
    balancer.closed(ServerId(2));
    balancer.closed(ServerId(2));
    assert_eq!(
        balancer.status(ServerId(2)),
        ServerStatus { healthy: true, enabled: true, flows: 0, total: 1 }
    );
}

#[test]
fn unknown_numbers_are_harmless() {
    let snapshot = one_pool(SourceIpHash, THREE, &[]);
    let mut balancer = Balancer::new(&snapshot);
    let far = ServerId(999);
    balancer.set_health(far, true);
    balancer.set_enabled(far, true);
    open(&mut balancer, far);
    balancer.closed(far);
    assert_eq!(balancer.status(far), ServerStatus::default());
    assert!(!balancer.is_up(far));
    assert_eq!(balancer.servers_up(&snapshot, PoolId(9)), (0, 0));
    let failed = Pick::Failed(FailAction::Reset);
    assert_eq!(balancer.pick(&snapshot, Target::Pool(PoolId(9)), client(), &[]), failed);
    assert_eq!(balancer.pick(&snapshot, Target::PoolGroup(PoolGroupId(9)), client(), &[]), failed);
    assert_eq!(balancer.pick_selection(&snapshot, Selection::Server(far), client(), &[]), failed);
}

#[test]
fn round_robin_goes_in_turn() {
    let snapshot = one_pool(RoundRobin, THREE, &[]);
    let mut balancer = Balancer::new(&snapshot);
    assert_eq!(choices(&mut balancer, &snapshot, 6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn weighted_round_robin_spreads_the_turns_of_the_heavy_one() {
    let snapshot = one_pool(RoundRobin, THREE, &[5, 1, 1]);
    let mut balancer = Balancer::new(&snapshot);
    assert_eq!(choices(&mut balancer, &snapshot, 7), [0, 0, 1, 0, 2, 0, 0]);
    let seven_hundred = shares(choices(&mut balancer, &snapshot, 700));
    assert_eq!(seven_hundred, BTreeMap::from([(0, 500), (1, 100), (2, 100)]));
}

#[test]
fn least_connections_counts_flows_per_weight() {
    let snapshot = one_pool(LeastConnections, THREE, &[1, 1, 2]);
    let mut balancer = Balancer::new(&snapshot);
    for _ in 0..400 {
        let server = choices(&mut balancer, &snapshot, 1)[0];
        open(&mut balancer, ServerId(server));
    }
    let flows: Vec<u32> = (0..3).map(|s| balancer.status(ServerId(s)).flows).collect();
    assert_eq!(flows, [100, 100, 200]);
    for _ in 0..10 {
        balancer.closed(ServerId(1));
    }
    assert_eq!(shares(choices(&mut balancer, &snapshot, 5)), BTreeMap::from([(1, 5)]));
}

#[test]
fn least_connections_serves_ties_in_turn() {
    let snapshot = one_pool(LeastConnections, THREE, &[]);
    let mut balancer = Balancer::new(&snapshot);
    assert_eq!(choices(&mut balancer, &snapshot, 7), [0, 1, 2, 0, 1, 2, 0]);
    open(&mut balancer, ServerId(1));
    assert_eq!(choices(&mut balancer, &snapshot, 4), [2, 0, 2, 0]);
}

#[test]
fn servers_that_were_tried_are_left_out() {
    for algorithm in [RoundRobin, LeastConnections, SourceIpHash] {
        let snapshot = one_pool(algorithm, THREE, &[]);
        let mut balancer = Balancer::new(&snapshot);
        let mut tried = Vec::new();
        for _ in 0..3 {
            match balancer.pick(&snapshot, Target::Pool(PoolId(0)), client(), &tried) {
                Pick::Server(server) => tried.push(server),
                failed => panic!("{algorithm:?}: {failed:?} after {tried:?}"),
            }
        }
        tried.sort_unstable();
        assert_eq!(tried, [ServerId(0), ServerId(1), ServerId(2)], "{algorithm:?}");
        let none_left = balancer.pick(&snapshot, Target::Pool(PoolId(0)), client(), &tried);
        assert_eq!(none_left, Pick::Failed(FailAction::Reset), "{algorithm:?}");
    }
}

#[test]
fn a_client_gets_a_server_of_its_address_family() {
    for algorithm in [RoundRobin, LeastConnections, SourceIpHash] {
        let snapshot = one_pool(algorithm, &["10.0.0.1:80", "[2001:db8::1]:80", "10.0.0.2:80"], &[]);
        let mut balancer = Balancer::new(&snapshot);
        let target = Target::Pool(PoolId(0));
        for last in 1..=50 {
            let v6 = balancer.pick(&snapshot, target, ip(&format!("2001:db8:7::{last}")), &[]);
            assert_eq!(v6, Pick::Server(ServerId(1)), "{algorithm:?}");
            let v4 = balancer.pick(&snapshot, target, ip(&format!("192.0.2.{last}")), &[]);
            assert!(matches!(v4, Pick::Server(ServerId(0 | 2))), "{algorithm:?}: {v4:?}");
        }
        balancer.set_enabled(ServerId(1), false);
        let none = balancer.pick(&snapshot, target, ip("2001:db8:7::1"), &[]);
        assert_eq!(none, Pick::Failed(FailAction::Reset));
        assert_eq!(balancer.servers_up(&snapshot, PoolId(0)), (2, 3));
    }
}

/// Pools 0 to 5 with one server each, each failing over to the next, the last one closing.
fn chain() -> (Snapshot, Balancer) {
    let mut snapshot = Snapshot::default();
    for pool in 0..6u16 {
        let id = snapshot.add_pool(&format!("p{pool}"), RoundRobin, &[&format!("10.0.{pool}.1:80")]);
        let action = if pool == 5 { FailAction::Close } else { FailAction::Pool(PoolId(pool + 1)) };
        snapshot.pools[id.index()].fail_action = action;
    }
    let balancer = Balancer::new(&snapshot);
    (snapshot, balancer)
}

#[test]
fn fail_actions_are_followed_four_times() {
    let (snapshot, mut balancer) = chain();
    let pick = |balancer: &mut Balancer, first: u16| {
        balancer.pick(&snapshot, Target::Pool(PoolId(first)), client(), &[])
    };
    for down in 0..4 {
        assert_eq!(pick(&mut balancer, 0), Pick::Server(ServerId(down)));
        balancer.set_health(ServerId(down), false);
    }
    assert_eq!(pick(&mut balancer, 0), Pick::Server(ServerId(4)));
    balancer.set_health(ServerId(4), false);
    assert_eq!(pick(&mut balancer, 0), Pick::Failed(FailAction::Reset), "five pools were tried");
    assert_eq!(pick(&mut balancer, 1), Pick::Server(ServerId(5)));
    balancer.set_health(ServerId(5), false);
    assert_eq!(pick(&mut balancer, 1), Pick::Failed(FailAction::Close));
}

#[test]
fn a_cycle_of_fail_actions_ends() {
    let (mut snapshot, mut balancer) = chain();
    snapshot.pools[1].fail_action = FailAction::Pool(PoolId(0));
    balancer.set_health(ServerId(0), false);
    balancer.set_health(ServerId(1), false);
    let pick = balancer.pick(&snapshot, Target::Pool(PoolId(0)), client(), &[]);
    assert_eq!(pick, Pick::Failed(FailAction::Reset));
}

#[test]
fn a_server_that_a_script_named_is_never_replaced() {
    let (mut snapshot, mut balancer) = chain();
    let pick = |balancer: &mut Balancer, snapshot: &Snapshot, server: u16, tried: &[ServerId]| {
        balancer.pick_selection(snapshot, Selection::Server(ServerId(server)), client(), tried)
    };
    assert_eq!(pick(&mut balancer, &snapshot, 0, &[]), Pick::Server(ServerId(0)));
    assert_eq!(pick(&mut balancer, &snapshot, 0, &[ServerId(0)]), Pick::Failed(FailAction::Reset));
    balancer.set_health(ServerId(0), false);
    assert_eq!(pick(&mut balancer, &snapshot, 0, &[]), Pick::Failed(FailAction::Reset));
    snapshot.pools[0].fail_action = FailAction::Close;
    assert_eq!(pick(&mut balancer, &snapshot, 0, &[]), Pick::Failed(FailAction::Close));
    let other_family =
        balancer.pick_selection(&snapshot, Selection::Server(ServerId(1)), ip("2001:db8::9"), &[]);
    assert_eq!(other_family, Pick::Failed(FailAction::Reset));
    let pool = balancer.pick_selection(&snapshot, Selection::Pool(PoolId(3)), client(), &[]);
    assert_eq!(pool, Pick::Server(ServerId(3)));
}

/// Group 0: pools 0 and 1 (ratio 3 and 1) at priority 10, pool 2 at priority 5, pool 3 at priority 20 with ratio 0.
fn group() -> (Snapshot, Balancer) {
    let (mut snapshot, _) = chain();
    snapshot.pools[0].fail_action = FailAction::Close;
    let members = [(PoolId(0), 10, 3), (PoolId(1), 10, 1), (PoolId(2), 5, 1), (PoolId(3), 20, 0)];
    snapshot.add_group("group", &members);
    let balancer = Balancer::new(&snapshot);
    (snapshot, balancer)
}

#[test]
fn a_group_shares_flows_by_ratio_within_its_highest_priority() {
    let (snapshot, mut balancer) = group();
    let target = Target::PoolGroup(PoolGroupId(0));
    let pick = |balancer: &mut Balancer| match balancer.pick(&snapshot, target, client(), &[]) {
        Pick::Server(server) => server.0,
        failed => panic!("{failed:?}"),
    };
    let first: Vec<u16> = (0..4).map(|_| pick(&mut balancer)).collect();
    assert_eq!(first, [0, 0, 1, 0]);
    assert_eq!(shares((0..400).map(|_| pick(&mut balancer))), BTreeMap::from([(0, 300), (1, 100)]));
    balancer.set_health(ServerId(0), false);
    assert_eq!(shares((0..10).map(|_| pick(&mut balancer))), BTreeMap::from([(1, 10)]));
    balancer.set_health(ServerId(1), false);
    assert_eq!(shares((0..10).map(|_| pick(&mut balancer))), BTreeMap::from([(2, 10)]));
    balancer.set_health(ServerId(0), true);
    assert_eq!(shares((0..10).map(|_| pick(&mut balancer))), BTreeMap::from([(0, 10)]));
}

#[test]
fn a_group_without_a_server_fails_as_its_first_pool() {
    let (snapshot, mut balancer) = group();
    for server in [0, 1, 2] {
        balancer.set_health(ServerId(server), false);
    }
    let target = Target::PoolGroup(PoolGroupId(0));
    let pick = balancer.pick(&snapshot, target, client(), &[]);
    assert_eq!(pick, Pick::Failed(FailAction::Close), "of pool 0; ratio 0 has no say");
}

#[test]
fn a_group_goes_on_to_the_next_priority_when_connecting_failed() {
    let (snapshot, mut balancer) = group();
    let tried = [ServerId(0), ServerId(1)];
    let pick = balancer.pick(&snapshot, Target::PoolGroup(PoolGroupId(0)), client(), &tried);
    assert_eq!(pick, Pick::Server(ServerId(2)));
}

#[test]
fn a_client_stays_on_its_server_by_address_hash() {
    let snapshot = one_pool(SourceIpHash, THREE, &[]);
    let (mut one, mut other) = (Balancer::new(&snapshot), Balancer::new(&snapshot));
    for last in 0..=255 {
        let client = ip(&format!("198.51.100.{last}"));
        let first = one.pick(&snapshot, Target::Pool(PoolId(0)), client, &[]);
        assert_eq!(first, one.pick(&snapshot, Target::Pool(PoolId(0)), client, &[]));
        assert_eq!(first, other.pick(&snapshot, Target::Pool(PoolId(0)), client, &[]), "on another worker");
    }
}

#[test]
fn looking_ahead_names_servers_in_the_order_in_which_they_are_tried_and_changes_nothing() {
    let mut snapshot = Snapshot::default();
    let spare = snapshot.add_pool("spare", Algorithm::RoundRobin, &["10.0.0.9:80"]);
    let pool =
        snapshot.add_pool("pool", Algorithm::RoundRobin, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    snapshot.pools[pool.index()].fail_action = FailAction::Pool(spare);
    let mut balancer = Balancer::new(&snapshot);
    balancer.set_health(ServerId(2), false);
    let client: IpAddr = "192.0.2.7".parse().unwrap();
    let ahead = balancer.preference(&snapshot, Selection::Pool(pool), client);
    assert_eq!(
        (ahead.order.clone(), ahead.then),
        (vec![ServerId(1), ServerId(3), ServerId(0)], FailAction::Reset)
    );
    assert_eq!(balancer.preference(&snapshot, Selection::Pool(pool), client), ahead);
    for server in [ServerId(1), ServerId(3)] {
        let first = balancer.preference(&snapshot, Selection::Pool(pool), client).order[0];
        assert_eq!(first, server);
        assert_eq!(balancer.pick(&snapshot, Target::Pool(pool), client, &[]), Pick::Server(server));
    }
    let named = balancer.preference(&snapshot, Selection::Server(ServerId(2)), client);
    assert_eq!(named.order, []);
}

#[test]
fn looking_ahead_takes_a_full_server_as_full() {
    let mut snapshot = Snapshot::default();
    let pool = snapshot.add_pool("pool", Algorithm::LeastConnections, &["10.0.0.1:80", "10.0.0.2:80"]);
    snapshot.limit_servers(1);
    let mut balancer = Balancer::new(&snapshot);
    assert!(balancer.take(ServerId(0)));
    let client: IpAddr = "192.0.2.7".parse().unwrap();
    assert_eq!(balancer.preference(&snapshot, Selection::Pool(pool), client).order, [ServerId(1)]);
    assert!(balancer.is_available(ServerId(1)), "the copy took no token");
}

#[test]
fn the_short_way_chooses_as_the_long_one_does() {
    let snapshot = one_pool(RoundRobin, THREE, &[3, 1, 2]);
    let (mut short, mut long) = (Balancer::new(&snapshot), Balancer::new(&snapshot));
    for step in 0..60 {
        if step % 20 == 7 {
            let up = step != 7;
            for balancer in [&mut short, &mut long] {
                balancer.set_health(ServerId(0), up);
            }
        }
        let Pick::Server(expected) = long.pick(&snapshot, Target::Pool(PoolId(0)), client(), &[]) else {
            panic!("no server at {step}");
        };
        assert!(long.take(expected));
        assert_eq!(short.take_next(PoolId(0), client().into()), Some(expected), "at {step}");
        assert_eq!(short.status(expected), long.status(expected), "at {step}");
    }
}

#[test]
fn the_short_way_is_for_pools_that_take_turns_without_limits() {
    let of = |snapshot: &Snapshot, client: IpAddr| {
        let mut balancer = Balancer::new(snapshot);
        let taken = balancer.take_next(PoolId(0), client.into());
        assert_eq!(balancer.status(ServerId(0)).flows, u32::from(taken.is_some()));
        taken
    };
    assert_eq!(of(&one_pool(RoundRobin, THREE, &[]), client()), Some(ServerId(0)));
    for algorithm in [LeastConnections, SourceIpHash] {
        assert_eq!(of(&one_pool(algorithm, THREE, &[]), client()), None);
    }
    let mut limited = one_pool(RoundRobin, THREE, &[]);
    limited.servers[2].max_connections = Some(9);
    assert_eq!(of(&limited, client()), None);
    assert_eq!(of(&one_pool(RoundRobin, THREE, &[]), ip("2001:db8::7")), None);
    assert_eq!(Balancer::new(&limited).take_next(PoolId(1), client().into()), None);
}
