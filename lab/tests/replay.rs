//! Captures of all kinds, written here by hand, come to the same decisions.
#![cfg(test)]

mod written;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dataplane::snapshot::Snapshot;
use lab::replay::{Report, Settings, compare, explain, pcapng, replay};
use written::{CLIENT, Kind, Link, SERVER, Talk, VIP, file};

const CONFIG: &str = r#"
[[interface]]
name = "outside"
device = "net_null0"
addresses = ["192.0.2.1/24"]
[[interface]]
name = "inside"
device = "net_null1"
addresses = ["10.0.0.1/24"]
[snat]
addresses = ["10.0.0.2"]
ports = "20000-29999"
[[pool]]
name = "a"
servers = [{ address = "10.0.0.20", port = 80 }, { address = "10.0.0.21", port = 80 }]
[[pool]]
name = "b"
servers = [{ address = "10.0.0.30", port = 80 }]
[[datascript_set]]
name = "by-word"
pools = ["a", "b"]
request_inline = '''
avi.l4.collect(5)
local word = avi.l4.read(5)
avi.vs.log(word)
if word == "bread" then
  avi.pool.select("b")
end
'''
response_inline = '''
avi.vs.log("; ", avi.l4.read())
'''
[[virtual_service]]
name = "vs"
addresses = ["192.0.2.10"]
ports = ["tcp/80", "udp/80"]
pool = "a"
datascript_sets = ["by-word"]
"#;

fn snapshot() -> Arc<Snapshot> {
    match config::parse(CONFIG, "replay.toml", Path::new(".")) {
        Ok(config) => config.snapshot,
        Err(errors) => panic!("{}", errors.render(false)),
    }
}

fn played(bytes: &[u8]) -> Report {
    replay(&snapshot(), bytes, &Settings::default()).unwrap_or_else(|error| panic!("{error}")).report
}

fn play(talk: &Talk) -> Report {
    played(&file(&talk.packets, Kind::Pcap { big: false, nano: false }, Link::Ethernet))
}

/// Servers, end, log, and bytes both ways.
type Decided = (Vec<String>, String, Option<String>, u64, u64);

fn decided(report: &Report) -> Vec<Decided> {
    let flow = |flow: &lab::replay::FlowReport| {
        (flow.servers.clone(), flow.end.clone(), flow.log.clone(), flow.to_server, flow.to_client)
    };
    report.flows.iter().map(flow).collect()
}

fn usual() -> Vec<Decided> {
    let log = Some("bread; butter".to_owned());
    vec![(vec!["10.0.0.30:80 of 'b'".to_owned()], "--".to_owned(), log, 13, 6)]
}

fn usual_talk() -> Talk {
    let mut talk = Talk::new(CLIENT, VIP);
    talk.handshake();
    talk.say(b"bre");
    talk.say(b"ad, please");
    talk.answer(b"butter");
    talk.end();
    talk
}

#[test]
fn every_format_and_link_type_comes_to_the_same() {
    let talk = usual_talk();
    let kinds = [
        Kind::Pcap { big: false, nano: false },
        Kind::Pcap { big: true, nano: false },
        Kind::Pcap { big: false, nano: true },
        Kind::Pcap { big: true, nano: true },
        Kind::Ng { big: false, nano: false },
        Kind::Ng { big: true, nano: true },
    ];
    for kind in kinds {
        for link in [Link::Ethernet, Link::Vlan, Link::Sll, Link::Sll2, Link::Raw, Link::Null] {
            let report = played(&file(&talk.packets, kind, link));
            assert_eq!(decided(&report), usual(), "{kind:?}, {link:?}");
            let flow = &report.flows[0];
            assert!(!flow.incomplete && flow.notes.is_empty(), "{:?}", flow.notes);
            let seconds = flow.seconds.unwrap();
            assert!((0.05..0.1).contains(&seconds), "{kind:?}: the times of the capture, not {seconds}");
        }
    }
}

#[test]
fn a_link_type_that_is_not_understood_is_named() {
    let bytes = file(&usual_talk().packets, Kind::Pcap { big: false, nano: false }, Link::Other(127));
    let error = replay(&snapshot(), &bytes, &Settings::default()).err().unwrap().to_string();
    assert!(error.starts_with("the capture's link type 127 is not understood"), "{error}");
}

#[test]
fn what_is_no_capture_is_refused() {
    let error = |bytes: &[u8]| replay(&snapshot(), bytes, &Settings::default()).err().unwrap().to_string();
    assert_eq!(error(b""), "the file is empty");
    assert_eq!(
        error(b"\x1f\x8b\x08 gzip and so on"),
        "this is neither a pcap nor a pcapng file; a packed one must be unpacked first"
    );
}

