//! Bytes of weir's own ahead of the client's, and bytes of the client's that the server does not get.

use super::*;
use crate::{ConnectFailure, End, SackBlock};

const PREFIX: &[u8] = b"PROXY ahead\r\n";
/// Length of the prefix.
const P: u32 = PREFIX.len() as u32;

/// The server's stream begins so many numbers below the client's first byte.
fn ahead(count: u32) -> SeqNumber {
    client(0).receded(count)
}

/// The client is connected, has sent `bytes`, and a server was asked for with this prefix.
fn asked(options: Options, bytes: &[u8], hold: bool, prefix: &[u8]) -> Bench {
    let mut bench = Bench::established(options);
    if !bytes.is_empty() {
        bench.client(client(0), weir(0), ACK, bytes);
        bench.sent();
    }
    bench.binding.connect(bench.now, hold, prefix);
    bench
}

/// SYN-ACK of a server that acknowledges a SYN with the number before `first`.
fn answer(bench: &mut Bench, first: SeqNumber, options: Options) -> Event {
    bench.server_timestamps = options.timestamps.is_some() && bench.client_timestamps;
    let flags = SYN | ACK;
    let segment =
        Segment { seq: SERVER_ISN.into(), ack: first, flags, window: 3000, options, ..Segment::default() };
    bench.raw(Side::Server, &segment)
}

fn payloads(sent: &[Sent], to: Side) -> Vec<u8> {
    sent.iter().filter(|sent| sent.to == to).flat_map(|sent| sent.payload.clone()).collect()
}

#[test]
fn the_prefix_takes_the_numbers_before_the_clients_first_byte() {
    for options in [plain_options(), full_options()] {
        let mut bench = asked(options.clone(), b"hello", false, PREFIX);
        let syn = bench.only();
        assert_eq!((syn.to, syn.flags, syn.seq), (Side::Server, SYN, ahead(P + 1).value()));
        assert_eq!(bench.binding.payload(Side::Client), b"hello");
        assert_eq!(answer(&mut bench, ahead(P), options), Event::Consumed);
        let first = bench.only();
        assert_eq!((first.seq, first.ack), (ahead(P).value(), server(0).value()));
        assert_eq!(first.payload, [PREFIX, b"hello"].concat());
        assert_eq!(bench.binding.payload(Side::Client), b"hello");
        // What the client sends next has the number that it gave to it.
        assert_eq!(bench.server(server(0), client(5), ACK, b""), Event::Spliced);
        let update = bench.only();
        assert_eq!((update.to, update.seq, update.ack), (Side::Client, weir(0).value(), client(5).value()));
        let splice = bench.binding.splice();
        assert_eq!((splice.to_client(server(7)), splice.to_server(weir(7))), (weir(7), server(7)));
        assert_eq!(bench.binding.track().next(Side::Client), client(5));
        assert!(bench.binding.track().is_settled());
        assert_eq!(bench.server(server(0), client(5), ACK, b"answer"), Event::Forward);
    }
}

#[test]
fn a_syn_that_does_not_acknowledge_the_prefix_number_is_not_ours() {
    let mut bench = asked(plain_options(), b"", false, PREFIX);
    bench.sent();
    assert_eq!(answer(&mut bench, client(0), plain_options()), Event::Rejected);
    assert_eq!(bench.only().flags, RST);
    assert_eq!(answer(&mut bench, ahead(P), plain_options()), Event::Consumed);
}

#[test]
fn a_client_that_waits_for_the_server_sends_the_prefix_alone() {
    let mut bench = asked(plain_options(), b"", false, PREFIX);
    bench.sent();
    assert_eq!(answer(&mut bench, ahead(P), plain_options()), Event::Consumed);
    let sent = bench.only();
    assert_eq!((sent.payload.as_slice(), sent.flags), (PREFIX, ACK | Flags::PSH));
    assert_eq!(bench.binding.payload(Side::Client), b"");
    // The server speaks before it has heard anything: that passes, and acknowledges nothing to the client but its SYN.
    let banner = Segment {
        seq: server(0),
        ack: ahead(P),
        flags: ACK,
        window: 3000,
        payload: b"220",
        ..Segment::default()
    };
    assert_eq!(bench.raw(Side::Server, &banner), Event::Forward);
    assert_eq!(bench.binding.splice().held_ack, client(0).value());
    assert_eq!(bench.client(client(0), weir(3), ACK, b""), Event::Consumed);
    let relayed = bench.only();
    assert_eq!((relayed.to, relayed.ack, relayed.seq), (Side::Server, server(3).value(), client(0).value()));
    assert_eq!(bench.server(server(3), client(0), ACK, b""), Event::Spliced);
}

