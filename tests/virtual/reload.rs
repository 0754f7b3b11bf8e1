//! Another configuration takes the place of the one that runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dataplane::channel::{Answer, Command, Query, Reply};
use dataplane::counters::DropReason;
use dataplane::overlay::{Changes, InUse};
use dataplane::snapshot::{ServerId, Snapshot};
use smoltcp::socket::tcp::State;

use crate::inside::*;
use crate::tcp_binding::{Scene, two_pools};
use crate::workers::rss;
use crate::world::*;

impl World {
    /// As control does it, by commands and answers.
    pub(crate) fn reload(&mut self, toml: &str) -> Changes {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripting/examples");
        let config = config::parse(&format!("{TWO_ARMS}{toml}"), "test.toml", &examples);
        let config = config.unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        let old = Arc::clone(self.worker.pipeline().snapshot());
        let in_use = self.named(0);
        let (laid, changes) = old.overlaid(&config.snapshot, &in_use, old.retired.generation).unwrap();
        self.give_out(Arc::new(laid));
        changes
    }

    /// As control looks from time to time; `false` if there is nothing to let go.
    pub(crate) fn tidy(&mut self) -> bool {
        let mut in_use = self.named(u32::MAX);
        if self.worker.pipeline().snapshot().tidied(&in_use).is_none() {
            return false;
        }
        in_use.add(self.named(0));
        let tidied = self.worker.pipeline().snapshot().tidied(&in_use);
        tidied.map(|tidied| self.give_out(Arc::new(tidied))).is_some()
    }

    /// What all workers name of retired things, by their connections from this place on.
    fn named(&mut self, first: u32) -> InUse {
        let mut all = InUse::default();
        for worker in 0..=self.others.len() {
            let mut next = Some(first);
            while let Some(first) = next {
                let (reply, answer) = Reply::pair();
                let ends = self.others.get(worker.wrapping_sub(1)).map_or(&self.control, |(_, end)| end);
                ends.commands.send(Command::Query(Query::InUse { first }, reply)).unwrap();
                self.round();
                let Ok(Answer::InUse(in_use, go_on)) = answer.try_recv() else { panic!("no answer") };
                all.add(*in_use);
                next = go_on;
            }
        }
        all
    }

    fn give_out(&mut self, laid: Arc<Snapshot>) {
        let (replies, answers): (Vec<_>, Vec<_>) = (0..=self.others.len()).map(|_| Reply::pair()).unzip();
        self.command_all(replies.into_iter().map(|reply| Command::Prepare(Arc::clone(&laid), reply)));
        for answer in answers {
            assert!(matches!(answer.try_recv(), Ok(Answer::Prepared(Ok(())))));
        }
        let (replies, answers): (Vec<_>, Vec<_>) = (0..=self.others.len()).map(|_| Reply::pair()).unzip();
        self.command_all(replies.into_iter().map(Command::Adopt));
        for answer in answers {
            assert!(matches!(answer.try_recv(), Ok(Answer::Adopted(true))));
        }
        for worker in self.workers() {
            assert!(Arc::ptr_eq(worker.pipeline().snapshot(), &laid));
        }
        self.settle();
    }

    /// A command for each worker, which carries it out.
    fn command_all(&mut self, commands: impl Iterator<Item = Command>) {
        let controls = std::iter::once(&self.control).chain(self.others.iter().map(|(_, control)| control));
        for (control, command) in controls.zip(commands) {
            control.commands.send(command).unwrap();
        }
        self.round();
    }
}

fn only(pool: &str, server: &str) -> String {
    pools(&[(pool, &[server])])
}

