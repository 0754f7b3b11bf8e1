//! Spliced connections in less common circumstances.

use std::cell::Cell;

use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use crate::inside::*;
use crate::tcp_binding::{Scene, bytes, two_pools};
use crate::wire;
use crate::world::*;

thread_local! {
    static TICKS: Cell<u32> = const { Cell::new(0xffff_ff00) };
}

fn ticks() -> u32 {
    TICKS.with(|ticks| {
        ticks.set(ticks.get().wrapping_add(1));
        ticks.get()
    })
}

fn exchange(world: &mut World, here: Talk, there: Talk, seconds: u64) {
    for (talk, seed) in [(here, 1), (there, 2)] {
        world.talk(talk).say(&bytes(50_000, seed));
        world.talk(talk).finish = true;
    }
    world.seconds(seconds);
    assert!(world.talk(there).received == bytes(50_000, 1), "{}", world.talk(there).received.len());
    assert!(world.talk(here).received == bytes(50_000, 2), "{}", world.talk(here).received.len());
}

#[test]
fn timestamps_on_both_sides_on_one_or_on_none() {
    for (of_client, of_server) in [(true, true), (true, false), (false, true)] {
        let mut scene = Scene::scripted("avi.l4.collect(1)");
        let (there, here) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        if of_client {
            scene.world.use_timestamps(here, ticks);
        }
        if of_server {
            scene.world.use_timestamps(there, ticks);
        }
        exchange(&mut scene.world, here, there, 5);
        assert_eq!(scene.world.terminations(), ["--"], "{of_client} {of_server}");
        scene.world.finish();
    }
}

#[test]
fn tcp_over_ipv6() {
    let toml = format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:443", "[2001:db8:2::21]:443"])]),
        with_sets("tcp/443", "a", &["a"], Some("avi.l4.collect(1)"), Some("avi.l4.collect(1)"))
    );
    let mut world = World::new(&with_ipv6(&toml));
    let (client, server) = (world.host(OUTSIDE, "2001:db8:1::100"), world.host(INSIDE, "2001:db8:2::21"));
    let (there, here) = (world.listen(server, 443), world.connect(client, 40_000, "[2001:db8:1::10]:443"));
    exchange(&mut world, here, there, 5);
    assert_eq!(world.terminations(), ["--"]);
    world.finish();
}

#[test]
fn lost_frames_come_again() {
    for one_of in [20, 40, 80] {
        let mut scene = Scene::scripted("avi.l4.collect(2000)");
        scene.world.loss = Some(one_of);
        let (there, here) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        for (talk, seed) in [(here, 1), (there, 2)] {
            scene.world.talk(talk).say(&bytes(50_000, seed));
        }
        scene.world.seconds(120);
        assert!(scene.world.talk(there).received == bytes(50_000, 1), "one of {one_of}");
        assert!(scene.world.talk(here).received == bytes(50_000, 2), "one of {one_of}");
        scene.world.loss = None;
        scene.world.abort(here);
        scene.world.seconds(700);
        scene.world.assert_empty();
    }
}

#[test]
fn a_script_sees_every_new_segment_until_it_closes() {
    let every = "[virtual_service.datascript]\nrun = \"every_payload\"\n";
    let script = "avi.vs.log(avi.l4.read(), ';') if avi.l4.read() == 'bye' then avi.vs.close_conn(true) end";
    let service = scripted("tcp/443", "a", &["a"], script);
    let mut scene = Scene::new(&format!("{}{service}{every}", two_pools()));
    let (there, here) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    for part in ["one", "two", "bye"] {
        scene.world.talk(here).say(part.as_bytes());
        scene.world.advance(Duration::from_millis(50));
    }
    assert_eq!(scene.world.talk(there).received, b"onetwo");
    assert_eq!((scene.world.state(here), scene.world.state(there)), (State::Closed, State::Closed));
    assert_eq!(
        (scene.world.log(0).as_str(), scene.world.terminations()),
        ("one;two;bye;", vec!["WD".to_owned()])
    );
    scene.world.finish();
}

#[test]
fn a_response_script_alone_runs_on_the_fast_path() {
    let set = with_sets("tcp/443", "a", &["a"], None, Some("avi.vs.log(avi.l4.read())"));
    let fast = "[virtual_service.tcp]\nprofile = \"fast_path\"\n";
    let mut scene = Scene::new(&format!("{}{set}{fast}", two_pools()));
    let (there, here) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(there).say(b"220 hello");
    scene.world.settle();
    scene.world.talk(there).say(b"more");
    scene.world.talk(there).finish = true;
    scene.world.talk(here).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.talk(here).received, b"220 hellomore");
    assert_eq!(
        (scene.world.log(0).as_str(), scene.world.terminations()),
        ("220 hello", vec!["--".to_owned()])
    );
    scene.world.finish();
}

