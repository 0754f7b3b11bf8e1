use super::*;
use crate::End;

#[test]
fn a_reset_goes_out_and_is_reported_at_once() {
    let mut bench = Bench::established(plain_options());
    bench.client(client(0), weir(0), ACK, b"abc");
    bench.binding.close(bench.now, true);
    let sent = bench.only();
    assert_eq!((sent.to, sent.flags), (Side::Client, RST | ACK));
    assert_eq!((sent.seq, sent.ack), (weir(0).value(), client(3).value()));
    assert_eq!(bench.timer(), (Event::Ended(End::Closed), 0));
    assert_eq!(bench.binding.poll_timeout(), None);
}

#[test]
fn a_fin_is_repeated_until_both_directions_are_closed() {
    let mut bench = Bench::established(full_options());
    bench.client(client(0), weir(0), ACK, b"abc");
    bench.binding.close(bench.now, false);
    let fin = bench.only();
    assert_eq!((fin.flags, fin.seq, fin.ack), (FIN, weir(0).value(), client(3).value()));
    assert_eq!(bench.timer(), (Event::Consumed, 1000));
    assert_eq!(bench.only(), fin.clone().at_clock(&bench));
    assert_eq!(bench.client(client(3), weir(1), ACK, b"tail"), Event::Consumed);
    assert_eq!(bench.only().ack, client(7).value());
    assert_eq!(bench.client(client(7), weir(1), FIN, b""), Event::Ended(End::Closed));
    let last = bench.only();
    assert_eq!((last.flags, last.seq, last.ack), (ACK, weir(1).value(), client(8).value()));
    assert_eq!(bench.binding.poll_timeout(), None);
}

#[test]
fn a_client_that_never_closes_is_reset_in_the_end() {
    let mut bench = Bench::established(plain_options());
    bench.binding.close(bench.now, false);
    bench.sent();
    assert_eq!(bench.client(client(0), weir(1), ACK, b""), Event::Consumed);
    assert_eq!(bench.timer(), (Event::Ended(End::Closed), 30_000));
    assert_eq!(bench.only().flags, RST | ACK);
}

#[test]
fn a_server_that_was_asked_for_is_reset() {
    let mut bench = Bench::established(plain_options());
    bench.binding.connect(bench.now, false, &[]);
    bench.binding.close(bench.now, false);
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].flags, sent[0].seq), (Side::Server, RST, client(0).value()));
    assert_eq!((sent[1].to, sent[1].flags), (Side::Client, FIN));
    assert_eq!(sent.len(), 2);

    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", true);
    bench.sent();
    bench.server(server(0), client(5), ACK, b"secret");
    bench.binding.close(bench.now, false);
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].flags, sent[0].ack), (Side::Server, RST | ACK, server(6).value()));
    assert_eq!((sent[1].to, sent[1].flags, sent[1].payload.len()), (Side::Client, FIN, 0));
    assert_eq!(bench.server(server(6), client(5), ACK, b"late"), Event::Rejected);
    let late = bench.only();
    assert_eq!((late.to, late.flags, late.seq), (Side::Server, RST, client(5).value()));
}

#[test]
fn a_client_in_its_handshake_and_one_that_is_owed_bytes_are_reset() {
    let mut bench = Bench::with(plain_options(), &promise(), &limits());
    bench.binding.close(bench.now, false);
    assert_eq!(bench.only().flags, RST | ACK);

    let mut bench = Bench::connected(plain_options(), plain_options(), b"hello", false);
    bench.sent();
    bench.server(server(0), client(0), ACK, b"half an answer");
    bench.binding.close(bench.now, false);
    let sent = bench.sent();
    assert_eq!((sent[0].to, sent[0].flags, sent[0].seq), (Side::Client, RST | ACK, weir(14).value()));
    assert_eq!((sent[1].to, sent[1].flags), (Side::Server, RST | ACK));
}

#[test]
fn closing_twice_changes_nothing_but_a_reset_may_follow() {
    let mut bench = Bench::established(plain_options());
    bench.binding.close(bench.now, false);
    assert_eq!(bench.only().flags, FIN);
    bench.binding.close(bench.now, false);
    assert_eq!(bench.sent(), []);
    bench.binding.close(bench.now, true);
    assert_eq!(bench.only().flags, RST | ACK);
    assert_eq!(bench.timer(), (Event::Ended(End::Closed), 0));
}

impl Sent {
    /// The same segment, sent at the time of `bench`.
    fn at_clock(mut self, bench: &Bench) -> Sent {
        if let Some(timestamps) = &mut self.options.timestamps {
            timestamps.value = (bench.now.total_millis() as u32).wrapping_add(OFFSET);
        }
        self
    }
}
