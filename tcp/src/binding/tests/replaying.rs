use super::*;
use crate::{End, SackBlock};

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| n as u8).collect()
}

/// The packet as it goes on, translated.
fn forwarded(bench: &Bench, from: Side, segment: &Segment<'_>) -> (SeqNumber, SeqNumber, u16) {
    let mut wire = vec![0; segment.wire_len()];
    segment.emit(1, 2, &mut wire).unwrap();
    bench.binding.splice().apply(from, &mut wire).unwrap();
    let parsed = Segment::parse(&wire).unwrap();
    (parsed.seq, parsed.ack, parsed.window)
}

#[test]
fn segments_fit_the_server_and_the_last_one_splices() {
    let small =
        Options { mss: Some(512), timestamps: Some(Timestamps { value: 40, echo: 1 }), ..Options::default() };
    let data = bytes(1200);
    let mut bench = Bench::connected(full_options(), small, &data, false);
    let sent = bench.sent();
    let lengths: Vec<_> = sent.iter().map(|s| (s.to, s.payload.len())).collect();
    let (c, s) = (Side::Client, Side::Server);
    assert_eq!(lengths, [(s, 500), (s, 500), (s, 200)]);
    assert_eq!(sent.iter().flat_map(|s| s.payload.clone()).collect::<Vec<_>>(), data);
    assert_eq!(sent[0].flags, ACK);
    assert_eq!(
        (sent[2].flags, sent[2].seq, sent[2].ack),
        (ACK | Flags::PSH, client(1000).value(), server(0).value())
    );
    assert_eq!(sent[2].options, timestamps(200, 40));
    assert_eq!(bench.server(server(0), client(500), ACK, b""), Event::Consumed);
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.server(server(0), client(1200), ACK, b""), Event::Spliced);
    let update = bench.only();
    assert_eq!((update.to, update.seq, update.ack), (c, weir(0).value(), client(1200).value()));
    assert_eq!(update.window, 3000 >> 7);
    assert_eq!(bench.server(server(0), client(1200), ACK, b"x"), Event::Forward);
}

#[test]
fn lost_segments_are_sent_again_until_nobody_answers() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    let first = bench.only();
    for wait in [1000, 2000, 4000, 8000] {
        assert_eq!(bench.timer(), (Event::Consumed, wait));
        assert_eq!(bench.only(), first);
    }
    assert_eq!(bench.timer(), (Event::Ended(End::ReplayTimeout), 15_000));
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].flags, sent[0].ack), (Side::Client, RST | ACK, client(5).value()));
    assert_eq!((sent[1].to, sent[1].flags, sent[1].seq), (Side::Server, RST | ACK, client(5).value()));
}

#[test]
fn more_client_data_during_the_replay_is_replayed_too() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    assert_eq!(bench.client(client(5), weir(0), FIN, b" world"), Event::Consumed);
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].payload.as_slice()), (Side::Server, &b" world"[..]));
    assert_eq!(sent[0].flags, FIN | Flags::PSH);
    assert_eq!((sent[1].to, sent[1].ack), (Side::Client, client(12).value()));
    assert_eq!(bench.server(server(0), client(11), ACK, b""), Event::Consumed);
    assert_eq!(bench.timer().0, Event::Consumed);
    let fin = bench.only();
    assert_eq!((fin.flags, fin.seq, fin.payload.len()), (FIN, client(11).value(), 0));
    assert_eq!(bench.server(server(0), client(12), ACK, b""), Event::Spliced);
}

#[test]
fn an_early_answer_passes_and_its_acknowledgement_comes_back() {
    let mut bench = Bench::connected(full_options(), full_options(), &bytes(3000), false);
    bench.sent();
    bench.server_next = 130;
    let answer = Segment {
        seq: server(0),
        ack: client(1388),
        flags: ACK,
        window: 3000,
        options: timestamps(130, 200),
        payload: b"early",
        ..Segment::default()
    };
    assert_eq!(bench.raw(Side::Server, &answer), Event::Forward);
    let (seq, ack, window) = forwarded(&bench, Side::Server, &answer);
    assert_eq!((seq, ack), (weir(0), client(3000)));
    assert_eq!(u32::from(window), 7000u32.div_ceil(128));
    bench.sent();
    // The client acknowledges, with a SACK block for something later.
    let block = SackBlock { left: weir(9), right: weir(12) };
    let mut options = timestamps(210, 7);
    options.sack.push(block);
    let segment =
        Segment { seq: client(3000), ack: weir(5), flags: ACK, window: 400, options, ..Segment::default() };
    assert_eq!(bench.raw(Side::Client, &segment), Event::Consumed);
    let relayed = bench.only();
    assert_eq!((relayed.to, relayed.ack, relayed.window), (Side::Server, server(5).value(), 400));
    assert_eq!(relayed.options.timestamps, Some(Timestamps { value: 210, echo: 130 }));
    assert_eq!(relayed.options.sack.as_slice(), &[SackBlock { left: server(9), right: server(12) }]);
    // The same data again, whose acknowledgement was lost: weir answers by itself.
    assert_eq!(bench.raw(Side::Server, &answer), Event::Rejected);
    assert_eq!(bench.only().ack, server(5).value());
}

