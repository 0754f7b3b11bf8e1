//! The scripts' policy with somebody looking on.

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::policy::{
    Close, Context, Event, FlowFacts, Outcome, Persist, Policy, RunId, ScriptFailure, ScriptReport,
    Selection, Value,
};
use dataplane::script_profile::ScriptProfile;
use dataplane::script_trace::ScriptTrace;
use dataplane::snapshot::{ScriptSetId, ServiceId, Snapshot};
use scripting::LuaPolicy;
use smoltcp::time::Instant;

use crate::error::LabError;
use crate::explain::{By, Choice};
use crate::options::{Options, Tracing};

thread_local! {
    static CLOCK: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The clock of scripts: goes on by two microseconds each time it is read, which is at the beginning, every 1000
/// instructions, and at the end.
fn counted() -> u64 {
    CLOCK.with(|now| {
        now.set(now.get().wrapping_add(2000));
        now.get()
    })
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// In `collect`, for so many bytes in all.
    Waiting {
        /// Bytes.
        need: usize,
    },
    /// All scripts came to their end.
    Done,
    /// One of them failed.
    Failed(ScriptFailure),
    /// The flow ended, or was decided by a timeout, while it waited.
    Cancelled,
}

/// One run of the scripts of an event: what happened from [`Policy::start`] to its end.
#[derive(Clone, Debug)]
pub struct Run {
    /// When it began.
    pub started: Instant,
    /// When it ended, or waited last.
    pub ended: Instant,
    /// The event.
    pub event: Event,
    /// Whose flow.
    pub facts: FlowFacts,
    /// Where it is.
    pub state: RunState,
    /// How often it went on after a `collect` that had to wait.
    pub resumes: u32,
    /// Bytes buffered on the event's side when it ended, or waited last.
    pub buffered: usize,
    /// The flow's selection at that time.
    pub selection: Option<Selection>,
    /// How the flow is to be closed.
    pub close: Option<Close>,
    /// What `persist` asked for.
    pub persist: Option<Persist>,
    /// What this run logged.
    pub log: Vec<u8>,
    /// Message and traceback of a failure.
    pub error: Option<String>,
    /// `avi.vs.reqvar` at the end.
    pub variables: Vec<(String, Value)>,
    /// What it did, if [`Options::trace`] asks for it.
    pub trace: Option<Box<ScriptTrace>>,
    /// Where its end sends the flow and why, if [`Options::explain`] asks for it; request event only.
    pub choice: Option<Choice>,
    /// Time in scripts by [`Options::stopwatch`].
    pub nanoseconds: u64,
}

/// The production's [`LuaPolicy`]; notes every run.
pub struct Observed {
    inner: LuaPolicy,
    tracing: Option<Tracing>,
    explain: bool,
    stopwatch: Option<fn() -> u64>,
    most: usize,
    runs: Vec<Run>,
    missed: u64,
    /// weir ends: runs that wait now are left as they are.
    pub(crate) over: bool,
    /// Places in `runs` of those that wait.
    waiting: HashMap<u32, usize>,
}

impl Observed {
    pub(crate) fn new(snapshot: &Arc<Snapshot>, options: &Options) -> Result<Observed, LabError> {
        CLOCK.set(0);
        Ok(Observed {
            inner: LuaPolicy::new(snapshot, counted).map_err(LabError::Scripts)?,
            tracing: options.trace,
            explain: options.explain,
            stopwatch: options.stopwatch,
            most: options.most_runs,
            runs: Vec::new(),
            missed: 0,
            over: false,
            waiting: HashMap::new(),
        })
    }

    /// All runs, in the order in which they began.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Runs beyond [`Options::most_runs`].
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// A run begins; `None`: there are too many.
    fn begin(&mut self, context: &Context<'_>) -> Option<usize> {
        if self.runs.len() >= self.most {
            self.missed += 1;
            return None;
        }
        self.runs.push(Run {
            started: context.now,
            ended: context.now,
            event: context.event,
            facts: context.facts,
            state: RunState::Cancelled,
            resumes: 0,
            buffered: 0,
            selection: None,
            close: None,
            persist: None,
            log: Vec::new(),
            error: None,
            variables: Vec::new(),
            trace: self.tracing.map(|tracing| Box::new(ScriptTrace::new(tracing.steps, tracing.detail))),
            choice: None,
            nanoseconds: 0,
        });
        Some(self.runs.len() - 1)
    }

    /// Lets the run `place` go on as `go` says, and notes what came of it.
    fn observe(
        &mut self,
        place: Option<usize>,
        context: &mut Context<'_>,
        go: impl FnOnce(&mut LuaPolicy, &mut Context<'_>) -> Outcome,
    ) -> Outcome {
        let Some((place, run)) = place.and_then(|place| Some((place, self.runs.get_mut(place)?))) else {
            return go(&mut self.inner, context);
        };
        let theirs = std::mem::replace(&mut context.record.trace, run.trace.take());
        let logged = context.record.log.len();
        let before = self.stopwatch.map(|now| now());
        let outcome = go(&mut self.inner, context);
        let after = self.stopwatch.map(|now| now());
        run.nanoseconds += after.zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
        run.trace = std::mem::replace(&mut context.record.trace, theirs);
        run.log.extend_from_slice(context.record.log.get(logged..).unwrap_or_default());
        run.ended = context.now;
        run.buffered = context.buffered();
        run.selection = context.record.selection;
        run.close = context.record.close;
        run.persist = context.record.persist.clone();
        run.variables = context.record.variables.clone();
        run.state = match &outcome {
            Outcome::Done => RunState::Done,
            Outcome::Failed(failure) => RunState::Failed(*failure),
            Outcome::Suspended { run, need } => {
                self.waiting.insert(run.0, place);
                RunState::Waiting { need: *need }
            }
        };
        if let Outcome::Failed(_) = outcome {
            run.error = context.record.error.clone();
        }
        if self.explain && context.event == Event::Request && !matches!(outcome, Outcome::Suspended { .. }) {
            run.choice = choice(context, &outcome);
        }
        outcome
    }
}

/// Where a run that has ended sends its flow.
fn choice(context: &Context<'_>, outcome: &Outcome) -> Option<Choice> {
    let service = context.snapshot.services.get(context.facts.service.index())?;
    let selected = context.record.selection.filter(|_| matches!(outcome, Outcome::Done));
    if context.record.close.is_some() && selected.is_none() {
        return None;
    }
    let selection = selected.or(service.default.map(Selection::from))?;
    let ends = (context.client().ip(), context.vip().ip());
    let by = if selected.is_some() { By::Script } else { By::Default };
    Some(Choice::of(context.snapshot, context.balancer, selection, ends, by))
}

impl Policy for Observed {
    fn handles(&self, service: ServiceId, event: Event) -> bool {
        self.inner.handles(service, event)
    }

    fn start(&mut self, context: &mut Context<'_>) -> Outcome {
        let place = self.begin(context);
        self.observe(place, context, |inner, context| inner.start(context))
    }

    fn resume(&mut self, run: RunId, context: &mut Context<'_>) -> Outcome {
        let place = self.waiting.remove(&run.0);
        if let Some(run) = place.and_then(|place| self.runs.get_mut(place)) {
            run.resumes += 1;
        }
        self.observe(place, context, |inner, context| inner.resume(run, context))
    }

    fn cancel(&mut self, run: RunId) {
        let waiting = self.waiting.remove(&run.0).filter(|_| !self.over);
        if let Some(run) = waiting.and_then(|place| self.runs.get_mut(place)) {
            run.state = RunState::Cancelled;
        }
        self.inner.cancel(run);
    }

    fn idle(&mut self) {
        self.inner.idle();
    }

    fn start_profile(&mut self, set: ScriptSetId, event: Event) {
        self.inner.start_profile(set, event);
    }

    fn end_profile(&mut self) -> ScriptProfile {
        self.inner.end_profile()
    }

    fn prepare(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        self.inner.prepare(snapshot)
    }

    fn adopt(&mut self) {
        self.inner.adopt();
    }

    fn abandon(&mut self) {
        self.inner.abandon();
    }

    fn report(&self) -> Vec<ScriptReport> {
        self.inner.report()
    }
}
