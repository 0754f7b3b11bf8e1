//! What the connection log says of flows that end in every way, and what the end hosts see.

use dataplane::counters::DropReason;
use dataplane::snapshot::ServerId;
use smoltcp::socket::tcp::State;

use crate::inside::*;
use crate::tcp_binding::{Scene, two_pools};
use crate::wire;
use crate::world::*;

fn two_servers(settings: &str) -> Scene {
    let pool = pools(&[("a", &["10.0.0.21:443", "10.0.0.22:443"])]);
    Scene::new(&format!("{pool}{settings}{}", scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)")))
}

#[test]
fn a_server_that_refuses_is_replaced() {
    let mut scene = two_servers("");
    let b = scene.b;
    for port in [40_000, 40_001] {
        let (server, client) = (scene.world.listen(b, 443), scene.connect(port));
        scene.world.talk(client).say(b"hello");
        scene.world.seconds(1);
        assert_eq!(scene.world.talk(server).received, b"hello");
        scene.world.talk(client).finish = true;
        scene.world.talk(server).finish = true;
        scene.world.seconds(1);
    }
    assert_eq!(scene.world.terminations(), ["--", "--"]);
    scene.world.finish();
}

#[test]
fn when_all_refuse_the_client_is_reset() {
    let mut scene = two_servers("");
    let client = scene.connect(40_000);
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(1);
    assert_eq!(scene.world.state(client), State::Closed);
    assert_eq!(scene.world.terminations(), ["SC"]);
    scene.world.finish();
}

#[test]
fn silent_servers_are_given_up_one_after_the_other() {
    let pool = pools(&[("a", &["10.0.0.31:443", "10.0.0.32:443", "10.0.0.21:443"])]);
    let timeout = "[pool.tcp]\nconnect_timeout = \"1s\"\n";
    let service = scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)");
    let mut scene = Scene::new(&format!("{pool}{timeout}{service}"));
    scene.world.silent(INSIDE, "10.0.0.31");
    scene.world.silent(INSIDE, "10.0.0.32");
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(1);
    assert!(scene.world.talk(server).received.is_empty());
    scene.world.seconds(2);
    assert_eq!(scene.world.talk(server).received, b"hello");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.terminations(), ["--"]);
    scene.world.worker.pipeline_mut().balancer_mut().set_health(ServerId(2), false);
    let client = scene.connect(40_001);
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(4);
    assert_eq!(scene.world.state(client), State::Closed);
    assert_eq!(scene.world.terminations(), ["--", "sC"]);
    scene.world.finish();
}

#[test]
fn a_script_closes_gently_or_by_reset() {
    for (script, state) in
        [("avi.vs.close_conn()", State::CloseWait), ("avi.vs.close_conn(true)", State::Closed)]
    {
        let mut scene = Scene::scripted(&format!("avi.l4.read(1) avi.pool.select('a') {script}"));
        let client = scene.connect(40_000);
        scene.world.talk(client).say(b"x");
        scene.world.seconds(1);
        assert_eq!(scene.world.state(client), state);
        scene.world.talk(client).finish = true;
        scene.world.seconds(100);
        assert_eq!(scene.world.terminations(), ["WP"]);
        assert_eq!(scene.world.records[0].reason, Some(DropReason::ScriptClosed));
        scene.world.finish();
    }
}

#[test]
fn a_script_error_closes_and_leaves_a_traceback() {
    let mut scene = Scene::scripted("local function inner() error('boom') end\ninner()");
    let client = scene.connect(40_000);
    scene.world.talk(client).say(b"x");
    scene.world.seconds(1);
    assert_eq!(scene.world.state(client), State::CloseWait);
    scene.world.talk(client).finish = true;
    scene.world.seconds(100);
    assert_eq!(scene.world.terminations(), ["LP"]);
    let error = scene.world.records[0].error.as_deref().unwrap();
    assert!(error.contains("boom") && error.contains("traceback") && error.contains("inner"), "{error}");
    scene.world.finish();
}

#[test]
fn a_script_error_may_mean_the_default_pool() {
    let settings = "[virtual_service.datascript]\non_script_error = \"default_pool\"\n";
    let mut scene = Scene::new(&format!(
        "{}{}{settings}",
        two_pools(),
        scripted("tcp/443", "a", &["a"], "error('boom')")
    ));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"x");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.talk(server).received, b"x");
    assert!(scene.world.records[0].error.is_some());
    assert_eq!(scene.world.terminations(), ["--"]);
    scene.world.finish();
}

#[test]
fn without_a_server_or_a_pool_the_client_is_reset() {
    for pool in ["a", ""] {
        let toml = format!("{}{}", two_pools(), scripted("tcp/443", pool, &["a"], "avi.l4.collect(1)"));
        let mut scene = Scene::new(&toml);
        scene.world.worker.pipeline_mut().balancer_mut().set_health(ServerId(0), false);
        let client = scene.connect(40_000);
        scene.world.talk(client).say(b"x");
        scene.world.seconds(1);
        assert_eq!(scene.world.state(client), State::Closed);
        assert_eq!(scene.world.terminations(), ["RP"]);
        let reason = if pool == "a" { DropReason::NoServer } else { DropReason::NoPool };
        assert_eq!(scene.world.records[0].reason, Some(reason));
        scene.world.finish();
    }
}

#[test]
fn clients_that_stop_half_way() {
    let mut scene = Scene::scripted("avi.l4.collect(10)");
    let raw = scene.world.silent(OUTSIDE, "192.0.2.101");
    let syn = wire::flags("S", 1, 0);
    let packet = wire::tcp(socket("192.0.2.101:40000"), socket("192.0.2.10:443"), syn, b"");
    scene.world.at(raw).outbox.push(packet);
    scene.world.seconds(11);
    assert_eq!(
        (scene.world.worker.pipeline().counters().handshakes_incomplete, scene.world.records.len()),
        (1, 0)
    );
    let quiet = scene.connect(40_000);
    scene.world.seconds(11);
    assert_eq!((scene.world.state(quiet), scene.world.terminations()[0].as_str()), (State::Closed, "cP"));
    let leaves = scene.connect(40_001);
    scene.world.talk(leaves).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.terminations()[1], "CP");
    let gives_up = scene.connect(40_002);
    scene.world.talk(gives_up).say(b"only 9 by");
    scene.world.talk(gives_up).finish = true;
    scene.world.seconds(100);
    assert_eq!(scene.world.terminations()[2], "CP");
    let resets = scene.connect(40_003);
    scene.world.talk(resets).say(b"few");
    scene.world.settle();
    scene.world.abort(resets);
    assert_eq!(scene.world.terminations()[3], "CP");
    scene.world.finish();
}

#[test]
fn shutting_down_resets_and_records() {
    let mut scene = Scene::scripted("avi.l4.collect(2)");
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    let waiting = scene.connect(40_001);
    scene.world.talk(client).say(b"hello");
    scene.world.talk(waiting).say(b"h");
    scene.world.settle();
    let now = scene.world.now;
    scene.world.worker.shut_down(now);
    scene.world.settle();
    for talk in [client, server, waiting] {
        assert_eq!(scene.world.state(talk), State::Closed);
    }
    let mut letters = scene.world.terminations();
    letters.sort();
    assert_eq!(letters, ["KD", "KP"]);
    scene.world.finish();
}
