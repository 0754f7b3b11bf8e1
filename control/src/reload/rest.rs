//! When a place that was let go may be given to something else.
//!
//! No worker names it then. But a record of an ended flow may still be queued for the log, an operator may have asked about it
//! a moment ago, and somebody may follow flows that had it. All of them would find a wrong name there.

use smoltcp::time::{Duration, Instant};

use crate::log::LogStats;

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
    /// The last generation whose places may be given away. `generation` is that of the configuration that all workers have taken;
    /// `watched`: a trace is under way, which may have begun at any time.
    pub(super) fn look(&mut self, now: Instant, generation: u32, log: &LogStats, watched: bool) -> u32 {
        let over =
            |resting: &Resting| now >= resting.since + REST && log.are_written(&resting.log) && !watched;
        if let Some(resting) = self.next.take_if(|resting| over(resting)) {
            self.rested = resting.generation;
        }
        if self.next.is_none() && generation > self.rested {
            self.next = Some(Resting { generation, since: now, log: log.passes() });
        }
        self.rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(log: &LogStats, worker: usize, times: usize) {
        (0..times).for_each(|_| log.note_pass(worker));
    }

    #[test]
    fn a_generation_has_rested_when_time_has_passed_the_log_is_written_and_nobody_watches() {
        let at = Instant::from_secs;
        let (mut rest, log) = (Rest::default(), LogStats::new(2));
        assert_eq!(rest.look(at(0), 0, &log, false), 0);
        assert_eq!(rest.look(at(100), 1, &log, false), 0, "its time begins now");
        passed(&log, 0, 9);
        passed(&log, 1, 1);
        assert_eq!(
            rest.look(at(111), 2, &log, false),
            0,
            "the pass of the second worker's records was under way"
        );
        passed(&log, 1, 1);
        assert_eq!(rest.look(at(109), 2, &log, false), 0, "somebody may still write an answer");
        assert_eq!(rest.look(at(111), 2, &log, true), 0, "a trace may tell of it");
        assert_eq!(rest.look(at(111), 3, &log, false), 1);
        passed(&log, 0, 2);
        passed(&log, 1, 2);
        assert_eq!(rest.look(at(120), 4, &log, false), 1);
        assert_eq!(
            rest.look(at(121), 4, &log, false),
            3,
            "the one that was there when the last one had rested"
        );
    }
}
