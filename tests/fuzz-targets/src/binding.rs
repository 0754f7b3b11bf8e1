use smoltcp::time::{Duration, Instant};
use tcp::{Binding, Flags, Limits, Options, Promise, SackBlock, Segment, SeqNumber, Side, Timestamps};

use crate::input::Input;

/// Close to the wrap, so that every run crosses it.
const CLIENT_ISN: u32 = u32::MAX - 20;
const ISN: u32 = u32::MAX - 300;
const SERVER_ISN: u32 = 900_000;
const BUFFER: u32 = 10_000;
/// Largest of all that the two sides and the promise agree on, timestamps and SACK blocks included.
const MSS: usize = 1460;

/// A binding, the time, and what it has shown so far.
struct Bench {
    now: Instant,
    binding: Binding,
    /// The client's payload as it was seen last, from its first byte on.
    seen: Vec<u8>,
    /// How much of it was taken away.
    skipped: usize,
    /// What goes to the server ahead of it.
    prefix: Vec<u8>,
    /// After the splice, or the caller's `close`, the buffers may go.
    decided: bool,
}

/// Calls and segments of both sides in any order: output ends and keeps to MSS and buffer, a payload only grows, what
/// goes to the server is the payload, and left alone the binding comes to its end.
pub fn binding(data: &[u8]) {
    let mut input = Input(data);
    let now = Instant::from_secs(100);
    let mut bench = Bench {
        now,
        binding: accept(now, input.u8()),
        seen: Vec::new(),
        skipped: 0,
        prefix: Vec::new(),
        decided: false,
    };
    bench.check();
    let mut fill = 0;
    while !input.is_empty() {
        fill = u8::wrapping_add(fill, 1);
        bench.step(&mut input, fill);
        bench.check();
    }
    bench.run_out();
}

fn accept(now: Instant, choice: u8) -> Binding {
    let limits = Limits {
        handshake_timeout: Duration::from_secs(10),
        first_payload_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(5),
        replay_timeout: Duration::from_secs(30),
        buffer: BUFFER,
    };
    let promise = Promise {
        mss: MSS as u16,
        window_scale: (choice & 16 == 0).then_some(7),
        sack: choice & 32 == 0,
        timestamps: choice & 64 == 0,
    };
    let syn = Segment {
        seq: CLIENT_ISN.into(),
        flags: Flags::SYN,
        window: 4000,
        options: options(choice, 100),
        ..Segment::default()
    };
    Binding::accept(now, &syn, &promise, &limits, ISN.into(), 70_000)
}

fn options(choice: u8, clock: u32) -> Options {
    Options {
        mss: (choice & 1 == 0).then_some(1400),
        window_scale: (choice & 2 == 0).then_some(3),
        sack_permitted: choice & 4 == 0,
        timestamps: (choice & 8 == 0).then_some(Timestamps { value: clock, echo: 0 }),
        ..Options::default()
    }
}

/// Mostly near the point, at times anywhere.
fn near(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        255 => input.u32(),
        254 => u32::from(input.u16()).wrapping_sub(20_000),
        small => u32::from(small).wrapping_sub(3),
    }
}

impl Bench {
    fn step(&mut self, input: &mut Input<'_>, fill: u8) {
        match input.u8() % 16 {
            0 | 1 => self.connect(input.u8()),
            2 => self.binding.release_response(self.now),
            3 => {
                self.binding.close(self.now, input.u8() & 1 == 1);
                self.decided = true;
            }
            4 | 5 => {
                self.now += Duration::from_millis(u64::from(input.u16()) % 8000);
                self.binding.handle_timeout(self.now);
            }
            kind => self.segment(input, kind, fill),
        }
    }

    /// Asks for a server, now and then with something to be taken away before, or put in front.
    fn connect(&mut self, choice: u8) {
        let (skip, ahead) = (usize::from(choice >> 1 & 7) * 5, usize::from(choice >> 4) * 7);
        let before = self.binding.payload(Side::Client).len();
        self.binding.skip(skip);
        self.skipped += before - self.binding.payload(Side::Client).len();
        let prefix = vec![choice; ahead];
        self.binding.connect(self.now, choice & 1 == 1, &prefix);
        // The SYN tells whether this call has opened anything.
        let opens = self.binding.poll_transmit(self.now).is_some_and(|t| t.segment.flags == Flags::SYN);
        if opens {
            self.prefix = prefix;
        }
    }

