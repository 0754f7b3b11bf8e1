//! PROXY headers: accepted from proxies in front of weir, and sent to servers. The headers of these tests are written by
//! hand after haproxy's `proxy-protocol.txt`.

use std::net::{IpAddr, SocketAddr};

use dataplane::counters::DropReason;
use dataplane::report;
use smoltcp::socket::tcp::State;

use crate::inside::*;
use crate::tcp_binding::{Scene, bytes};
use crate::wire;
use crate::world::*;

/// Pool "a" with these servers, which expect a header.
fn sending(version: &str, servers: &[&str]) -> String {
    format!("{}[pool.tcp]\nproxy_protocol = \"{version}\"\n", pools(&[("a", servers)]))
}

/// As [`sending`], without a header.
fn quiet() -> String {
    pools(&[("a", &["10.0.0.21:443"])])
}

/// Settings of a service behind the proxy 192.0.2.100.
const ACCEPTING: &str = "[virtual_service.tcp]\naccept_proxy_from = [\"192.0.2.96/29\"]\n";

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 1234 443\r\n";

/// A header of version 2 with this command, family and block.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[command, family][..], &(block.len() as u16).to_be_bytes(), block].concat()
}

/// The block of TCP over IPv4.
fn block(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    [&source[..], &destination, &ports.0.to_be_bytes(), &ports.1.to_be_bytes()].concat()
}

/// Client and server say these, and close; what the server has heard.
fn exchange(scene: &mut Scene, port: u16, up: &[u8], down: &[u8]) -> Vec<u8> {
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(port));
    scene.world.talk(client).say(up);
    scene.world.talk(server).say(down);
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(20);
    assert!(scene.world.talk(client).received == down);
    scene.world.talk(server).received.clone()
}

#[test]
fn servers_read_who_the_client_is_ahead_of_its_bytes() {
    let line = b"PROXY TCP4 192.0.2.100 192.0.2.10 40000 443\r\n".to_vec();
    let v2 = binary(0x21, 0x11, &block([192, 0, 2, 100], [192, 0, 2, 10], (40_000, 443)));
    for (version, header) in [("v1", line), ("v2", v2), ("off", Vec::new())] {
        let pool = sending(version, &["10.0.0.21:443"]);
        let script = "avi.vs.log(avi.l4.collect(20), avi.l4.read(7))";
        let services = [plain("tcp/443", "a"), scripted("tcp/443", "a", &["a"], script)];
        for service in services {
            for (up, down) in [(20, 1), (1460, 300_000), (100_000, 3000)] {
                let mut scene = Scene::new(&format!("{pool}{service}"));
                let heard = exchange(&mut scene, 40_000, &bytes(up, 1), &bytes(down, 2));
                assert!(heard == [header.clone(), bytes(up, 1)].concat(), "{version} {up}");
                let record = &scene.world.records[0];
                assert_eq!((record.termination.to_string().as_str(), record.peer), ("--", None));
                scene.world.finish();
            }
        }
    }
}

#[test]
fn a_server_that_speaks_first_reads_the_header_first() {
    let mut scene = Scene::new(&format!("{}{}", sending("v1", &["10.0.0.21:443"]), plain("tcp/443", "a")));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(server).say(b"220 ready");
    scene.world.settle();
    assert_eq!(scene.world.talk(server).received, b"PROXY TCP4 192.0.2.100 192.0.2.10 40000 443\r\n");
    assert_eq!(scene.world.talk(client).received, b"220 ready");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.finish();
}

