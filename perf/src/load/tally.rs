//! What became of the packets of one run.

use hdrhistogram::Histogram;

use super::stops::Gap;
use super::template::STEP;
use crate::tsc;

/// Nanoseconds at the start of a run whose packets are sent, but in no histogram: the caches are those of another subject.
pub const LEAD: u64 = 3_000_000;
/// The longest latency that is told apart from longer ones.
const LONGEST: u64 = 30_000_000_000;

/// What became of the packets of one run.
#[derive(Clone, Debug)]
pub struct Load {
    /// Packets that were to be sent.
    pub scheduled: u64,
    /// Of these, packets that the wire had no room for.
    pub refused: u64,
    /// Packets that came back.
    pub received: u64,
    /// From the intended time of sending to receiving, nanoseconds, of packets with a payload.
    pub latency: Histogram<u64>,
    /// The same of packets that open flows.
    pub first: Histogram<u64>,
    /// From the intended time of sending to the actual one: whatever stood still, it was not what was sent to.
    pub late: Histogram<u64>,
    /// When it began.
    pub begin: u64,
    /// How long it was sent, nanoseconds.
    pub nanoseconds: u64,
    /// Gaps of the generator.
    pub gaps: Vec<Gap>,
    /// Packets that the other end took at a time, if it says so: whole bursts where it is what holds packets up.
    pub at_a_time: Option<f64>,
}

impl Load {
    /// Nothing yet.
    pub fn new() -> anyhow::Result<Load> {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let (first, late) = (latency.clone(), latency.clone());
        Ok(Load {
            scheduled: 0,
            refused: 0,
            received: 0,
            latency,
            first,
            late,
            begin: tsc::nanoseconds(),
            nanoseconds: 0,
            gaps: Vec::new(),
            at_a_time: None,
        })
    }

    /// Packets per second that came back.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.received as f64 * 1e9 / (self.nanoseconds as f64).max(1.0)
    }

    /// The share of packets that did not come back.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / (self.scheduled as f64).max(1.0)
    }

    /// Takes in a packet with a latency; not one that an earlier run has given up.
    pub fn receive(&mut self, latency: u64, now: u64, is_first: bool) {
        let intended = now.saturating_sub(latency);
        if intended + STEP < self.begin {
            return;
        }
        self.received += 1;
        if intended >= self.begin + LEAD {
            let histogram = if is_first { &mut self.first } else { &mut self.latency };
            histogram.saturating_record(latency.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_for_an_earlier_run_or_early_in_this_one_has_no_latency() {
        let mut load = Load { begin: 1_000_000_000, ..Load::new().unwrap() };
        let counted = load.begin + LEAD;
        // Sent before the run; at its start; in time; and the first of a flow.
        load.receive(5_000, load.begin + 4_000, false);
        load.receive(5_000, load.begin + 5_000, false);
        load.receive(5_000, counted + 5_000, false);
        load.receive(90_000, counted + 90_000, true);
        assert_eq!((load.received, load.latency.len(), load.first.len()), (3, 1, 1));
        assert!(load.latency.max().abs_diff(5_000) < 10 && load.first.max().abs_diff(90_000) < 100);
    }
}