#[test]
fn a_connection_goes_on_at_its_server_after_its_pool_was_removed() {
    for profile in ["proxy", "fast_path"] {
        let tcp = format!("[virtual_service.tcp]\nprofile = \"{profile}\"\n");
        let mut scene = Scene::new(&format!("{}{}{tcp}", only("a", "10.0.0.21:443"), plain("tcp/443", "a")));
        let (old_server, old) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(old).say(b"before");
        scene.world.settle();
        let changes =
            scene.world.reload(&format!("{}{}{tcp}", only("b", "10.0.0.22:443"), plain("tcp/443", "b")));
        let expected = "services: changed vs\npools: added b; removed a\n\
            servers: added b 10.0.0.22:443; removed a 10.0.0.21:443\n";
        assert_eq!(changes.to_string(), expected);
        let (new_server, new) = (scene.world.listen(scene.b, 443), scene.connect(40_001));
        scene.world.talk(new).say(b"new");
        scene.world.talk(old).say(b", after");
        scene.world.talk(old_server).say(b"answer");
        scene.world.settle();
        assert_eq!(scene.world.talk(old_server).received, b"before, after", "{profile}");
        assert_eq!(scene.world.talk(old).received, b"answer");
        assert_eq!(scene.world.talk(new_server).received, b"new");
        for talk in [old, old_server, new, new_server] {
            scene.world.talk(talk).finish = true;
        }
        scene.world.seconds(5);
        assert!(matches!(scene.world.state(old), State::TimeWait | State::Closed));
        assert_eq!(scene.world.terminations(), ["--"; 2]);
        let servers: BTreeSet<_> = scene.world.records.iter().map(|record| record.server).collect();
        assert_eq!(servers, [Some(ServerId(0)), Some(ServerId(1))].into());
        scene.world.finish();
    }
}

#[test]
fn a_script_that_waits_ends_as_it_was_with_the_pools_that_it_had() {
    let old = "avi.l4.collect(4) avi.vs.log('old ' .. avi.l4.read(4)) avi.pool.select('a')";
    let new = "avi.l4.collect(4) avi.vs.log('new ' .. avi.l4.read(4)) avi.pool.select('b')";
    let mut scene = Scene::new(&format!("{}{}", two_pools(), scripted("tcp/443", "b", &["a", "b"], old)));
    let (a, waiting) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(waiting).say(b"12");
    scene.world.settle();
    assert_eq!(scene.world.worker.pipeline().policy().waiting(), 1);
    let changes = scene.world.reload(&format!(
        "{}{}",
        only("b", "10.0.0.22:443"),
        scripted("tcp/443", "b", &["b"], new)
    ));
    assert_eq!(changes.script_sets.changed, ["set"]);
    assert_eq!(changes.pools.removed, ["a"]);
    let (b, fresh) = (scene.world.listen(scene.b, 443), scene.connect(40_001));
    scene.world.talk(fresh).say(b"5678");
    scene.world.talk(waiting).say(b"34");
    scene.world.settle();
    assert_eq!(scene.world.talk(a).received, b"1234");
    assert_eq!(scene.world.talk(b).received, b"5678");
    for talk in [a, waiting, b, fresh] {
        scene.world.talk(talk).finish = true;
    }
    scene.world.seconds(30);
    let mut logs = [scene.world.log(0), scene.world.log(1)];
    logs.sort();
    assert_eq!(logs, ["new 5678", "old 1234"]);
    use dataplane::policy::Policy;
    let runs = |world: &World| {
        let reports = world.worker.pipeline().policy().report();
        reports.iter().map(|report| (report.set.clone(), report.runs)).collect::<Vec<_>>()
    };
    assert_eq!(
        runs(&scene.world),
        [("set".to_owned(), 2)],
        "what the script did before it was changed counts"
    );
    let used = scene.world.worker.pipeline().policy().memory();
    scene.world.reload(&format!("{}{}", only("b", "10.0.0.22:443"), scripted("tcp/443", "b", &["b"], new)));
    let snapshot = scene.world.worker.pipeline().snapshot();
    assert_eq!((snapshot.departing().count(), snapshot.script_sets[0].request.is_some()), (0, false));
    assert_eq!(runs(&scene.world), [("set".to_owned(), 2)], "also after it was let go");
    assert!(used < 16 << 20);
    scene.world.finish();
}

