//! Places of removed things, which others get when nobody names them any more.

use dataplane::snapshot::{PoolId, ServerId, Snapshot};
use smoltcp::socket::tcp::State;

use crate::inside::*;
use crate::tcp_binding::{Scene, two_pools};
use crate::workers::rss;
use crate::world::*;

fn counts(snapshot: &Snapshot) -> [usize; 4] {
    [snapshot.services.len(), snapshot.pools.len(), snapshot.servers.len(), snapshot.script_sets.len()]
}

/// Each reload replaces a server, the script, and so the service; flows of the last four states go on meanwhile, on two workers.
#[test]
fn places_go_round_under_flows_that_stay_where_they_are() {
    let servers: Vec<String> = (0..7).map(|n| format!("10.0.0.{}", 21 + n)).collect();
    let toml = |n: usize| {
        let server = format!("{}:{}", servers[n % 7], 1000 + n);
        let script = format!("avi.vs.log('state {n}')");
        let pool = format!("pool {n}");
        let pool_text = pools(&[(&pool, &[&server])]).replace("port =", "max_connections = 50, port =");
        format!("{pool_text}{}", scripted("udp/53", &pool, &[&pool], &script))
    };
    let mut world = World::with_workers(&format!("{TWO_ARMS}{}", toml(0)), 2, |frame| rss(frame, 2));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let hosts: Vec<HostId> = servers.iter().map(|server| world.silent(INSIDE, server)).collect();
    let mut most = [0; 4];
    for n in 0..150_usize {
        let said = |n: usize, again: bool| format!("{n} {again}").into_bytes();
        for m in n.saturating_sub(4)..=n {
            let port = 5000 + m as u16;
            world.datagram(client, port, "192.0.2.10:53", &said(m, m < n));
            world.settle();
            assert_eq!(world.payloads(hosts[m % 7]), [said(m, m < n)], "round {n}: the flow of state {m}");
        }
        world.seconds(11);
        world.reload(&toml(n + 1));
        let now = counts(world.worker.pipeline().snapshot());
        most = std::array::from_fn(|kind| most[kind].max(now[kind]));
        if n == 60 {
            assert!(most.iter().all(|count| *count <= 12), "{most:?}");
        }
    }
    assert!(most.iter().all(|count| *count <= 12), "{most:?}");
    world.seconds(300);
    let mut states: Vec<String> = (0..world.records.len()).map(|at| world.log(at)).collect();
    states.sort_by_key(|state| state.trim_start_matches("state ").parse::<usize>().unwrap());
    let expected: Vec<String> = (0..150).map(|n| format!("state {n}")).collect();
    assert_eq!(states, expected, "each flow has its record, by the script of its time");
    world.finish();
}

/// A script that waits has chosen a pool that is no more, by whose servers nobody else goes.
#[test]
fn what_a_waiting_script_has_chosen_is_kept_for_it() {
    let script = "avi.pool.select('a') avi.l4.collect(4)";
    let mut scene = Scene::new(&format!("{}{}", two_pools(), scripted("tcp/443", "b", &["a", "b"], script)));
    let (a, waiting) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(waiting).say(b"12");
    scene.world.settle();
    let other = |n: u16| {
        let server = format!("10.0.0.22:{}", 1000 + n);
        format!("{}{}", pools(&[("c", &[&server])]), plain("tcp/443", "c"))
    };
    for n in 0..10 {
        scene.world.reload(&other(n));
        scene.world.tidy();
    }
    let snapshot = scene.world.worker.pipeline().snapshot();
    assert_eq!(snapshot.pools[0].servers, [ServerId(0)]);
    assert!(
        snapshot.retired.pools.contains(&PoolId(0)) && !snapshot.retired.spare.pools.contains_key(&PoolId(0))
    );
    assert!(snapshot.servers.len() <= 6, "those that nobody has chosen go round");
    scene.world.talk(waiting).say(b"34");
    scene.world.settle();
    assert_eq!(scene.world.talk(a).received, b"1234");
    for talk in [a, waiting] {
        scene.world.talk(talk).finish = true;
    }
    scene.world.seconds(30);
    assert!(matches!(scene.world.state(waiting), State::TimeWait | State::Closed));
    while scene.world.tidy() {}
    let snapshot = scene.world.worker.pipeline().snapshot();
    assert!(snapshot.retired.spare.pools.contains_key(&PoolId(0)));
    scene.world.reload(&format!("{}{}", pools(&[("z", &["10.0.0.21:443"])]), plain("tcp/443", "z")));
    assert_eq!(scene.world.worker.pipeline().snapshot().pools[0].name, "z");
    let (server, fresh) = (scene.world.listen(scene.a, 443), scene.connect(40_001));
    scene.world.talk(fresh).say(b"x");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"x");
    for talk in [server, fresh] {
        scene.world.talk(talk).finish = true;
    }
    scene.world.seconds(30);
    scene.world.finish();
}

