//! `max_connections` of servers: exact over all workers, and given back however a flow ends.

use dataplane::channel::Command;
use dataplane::counters::DropReason;
use dataplane::snapshot::{PoolId, ServerId};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use crate::chaos::Random;
use crate::inside::*;
use crate::tcp_binding::Scene;
use crate::wire;
use crate::workers::rss;
use crate::world::*;

const FIRST: ServerId = ServerId(0);
const SECOND: ServerId = ServerId(1);

/// Pool "a" with two servers on this port, `settings`, and this service.
fn two_servers(port: u16, settings: &str, service: &str) -> String {
    let servers = [21, 22].map(|last| format!("10.0.0.{last}:{port}"));
    format!("{}{settings}{service}", pools(&[("a", &[&servers[0], &servers[1]])]))
}

fn limited_to(most: u32) -> String {
    format!("max_connections_per_server = {most}\n")
}

fn tcp(settings: &str, script: &str) -> Scene {
    Scene::new(&two_servers(443, settings, &scripted("tcp/443", "a", &["a"], script)))
}

fn room(world: &World) -> [u64; 2] {
    [FIRST, SECOND].map(|server| world.worker.pipeline().balancer().room(server).unwrap())
}

fn refusals(world: &World) -> u64 {
    world.workers().map(|worker| worker.pipeline().balancer().refusals(PoolId(0))).sum()
}

/// A connection that says hello, and where its words arrived.
fn hello(scene: &mut Scene, port: u16) -> (Talk, Option<Talk>) {
    let there = [scene.world.listen(scene.a, 443), scene.world.listen(scene.b, 443)];
    let client = scene.connect(port);
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(1);
    let server = there.into_iter().find(|talk| !scene.world.talk(*talk).received.is_empty());
    there.into_iter().filter(|talk| Some(*talk) != server).for_each(|talk| scene.world.abort(talk));
    (client, server)
}

fn finish_both(world: &mut World, (client, server): (Talk, Option<Talk>)) {
    world.talk(client).finish = true;
    world.talk(server.unwrap()).finish = true;
    world.seconds(1);
}

#[test]
fn connections_beyond_the_limit_end_as_the_pool_says_and_are_counted() {
    for (action, state) in [("reset", State::Closed), ("close", State::CloseWait)] {
        let settings = format!("{}fail_action = \"{action}\"\n", limited_to(1));
        let mut scene = tcp(&settings, "avi.l4.collect(1)");
        let held = [hello(&mut scene, 40_000), hello(&mut scene, 40_001)];
        assert!(held.iter().all(|(_, server)| server.is_some()));
        let (refused, server) = hello(&mut scene, 40_002);
        assert!(server.is_none());
        assert_eq!(scene.world.state(refused), state);
        scene.world.talk(refused).finish = true;
        scene.world.seconds(100);
        assert_eq!(scene.world.terminations(), ["RP"]);
        assert_eq!(scene.world.records[0].reason, Some(DropReason::MaxConnections));
        assert_eq!(refusals(&scene.world), 1);
        finish_both(&mut scene.world, held[0]);
        let again = hello(&mut scene, 40_003);
        assert!(again.1.is_some(), "there is room as soon as both sides have finished");
        finish_both(&mut scene.world, held[1]);
        finish_both(&mut scene.world, again);
        assert_eq!(room(&scene.world), [1, 1]);
        scene.world.finish();
    }
}

#[test]
fn a_connection_that_was_reset_counts_for_two_seconds() {
    for by_server in [false, true] {
        let mut scene = tcp(&limited_to(1), "avi.l4.collect(1)");
        let (client, server) = hello(&mut scene, 40_000);
        scene.world.abort(if by_server { server.unwrap() } else { client });
        scene.world.seconds(1);
        assert_eq!(room(&scene.world).iter().sum::<u64>(), 1);
        scene.world.seconds(2);
        assert_eq!(room(&scene.world), [1, 1]);
        scene.world.finish();
    }
}

