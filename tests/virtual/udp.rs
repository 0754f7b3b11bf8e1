//! UDP through scripts.

use dataplane::counters::DropReason;

use crate::inside::*;
use crate::wire;
use crate::world::*;

#[test]
fn a_script_selects_by_port_and_payload_and_answers_find_their_way() {
    let mut world = World::new(&format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:53"]), ("b", &["10.0.0.22:53"])]),
        scripted(
            "udp/53-54",
            "a",
            &["a", "b"],
            r#"
            if avi.vs.port() == "54" then avi.pool.select("b") end
            if avi.l4.read(1) == "B" then avi.pool.select("b") end
            avi.vs.log("seen ", #avi.l4.read())
            "#
        )
    ));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let (a, b) = (world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22"));
    world.datagram(client, 4000, "192.0.2.10:53", b"Alpha");
    world.datagram(client, 4001, "192.0.2.10:53", b"Beta");
    world.datagram(client, 4002, "192.0.2.10:54", b"Alpha");
    world.settle();
    let at_a = world.inbox(a);
    assert_eq!(at_a.len(), 1);
    assert_eq!((at_a[0].payload.as_slice(), at_a[0].source.ip()), (&b"Alpha"[..], address("10.0.0.2")));
    let at_b = world.inbox(b);
    assert_eq!(at_b.iter().map(|p| p.payload.as_slice()).collect::<Vec<_>>(), [&b"Beta"[..], b"Alpha"]);
    world.datagram(a, 53, at_a[0].source.to_string(), b"answer");
    world.settle();
    let answers = world.inbox(client);
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (answers[0].source, answers[0].destination.port(), answers[0].payload.as_slice()),
        (socket("192.0.2.10:53"), 4000, &b"answer"[..])
    );
    world.datagram(client, 4000, "192.0.2.10:53", b"Beta, but the flow stays");
    world.settle();
    assert_eq!(world.payloads(a), [b"Beta, but the flow stays"]);
    world.seconds(40);
    assert_eq!(world.terminations(), ["--", "--", "--"]);
    assert_eq!((world.log(0), world.records[0].handshake), ("seen 5".to_owned(), None));
    world.finish();
}

#[test]
fn ipv6_and_datagrams_without_a_checksum() {
    let toml = format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:53", "[2001:db8:2::21]:53"])]),
        scripted("udp/53", "a", &["a"], r#"avi.vs.log(avi.vs.client_ip(), " ", avi.vs.ip())"#)
    );
    let mut world = World::new(&with_ipv6(&toml));
    let (c6, s6) = (world.silent(OUTSIDE, "2001:db8:1::100"), world.silent(INSIDE, "2001:db8:2::21"));
    let (c4, s4) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(c6, 4000, "[2001:db8:1::10]:53", b"six");
    let mut packet = wire::udp(socket("192.0.2.100:4000"), socket("192.0.2.10:53"), b"four");
    packet[26..28].copy_from_slice(&[0, 0]);
    world.at(c4).outbox.push(packet);
    world.settle();
    let got = world.inbox(s6);
    assert_eq!((got[0].payload.as_slice(), got[0].source.ip()), (&b"six"[..], address("2001:db8:2::2")));
    assert_eq!(world.payloads(s4), [b"four"]);
    world.datagram(s6, 53, got[0].source.to_string(), b"back");
    world.settle();
    assert_eq!(world.payloads(c6), [b"back"]);
    world.seconds(40);
    assert_eq!(world.log(0), "2001:db8:1::100 2001:db8:1::10");
    world.finish();
}

#[test]
fn a_wrong_checksum_reaches_no_script() {
    let mut world = World::new(&format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:53"])]),
        scripted("udp/53", "a", &["a"], "avi.vs.log('x')")
    ));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let mut packet = wire::udp(socket("192.0.2.100:4000"), socket("192.0.2.10:53"), b"four");
    packet[26] ^= 1;
    world.at(client).outbox.push(packet);
    world.settle();
    assert_eq!(world.dropped(DropReason::L4Checksum), 1);
    world.finish();
}

