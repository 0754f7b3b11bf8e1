use super::*;
use crate::{End, SackBlock};

#[test]
fn out_of_order_data_is_reported_by_sack_and_the_first_copy_stays() {
    let mut bench = Bench::established(full_options());
    assert_eq!(bench.client(client(4), weir(0), ACK, b"efgh"), Event::Consumed);
    let sent = bench.only();
    assert_eq!((sent.ack, sent.flags), (client(0).value(), ACK));
    assert_eq!(sent.options.sack.as_slice(), &[SackBlock { left: client(4), right: client(8) }]);
    assert_eq!(bench.client(client(12), weir(0), ACK, b"mn"), Event::Consumed);
    let blocks = bench.only().options.sack;
    assert_eq!(blocks.first(), Some(&SackBlock { left: client(12), right: client(14) }));
    assert_eq!(blocks.len(), 2);
    assert_eq!(bench.client(client(0), weir(0), ACK, b"abcdXXXXij"), Event::Data(Side::Client));
    assert_eq!(bench.binding.payload(Side::Client), b"abcdefghij");
    assert_eq!(bench.only().ack, client(10).value());
}

#[test]
fn no_sack_unless_agreed() {
    let mut bench = Bench::established(plain_options());
    bench.client(client(4), weir(0), ACK, b"efgh");
    assert_eq!(bench.only().options, Options::default());
}

#[test]
fn the_right_edge_of_the_window_stays_and_probes_are_answered() {
    let mut bench = Bench::established(full_options());
    let mut next = 0;
    let chunk = [7u8; 997];
    while next < 10_000 {
        bench.client(client(next), weir(0), ACK, &chunk);
        let sent = bench.only();
        next = sent.ack.wrapping_sub(client(0).value());
        let edge = next + (u32::from(sent.window) << 7);
        assert!((10_000..10_128).contains(&edge), "{edge}");
    }
    assert_eq!(bench.client(client(next), weir(0), ACK, b""), Event::Consumed);
    bench.advance(5);
    assert_eq!(bench.client(client(next), weir(0), ACK, b"x"), Event::Rejected);
    let sent = bench.only();
    assert_eq!((sent.ack, sent.window), (client(next).value(), 0));
    assert!(bench.binding.payload(Side::Client).len() <= 10_127);
}

#[test]
fn an_unscaled_window_ends_exactly_at_the_buffer() {
    let mut bench = Bench::established(plain_options());
    for n in 0..10 {
        bench.client(client(n * 1100), weir(0), ACK, &[1; 1100]);
    }
    let sent = bench.sent().pop().unwrap();
    assert_eq!((sent.ack, sent.window), (client(10_000).value(), 0));
    assert_eq!(bench.binding.payload(Side::Client).len(), 10_000);
}

#[test]
fn a_client_that_leaves_too_many_holes_is_asked_again() {
    let mut bench = Bench::established(plain_options());
    for n in 1..=32 {
        assert_eq!(bench.client(client(n * 10), weir(0), ACK, b"x"), Event::Consumed);
    }
    assert_eq!(bench.client(client(400), weir(0), ACK, b"x"), Event::Rejected);
    assert_eq!(bench.only().ack, client(0).value());
    assert_eq!(bench.client(client(0), weir(0), ACK, &[b'y'; 400]), Event::Data(Side::Client));
    assert_eq!(bench.client(client(400), weir(0), ACK, b"x"), Event::Data(Side::Client));
}

#[test]
fn blind_resets_and_syns_are_challenged() {
    let mut bench = Bench::established(plain_options());
    for (offset, flags) in [(1, RST), (0, SYN), (5, SYN | ACK), (9_999, RST)] {
        assert_eq!(bench.client(client(offset), weir(0), flags, b""), Event::Rejected);
        let sent = bench.only();
        assert_eq!((sent.flags, sent.ack, sent.seq), (ACK, client(0).value(), weir(0).value()));
    }
    assert_eq!(bench.client(client(20_000), weir(0), RST, b""), Event::Rejected);
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.client(client(0), weir(0), RST, b""), Event::Ended(End::ClientReset));
    assert_eq!(bench.sent(), []);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_challenged() {
    let mut bench = Bench::established(plain_options());
    for ack in [weir(1), weir(0).receded(5000)] {
        assert_eq!(bench.client(client(0), ack, ACK, b"evil"), Event::Rejected);
        assert_eq!(bench.only().flags, ACK);
    }
    assert_eq!(bench.client(client(0), weir(0), Flags::PSH, b"evil"), Event::Rejected);
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.binding.payload(Side::Client), b"");
}

