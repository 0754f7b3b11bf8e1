//! [`LuaPolicy`]: the [`Policy`] that runs DataScripts.

mod reload;
mod waiting;

use std::sync::Arc;

use dataplane::policy::{Context, Event, Outcome, Policy, RunId, ScriptFailure, ScriptReport};
use dataplane::script_profile::ScriptProfile;
use dataplane::script_trace::{ScriptStep, ScriptTrace};
use dataplane::snapshot::{ScriptSet, ScriptSetId, ServiceId, Snapshot, Source};

use crate::call::{Clock, Coroutine, Failure, Step};
use crate::compile::compile_error;
use crate::raw::{Compiled, Machine, Modules};
use crate::script::Script;
use crate::source::{ScriptError, chunk_name, wrapped, wrapped_contained};
use crate::{api, strings};
use waiting::{Slab, Waiting};

/// Garbage in bytes that may come up before the collector does a step.
const GARBAGE_STEP: usize = 64 << 10;

/// A garbage collection starts when the memory in use has grown by this since the last one, in bytes, and by half.
const GARBAGE_CYCLE: usize = 256 << 10;

/// Time in Lua after which the memory in use is looked at, in nanoseconds: some ten kilobytes at most can be taken meanwhile
/// for each microsecond.
const UNSEEN: u64 = 16_000;

/// What a run counts for beside its time, so that there are looks where the clock stands still.
const RUN: u64 = 1_000;

/// Runs the DataScripts of a configuration: one per worker, made on the worker's own thread.
///
/// A run costs some 100 nanoseconds beyond what its script does. Its coroutine comes from a list of finished ones;
/// one that waits in `collect` stays with its flow until it goes on or is cancelled. At most
/// [`dataplane::snapshot::Limits::waiting`] runs wait at a time.
pub struct LuaPolicy {
    snapshot: Arc<Snapshot>,
    machine: Machine,
    scripts: Vec<Script>,
    /// Scripts per service and event: places in `scripts`, in the order in which they run.
    services: Vec<[Vec<usize>; 2]>,
    waiting: Slab,
    budget: u64,
    memory: usize,
    /// Memory in use after the last step of the collector.
    collected: usize,
    /// Memory in use at the end of the last complete collection, and whether one is under way.
    live: usize,
    collecting: bool,
    /// Time in Lua of the runs since the last look at the memory in use, in nanoseconds, at least [`RUN`] each.
    unseen: u64,
    /// The script of which a profile is made, by its place in `scripts`.
    profiled: Option<usize>,
    /// What the next configuration needs.
    prepared: Option<reload::Prepared>,
}

/// How far the runs of one flow and event are.
#[derive(Clone, Copy)]
struct Place {
    service: usize,
    event: Event,
    /// Place in the list of the service's scripts.
    turn: usize,
    /// Nanoseconds left of the budget of this script.
    budget: u64,
    /// Nanoseconds in Lua so far.
    spent: u64,
}

fn event_index(event: Event) -> usize {
    match event {
        Event::Request => 0,
        Event::Response => 1,
    }
}

impl LuaPolicy {
    /// Compiles every script of every set once. `clock` gives the nanoseconds of a monotonic clock; it is read at
    /// the start and the end of each run and every 1000 instructions; these are not counted where the text of a script shows
    /// that it takes each of its steps at most once.
    ///
    /// # Errors
    /// Everything that Lua does not compile. Names in the scripts are the business of [`crate::check`].
    pub fn new(snapshot: &Arc<Snapshot>, clock: Clock) -> Result<LuaPolicy, Vec<ScriptError>> {
        let unplaced = |error: mlua::Error| {
            let nowhere = Source { name: "LuaJIT".to_owned(), text: Vec::new() };
            vec![ScriptError::whole(&nowhere, error.to_string())]
        };
        let machine = machine(clock).map_err(unplaced)?;
        let mut scripts = Vec::new();
        let mut errors = Vec::new();
        for (set, id) in snapshot.script_sets.iter().zip(0u16..) {
            match compile_set(&machine, set, ScriptSetId(id)) {
                Ok(pair) => scripts.extend(pair.into_iter().flatten()),
                Err(found) => errors.extend(found),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let services = reload::services(snapshot, &scripts);
        let memory = usize::try_from(snapshot.limits.script_memory).unwrap_or(usize::MAX);
        machine.limit_memory(memory).map_err(unplaced)?;
        let used = machine.memory();
        Ok(LuaPolicy {
            services,
            waiting: Slab::new(usize::try_from(snapshot.limits.waiting).unwrap_or(usize::MAX)),
            budget: snapshot.limits.script_budget.total_micros().saturating_mul(1000),
            snapshot: Arc::clone(snapshot),
            machine,
            scripts,
            memory,
            collected: used,
            live: used,
            collecting: false,
            unseen: 0,
            profiled: None,
            prepared: None,
        })
    }

    /// Bytes that the Lua state uses.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.machine.memory()
    }

    /// Number of runs that wait in `collect`.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.used
    }

