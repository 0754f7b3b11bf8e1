use super::*;
use crate::{ConnectFailure, End, Splice};

#[test]
fn the_syn_looks_like_the_clients() {
    let mut bench = Bench::established(full_options());
    bench.client(client(0), weir(0), ACK, b"abc");
    bench.sent();
    bench.binding.connect(bench.now, false, &[]);
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.flags), (Side::Server, CLIENT_ISN, SYN));
    // The client's window: 500 with a scale of 3.
    assert_eq!(sent.window, 4000);
    let expected =
        Options { mss: Some(1388), timestamps: Some(Timestamps { value: 200, echo: 0 }), ..full_options() };
    assert_eq!(sent.options, expected);
    assert_eq!(bench.binding.splice(), Splice::default());
}

#[test]
fn nothing_is_promised_to_the_server_that_the_client_does_not_have() {
    let mut bench = Bench::established(plain_options());
    bench.binding.connect(bench.now, true, &[]);
    assert_eq!(bench.only().options, plain_options());
}

#[test]
fn a_silent_server_is_tried_until_the_timeout_and_then_another_one() {
    let mut bench = Bench::established(plain_options());
    bench.binding.connect(bench.now, false, &[]);
    let first = bench.only();
    for wait in [1000, 2000] {
        assert_eq!(bench.timer(), (Event::Consumed, wait));
        assert_eq!(bench.only(), first);
    }
    assert_eq!(bench.timer(), (Event::ConnectFailed(ConnectFailure::Silent), 2000));
    assert_eq!(bench.sent(), []);
    bench.binding.connect(bench.now, false, &[]);
    assert_eq!(bench.only(), first);
    assert_eq!(bench.syn_ack(plain_options()), Event::Spliced);
}

#[test]
fn a_failure_that_nobody_acts_on_ends_by_timer() {
    let mut bench = Bench::established(plain_options());
    bench.binding.connect(bench.now, false, &[]);
    bench.sent();
    let refusal = Segment { ack: client(0), flags: RST | ACK, ..Segment::default() };
    assert_eq!(bench.raw(Side::Server, &refusal), Event::ConnectFailed(ConnectFailure::Refused));
    assert_eq!(bench.timer(), (Event::Ended(End::FirstPayloadTimeout), 20_000));
}

#[test]
fn forged_answers_do_not_count() {
    let mut bench = Bench::established(plain_options());
    bench.binding.connect(bench.now, false, &[]);
    bench.sent();
    for flags in [RST, RST | ACK, SYN, ACK, SYN | ACK] {
        let segment = Segment { seq: SERVER_ISN.into(), ack: client(5), flags, ..Segment::default() };
        assert_eq!(bench.raw(Side::Server, &segment), Event::Rejected);
    }
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.flags), (Side::Server, client(5).value(), RST));
    assert_eq!(bench.syn_ack(plain_options()), Event::Spliced);
}

#[test]
fn a_client_that_resets_takes_the_half_open_server_along() {
    let mut bench = Bench::established(plain_options());
    bench.binding.connect(bench.now, false, &[]);
    bench.sent();
    assert_eq!(bench.client(client(0), weir(0), RST, b""), Event::Ended(End::ClientReset));
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.flags), (Side::Server, client(0).value(), RST));
}

#[test]
fn without_bytes_the_splice_is_there_at_once() {
    let mut bench = Bench::connected(full_options(), full_options(), b"", false);
    assert!(bench.binding.is_spliced());
    let sent = bench.sent();
    assert_eq!(sent.len(), 2);
    // The window of the server, 3000, in the units that the client was promised; and the server's third segment.
    assert_eq!((sent[0].to, sent[0].seq, sent[0].window), (Side::Client, weir(0).value(), 3000 >> 7));
    assert_eq!((sent[1].to, sent[1].seq, sent[1].ack), (Side::Server, client(0).value(), server(0).value()));
    let splice = bench.binding.splice();
    assert_eq!(splice.to_client(server(5)), weir(5));
    assert_eq!(splice.to_server(weir(5)), server(5));
    assert_eq!((splice.server_mss(), splice.timestamps_missing_from(Side::Server)), (1400, false));
    assert_eq!((splice.window_to_client, splice.window_to_server), (3 - 7, 0));
}

#[test]
fn what_the_server_lacks_is_made_up_for() {
    let server_options = Options { mss: Some(500), ..Options::default() };
    let bench = Bench::connected(full_options(), server_options, b"", false);
    let splice = bench.binding.splice();
    assert!(splice.timestamps_missing_from(Side::Server));
    assert_eq!(splice.flags, crate::splice::TIMESTAMPS_MISSING | crate::splice::SACK_MISSING);
    // The server does not scale what it reads, nor what it says; the client does both.
    assert_eq!((splice.window_to_client, splice.window_to_server), (-7, 3));
    assert_eq!(splice.server_mss(), 500);
    assert_eq!(bench.binding.client_timestamp(), Some(200));
}

#[test]
fn a_server_that_offers_more_gets_no_more_than_was_asked_for() {
    let bench = Bench::connected(plain_options(), Options { mss: Some(9000), ..full_options() }, b"", false);
    let splice = bench.binding.splice();
    assert_eq!((splice.flags, splice.window_to_client, splice.window_to_server), (0, 0, 0));
    assert_eq!(splice.server_mss(), 0, "what was promised fits");
}