#[test]
fn servers_that_refuse_or_are_silent_keep_no_room() {
    let settings = format!("{}[pool.tcp]\nconnect_timeout = \"1s\"\n", limited_to(1));
    let mut scene = tcp(&settings, "avi.l4.collect(1)");
    // Nobody listens: one after the other refuses.
    let client = scene.connect(40_000);
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(1);
    assert_eq!((scene.world.terminations(), room(&scene.world)), (vec!["SC".to_owned()], [1, 1]));
    // The first one refuses, or is never asked, and the second one takes it.
    let server = scene.world.listen(scene.b, 443);
    let held = scene.connect(40_001);
    scene.world.talk(held).say(b"hello");
    scene.world.seconds(1);
    assert_eq!(scene.world.talk(server).received, b"hello");
    assert_eq!(room(&scene.world), [1, 0]);
    // The first one refuses and the second one is full.
    let refused = scene.connect(40_002);
    scene.world.talk(refused).say(b"hello");
    scene.world.seconds(1);
    assert_eq!(scene.world.state(refused), State::Closed);
    assert_eq!((scene.world.terminations()[1].as_str(), room(&scene.world)), ("SC", [1, 0]));
    assert_eq!(refusals(&scene.world), 1, "no other server had room");
    finish_both(&mut scene.world, (held, Some(server)));
    scene.world.finish();

    let toml = two_servers(443, &settings, &scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)"));
    let mut world = World::new(&toml);
    let client = world.host(OUTSIDE, "192.0.2.100");
    let _servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    let talk = world.connect(client, 40_000, "192.0.2.10:443");
    world.talk(talk).say(b"hello");
    world.advance(Duration::from_millis(500));
    assert_eq!(room(&world).iter().sum::<u64>(), 1, "the server that is asked counts");
    world.seconds(3);
    assert_eq!((world.terminations(), room(&world)), (vec!["sC".to_owned()], [1, 1]));
    world.finish();
}

#[test]
fn whatever_ends_a_connection_makes_room() {
    let idle = "[virtual_service.tcp]\nidle_timeout = \"20s\"\n";
    // By its response script, and by silence.
    let response = r#"if avi.l4.read(1) == "x" then avi.vs.close_conn(true) end"#;
    let set = with_sets("tcp/443", "a", &["a"], Some("avi.l4.collect(1)"), Some(response));
    let mut scene = Scene::new(&format!("{}{idle}", two_servers(443, &limited_to(1), &set)));
    let (_, server) = hello(&mut scene, 40_000);
    scene.world.talk(server.unwrap()).say(b"x");
    scene.world.seconds(3);
    assert_eq!((scene.world.terminations()[0].as_str(), room(&scene.world)), ("WC", [1, 1]));
    let _silent = hello(&mut scene, 40_001);
    assert_eq!(room(&scene.world).iter().sum::<u64>(), 1);
    scene.world.seconds(30);
    assert_eq!(room(&scene.world), [1, 1]);
    scene.world.finish();
    // The end of the process.
    let mut scene = tcp(&limited_to(1), "avi.l4.collect(1)");
    let _held = [hello(&mut scene, 40_000), hello(&mut scene, 40_001)];
    assert_eq!(room(&scene.world), [0, 0]);
    let now = scene.world.now;
    scene.world.worker.shut_down(now);
    assert_eq!(room(&scene.world), [1, 1]);
}

#[test]
fn on_the_fast_path_a_syn_counts_until_it_is_given_up() {
    let mut world = World::new(&two_servers(443, &limited_to(1), &plain("tcp/443", "a")));
    let flood = world.silent(OUTSIDE, "192.0.2.100");
    let _servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    let syn = |port: u16| {
        let from = std::net::SocketAddr::new(address("192.0.2.100"), port);
        wire::tcp(from, socket("192.0.2.10:443"), wire::flags("S", 7, 0), b"")
    };
    (5000..5003).for_each(|port| world.at(flood).outbox.push(syn(port)));
    world.settle();
    let resets = world.inbox(flood).iter().filter(|packet| packet.tcp().rst).count();
    assert_eq!((resets, world.dropped(DropReason::MaxConnections)), (1, 1));
    assert_eq!((refusals(&world), room(&world)), (1, [0, 0]));
    world.seconds(29);
    assert_eq!(room(&world), [0, 0]);
    world.seconds(3);
    assert_eq!(room(&world), [1, 1]);
    world.finish();
}

