//! Packets that somebody watches: what is told of them, and that watching changes nothing.

use dataplane::counters::DropReason;
use dataplane::pipeline::Verdict;
use dataplane::script_trace::ScriptStep;
use dataplane::snapshot::Protocol;
use dataplane::trace::{Filter, Order, TraceEvent, TraceSource, What, pipe};
use smoltcp::time::Duration;

use crate::inside::*;
use crate::tcp_binding::{Scene, two_pools};
use crate::wire;
use crate::world::*;

/// Follows ten flows of each worker; `change` may say otherwise.
fn watch(world: &mut World, change: impl Fn(&mut Order)) -> Vec<TraceSource> {
    let now = world.now;
    let others = world.others.iter_mut().map(|(worker, _)| worker);
    let workers = std::iter::once(&mut world.worker).chain(others);
    let armed = workers.map(|worker| {
        let (sink, source) = pipe();
        let mut order = Order {
            filter: Filter::default(),
            flows: 10,
            time: Duration::from_secs(1000),
            open: false,
            drops: false,
            frames: None,
            lines: false,
            sink,
        };
        change(&mut order);
        worker.pipeline_mut().trace(now, order);
        source
    });
    armed.collect()
}

/// One event in a word or two.
fn word(what: &What) -> String {
    match what {
        What::Begin { key, open } => {
            let open = if *open { "open " } else { "" };
            format!("{open}{} > {}", key.source_socket(), key.destination_socket())
        }
        What::Received { port, shape, .. } => format!("in {} +{}", port.0, shape.payload),
        What::Found(state) => format!("{state:?}"),
        What::New(_) => "new".to_owned(),
        What::Binding { event, client_bytes, .. } => format!("{event:?} {client_bytes}"),
        What::Script { end, trace, .. } => {
            let calls = trace.steps().iter().filter(|step| matches!(step, ScriptStep::Call { .. }));
            format!("{end:?} after {} calls", calls.count())
        }
        What::Chosen { why, server, .. } => format!("{why:?} {}", server.map_or(99, |server| server.0)),
        What::Attached { to, .. } => format!("to {to}"),
        What::Refused(reason) => format!("refused {reason:?}"),
        What::Bound => "bound".to_owned(),
        What::Verdict { verdict, left } => match (verdict, left) {
            (Verdict::Forward(_) | Verdict::ForwardWhenResolved(..), Some(left)) => {
                format!("out {} +{}", left.port.0, left.shape.payload)
            }
            (verdict, _) => format!("{verdict:?}"),
        },
        What::Sent(left) => {
            let flags = left.shape.segment.map_or(0, |segment| segment.flags);
            format!("sent {} {flags:02x} +{}", left.port.0, left.shape.payload)
        }
        What::Unsent { .. } => "unsent".to_owned(),
        What::End(record) => format!("end {}", record.termination),
    }
}

fn events(source: &TraceSource) -> Vec<TraceEvent> {
    std::iter::from_fn(|| source.receive()).collect()
}

/// What was told of one flow.
fn story(events: &[TraceEvent], flow: u32) -> Vec<String> {
    events.iter().filter(|event| event.flow == flow).map(|event| word(&event.what)).collect()
}

const BY_LETTER: &str = "if avi.l4.collect(2) and avi.l4.read(1) == 'b' then avi.pool.select('b') end";