const COLLECT_TEN: &str = r#"
    local n = avi.l4.collect(10)
    avi.vs.log(n, ":", avi.l4.read())
"#;

fn collecting(extra: &str) -> World {
    World::new(&format!(
        "{}{}{extra}",
        pools(&[("a", &["10.0.0.21:53"])]),
        scripted("udp/53", "a", &["a"], COLLECT_TEN)
    ))
}

#[test]
fn collect_holds_datagrams_and_releases_them_in_order() {
    for one_burst in [false, true] {
        let mut world = collecting("");
        let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
        for part in ["1234", "5678", "9abc", "defg", "last"] {
            world.datagram(client, 4000, "192.0.2.10:53", part.as_bytes());
            if !one_burst {
                world.settle();
            }
        }
        world.settle();
        assert_eq!(world.payloads(server), [b"1234", b"5678", b"9abc", b"defg", b"last"]);
        world.seconds(40);
        assert_eq!(world.log(0), "12:123456789abc");
        world.finish();
    }
}

#[test]
fn a_script_that_waits_in_vain_ends_its_flow() {
    let mut world = collecting("");
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"1234");
    world.seconds(4);
    assert!(world.records.is_empty());
    world.seconds(2);
    assert_eq!(world.terminations(), ["cP"]);
    assert!(world.payloads(server).is_empty());
    world.seconds(700);
    world.assert_empty();
    assert_eq!(world.worker.pipeline().counters().originate_failed, 1, "the datagram that was held");
}

#[test]
fn or_goes_to_the_default_pool() {
    let mut world = collecting("[virtual_service.udp]\non_first_payload_timeout = \"default_pool\"\n");
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"1234");
    world.datagram(client, 4000, "192.0.2.10:53", b"56");
    world.seconds(6);
    assert_eq!(world.payloads(server), [&b"1234"[..], b"56"]);
    world.finish();
}

#[test]
fn datagrams_that_exceed_the_buffer_are_dropped_and_the_others_kept() {
    let mut world = World::new(&format!(
        "{}{}[virtual_service.udp]\nbuffer = \"2KiB\"\n",
        pools(&[("a", &["10.0.0.21:53"])]),
        scripted("udp/53", "a", &["a"], "avi.l4.collect(1500)")
    ));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for length in [1200, 1201, 300] {
        world.datagram(client, 4000, "192.0.2.10:53", &vec![7; length]);
    }
    world.settle();
    assert_eq!(world.dropped(DropReason::HeldLimit), 1);
    assert_eq!(world.payloads(server).iter().map(Vec::len).collect::<Vec<_>>(), [1200, 300]);
    world.finish();
}

#[test]
fn every_datagram_by_itself() {
    let mut world = World::new(&format!(
        "{}{}[virtual_service.udp]\nper_packet = true\n",
        pools(&[("a", &["10.0.0.21:53", "10.0.0.22:53"])]),
        plain("udp/53", "a"),
    ));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    for n in 0..6u8 {
        world.datagram(client, 4000, "192.0.2.10:53", &[n]);
    }
    world.settle();
    for server in servers {
        let got = world.inbox(server);
        assert_eq!(got.len(), 3);
        for packet in got {
            world.datagram(server, 53, packet.source.to_string(), &packet.payload);
        }
    }
    world.settle();
    let mut answers: Vec<u8> = world.payloads(client).concat();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2, 3, 4, 5]);
    assert_eq!(world.worker.pipeline().flows().len(), 2);
    world.finish();
}

#[test]
fn a_script_that_sees_every_datagram_by_itself_logs_them_all() {
    let mut world = World::new(&format!(
        "{}{}[virtual_service.udp]\nper_packet = true\n",
        pools(&[("a", &["10.0.0.21:53"])]),
        scripted("udp/53", "a", &["a"], "avi.vs.log(avi.l4.read(), ';')"),
    ));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for part in ["one", "two", "three"] {
        world.datagram(client, 4000, "192.0.2.10:53", part.as_bytes());
    }
    world.seconds(100);
    assert_eq!(world.payloads(server), [&b"one"[..], b"two", b"three"]);
    assert_eq!(world.log(0), "one;two;three;");
    world.finish();
}