    fn script_at(&self, place: &Place) -> Option<usize> {
        self.services.get(place.service)?.get(event_index(place.event))?.get(place.turn).copied()
    }

    /// Runs the scripts from `place` on.
    fn run(&mut self, mut place: Place, context: &mut Context<'_>) -> Outcome {
        while let Some(index) = self.script_at(&place) {
            match self.begin(index, &mut place, context) {
                Ok(Step::Done) => self.finish(index, &place, None, context),
                Ok(step) => return self.stop(index, &place, step, context),
                Err(failure) => return failure,
            }
            place.go_on(self.budget);
        }
        Outcome::Done
    }

    /// A script has come to a step that is not its end.
    fn stop(&mut self, index: usize, place: &Place, step: Step, context: &mut Context<'_>) -> Outcome {
        match step {
            Step::Done => Outcome::Done,
            Step::Waiting(coroutine, need) => {
                note(context, || ScriptStep::Wait { need });
                self.suspend(index, *place, coroutine, need, context)
            }
            Step::Failed(failure) => self.fail(index, place, *failure, context),
        }
    }

    #[cold]
    fn fail(&mut self, index: usize, place: &Place, failure: Failure, context: &mut Context<'_>) -> Outcome {
        let (kind, text) = match failure {
            Failure::Error(text) => (ScriptFailure::Error, text),
            Failure::Budget(text) => (ScriptFailure::Budget, text),
            Failure::Memory(text) => (ScriptFailure::Memory, text),
        };
        context.record.error = Some(text);
        self.finish(index, place, Some(kind), context);
        Outcome::Failed(kind)
    }

    fn begin(&mut self, index: usize, place: &mut Place, context: &mut Context<'_>) -> Result<Step, Outcome> {
        let Some(script) = self.scripts.get_mut(index) else { return Ok(Step::Done) };
        if !script.admit(context.now) {
            return Err(refused(script, context));
        }
        let (compiled, set) = (script.compiled, script.set);
        note(context, || ScriptStep::Begin { script: script.name.clone(), event: place.event });
        self.machine.sample(self.profiled == Some(index));
        let (step, spent) = self.machine.start(compiled, set, place.budget, context);
        place.spend(spent);
        Ok(step)
    }

    #[inline(never)]
    fn suspend(
        &mut self,
        index: usize,
        place: Place,
        coroutine: Coroutine,
        need: usize,
        context: &mut Context<'_>,
    ) -> Outcome {
        match self.waiting.insert(Waiting { coroutine, need, place }) {
            Ok(run) => Outcome::Suspended { run, need },
            Err(waiting) => {
                self.machine.discard(waiting.coroutine);
                context.record.error =
                    Some(format!("avi.l4.collect: {} runs wait already on this core", self.waiting.used));
                self.finish(index, &place, Some(ScriptFailure::TooManySuspended), context);
                Outcome::Failed(ScriptFailure::TooManySuspended)
            }
        }
    }