#[test]
fn a_packet_that_passes_may_be_the_one_that_ends_the_replay() {
    let mut bench = Bench::connected(full_options(), full_options(), b"hello", false);
    bench.sent();
    let answer = Segment {
        seq: server(0),
        ack: client(5),
        flags: ACK,
        window: 3000,
        options: timestamps(130, 200),
        payload: b"all",
        ..Segment::default()
    };
    assert_eq!(bench.raw(Side::Server, &answer), Event::Forward);
    assert!(bench.binding.is_spliced());
    assert_eq!(forwarded(&bench, Side::Server, &answer), (weir(0), client(5), 3000 >> 4));
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.client(client(5), weir(3), ACK, b"more"), Event::Forward);
    assert_eq!(bench.timer(), (Event::Spliced, 0));
    assert_eq!(bench.binding.poll_timeout(), None);
}

#[test]
fn the_client_sees_one_clock_that_never_goes_back() {
    let mut bench = Bench::established(full_options());
    bench.advance(700);
    bench.client(client(0), weir(0), ACK, b"hello");
    let before = bench.only().options.timestamps.unwrap().value;
    bench.binding.connect(bench.now, false, &[]);
    bench.sent();
    bench.advance(50);
    let slow = Options { timestamps: Some(Timestamps { value: 3_000_000_000, echo: 200 }), ..full_options() };
    bench.syn_ack(slow);
    bench.sent();
    bench.advance(4000);
    bench.client_next = 5000;
    bench.client(client(5), weir(0), ACK, b"!");
    let after = bench.sent().pop().unwrap().options.timestamps.unwrap();
    assert_eq!((after.value, after.echo), (before + 50, 5000));
    let segment = Segment { flags: ACK, options: timestamps(3_000_000_010, 5000), ..Segment::default() };
    let mut wire = vec![0; segment.wire_len()];
    segment.emit(1, 2, &mut wire).unwrap();
    bench.binding.splice().apply(Side::Server, &mut wire).unwrap();
    let shown = Segment::parse(&wire).unwrap().options.timestamps.unwrap();
    assert_eq!(shown, Timestamps { value: before + 60, echo: 5000 });
}

#[test]
fn data_beyond_a_hole_delays_the_splice_but_does_not_prevent_it() {
    let mut bench = Bench::connected(full_options(), full_options(), b"hello", false);
    bench.client(client(10), weir(0), ACK, b"later");
    bench.sent();
    assert_eq!(bench.server(server(0), client(5), ACK, b""), Event::Consumed);
    assert_eq!(bench.timer(), (Event::Spliced, 30_000));
    assert_eq!(bench.binding.splice().flags, crate::splice::TIMESTAMPS);
}

#[test]
fn resets_reach_the_other_side() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    assert_eq!(bench.server(server(9), client(0), RST, b""), Event::Rejected);
    assert_eq!(bench.only().to, Side::Server);
    assert_eq!(bench.server(server(0), client(0), RST, b""), Event::Ended(End::ServerReset));
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.flags), (Side::Client, weir(0).value(), RST | ACK));

    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    assert_eq!(bench.client(client(5), weir(0), RST, b""), Event::Ended(End::ClientReset));
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.ack), (Side::Server, client(5).value(), server(0).value()));
}

#[test]
fn a_client_that_is_done_may_reset_what_comes_late() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.client(client(5), weir(0), FIN, b"");
    bench.sent();
    assert_eq!(bench.server(server(0), client(0), FIN, b""), Event::Forward);
    assert_eq!(bench.client(client(6), weir(1), ACK, b""), Event::Consumed);
    assert_eq!(bench.client(client(6), weir(1), RST, b""), Event::Rejected);
    bench.sent();
    assert_eq!(bench.server(server(1), client(6), ACK, b""), Event::Spliced);
}

