//! One script and what it did: counters, run times, quarantine.

use dataplane::policy::{Event, ScriptFailure, ScriptReport};
use dataplane::snapshot::{ScriptSetId, Snapshot};
use hdrhistogram::{CreationError, Histogram};

use crate::raw::Compiled;

/// Overruns of time or memory in a row, of runs that were stopped or came late to their ends, after which a script is quarantined.
pub const QUARANTINE_AFTER: u32 = 10;

/// Time that a quarantined script is not run, in seconds. Then one run is let through: if it overruns as well, the
/// time starts again; if it does not, the script is free.
pub const QUARANTINE_SECONDS: i64 = 60;

/// Longest run time that the histogram tells apart, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// A compiled script with its statistics.
pub(crate) struct Script {
    pub(crate) compiled: Compiled,
    pub(crate) set: ScriptSetId,
    /// Name of its source.
    pub(crate) name: String,
    event: Event,
    runs: u64,
    errors: u64,
    budget_stops: u64,
    quarantined: u64,
    /// Overruns since the last run that was none.
    overruns: u32,
    /// End of the quarantine, in microseconds of the core's time.
    until: Option<i64>,
    run_time: Histogram<u64>,
}

impl Script {
    pub(crate) fn new(
        compiled: Compiled,
        set: ScriptSetId,
        event: Event,
        name: String,
    ) -> Result<Self, CreationError> {
        Ok(Script {
            compiled,
            set,
            name,
            event,
            runs: 0,
            errors: 0,
            budget_stops: 0,
            quarantined: 0,
            overruns: 0,
            until: None,
            run_time: Histogram::new_with_bounds(1, LONGEST, 2)?,
        })
    }

    /// True if it is the script of this set and event.
    pub(crate) fn is(&self, set: ScriptSetId, event: Event) -> bool {
        (self.set, self.event) == (set, event)
    }

    pub(crate) fn event(&self) -> Event {
        self.event
    }

    /// Adds what a script of the same name and event did that is no more.
    pub(crate) fn inherit(&mut self, other: &Script) {
        self.runs += other.runs;
        self.errors += other.errors;
        self.budget_stops += other.budget_stops;
        self.quarantined += other.quarantined;
        // All are made alike, and then this cannot fail.
        let _ = self.run_time.add(&other.run_time);
    }

    /// Counts a run that is about to start; `false` if the script is in quarantine and must not be run.
    pub(crate) fn admit(&mut self, now: smoltcp::time::Instant) -> bool {
        if let Some(until) = self.until {
            if now.total_micros() < until {
                self.quarantined += 1;
                return false;
            }
            self.until = Some(now.total_micros().saturating_add(QUARANTINE_SECONDS * 1_000_000));
        }
        self.runs += 1;
        true
    }

    /// Counts the end of a run that took `nanoseconds` in Lua; `late` if that is all of its budget, though nothing may have
    /// stopped it.
    pub(crate) fn finished(
        &mut self,
        now: smoltcp::time::Instant,
        nanoseconds: u64,
        failure: Option<ScriptFailure>,
        late: bool,
    ) {
        self.run_time.saturating_record(nanoseconds);
        self.errors += u64::from(failure.is_some());
        self.budget_stops += u64::from(failure == Some(ScriptFailure::Budget));
        let stopped = matches!(failure, Some(ScriptFailure::Budget | ScriptFailure::Memory));
        if !stopped && !late {
            self.overruns = 0;
            self.until = None;
            return;
        }
        self.overruns = self.overruns.saturating_add(1);
        if self.overruns >= QUARANTINE_AFTER {
            self.until = Some(now.total_micros().saturating_add(QUARANTINE_SECONDS * 1_000_000));
        }
    }

    /// Counts a run that ended in `collect`, with its flow.
    pub(crate) fn cancelled(&mut self, nanoseconds: u64) {
        self.run_time.saturating_record(nanoseconds);
    }

    pub(crate) fn report(&self, snapshot: &Snapshot) -> ScriptReport {
        let set = snapshot.script_sets.get(self.set.index());
        ScriptReport {
            set: set.map(|s| s.name.clone()).unwrap_or_default(),
            event: self.event,
            runs: self.runs,
            errors: self.errors,
            budget_stops: self.budget_stops,
            quarantined: self.quarantined,
            run_time: self.run_time.clone(),
        }
    }
}