/// Each reload compiles a script anew; the memory of Lua does not grow with their number.
#[test]
fn scripts_that_nobody_needs_are_let_go() {
    let long = |n: usize| format!("local n = {n} {}", "if n == 1 then avi.vs.log('x') end ".repeat(300));
    let toml = |n| format!("{}{}", two_pools(), scripted("tcp/443", "a", &["a"], &long(n)));
    let mut scene = Scene::new(&toml(0));
    let mut used = Vec::new();
    for n in 1..60 {
        scene.world.reload(&toml(n));
        (0..2000).for_each(|_| {
            scene.world.round();
        });
        used.push(scene.world.worker.pipeline().policy().memory());
    }
    let (early, late) = (used[..20].iter().max().unwrap(), used[40..].iter().max().unwrap());
    assert!(*late < early + (128 << 10), "{used:?}");
    scene.world.finish();
}

fn persisting(servers: &[&str], more: &str) -> String {
    let script = "avi.vs.persist(avi.l4.read(1))";
    format!("{}{}{more}", pools(&[("a", servers)]), scripted("udp/53", "a", &["a"], script))
}

/// The keys of the datagrams that have come to a server.
fn keys(world: &mut World, server: HostId) -> BTreeSet<Vec<u8>> {
    world.payloads(server).into_iter().collect()
}

const PAIR: &[&str] = &["10.0.0.21:53", "10.0.0.22:53"];

#[test]
fn persistence_lasts_over_reloads_on_all_workers() {
    let toml = format!("{TWO_ARMS}{}", persisting(PAIR, ""));
    let mut world = World::with_workers(&toml, 2, |frame| rss(frame, 2));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = ["10.0.0.21", "10.0.0.22", "10.0.0.23"].map(|at| world.silent(INSIDE, at));
    let ask = |world: &mut World, ports: std::ops::Range<u16>| {
        for port in ports {
            world.datagram(client, port, "192.0.2.10:53", if port % 2 == 0 { b"a" } else { b"b" });
        }
        world.settle();
    };
    ask(&mut world, 4000..4002);
    ask(&mut world, 4002..4020);
    let before = servers.map(|server| keys(&mut world, server));
    assert_eq!(before.iter().map(BTreeSet::len).sum::<usize>(), 2, "each key has one server: {before:?}");
    assert_eq!(before[2].len(), 0);
    // Another timeout, another algorithm, another server in front.
    let three = &["10.0.0.23:53", "10.0.0.22:53", "10.0.0.21:53"];
    let changed = persisting(three, "[virtual_service.udp]\nidle_timeout = \"9s\"\n");
    let changes =
        world.reload(&changed.replace("name = \"a\"", "name = \"a\"\nalgorithm = \"least_connections\""));
    assert_eq!(
        changes.to_string(),
        "services: changed vs\npools: changed a\nservers: added a 10.0.0.23:53\n"
    );
    ask(&mut world, 5000..5020);
    assert_eq!(servers.map(|server| keys(&mut world, server)), before);
    let counts = world.workers().map(|worker| worker.pipeline().counters().flows_created).collect::<Vec<_>>();
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
    world.datagram(client, 6000, "192.0.2.10:53", b"c");
    world.settle();
    assert_eq!(world.payloads(servers[2]), [b"c"], "the new one has the fewest");
    world.finish();
}

#[test]
fn a_removed_service_takes_no_flows_and_keeps_those_that_it_has() {
    let both = format!(
        "{}{}{}",
        two_pools(),
        plain("tcp/443", "a"),
        plain("tcp/444", "b").replace("\"vs\"", "\"other\"").replace("192.0.2.10", "192.0.2.11")
    );
    let mut scene = Scene::new(&both);
    let (server, old) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(old).say(b"1");
    scene.world.settle();
    let one = format!(
        "{}{}",
        only("b", "10.0.0.22:443"),
        plain("tcp/444", "b").replace("\"vs\"", "\"other\"").replace("192.0.2.10", "192.0.2.11")
    );
    let changes = scene.world.reload(&one);
    assert_eq!(changes.services.removed, ["vs"]);
    let refused = scene.connect(40_001);
    scene.world.talk(old).say(b"2");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"12");
    assert_eq!(scene.world.state(refused), State::Closed);
    assert_eq!(scene.world.dropped(DropReason::NoService), 1);
    assert!(answers_arp(&mut scene, [192, 0, 2, 10]), "the client's router asks, too");
    scene.world.reload(&one);
    assert_eq!(scene.world.worker.pipeline().snapshot().departing().count(), 1, "it has a flow");
    for talk in [old, server] {
        scene.world.talk(talk).finish = true;
    }
    assert!(!scene.world.tidy(), "the flow is still there");
    assert!(answers_arp(&mut scene, [192, 0, 2, 10]));
    scene.world.seconds(30);
    assert!(scene.world.tidy(), "nobody has to reload");
    assert_eq!(scene.world.worker.pipeline().snapshot().departing().count(), 0);
    assert!(!answers_arp(&mut scene, [192, 0, 2, 10]));
    assert!(answers_arp(&mut scene, [192, 0, 2, 11]));
    // It comes back.
    let changes = scene.world.reload(&both);
    assert_eq!(changes.services.added, ["vs"]);
    let (server, again) = (scene.world.listen(scene.a, 443), scene.connect(40_002));
    scene.world.talk(again).say(b"3");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"3");
    assert!(answers_arp(&mut scene, [192, 0, 2, 10]));
    scene.world.finish();
}