#[test]
fn old_and_missing_timestamps_are_refused() {
    let mut bench = Bench::established(full_options());
    let old = Segment {
        seq: client(0),
        ack: weir(0),
        flags: ACK,
        options: timestamps(199, 1),
        payload: b"old",
        ..Segment::default()
    };
    assert_eq!(bench.raw(Side::Client, &old), Event::Rejected);
    assert_eq!(bench.only().ack, client(0).value());
    let none = Segment { options: Options::default(), ..old };
    assert_eq!(bench.raw(Side::Client, &none), Event::Rejected);
    assert_eq!(bench.sent(), []);
    bench.client_next = 300;
    assert_eq!(bench.client(client(0), weir(0), ACK, b"new"), Event::Data(Side::Client));
    assert_eq!(bench.only().options.timestamps, Some(Timestamps { value: 100_000 + OFFSET, echo: 300 }));
}

#[test]
fn a_fin_without_a_byte_closes() {
    let mut bench = Bench::established(full_options());
    assert_eq!(bench.client(client(0), weir(0), FIN, b""), Event::Consumed);
    let sent = bench.only();
    assert_eq!((sent.flags, sent.seq, sent.ack), (FIN, weir(0).value(), client(1).value()));
    bench.now = bench.binding.poll_timeout().unwrap();
    assert_eq!(bench.binding.handle_timeout(bench.now), Event::Consumed);
    assert_eq!(bench.only().flags, FIN, "lost, and sent again");
    assert_eq!(bench.client(client(1), weir(1), ACK, b""), Event::Ended(End::ClientClosed));
    assert_eq!(bench.binding.poll_timeout(), None);
}

#[test]
fn a_fin_with_or_after_bytes_is_left_to_the_caller() {
    let mut bench = Bench::established(full_options());
    assert_eq!(bench.client(client(3), weir(0), FIN, b"def"), Event::Consumed);
    assert!(!bench.binding.client_finished());
    assert_eq!(bench.client(client(0), weir(0), ACK, b"abc"), Event::Data(Side::Client));
    assert!(bench.binding.client_finished());
    assert_eq!(bench.only().ack, client(7).value());
    assert_eq!(bench.client(client(3), weir(0), FIN, b"def"), Event::Rejected);

    let mut bench = Bench::established(full_options());
    bench.client(client(0), weir(0), ACK, b"abc");
    assert!(!bench.binding.client_finished());
    assert_eq!(bench.client(client(3), weir(0), FIN, b""), Event::Data(Side::Client));
    assert!(bench.binding.client_finished());
}

#[test]
fn without_a_decision_the_client_is_reset() {
    let mut bench = Bench::established(plain_options());
    bench.client(client(0), weir(0), ACK, b"abc");
    bench.sent();
    assert_eq!(bench.timer(), (Event::Ended(End::FirstPayloadTimeout), 20_000));
    let sent = bench.only();
    assert_eq!((sent.flags, sent.seq, sent.ack), (RST | ACK, weir(0).value(), client(3).value()));
    bench.binding.connect(bench.now, false, &[]);
    assert_eq!(bench.sent(), []);
}

#[test]
fn a_late_decision_still_counts_before_the_reset_is_sent() {
    let mut bench = Bench::established(plain_options());
    assert_eq!(bench.timer().0, Event::Ended(End::FirstPayloadTimeout));
    bench.binding.connect(bench.now, false, &[]);
    let sent = bench.only();
    assert_eq!((sent.to, sent.flags), (Side::Server, SYN));
}
