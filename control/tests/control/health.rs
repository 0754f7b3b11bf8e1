//! Monitors against servers made of packets, in virtual time.

use std::sync::Arc;

use control::health::{Change, Health, MAX_PROBES};
use dataplane::overlay::InUse;
use dataplane::proxy_protocol::Version;
use dataplane::snapshot::{Monitor, MonitorKind, PoolId, Server, ServerId, Snapshot};
use smoltcp::time::{Duration, Instant};

use crate::fixture;
use crate::peer::{Behaviour, Peer};

const SEED: u64 = 20_240_229;
/// From a packet to its answer.
const DELAY: Duration = Duration::from_micros(300);

/// Monitors, servers and the time; records who changed when.
struct World {
    health: Health,
    peer: Peer,
    now: Instant,
    /// (milliseconds, server, up).
    changes: Vec<(i64, u16, bool)>,
    most_in_flight: usize,
}

impl World {
    fn new(snapshot: Snapshot, peer: Peer) -> World {
        let now = Instant::from_micros(0);
        let health = Health::new(&Arc::new(snapshot), 61000..=65535, SEED, now);
        World { health, peer, now, changes: Vec::new(), most_in_flight: 0 }
    }

    /// Runs until `millis` of virtual time.
    fn run_until(&mut self, millis: i64) {
        let end = Instant::from_millis(millis);
        while self.now <= end {
            let output = self.health.poll(self.now);
            for Change { server, up } in output.changes {
                self.changes.push((self.now.total_millis(), server.0, up));
            }
            self.most_in_flight = self.most_in_flight.max(self.health.in_flight());
            let answers: Vec<_> = output.packets.iter().flat_map(|packet| self.peer.handle(packet)).collect();
            let next = self.health.poll_at(self.now).unwrap_or(end + DELAY);
            self.now = if answers.is_empty() { next.max(self.now + DELAY) } else { self.now + DELAY };
            for answer in answers {
                self.health.handle_packet(answer);
            }
        }
    }

    fn set(&mut self, server: &str, behaviour: Behaviour) {
        self.peer.behaviour.insert(server.parse().unwrap(), behaviour);
    }
}

/// The fixture's network with these servers in one pool with these monitors.
fn snapshot(servers: &[&str], monitors: &[Monitor]) -> Snapshot {
    let mut snapshot = fixture::snapshot();
    snapshot.pools.truncate(1);
    snapshot.pools[0].monitors = monitors.to_vec();
    snapshot.pools[0].servers = (0..servers.len()).map(|n| ServerId(n as u16)).collect();
    snapshot.servers = servers
        .iter()
        .map(|address| Server {
            pool: PoolId(0),
            address: address.parse().unwrap(),
            hostname: None,
            port: 8443,
            weight: 1,
            enabled: true,
            max_connections: None,
        })
        .collect();
    snapshot
}

fn udp(send: &str, expect: &str) -> MonitorKind {
    MonitorKind::Udp { send: send.into(), expect: expect.into() }
}

#[test]
fn every_kind_brings_a_server_up_with_its_first_answer_over_both_families() {
    for kind in [MonitorKind::Icmp, MonitorKind::Tcp, udp("ping?", "pong")] {
        let servers = ["10.0.0.11", "2001:db8:1::11"];
        let peer = Peer::with(&[
            ("10.0.0.11", Behaviour::Answers("a pong to you")),
            ("2001:db8:1::11", Behaviour::Answers("pong")),
        ]);
        let mut world = World::new(snapshot(&servers, &[fixture::monitor(kind.clone())]), peer);
        world.run_until(100);
        let mut up = world.changes.clone();
        up.sort_unstable();
        assert_eq!(up, [(0, 0, true), (0, 1, true)], "{kind:?}");
        assert!(world.peer.sources.contains(&"10.0.0.1".parse().unwrap()));
        assert!(world.peer.sources.contains(&"2001:db8:1::1".parse().unwrap()));
        assert_eq!(world.health.in_flight(), 0, "{kind:?}: nothing is left open");
    }
}