/// The acknowledgement that completes the splice, and the FINs of both sides, within one burst.
#[test]
fn both_fins_in_the_burst_that_completes_the_splice() {
    let network = r#"
[[interface]]
name = "arm"
device = "net_null0"
addresses = ["192.0.2.1/24"]
[snat]
addresses = ["192.0.2.2"]
"#;
    let pool = pools(&[("a", &["192.0.2.21:443"])]);
    let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(2)");
    let mut world = World::with_network(&format!("{network}{pool}{script}"));
    let (client, server) = (world.silent(0, "192.0.2.100"), world.silent(0, "192.0.2.21"));
    let (from, to) = (socket("192.0.2.100:40000"), socket("192.0.2.10:443"));
    let send = |world: &mut World, header, payload: &[u8]| {
        world.at(client).outbox.push(wire::tcp(from, to, header, payload));
        world.settle();
    };
    send(&mut world, wire::flags("S", 1000, 0), b"");
    let isn = world.inbox(client)[0].tcp().sequence_number;
    send(&mut world, wire::flags("AP", 1001, isn + 1), b"hi");
    let snat = world.inbox(server)[0].source;
    let service = socket("192.0.2.21:443");
    let of_server = |header| wire::tcp(service, snat, header, b"");
    let of_client = |header| wire::tcp(from, to, header, b"");
    world.at(server).outbox.push(of_server(wire::flags("SA", 5000, 1001)));
    world.settle();
    assert_eq!(world.payloads(server).concat(), b"hi");
    let burst = [
        (server, of_server(wire::flags("A", 5001, 1003))),
        (server, of_server(wire::flags("FA", 5001, 1003))),
        (client, of_client(wire::flags("FA", 1003, isn + 2))),
    ];
    for (host, packet) in burst {
        let frame = world.framed(host, &packet);
        world.inject(0, &frame);
    }
    world.settle();
    world.inbox(server);
    world.inbox(client);
    world.at(server).outbox.push(of_server(wire::flags("A", 5002, 1004)));
    world.settle();
    let last = world.inbox(client);
    assert_eq!(last.iter().map(|packet| packet.tcp().acknowledgment_number).collect::<Vec<_>>(), [1004]);
    assert_eq!(world.terminations(), ["--"]);
    world.seconds(11);
    world.assert_empty();
}

#[test]
fn a_refused_syn_on_the_fast_path_is_a_refusal_of_the_server() {
    let mut scene = Scene::new(&format!("{}{}", two_pools(), plain("tcp/443", "a")));
    let here = scene.connect(40_000);
    scene.world.seconds(3);
    assert_eq!(scene.world.state(here), State::Closed);
    assert_eq!(scene.world.terminations(), ["SC"]);
    scene.world.finish();
}

/// Without a log there is nothing to keep once the scripts are done.
#[test]
fn a_flow_without_a_log_keeps_no_connection() {
    let set = with_sets("tcp/443", "a", &["a"], Some("avi.l4.collect(1)"), Some("avi.l4.collect(1)"));
    let toml = format!("{}{set}log_connections = false\n", two_pools());
    let mut scene = Scene::new(&toml.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    let datagrams = scene.world.silent(OUTSIDE, "192.0.2.101");
    let (there, here) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(here).say(b"request");
    scene.world.talk(there).say(b"answer");
    scene.world.datagram(datagrams, 4000, "192.0.2.10:443", b"question");
    scene.world.settle();
    assert_eq!(scene.world.talk(here).received, b"answer");
    assert_eq!(scene.world.worker.pipeline().connections(), 1, "the datagram flow waits for its answer");
    let question = scene.world.inbox(scene.a).remove(0);
    scene.world.datagram(scene.a, 443, question.source.to_string(), b"answer");
    scene.world.settle();
    assert_eq!(scene.world.payloads(datagrams), [b"answer"]);
    assert_eq!(scene.world.worker.pipeline().connections(), 0);
    assert_eq!(scene.world.worker.pipeline().flows().len(), 2);
    scene.world.talk(here).finish = true;
    scene.world.talk(there).finish = true;
    scene.world.seconds(60);
    assert!(scene.world.records.is_empty());
    scene.world.finish();
}