    fn finish(
        &mut self,
        index: usize,
        place: &Place,
        failure: Option<ScriptFailure>,
        context: &mut Context<'_>,
    ) {
        if let Some(script) = self.scripts.get_mut(index) {
            script.finished(context.now, place.spent, failure, place.budget == 0);
        }
        if self.profiled == Some(index) {
            self.machine.profile_run(place.spent);
        }
        if let Some(trace) = &mut context.record.trace {
            trace.end(failure, place.spent);
        }
        self.unseen = self.unseen.saturating_add(place.spent).saturating_add(RUN);
        if failure.is_some() || self.unseen > UNSEEN {
            self.look_at_memory(failure);
        }
    }

    /// Collects garbage if the last runs have left enough of it.
    #[inline(never)]
    fn look_at_memory(&mut self, failure: Option<ScriptFailure>) {
        self.unseen = 0;
        let used = self.machine.memory();
        if failure == Some(ScriptFailure::Memory) || used > self.memory / 4 * 3 {
            self.machine.collect_all();
            self.live = self.machine.memory();
            self.collected = self.live;
            self.collecting = false;
        } else if used > self.collected.saturating_add(GARBAGE_STEP) {
            self.collect(used);
        }
    }

    /// One step of the collector, if there is something to collect in the `used` memory: twice the work that the growth
    /// since the last step asks for.
    fn collect(&mut self, used: usize) {
        self.collecting |= used > self.live + (self.live / 2).max(GARBAGE_CYCLE);
        if !self.collecting {
            return;
        }
        let grown = used.saturating_sub(self.collected) / 1024;
        if self.machine.collect_step(grown.clamp(16, 1024)) {
            self.collecting = false;
            self.live = self.machine.memory();
        }
        self.collected = self.machine.memory();
    }
}

/// Notes a step in the flow's trace, if it has one.
fn note(context: &mut Context<'_>, step: impl FnOnce() -> ScriptStep) {
    #[cold]
    fn push(trace: &mut ScriptTrace, step: impl FnOnce() -> ScriptStep) {
        trace.push(step());
    }
    if let Some(trace) = &mut context.record.trace {
        push(trace, step);
    }
}

/// What becomes of a run of a script in quarantine.
#[cold]
fn refused(script: &Script, context: &mut Context<'_>) -> Outcome {
    context.record.error = Some(format!("{}: quarantined after repeated overruns", script.name));
    Outcome::Failed(ScriptFailure::Quarantined)
}

impl Place {
    fn spend(&mut self, nanoseconds: u64) {
        self.spent = self.spent.saturating_add(nanoseconds);
        self.budget = self.budget.saturating_sub(nanoseconds);
    }

    /// To the next script, which has a budget of its own.
    fn go_on(&mut self, budget: u64) {
        (self.turn, self.budget, self.spent) = (self.turn + 1, budget, 0);
    }
}

impl Policy for LuaPolicy {
    fn handles(&self, service: ServiceId, event: Event) -> bool {
        let scripts = self.services.get(service.index()).and_then(|events| events.get(event_index(event)));
        scripts.is_some_and(|scripts| !scripts.is_empty())
    }

    fn start(&mut self, context: &mut Context<'_>) -> Outcome {
        let done = match context.event {
            Event::Request => context.record.request_done,
            Event::Response => context.record.response_done,
        };
        if done {
            return Outcome::Done;
        }
        let place = Place {
            service: context.facts.service.index(),
            event: context.event,
            turn: 0,
            budget: self.budget,
            spent: 0,
        };
        self.run(place, context)
    }

