//! Names in `avi`, in modules and in libraries that do not exist, and functions that weir does not have.

use super::{Report, Script, listed};
use crate::api::{self, FUNCTIONS, Kinds, LIBRARIES, SPACES};
use crate::finding::Rule;
use crate::nearest::nearest;
use crate::tree::Span;
use crate::value::{Value, What};
use crate::walk::{Event, Site, Usage};

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    for fact in script.facts {
        match &fact.what {
            Event::Call(call) if is_guarded(script, &call.callee, &fact.site) => {}
            Event::Call(call) => name(&call.callee, &call.name, Usage::Called, report),
            Event::Name { value, usage } => name(value, &fact.span, *usage, report),
            Event::SetName { path, variable: false, .. } => {
                let cure =
                    format!("use a local variable, or {}.NAME for the life of the flow", api::VARIABLES);
                report.error(Rule::Undefined, &fact.span, format!("{path} cannot be set"), cure);
            }
            Event::SetName { path, variable: true, value: Some(value) } => {
                let value = script.values.value(value);
                let wrong = value.only().filter(|kind| !Kinds::PLAIN.and(api::Kind::Nil).has(*kind));
                if let Some(kind) = wrong {
                    let message = format!("{path} holds strings, numbers and booleans, no {}", kind.name());
                    report.error(Rule::Type, &fact.span, message, "store one plain value for each name");
                }
            }
            _ => {}
        }
    }
}

/// Whether the script has asked whether there is such a function.
fn is_guarded(script: &Script<'_>, callee: &Value, site: &Site<'_>) -> bool {
    let (What::Undefined(path) | What::Unsupported(path)) = &callee.what else { return false };
    let mut conditions = site.path.iter().filter_map(|branch| branch.condition);
    conditions.any(|(condition, holds)| {
        let asked = script.values.value(condition).what;
        holds && matches!(asked, What::Undefined(p) | What::Unsupported(p) if p == *path)
    })
}

fn name(value: &Value, span: &Span, usage: Usage, report: &mut Report) {
    match &value.what {
        What::Undefined(path) => undefined(path, span, usage, report),
        What::Unsupported(path) if matches!(usage, Usage::Called) => {
            let cure = "leave it out, or catch the error with pcall";
            report.error(
                Rule::Unsupported,
                span,
                format!("{path} is not supported: this call raises an error"),
                cure,
            );
        }
        What::ModuleMember(module, name, None) => {
            let functions = || module.functions.iter().map(|function| function.name);
            let cure = suggestion(name, functions(), || listed("it has", functions()));
            let message = format!("there is no function {name} in module '{}'", module.name);
            missing(span, usage, message, cure, report);
        }
        What::Member(library, name, false) => {
            let members = || LIBRARIES.iter().filter(|l| l.name == library).flat_map(|l| l.members).copied();
            let cure = suggestion(name, members(), || listed("there is", members()));
            missing(span, usage, format!("there is no function {library}.{name}"), cure, report);
        }
        What::Absent(absent) if !matches!(usage, Usage::Condition) => {
            let message = format!("a DataScript has no {}", absent.name);
            missing(span, usage, message, absent.cure.to_owned(), report);
        }
        What::Space(path) if matches!(usage, Usage::Called) => {
            let cure = suggestion(path, FUNCTIONS.iter().map(|f| f.name), || functions_of(path));
            report.error(Rule::Undefined, span, format!("{path} is no function"), cure);
        }
        _ => {}
    }
}

/// A call of nil raises an error, and so does a field of it; reading it gives nil.
fn missing(span: &Span, usage: Usage, message: String, cure: String, report: &mut Report) {
    match usage {
        Usage::Called | Usage::Indexed => report.error(Rule::Undefined, span, message, cure),
        Usage::Value | Usage::Argument(_) => {
            report.warning(Rule::Undefined, span, message + ": this is nil", cure);
        }
        Usage::Condition => {}
    }
}

fn undefined(path: &str, span: &Span, usage: Usage, report: &mut Report) {
    let known = FUNCTIONS.iter().map(|function| function.name).chain([api::SIGNIFICANT, api::VARIABLES]);
    let cure = suggestion(path, known, || functions_of(path));
    let what = if matches!(usage, Usage::Called) { "function" } else { "name" };
    let space = path.rsplit_once('.').map_or("", |(space, _)| space);
    // A field of what does not exist is an error, too.
    let usage = if space == "avi" || SPACES.contains(&space) { usage } else { Usage::Indexed };
    missing(span, usage, format!("there is no {what} {path}"), cure, report);
}

/// "did you mean", or what else is to be said.
fn suggestion<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    other: impl FnOnce() -> String,
) -> String {
    let near = near_member(name, known.clone()).or_else(|| nearest(name, known));
    near.map_or_else(other, |near| format!("did you mean {near}?"))
}

/// The name of the same namespace whose last part is near, or the same last part in another namespace.
fn near_member<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let (space, last) = name.rsplit_once('.')?;
    let inside = known.clone().filter_map(|k| k.rsplit_once('.').filter(|(s, _)| *s == space));
    let near = nearest(last, inside.map(|(_, member)| member));
    let whole = |member: &str| known.clone().find(|k| k.rsplit_once('.') == Some((space, member)));
    let elsewhere = || known.clone().find(|k| k.rsplit_once('.').is_some_and(|(_, member)| member == last));
    near.and_then(whole).or_else(elsewhere)
}

fn functions_of(path: &str) -> String {
    let space = path.rsplit_once('.').map_or(path, |(space, _)| space);
    let inside = || {
        let functions = FUNCTIONS.iter().map(|function| function.name);
        functions.filter(|name| name.rsplit_once('.').is_some_and(|(s, _)| s == space || s == path))
    };
    if inside().next().is_none() {
        return format!("the functions of weir are in {}", SPACES.join(", "));
    }
    listed("there is", inside())
}
