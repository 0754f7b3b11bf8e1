//! Each phase in virtual time, segment by segment.

mod closing;
mod connecting;
mod handshake;
mod hostile;
mod proxied;
mod replaying;
mod waiting;

use smoltcp::time::{Duration, Instant};

use crate::{Binding, Event, Flags, Limits, Options, Promise, Segment, SeqNumber, Side, Timestamps};

const CLIENT_ISN: u32 = u32::MAX - 2;
const ISN: u32 = 5000;
const SERVER_ISN: u32 = 900_000;
const OFFSET: u32 = 70_000;

const ACK: Flags = Flags::ACK;
const SYN: Flags = Flags::SYN;
const FIN: Flags = Flags(0x11);
const RST: Flags = Flags::RST;

/// A segment that was sent.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    to: Side,
    seq: u32,
    ack: u32,
    flags: Flags,
    window: u16,
    options: Options,
    payload: Vec<u8>,
}

/// A binding and the time.
struct Bench {
    now: Instant,
    binding: Binding,
    client_timestamps: bool,
    server_timestamps: bool,
    client_next: u32,
    server_next: u32,
}

fn limits() -> Limits {
    Limits {
        handshake_timeout: Duration::from_secs(10),
        first_payload_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(5),
        replay_timeout: Duration::from_secs(30),
        buffer: 10_000,
    }
}

fn promise() -> Promise {
    Promise { mss: 1460, window_scale: Some(7), sack: true, timestamps: true }
}

fn full_options() -> Options {
    Options {
        mss: Some(1400),
        window_scale: Some(3),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 100, echo: 0 }),
        ..Options::default()
    }
}

/// A plain client: MSS 1400 and nothing else.
fn plain_options() -> Options {
    Options { mss: Some(1400), ..Options::default() }
}

/// Client number of the stream's byte `offset`.
fn client(offset: u32) -> SeqNumber {
    SeqNumber::new(CLIENT_ISN).advanced(1 + offset)
}

fn server(offset: u32) -> SeqNumber {
    SeqNumber::new(SERVER_ISN).advanced(1 + offset)
}

/// weir's number towards the client.
fn weir(offset: u32) -> SeqNumber {
    SeqNumber::new(ISN).advanced(1 + offset)
}

impl Bench {
    /// A SYN has arrived; the SYN-ACK is not yet polled.
    fn with(options: Options, promise: &Promise, limits: &Limits) -> Bench {
        let client_timestamps = options.timestamps.is_some() && promise.timestamps;
        let syn = Segment { seq: CLIENT_ISN.into(), flags: SYN, window: 4000, options, ..Segment::default() };
        let now = Instant::from_secs(100);
        let binding = Binding::accept(now, &syn, promise, limits, ISN.into(), OFFSET);
        Bench {
            now,
            binding,
            client_timestamps,
            server_timestamps: false,
            client_next: 200,
            server_next: 150,
        }
    }

    /// The client is connected and nothing is left to be sent.
    fn established(options: Options) -> Bench {
        let mut bench = Bench::with(options, &promise(), &limits());
        bench.sent();
        assert_eq!(bench.client(client(0), weir(0), ACK, b""), Event::Established);
        assert_eq!(bench.sent(), []);
        bench
    }

    /// Both are connected; `bytes` of the client wait to be replayed. Nothing was polled since the server's SYN-ACK.
    fn connected(options: Options, server_options: Options, bytes: &[u8], hold: bool) -> Bench {
        let mut bench = Bench::established(options);
        if !bytes.is_empty() {
            assert_eq!(bench.client(client(0), weir(0), ACK, bytes), Event::Data(Side::Client));
        }
        bench.binding.connect(bench.now, hold, &[]);
        bench.sent();
        let event = bench.syn_ack(server_options);
        assert_eq!(event, if bytes.is_empty() && !hold { Event::Spliced } else { Event::Consumed });
        bench
    }

