//! The scripts of `scripting/examples` and the code of `docs/scripting.md`, run as they stand there.

mod world;

use dataplane::policy::{Close, Outcome, Policy, Selection};
use dataplane::snapshot::{PoolId, Snapshot};
use scripting::{LuaPolicy, builtin_parser, check};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use world::wire::{client_hello, dhcp, radius, records};
use world::{World, clock, feed, set, snapshot};

/// The configuration of the tests with its pools renamed, checked.
fn with_pools(script: &str, names: [&str; 2]) -> Snapshot {
    let mut config = snapshot(vec![set(script)]);
    for (pool, name) in config.pools.iter_mut().zip(names) {
        name.clone_into(&mut pool.name);
    }
    assert_eq!(check(&config), []);
    config
}

#[test]
fn sni_chooses_the_pool_however_the_hello_is_cut() {
    let config = with_pools(include_str!("../examples/tls_sni/tls_sni.lua"), ["www", "api"]);
    for (name, expected) in [
        ("www.example.com", Some(Selection::Pool(PoolId(0)))),
        ("API.example.com", Some(Selection::Pool(PoolId(1)))),
        ("other.example.com", None),
    ] {
        for (record, piece) in [(16384, 65536), (16384, 1), (64, 1), (64, 30), (1, 7)] {
            let mut world = World::of(config.clone());
            let outcome = feed(&mut world, &records(&client_hello(Some(name), 200), record), piece);
            assert!(matches!(outcome, Outcome::Done), "{outcome:?} {:?}", world.record.error);
            assert_eq!(world.record.selection, expected, "{name} {record} {piece}");
            assert_eq!(world.log(), format!("sni={name}"));
            assert!(world.record.request_done);
        }
    }
    let mut world = World::of(config);
    assert!(matches!(feed(&mut world, b"SSH-2.0-OpenSSH_9.2p1\r\n", 9), Outcome::Done));
    assert_eq!((world.record.close, world.record.significant), (Some(Close::Reset), true));
}

#[test]
fn radius_stays_on_the_server_of_its_station() {
    let config = with_pools(include_str!("../examples/radius/radius.lua"), ["main", "other"]);
    let mut world = World::of(config);
    let mut of_station = std::collections::HashMap::new();
    for round in 0..40u8 {
        let station = format!("00-1B-21-3C-4D-{:02X}", round % 5);
        world.next_flow().client = radius(&[(1, b"bob"), (31, station.as_bytes()), (80, &[round; 16])]);
        world.facts.key.source_port = 40000 + u16::from(round);
        assert_eq!(world.logged(), format!("station={station}"));
        let chosen = world.record.selection;
        assert!(matches!(chosen, Some(Selection::Server(_))), "{chosen:?}");
        assert_eq!(*of_station.entry(station).or_insert(chosen), chosen, "round {round}");
    }
    let servers: std::collections::HashSet<_> = of_station.values().map(|s| format!("{s:?}")).collect();
    assert_eq!(servers.len(), 2, "five stations on two servers in turn");
    world.next_flow().client = b"garbage".to_vec();
    assert_eq!(world.logged(), "no RADIUS packet");
    assert_eq!(world.record.close, Some(Close::Graceful));
}

#[test]
fn dhcp_goes_by_client_identifier_or_mac() {
    let config = with_pools(include_str!("../examples/dhcp/dhcp.lua"), ["main", "other"]);
    let mut world = World::of(config);
    world.client = dhcp([2, 0, 0, 0, 0, 1], &[53, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 9, 255]);
    assert_eq!(world.logged(), "client=02:00:00:00:00:09");
    let first = world.record.selection;
    world.next_flow().client = dhcp([2, 0, 0, 0, 0, 9], &[53, 1, 3, 255]);
    assert_eq!(world.logged(), "client=02:00:00:00:00:09");
    assert_eq!(world.record.selection, first);
}

#[test]
fn the_penalty_box_keeps_bad_clients_out_for_its_time() {
    let config = with_pools(include_str!("../examples/penalty_box/penalty_box.lua"), ["main", "other"]);
    let mut world = World::of(config);
    assert!(matches!(feed(&mut world, b"GET / HTTP/1.1\r\n", 1), Outcome::Done));
    assert_eq!((world.log().as_str(), world.record.close), ("", None));
    assert!(matches!(feed(world.next_flow(), b"\x16\x03\x01\x02", 2), Outcome::Done));
    assert_eq!((world.log().as_str(), world.record.close), ("into the box", Some(Close::Reset)));
    world.now += smoltcp::time::Duration::from_secs(100);
    world.next_flow().client = b"GET / HTTP/1.1\r\n".to_vec();
    assert_eq!(world.logged(), "boxed: no HTTP, 500 s left");
    world.facts.name_client(SocketAddr::new(IpAddr::from([198, 51, 100, 8]), 1));
    assert_eq!(world.next_flow().logged(), "");
    world.facts.name_client(SocketAddr::new(IpAddr::from([198, 51, 100, 7]), 1));
    world.now += smoltcp::time::Duration::from_secs(501);
    assert_eq!(world.next_flow().logged(), "");
}

#[test]
fn every_lua_block_of_the_manual_is_a_script_that_loads() {
    let manual = include_str!("../../docs/scripting.md");
    let blocks: Vec<&str> =
        manual.split("```lua\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    for block in blocks {
        let mut config = with_pools("", ["web", "api"]);
        config.script_sets[0] = set(block);
        assert_eq!(check(&config), [], "{block}");
        let mut policy =
            LuaPolicy::new(&Arc::new(config.clone()), clock).map_err(|e| format!("{e:#?}")).unwrap();
        policy.idle();
        // Each runs to its end on a request: none of them is a sketch.
        let mut world = World::of(config).with(radius(&[(1, b"bob"), (31, b"station")]));
        let outcome = world.start();
        let fine = matches!(outcome, Outcome::Done | Outcome::Suspended { .. });
        assert!(fine, "{outcome:?} {:?}\n{block}", world.record.error);
    }
}

#[test]
fn modules_are_found_by_their_published_names_only() {
    for name in ["Default-TLS", "Default-Radius", "Default-DHCP"] {
        assert!(builtin_parser(name).is_some_and(|text| text.contains("return M")));
    }
    assert_eq!(builtin_parser("default-tls"), None);
}