#[test]
fn a_connection_is_told_from_its_syn_to_its_end() {
    let mut scene = Scene::scripted(BY_LETTER);
    let (server, client) = (scene.world.listen(scene.b, 443), scene.connect(40_000));
    let sources = watch(&mut scene.world, |_| {});
    scene.world.talk(client).say(b"b");
    scene.world.settle();
    scene.world.talk(client).say(b"cd");
    scene.world.seconds(1);
    assert_eq!(scene.world.talk(server).received, b"bcd");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(30);
    let story = story(&events(&sources[0]), 0);
    let expected = [
        "192.0.2.100:40000 > 192.0.2.10:443",
        "in 0 +0",
        "new",
        "Consumed",
        "sent 0 12 +0",
        "in 0 +0",
        "Handshake",
        "Established 0",
        "Consumed",
        "in 0 +1",
        "Deciding",
        "Data(Client) 1",
        "Waiting(2) after 1 calls",
        "Consumed",
        "sent 0 10 +0",
        "in 0 +2",
        "Deciding",
        "Data(Client) 3",
        "Done after 2 calls",
        "Script 1",
        "to 10.0.0.22:443",
        "Consumed",
    ];
    assert_eq!(story.get(..expected.len()), Some(&expected.map(str::to_owned)[..]), "{story:#?}");
    let rest = &story[expected.len()..];
    for step in ["sent 1 02 +0", "Connecting", "sent 1 18 +3", "Spliced 3", "bound", "out 1 +0", "out 0 +0"] {
        assert!(rest.iter().any(|told| told == step), "{step}: {rest:#?}");
    }
    assert_eq!(rest.iter().filter(|told| told.starts_with("end")).collect::<Vec<_>>(), ["end --"]);
    scene.world.finish();
}

