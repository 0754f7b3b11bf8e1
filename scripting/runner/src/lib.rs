//! `weir script test`: runs the tests that stand beside DataScripts.
//!
//! A test file is Lua ([`engine`](crate::Engine)) and says what clients send and what must come of it. Each case runs in a
//! lab of its own, around the weir that runs in production, and then again with every TCP payload cut at every byte,
//! byte by byte, and at random, with pieces in another order and twice. The outcome must be the same each time.
#![forbid(unsafe_code)]

mod coverage;
mod cuts;
mod engine;
mod names;
mod outcome;
pub mod report;
mod show;
mod trial;
mod world;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

use dataplane::script_trace::Detail;
use dataplane::snapshot::Snapshot;
use lab::{Blueprint, Options, Tracing};

pub use coverage::Covered;
pub use cuts::{Pieces, Plan};
pub use engine::Engine;
pub use outcome::{Difference, Problem};
pub use trial::{CaseReport, Effort, Failure};
pub use world::Payload;

/// Flows of a case at a time. Making room for them is a good part of what a run costs.
const FLOWS: u32 = 256;
/// Steps of a run that coverage looks at.
const STEPS: usize = 1 << 20;

/// What is tried of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// How hard.
    pub effort: Effort,
    /// Only cases whose names contain this.
    pub filter: Option<&'a str>,
    /// Lines that were executed are gathered.
    pub coverage: bool,
}

/// What was found about a test file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub file: String,
    /// Its cases, in order, without those that the filter leaves out.
    pub cases: Vec<CaseReport>,
    /// Why it cannot be loaded.
    pub broken: Option<Problem>,
}

/// The lines of scripts that were executed, by the names of the scripts.
pub type Lines = BTreeSet<(String, u32)>;

/// Runs the cases of a test file against a configuration. `seen` is called with each report.
pub fn test_file(
    snapshot: &Snapshot,
    path: &Path,
    text: &[u8],
    settings: &Settings<'_>,
    lines: &mut Lines,
    mut seen: impl FnMut(&CaseReport),
) -> FileReport {
    let mut report = FileReport { file: path.display().to_string(), cases: Vec::new(), broken: None };
    let trace = settings.coverage.then_some(Tracing { detail: Detail::Lines, steps: STEPS });
    let blueprint = Blueprint::new(snapshot, Options { trace, flows: FLOWS, ..Options::default() });
    let engine = match Engine::load(path, text) {
        Ok(engine) => engine,
        Err(problem) => {
            report.broken = Some(problem);
            return report;
        }
    };
    let worlds = Cell::new(0);
    for case in engine.cases() {
        if settings.filter.is_none_or(|filter| case.name.contains(filter)) {
            let found = trial::try_case(&engine, case, &blueprint, settings.effort, &worlds, lines);
            seen(&found);
            report.cases.push(found);
        }
    }
    report
}

/// What the lines come to for the scripts of a configuration.
///
/// # Errors
/// What Lua says of a script; nothing of one in a configuration that was checked.
pub fn coverage(snapshot: &Snapshot, lines: &Lines) -> Result<Vec<Covered>, String> {
    coverage::covered(snapshot, lines).map_err(|error| error.to_string())
}
