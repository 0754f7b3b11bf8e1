//! Traps of the tables: an insert that is meant to overwrite, a lookup that prolongs what should end.

use super::{Report, Script};
use crate::api::{CLOSE_CONN, Kind, Meaning, TABLE_INSERT, TABLE_LOOKUP, TABLE_REMOVE};
use crate::finding::Rule;
use crate::rules::calls::is_open;
use crate::rules::same::Form;
use crate::tree::{Expr, LocalId, Node, Operator, Span, Unary};
use crate::value::What;
use crate::visit::every;
use crate::walk::{CallFact, Event, Fact, Usage};

/// A call of `insert`, `lookup` or `remove` whose arguments are told apart.
struct Access<'f, 't> {
    at: usize,
    fact: &'f Fact<'t>,
    call: &'f CallFact<'t>,
    function: &'static str,
    /// `None`: the default table.
    table: Option<Form>,
    key: Form,
    value: Option<&'t Expr>,
    /// Lifetime or extension.
    seconds: Option<&'t Expr>,
}

/// Earlier calls of the same entry that an insert is compared with.
const MOST_EARLIER: usize = 64;

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    let all = accesses(script);
    for access in &all {
        match access.function {
            name if name == TABLE_INSERT.name => insert(script, access, &all, report),
            name if name == TABLE_LOOKUP.name => lookup(script, access, &all, report),
            _ => {}
        }
    }
}

fn accesses<'f, 't>(script: &'f Script<'t>) -> Vec<Access<'f, 't>> {
    let mut all = Vec::new();
    for (at, fact) in script.facts.iter().enumerate() {
        let Event::Call(call) = &fact.what else { continue };
        let What::Function(function) = call.callee.what else { continue };
        let known = [TABLE_INSERT.name, TABLE_LOOKUP.name, TABLE_REMOVE.name].contains(&function.name);
        if !known || call.method || is_open(script, call) {
            continue;
        }
        let last = call.arguments.last().and_then(|last| script.values.value(last).only());
        let Some(form) = function.form(call.arguments.len(), last) else { continue };
        let argument = |wanted: &[Meaning]| {
            let index = form.iter().position(|parameter| wanted.contains(&parameter.meaning))?;
            let expr = call.arguments.get(index)?;
            (script.values.value(expr).only() != Some(Kind::Nil)).then_some(expr)
        };
        let Some(key) = argument(&[Meaning::Key]) else { continue };
        all.push(Access {
            at,
            fact,
            call,
            function: function.name,
            table: argument(&[Meaning::Table]).map(|table| Form::of(script, table, at)),
            key: Form::of(script, key, at),
            value: argument(&[Meaning::Stored]),
            seconds: argument(&[Meaning::Lifetime, Meaning::Extension]),
        });
    }
    all
}

impl Access<'_, '_> {
    fn same_table(&self, other: &Access<'_, '_>, script: &Script<'_>) -> bool {
        match (&self.table, &other.table) {
            (None, None) => true,
            (Some(one), Some(two)) => one.equals(two, script),
            _ => false,
        }
    }

    fn same_entry(&self, other: &Access<'_, '_>, script: &Script<'_>) -> bool {
        self.same_table(other, script) && self.key.equals(&other.key, script)
    }

    /// The local variable that holds the value.
    fn result(&self, index: usize) -> Option<LocalId> {
        self.call.results.iter().find(|(_, result)| *result == index).map(|(local, _)| *local)
    }

    fn line(&self, script: &Script<'_>) -> usize {
        script.line(self.fact.span.start)
    }
}

/// How a number is stored in a named table.
pub(super) const NAMED_INSERT: &str = "to store a number in a named table give a lifetime, too: \
    avi.vs.table_insert(table, key, value, 300)";

/// An insert after a lookup or an insert of the same entry.
fn insert(script: &Script<'_>, insert: &Access<'_, '_>, all: &[Access<'_, '_>], report: &mut Report) {
    let Some(value) = insert.value else { return };
    if insert.table.is_none()
        && let Some(seconds) = insert.seconds
        && all.iter().filter_map(|other| other.result(0)).any(|found| mentions(script, seconds, found, 4))
    {
        let message =
            "of three arguments a number at the end is the lifetime: this is not stored as the value";
        report.warning(Rule::Lifetime, &seconds.span, message, NAMED_INSERT);
    }
    let before = all.get(..all.partition_point(|other| other.at < insert.at)).unwrap_or_default();
    let mut earlier: Vec<&Access<'_, '_>> = before
        .iter()
        .rev()
        .filter(|other| other.key.text() == insert.key.text() && other.fact.site.reaches(&insert.fact.site))
        .filter(|other| other.same_entry(insert, script))
        .take(MOST_EARLIER)
        .collect();
    earlier.reverse();
    let removed =
        earlier.iter().filter(|other| other.function == TABLE_REMOVE.name).map(|other| other.at).max();
    for other in earlier.iter().rev().filter(|other| removed.is_none_or(|removed| other.at > removed)) {
        let why = match other.function {
            name if name == TABLE_LOOKUP.name && changes(script, other, insert, value) => {
                format!("the value that the lookup of line {} found", other.line(script))
            }
            name if name == TABLE_INSERT.name && replaces(script, other, insert, value) => {
                format!("what the insert of line {} stored", other.line(script))
            }
            _ => continue,
        };
        let message = format!("a key that is there keeps its value: this insert does not replace {why}");
        let cure = "remove the key first, with avi.vs.table_remove";
        report.warning(Rule::InsertKeeps, &insert.fact.span, message, cure);
        return;
    }
}

