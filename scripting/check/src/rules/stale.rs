//! A payload that was read before a `collect` and is used after it.

use std::collections::{HashMap, HashSet};

use super::{Report, Script};
use crate::api::{COLLECT, READ};
use crate::finding::Rule;
use crate::tree::{Expr, FunctionId, LocalId, Node};
use crate::value::What;
use crate::walk::{CallFact, Event, Fact, Site, Usage};

/// A local variable that holds what was buffered.
struct Stored<'f, 't> {
    at: usize,
    site: &'f Site<'t>,
    /// So many bytes were there for certain.
    least: f64,
    told: bool,
}

/// A wait for more.
struct Wait<'f, 't> {
    at: usize,
    fact: &'f Fact<'t>,
    need: Option<f64>,
}

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    let collecting = collecting(script);
    let mut waits: Vec<Wait<'_, '_>> = Vec::new();
    let mut stored: HashMap<LocalId, Stored<'_, '_>> = HashMap::new();
    for (at, fact) in script.facts.iter().enumerate() {
        match &fact.what {
            Event::Call(call) if waits_for_more(call, &collecting) => {
                let need = call.arguments.first().and_then(|n| script.values.value(n).number);
                waits.push(Wait { at, fact, need });
            }
            Event::Write { local, value } => {
                if value.is_some_and(|value| reads_all(script, value)) {
                    let before = waits.iter().filter(|wait| wait.fact.site.always_before(&fact.site));
                    let least = before.filter_map(|wait| wait.need).fold(0.0, f64::max);
                    stored.insert(*local, Stored { at, site: &fact.site, least, told: false });
                } else {
                    stored.remove(local);
                }
            }
            Event::Read { local, usage } => {
                let Some(stored) = stored.get_mut(local).filter(|stored| !stored.told) else { continue };
                if let Some(wait) = stale(stored, fact, *usage, &waits) {
                    stored.told = true;
                    tell(script, *local, fact, wait, report);
                }
            }
            _ => {}
        }
    }
}

/// The wait between the read and this use, if there is one.
fn stale<'w, 'f, 't>(
    stored: &Stored<'_, '_>,
    fact: &Fact<'_>,
    usage: Usage,
    waits: &'w [Wait<'f, 't>],
) -> Option<&'w Wait<'f, 't>> {
    match usage {
        Usage::Condition => return None,
        Usage::Argument(module) if module.reads_again => return None,
        _ => {}
    }
    waits.iter().find(|wait| {
        wait.at > stored.at
            && wait.need.is_none_or(|need| need > stored.least)
            && stored.site.reaches(&wait.fact.site)
            && wait.fact.site.reaches(&fact.site)
    })
}

fn tell(script: &Script<'_>, local: LocalId, fact: &Fact<'_>, wait: &Wait<'_, '_>, report: &mut Report) {
    let name = script.tree.locals.get(local).map_or("", |local| local.name.as_str());
    let line = script.line(wait.fact.span.start);
    let message =
        format!("`{name}` was read before the collect of line {line} and is as short as it was then");
    let cure = format!("read again after the collect: {name} = avi.l4.read()");
    report.warning(Rule::StaleRead, &fact.span, message, cure);
}

/// `avi.l4.read()` of all that is buffered.
fn reads_all(script: &Script<'_>, value: &Expr) -> bool {
    let Node::Call(call) = &value.bare().node else { return false };
    let is_read = matches!(script.values.value(&call.callee).what, What::Function(f) if f.name == READ.name);
    if !is_read || call.method.is_some() {
        return false;
    }
    match call.arguments.first() {
        None => true,
        Some(n) => matches!(n.node, Node::Nil) || script.values.value(n).number == Some(0.0),
    }
}

fn waits_for_more(call: &CallFact<'_>, collecting: &HashSet<FunctionId>) -> bool {
    match call.callee.what {
        What::Function(function) => function.name == COLLECT.name,
        What::Own(id) => collecting.contains(&id),
        _ => false,
    }
}

/// The functions of the script that wait, by themselves or by others.
fn collecting(script: &Script<'_>) -> HashSet<FunctionId> {
    let mut found = HashSet::new();
    loop {
        let before = found.len();
        for fact in script.facts {
            if let Event::Call(call) = &fact.what
                && waits_for_more(call, &found)
            {
                found.insert(fact.site.function);
            }
        }
        // The main chunk is called by nobody.
        found.remove(&0);
        if found.len() == before {
            return found;
        }
    }
}