#[test]
fn a_tcp_probe_closes_its_connection_with_fin() {
    let peer = Peer::with(&[("10.0.0.11", Behaviour::Answers(""))]);
    let monitor = Monitor { port: Some(9999), ..fixture::monitor(MonitorKind::Tcp) };
    let mut world = World::new(snapshot(&["10.0.0.11"], &[monitor]), peer);
    world.run_until(500);
    assert_eq!(world.peer.flags, ["S", "A", "FA", "A"]);
    let (to, what) = world.peer.seen[0].clone();
    assert_eq!((to.to_string().as_str(), what.as_str()), ("10.0.0.11:9999", "syn"));
}

/// Unless it goes to a port of its own, where somebody else listens.
#[test]
fn a_tcp_probe_says_a_proxy_header_where_the_server_waits_for_one() {
    let v2 = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x20\x00\x00\x00";
    let cases = [
        (Some(Version::V1), None, &b"PROXY UNKNOWN\r\n"[..]),
        (Some(Version::V2), None, v2),
        (Some(Version::V1), Some(9999), b""),
        (None, None, b""),
    ];
    for (version, port, expected) in cases {
        let peer = Peer::with(&[("10.0.0.11", Behaviour::Answers(""))]);
        let monitor = Monitor { port, ..fixture::monitor(MonitorKind::Tcp) };
        let mut snapshot = snapshot(&["10.0.0.11"], &[monitor]);
        snapshot.pools[0].tcp.proxy_protocol = version;
        let mut world = World::new(snapshot, peer);
        world.run_until(500);
        assert_eq!(world.peer.said, expected);
        assert_eq!((world.peer.flags.last().map(String::as_str), world.health.in_flight()), (Some("A"), 0));
        assert_eq!(world.changes, [(0, 0, true)]);
    }
}

#[test]
fn a_refusal_is_known_at_once_and_silence_after_the_timeout() {
    for kind in [MonitorKind::Icmp, MonitorKind::Tcp, udp("x", "")] {
        let peer = Peer::with(&[("10.0.0.11", Behaviour::Refuses), ("10.0.0.12", Behaviour::Silent)]);
        let monitors = [fixture::monitor(kind.clone())];
        let mut world = World::new(snapshot(&["10.0.0.11", "10.0.0.12"], &monitors), peer);
        world.run_until(1100);
        assert_eq!(world.changes, [(0, 0, false), (1000, 1, false)], "{kind:?}");
    }
}

#[test]
fn a_dead_server_is_down_within_one_interval_and_one_timeout() {
    for (fall, behaviour) in [(1, Behaviour::Silent), (1, Behaviour::Refuses), (3, Behaviour::Refuses)] {
        let peer = Peer::with(&[("10.0.0.11", Behaviour::Answers(""))]);
        let monitor = Monitor { fall, ..fixture::monitor(MonitorKind::Tcp) };
        let mut world = World::new(snapshot(&["10.0.0.11"], &[monitor]), peer);
        world.run_until(10_000);
        assert_eq!(world.changes, [(0, 0, true)]);
        world.set("10.0.0.11", behaviour.clone());
        world.run_until(10_000 + 2000 + 1000 + 1);
        assert_eq!(world.changes.len(), 2, "{fall} {behaviour:?}: {:?}", world.changes);
        assert_eq!((world.changes[1].1, world.changes[1].2), (0, false));
        world.set("10.0.0.11", Behaviour::Answers(""));
        world.run_until(20_000);
        let (at, server, up) = world.changes[2];
        assert!(at > 13_000 && (server, up) == (0, true), "it came back: {:?}", world.changes);
    }
}

#[test]
fn rise_good_probes_are_needed_after_a_known_failure() {
    let peer = Peer::with(&[("10.0.0.11", Behaviour::Refuses)]);
    let monitor = Monitor { rise: 3, ..fixture::monitor(MonitorKind::Icmp) };
    let mut world = World::new(snapshot(&["10.0.0.11"], &[monitor]), peer);
    world.run_until(100);
    assert_eq!(world.changes, [(0, 0, false)]);
    let before = world.peer.seen.len();
    world.set("10.0.0.11", Behaviour::Answers(""));
    while world.changes.len() < 2 && world.now < Instant::from_secs(60) {
        let step = world.now.total_millis() + 1;
        world.run_until(step);
    }
    assert_eq!(world.peer.seen.len() - before, 3);
    assert!(world.changes[1].2);
}