#[test]
fn scripts_are_traced_line_by_line_and_the_choice_is_explained() {
    let report = play(&usual_talk());
    let [request, response] = &report.flows[0].scripts[..] else { panic!("{:?}", report.flows[0].scripts) };
    assert_eq!((request.event, request.result, &request.waits[..]), ("request", "done", &[5][..]));
    assert_eq!((response.event, response.result), ("response", "done"));
    assert!(request.instructions > 10);
    let texts: Vec<&str> = request.steps.iter().map(|step| step.text.as_str()).collect();
    for text in [
        "waits for 5 bytes",
        "goes on with 13 bytes",
        "avi.l4.read(5) -> \"bread\"",
        "avi.pool.select(\"b\")",
    ] {
        assert!(texts.iter().any(|other| other.contains(text)), "{text} in {texts:?}");
    }
    assert!(
        request
            .steps
            .iter()
            .any(|step| step.kind == "line" && step.place.as_deref().unwrap().ends_with(":3"))
    );
    assert!(texts.contains(&"local word = avi.l4.read(5)"), "the line itself");
    let choice = report.flows[0].choice.as_ref().unwrap();
    assert_eq!((choice.target.as_str(), choice.servers.len()), ("pool 'b'", 1));
    assert!(report.text(true).contains("choice: pool 'b' (by the script): round robin by weight"));
}

#[test]
fn one_direction_is_enough() {
    let mut talk = usual_talk();
    talk.packets.retain(|packet| !packet.from_server);
    let report = play(&talk);
    let log = Some("bread".to_owned());
    assert_eq!(decided(&report), [(usual()[0].0.clone(), "--".to_owned(), log, 13, 0)]);
    assert!(report.notes.iter().any(|note| note.contains("clients' packets only")), "{:?}", report.notes);
}

#[test]
fn repetition_and_disorder_change_nothing() {
    let talk = usual_talk();
    let mut twice = usual_talk();
    twice.packets = talk.packets.iter().flat_map(|packet| [packet.clone(), packet.clone()]).collect();
    assert_eq!(decided(&play(&twice))[0].2, usual()[0].2);
    assert_eq!(decided(&play(&twice))[0].0, usual()[0].0);
    let mut swapped = usual_talk();
    let data: Vec<usize> = (0..talk.packets.len()).filter(|i| talk.packets[*i].payload > 0).collect();
    swapped.packets.swap(data[0], data[1]);
    let (early, late) = (talk.packets[data[0]].nanoseconds, talk.packets[data[1]].nanoseconds);
    (swapped.packets[data[0]].nanoseconds, swapped.packets[data[1]].nanoseconds) = (early, late);
    let report = play(&swapped);
    assert_eq!(decided(&report), usual());
    assert_eq!(report.flows[0].scripts[0].waits, [0usize; 0], "all five bytes came at once");
}

#[test]
fn a_lost_packet_is_named_by_its_bytes() {
    let mut talk = usual_talk();
    let data = talk.packets.iter().position(|packet| packet.payload > 0).unwrap();
    talk.packets.remove(data);
    let report = play(&talk);
    let flow = &report.flows[0];
    assert!(flow.incomplete);
    assert!(
        flow.notes.contains(&"bytes 0 to 3 of what the client said are not in the capture".to_owned()),
        "{:?}",
        flow.notes
    );
    assert!(flow.servers.is_empty() && flow.scripts.is_empty());
}

#[test]
fn the_snap_length_is_named_where_it_cuts() {
    let mut talk = Talk::new(CLIENT, VIP);
    talk.handshake();
    talk.say(b"bread");
    talk.say(&[b'x'; 900]);
    talk.say(b"more");
    talk.end();
    let cut = |snap: usize| {
        let mut talk = talk.clone();
        talk.packets.iter_mut().for_each(|packet| packet.snap = Some(snap));
        play(&talk)
    };
    let flow = &cut(96).flows[0];
    assert!(flow.incomplete);
    let note = "packet 5 has 42 of 900 bytes (snap length): payload unknown from here";
    assert_eq!(flow.notes, [note]);
    assert_eq!((flow.servers.len(), flow.to_server, flow.end.as_str()), (1, 5 + 42, "--"));
    let error = {
        let mut talk = talk.clone();
        talk.packets.iter_mut().for_each(|packet| packet.snap = Some(40));
        let bytes = file(&talk.packets, Kind::Ng { big: false, nano: false }, Link::Ethernet);
        replay(&snapshot(), &bytes, &Settings::default()).err().unwrap().to_string()
    };
    assert!(error.starts_with("no packet of the capture goes to a VIP"), "{error}");
}