/// Its service leads there no more, and no flow has it: but a connection will not go to it a second time.
#[test]
fn a_server_that_a_connection_has_tried_is_not_another_one_meanwhile() {
    let timeout = "[pool.tcp]\nconnect_timeout = \"2s\"\n";
    let service = format!("{}[virtual_service.tcp]\nprofile = \"proxy\"\n", plain("tcp/443", "a"));
    let toml = |servers: &[&str]| format!("{}{timeout}{service}", pools(&[("a", servers)]));
    let mut scene = Scene::new(&toml(&["10.0.0.28:443", "10.0.0.29:443"]));
    for silent in ["10.0.0.28", "10.0.0.29"] {
        scene.world.silent(INSIDE, silent);
    }
    let client = scene.connect(40_000);
    scene.world.talk(client).say(b"x");
    let current = |scene: &Scene| {
        let uses = scene.world.worker.pipeline().uses();
        [0, 1].into_iter().find(|server| uses.of_server(ServerId(*server)) == 1).unwrap()
    };
    scene.world.settle();
    let first = current(&scene);
    scene.world.seconds(3);
    assert_ne!(current(&scene), first, "nobody answers there");
    scene.world.reload(&toml(&[["10.0.0.29:443", "10.0.0.28:443"][usize::from(first)]]));
    let is_spare = |scene: &Scene| {
        scene.world.worker.pipeline().snapshot().retired.spare.servers.contains_key(&ServerId(first))
    };
    assert!(!scene.world.tidy() && !is_spare(&scene));
    scene.world.seconds(60);
    assert!(scene.world.tidy() && is_spare(&scene));
    scene.world.finish();
}

/// Where it went in the end it stays.
#[test]
fn a_server_that_a_settled_connection_has_tried_is_let_go() {
    let timeout = "[pool.tcp]\nconnect_timeout = \"2s\"\n";
    let service = format!("{}[virtual_service.tcp]\nprofile = \"proxy\"\n", plain("tcp/443", "a"));
    let toml = |servers: &[&str]| format!("{}{timeout}{service}", pools(&[("a", servers)]));
    let mut scene = Scene::new(&toml(&["10.0.0.28:443", "10.0.0.21:443"]));
    scene.world.silent(INSIDE, "10.0.0.28");
    let servers = [scene.world.listen(scene.a, 443), scene.world.listen(scene.a, 443)];
    // Each server is the first choice of one of them.
    let clients = [scene.connect(40_000), scene.connect(40_001)];
    clients.iter().for_each(|client| scene.world.talk(*client).say(b"x"));
    scene.world.seconds(5);
    servers.iter().for_each(|server| assert_eq!(scene.world.talk(*server).received, b"x"));
    let uses = scene.world.worker.pipeline().uses();
    assert_eq!([0, 1].map(|server| uses.of_server(ServerId(server))), [0, 2]);
    scene.world.reload(&toml(&["10.0.0.21:443"]));
    assert!(scene.world.tidy());
    let spare = &scene.world.worker.pipeline().snapshot().retired.spare;
    assert!(spare.servers.contains_key(&ServerId(0)), "{spare:?}");
    for talk in servers.into_iter().chain(clients) {
        scene.world.talk(talk).finish = true;
    }
    scene.world.seconds(30);
    scene.world.finish();
}

/// Their connections are kept for what the log will say, and no further reason.
#[test]
fn many_flows_of_a_retired_service_are_counted_and_not_looked_at() {
    let toml = |ports: &str| {
        let service = scripted(ports, "a", &["a"], "avi.vs.log('kept')");
        format!("{}{service}", pools(&[("a", &["10.0.0.21:53"])]))
    };
    let mut world = World::new(&toml("udp/53"));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    world.silent(INSIDE, "10.0.0.21");
    for port in 4000..4300 {
        world.datagram(client, port, "192.0.2.10:53", b"x");
        world.settle();
    }
    world.reload(&toml("udp/54"));
    let pipeline = world.worker.pipeline();
    assert!(pipeline.in_use(0).1.is_some(), "there are more than are looked at between two bursts");
    let (counted, more) = pipeline.in_use(u32::MAX);
    assert_eq!((counted.services.len(), more), (1, None));
    assert!(pipeline.snapshot().tidied(&counted).is_none() && !world.tidy());
    world.seconds(60);
    assert!(world.tidy());
    assert_eq!(world.records.len(), 300);
    world.finish();
}

/// Tables are the service's, by its name, as long as they have entries; who gets its place finds none.
#[test]
fn another_service_in_a_place_does_not_find_the_tables_of_the_one_before() {
    let insert =
        "if not avi.vs.table_lookup('k') then avi.vs.table_insert('k', 'old', 300) avi.vs.log('new') end";
    let udp = |name: &str| scripted("udp/53", "a", &["a"], insert).replace("\"vs\"", &format!("\"{name}\""));
    let toml = |name: &str| format!("{}{}", pools(&[("a", &["10.0.0.21:53"])]), udp(name));
    let mut world = World::new(&toml("first"));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    world.silent(INSIDE, "10.0.0.21");
    let mut port = 4000;
    let mut inserts = |world: &mut World| {
        port += 1;
        world.datagram(client, port, "192.0.2.10:53", b"x");
        world.seconds(60);
        let last = world.records.len() - 1;
        world.records[last].ds_log.is_some()
    };
    assert!(inserts(&mut world) && !inserts(&mut world));
    world.reload(&toml("second"));
    assert!(inserts(&mut world));
    world.tidy();
    assert!(!world.tidy(), "the first one's entry lives on");
    world.reload(&toml("first"));
    assert!(!inserts(&mut world), "and is there when it comes back");
    world.reload(&toml("second"));
    world.seconds(700);
    while world.tidy() {}
    assert!(!world.worker.pipeline().snapshot().holds_retired());
    world.reload(&toml("third"));
    let snapshot = world.worker.pipeline().snapshot();
    assert_eq!(snapshot.services[0].name, "third", "in the place of the first one");
    assert!(inserts(&mut world) && !inserts(&mut world));
    world.finish();
}