#[test]
fn what_is_lost_of_the_prefix_comes_again_and_the_client_never_hears_of_it() {
    let small = Options { mss: Some(64), ..Options::default() };
    let mut bench = asked(plain_options(), &[b'x'; 100], false, &[b'p'; 100]);
    bench.sent();
    assert_eq!(answer(&mut bench, ahead(100), small), Event::Consumed);
    let all = bench.sent();
    let lengths: Vec<_> = all.iter().map(|sent| (sent.seq, sent.payload.len())).collect();
    let expected = [(ahead(100), 64), (ahead(36), 64), (client(28), 64), (client(92), 8)];
    assert_eq!(lengths, expected.map(|(seq, length)| (seq.value(), length)));
    assert_eq!(all[1].payload, [[b'p'; 36].as_slice(), &[b'x'; 28]].concat());
    // Everything is lost: the timer begins with the prefix.
    assert_eq!(bench.timer(), (Event::Consumed, 1000));
    assert_eq!(bench.only(), all[0]);
    // Acknowledgements that end inside the prefix make no segment for the client; what is lost then begins there.
    for acked in [ahead(90), ahead(37), ahead(1)] {
        assert_eq!(bench.server(server(0), acked, ACK, b""), Event::Consumed);
        let mut sent = bench.sent();
        assert_eq!(bench.timer().0, Event::Consumed);
        sent.extend(bench.sent());
        assert!(sent.iter().all(|sent| sent.to == Side::Server), "{sent:?}");
        let again = sent.last().unwrap();
        assert_eq!((again.seq, again.payload[0], again.payload.len()), (acked.value(), b'p', 64));
    }
    assert_eq!(bench.server(server(0), client(100), ACK, b""), Event::Spliced);
    let sent = bench.only();
    assert_eq!((sent.to, sent.ack), (Side::Client, client(100).value()));
}

#[test]
fn three_duplicates_inside_the_prefix_bring_its_segment_again() {
    let small = Options { mss: Some(64), ..Options::default() };
    let mut bench = asked(plain_options(), &[b'x'; 200], false, &[b'p'; 100]);
    bench.sent();
    answer(&mut bench, ahead(100), small);
    bench.sent();
    bench.server(server(0), ahead(36), ACK, b"");
    for _ in 0..3 {
        assert_eq!(bench.sent(), []);
        assert_eq!(bench.server(server(0), ahead(36), ACK, b""), Event::Consumed);
    }
    let again = bench.only();
    assert_eq!((again.to, again.seq, again.payload[0]), (Side::Server, ahead(36).value(), b'p'));
}

#[test]
fn a_closed_window_is_probed_with_the_first_byte_of_the_prefix() {
    let mut bench = asked(plain_options(), b"hello", false, PREFIX);
    bench.sent();
    let closed = Segment {
        seq: SERVER_ISN.into(),
        ack: ahead(P),
        flags: SYN | ACK,
        options: plain_options(),
        ..Segment::default()
    };
    assert_eq!(bench.raw(Side::Server, &closed), Event::Consumed);
    assert_eq!(bench.only().payload, b"", "the acknowledgement of the SYN-ACK");
    assert_eq!(bench.timer(), (Event::Consumed, 1000));
    let probe = bench.only();
    assert_eq!((probe.seq, probe.payload.as_slice()), (ahead(P).value(), &PREFIX[..1]));
    // The window opens by three bytes, then for all.
    let window = |window, ack| Segment { seq: server(0), ack, flags: ACK, window, ..Segment::default() };
    assert_eq!(bench.raw(Side::Server, &window(3, ahead(P - 1))), Event::Consumed);
    assert_eq!(bench.only().payload, &PREFIX[1..4]);
    assert_eq!(bench.raw(Side::Server, &window(3000, ahead(P - 4))), Event::Consumed);
    assert_eq!(bench.only().payload, [&PREFIX[4..], b"hello"].concat());
}

