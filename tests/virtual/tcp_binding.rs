//! TCP through delayed binding and splice, between smoltcp's stacks.

use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use crate::inside::*;
use crate::world::*;

/// Client, servers "a" and "b" (10.0.0.21 and .22), a service on 443.
pub struct Scene {
    pub world: World,
    pub client: HostId,
    pub a: HostId,
    pub b: HostId,
}

pub fn two_pools() -> String {
    pools(&[("a", &["10.0.0.21:443"]), ("b", &["10.0.0.22:443"])])
}

impl Scene {
    pub fn new(toml: &str) -> Scene {
        let mut world = World::new(toml);
        let client = world.host(OUTSIDE, "192.0.2.100");
        let (a, b) = (world.host(INSIDE, "10.0.0.21"), world.host(INSIDE, "10.0.0.22"));
        Scene { world, client, a, b }
    }

    pub fn scripted(request: &str) -> Scene {
        Scene::new(&format!("{}{}", two_pools(), scripted("tcp/443", "a", &["a", "b"], request)))
    }

    pub fn connect(&mut self, port: u16) -> Talk {
        self.world.connect(self.client, port, "192.0.2.10:443")
    }
}

pub fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251 + seed) as u8).collect()
}

/// Client and server exchange this many bytes and both close.
fn exchange(scene: &mut Scene, port: u16, up: usize, down: usize) {
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(port));
    scene.world.talk(client).say(&bytes(up, 1));
    scene.world.talk(client).finish = true;
    scene.world.talk(server).say(&bytes(down, 2));
    scene.world.talk(server).finish = true;
    scene.world.seconds(5);
    assert!(scene.world.talk(server).received == bytes(up, 1), "{up} up");
    assert!(scene.world.talk(client).received == bytes(down, 2), "{down} down");
    assert!(matches!(scene.world.state(client), State::TimeWait | State::Closed));
}

#[test]
fn bytes_arrive_both_ways_in_every_profile() {
    let proxy = Scene::scripted("avi.vs.log(avi.l4.read(1))");
    let plain_service = format!("{}{}", two_pools(), plain("tcp/443", "a"));
    let fast = Scene::new(&plain_service);
    let bare_proxy = Scene::new(&format!("{plain_service}[virtual_service.tcp]\nprofile = \"proxy\"\n"));
    let response = with_sets("tcp/443", "a", &["a"], None, Some("avi.vs.log(avi.l4.collect(1))"));
    let responding = Scene::new(&format!("{}{response}", two_pools()));
    for mut scene in [proxy, fast, bare_proxy, responding] {
        for (port, (up, down)) in
            [(1, 1), (1, 256 << 10), (256 << 10, 1), (70_000, 70_000), (1460, 3000)].into_iter().enumerate()
        {
            exchange(&mut scene, 40_000 + port as u16, up, down);
        }
        scene.world.seconds(30);
        assert_eq!(scene.world.terminations(), ["--"; 5]);
        scene.world.finish();
    }
}

#[test]
fn the_script_chooses_and_runs_once() {
    let mut scene = Scene::scripted("avi.vs.log('x') if avi.l4.read(1) == 'b' then avi.pool.select('b') end");
    let (server, client) = (scene.world.listen(scene.b, 443), scene.connect(40_000));
    for _ in 0..3 {
        scene.world.talk(client).say(b"bcd");
        scene.world.settle();
    }
    assert_eq!(scene.world.talk(server).received, b"bcdbcdbcd");
    scene.world.talk(server).say(b"done");
    scene.world.settle();
    assert_eq!(scene.world.talk(client).received, b"done");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(30);
    assert_eq!((scene.world.log(0).as_str(), scene.world.terminations()), ("x", vec!["--".to_owned()]));
    let record = &scene.world.records[0];
    assert!(
        record.handshake.is_some() && record.decision.is_some() && record.connect.is_some(),
        "{record:?}"
    );
    scene.world.finish();
}

#[test]
fn half_closed_connections_still_carry_data() {
    for client_first in [true, false] {
        let mut scene = Scene::scripted("avi.l4.collect(1)");
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(b"request");
        scene.world.settle();
        let (first, second) = if client_first { (client, server) } else { (server, client) };
        scene.world.talk(first).finish = true;
        scene.world.seconds(2);
        scene.world.talk(second).say(&bytes(100_000, 3));
        scene.world.seconds(2);
        assert!(scene.world.talk(first).received.ends_with(&bytes(100_000, 3)));
        scene.world.talk(second).finish = true;
        scene.world.seconds(30);
        assert_eq!(scene.world.terminations(), ["--"]);
        scene.world.finish();
    }
}

#[test]
fn a_reset_passes_in_both_directions() {
    for by_client in [true, false] {
        let mut scene = Scene::scripted("avi.l4.collect(1)");
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(b"request");
        scene.world.talk(server).say(b"answer");
        scene.world.settle();
        let (first, second) = if by_client { (client, server) } else { (server, client) };
        scene.world.abort(first);
        assert_eq!(scene.world.state(second), State::Closed);
        scene.world.seconds(5);
        assert_eq!(scene.world.terminations(), [if by_client { "CD" } else { "SD" }]);
        scene.world.finish();
    }
}

