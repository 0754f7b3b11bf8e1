//! IPv4 fragments through the whole chain, both ways.

use std::net::SocketAddr;

use dataplane::counters::DropReason;
use etherparse::{Ipv4Header, Ipv6FragmentHeader};

use crate::inside::*;
use crate::pieces::{cut, part};
use crate::tcp_binding::{Scene, bytes, two_pools};
use crate::wire::{self, Packet, Transport};
use crate::world::*;

const CLIENT: &str = "192.0.2.100:4000";
const VIP: &str = "192.0.2.10:53";
/// Payload of an IP fragment on a link of 1500 bytes.
const SIZE: usize = 1480;

/// The last byte chooses the pool, and the script says how many there are.
const BY_LAST_BYTE: &str = r#"
    local payload = avi.l4.read()
    if payload:sub(-1) == "b" then avi.pool.select("b") end
    avi.vs.log(#payload)
"#;

struct Scenery {
    world: World,
    client: HostId,
    a: HostId,
    b: HostId,
}

impl Scenery {
    fn with(network: &str, script: &str, more: &str) -> Scenery {
        let pools = pools(&[("a", &["10.0.0.21:53"]), ("b", &["10.0.0.22:53"])]);
        let service = match script {
            "" => plain("udp/53", "a"),
            script => scripted("udp/53", "a", &["a", "b"], script),
        };
        let mut world = World::with_network(&format!("{network}{pools}{service}{more}"));
        let client = world.silent(OUTSIDE, "192.0.2.100");
        let (a, b) = (world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22"));
        Scenery { world, client, a, b }
    }

    fn new(script: &str, more: &str) -> Scenery {
        Scenery::with(TWO_ARMS, script, more)
    }

    /// The first server is known to ARP: more fragments of a datagram than may wait for it will come.
    fn warm(mut self) -> Scenery {
        self.send(self.client, vec![udp("192.0.2.100:3999", VIP, b"warm")]);
        assert_eq!(self.world.payloads(self.a), [b"warm"]);
        self
    }

    fn send(&mut self, host: HostId, fragments: Vec<Vec<u8>>) {
        self.world.at(host).outbox.extend(fragments);
        self.world.settle();
    }

    /// Reassembled, expired, evicted, fragmented.
    fn counts(&self) -> [u64; 4] {
        let counters = self.world.worker.pipeline().counters();
        [counters.reassembled, counters.fragments_expired, counters.fragments_evicted, counters.fragmented]
    }
}

fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    wire::udp(socket(from), socket(to), payload)
}

/// A payload whose last byte is this.
fn ending(length: usize, last: u8) -> Vec<u8> {
    let mut payload = bytes(length, last.into());
    *payload.last_mut().unwrap() = last;
    payload
}

#[test]
fn a_script_reads_the_whole_datagram_and_the_answer_comes_back_in_fragments_too() {
    for (length, order) in
        [(8000, [0, 1, 2, 3, 4, 5]), (8001, [5, 4, 3, 2, 1, 0]), (7999, [1, 5, 0, 2, 4, 3])]
    {
        let mut scene = Scenery::new(BY_LAST_BYTE, "");
        let (client, a, b) = (scene.client, scene.a, scene.b);
        let payload = ending(length, b'b');
        let fragments = cut(&udp(CLIENT, VIP, &payload), SIZE, 7);
        scene.send(client, order.iter().map(|n| fragments[*n].clone()).collect());
        assert!(scene.world.inbox(a).is_empty());
        let arrived = scene.world.inbox(b);
        assert_eq!((arrived.len(), &arrived[0].payload), (1, &payload));
        let answer = bytes(length + 100, 9);
        let back = wire::udp(arrived[0].destination, arrived[0].source, &answer);
        scene.send(b, cut(&back, SIZE, 7));
        assert_eq!(scene.world.payloads(client), [answer]);
        assert_eq!((scene.world.pieces.as_slice(), scene.counts()), (&[6, 6][..], [2, 0, 0, 2]));
        assert_eq!(scene.world.worker.pipeline().counters().dropped_total(), 0);
        scene.world.seconds(40);
        assert_eq!(scene.world.log(0), length.to_string());
        scene.world.finish();
    }
}

#[test]
fn clients_that_use_the_same_identification_do_not_disturb_each_other_behind_one_snat_address() {
    let mut scene = Scenery::new("", "");
    let other = scene.world.silent(OUTSIDE, "192.0.2.101");
    let (client, a) = (scene.client, scene.a);
    let payloads = [bytes(4000, 1), bytes(4000, 2)];
    let one = cut(&udp(CLIENT, VIP, &payloads[0]), SIZE, 7);
    let two = cut(&udp("192.0.2.101:4000", VIP, &payloads[1]), SIZE, 7);
    for (one, two) in one.into_iter().zip(two) {
        scene.world.at(client).outbox.push(one);
        scene.world.at(other).outbox.push(two);
    }
    scene.world.settle();
    assert_eq!(scene.world.payloads(a), payloads);
    assert_eq!(scene.counts(), [2, 0, 0, 2]);
    let identifications = &scene.world.joiner.identifications;
    assert!(identifications.len() == 2 && identifications[0] != identifications[1], "{identifications:?}");
    scene.world.finish();
}

#[test]
fn large_datagrams_are_held_for_a_script_and_leave_in_order() {
    let script = "if avi.vs.client_port() == '4000' then avi.vs.log(avi.l4.collect(20000)) end";
    let mut scene = Scenery::new(script, "").warm();
    let (client, a) = (scene.client, scene.a);
    let payloads = [bytes(8000, 1), bytes(1600, 2), bytes(11_000, 3)];
    for (payload, id) in payloads.iter().zip(1..) {
        scene.send(client, cut(&udp(CLIENT, VIP, payload), SIZE, id));
    }
    let arrived = scene.world.payloads(a);
    assert!(arrived == payloads, "{:?}", arrived.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!((scene.world.pieces.as_slice(), scene.counts()), (&[6, 2, 8][..], [3, 0, 0, 3]));
    scene.world.seconds(40);
    assert_eq!(scene.world.log(1), "20600");
    scene.world.finish();
}

#[test]
fn datagrams_balanced_one_by_one_and_small_ones_in_two_pieces() {
    let mut scene = Scenery::new(BY_LAST_BYTE, "[virtual_service.udp]\nper_packet = true\n");
    let (client, a, b) = (scene.client, scene.a, scene.b);
    let payloads = [ending(5000, b'a'), ending(5000, b'b'), ending(100, b'b')];
    for (payload, id) in payloads.iter().zip(1..) {
        scene.send(client, cut(&udp(CLIENT, VIP, payload), 64, id).into_iter().rev().collect());
    }
    // 5,008 bytes in pieces of 64 are more than 64 pieces.
    assert!(scene.world.inbox(a).is_empty());
    assert_eq!(scene.world.payloads(b), [payloads[2].clone()]);
    assert_eq!(scene.world.dropped(DropReason::FragmentInvalid), 2 * 15);
    for (payload, id) in payloads.iter().zip(11..) {
        scene.send(client, cut(&udp(CLIENT, VIP, payload), 800, id));
    }
    assert_eq!(scene.world.payloads(a), [payloads[0].clone()]);
    assert_eq!(scene.world.payloads(b), payloads[1..]);
    assert_eq!(scene.world.pieces, [4, 4], "the smallest leaves whole");
    scene.world.finish();
}

#[test]
fn tags_are_put_on_and_taken_off_and_the_mtu_is_that_of_the_way_out() {
    for (outside, inside, pieces) in
        [("", "vlan = 20\nmtu = 1400\n", [6, 6]), ("vlan = 7\nmtu = 1280\n", "", [6, 7])]
    {
        let network = TWO_ARMS
            .replace("name = \"outside\"\n", &format!("name = \"outside\"\n{outside}"))
            .replace("name = \"inside\"\n", &format!("name = \"inside\"\n{inside}"));
        let mut scene = Scenery::with(&network, BY_LAST_BYTE, "");
        let (client, a) = (scene.client, scene.a);
        let payload = ending(8000, b'a');
        scene.send(client, cut(&udp(CLIENT, VIP, &payload), 960, 7));
        let arrived = scene.world.inbox(a);
        assert_eq!((arrived.len(), &arrived[0].payload), (1, &payload));
        let back = wire::udp(arrived[0].destination, arrived[0].source, &payload);
        scene.send(a, cut(&back, 1376, 7));
        assert_eq!(scene.world.payloads(client), [payload]);
        assert_eq!(scene.world.pieces, pieces);
        scene.world.finish();
    }
}

#[test]
fn the_largest_datagram_passes_and_a_larger_one_does_not() {
    let mut scene = Scenery::new("", "").warm();
    let (client, a) = (scene.client, scene.a);
    let payload = bytes(65_517 - 28, 1);
    scene.send(client, cut(&udp(CLIENT, VIP, &payload), SIZE, 1));
    assert_eq!(scene.world.payloads(a), [payload]);
    scene.send(client, cut(&udp(CLIENT, VIP, &bytes(65_518 - 28, 2)), SIZE, 2));
    assert!(scene.world.inbox(a).is_empty());
    assert_eq!(scene.world.dropped(DropReason::FragmentInvalid), 1);
    scene.world.seconds(31);
    assert_eq!(scene.counts(), [1, 1, 0, 1]);
}

#[test]
fn tcp_passes_in_fragments_in_both_directions_and_over_wires_that_lose() {
    for loss in [None, Some(40)] {
        for profile in ["proxy", "fast_path"] {
            let service = match profile {
                "proxy" => scripted("tcp/443", "a", &["a", "b"], "avi.l4.collect(2000)"),
                _ => plain("tcp/443", "a"),
            };
            let mut scene = Scene::new(&format!("{}{service}", two_pools()));
            scene.world.cut = Some(400);
            scene.world.loss = loss;
            let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(4000));
            let (there, back) = (bytes(60_000, 1), bytes(70_000, 2));
            scene.world.talk(client).say(&there);
            scene.world.talk(server).say(&back);
            scene.world.seconds(if loss.is_some() { 200 } else { 10 });
            for (talk, sent) in [(server, &there), (client, &back)] {
                let received = &scene.world.talk(talk).received;
                assert!(received == sent, "{profile}, {loss:?}: {} of {}", received.len(), sent.len());
            }
            let counters = scene.world.worker.pipeline().counters();
            assert!(counters.reassembled >= 80, "{counters:?}");
            assert_eq!(counters.fragmented, 0, "segments fit the MTU again");
            scene.world.loss = None;
            for talk in [client, server] {
                scene.world.talk(talk).finish = true;
            }
            scene.world.seconds(300);
            scene.world.finish();
        }
    }
}

#[test]
fn a_ping_in_fragments_is_answered_in_fragments() {
    let mut scene = Scenery::new("", "");
    let client = scene.client;
    let payload = bytes(4000, 3);
    let ping = wire::echo_request(address("192.0.2.100"), address("192.0.2.10"), &payload);
    scene.send(client, cut(&ping, SIZE, 1));
    let replies = scene.world.inbox(client);
    assert_eq!(
        (replies.len(), &replies[0].transport, &replies[0].payload),
        (1, &Transport::Icmp(0), &payload)
    );
    assert_eq!((scene.world.pieces.as_slice(), scene.counts()), (&[3][..], [1, 0, 0, 1]));
}

/// Sends, and gives what was dropped as a fragment that nobody wants.
fn unwanted(scene: &mut Scenery, fragments: Vec<Vec<u8>>) -> u64 {
    let client = scene.client;
    let before = scene.world.dropped(DropReason::Fragment);
    scene.send(client, fragments);
    scene.world.dropped(DropReason::Fragment) - before
}

#[test]
fn fragments_to_others_of_ipv6_or_without_memory_are_dropped_and_keep_nothing() {
    let mut scene = Scenery::new("", "");
    for to in ["192.0.2.1:53", "192.0.2.77:53", "10.0.0.1:53", "10.0.0.21:53"] {
        assert_eq!(unwanted(&mut scene, cut(&udp(CLIENT, to, &bytes(4000, 1)), SIZE, 1)), 3, "{to}");
    }
    let six = udp("[2001:db8:1::100]:4000", "[2001:db8:1::10]:53", &bytes(400, 1));
    let fragment = Ipv6FragmentHeader::new(17.into(), 0.try_into().unwrap(), true, 1).to_bytes();
    let mut packet = [&six[..40], &fragment, &six[40..]].concat();
    packet[4..6].copy_from_slice(&((six.len() - 40 + 8) as u16).to_be_bytes());
    packet[6] = 44;
    assert_eq!(unwanted(&mut scene, vec![packet]), 1);
    assert_eq!(scene.world.worker.pipeline().fragments(), (0, 0));

    let mut scene = Scenery::new("", "[limits]\nfragment_memory = 0\n");
    assert_eq!(unwanted(&mut scene, cut(&udp(CLIENT, VIP, &bytes(4000, 1)), SIZE, 1)), 3);
    assert_eq!(scene.world.worker.pipeline().fragments(), (0, 0));
}

#[test]
fn an_overlap_ends_the_datagram_and_nothing_reaches_a_script() {
    let mut scene = Scenery::new("avi.vs.log('x')", "");
    let (client, a) = (scene.client, scene.a);
    let packet = udp(CLIENT, VIP, &bytes(4000, 1));
    let fragments = cut(&packet, SIZE, 1);
    let (header, payload) = Ipv4Header::from_slice(&packet).unwrap();
    let overlap = part(&header, 8, true, &payload[8..SIZE], 1);
    scene.send(client, vec![fragments[0].clone(), overlap, fragments[1].clone(), fragments[2].clone()]);
    assert!(scene.world.inbox(a).is_empty());
    assert_eq!(scene.world.dropped(DropReason::FragmentOverlap), 3);
    assert_eq!(scene.world.worker.pipeline().flows().len(), 0);
    scene.world.seconds(31);
    assert_eq!((scene.world.inbox(client), scene.counts()), (vec![], [0; 4]), "in silence");
    scene.send(client, fragments);
    assert_eq!(scene.world.inbox(a).len(), 1);
    scene.world.finish();
}

#[test]
fn the_sender_hears_of_a_datagram_that_was_not_complete_in_time() {
    let mut scene = Scenery::new("", "");
    let client = scene.client;
    let fragments = cut(&udp(CLIENT, VIP, &bytes(4000, 1)), SIZE, 1);
    let ping = wire::echo_request(address("192.0.2.100"), address("192.0.2.10"), &bytes(4000, 3));
    scene.send(client, vec![fragments[2].clone(), fragments[0].clone()]);
    scene.send(client, cut(&udp(CLIENT, VIP, &bytes(4000, 2)), SIZE, 2)[1..].to_vec());
    scene.send(client, cut(&ping, SIZE, 3)[..2].to_vec());
    scene.world.seconds(29);
    assert!(scene.world.inbox(client).is_empty());
    scene.world.seconds(2);
    let errors = scene.world.inbox(client);
    let [Packet { source, transport: Transport::Icmp(11), payload, .. }] = &errors[..] else {
        panic!("{errors:?}");
    };
    assert_eq!(source.ip(), address("192.0.2.10"));
    assert_eq!(payload[..], fragments[0][..548], "the first fragment as it was sent");
    assert_eq!(scene.counts(), [0, 3, 0, 0]);
    scene.world.finish();
}

#[test]
fn a_flood_of_fragments_stays_in_its_memory_and_whole_datagrams_get_through() {
    let mut scene = Scenery::new("", "[limits]\nfragment_memory = \"256KiB\"\n");
    let (client, a) = (scene.client, scene.a);
    let wanted = bytes(8000, 1);
    for round in 0..50u16 {
        let flood =
            (0..40).map(|n| cut(&udp(CLIENT, VIP, &bytes(4000, 9)), SIZE, 1000 + round * 40 + n).remove(1));
        scene.world.at(client).outbox.extend(flood);
        scene.send(client, cut(&udp(CLIENT, VIP, &wanted), SIZE, round));
    }
    assert_eq!(scene.world.payloads(a), vec![wanted; 50]);
    let (datagrams, blocks) = scene.world.worker.pipeline().fragments();
    assert!(datagrams <= 101 && blocks <= 101, "{datagrams} {blocks}");
    let [reassembled, expired, evicted, _] = scene.counts();
    assert_eq!((reassembled, expired), (50, 0));
    assert_eq!(evicted, 2000 - datagrams as u64);
}

#[test]
fn a_wrong_checksum_over_all_fragments_reaches_no_script() {
    let mut scene = Scenery::new("avi.vs.log('x')", "");
    let client = scene.client;
    let mut packet = udp(CLIENT, VIP, &bytes(4000, 1));
    packet[3000] ^= 1;
    scene.send(client, cut(&packet, SIZE, 1));
    assert_eq!((scene.world.dropped(DropReason::L4Checksum), scene.counts()), (1, [1, 0, 0, 0]));
    scene.world.finish();
}

#[test]
fn an_error_about_a_fragment_reaches_the_client() {
    let mut scene = Scenery::new("", "");
    let (client, a) = (scene.client, scene.a);
    scene.send(client, cut(&udp(CLIENT, VIP, &bytes(4000, 1)), SIZE, 1));
    let arrived = scene.world.inbox(a).remove(0);
    let first = cut(&wire::udp(arrived.source, arrived.destination, &arrived.payload), SIZE, 5).remove(0);
    let mut error = Vec::new();
    let kind = etherparse::Icmpv4Type::Unknown { type_u8: 11, code_u8: 1, bytes5to8: [0; 4] };
    let address = |socket: SocketAddr| match socket {
        SocketAddr::V4(socket) => socket.ip().octets(),
        SocketAddr::V6(_) => panic!("{socket}"),
    };
    let builder = etherparse::PacketBuilder::ipv4(address(arrived.destination), address(arrived.source), 60)
        .icmpv4(kind);
    builder.write(&mut error, &first[..200]).unwrap();
    scene.send(a, vec![error]);
    let errors = scene.world.inbox(client);
    assert_eq!((errors.len(), &errors[0].transport), (1, &Transport::Icmp(11)));
    let (quoted, _) = Ipv4Header::from_slice(&errors[0].payload).unwrap();
    assert_eq!((quoted.source, quoted.destination), ([192, 0, 2, 100], [192, 0, 2, 10]));
}