#[test]
fn datagrams_of_new_clients_are_dropped_while_the_servers_are_full() {
    let service = plain("udp/53", "a") + "[virtual_service.udp]\nidle_timeout = \"10s\"\n";
    let mut world = World::new(&two_servers(53, &limited_to(3), &service));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    for port in 4000..4010 {
        world.datagram(client, port, "192.0.2.10:53", b"?");
    }
    world.settle();
    assert_eq!(servers.map(|server| world.inbox(server).len()), [3, 3]);
    assert_eq!((world.dropped(DropReason::MaxConnections), refusals(&world)), (4, 4));
    assert_eq!(world.terminations(), ["RP"; 4]);
    world.datagram(client, 4000, "192.0.2.10:53", b"of a flow that has its server");
    world.seconds(5);
    world.datagram(client, 4000, "192.0.2.10:53", b"and keeps it");
    world.seconds(7);
    assert_eq!(room(&world).iter().sum::<u64>(), 5, "all others have ended");
    world.datagram(client, 4009, "192.0.2.10:53", b"?");
    world.settle();
    assert_eq!(servers.map(|server| world.inbox(server).len()).iter().sum::<usize>(), 3);
    world.finish();
}

#[test]
fn a_datagram_that_is_balanced_by_itself_needs_room_only_for_a_new_flow() {
    let service = plain("udp/53", "a") + "[virtual_service.udp]\nper_packet = true\n";
    let mut world = World::new(&two_servers(53, &limited_to(1), &service));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    let ask = |world: &mut World, port: u16, times: usize| {
        (0..times).for_each(|_| world.datagram(client, port, "192.0.2.10:53", b"?"));
        world.settle();
        servers.map(|server| world.inbox(server).len())
    };
    let first = ask(&mut world, 4000, 1);
    let second = ask(&mut world, 4001, 1);
    assert_eq!(
        [first[0] + second[0], first[1] + second[1]],
        [1, 1],
        "one has the first, one the second server"
    );
    assert_eq!(ask(&mut world, 4000, 6), first.map(|had| had * 6), "each goes on with its own");
    assert_eq!(ask(&mut world, 4001, 6), second.map(|had| had * 6));
    assert_eq!(ask(&mut world, 4002, 5), [0, 0]);
    assert_eq!((world.dropped(DropReason::MaxConnections), refusals(&world)), (5, 5));
    world.seconds(40);
    assert_eq!(ask(&mut world, 4002, 6), [3, 3], "in turn again");
    world.finish();
}

const PERSIST: &str = r#"avi.vs.persist("the key")"#;

#[test]
fn persistence_goes_on_to_another_server_and_stays_there() {
    let mut scene = tcp(&limited_to(1), PERSIST);
    let first = hello(&mut scene, 40_000);
    let second = hello(&mut scene, 40_001);
    assert_eq!(room(&scene.world), [0, 0]);
    let entry = |world: &World| -> Vec<u8> {
        let mut entries = world.worker.pipeline().tables().entries(dataplane::snapshot::ServiceId(0), 9);
        entries.next().map(|entry| entry.value.to_vec()).unwrap_or_default()
    };
    assert_eq!(entry(&scene.world), b"10.0.0.22-443", "the first was full");
    let (_, refused) = hello(&mut scene, 40_002);
    assert_eq!((refused, refusals(&scene.world)), (None, 1));
    assert_eq!(entry(&scene.world), b"10.0.0.22-443", "a refusal for lack of room is no reason to forget");
    finish_both(&mut scene.world, first);
    finish_both(&mut scene.world, second);
    let third = hello(&mut scene, 40_003);
    assert_eq!(room(&scene.world), [1, 0]);
    finish_both(&mut scene.world, third);
    scene.world.finish();
}