#[test]
fn a_datagram_and_its_answer() {
    let mut world = World::new(&format!("{}{}", two_pools(), plain("udp/53", "a").replace("443", "53")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 3999, "192.0.2.10:53", b"before");
    world.settle();
    world.inbox(server);
    let sources = watch(&mut world, |order| order.filter.port = Some(53));
    world.datagram(client, 3999, "192.0.2.10:53", b"of a flow that is not followed");
    world.datagram(client, 4000, "192.0.2.10:53", b"question");
    world.settle();
    let question = world.inbox(server).remove(1);
    world.datagram(server, 443, question.source.to_string(), b"answer");
    world.seconds(40);
    let expected = [
        "192.0.2.100:4000 > 192.0.2.10:53",
        "in 0 +8",
        "new",
        "Default 0",
        "to 10.0.0.21:443",
        "bound",
        "out 1 +8",
        "in 1 +6",
        "Established",
        "out 0 +6",
        "end --",
    ];
    let events = events(&sources[0]);
    assert_eq!(story(&events, 0), expected);
    assert_eq!(events.len(), expected.len(), "and nothing of any other flow");
    world.finish();
}

#[test]
fn an_open_flow_is_followed_if_that_is_wanted() {
    let mut world = World::new(&format!("{}{}", two_pools(), plain("udp/53", "a")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"1");
    world.settle();
    let source = world.inbox(server).remove(0).source;
    let sources = watch(&mut world, |order| (order.open, order.flows) = (true, 1));
    world.datagram(server, 443, source.to_string(), b"22");
    world.settle();
    world.datagram(client, 4001, "192.0.2.10:53", b"one flow is enough");
    world.settle();
    let told = story(&events(&sources[0]), 0);
    assert_eq!(told, ["open 192.0.2.100:4000 > 192.0.2.10:53", "in 1 +2", "Established", "out 0 +2"]);
    world.finish();
}

#[test]
fn packets_that_open_no_flow_are_told_with_their_reason() {
    let mut scene = Scene::scripted("avi.vs.close_conn(true)");
    let sources = watch(&mut scene.world, |_| {});
    let client = scene.client;
    let nowhere = scene.world.connect(client, 40_001, "192.0.2.10:81");
    scene.world.settle();
    let closed = scene.connect(40_002);
    scene.world.talk(closed).say(b"x");
    scene.world.settle();
    let mut frame = wire::udp(socket("192.0.2.100:9"), socket("192.0.2.10:443"), b"checksum");
    frame[10] ^= 1;
    let frame = scene.world.framed(client, &frame);
    scene.world.inject(OUTSIDE, &frame);
    scene.world.settle();
    let events = events(&sources[0]);
    let expected = ["192.0.2.100:40001 > 192.0.2.10:81", "in 0 +0", "Drop(NoService)", "sent 0 14 +0"]
        .map(str::to_owned);
    assert_eq!(story(&events, 0), expected);
    let told = story(&events, 1);
    let reset = told.iter().position(|word| word.starts_with("sent 0 14") || word.starts_with("sent 0 04"));
    assert!(reset.is_some() && told.iter().any(|word| word == "end WP"), "{told:#?}");
    let expected = ["192.0.2.100:9 > 192.0.2.10:443", "in 0 +0", "Drop(IpChecksum)"].map(str::to_owned);
    assert_eq!(story(&events, 2), expected);
    scene.world.abort(nowhere);
    scene.world.finish();
}

#[test]
fn only_drops_if_only_they_are_wanted() {
    let mut scene = Scene::scripted("if avi.l4.read(1) == 'x' then avi.vs.close_conn() end");
    let server = scene.world.listen(scene.a, 443);
    let sources = watch(&mut scene.world, |order| order.drops = true);
    let good = scene.connect(40_000);
    scene.world.talk(good).say(b"good");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"good");
    let bad = scene.connect(40_001);
    scene.world.talk(bad).say(b"x");
    scene.world.settle();
    let client = scene.client;
    let nowhere = scene.world.connect(client, 40_002, "192.0.2.10:81");
    scene.world.settle();
    for talk in [good, server, bad, nowhere] {
        scene.world.talk(talk).finish = true;
    }
    scene.world.seconds(20);
    let events = events(&sources[0]);
    let begun = events.iter().filter(|event| matches!(event.what, What::Begin { .. })).count();
    assert_eq!(begun, 2, "{events:?}");
    let (first, second) = (story(&events, 0), story(&events, 1));
    let refused = if first[0].starts_with("open 192.0.2.100:40001") { &first } else { &second };
    assert_eq!(refused.last().map(String::as_str), Some("end WP"), "{first:?} {second:?}");
    assert!([&first, &second].iter().any(|story| story.contains(&"Drop(NoService)".to_owned())));
    scene.world.finish();
}

#[test]
fn a_tuple_that_is_used_again_is_another_flow() {
    let mut scene = Scene::scripted(BY_LETTER);
    let sources = watch(&mut scene.world, |order| order.filter.protocol = Some(Protocol::Tcp));
    for _ in 0..2 {
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(b"abc");
        scene.world.settle();
        scene.world.abort(client);
        assert_eq!(scene.world.talk(server).received, b"abc");
        scene.world.seconds(1);
    }
    scene.world.seconds(5);
    let events = events(&sources[0]);
    for flow in [0, 1] {
        let told = story(&events, flow);
        assert_eq!(told[..3], ["192.0.2.100:40000 > 192.0.2.10:443", "in 0 +0", "new"], "{told:?}");
        assert!(told.iter().any(|word| word == "end CD"), "{told:?}");
    }
    scene.world.finish();
}

#[test]
fn a_flow_behind_a_cookie_keeps_its_number() {
    let toml = format!(
        "{}{}[virtual_service.tcp]\nsyn_cookies = \"always\"\n",
        two_pools(),
        scripted("tcp/443", "a", &["a", "b"], BY_LETTER)
    );
    let mut scene = Scene::new(&toml);
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    let sources = watch(&mut scene.world, |order| order.flows = 1);
    scene.world.talk(client).say(b"abc");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"abc");
    let told = story(&events(&sources[0]), 0);
    let begin =
        ["192.0.2.100:40000 > 192.0.2.10:443", "in 0 +0", "Consumed", "sent 0 12 +0", "in 0 +0", "new"];
    assert_eq!(told[..6], begin, "{told:?}");
    assert!(told.iter().any(|word| word == "bound"), "{told:?}");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.finish();
}

