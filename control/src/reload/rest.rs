//! When a place that was let go may be given to something else.
//!
//! No worker names it then. But a record of an ended flow may still be queued for the log, an operator may have asked about it
//! a moment ago, and somebody may follow flows that had it. All of them would find a wrong name there.

use std::sync::atomic::Ordering;

use smoltcp::time::{Duration, Instant};

use crate::status::Status;

/// Longer than any request of an operator takes from reading its names to the last word of its answer, but for traces.
const REST: Duration = Duration::from_secs(10);

/// Which places have rested.
#[derive(Debug, Default)]
pub(super) struct Rest {
    rested: u32,
    next: Option<Resting>,
}

/// A generation whose places nobody reads of any more after some time.
#[derive(Debug)]
struct Resting {
    generation: u32,
    since: Instant,
    /// How far the log was.
    log: Vec<u64>,
}

impl Rest {
    /// The last generation whose places may be given away. `generation` is that of the configuration that all workers have taken.
    pub(super) fn look(&mut self, generation: u32, status: &Status) -> u32 {
        let now = status.clock.now();
        let over = |resting: &Resting| {
            now >= resting.since + REST
                && status.log.are_written(&resting.log)
                // A trace that is under way may have begun before.
                && !status.watching.load(Ordering::Acquire)
        };
        if let Some(resting) = self.next.take_if(|resting| over(resting)) {
            self.rested = resting.generation;
        }
        if self.next.is_none() && generation > self.rested {
            self.next = Some(Resting { generation, since: now, log: status.log.passes() });
        }
        self.rested
    }
}