/// A connection whose segments are cut at each byte of its header in turn.
#[test]
fn a_header_is_taken_wherever_it_is_cut() {
    let with_tlvs =
        [block([203, 0, 113, 7], [198, 51, 100, 1], (1234, 443)), vec![4, 0, 1, 0, 3, 0, 2, 9, 9]];
    for header in [LINE.to_vec(), binary(0x21, 0x11, &with_tlvs.concat())] {
        let script = "avi.vs.log(avi.vs.client_ip(), ' ', avi.vs.client_port(), ' ', avi.l4.read(), ' ', avi.l4.collect(9), ' ', avi.l4.read())";
        let service = scripted("tcp/443", "a", &["a"], script) + ACCEPTING;
        let mut scene = Scene::new(&format!("{}{service}", quiet()));
        let whole = [&header[..], b"the bytes"].concat();
        for cut in 1..whole.len() {
            let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(30_000 + cut as u16));
            for part in [&whole[..cut], &whole[cut..]] {
                assert!(scene.world.talk(server).received.is_empty());
                scene.world.talk(client).say(part);
                scene.world.settle();
            }
            assert_eq!(scene.world.talk(server).received, b"the bytes", "{cut}");
            scene.world.talk(client).finish = true;
            scene.world.talk(server).finish = true;
            scene.world.seconds(1);
            let (log, first) = (scene.world.log(cut - 1), whole.len() - cut);
            let seen = if first < 9 { &b"the bytes"[..9 - first] } else { b"the bytes" };
            let seen = String::from_utf8_lossy(seen).into_owned();
            assert_eq!(log, format!("203.0.113.7 1234 {seen} 9 the bytes"), "{cut}");
            let record = &scene.world.records[cut - 1];
            assert_eq!(record.client, socket("203.0.113.7:1234"));
            assert_eq!(record.peer, Some(SocketAddr::new(address("192.0.2.100"), 30_000 + cut as u16)));
            assert_eq!(record.vip, socket("192.0.2.10:443"));
        }
        scene.world.finish();
    }
}

#[test]
fn a_header_without_a_client_leaves_the_connections_own_addresses() {
    let local = binary(0x20, 0x11, &block([203, 0, 113, 7], [198, 51, 100, 1], (1234, 443)));
    let unspecified = binary(0x21, 0, b"");
    for header in
        [b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN ::1 ::2 3 4\r\n".to_vec(), local, unspecified]
    {
        let service = scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.vs.client_ip())") + ACCEPTING;
        let mut scene = Scene::new(&format!("{}{service}", sending("v1", &["10.0.0.21:443"])));
        let heard = exchange(&mut scene, 40_000, &[&header[..], b"hello"].concat(), b"answer");
        assert_eq!(heard, b"PROXY TCP4 192.0.2.100 192.0.2.10 40000 443\r\nhello");
        let record = &scene.world.records[0];
        assert_eq!((record.client, record.peer), (socket("192.0.2.100:40000"), None));
        assert_eq!(scene.world.log(0), "192.0.2.100");
        scene.world.finish();
    }
}

/// Of whatever version; addresses of the other family than the VIP's included.
#[test]
fn a_header_that_came_in_goes_out_again() {
    let six = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let six =
        binary(0x21, 0x21, &[six, six].concat().into_iter().chain([4, 210, 1, 187]).collect::<Vec<u8>>());
    let v2 = binary(0x21, 0x11, &block([203, 0, 113, 7], [198, 51, 100, 1], (1234, 443)));
    let line6 = b"PROXY TCP6 2001:db8::7 2001:db8::7 1234 443\r\n";
    for (version, header, expected) in [
        ("v1", LINE, LINE),
        ("v1", &v2, LINE),
        ("v2", LINE, &v2),
        ("v1", &six, &line6[..]),
        ("v2", line6, &six),
        ("off", &six, b""),
    ] {
        for service in [plain("tcp/443", "a"), scripted("tcp/443", "a", &["a"], "avi.l4.collect(5)")] {
            let toml = format!("{}{service}{ACCEPTING}", sending(version, &["10.0.0.21:443"]));
            let mut scene = Scene::new(&toml);
            let heard = exchange(&mut scene, 40_000, &[header, b"hello"].concat(), b"answer");
            assert_eq!(heard, [expected, b"hello"].concat());
            assert_eq!(scene.world.terminations(), ["--"]);
            scene.world.finish();
        }
    }
}

#[test]
fn proxies_that_are_not_named_are_clients_like_any_other() {
    let networks = "[virtual_service.tcp]\nprofile = \"proxy\"\naccept_proxy_from = [\"192.0.2.101/32\", \"2001:db8::/32\"]\n";
    let service =
        scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.vs.client_ip(), avi.l4.read(6))") + networks;
    let mut scene = Scene::new(&format!("{}{service}", quiet()));
    assert_eq!(exchange(&mut scene, 40_000, LINE, b"answer"), LINE);
    assert_eq!(exchange(&mut scene, 40_001, b"hello!", b"answer"), b"hello!");
    assert_eq!(
        (scene.world.log(0).as_str(), scene.world.log(1).as_str()),
        ("192.0.2.100PROXY ", "192.0.2.100hello!")
    );
    assert_eq!(scene.world.records[0].peer, None);
    scene.world.finish();
}

