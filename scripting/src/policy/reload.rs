//! Scripts of another configuration: compiled beside those that run, in the same Lua state.
//!
//! A set that is the same keeps its compiled scripts and what they counted. One that was changed has another place in the
//! configuration, so both are there until the old one is emptied: runs that wait, and flows of a service as it was, go on
//! with theirs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dataplane::policy::{Event, ScriptReport};
use dataplane::snapshot::{ScriptSetId, Snapshot};

use super::{LuaPolicy, compile_set};
use crate::script::Script;

/// A configuration and the scripts that it has more.
pub(super) struct Prepared {
    snapshot: Arc<Snapshot>,
    scripts: Vec<Script>,
}

/// Scripts per service and event: places in `scripts`, in the order in which they run.
pub(super) fn services(snapshot: &Snapshot, scripts: &[Script]) -> Vec<[Vec<usize>; 2]> {
    let places: HashMap<(ScriptSetId, usize), usize> = scripts
        .iter()
        .zip(0..)
        .map(|(script, at)| ((script.set, super::event_index(script.event())), at))
        .collect();
    let of_service = |sets: &[ScriptSetId]| {
        [0, 1].map(|event| sets.iter().filter_map(|set| places.get(&(*set, event)).copied()).collect())
    };
    snapshot.services.iter().map(|service| of_service(&service.script_sets)).collect()
}

/// True if the set has a script for the event; one that was emptied has none.
fn has_script(snapshot: &Snapshot, set: ScriptSetId, event: Event) -> bool {
    let set = snapshot.script_sets.get(set.index());
    set.is_some_and(|set| match event {
        Event::Request => set.request.is_some(),
        Event::Response => set.response.is_some(),
    })
}

impl LuaPolicy {
    /// Compiles what is not compiled yet.
    pub(super) fn prepare_scripts(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        self.abandon_scripts();
        let known: HashSet<ScriptSetId> = self.scripts.iter().map(|script| script.set).collect();
        let mut scripts = Vec::new();
        let mut errors = Vec::new();
        for (set, id) in snapshot.script_sets.iter().zip(0u16..).map(|(set, id)| (set, ScriptSetId(id))) {
            let needed = set.request.is_some() || set.response.is_some();
            if !needed || known.contains(&id) {
                continue;
            }
            match compile_set(&self.machine, set, id) {
                Ok(pair) => scripts.extend(pair.into_iter().flatten()),
                Err(found) => errors.extend(found.iter().map(ToString::to_string)),
            }
        }
        self.prepared = Some(Prepared { snapshot: Arc::clone(snapshot), scripts });
        if errors.is_empty() {
            return Ok(());
        }
        self.abandon_scripts();
        self.machine.collect_all();
        Err(errors.join("; "))
    }

    /// Forgets what was compiled.
    pub(super) fn abandon_scripts(&mut self) {
        for script in self.prepared.take().into_iter().flat_map(|prepared| prepared.scripts) {
            self.machine.release(script.compiled);
        }
    }

    /// Uses what was compiled, and lets scripts go that no flow can run any more.
    pub(super) fn adopt_scripts(&mut self) {
        let Some(Prepared { snapshot, scripts }) = self.prepared.take() else { return };
        let profiled = self.profiled.and_then(|at| self.scripts.get(at)).map(|s| (s.set, s.event()));
        let all = std::mem::take(&mut self.scripts).into_iter().chain(scripts);
        let (mut kept, gone): (Vec<Script>, Vec<Script>) =
            all.partition(|script| has_script(&snapshot, script.set, script.event()));
        for script in gone {
            let mut heirs = kept.iter_mut().rev().filter(|heir| is_version(&snapshot, heir, &script));
            if let Some(heir) = heirs.next() {
                heir.inherit(&script);
            }
            self.machine.release(script.compiled);
        }
        self.services = services(&snapshot, &kept);
        self.profiled =
            profiled.and_then(|(set, event)| kept.iter().position(|script| script.is(set, event)));
        self.scripts = kept;
        self.snapshot = snapshot;
    }

    /// One for each script of the configuration, with what earlier states of its set did.
    pub(super) fn reports(&self) -> Vec<ScriptReport> {
        let retired = &self.snapshot.retired.script_sets;
        let (old, live): (Vec<&Script>, Vec<&Script>) =
            self.scripts.iter().partition(|script| retired.contains(&script.set));
        let report = |script: &Script| {
            let mut report = script.report(&self.snapshot);
            for old in old.iter().filter(|old| is_version(&self.snapshot, script, old)) {
                let more = old.report(&self.snapshot);
                report.runs += more.runs;
                report.errors += more.errors;
                report.budget_stops += more.budget_stops;
                report.quarantined += more.quarantined;
                // All are made alike, and then this cannot fail.
                let _ = report.run_time.add(&more.run_time);
            }
            report
        };
        live.into_iter().map(report).collect()
    }
}

/// Both are of the same event and of sets of the same name.
fn is_version(snapshot: &Snapshot, one: &Script, other: &Script) -> bool {
    let name = |script: &Script| snapshot.script_sets.get(script.set.index()).map(|set| &set.name);
    one.event() == other.event() && name(one) == name(other)
}