#[test]
fn all_monitors_of_the_pool_must_hold() {
    let peer = Peer::with(&[("10.0.0.11", Behaviour::Answers("no"))]);
    let monitors = [fixture::monitor(MonitorKind::Icmp), fixture::monitor(udp("status", "ready"))];
    let mut world = World::new(snapshot(&["10.0.0.11"], &monitors), peer);
    world.run_until(999);
    assert_eq!(world.changes, [], "ping holds, but the text is wrong: not known before the timeout");
    world.run_until(1100);
    assert_eq!(world.changes, [(1000, 0, false)]);
    world.set("10.0.0.11", Behaviour::Answers("all is ready"));
    world.run_until(10_000);
    assert_eq!(world.changes.len(), 2);
    assert!(world.changes[1].2);
}

#[test]
fn no_more_than_the_cap_are_in_flight_and_the_others_follow() {
    let addresses: Vec<String> = (0..200).map(|n| format!("10.0.0.{}", n + 20)).collect();
    let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let everyone: Vec<_> = names.iter().map(|name| (*name, Behaviour::Silent)).collect();
    let mut world =
        World::new(snapshot(&names, &[fixture::monitor(MonitorKind::Tcp)]), Peer::with(&everyone));
    world.run_until(4500);
    assert_eq!(world.most_in_flight, MAX_PROBES);
    assert_eq!(world.changes.iter().filter(|(_, _, up)| !up).count(), 200);
}

#[test]
fn probes_of_many_servers_spread_over_the_interval() {
    let addresses: Vec<String> = (0..40).map(|n| format!("10.0.0.{}", n + 20)).collect();
    let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let everyone: Vec<_> = names.iter().map(|name| (*name, Behaviour::Answers(""))).collect();
    let mut world =
        World::new(snapshot(&names, &[fixture::monitor(MonitorKind::Icmp)]), Peer::with(&everyone));
    world.run_until(999);
    assert_eq!(world.peer.seen.len(), 40, "one each at the start, none before half an interval");
    world.run_until(1500);
    let half = world.peer.seen.len() - 40;
    assert!((8..=32).contains(&half), "{half} of 40 in the first half of the spread (seed {SEED})");
    world.run_until(2000);
    assert_eq!(world.peer.seen.len(), 80);
}

#[test]
fn a_server_without_a_way_is_down_and_hostile_packets_change_nothing() {
    let peer = Peer::with(&[("10.0.0.11", Behaviour::Silent)]);
    let monitors = [fixture::monitor(MonitorKind::Icmp)];
    let mut world = World::new(snapshot(&["10.0.0.11", "192.0.2.1"], &monitors), peer);
    world.run_until(0);
    assert_eq!(world.changes, [(0, 1, false)]);
    let mut random = SEED;
    for length in 0..2000 {
        let mut packet = vec![0u8; length % 80];
        for byte in &mut packet {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        if let Some(first) = packet.first_mut() {
            *first = if length % 2 == 0 { 0x45 } else { 0x60 };
        }
        if packet.len() >= 20 {
            packet[16..20].copy_from_slice(&[10, 0, 0, 1]);
        }
        world.health.handle_packet(packet);
    }
    world.run_until(900);
    assert_eq!(world.changes.len(), 1, "seed {SEED}");
    world.run_until(1100);
    assert_eq!(world.changes[1], (1000, 0, false));
}

#[test]
fn an_unreachable_error_about_another_packet_is_ignored() {
    let peer = Peer::with(&[("10.0.0.11", Behaviour::Silent)]);
    let mut world = World::new(snapshot(&["10.0.0.11"], &[fixture::monitor(udp("x", ""))]), peer);
    world.run_until(10);
    let mut stranger = Peer::with(&[("10.0.0.12", Behaviour::Refuses)]);
    let mut probe = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 12], 64)
        .udp(61000, 8443)
        .write(&mut probe, b"x")
        .unwrap();
    for error in stranger.handle(&probe) {
        world.health.handle_packet(error);
    }
    world.run_until(900);
    assert_eq!(world.changes, []);
}

