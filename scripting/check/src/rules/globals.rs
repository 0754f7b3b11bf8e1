//! Globals that are set or read by accident.

use std::collections::HashSet;

use super::{Report, Script};
use crate::api::{BASE, LIBRARIES};
use crate::check::Role;
use crate::finding::Rule;
use crate::nearest::nearest;
use crate::tree::{Block, Statement};
use crate::walk::{Event, Usage};

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    // A module that returns nothing gives the table of its globals: there they are meant.
    let wanted = script.settings.role == Role::Module && !returns(&script.tree.block);
    let (mut told, mut told_reads) = (HashSet::new(), HashSet::new());
    for fact in script.facts {
        match fact.what {
            Event::SetGlobal { name, function, nested } if !wanted && (nested || !function) => {
                if !told.insert(name) {
                    continue;
                }
                let message = format!("`{name}` is a global: it is not declared with `local`");
                let cure = match near_local(script, name) {
                    Some(near) => format!("did you mean {near}? Else write: local {name}"),
                    None => format!("write: local {name}"),
                };
                report.warning(Rule::Global, &fact.span, message, cure);
            }
            // By `_G` any global may be set.
            Event::Global { name, usage } if !script.values.dynamic && !is_set(script, name) => {
                let error = matches!(usage, Usage::Called | Usage::Indexed);
                if matches!(usage, Usage::Condition) || !told_reads.insert((name, error)) {
                    continue;
                }
                let near = near_local(script, name).or_else(|| near_known(script, name));
                let cure = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => "declare it with `local` where it is to be seen".to_owned(),
                };
                let message = format!("nothing sets the global `{name}`: it is nil");
                if error {
                    report.error(Rule::Global, &fact.span, message, cure);
                } else {
                    report.warning(Rule::Global, &fact.span, message, cure);
                }
            }
            _ => {}
        }
    }
}

fn returns(block: &Block) -> bool {
    matches!(block.last(), Some(Statement::Return(_)))
}

fn is_set(script: &Script<'_>, name: &str) -> bool {
    let library = LIBRARIES.iter().any(|library| library.name == name);
    library || name == "avi" || BASE.contains(&name) || script.values.written.contains(name)
}

fn near_local<'t>(script: &Script<'t>, name: &str) -> Option<&'t str> {
    nearest(name, script.tree.locals.iter().map(|local| local.name.as_str()).filter(|local| *local != name))
}

fn near_known<'t>(script: &Script<'t>, name: &str) -> Option<&'t str> {
    let written = script.values.written.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>();
    nearest(name, written.into_iter().chain(BASE.iter().copied()).chain(LIBRARIES.iter().map(|l| l.name)))
}