/// Also directly after the splice, when neither side has said anything more.
#[test]
fn an_idle_connection_is_reset_on_both_sides() {
    for answer in [&b""[..], b"answer"] {
        let mut scene = Scene::scripted("avi.l4.collect(1)");
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(b"request");
        scene.world.talk(server).say(answer);
        scene.world.settle();
        assert_eq!(scene.world.talk(server).received, b"request");
        scene.world.advance(Duration::from_secs(299));
        assert_eq!(scene.world.state(client), State::Established);
        scene.world.seconds(3);
        assert_eq!((scene.world.state(client), scene.world.state(server)), (State::Closed, State::Closed));
        assert_eq!(scene.world.terminations(), ["cD"]);
        scene.world.finish();
    }
}

#[test]
fn a_response_script_collects_before_the_client_sees_anything() {
    let response = "avi.vs.log(avi.l4.collect(10), avi.l4.read(10))";
    let set = with_sets("tcp/443", "a", &["a"], Some("avi.l4.collect(3)"), Some(response));
    let mut scene = Scene::new(&format!("{}{set}", two_pools()));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"request");
    scene.world.talk(server).say(b"12345");
    scene.world.seconds(1);
    assert!(scene.world.talk(client).received.is_empty());
    scene.world.talk(server).say(b"67890abc");
    scene.world.seconds(1);
    assert_eq!(scene.world.talk(client).received, b"1234567890abc");
    scene.world.talk(server).say(&bytes(50_000, 9));
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(30);
    assert_eq!(scene.world.talk(client).received.len(), 50_013);
    assert!(scene.world.log(0).ends_with("1234567890"), "{}", scene.world.log(0));
    assert_eq!(scene.world.terminations(), ["--"]);
    scene.world.finish();
}

#[test]
fn a_server_that_closes_without_a_word_has_no_response_to_look_at() {
    let set = with_sets("tcp/443", "a", &["a"], None, Some("avi.vs.log('ran') avi.l4.collect(1)"));
    let mut scene = Scene::new(&format!("{}{set}[virtual_service.tcp]\nprofile = \"proxy\"\n", two_pools()));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"request");
    scene.world.talk(server).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.state(client), State::CloseWait);
    scene.world.talk(client).finish = true;
    scene.world.seconds(30);
    assert_eq!((scene.world.log(0).as_str(), scene.world.terminations()), ("", vec!["--".to_owned()]));
    scene.world.finish();
}

#[test]
fn a_server_that_speaks_first_needs_the_default_pool() {
    let settings = "[virtual_service.tcp]\non_first_payload_timeout = \"default_pool\"\nfirst_payload_timeout = \"2s\"\n";
    let service = scripted("tcp/443", "a", &["a", "b"], "avi.pool.select('b')");
    let mut scene = Scene::new(&format!("{}{service}{settings}", two_pools()));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(server).say(b"220 hello");
    scene.world.seconds(1);
    assert!(scene.world.talk(client).received.is_empty());
    scene.world.seconds(2);
    assert_eq!(scene.world.talk(client).received, b"220 hello");
    scene.world.talk(client).say(b"QUIT");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(30);
    assert_eq!(scene.world.talk(server).received, b"QUIT");
    assert_eq!(scene.world.terminations(), ["--"]);
    scene.world.finish();
}

#[test]
fn fast_path_runs_the_script_on_the_syn() {
    let fast = "[virtual_service.tcp]\nprofile = \"fast_path\"\n";
    let script = "avi.vs.log('<', avi.l4.read(), '>') avi.pool.select('b')";
    let mut scene = Scene::new(&format!("{}{}{fast}", two_pools(), scripted("tcp/443", "a", &["b"], script)));
    let (server, client) = (scene.world.listen(scene.b, 443), scene.connect(40_000));
    scene.world.talk(server).say(b"first");
    scene.world.talk(server).finish = true;
    scene.world.talk(client).finish = true;
    scene.world.seconds(30);
    assert_eq!(scene.world.talk(client).received, b"first");
    assert_eq!((scene.world.log(0).as_str(), scene.world.terminations()), ("<>", vec!["--".to_owned()]));
    scene.world.finish();

    let script = "avi.l4.collect(1)";
    let mut scene = Scene::new(&format!("{}{}{fast}", two_pools(), scripted("tcp/443", "a", &["b"], script)));
    let client = scene.connect(40_000);
    scene.world.seconds(1);
    assert_eq!(scene.world.state(client), State::Closed);
    assert_eq!(scene.world.terminations(), ["LP"]);
    let error = scene.world.records[0].error.as_deref().unwrap();
    assert!(error.contains("collect") && error.contains("cannot wait"), "{error}");
    scene.world.finish();
}

#[test]
fn a_new_syn_on_a_finished_tuple_is_a_new_flow() {
    let mut scene = Scene::scripted("avi.l4.collect(1)");
    for round in 0..3u8 {
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(&[round]);
        scene.world.talk(server).finish = true;
        scene.world.settle();
        scene.world.talk(client).finish = true;
        scene.world.settle();
        assert_eq!(scene.world.talk(server).received, [round]);
        assert_eq!(scene.world.worker.pipeline().flows().len(), 1);
    }
    scene.world.seconds(30);
    assert_eq!(scene.world.terminations(), ["--", "--", "--"]);
    scene.world.finish();
}

/// Requests, answers and both FINs in single bursts, where the splice completes between two packets.
#[test]
fn everything_in_one_burst_is_no_surprise() {
    let mut scene = Scene::scripted("avi.l4.collect(1)");
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"request");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).say(b"answer");
    scene.world.talk(server).finish = true;
    scene.world.settle();
    assert_eq!(scene.world.state(server), State::Closed);
    assert_eq!(scene.world.state(client), State::TimeWait);
    assert_eq!(scene.world.terminations(), ["--"], "reported when both have finished");
    scene.world.finish();
}