fn answering(response: &str, extra: &str) -> World {
    World::new(&format!(
        "{}{}{extra}",
        pools(&[("a", &["10.0.0.21:53"])]),
        with_sets("udp/53", "a", &["a"], None, Some(response)),
    ))
}

/// A flow on which the server has answered with these.
fn answers(world: &mut World, parts: &[&str]) -> Vec<Vec<u8>> {
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"question");
    world.settle();
    let question = world.inbox(server).remove(0);
    for part in parts {
        world.datagram(server, 53, question.source.to_string(), part.as_bytes());
    }
    world.settle();
    world.payloads(client)
}

#[test]
fn a_response_script_alone_sees_the_first_answer() {
    let script = r#"avi.vs.log(avi.l4.read(), " from ", avi.pool.server_ip())"#;
    let mut world = answering(script, "");
    assert_eq!(answers(&mut world, &["one", "two"]), [b"one", b"two"]);
    world.seconds(40);
    assert_eq!(world.log(0), "one from 10.0.0.21");
    world.finish();
}

#[test]
fn a_response_script_closes_the_flow() {
    let mut world = answering("avi.vs.close_conn()", "");
    assert!(answers(&mut world, &["one"]).is_empty());
    assert_eq!(world.terminations(), ["WD"]);
    assert_eq!(world.dropped(DropReason::ScriptClosed), 1);
    world.finish();
}

#[test]
fn a_response_script_collects_answers_and_they_leave_in_order() {
    let mut world = answering("avi.vs.log(avi.l4.collect(8), avi.l4.read())", "");
    let parts = ["one,", "two,", "three", "four"];
    assert_eq!(answers(&mut world, &parts), parts.map(|part| part.as_bytes().to_vec()));
    world.seconds(40);
    assert_eq!(world.log(0), "8one,two,");
    world.finish();
}

#[test]
fn a_script_sees_every_payload_until_it_is_done() {
    let mut world = World::new(&format!(
        "{}{}[virtual_service.datascript]\nrun = \"every_payload\"\n",
        pools(&[("a", &["10.0.0.21:53"])]),
        scripted(
            "udp/53",
            "a",
            &["a"],
            "avi.vs.log(avi.l4.read(), ';') if avi.l4.read() == 'three' then avi.l4.ds_done() end"
        )
    ));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for part in ["one", "two", "three", "four"] {
        world.datagram(client, 4000, "192.0.2.10:53", part.as_bytes());
    }
    world.settle();
    assert_eq!(world.payloads(server).len(), 4);
    world.seconds(40);
    assert_eq!(world.log(0), "one;two;three;");
    world.finish();
}

#[test]
fn both_scripts_of_a_flow_collect_their_own_side() {
    let request = "avi.vs.log('<', avi.l4.collect(6), avi.l4.read(), '>')";
    let response = "avi.vs.log('<', avi.l4.collect(6), avi.l4.read(), '>')";
    let set = with_sets("udp/53", "a", &["a"], Some(request), Some(response));
    let mut world = World::new(&format!("{}{set}", pools(&[("a", &["10.0.0.21:53"])])));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for part in [b"abc", b"def", b"ghi"] {
        world.datagram(client, 4000, "192.0.2.10:53", part);
    }
    world.settle();
    let questions = world.inbox(server);
    assert_eq!(questions.iter().map(|p| p.payload.as_slice()).collect::<Vec<_>>(), [b"abc", b"def", b"ghi"]);
    for part in [b"123", b"456", b"789"] {
        world.datagram(server, 53, questions[0].source.to_string(), part);
        if part == b"123" {
            world.settle();
            assert!(world.payloads(client).is_empty());
        }
    }
    world.settle();
    assert_eq!(world.payloads(client), [b"123", b"456", b"789"]);
    world.seconds(40);
    assert_eq!(world.log(0), "<6abcdef><6123456>");
    world.finish();
}