    fn resume(&mut self, run: RunId, context: &mut Context<'_>) -> Outcome {
        let Some(Waiting { coroutine, need, mut place }) = self.waiting.remove(run) else {
            context.record.error = Some("no such run is suspended".to_owned());
            return Outcome::Failed(ScriptFailure::Error);
        };
        let Some((index, set)) =
            self.script_at(&place).and_then(|index| Some((index, self.scripts.get(index)?.set)))
        else {
            return Outcome::Done;
        };
        match context.collect_ready(need) {
            Ok(true) => {}
            Ok(false) => return self.suspend(index, place, coroutine, need, context),
            Err(error) => {
                self.machine.discard(coroutine);
                context.record.error = Some(format!("avi.l4.collect: {error}"));
                self.finish(index, &place, Some(ScriptFailure::Error), context);
                return Outcome::Failed(ScriptFailure::Error);
            }
        }
        let buffered = context.buffered();
        note(context, || ScriptStep::Resume { buffered });
        self.machine.sample(self.profiled == Some(index));
        let (step, spent) = self.machine.resume(coroutine, buffered, set, place.budget, context);
        place.spend(spent);
        match step {
            Step::Done => self.finish(index, &place, None, context),
            step => return self.stop(index, &place, step, context),
        }
        place.go_on(self.budget);
        self.run(place, context)
    }

    fn cancel(&mut self, run: RunId) {
        let Some(waiting) = self.waiting.remove(run) else { return };
        self.machine.discard(waiting.coroutine);
        let script = self.script_at(&waiting.place).and_then(|index| self.scripts.get_mut(index));
        if let Some(script) = script {
            script.cancelled(waiting.place.spent);
        }
    }

    fn idle(&mut self) {
        self.collect(self.machine.memory());
    }

    fn start_profile(&mut self, set: ScriptSetId, event: Event) {
        self.profiled = self.scripts.iter().position(|script| script.is(set, event));
        self.machine.profile(self.profiled.is_some());
    }

    fn end_profile(&mut self) -> ScriptProfile {
        self.profiled = None;
        self.machine.profile(false).map(|profile| *profile).unwrap_or_default()
    }

    fn prepare(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        self.prepare_scripts(snapshot)
    }

    fn adopt(&mut self) {
        self.adopt_scripts();
    }

    fn abandon(&mut self) {
        self.abandon_scripts();
    }

    fn report(&self) -> Vec<ScriptReport> {
        self.reports()
    }
}

/// The Lua state with the sandbox and all functions.
pub(crate) fn machine(clock: Clock) -> mlua::Result<Machine> {
    let mut entries = api::entries();
    entries.extend(strings::entries());
    Machine::new(&(api::sandbox_lists() + include_str!("sandbox.lua")), &entries, clock)
}

/// The scripts of a set, request and response.
fn compile_set(
    machine: &Machine,
    set: &ScriptSet,
    id: ScriptSetId,
) -> Result<[Option<Script>; 2], Vec<ScriptError>> {
    let mut errors = Vec::new();
    let parsers = set.parsers.iter().map(|(_, source)| source);
    for source in set.request.iter().chain(&set.response).chain(parsers) {
        errors.extend(compile_error(machine, source));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let texts: Vec<_> = set
        .parsers
        .iter()
        .map(|(module, source)| (module.clone(), chunk_name(source), wrapped(&source.text)))
        .collect();
    let set_error = |text: String| {
        let source = Source { name: set.name.clone(), text: Vec::new() };
        vec![ScriptError::whole(&source, text)]
    };
    let modules = machine.modules(&texts).map_err(|e| set_error(e.to_string()))?;
    let compile = |source: &Source, event| {
        let compiled = compile_script(machine, source, &modules).map_err(|e| set_error(e.to_string()))?;
        Script::new(compiled, id, event, source.name.clone()).map_err(|e| set_error(e.to_string()))
    };
    let request = set.request.as_ref().map(|source| compile(source, Event::Request)).transpose()?;
    match set.response.as_ref().map(|source| compile(source, Event::Response)).transpose() {
        Ok(response) => Ok([request, response]),
        Err(errors) => {
            if let Some(script) = request {
                machine.release(script.compiled);
            }
            Err(errors)
        }
    }
}

fn compile_script(machine: &Machine, source: &Source, modules: &Modules) -> mlua::Result<Compiled> {
    let name = chunk_name(source);
    match script_check::contained_calls(&source.text) {
        Some((contained, calls)) => {
            machine.compile_contained(&name, &wrapped_contained(&source.text, &calls), contained)
        }
        None => machine.compile(&name, &wrapped(&source.text), modules),
    }
}