#[test]
fn another_server_gets_its_own_prefix() {
    let mut bench = asked(plain_options(), b"hello", false, PREFIX);
    for prefix in [&b"a much longer one than the first"[..], b"", b"x", PREFIX] {
        let syn = bench.only();
        let refusal = Segment { ack: syn.seq.wrapping_add(1).into(), flags: RST | ACK, ..Segment::default() };
        let failed = Event::ConnectFailed(ConnectFailure::Refused);
        assert_eq!(bench.raw(Side::Server, &refusal), failed);
        // The client goes on meanwhile.
        assert_eq!(bench.binding.payload(Side::Client), b"hello");
        bench.binding.connect(bench.now, false, prefix);
        assert_eq!(bench.binding.payload(Side::Client), b"hello");
        let first = ahead(prefix.len() as u32);
        let syn = bench.only();
        assert_eq!((syn.flags, syn.seq), (SYN, first.receded(1).value()));
        // One that answers the earlier SYN is not believed.
        if prefix != PREFIX {
            assert_eq!(answer(&mut bench, ahead(P), plain_options()), Event::Rejected);
            assert_eq!(bench.only().flags, RST);
        }
        bench.advance(10);
        bench.binding.handle_timeout(bench.now + Duration::from_secs(1));
    }
    assert_eq!(answer(&mut bench, ahead(P), plain_options()), Event::Consumed);
    assert_eq!(payloads(&bench.sent(), Side::Server), [PREFIX, b"hello"].concat());
}

#[test]
fn bytes_that_came_while_a_server_failed_stay_behind_the_next_prefix() {
    let mut bench = asked(full_options(), b"ab", false, PREFIX);
    bench.sent();
    assert_eq!(bench.client(client(4), weir(0), ACK, b"ef"), Event::Consumed);
    let block = SackBlock { left: client(4), right: client(6) };
    assert_eq!(bench.only().options.sack.as_slice(), &[block]);
    let refusal = Segment { ack: ahead(P), flags: RST | ACK, ..Segment::default() };
    bench.raw(Side::Server, &refusal);
    bench.binding.connect(bench.now, false, b"longer than the other");
    bench.client(client(8), weir(0), ACK, b"ij");
    let sent = bench.sent();
    let told = sent.iter().find(|sent| sent.to == Side::Client).unwrap();
    assert_eq!(told.options.sack.as_slice(), &[SackBlock { left: client(8), right: client(10) }, block]);
    bench.client(client(2), weir(0), ACK, b"cd");
    bench.client(client(6), weir(0), FIN, b"ghij");
    assert_eq!(bench.binding.payload(Side::Client), b"abcdefghij");
    bench.sent();
    assert_eq!(answer(&mut bench, ahead(21), full_options()), Event::Consumed);
    let sent = bench.sent();
    assert_eq!(payloads(&sent, Side::Server), b"longer than the otherabcdefghij");
}

#[test]
fn a_client_that_closes_before_its_first_byte_after_a_failure_has_said_nothing() {
    let mut bench = asked(plain_options(), b"", false, PREFIX);
    bench.sent();
    bench.raw(Side::Server, &Segment { ack: ahead(P), flags: RST | ACK, ..Segment::default() });
    assert_eq!(bench.client(client(0), weir(0), FIN, b""), Event::Consumed);
    let fin = bench.only();
    assert_eq!((fin.to, fin.flags, fin.ack), (Side::Client, FIN, client(1).value()));
    assert_eq!(bench.client(client(1), weir(1), ACK, b""), Event::Ended(End::ClientClosed));
}

#[test]
fn a_fin_follows_the_prefix() {
    for bytes in [&b"hello"[..], b""] {
        let mut bench = asked(plain_options(), bytes, false, PREFIX);
        let end = bytes.len() as u32;
        assert_eq!(bench.client(client(end), weir(0), FIN, b""), Event::Consumed);
        bench.sent();
        answer(&mut bench, ahead(P), plain_options());
        let sent = bench.only();
        assert_eq!((sent.payload, sent.flags), ([PREFIX, bytes].concat(), FIN | Flags::PSH));
        assert_eq!(bench.server(server(0), client(end), ACK, b""), Event::Consumed);
        assert_eq!(bench.timer().0, Event::Consumed);
        assert_eq!(bench.only().seq, client(end).value());
        assert_eq!(bench.server(server(0), client(end + 1), ACK, b""), Event::Spliced);
        assert_eq!(bench.only().ack, client(end + 1).value());
    }
}