#[test]
fn a_capture_that_begins_in_the_middle_gets_a_handshake() {
    let mut talk = usual_talk();
    talk.packets.drain(..3);
    let report = play(&talk);
    assert_eq!(decided(&report), usual());
    assert!(report.flows[0].incomplete);
    assert!(
        report.flows[0].notes[0].contains("packet 1 is the first of the connection"),
        "{:?}",
        report.flows[0].notes
    );
    let mut end = usual_talk();
    end.packets.drain(..end.packets.len() - 1);
    let report = played(&file(&end.packets, Kind::Pcap { big: false, nano: false }, Link::Raw));
    assert!(report.flows.len() == 1 && report.flows[0].servers.is_empty());
}

#[test]
fn addresses_of_elsewhere_stand_for_vips() {
    let elsewhere: SocketAddr = "203.0.113.80:8080".parse().unwrap();
    let mut talk = Talk::new(CLIENT, elsewhere);
    talk.handshake();
    talk.say(b"bread, please");
    talk.answer(b"butter");
    talk.end();
    let bytes = file(&talk.packets, Kind::Ng { big: false, nano: true }, Link::Ethernet);
    let error = replay(&snapshot(), &bytes, &Settings::default()).err().unwrap().to_string();
    assert!(
        error.contains("tcp 203.0.113.80:8080") && error.ends_with("--vip 203.0.113.80=192.0.2.10"),
        "{error}"
    );
    for text in ["203.0.113.80=192.0.2.10:80", "203.0.113.80:8080=192.0.2.10:80"] {
        let settings = Settings { vips: vec![text.parse().unwrap()], ..Settings::default() };
        let report = replay(&snapshot(), &bytes, &settings).unwrap().report;
        assert_eq!(decided(&report), usual());
    }
    assert!("203.0.113.80=2001:db8::1".parse::<lab::replay::Mapping>().is_err());
    assert!("here=there".parse::<lab::replay::Mapping>().is_err());
}

#[test]
fn datagrams_are_played_whole_and_in_fragments() {
    let mut talk = Talk::new(CLIENT, VIP);
    talk.datagram(b"bread", false);
    talk.datagram(b"butter", true);
    let long: Vec<u8> = b"bread".iter().copied().cycle().take(3000).collect();
    talk.fragments(&long);
    let report = play(&talk);
    let flow = &report.flows[0];
    assert_eq!((flow.protocol, flow.servers[0].as_str()), ("udp", "10.0.0.30:80 of 'b'"));
    assert_eq!((flow.to_server, flow.to_client), (3005, 6));
    assert_eq!(flow.log.as_deref(), Some("bread; butter"));
}

#[test]
fn the_packets_that_come_out_can_be_played_again() {
    let bytes = file(&usual_talk().packets, Kind::Ng { big: false, nano: true }, Link::Ethernet);
    let first = replay(&snapshot(), &bytes, &Settings::default()).unwrap();
    let out = pcapng(&first, Vec::new()).unwrap();
    let second = replay(&snapshot(), &out, &Settings::default()).unwrap();
    let json = |report: &Report| serde_json::to_value(report).unwrap();
    assert_eq!(compare(&json(&first.report), &json(&second.report)).unwrap(), []);
    assert_eq!(decided(&second.report), usual());
    assert!(second.report.ignored.contains_key("neither to nor from a VIP"), "the packets of the other side");
    assert!(first.frames.iter().filter(|frame| frame.port == 1 && !frame.inbound).count() > 3);
}

#[test]
fn other_decisions_are_found() {
    let json = |report: &Report| serde_json::to_value(report).unwrap();
    let usual = play(&usual_talk());
    let mut talk = Talk::new(CLIENT, VIP);
    talk.handshake();
    talk.say(b"water");
    talk.end();
    let differences = compare(&json(&usual), &json(&play(&talk))).unwrap();
    let what: Vec<&str> = differences.iter().map(|difference| difference.what.as_str()).collect();
    for expected in ["servers", "log", "choice, target", "choice, by"] {
        assert!(what.contains(&expected), "{expected} in {what:?}");
    }
    let mut none = json(&usual);
    none["flows"] = serde_json::json!([]);
    assert_eq!(compare(&none, &json(&usual)).unwrap()[0].expected, "missing");
    assert_eq!(compare(&json(&usual), &none).unwrap()[0].found, "missing");
    assert!(compare(&serde_json::json!({}), &none).is_err());
}