    fn segment(&mut self, input: &mut Input<'_>, kind: u8, fill: u8) {
        let (from, base, peer) = match kind & 1 {
            0 => (Side::Client, CLIENT_ISN, ISN),
            _ => (Side::Server, SERVER_ISN, CLIENT_ISN),
        };
        let flags = match kind >> 1 {
            3 | 4 => Flags::ACK,
            5 => Flags::ACK | Flags::SYN,
            6 => Flags::ACK | Flags::FIN,
            _ => Flags(input.u8()),
        };
        let seq = SeqNumber::new(base).advanced(1).advanced(near(input));
        let ack = SeqNumber::new(peer).advanced(1).advanced(near(input));
        // What the server acknowledges begins with the prefix.
        let ack = if from == Side::Server { self.to_servers_numbers(ack) } else { ack };
        let mut options = options(input.u8(), 100 + u32::from(input.u8()));
        let length = usize::from(input.u16() % 3000);
        if length % 7 == 0 {
            options.sack.push(SackBlock { left: ack.advanced(5), right: ack.advanced(5 + u32::from(fill)) });
        }
        let payload = vec![fill; length];
        let window = input.u16();
        let segment = Segment { seq, ack, flags, window, urgent: 0, options, payload: &payload };
        self.binding.handle_segment(self.now, from, &segment);
        let _ = self.binding.splice();
    }

    fn to_servers_numbers(&self, seq: SeqNumber) -> SeqNumber {
        seq.advanced(self.skipped as u32).receded(self.prefix.len() as u32)
    }

    /// What must hold after every call.
    fn check(&mut self) {
        let mut payload = self.seen.get(..self.skipped).unwrap_or_default().to_vec();
        payload.extend_from_slice(self.binding.payload(Side::Client));
        self.decided |= self.binding.is_spliced();
        if !self.decided {
            assert!(
                payload.starts_with(&self.seen),
                "bytes changed or went: {} then {}",
                self.seen.len(),
                payload.len()
            );
            self.seen.clone_from(&payload);
        }
        for side in [Side::Client, Side::Server] {
            assert!(self.binding.payload(side).len() <= BUFFER as usize + 127);
        }
        let first = self.to_servers_numbers(SeqNumber::new(CLIENT_ISN).advanced(1));
        let mut bytes = vec![0; 2000];
        for count in 0.. {
            assert!(count < 300, "output does not end");
            let Some(transmit) = self.binding.poll_transmit(self.now) else { break };
            let segment = &transmit.segment;
            let length = segment.emit(1, 2, &mut bytes).expect("a segment of at most the MSS");
            let read = Segment::parse(&bytes[..length]).expect("what is sent can be read");
            let mut expected = segment.clone();
            // SACK blocks that do not fit beside the timestamps are left out.
            expected.options.sack.truncate(read.options.sack.len());
            assert_eq!(read, expected);
            assert!(segment.payload.len() + segment.options.wire_len() <= MSS);
            if transmit.to == Side::Server && !segment.payload.is_empty() {
                let offset = segment.seq.since(first) as usize;
                let stream = [&self.prefix, payload.get(self.skipped..).unwrap_or_default()].concat();
                let end = offset + segment.payload.len();
                assert_eq!(stream.get(offset..end), Some(segment.payload), "not what the client sent");
            }
        }
    }

    /// Left alone, it is over within its timers, or waits for a response that the caller wanted held.
    fn run_out(&mut self) {
        let start = self.now;
        while let Some(at) = self.binding.poll_timeout() {
            assert!(at - start < Duration::from_secs(200), "no end");
            self.now = self.now.max(at);
            self.binding.handle_timeout(self.now);
            self.check();
            assert!(self.binding.poll_timeout().is_none_or(|next| next > self.now), "a timer stands still");
        }
    }
}