    fn syn_ack(&mut self, options: Options) -> Event {
        self.server_timestamps = options.timestamps.is_some() && self.client_timestamps;
        let segment = Segment {
            seq: SERVER_ISN.into(),
            ack: client(0),
            flags: SYN | ACK,
            window: 3000,
            options,
            ..Segment::default()
        };
        self.binding.handle_segment(self.now, Side::Server, &segment)
    }

    fn client(&mut self, seq: SeqNumber, ack: SeqNumber, flags: Flags, payload: &[u8]) -> Event {
        let options =
            if self.client_timestamps { timestamps(self.client_next, 1) } else { Options::default() };
        self.raw(Side::Client, &Segment { seq, ack, flags, window: 500, options, urgent: 0, payload })
    }

    fn server(&mut self, seq: SeqNumber, ack: SeqNumber, flags: Flags, payload: &[u8]) -> Event {
        let options =
            if self.server_timestamps { timestamps(self.server_next, 1) } else { Options::default() };
        self.raw(Side::Server, &Segment { seq, ack, flags, window: 3000, options, urgent: 0, payload })
    }

    fn raw(&mut self, from: Side, segment: &Segment<'_>) -> Event {
        self.binding.handle_segment(self.now, from, segment)
    }

    /// Everything that is to be sent now.
    fn sent(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sent) = self.poll() {
            all.push(sent);
            assert!(all.len() < 1000, "endless output");
        }
        all
    }

    /// The next segment that is to be sent. Where none is wanted, asking for it gives none and changes nothing.
    fn poll(&mut self) -> Option<Sent> {
        let idle = (!self.binding.wants_transmit()).then(|| format!("{:?}", self.binding));
        let sent = self.binding.poll_transmit(self.now).map(|transmit| {
            let segment = transmit.segment;
            Sent {
                to: transmit.to,
                seq: segment.seq.value(),
                ack: segment.ack.value(),
                flags: segment.flags,
                window: segment.window,
                options: segment.options,
                payload: segment.payload.to_vec(),
            }
        });
        if let Some(before) = idle {
            assert_eq!(sent, None, "not wanted");
            assert_eq!(format!("{:?}", self.binding), before);
        }
        sent
    }

    /// The one segment that is to be sent now.
    fn only(&mut self) -> Sent {
        let mut all = self.sent();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// Lets time pass to the next timer; what it meant, and how many milliseconds that took.
    fn timer(&mut self) -> (Event, u64) {
        let at = self.binding.poll_timeout().unwrap();
        let waited = (at - self.now).total_millis();
        self.now = at;
        (self.binding.handle_timeout(at), waited)
    }
}

fn timestamps(value: u32, echo: u32) -> Options {
    Options { timestamps: Some(Timestamps { value, echo }), ..Options::default() }
}

#[test]
fn a_binding_is_as_small_as_it_says() {
    assert!(size_of::<Binding>() <= 704, "{}", size_of::<Binding>());
    assert_eq!(size_of::<crate::Splice>(), 20);
}

/// Whatever a binding went through before: it begins as a new one does.
#[test]
fn a_binding_that_accepts_again_is_as_good_as_new() {
    let syn =
        Segment { seq: 7.into(), flags: SYN, window: 500, options: plain_options(), ..Segment::default() };
    let other = Promise { mss: 900, window_scale: None, sack: false, timestamps: false };
    let limited = Limits { buffer: 3000, ..limits() };
    let at = Instant::from_secs(50);
    let new = Binding::accept(at, &syn, &other, &limited, 11.into(), 13);
    let mut held = Bench::connected(full_options(), full_options(), b"bytes of the client", true);
    held.server(server(0), client(0), ACK, b"a part of the answer");
    held.server(server(100), client(0), ACK, b"beyond a hole");
    let mut closing = Bench::established(plain_options());
    closing.client(client(0), weir(0), ACK, &[b'x'; 3000]);
    closing.binding.close(closing.now, false);
    let fresh = Bench::with(full_options(), &promise(), &limits());
    for mut bench in [held, closing, fresh] {
        bench.sent();
        bench.binding.retire();
        bench.binding.accept_again(at, &syn, &other, &limited, 11.into(), 13);
        assert_eq!(format!("{:?}", bench.binding), format!("{new:?}"));
    }
}