/// Whether weir answers an ARP request from outside for this address.
fn answers_arp(scene: &mut Scene, target: [u8; 4]) -> bool {
    let asker = [192, 0, 2, 77];
    let mut frame = vec![0xff; 6];
    frame.extend([6, 0, 0, 0, 0, 77, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 6, 0, 0, 0, 0, 77]);
    frame.extend(asker);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    scene.world.inject(OUTSIDE, &frame);
    scene.world.round();
    let sent = scene.world.worker.io_mut().take_sent(dataplane::io::PortId(OUTSIDE));
    sent.iter().any(|frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == target)
}

#[test]
fn new_addresses_are_announced_once() {
    let toml = format!("{TWO_ARMS}{}{}", two_pools(), plain("tcp/443", "a"));
    let mut world = World::with_workers(&toml, 2, |frame| rss(frame, 2));
    world.silent(OUTSIDE, "192.0.2.100");
    let changed = plain("tcp/443", "a").replace("[\"192.0.2.10\"]", "[\"192.0.2.10\", \"192.0.2.12\"]");
    let before: u64 = world.workers().map(|worker| worker.pipeline().counters().originated).sum();
    world.reload(&format!("{}{changed}", two_pools()));
    let after: u64 = world.workers().map(|worker| worker.pipeline().counters().originated).sum();
    assert_eq!(after - before, 1);
    world.finish();
}

#[test]
fn what_was_prepared_and_abandoned_changes_nothing() {
    let mut scene = Scene::scripted("avi.vs.log('old')");
    let before = Arc::clone(scene.world.worker.pipeline().snapshot());
    let mut next = (*before).clone();
    next.script_sets[0].request.as_mut().unwrap().text = b"avi.vs.log('new')".to_vec();
    let (laid, _) = before.overlaid(&next, &InUse::default(), 0).unwrap();
    let (reply, answer) = Reply::pair();
    scene.world.command_all(std::iter::once(Command::Prepare(Arc::new(laid), reply)));
    assert!(matches!(answer.try_recv(), Ok(Answer::Prepared(Ok(())))));
    // A text that is no Lua is refused by itself.
    next.script_sets[0].request.as_mut().unwrap().text = b"this is no Lua".to_vec();
    let (laid, _) = before.overlaid(&next, &InUse::default(), 0).unwrap();
    let (reply, answer) = Reply::pair();
    scene.world.command_all(std::iter::once(Command::Prepare(Arc::new(laid), reply)));
    assert!(matches!(answer.try_recv(), Ok(Answer::Prepared(Err(_)))));
    scene.world.command_all(std::iter::once(Command::Abandon));
    let (reply, answer) = Reply::pair();
    scene.world.command_all(std::iter::once(Command::Adopt(reply)));
    assert!(matches!(answer.try_recv(), Ok(Answer::Adopted(false))));
    assert!(Arc::ptr_eq(scene.world.worker.pipeline().snapshot(), &before));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"x");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(5);
    assert_eq!(scene.world.log(0), "old");
    scene.world.finish();
}