#[test]
fn a_question_is_answered_without_a_capture() {
    let ask = |payload: Option<&[u8]>, vip: &str| {
        explain(
            &snapshot(),
            &lab::replay::Question {
                protocol: dataplane::snapshot::Protocol::Tcp,
                client: CLIENT.parse().unwrap(),
                vip: vip.parse().unwrap(),
                payload: payload.map(<[u8]>::to_vec),
            },
        )
        .map(|mut replayed| replayed.report.flows.remove(0))
    };
    let answer = ask(Some(b"bread"), VIP).unwrap();
    assert_eq!((answer.servers[0].as_str(), answer.end.as_str()), ("10.0.0.30:80 of 'b'", "open"));
    assert!(answer.snat[0].starts_with("10.0.0.2:"));
    let answer = ask(Some(b"water"), VIP).unwrap();
    let order: Vec<_> = answer.choice.unwrap().servers.iter().map(|s| (s.place, s.server.clone())).collect();
    assert_eq!(order, [(Some(1), "10.0.0.20:80".to_owned()), (Some(2), "10.0.0.21:80".to_owned())]);
    let answer = ask(Some(b"wat"), VIP).unwrap();
    assert_eq!((answer.scripts[0].result, answer.servers.len()), ("waiting", 0));
    let answer = ask(None, VIP).unwrap();
    assert!(answer.notes.iter().any(|note| note.contains("first payload")), "{:?}", answer.notes);
    let error = ask(None, "192.0.2.10:81").err().unwrap().to_string();
    assert_eq!(error, "no virtual service has tcp/81 at 192.0.2.10: 'vs' has 192.0.2.10 tcp/80 udp/80");
}

/// Whatever is in a file: an answer or an error, and never anything else.
#[test]
fn files_that_are_damaged_anywhere_do_no_harm() {
    let snapshot = snapshot();
    let mut talk = usual_talk();
    talk.datagram(b"bread", false);
    for kind in [Kind::Pcap { big: false, nano: false }, Kind::Ng { big: false, nano: true }] {
        let whole = file(&talk.packets, kind, Link::Ethernet);
        for length in (0..whole.len()).step_by(7) {
            let _ = replay(&snapshot, &whole[..length], &Settings::default());
        }
        let mut lottery = 0x5eedu64;
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..4 {
                lottery = lottery.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let place = (lottery >> 33) as usize % bytes.len();
                bytes[place] ^= 1 << (lottery >> 13 & 7);
            }
            let _ = replay(&snapshot, &bytes, &Settings::default());
        }
    }
}

#[test]
fn a_file_that_ends_early_is_played_as_far_as_it_goes() {
    let bytes = file(&usual_talk().packets, Kind::Pcap { big: false, nano: false }, Link::Ethernet);
    let report = played(&bytes[..bytes.len() - 20]);
    assert_eq!(report.flows[0].servers, usual()[0].0);
    let all = usual_talk().packets.len();
    let note = format!("the file ends in the middle of what comes behind packet {}", all - 1);
    assert!(report.notes.contains(&note), "{:?}", report.notes);
    assert_ne!(SERVER, CLIENT);
}

/// Two kernels' sockets on Linux 6.18, taken from a loopback device: options as kernels write them, and a segment that is longer
/// than any MTU of weir's.
#[test]
fn a_capture_of_kernels_is_played() {
    kernels_come_to(&snapshot(), ("10.0.0.30:80 of 'b'", &[5]));
    // Without scripts on what follows, packets take the fast path.
    let short = CONFIG.replace("avi.vs.log(\"; \", avi.l4.read())", "avi.l4.ds_done()");
    let config = config::parse(&short, "replay.toml", Path::new("."));
    kernels_come_to(
        &config.unwrap_or_else(|errors| panic!("{}", errors.render(false))).snapshot,
        ("10.0.0.30:80 of 'b'", &[5]),
    );
}

fn kernels_come_to(snapshot: &Snapshot, (server, waits): (&str, &[usize])) {
    let bytes = include_bytes!("captures/kernel.pcap");
    let settings =
        Settings { vips: vec!["203.0.113.80:8080=192.0.2.10:80".parse().unwrap()], ..Settings::default() };
    let report = replay(snapshot, bytes, &settings).unwrap().report;
    let [flow] = &report.flows[..] else { panic!("{:?}", report.flows) };
    assert_eq!((flow.servers[0].as_str(), flow.end.as_str()), (server, "--"));
    assert_eq!((flow.to_server, flow.to_client, flow.incomplete), (4007, 1200, false));
    assert_eq!(flow.scripts[0].waits, waits);
    assert!(flow.log.as_ref().unwrap().starts_with("bread"));
    assert!(flow.notes.is_empty(), "{:?}", flow.notes);
}