#[test]
fn without_monitors_there_is_nothing_to_do() {
    let mut world = World::new(snapshot(&["10.0.0.11"], &[]), Peer::default());
    assert_eq!(world.health.poll_at(world.now), None);
    world.run_until(5000);
    assert!(world.peer.seen.is_empty());
}

/// The new configuration has the second server, and a third one instead of the first.
#[test]
fn another_configuration_keeps_what_is_known_and_probes_what_is_new() {
    for kind in [MonitorKind::Icmp, MonitorKind::Tcp, udp("ping?", "")] {
        let answers = Behaviour::Answers("pong");
        let peer = Peer::with(&[
            ("10.0.0.11", answers),
            ("10.0.0.12", Behaviour::Answers("pong")),
            ("10.0.0.13", Behaviour::Answers("pong")),
        ]);
        let monitors = [fixture::monitor(kind.clone())];
        let old = snapshot(&["10.0.0.11", "10.0.0.12"], &monitors);
        let mut world = World::new(old.clone(), peer);
        world.run_until(100);
        let mut up = std::mem::take(&mut world.changes);
        up.sort_unstable();
        assert_eq!(up, [(0, 0, true), (0, 1, true)], "{kind:?}");
        let next = snapshot(&["10.0.0.13", "10.0.0.12"], &monitors);
        let (laid, _) = old.overlaid(&next, &InUse::default(), 0).unwrap();
        world.peer.seen.clear();
        world.now = Instant::from_millis(101);
        world.health.lay_over(&laid, world.now);
        world.run_until(300);
        let seen: Vec<String> = world.peer.seen.iter().map(|(to, _)| to.ip().to_string()).collect();
        assert!(!seen.is_empty() && seen.iter().all(|to| to == "10.0.0.13"), "{kind:?}: {seen:?}");
        world.set("10.0.0.12", Behaviour::Refuses);
        world.set("10.0.0.11", Behaviour::Refuses);
        world.run_until(2500);
        let found: Vec<_> = world.changes.iter().map(|(_, server, up)| (*server, *up)).collect();
        assert_eq!(found, [(2, true), (1, false)], "{kind:?}");
    }
}

#[test]
fn a_probe_of_a_server_that_is_removed_ends_without_a_finding() {
    for kind in [MonitorKind::Icmp, MonitorKind::Tcp, udp("ping?", "")] {
        let peer = Peer::with(&[("10.0.0.11", Behaviour::Silent), ("10.0.0.12", Behaviour::Answers("x"))]);
        let monitors = [fixture::monitor(kind.clone())];
        let old = snapshot(&["10.0.0.11", "10.0.0.12"], &monitors);
        let mut world = World::new(old.clone(), peer);
        world.run_until(500);
        assert_eq!(world.health.in_flight(), 1, "{kind:?}");
        world.now = Instant::from_millis(501);
        let (laid, _) = old.overlaid(&snapshot(&["10.0.0.12"], &monitors), &InUse::default(), 0).unwrap();
        world.health.lay_over(&laid, world.now);
        world.run_until(9000);
        assert_eq!(world.changes, [(0, 1, true)], "{kind:?}");
        assert_eq!(world.health.in_flight(), 0, "{kind:?}");
        // It comes back.
        let (back, _) = laid.overlaid(&old, &InUse::default(), 0).unwrap();
        world.set("10.0.0.11", Behaviour::Answers("x"));
        world.now = Instant::from_millis(9001);
        world.health.lay_over(&back, world.now);
        world.run_until(9100);
        assert_eq!(world.changes.last().map(|(_, server, up)| (*server, *up)), Some((0, true)), "{kind:?}");
    }
}
