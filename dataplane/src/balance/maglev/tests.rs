use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::snapshot::Algorithm;

fn pool(servers: u16, weights: &[u16]) -> Maglev {
    let mut snapshot = Snapshot::default();
    let names: Vec<String> = (0..servers).map(|s| format!("10.1.{}.{}:443", s / 250, s % 250 + 1)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pool = snapshot.add_pool("pool", Algorithm::SourceIpHash, &names);
    for (server, weight) in snapshot.servers.iter_mut().zip(weights.iter().cycle()) {
        server.weight = *weight;
    }
    let members = snapshot.pools[pool.index()].servers.clone();
    Maglev::new(&snapshot, &members, true).unwrap()
}

fn owners(table: &Maglev) -> Vec<u16> {
    table.slots.iter().map(|&place| table.members[usize::from(place)].server.0).collect()
}

fn clients(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x6440_0000 + n)))
}

#[test]
fn sizes_are_primes_in_rising_order() {
    for size in SIZES {
        assert!((2..size).take_while(|d| d * d <= size).all(|d| !size.is_multiple_of(d)), "{size}");
    }
    assert!(SIZES.is_sorted());
    assert_eq!(
        [table_size(1), table_size(1021), table_size(1022), table_size(u64::MAX)],
        [1021, 1021, 2039, 65537]
    );
}

#[test]
fn every_server_has_its_share_of_the_table() {
    for servers in [1, 2, 3, 10, 40, 100, 600] {
        let mut table = pool(servers, &[1]);
        table.rebuild(|_| true);
        let owners = owners(&table);
        for server in 0..servers {
            let slots = owners.iter().filter(|&&o| o == server).count();
            let fair = owners.len() / usize::from(servers);
            assert!(slots == fair || slots == fair + 1, "server {server} of {servers}: {slots}, fair {fair}");
        }
    }
}

#[test]
fn clients_are_spread_within_a_few_percent() {
    let mut table = pool(10, &[1]);
    table.rebuild(|_| true);
    let mut flows = [0u32; 10];
    for client in clients(200_000) {
        flows[table.find(client, |_| true).unwrap().index()] += 1;
    }
    for (server, count) in flows.iter().enumerate() {
        assert!((19_000..=21_000).contains(count), "server {server}: {count} of 200000");
    }
}

#[test]
fn weights_are_honoured() {
    let mut table = pool(4, &[1, 2, 5, 8]);
    table.rebuild(|_| true);
    let owners = owners(&table);
    for (server, weight) in (0u16..).zip([1, 2, 5, 8]) {
        let share = owners.iter().filter(|&&o| o == server).count() as f64 / owners.len() as f64;
        let fair = f64::from(weight) / 16.0;
        assert!((share / fair - 1.0).abs() < 0.03, "server {server}: share {share}, fair {fair}");
    }
}

#[test]
fn a_heavy_server_that_goes_leaves_the_light_ones_equal() {
    let mut table = pool(4, &[256, 1, 1, 1]);
    table.rebuild(|server| server != ServerId(0));
    let owners = owners(&table);
    for server in 1..4 {
        let slots = owners.iter().filter(|&&o| o == server).count();
        assert!(slots.abs_diff(owners.len() / 3) <= 1, "server {server}: {slots} of {}", owners.len());
    }
}

#[test]
fn few_clients_move_when_a_server_goes_and_all_come_back_with_it() {
    for servers in [3u16, 10, 50] {
        let mut table = pool(servers, &[1]);
        table.rebuild(|_| true);
        let before = owners(&table);
        let gone = ServerId(servers / 2);
        table.rebuild(|server| server != gone);
        let after = owners(&table);
        assert!(!after.contains(&gone.0));
        let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count() as f64 / before.len() as f64;
        let unavoidable = 1.0 / f64::from(servers);
        println!(
            "{servers} servers, one down: {:.1} % of the clients move, {:.1} % must",
            moved * 100.0,
            unavoidable * 100.0
        );
        assert!(moved < unavoidable + 0.05, "{moved} of the slots moved, {unavoidable} had to");
        table.rebuild(|_| true);
        assert_eq!(owners(&table), before);
    }
}

#[test]
fn a_table_without_servers_finds_none() {
    let mut table = pool(3, &[1]);
    assert_eq!(table.find(IpAddr::V4(Ipv4Addr::LOCALHOST), |_| true), None, "before the first rebuild");
    table.rebuild(|_| true);
    table.rebuild(|_| false);
    assert_eq!(table.find(IpAddr::V4(Ipv4Addr::LOCALHOST), |_| true), None);
}

#[test]
fn a_refused_server_is_followed_by_others() {
    let mut table = pool(5, &[1]);
    table.rebuild(|_| true);
    let mut second = [0u32; 5];
    for client in clients(5000) {
        let first = table.find(client, |_| true).unwrap();
        let next = table.find(client, |server| server != first).unwrap();
        assert_ne!(first, next);
        second[next.index()] += 1;
    }
    assert!(second.iter().all(|&count| count > 500), "retries are spread: {second:?}");
}

#[test]
fn where_clients_go_is_the_same_in_every_release() {
    let hashes = ["192.0.2.1", "2001:db8::1"].map(|a| hash(a.parse().unwrap(), 0, 0));
    assert_eq!(hashes, [7433488754817310424, 15006603663807726475]);
}