/// The script chooses by its key before it has waited for the rest, and meanwhile another client takes the room.
#[test]
fn a_persistent_server_that_fills_up_meanwhile_is_replaced() {
    let script = r#"avi.vs.persist("the key") avi.l4.collect(10)"#;
    let mut scene = tcp(&limited_to(1), script);
    let _listening: Vec<Talk> =
        [scene.a, scene.b].into_iter().map(|server| scene.world.listen(server, 443)).collect();
    let early = scene.connect(40_000);
    scene.world.talk(early).say(b"12345");
    scene.world.seconds(1);
    let quick = scene.connect(40_001);
    scene.world.talk(quick).say(b"1234567890");
    scene.world.seconds(1);
    assert_eq!(room(&scene.world), [0, 1], "the entry leads to the first");
    scene.world.talk(early).say(b"67890");
    scene.world.seconds(1);
    assert_eq!((room(&scene.world), refusals(&scene.world)), ([0, 0], 0));
    scene.world.abort(early);
    scene.world.abort(quick);
    scene.world.finish();
}

#[test]
fn a_server_that_a_script_names_is_refused_when_it_is_full() {
    let mut scene = tcp(&limited_to(1), r#"avi.pool.select("a", "10.0.0.22")"#);
    let held = hello(&mut scene, 40_000);
    let (client, server) = hello(&mut scene, 40_001);
    assert_eq!((server, scene.world.state(client)), (None, State::Closed));
    assert_eq!(scene.world.records[0].reason, Some(DropReason::MaxConnections));
    assert_eq!((room(&scene.world), refusals(&scene.world)), ([1, 0], 1));
    finish_both(&mut scene.world, held);
    scene.world.finish();
}

#[test]
fn a_server_that_does_not_come_about_for_other_reasons_keeps_its_room() {
    let network = TWO_ARMS.replace("20000-29999", "20000-20000");
    let toml = format!("{network}{}", two_servers(53, &limited_to(5), &plain("udp/53", "a")));
    let mut world = World::with_network(&toml);
    let client = world.silent(OUTSIDE, "192.0.2.100");
    for port in 4000..4006 {
        world.datagram(client, port, "192.0.2.10:53", b"?");
    }
    world.settle();
    assert_eq!(world.dropped(DropReason::SnatExhausted), 4);
    assert_eq!(room(&world), [4, 4]);
    let total = |server| world.worker.pipeline().balancer().status(server).total;
    assert_eq!([FIRST, SECOND].map(total), [1, 1]);
    world.seconds(700);
    assert_eq!(room(&world), [5, 5]);
    // A datagram that is balanced by itself, and has room but no place in the flow table.
    let service = plain("udp/53", "a") + "[virtual_service.udp]\nper_packet = true\n";
    let limits = "[limits]\nflows = 64\nembryonic = 64\nwaiting = 64\n";
    let mut world = World::new(&format!("{limits}{}", two_servers(53, &limited_to(100), &service)));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    (4000..4070).for_each(|port| world.datagram(client, port, "192.0.2.10:53", b"?"));
    world.settle();
    assert_eq!(world.dropped(DropReason::FlowTableFull), 6);
    assert_eq!(room(&world).iter().sum::<u64>(), 200 - 64);
}

/// To the queue of which of so many workers a frame comes, by RSS or by nothing that makes sense.
fn queue(workers: u8, spread: bool) -> fn(&[u8]) -> usize {
    fn sum(frame: &[u8]) -> usize {
        frame.iter().map(|byte| usize::from(*byte)).sum()
    }
    match (workers, spread) {
        (2, true) => |frame| rss(frame, 2),
        (3, true) => |frame| rss(frame, 3),
        (4, true) => |frame| rss(frame, 4),
        (2, false) => |frame| sum(frame) % 2,
        (3, false) => |frame| sum(frame) % 3,
        _ => |frame| sum(frame) % 4,
    }
}

/// Connections that come and go at random, with what the test itself knows of them.
struct Walk {
    world: World,
    random: Random,
    client: HostId,
    servers: [HostId; 2],
    limits: [usize; 2],
    enabled: [bool; 2],
    /// The client's and the server's end, and the number of the server.
    open: Vec<(Talk, Talk, usize)>,
    port: u16,
    refused: u64,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut random = Random(seed);
        let workers = 2 + random.below(3) as u8;
        let limits = [1 + random.below(6), 1 + random.below(6)].map(|limit| limit as usize);
        let algorithm = ["round_robin", "least_connections", "source_ip_hash"][random.below(3) as usize];
        println!("seed {seed}: {workers} workers, {limits:?}, {algorithm}");
        let servers = [(21, limits[0]), (22, limits[1])].map(|(last, most)| {
            format!("{{ address = \"10.0.0.{last}\", port = 443, max_connections = {most} }}")
        });
        let pool = format!(
            "[[pool]]\nname = \"a\"\nalgorithm = \"{algorithm}\"\nservers = [{}]\n[pool.tcp]\nconnect_retries = 0\n",
            servers.join(", ")
        );
        let service = scripted("tcp/443", "a", &["a"], "avi.l4.collect(5)");
        let timeout = "[virtual_service.tcp]\nidle_timeout = \"24h\"\n";
        let queue = queue(workers, random.below(2) == 0);
        let mut world = World::with_workers(&format!("{TWO_ARMS}{pool}{service}{timeout}"), workers, queue);
        let client = world.host(OUTSIDE, "192.0.2.100");
        let servers = [world.host(INSIDE, "10.0.0.21"), world.host(INSIDE, "10.0.0.22")];
        let (enabled, open) = ([true; 2], Vec::new());
        Walk { world, random, client, servers, limits, enabled, open, port: 20_000, refused: 0 }
    }

    fn open_at(&self, server: usize) -> usize {
        self.open.iter().filter(|(_, _, at)| *at == server).count()
    }

    fn has_room(&self) -> bool {
        (0..2).any(|server| self.enabled[server] && self.open_at(server) < self.limits[server])
    }

    /// A connection is refused exactly if no server has room, and reaches one that has.
    fn connect(&mut self) -> bool {
        let expected = self.has_room();
        self.port += 1;
        let listening = self.servers.map(|server| self.world.listen(server, 443));
        let here = self.world.connect(self.client, self.port, "192.0.2.10:443");
        self.world.talk(here).say(b"hello");
        self.world.advance(Duration::from_millis(50));
        let heard = |world: &mut World, talk| world.talk(talk).received == b"hello";
        let server = (0..2).find(|server| heard(&mut self.world, listening[*server]));
        for (at, talk) in listening.into_iter().enumerate() {
            if server != Some(at) {
                self.world.abort(talk);
            }
        }
        assert_eq!(server.is_some(), expected, "open: {:?}", [self.open_at(0), self.open_at(1)]);
        match server {
            Some(server) => {
                assert!(self.enabled[server] && self.open_at(server) < self.limits[server]);
                self.open.push((here, listening[server], server));
            }
            None => {
                self.refused += u64::from(self.enabled != [false; 2]);
                assert_eq!(self.world.state(here), State::Closed);
            }
        }
        expected
    }

    fn end(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.random.below(self.open.len() as u64) as usize;
        let (here, there, _) = self.open.swap_remove(at);
        match self.random.below(3) {
            0 => self.world.abort(here),
            1 => self.world.abort(there),
            _ => {
                self.world.talk(here).finish = true;
                self.world.talk(there).finish = true;
                return self.world.advance(Duration::from_millis(50));
            }
        }
        // What was reset counts for two seconds more.
        self.world.advance(Duration::from_millis(2100));
    }

    fn toggle(&mut self) {
        let server = self.random.below(2) as usize;
        self.enabled[server] = !self.enabled[server];
        let (id, enabled) = (ServerId(server as u16), self.enabled[server]);
        let others = self.world.others.iter().map(|(_, control)| control);
        for control in std::iter::once(&self.world.control).chain(others) {
            control.commands.send(Command::ServerEnabled { server: id, enabled }).unwrap();
        }
        self.world.settle();
        self.world.round();
    }

    /// Somebody connects to nothing: no server has accepted when the client is gone.
    fn in_vain(&mut self) {
        self.port += 1;
        let room = self.has_room();
        let here = self.world.connect(self.client, self.port, "192.0.2.10:443");
        self.world.talk(here).say(b"hello");
        self.world.advance(Duration::from_millis(50));
        assert_eq!(self.world.state(here), State::Closed);
        self.refused += u64::from(!room && self.enabled != [false; 2]);
    }
}