#[test]
fn a_held_response_waits_for_the_prefix_like_for_any_byte() {
    let mut bench = asked(plain_options(), b"hello", true, PREFIX);
    bench.sent();
    answer(&mut bench, ahead(P), plain_options());
    assert_eq!(payloads(&bench.sent(), Side::Server), [PREFIX, b"hello"].concat());
    assert_eq!(bench.server(server(0), ahead(3), ACK, b"answer"), Event::Data(Side::Server));
    assert_eq!(bench.binding.payload(Side::Server), b"answer");
    bench.binding.release_response(bench.now);
    let sent = bench.sent();
    let to_client: Vec<_> = sent.iter().filter(|sent| sent.to == Side::Client).collect();
    assert_eq!((to_client[0].payload.as_slice(), to_client[0].ack), (&b"answer"[..], client(5).value()));
    assert_eq!(bench.client(client(5), weir(6), ACK, b""), Event::Consumed);
    assert_eq!(bench.server(server(6), client(5), ACK, b""), Event::Spliced);
}

#[test]
fn resets_have_the_servers_numbers() {
    // Before the server has answered, and while the prefix is on its way.
    let mut bench = asked(plain_options(), b"", false, PREFIX);
    bench.sent();
    assert_eq!(bench.client(client(0), weir(0), RST, b""), Event::Ended(End::ClientReset));
    assert_eq!(bench.only().seq, ahead(P).value());

    let mut bench = asked(plain_options(), b"hello", false, PREFIX);
    bench.sent();
    answer(&mut bench, ahead(P), plain_options());
    bench.sent();
    bench.binding.close(bench.now, true);
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].seq, sent[0].ack), (Side::Client, weir(0).value(), client(5).value()));
    assert_eq!((sent[1].to, sent[1].seq), (Side::Server, client(5).value()));

    let mut bench = asked(plain_options(), b"", false, PREFIX);
    bench.sent();
    answer(&mut bench, ahead(P), plain_options());
    bench.sent();
    assert_eq!(bench.server(server(0), ahead(P), RST, b""), Event::Ended(End::ServerReset));
    assert_eq!((bench.only().to, bench.binding.poll_timeout()), (Side::Client, None));
}

#[test]
fn a_server_that_never_takes_the_prefix_is_given_up() {
    let mut bench = asked(plain_options(), b"", false, PREFIX);
    bench.sent();
    answer(&mut bench, ahead(P), plain_options());
    let mut ended = Event::Consumed;
    while ended == Event::Consumed {
        bench.sent();
        ended = bench.timer().0;
    }
    assert_eq!(ended, Event::Ended(End::ReplayTimeout));
}

#[test]
fn smaller_segments_are_asked_for_by_numbers_in_the_prefix_too() {
    let mut bench = asked(plain_options(), &[b'x'; 1000], false, PREFIX);
    bench.sent();
    answer(&mut bench, ahead(P), plain_options());
    assert_eq!(bench.only().payload.len(), 1013);
    assert!(!bench.binding.reduce_mss(Side::Server, ahead(P + 1), 500));
    assert!(bench.binding.reduce_mss(Side::Server, ahead(P), 500));
    assert_eq!(bench.timer().0, Event::Consumed);
    assert_eq!(bench.only().payload.len(), 500);
}

/// The client's own header: `count` bytes that the server does not get.
fn skipped(bytes: &[u8], count: u32) -> Bench {
    let mut bench = Bench::established(full_options());
    assert_eq!(bench.client(client(0), weir(0), ACK, bytes), Event::Data(Side::Client));
    bench.binding.skip(count as usize);
    bench
}