#[test]
fn what_does_not_begin_with_a_header_is_reset_and_counted() {
    let long = binary(0x21, 0x11, &[7; 2033]);
    for service in [plain("tcp/443", "a"), scripted("tcp/443", "a", &["a"], "avi.vs.log('ran')")] {
        let mut scene = Scene::new(&format!("{}{service}{ACCEPTING}", quiet()));
        let wrong: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 203.0.113.7 nonsense 1 2\r\nhello",
            b"\0",
            &LINE[1..],
            &long,
        ];
        for (number, wrong) in wrong.iter().enumerate() {
            let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000 + number as u16));
            scene.world.talk(client).say(wrong);
            scene.world.seconds(1);
            assert_eq!(
                (scene.world.state(client), scene.world.state(server)),
                (State::Closed, State::Listen)
            );
            assert_eq!(scene.world.records[number].termination.to_string(), "RP");
            assert_eq!(scene.world.records[number].reason, Some(DropReason::ProxyHeader));
            assert_eq!(scene.world.dropped(DropReason::ProxyHeader), number as u64 + 1);
            assert_eq!(scene.world.log(number), "");
        }
        scene.world.finish();
    }
}

#[test]
fn a_header_that_is_not_completed_costs_no_server() {
    let fallback = "first_payload_timeout = \"2s\"\non_first_payload_timeout = \"default_pool\"\n";
    for (say, finish) in [(&b""[..], false), (b"PROXY TCP4 203", false), (b"PROXY TCP4 203", true)] {
        let service = scripted("tcp/443", "a", &["a"], "avi.vs.log('ran')");
        let mut scene = Scene::new(&format!("{}{service}{ACCEPTING}{fallback}", quiet()));
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(say);
        scene.world.talk(client).finish = finish;
        scene.world.seconds(1);
        assert_eq!(scene.world.records.len(), usize::from(finish));
        scene.world.seconds(2);
        assert_eq!((scene.world.state(client), scene.world.state(server)), (State::Closed, State::Listen));
        let record = &scene.world.records[0];
        let letters = if finish { "RP" } else { "cP" };
        assert_eq!(
            (record.termination.to_string().as_str(), record.reason),
            (letters, Some(DropReason::ProxyHeader))
        );
        scene.world.finish();
    }
}

/// The header has come, but nothing for the script: the timeout is that for the first payload, with its fallback.
#[test]
fn after_its_header_a_silent_client_is_like_any_other() {
    let fallback = "first_payload_timeout = \"2s\"\non_first_payload_timeout = \"default_pool\"\n";
    let service = scripted("tcp/443", "a", &["a"], "avi.vs.log('ran')");
    let mut scene =
        Scene::new(&format!("{}{service}{ACCEPTING}{fallback}", sending("v1", &["10.0.0.21:443"])));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(LINE);
    scene.world.talk(server).say(b"220 hello");
    scene.world.seconds(1);
    assert!(scene.world.talk(server).received.is_empty());
    scene.world.seconds(2);
    assert_eq!(scene.world.talk(server).received, LINE);
    assert_eq!(scene.world.talk(client).received, b"220 hello");
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.seconds(2);
    assert_eq!((scene.world.terminations(), scene.world.log(0)), (vec!["--".to_owned()], String::new()));
    scene.world.finish();
}

/// By the end of the header, and the end of the client's stream.
#[test]
fn a_client_that_closes_right_behind_its_header_has_said_nothing() {
    let service = scripted("tcp/443", "a", &["a"], "avi.vs.log('ran')");
    let mut scene = Scene::new(&format!("{}{service}{ACCEPTING}", quiet()));
    let client = scene.connect(40_000);
    scene.world.talk(client).say(LINE);
    scene.world.talk(client).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.terminations(), ["CP"]);
    assert_eq!((scene.world.log(0), scene.world.dropped(DropReason::ProxyHeader)), (String::new(), 0));
    scene.world.finish();
}

