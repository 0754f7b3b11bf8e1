//! Delayed TCP binding, sans-io.
//!
//! weir completes a client's handshake itself, collects the first bytes, opens the connection to the server that was
//! chosen, replays the bytes, and then only translates headers: [`Binding`] is the first part, [`Splice`] the second.
//! Nothing here knows addresses, ports, devices or clocks: segments and time go in, segments and events come out.
//! `docs/tcp.md` draws the sequences and names the RFC sections.
#![forbid(unsafe_code)]

mod binding;
mod checksum;
mod cookie;
mod event;
mod lifecycle;
mod reassembly;
mod relay;
mod replay;
mod segment;
mod seq;
mod splice;
mod track;

pub use binding::{Binding, Transmit};
pub use cookie::{Cookies, cookie_isn};
pub use event::{ConnectFailure, End, Event, Limits, Promise, Side, Time};
pub use lifecycle::Lifecycle;
pub use reassembly::{Reassembly, TooManyHoles};
pub use segment::{Flags, Options, SackBlock, Segment, SegmentError, Timestamps, clamp_mss, reset_for};
pub use seq::SeqNumber;
pub use splice::Splice;
pub use track::{Judgement, Track};

/// Property tests draw the same cases in every run.
#[cfg(test)]
fn seeded(cases: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    Config { cases, rng_seed: RngSeed::Fixed(0x7765_6972), failure_persistence: None, ..Config::default() }
}