#[test]
fn a_probe_of_the_servers_passes_a_window_that_the_client_may_have_opened() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    let closed = Segment { seq: client(5), ack: weir(0), flags: ACK, ..Segment::default() };
    bench.raw(Side::Client, &closed);
    assert_eq!((bench.only().window, bench.sent().len()), (0, 0));
    // The client had 4000 bytes to offer once: data is taken up to there.
    assert_eq!(bench.server(server(4000), client(0), ACK, b"x"), Event::Rejected);
    assert_eq!(bench.server(server(0).receded(1), client(0), ACK, b""), Event::Forward);
}

#[test]
fn a_held_response_waits_and_is_delivered() {
    let mut bench = Bench::connected(full_options(), full_options(), b"hello", true);
    bench.sent();
    let first = bench.server(server(0), client(5), ACK, b"response");
    assert_eq!(first, Event::Data(Side::Server));
    assert_eq!(bench.binding.payload(Side::Server), b"response");
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].window), (Side::Client, 3000 >> 4));
    assert_eq!((sent[1].to, sent[1].ack, sent[1].window), (Side::Server, server(8).value(), (4000 - 8) / 8));
    assert_eq!(bench.binding.poll_timeout(), None);
    // Client data passes meanwhile, acknowledging what weir has acknowledged.
    let more = Segment {
        seq: client(5),
        ack: weir(0),
        flags: ACK,
        window: 500,
        options: timestamps(200, 1),
        payload: b"more",
        ..Segment::default()
    };
    assert_eq!(bench.raw(Side::Client, &more), Event::Forward);
    assert_eq!(forwarded(&bench, Side::Client, &more), (client(5), server(8), 499));
    assert_eq!(bench.server(server(8), client(9), FIN, b"!"), Event::Data(Side::Server));
    assert!(bench.binding.finished(Side::Server));
    bench.sent();
    bench.binding.release_response(bench.now);
    let sent = bench.only();
    assert_eq!((sent.to, sent.payload.as_slice()), (Side::Client, &b"response!"[..]));
    assert_eq!((sent.seq, sent.ack, sent.flags), (weir(0).value(), client(9).value(), FIN | Flags::PSH));
    assert_eq!(bench.timer().0, Event::Consumed);
    assert_eq!(bench.only(), sent);
    assert_eq!(bench.client(client(9), weir(10), ACK, b""), Event::Spliced);
}

#[test]
fn releasing_an_empty_response_splices() {
    let mut bench = Bench::connected(full_options(), full_options(), b"", true);
    bench.sent();
    bench.binding.release_response(bench.now);
    assert!(bench.binding.is_spliced());
    assert_eq!(bench.timer(), (Event::Spliced, 0));
    let mut early = Bench::established(full_options());
    early.binding.connect(early.now, true, &[]);
    early.binding.release_response(early.now);
    assert_eq!(early.syn_ack(full_options()), Event::Spliced);
}

#[test]
fn only_what_goes_out_once_more_says_so() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    let again = |bench: &mut Bench| -> Vec<bool> {
        std::iter::from_fn(|| bench.binding.poll_transmit(bench.now).map(|transmit| transmit.again)).collect()
    };
    assert_eq!(again(&mut bench), [false]);
    bench.timer();
    assert_eq!(again(&mut bench), [true]);
    bench.client(client(0), weir(0), ACK, b"hello");
    assert_eq!(again(&mut bench), [false]);
    bench.binding.connect(bench.now, false, &[]);
    assert_eq!(again(&mut bench), [false]);
    bench.timer();
    assert_eq!(again(&mut bench), [true]);
    bench.syn_ack(plain_options());
    assert_eq!(again(&mut bench), [false]);
    bench.timer();
    assert_eq!(again(&mut bench), [true]);
}

#[test]
fn an_acknowledgement_after_the_splice_does_not_take_back_the_window_of_a_packet_before_it() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    let ack = Segment { seq: server(0), ack: client(5), flags: ACK, window: 0, ..Segment::default() };
    assert_eq!(bench.raw(Side::Server, &ack), Event::Spliced);
    let late = Segment { seq: server(1), ack: client(4), window: 2048, ..ack };
    assert_eq!(bench.raw(Side::Server, &late), Event::Forward);
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.ack), (Side::Client, weir(1).value(), client(5).value()));
    assert_eq!(sent.window, 2048);
}

#[test]
fn a_packet_that_passes_after_the_splice_says_what_weir_still_had_to() {
    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    let ack = Segment { seq: server(0), ack: client(5), flags: ACK, window: 1024, ..Segment::default() };
    assert_eq!(bench.raw(Side::Server, &ack), Event::Spliced);
    let fin = Segment { flags: FIN, ..ack };
    assert_eq!(bench.raw(Side::Server, &fin), Event::Forward);
    assert!(bench.sent().is_empty());
}