#[test]
fn a_datagram_in_fragments_is_told_as_a_whole() {
    let mut world = World::new(&format!("{}{}", two_pools(), plain("udp/53", "a")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.cut = Some(1480);
    let sources = watch(&mut world, |order| order.frames = Some(100));
    world.datagram(client, 4000, "192.0.2.10:53", &[7; 4000]);
    world.settle();
    assert_eq!(world.payloads(server), [[7; 4000]]);
    let events = events(&sources[0]);
    let told = story(&events, 0);
    assert_eq!(
        told,
        [
            "192.0.2.100:4000 > 192.0.2.10:53",
            "in 0 +4000",
            "new",
            "Default 0",
            "to 10.0.0.21:443",
            "bound",
            "sent 1 00 +4000",
            "Consumed"
        ]
    );
    let copied = events.iter().find_map(|event| match &event.what {
        What::Received { frame, .. } => frame.as_ref().map(|frame| frame.len()),
        _ => None,
    });
    assert_eq!(copied, Some(100));
    world.finish();
}

/// Some of everything; returns all that can be seen of weir from outside.
fn scenario(watched: bool) -> (String, usize) {
    let request = "if avi.l4.collect(3) and avi.l4.read(1) == 'b' then avi.pool.select('b') end
        if avi.l4.read(1) == 'c' then avi.vs.close_conn() end avi.vs.table_insert(avi.l4.read(2), 'x')";
    let response = "avi.vs.log(avi.l4.collect(2))";
    let service = with_sets("tcp/443", "a", &["a", "b"], Some(request), Some(response));
    let service = service.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\"");
    let mut scene = Scene::new(&format!("{}{service}", two_pools()));
    let sources = if watched { watch(&mut scene.world, |order| order.flows = 100_000) } else { Vec::new() };
    let silent = scene.world.silent(INSIDE, "10.0.0.23");
    for (n, letter) in b"abcabxcab".iter().enumerate() {
        let server = scene.world.listen(if *letter == b'b' { scene.b } else { scene.a }, 443);
        let client = scene.connect(40_000 + n as u16);
        scene.world.talk(client).say(&[*letter; 3000]);
        scene.world.talk(server).say(&[n as u8; 9000]);
        scene.world.datagram(silent, 7, "10.0.0.2:20001", b"nobody's");
        scene.world.datagram(scene.client, 500 + n as u16, "192.0.2.10:443", &[*letter; 4]);
        scene.world.datagram(scene.client, 500 + n as u16, "192.0.2.10:444", &[*letter; 4]);
        scene.world.settle();
        scene.world.talk(client).finish = true;
        scene.world.talk(server).finish = n % 2 == 0;
        scene.world.seconds(1);
        if n % 2 == 1 {
            scene.world.abort(server);
        }
    }
    scene.world.seconds(700);
    let told: usize = sources.iter().map(|source| events(source).len()).sum();
    let pipeline = scene.world.worker.pipeline();
    assert_eq!(pipeline.is_traced(), watched);
    let seen = format!("{:?}\n{:#?}\n{:#?}", pipeline.counters(), scene.world.records, scene.world.left);
    (seen, told)
}

#[test]
fn watching_changes_nothing() {
    let (alone, _) = scenario(false);
    let (watched, told) = scenario(true);
    assert!(told > 300, "{told}");
    assert!(alone.contains("termination") && alone == watched, "decisions, counters or packets differ");
}

#[test]
fn a_trace_ends_by_itself_and_when_nobody_listens() {
    let mut world = World::new(&format!("{}{}", two_pools(), plain("udp/53", "a")));
    let sources = watch(&mut world, |order| order.time = Duration::from_secs(5));
    world.seconds(4);
    assert!(world.worker.pipeline().is_traced() && !sources[0].is_over());
    world.seconds(2);
    assert!(!world.worker.pipeline().is_traced() && sources[0].is_over());
    let sources = watch(&mut world, |_| {});
    drop(sources);
    world.settle();
    assert!(!world.worker.pipeline().is_traced());
    world.finish();
}

#[test]
fn what_the_device_does_not_take_is_told() {
    let mut world = World::new(&format!("{}{}", two_pools(), plain("udp/53", "a")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"first");
    world.settle();
    world.inbox(server);
    let sources = watch(&mut world, |order| (order.drops, order.flows) = (true, 5));
    world.worker.io_mut().set_tx_room(dataplane::io::PortId(INSIDE), Some(0));
    // One is dropped by the pipeline, so that the flow has a number when the device refuses the other.
    world.datagram(client, 4000, "192.0.2.10:54", b"no such service");
    world.datagram(client, 4000, "192.0.2.10:53", b"lost");
    world.settle();
    assert_eq!(world.dropped(DropReason::TxFull), 1);
    let told: Vec<String> = events(&sources[0]).iter().map(|event| word(&event.what)).collect();
    assert!(told.contains(&"Drop(NoService)".to_owned()), "{told:?}");
}