#[test]
fn the_client_that_is_named_decides_the_hash() {
    let pool = sending("v1", &["10.0.0.21:443", "10.0.0.22:443"]);
    let pool = pool.replace("name = \"a\"", "name = \"a\"\nalgorithm = \"source_ip_hash\"");
    let mut scene = Scene::new(&format!("{pool}{}{ACCEPTING}", plain("tcp/443", "a")));
    let mut rounds = [Vec::new(), Vec::new()];
    for (round, of_round) in rounds.iter_mut().enumerate() {
        for n in 0..24u16 {
            let client = scene.connect(40_000 + 100 * round as u16 + n);
            let (a, b) = (scene.world.listen(scene.a, 443), scene.world.listen(scene.b, 443));
            let header = format!("PROXY TCP4 203.0.113.{n} 198.51.100.1 {round} 443\r\n");
            scene.world.talk(client).say(header.as_bytes());
            scene.world.settle();
            let heard = [a, b].map(|talk| scene.world.talk(talk).received.clone());
            assert_eq!(heard.concat(), header.as_bytes());
            of_round.push(heard[0].is_empty());
            scene.world.talk(client).finish = true;
            for talk in [a, b] {
                scene.world.talk(talk).finish = true;
                scene.world.abort(talk);
            }
        }
    }
    let [first, second] = rounds;
    assert_eq!(first, second, "the same client, the same server");
    let spread = first.iter().filter(|other| **other).count();
    assert!((6..=18).contains(&spread), "{spread} of 24");
}

#[test]
fn open_flows_are_found_by_both_addresses() {
    for log in ["log_connections = true\n", "log_connections = false\n"] {
        let service = plain("tcp/443", "a") + log + ACCEPTING;
        let mut scene = Scene::new(&format!("{}{service}", quiet()));
        let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
        scene.world.talk(client).say(&[LINE, b"hello"].concat());
        scene.world.seconds(1);
        assert_eq!(scene.world.talk(server).received, b"hello");
        let now = scene.world.now;
        let find =
            |client: Option<IpAddr>| report::flows(scene.world.worker.pipeline(), now, 9, None, client);
        for wanted in [None, Some("203.0.113.7"), Some("192.0.2.100")] {
            let found = find(wanted.map(address));
            assert_eq!(found.len(), 1, "{wanted:?}");
            assert_eq!(
                (found[0].client, found[0].peer),
                (socket("203.0.113.7:1234"), Some(socket("192.0.2.100:40000")))
            );
        }
        assert!(find(Some(address("203.0.113.8"))).is_empty());
        scene.world.talk(client).finish = true;
        scene.world.talk(server).finish = true;
        scene.world.finish();
    }
}

/// Long streams both ways over wires that lose packets: with and without timestamps, a script, SYN cookies.
#[test]
fn lost_packets_are_no_matter() {
    fn ticks() -> u32 {
        5_000
    }
    for cookies in ["always", "never"] {
        let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(3000) avi.vs.log(avi.vs.client_ip())");
        let settings = format!("{ACCEPTING}syn_cookies = \"{cookies}\"\n");
        for (service, log) in [(plain("tcp/443", "a"), ""), (script, "203.0.113.7")] {
            let mut scene = Scene::new(&format!("{}{service}{settings}", sending("v2", &["10.0.0.21:443"])));
            scene.world.loss = Some(12);
            for port in 0..6 {
                let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000 + port));
                if port % 2 == 0 {
                    scene.world.use_timestamps(client, ticks);
                    scene.world.use_timestamps(server, ticks);
                }
                scene.world.talk(client).say(&[LINE, &bytes(60_000, 1)].concat());
                scene.world.talk(server).say(&bytes(60_000, 2));
                scene.world.talk(client).finish = true;
                scene.world.talk(server).finish = true;
                for _ in 0..200 {
                    scene.world.seconds(1);
                    let heard = [server, client].map(|talk| scene.world.talk(talk).received.len());
                    if scene.world.records.len() > usize::from(port) && heard[0] + heard[1] == 120_028 {
                        break;
                    }
                }
                let header = binary(0x21, 0x11, &block([203, 0, 113, 7], [198, 51, 100, 1], (1234, 443)));
                let heard = scene.world.talk(server).received.clone();
                assert!(heard == [header, bytes(60_000, 1)].concat(), "up {cookies} {port}");
                assert!(scene.world.talk(client).received == bytes(60_000, 2), "down {cookies} {port}");
                assert_eq!(scene.world.log(usize::from(port)), log);
            }
            scene.world.loss = None;
            scene.world.finish();
        }
    }
}

