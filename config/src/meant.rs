//! From the file as written to the core's own types. Every check of values against each other is here; a check that
//! fails adds a problem and goes on with a stand-in, so that one run finds as many as there are.

mod address;
mod interface;
mod limits;
mod pool;
mod process;
mod proxied;
mod script;
mod service;
mod usage;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use dataplane::snapshot::Snapshot;

use crate::Scripts;
use crate::problem::{Problems, Span};
use crate::process::ProcessSettings;
use crate::read::{At, Required};
use crate::value::text::Name;
use crate::written::File;
use script_check::nearest;

/// What the file means. The result is only of use if there are no errors among the problems.
pub(crate) fn mean(
    file: &File,
    directory: &Path,
    scripts: Scripts,
    problems: &mut Problems,
) -> (Snapshot, ProcessSettings) {
    // Scripts are judged by the names of pools and parsers, so these must have been understood.
    let readable = !problems.has_errors();
    let mut snapshot = Snapshot {
        interfaces: interface::interfaces(&file.interface, problems),
        limits: limits::limits(&file.limits, problems),
        ..Snapshot::default()
    };
    snapshot.routes = interface::routes(&file.route, &snapshot, problems);
    let (snat, monitor_ports) = interface::snat(&file.snat, &snapshot, problems);
    snapshot.snat = snat;

    let earlier = problems.errors();
    let pools = Names::define("pool", file.pool.iter().map(|p| &p.name), problems);
    let groups = Names::define("pool group", file.pool_group.iter().map(|g| &g.name), problems);
    let sets = Names::define("DataScript set", file.datascript_set.iter().map(|s| &s.name), problems);
    Names::define("virtual service", file.virtual_service.iter().map(|s| &s.name), problems);

    pool::pools(&file.pool, &pools, &mut snapshot, problems);
    snapshot.pool_groups = pool::groups(&file.pool_group, &pools, problems);
    snapshot.script_sets = script::sets(file, &pools, &groups, directory, problems);
    let scripts_can_be_judged = readable && problems.errors() == earlier;
    snapshot.services = service::services(file, &pools, &groups, &sets, &snapshot, problems);
    // After the services: a script may name the default pool of its service.
    if scripts_can_be_judged && scripts == Scripts::Checked {
        script::check(&snapshot, problems);
    }

    address::check(file, &snapshot, monitor_ports, problems);
    usage::check(file, &snapshot, problems);
    let process = process::settings(file, monitor_ports, problems);
    (snapshot, process)
}

/// Names listed where one was not found.
const NAMES_SHOWN: usize = 12;

/// The names of one kind of things, in the order of the file.
pub(crate) struct Names<'a> {
    kind: &'static str,
    /// By name, the first one where it stands twice.
    indices: HashMap<&'a str, (usize, &'a At<Name>)>,
    /// Things without a name, which has been reported.
    unnamed: bool,
}

impl<'a> Names<'a> {
    /// Takes all names; reports those that occur twice and things beyond what an index can count.
    fn define(
        kind: &'static str,
        all: impl Iterator<Item = &'a Required<Name>>,
        problems: &mut Problems,
    ) -> Self {
        let mut names = Names { kind, indices: HashMap::new(), unnamed: false };
        for (index, name) in all.enumerate() {
            let Some(at) = &name.0 else {
                names.unnamed = true;
                continue;
            };
            if index == usize::from(u16::MAX) {
                problems.error(&at.span, format!("this is one {kind} too many")).help("at most 65535");
            }
            match names.indices.entry(at.value.0.as_str()) {
                Entry::Occupied(first) => report_twin(kind, at, first.get().1, problems),
                Entry::Vacant(place) => {
                    place.insert((index, at));
                }
            }
        }
        names
    }

    /// The index of the thing named `name`; `None` after its problem was reported.
    fn find(&self, name: &At<Name>, problems: &mut Problems) -> Option<u16> {
        let wanted = &name.value;
        if let Some((index, _)) = self.indices.get(wanted.0.as_str()) {
            return u16::try_from(*index).ok();
        }
        if self.unnamed {
            // It may be the one whose name could not be read.
            return None;
        }
        let kind = self.kind;
        let mut known: Vec<&str> = self.indices.keys().copied().collect();
        known.sort_unstable();
        let message = format!("there is no {kind} named `{}`", wanted.0);
        problems.error(&name.span, message).help(candidates(kind, &wanted.0, &known));
        None
    }
}

/// "did you mean", or what there is.
fn candidates(kind: &str, wanted: &str, known: &[&str]) -> String {
    match nearest(wanted, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("the file has no {kind} at all"),
        None => {
            let shown: Vec<&str> = known.iter().take(NAMES_SHOWN).copied().collect();
            let more = known.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("there is: {}{more}", shown.join(", "))
        }
    }
}

/// Reports a name that `first` has already.
fn report_twin(kind: &str, name: &At<Name>, first: &At<Name>, problems: &mut Problems) {
    twice(&name.span, &first.span, format!("a second {kind} is named `{}`", name.value.0), problems);
}

/// Reports something that stands twice.
fn twice(second: &Span, first: &Span, message: impl Into<String>, problems: &mut Problems) {
    problems.error(second, message).label("again here").also(first, "first here");
}

/// The name, or an empty one after its problem was reported.
fn name_of(name: &Required<Name>) -> String {
    name.0.as_ref().map(|at| at.value.0.clone()).unwrap_or_default()
}
