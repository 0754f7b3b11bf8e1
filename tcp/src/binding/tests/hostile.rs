use super::*;
use crate::SackBlock;
use proptest::prelude::*;

/// One step of somebody who knows roughly where the windows are.
#[derive(Clone, Debug)]
enum Step {
    Segment {
        client: bool,
        seq: i32,
        ack: i32,
        flags: u8,
        window: u16,
        length: usize,
        clock: Option<u32>,
        sack: bool,
    },
    /// With so many bytes in front.
    Connect(bool, usize),
    Skip(usize),
    Release,
    Close(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let near = || prop_oneof![4 => -3..200i32, 1 => -70_000..70_000i32, 1 => any::<i32>()];
    let flags =
        prop_oneof![6 => Just(0x10u8), 2 => Just(0x12), 1 => Just(0x11), 1 => Just(0x14), 1 => any::<u8>()];
    let clock = proptest::option::weighted(0.9, prop_oneof![3 => 90u32..300, 1 => any::<u32>()]);
    let segment = (any::<bool>(), near(), near(), flags, any::<u16>(), 0usize..3000, clock, any::<bool>())
        .prop_map(|(client, seq, ack, flags, window, length, clock, sack)| Step::Segment {
            client,
            seq,
            ack,
            flags,
            window,
            length,
            clock,
            sack,
        });
    prop_oneof![
        20 => segment,
        2 => (any::<bool>(), prop_oneof![Just(0usize), 1usize..300]).prop_map(|(hold, ahead)| Step::Connect(hold, ahead)),
        1 => (0usize..300).prop_map(Step::Skip),
        1 => Just(Step::Release),
        1 => any::<bool>().prop_map(Step::Close),
        3 => (0u64..5000).prop_map(Step::Wait),
    ]
}

impl Bench {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Segment { client: from_client, seq, ack, flags, window, length, clock, sack } => {
                let (from, base, peer) = if *from_client {
                    (Side::Client, client(0), weir(0))
                } else {
                    (Side::Server, server(0), client(0))
                };
                let timestamps = clock.map(|value| Timestamps { value, echo: 0 });
                let mut options = Options { timestamps, ..full_options() };
                if *sack {
                    options.sack.push(SackBlock { left: peer.advanced(5), right: peer.advanced(9) });
                }
                let payload = vec![*window as u8; *length];
                let (seq, ack) = (base.advanced(*seq as u32), peer.advanced(*ack as u32));
                let segment = Segment {
                    seq,
                    ack,
                    flags: Flags(*flags),
                    window: *window,
                    urgent: 0,
                    options,
                    payload: &payload,
                };
                self.raw(from, &segment);
                let _ = self.binding.splice();
            }
            Step::Connect(hold, ahead) => self.binding.connect(self.now, *hold, &vec![b'p'; *ahead]),
            Step::Skip(count) => self.binding.skip(*count),
            Step::Release => self.binding.release_response(self.now),
            Step::Close(reset) => self.binding.close(self.now, *reset),
            Step::Wait(ms) => {
                self.advance(*ms);
                self.binding.handle_timeout(self.now);
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::seeded(600))]
    #[test]
    fn whatever_comes_memory_and_output_are_bounded_and_the_end_is_near(
        steps in proptest::collection::vec(step(), 0..60), full: bool,
    ) {
        let mut bench = Bench::with(if full { full_options() } else { plain_options() }, &promise(), &limits());
        for step in &steps {
            bench.take(step);
            let sent = bench.sent();
            prop_assert!(sent.len() < 300, "{} segments for one step", sent.len());
            let total: usize = sent.iter().map(|sent| sent.payload.len()).sum();
            prop_assert!(total <= 2 * 10_200 + 300);
            for side in [Side::Client, Side::Server] {
                prop_assert!(bench.binding.payload(side).len() <= 10_000 + 127);
            }
        }
        // Left alone, it is over within its timers, or waits for a response that the caller wanted held.
        let start = bench.now;
        while let Some(at) = bench.binding.poll_timeout() {
            prop_assert!(at - start < Duration::from_secs(200), "{:?}", bench.binding);
            bench.now = bench.now.max(at);
            bench.binding.handle_timeout(bench.now);
            bench.sent();
        }
    }
}