/// The first server refuses or is silent: the other one gets the same header and the same bytes.
#[test]
fn another_server_gets_the_header_again() {
    for silent in [false, true] {
        let pool = sending("v1", &["10.0.0.31:443", "10.0.0.21:443"]) + "connect_timeout = \"2s\"\n";
        let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(5)");
        let mut scene = Scene::new(&format!("{pool}{script}{ACCEPTING}"));
        // One that has no listener answers with RST; one without a stack says nothing.
        let _ = if silent {
            scene.world.silent(INSIDE, "10.0.0.31")
        } else {
            scene.world.host(INSIDE, "10.0.0.31")
        };
        for port in 40_000..40_004 {
            let heard = exchange(&mut scene, port, &[LINE, b"hello"].concat(), b"answer");
            assert_eq!(heard, [LINE, b"hello"].concat());
        }
        assert_eq!(scene.world.terminations(), ["--"; 4]);
        scene.world.finish();
    }
}

/// What weir counts as seen by scripts after the splice includes the header: a late copy of it is not run on.
#[test]
fn a_late_copy_of_the_header_is_not_shown_to_scripts() {
    let run = "[virtual_service.datascript]\nrun = \"every_payload\"\n";
    let service = scripted("tcp/443", "a", &["a"], "avi.vs.log('[', avi.l4.read(), ']')");
    let mut world = World::new(&format!("{}{service}{ACCEPTING}{run}", sending("v1", &["10.0.0.31:443"])));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.31"));
    let (from, vip, at) = (socket("192.0.2.100:40000"), socket("192.0.2.10:443"), socket("10.0.0.31:443"));
    let say = |world: &mut World, host, source, to, flags, (seq, ack), payload: &[u8]| {
        let packet = wire::tcp(source, to, wire::flags(flags, seq, ack), payload);
        world.at(host).outbox.push(packet);
        world.settle();
        (world.inbox(client), world.inbox(server))
    };
    let (answer, _) = say(&mut world, client, from, vip, "S", (1000, 0), b"");
    let ours = answer[0].tcp().sequence_number.wrapping_add(1);
    let first = [LINE, b"one"].concat();
    let next = 1001 + first.len() as u32;
    let (_, syn) = say(&mut world, client, from, vip, "AP", (1001, ours), &first);
    let (isn, snat) = (syn[0].tcp().sequence_number, syn[0].source);
    // The header that goes out has as many bytes as the one that came in: the server's numbers are the client's.
    assert_eq!(isn, 1000);
    let (_, replay) = say(&mut world, server, at, snat, "SA", (5000, 1001), b"");
    assert_eq!(replay[0].payload, first);
    say(&mut world, server, at, snat, "A", (5001, next), b"");
    say(&mut world, client, from, vip, "AP", (1001, ours), &first);
    say(&mut world, client, from, vip, "AP", (next, ours), b"two");
    say(&mut world, client, from, vip, "RA", (next + 3, ours), b"");
    world.seconds(5);
    assert_eq!(world.log(0), "[one][two]");
}

/// The longest header that is taken, in the smallest buffer that there is.
#[test]
fn a_header_may_fill_the_whole_buffer() {
    let tlvs = [block([203, 0, 113, 7], [198, 51, 100, 1], (1234, 443)), vec![7; 2020]].concat();
    let header = binary(0x21, 0x11, &tlvs);
    assert_eq!(header.len(), 2048);
    let settings = format!("{ACCEPTING}buffer = \"2KiB\"\n");
    for service in [plain("tcp/443", "a"), scripted("tcp/443", "a", &["a"], "avi.l4.collect(2000)")] {
        let mut scene = Scene::new(&format!("{}{service}{settings}", sending("v1", &["10.0.0.21:443"])));
        let heard = exchange(&mut scene, 40_000, &[&header[..], &bytes(20_000, 1)].concat(), b"answer");
        assert!(heard == [LINE, &bytes(20_000, 1)].concat(), "{}", heard.len());
        scene.world.finish();
    }
}
