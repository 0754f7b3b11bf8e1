//! A ClientHello through the published example script, cut and disturbed in every way.

use crate::inside::*;
use crate::wire;
use crate::world::*;

/// A record with a ClientHello (RFC 8446, 4.1.2) for this server name (RFC 6066, 3).
fn client_hello(name: &str) -> Vec<u8> {
    fn sized(bytes: &[u8], size: usize) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[4 - size..], bytes].concat()
    }
    let server_name = sized(&[&[0][..], &sized(name.as_bytes(), 2)].concat(), 2);
    let extensions = [
        &[0, 43][..],
        &sized(&[2, 3, 4], 2),
        &[0, 0],
        &sized(&server_name, 2),
        &[0, 21],
        &sized(&[0; 60], 2),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &sized(&[9; 32], 1),
        &sized(&[0x13, 1], 2),
        &sized(&[0], 1),
        &sized(&extensions, 2),
    ]
    .concat();
    [&[22, 3, 1][..], &sized(&[&[1][..], &sized(&body, 3)].concat(), 2)].concat()
}

/// Part of a stream: where it begins, and its bytes.
type Piece<'a> = (usize, &'a [u8]);

fn world() -> World {
    let pools = pools(&[("www", &["10.0.0.21:443"]), ("api", &["10.0.0.22:443"])]);
    let set = "[[datascript_set]]\nname = \"set\"\nrequest = \"tls_sni/tls_sni.lua\"\npools = [\"www\", \"api\"]\nparsers = [\"Default-TLS\"]\n";
    let service = plain("tcp/443", "www");
    World::new(&format!("{pools}{set}{service}datascript_sets = [\"set\"]\n"))
}

/// One connection per way to deliver `stream`; each must reach "api" unharmed, and its answer the client.
fn deliver(stream: &[u8], ways: &[Vec<Piece<'_>>]) {
    let mut world = world();
    let (client, api) = (world.silent(OUTSIDE, "192.0.2.100"), world.host(INSIDE, "10.0.0.22"));
    for (port, pieces) in (40_000..).zip(ways) {
        let server = world.listen(api, 443);
        let (from, to) = (std::net::SocketAddr::new(address("192.0.2.100"), port), socket("192.0.2.10:443"));
        let send = |world: &mut World, header, payload: &[u8]| {
            world.at(client).outbox.push(wire::tcp(from, to, header, payload));
            world.settle();
        };
        send(&mut world, wire::flags("S", 999, 0), b"");
        let ack = world.inbox(client)[0].tcp().sequence_number.wrapping_add(1);
        send(&mut world, wire::flags("A", 1000, ack), b"");
        for (offset, bytes) in pieces {
            send(&mut world, wire::flags("AP", 1000 + *offset as u32, ack), bytes);
        }
        assert!(world.talk(server).received == stream, "{pieces:?}");
        world.inbox(client);
        world.talk(server).say(b"ServerHello");
        world.settle();
        let answer = world.inbox(client);
        let answer = answer.iter().find(|packet| !packet.payload.is_empty()).unwrap();
        assert_eq!((answer.payload.as_slice(), answer.tcp().sequence_number), (&b"ServerHello"[..], ack));
        let end = 1000 + stream.len() as u32;
        assert_eq!(answer.tcp().acknowledgment_number, end);
        send(&mut world, wire::flags("R", end, 0), b"");
    }
    world.seconds(5);
    assert_eq!(world.records.len(), ways.len());
    for record in 0..ways.len() {
        assert_eq!(world.log(record), "sni=api.example.com", "the script ran once");
    }
    world.finish();
}

#[test]
fn cut_at_every_byte() {
    let hello = client_hello("api.example.com");
    let ways: Vec<_> = (1..hello.len()).map(|at| vec![(0, &hello[..at]), (at, &hello[at..])]).collect();
    for some in ways.chunks(50) {
        deliver(&hello, some);
    }
}

#[test]
fn one_byte_per_segment_reversed_duplicated_overlapping() {
    let hello = client_hello("api.example.com");
    let single: Vec<Piece<'_>> = hello.chunks(1).enumerate().collect();
    let blocks: Vec<Piece<'_>> = hello.chunks(17).enumerate().map(|(n, bytes)| (n * 17, bytes)).collect();
    let reversed: Vec<Piece<'_>> = blocks.iter().rev().copied().collect();
    let doubled: Vec<Piece<'_>> = single.iter().flat_map(|piece| [*piece, *piece]).collect();
    let shuffled: Vec<Piece<'_>> = (0..blocks.len()).map(|n| blocks[n * 5 % blocks.len()]).collect();
    assert!(!blocks.len().is_multiple_of(5), "5 steps through all blocks");
    let overlapping: Vec<Piece<'_>> =
        (0..hello.len()).step_by(10).map(|at| (at, &hello[at..(at + 25).min(hello.len())])).collect();
    deliver(
        &hello,
        &[single, blocks, reversed, doubled, shuffled, overlapping, vec![(0, &hello), (0, &hello)]],
    );
}
