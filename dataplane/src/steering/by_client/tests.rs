use std::net::SocketAddr;

use super::*;
use crate::snapshot::{Algorithm, FailAction, Interface, PoolId, Prefix, Protocol, Route, Snapshot, Target};
use crate::steering::{Seat, Steering};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix { address: ip(address), length: length.parse().unwrap() }
}

fn interface(addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|text| prefix(text)).collect();
    Interface { name: "port".to_owned(), addresses, vlan: None, mtu: 1500 }
}

/// A service on 192.0.2.10 that preserves its clients' addresses, one on .11 that does not.
fn snapshot(snat: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot {
        interfaces: vec![interface(&["192.0.2.1/24"]), interface(&["10.0.0.1/24"])],
        ..Snapshot::default()
    };
    snapshot.add_pool("a", Algorithm::RoundRobin, &["10.0.0.20:80"]);
    for (name, vip) in [("kept", "192.0.2.10"), ("nat", "192.0.2.11")] {
        snapshot.add_service(name, Some(Target::Pool(PoolId(0))), 1);
        snapshot.services.last_mut().unwrap().addresses = vec![ip(vip)];
    }
    snapshot.services[0].preserve_client_ip = true;
    snapshot.snat.addresses = snat.iter().map(|address| ip(address)).collect();
    snapshot
}

fn key(source: &str, destination: &str) -> FlowKey {
    let [source, destination]: [SocketAddr; 2] = [source, destination].map(|text| text.parse().unwrap());
    FlowKey::new(Protocol::Tcp, source, destination)
}

#[test]
fn both_directions_of_a_client_belong_to_one_worker_whatever_the_ports() {
    for of in [2, 3, 4, 64] {
        let steering = Steering::of(Seat { number: 0, of }, &snapshot(&[]));
        let mut owned = vec![0; usize::from(of)];
        for client in 0..=255u8 {
            let client = |port: u16| format!("198.51.100.{client}:{port}");
            let owner = steering.owner(&key(&client(4000), "192.0.2.10:80"));
            owned[usize::from(owner)] += 1;
            let all = [
                key(&client(4001), "192.0.2.10:443"),
                key(&client(4001), "192.0.2.11:443"),
                key("10.0.0.20:80", &client(4000)),
                key("10.0.0.21:8080", &client(4002)),
                FlowKey { protocol: 0, ..key(&client(0), "192.0.2.10:0") },
                FlowKey { protocol: 0, ..key("10.0.0.20:0", &client(0)) },
            ];
            assert!(all.iter().all(|key| steering.owner(key) == owner), "{}", client(0));
        }
        let fair = 256 / usize::from(of);
        assert!(owned.iter().all(|count| (fair / 2..=fair * 2).contains(count)), "{of}: {owned:?}");
    }
}

#[test]
fn without_such_a_service_nothing_changes() {
    let mut plain = snapshot(&["10.0.0.2"]);
    plain.services[0].preserve_client_ip = false;
    let seat = Seat { number: 1, of: 3 };
    let (before, after) = (Steering::new(seat), Steering::of(seat, &plain));
    for port in 1000..1200 {
        let key = key(&format!("198.51.100.7:{port}"), "192.0.2.10:80");
        assert_eq!(before.owner(&key), after.owner(&key));
    }
}

/// Replies to SNAT addresses, by port of the SNAT address.
fn owners(of: u8, snat: &[&str], address: &str) -> Vec<u8> {
    let steering = Steering::of(Seat { number: 0, of }, &snapshot(snat));
    (2000..2100).map(|port| steering.owner(&key("10.0.0.20:80", &format!("{address}:{port}")))).collect()
}

#[test]
fn snat_addresses_belong_to_one_worker_each_if_there_are_enough_and_are_divided_if_not() {
    let (two, three) = (owners(2, &["10.0.0.2", "10.0.0.3"], "10.0.0.2"), "10.0.0.3");
    assert!(two.iter().all(|owner| *owner == two[0]));
    let other = owners(2, &["10.0.0.2", "10.0.0.3"], three);
    assert!(other.iter().all(|owner| *owner != two[0]), "neighbours are different workers'");
    for snat in [&["10.0.0.2"][..], &["10.0.0.2", "10.0.0.6"]] {
        let divided = owners(2, snat, "10.0.0.2");
        let first = divided.iter().filter(|owner| **owner == 0).count();
        assert!((20..80).contains(&first), "{snat:?}: {first}");
    }
    let four = ["10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.11"];
    let mut all: Vec<u8> = four.iter().map(|address| owners(4, &four, address)[0]).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3], "an aligned block");
}

#[test]
fn ports_are_spread_by_the_address_that_is_the_clients_on_their_side() {
    let spreads = |snapshot: &Snapshot| {
        let ports = u8::try_from(snapshot.interfaces.len()).unwrap();
        (0..ports).map(|port| Spread::of(snapshot, PortId(port))).collect::<Vec<_>>()
    };
    let two = snapshot(&[]);
    assert_eq!(spreads(&two), [Spread::Source, Spread::Destination]);

    let mut plain = two.clone();
    plain.services[0].preserve_client_ip = false;
    assert_eq!(spreads(&plain), [Spread::Flow, Spread::Flow]);

    let mut one = two.clone();
    one.interfaces = vec![interface(&["192.0.2.1/24", "10.0.0.1/24"])];
    assert_eq!(spreads(&one), [Spread::Both]);

    let mut back = two.clone();
    back.routes = vec![Route { to: prefix("0.0.0.0/0"), via: ip("10.0.0.254") }];
    assert_eq!(spreads(&back), [Spread::Source, Spread::Both], "the default route is on the servers' side");

    let mut beyond = two.clone();
    beyond.routes = vec![
        Route { to: prefix("10.1.0.0/16"), via: ip("10.0.0.254") },
        Route { to: prefix("0.0.0.0/0"), via: ip("192.0.2.254") },
    ];
    beyond.servers[0].address = ip("10.1.2.3");
    assert_eq!(spreads(&beyond), [Spread::Source, Spread::Destination], "servers behind a route");

    let mut far = two;
    far.interfaces.push(interface(&["10.9.0.1/24"]));
    far.add_pool("spare", Algorithm::RoundRobin, &["10.9.0.20:80"]);
    assert_eq!(spreads(&far)[2], Spread::Source, "nobody's flows go there");
    far.pools[0].fail_action = FailAction::Pool(PoolId(1));
    assert_eq!(spreads(&far)[2], Spread::Destination, "where a fail_action leads");
}
