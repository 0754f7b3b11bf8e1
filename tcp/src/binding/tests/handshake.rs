use super::*;
use crate::End;

#[test]
fn the_syn_ack_offers_what_both_have() {
    let mut bench = Bench::with(full_options(), &promise(), &limits());
    let sent = bench.only();
    assert_eq!((sent.to, sent.seq, sent.ack), (Side::Client, ISN, CLIENT_ISN + 1));
    assert_eq!((sent.flags, sent.window), (SYN | ACK, 10_000));
    let clock = 100_000 + OFFSET;
    let expected = Options {
        mss: Some(1460),
        window_scale: Some(7),
        timestamps: Some(Timestamps { value: clock, echo: 100 }),
        ..full_options()
    };
    assert_eq!(sent.options, expected);

    let nothing = Promise { mss: 1000, window_scale: None, sack: false, timestamps: false };
    let mut bench = Bench::with(full_options(), &nothing, &limits());
    assert_eq!(bench.only().options, Options { mss: Some(1000), ..Options::default() });
    let mut bench = Bench::with(Options::default(), &promise(), &limits());
    assert_eq!(bench.only().options, Options { mss: Some(1460), ..Options::default() });
}

#[test]
fn the_syn_ack_is_repeated_until_the_timeout() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    let first = bench.only();
    for wait in [1000, 2000, 4000] {
        assert_eq!(bench.timer(), (Event::Consumed, wait));
        assert_eq!(bench.only(), first);
    }
    assert_eq!(bench.timer(), (Event::Ended(End::HandshakeTimeout), 3000));
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.binding.poll_timeout(), None);
    assert_eq!(bench.client(client(0), weir(0), ACK, b""), Event::Rejected);
}

#[test]
fn a_repeated_syn_is_answered_again() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    let first = bench.only();
    let syn = Segment { seq: CLIENT_ISN.into(), flags: SYN, window: 4000, ..Segment::default() };
    assert_eq!(bench.raw(Side::Client, &syn), Event::Consumed);
    assert_eq!(bench.only(), first);
    assert!(!bench.binding.is_established());
}

#[test]
fn a_wrong_acknowledgement_is_reset_and_the_handshake_goes_on() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    bench.sent();
    assert_eq!(bench.client(client(0), weir(7), ACK, b""), Event::Rejected);
    let sent = bench.only();
    assert_eq!((sent.seq, sent.flags), (weir(7).value(), RST));
    assert_eq!(bench.client(client(0), weir(0), ACK, b""), Event::Established);
    assert!(bench.binding.is_established());
}

#[test]
fn data_completes_the_handshake() {
    let mut bench = Bench::with(full_options(), &promise(), &limits());
    bench.sent();
    assert_eq!(bench.client(client(0), weir(0), ACK, b"hello"), Event::Data(Side::Client));
    assert!(bench.binding.is_established());
    assert_eq!(bench.binding.payload(Side::Client), b"hello");
    assert_eq!(bench.only().ack, client(5).value());
}

#[test]
fn data_ahead_of_lost_data_completes_the_handshake_too() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    bench.sent();
    assert_eq!(bench.client(client(10), weir(0), ACK, b"late"), Event::Established);
    assert_eq!(bench.only().ack, client(0).value());
    assert_eq!(bench.client(client(0), weir(0), ACK, b"0123456789"), Event::Data(Side::Client));
    assert_eq!(bench.binding.payload(Side::Client), b"0123456789late");
}

#[test]
fn only_an_exact_reset_ends_the_handshake() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    bench.sent();
    assert_eq!(bench.client(client(1), weir(0), RST, b""), Event::Rejected);
    assert_eq!(bench.client(client(0), weir(0), RST, b""), Event::Ended(End::ClientReset));
}
