//! What scripts decide, seen from the wire.

use dataplane::snapshot::ServerId;

use crate::inside::*;
use crate::tcp_binding::Scene;
use crate::world::*;

#[test]
fn a_script_without_end_is_stopped_and_others_work_meanwhile() {
    let mut scene = Scene::scripted(
        "local first = avi.l4.read(1)
        if first == 'x' then while true do pcall(function() while true do end end) end end",
    );
    let (server, good) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    let bad = scene.connect(40_001);
    scene.world.talk(bad).say(b"x");
    scene.world.talk(good).say(b"good");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"good");
    scene.world.talk(bad).finish = true;
    scene.world.talk(good).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(30);
    let mut letters = scene.world.terminations();
    letters.sort();
    assert_eq!(letters, ["--", "LP"]);
    use dataplane::policy::Policy;
    let report = scene.world.worker.pipeline().policy().report();
    assert_eq!((report[0].runs, report[0].budget_stops), (2, 1));
    scene.world.finish();
}

fn datagrams(pool: &str, script: &str) -> (World, HostId, [HostId; 2]) {
    let mut world = World::new(&format!("{pool}{}", scripted("udp/53", "a", &["a"], script)));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    (world, client, servers)
}

fn pair() -> String {
    pools(&[("a", &["10.0.0.21:53", "10.0.0.22:53"])])
}

#[test]
fn persist_keeps_a_key_on_its_server_until_that_is_down() {
    let (mut world, client, servers) = datagrams(&pair(), "avi.vs.persist(avi.l4.read(1))");
    for (n, key) in b"abababab".iter().enumerate() {
        world.datagram(client, 4000 + n as u16, "192.0.2.10:53", &[*key]);
    }
    world.settle();
    let got = servers.map(|server| world.payloads(server).concat());
    assert!(
        got == [b"aaaa".to_vec(), b"bbbb".to_vec()] || got == [b"bbbb".to_vec(), b"aaaa".to_vec()],
        "{got:?}"
    );
    world.worker.pipeline_mut().balancer_mut().set_health(ServerId(0), false);
    world.datagram(client, 5000, "192.0.2.10:53", b"a");
    world.datagram(client, 5001, "192.0.2.10:53", b"b");
    world.settle();
    assert_eq!(servers.map(|server| world.payloads(server).len()), [0, 2]);
    world.finish();
}

#[test]
fn least_connections_counts_flows_that_are_open() {
    let pool = pair().replace("name = \"a\"", "name = \"a\"\nalgorithm = \"least_connections\"");
    let script = "if avi.l4.read(1) == '1' then avi.pool.select('a', '10.0.0.21') end";
    let (mut world, client, servers) = datagrams(&pool, script);
    for port in 0..4 {
        world.datagram(client, 4000 + port, "192.0.2.10:53", b"1");
    }
    world.settle();
    for port in 0..4 {
        world.datagram(client, 5000 + port, "192.0.2.10:53", b"2");
    }
    world.settle();
    assert_eq!(servers.map(|server| world.payloads(server).concat()), [b"1111".to_vec(), b"2222".to_vec()]);
    world.finish();
}

#[test]
fn a_pool_group_goes_to_the_next_priority_when_the_first_is_down() {
    let toml = format!(
        "{}[[pool_group]]\nname = \"g\"\nmembers = [{{ pool = \"a\", priority = 9 }}, {{ pool = \"b\", priority = 1 }}]\n{}",
        pools(&[("a", &["10.0.0.21:53"]), ("b", &["10.0.0.22:53"])]),
        scripted("udp/53", "", &[], "avi.poolgroup.select('g')")
            .replace("pools = []", "pool_groups = [\"g\"]")
    );
    let mut world = World::new(&toml);
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    world.datagram(client, 4000, "192.0.2.10:53", b"1");
    world.settle();
    world.worker.pipeline_mut().balancer_mut().set_health(ServerId(0), false);
    world.datagram(client, 4001, "192.0.2.10:53", b"2");
    world.datagram(client, 4000, "192.0.2.10:53", b"3");
    world.settle();
    assert_eq!(servers.map(|server| world.payloads(server).concat()), [b"13".to_vec(), b"2".to_vec()]);
    world.finish();
}

#[test]
fn a_long_log_is_cut_and_says_so() {
    let script = "for n = 1, 20 do avi.vs.log(string.rep('x', 256)) end avi.vs.log('', avi.SIG_ENABLE)";
    let (mut world, client, _) = datagrams(&pair(), script);
    world.datagram(client, 4000, "192.0.2.10:53", b"?");
    world.datagram(client, 4001, "192.0.2.10:53", b"?");
    world.seconds(40);
    let log = world.log(0);
    assert_eq!((log.len(), log.ends_with("x...")), (4099, true));
    assert!(world.records[0].significant);
    world.finish();
}