#[test]
fn what_is_skipped_is_acknowledged_and_never_reaches_the_server() {
    let mut bench = skipped(b"HEADERhello", 6);
    assert_eq!(bench.binding.payload(Side::Client), b"hello");
    let ack = bench.only();
    assert_eq!(ack.ack, client(11).value());
    // 10,000 bytes of room behind the header.
    let edge = 11 + (u32::from(ack.window) << 7);
    assert!((10_006..10_134).contains(&edge), "{edge}");
    bench.binding.connect(bench.now, false, &[]);
    assert_eq!(bench.only().seq, client(5).value());
    // The client has not heard the acknowledgement and repeats everything, with more behind it.
    assert_eq!(bench.client(client(0), weir(0), ACK, b"HEADERhello, you"), Event::Consumed);
    bench.sent();
    assert_eq!(answer(&mut bench, client(6), full_options()), Event::Consumed);
    let sent = bench.only();
    assert_eq!((sent.seq, sent.payload.as_slice()), (client(6).value(), &b"hello, you"[..]));
    assert_eq!(bench.server(server(0), client(16), ACK, b""), Event::Spliced);
    assert_eq!(bench.only().ack, client(16).value());
}

#[test]
fn a_header_alone_leaves_an_empty_payload() {
    let mut bench = skipped(b"HEADER", 6);
    bench.sent();
    assert_eq!(bench.binding.payload(Side::Client), b"");
    assert_eq!(bench.client(client(6), weir(0), ACK, b"hi"), Event::Data(Side::Client));
    assert_eq!(bench.binding.payload(Side::Client), b"hi");

    let mut bench = skipped(b"HEADER", 6);
    bench.sent();
    bench.binding.connect(bench.now, false, &[]);
    bench.sent();
    assert_eq!(answer(&mut bench, client(6), full_options()), Event::Spliced);

    let mut bench = skipped(b"HEADER", 6);
    bench.sent();
    assert_eq!(bench.client(client(6), weir(0), FIN, b""), Event::Consumed);
    assert_eq!((bench.only().flags, bench.binding.is_established()), (FIN, true));
    assert_eq!(bench.client(client(7), weir(1), ACK, b""), Event::Ended(End::ClientClosed));
}

#[test]
fn no_more_is_skipped_than_there_is_and_nothing_at_the_wrong_time() {
    let mut bench = skipped(b"abc", 9);
    assert_eq!(bench.binding.payload(Side::Client), b"");
    bench.client(client(3), weir(0), ACK, b"def");
    bench.binding.connect(bench.now, false, &[]);
    bench.binding.skip(2);
    assert_eq!(bench.binding.payload(Side::Client), b"def");
    bench.binding.connect(bench.now, false, PREFIX);
    bench.sent();
    assert_eq!(answer(&mut bench, client(3), full_options()), Event::Consumed, "asked for once");
}

#[test]
fn header_and_prefix_together_shift_by_the_difference() {
    for (header, prefix) in
        [(&b"long header"[..], &b"short"[..]), (b"short", b"a long prefix"), (b"same", b"size")]
    {
        let (h, p) = (header.len() as u32, prefix.len() as u32);
        let mut bench = skipped(&[header, b"hello"].concat(), h);
        bench.sent();
        bench.binding.connect(bench.now, false, prefix);
        let first = client(h).receded(p);
        assert_eq!(bench.only().seq, first.receded(1).value());
        assert_eq!(answer(&mut bench, first, full_options()), Event::Consumed);
        let sent = bench.only();
        assert_eq!((sent.seq, sent.payload), (first.value(), [prefix, b"hello"].concat()));
        assert_eq!(bench.server(server(0), client(h + 5), ACK, b""), Event::Spliced);
        // Refused once, the next one gets another prefix behind the same header.
        let mut bench = skipped(&[header, b"hello"].concat(), h);
        bench.binding.connect(bench.now, false, prefix);
        bench.sent();
        bench.raw(Side::Server, &Segment { ack: first, flags: RST | ACK, ..Segment::default() });
        bench.binding.connect(bench.now, false, PREFIX);
        assert_eq!(bench.only().seq, client(h).receded(P + 1).value());
        answer(&mut bench, client(h).receded(P), full_options());
        assert_eq!(payloads(&bench.sent(), Side::Server), [PREFIX, b"hello"].concat());
    }
}