/// Whether an insert is meant to change what a lookup found: its value is made of that, or it stands where something
/// was found.
fn changes(script: &Script<'_>, lookup: &Access<'_, '_>, insert: &Access<'_, '_>, value: &Expr) -> bool {
    let inside = |outer: &Span, inner: &Span| outer.start <= inner.start && inner.end <= outer.end;
    if inside(&value.span, &lookup.fact.span) {
        return value.bare().span != lookup.fact.span;
    }
    let Some(found) = lookup.result(0) else { return false };
    if is_local(value, found) {
        return false;
    }
    if mentions(script, value, found, 4) {
        return true;
    }
    insert
        .fact
        .site
        .path
        .iter()
        .any(|branch| branch.condition.is_some_and(|(condition, holds)| says_there(condition, holds, found)))
}

fn replaces(script: &Script<'_>, first: &Access<'_, '_>, second: &Access<'_, '_>, value: &Expr) -> bool {
    let Some(before) = first.value else { return false };
    let same = Form::of(script, before, first.at).equals(&Form::of(script, value, second.at), script);
    first.fact.site.always_before(&second.fact.site) && !same
}

fn is_local(expr: &Expr, local: LocalId) -> bool {
    matches!(expr.bare().node, Node::Local(id) if id == local)
}

/// Whether a variable is in an expression, or in what the variables in it were declared with.
fn mentions(script: &Script<'_>, expr: &Expr, local: LocalId, steps: usize) -> bool {
    let mut found = false;
    every(expr, &mut |inner| {
        if let Node::Local(id) = inner.node {
            let declared =
                || script.values.declared(id).is_some_and(|e| mentions(script, e, local, steps - 1));
            found |= id == local || (steps > 0 && declared());
        }
    });
    found
}

/// Whether a condition says that the variable is not nil.
fn says_there(condition: &Expr, holds: bool, local: LocalId) -> bool {
    let nil = |expr: &Expr| matches!(expr.bare().node, Node::Nil);
    match &condition.bare().node {
        Node::Local(id) => holds && *id == local,
        Node::Unary(Unary::Not, inner) => says_there(inner, !holds, local),
        Node::Binary(Operator::And, left, right) if holds => {
            says_there(left, true, local) || says_there(right, true, local)
        }
        Node::Binary(Operator::NotEqual, left, right) => {
            holds && ((is_local(left, local) && nil(right)) || (is_local(right, local) && nil(left)))
        }
        Node::Binary(Operator::Equal, left, right) => {
            !holds && ((is_local(left, local) && nil(right)) || (is_local(right, local) && nil(left)))
        }
        _ => false,
    }
}

/// A lookup that leaves its extension out.
fn lookup(script: &Script<'_>, lookup: &Access<'_, '_>, all: &[Access<'_, '_>], report: &mut Report) {
    if lookup.seconds.is_some() {
        return;
    }
    let limited = all.iter().find(|other| {
        let related = if lookup.table.is_some() {
            other.same_table(lookup, script)
        } else {
            other.same_entry(lookup, script)
        };
        other.function == TABLE_INSERT.name && other.seconds.is_some() && related
    });
    let why = if let Some(insert) = limited {
        format!("the lifetime that the insert of line {} gives does not hold", insert.line(script))
    } else if closes(script, lookup) {
        "what closes connections lives on as long as it is asked for".to_owned()
    } else if lookup.result(1).is_some_and(|seconds| is_read(script, seconds)) {
        "the seconds that it gives include them".to_owned()
    } else {
        return;
    };
    let message = format!("each lookup adds 300 seconds to the life of the entry: {why}");
    let cure = "give 0 as the last argument to leave its life alone, or the seconds that you mean to add";
    report.warning(Rule::LookupProlongs, &lookup.fact.span, message, cure);
}

/// Whether the connection is closed where the lookup found something.
fn closes(script: &Script<'_>, lookup: &Access<'_, '_>) -> bool {
    let found = lookup.result(0);
    let says = |(condition, holds): (&Expr, bool)| {
        let direct = holds && condition.bare().span == lookup.fact.span;
        direct || found.is_some_and(|found| says_there(condition, holds, found))
    };
    script.facts.iter().any(|fact| {
        let Event::Call(call) = &fact.what else { return false };
        let is_close = matches!(call.callee.what, What::Function(f) if f.name == CLOSE_CONN.name);
        is_close && fact.site.path.iter().filter_map(|branch| branch.condition).any(says)
    })
}

fn is_read(script: &Script<'_>, local: LocalId) -> bool {
    script.facts.iter().any(|fact| matches!(&fact.what, Event::Read { local: read, usage } if *read == local && !matches!(usage, Usage::Condition)))
}
