//! The only place of this crate that reads clocks.

use std::time::SystemTime;

use smoltcp::time::Instant;

/// Monotonic time since the clock was made; clones share their start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts at 0.
    #[allow(clippy::disallowed_methods, reason = "the one monotonic clock of the control threads")]
    pub(crate) fn new() -> Self {
        Clock { start: std::time::Instant::now() }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

/// The wall clock.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