#[test]
fn any_walk_over_several_workers_keeps_to_the_limits_and_uses_them_fully() {
    let (mut refused, mut full) = (0, 0);
    for seed in 1..=12 {
        let mut walk = Walk::new(seed);
        for _ in 0..90 {
            match walk.random.below(12) {
                0..=5 => {
                    walk.connect();
                }
                6..=9 => walk.end(),
                10 => walk.toggle(),
                _ => walk.in_vain(),
            }
        }
        while walk.enabled != [true; 2] {
            walk.toggle();
        }
        while walk.connect() {}
        assert_eq!([walk.open_at(0), walk.open_at(1)], walk.limits, "filled to the brim");
        full += walk.world.workers().filter(|worker| !worker.pipeline().flows().is_empty()).count();
        assert_eq!(refusals(&walk.world), walk.refused);
        refused += walk.refused;
        while !walk.open.is_empty() {
            walk.end();
        }
        let limits = walk.limits.map(|limit| limit as u64);
        assert_eq!(room(&walk.world), limits);
        let Walk { mut world, .. } = walk;
        world.seconds(700);
        world.assert_empty();
    }
    println!("{refused} refused; {full} workers had flows at the end");
    assert!(refused > 100 && full > 24, "{refused} {full}");
}

/// Flows of clients by port, until when each of them counts at least.
#[test]
fn datagram_flows_on_several_workers_keep_to_the_limits_and_use_them_fully() {
    for seed in 1..=6 {
        let mut random = Random(seed);
        let (workers, most) = (2 + random.below(3) as u8, 1 + random.below(20) as u32);
        println!("seed {seed}: {workers} workers, {most}");
        let service = plain("udp/53", "a") + "[virtual_service.udp]\nidle_timeout = \"10s\"\n";
        let toml = format!("{TWO_ARMS}{}", two_servers(53, &limited_to(most), &service));
        let mut world = World::with_workers(&toml, workers, queue(workers, seed % 2 == 0));
        let client = world.silent(OUTSIDE, "192.0.2.100");
        let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
        let mut last_seen: Vec<(u16, Instant)> = Vec::new();
        let mut arrived = 0;
        for _ in 0..60 {
            let now = world.now;
            last_seen.retain(|(_, at)| now - *at < Duration::from_secs(10));
            for _ in 0..random.below(30) {
                let port = 4000 + random.below(200) as u16;
                world.datagram(client, port, "192.0.2.10:53", b"?");
                world.settle();
                let known = last_seen.iter().position(|(known, _)| *known == port);
                let expected = known.is_some() || last_seen.len() < 2 * most as usize;
                let got: usize = servers.map(|server| world.inbox(server).len()).iter().sum();
                assert_eq!(got, usize::from(expected), "{} flows", last_seen.len());
                arrived += got;
                if let Some(known) = known {
                    last_seen.swap_remove(known);
                }
                last_seen.extend(expected.then_some((port, now)));
            }
            world.seconds([0, 1, 3, 12][random.below(4) as usize]);
        }
        let dropped: u64 = world
            .workers()
            .map(|worker| worker.pipeline().counters().dropped_for(DropReason::MaxConnections))
            .sum();
        assert_eq!(dropped, refusals(&world));
        assert!(arrived > 50 && dropped > 5, "{arrived} {dropped}");
        world.seconds(60);
        assert_eq!(room(&world), [u64::from(most); 2]);
        world.finish();
    }
}
