//! Comparisons and conditions that always have the same result.

use super::{Report, Script, call_of};
use crate::api::{Kind, SERVER_STATUS};
use crate::finding::Rule;
use crate::tree::{Expr, Node, Operator, Span};
use crate::value::{Value, What};
use crate::walk::Event;

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    for fact in script.facts {
        match &fact.what {
            Event::Compare { operator, left, right } => {
                compare(script, *operator, [left, right], &fact.span, report);
            }
            Event::Tested(expr) => tested(script, expr, report),
            _ => {}
        }
    }
}

fn compare(script: &Script<'_>, operator: Operator, sides: [&Expr; 2], span: &Span, report: &mut Report) {
    let [left, right] = sides.map(|side| script.values.value(side));
    let (Some(one), Some(other)) = (left.only(), right.only()) else { return };
    if one == other {
        return;
    }
    let cure = cure(&left, &right);
    let kinds = format!("a {} and a {}", one.name(), other.name());
    match operator {
        Operator::Equal => report.warning(Rule::Compare, span, format!("{kinds} are never equal"), cure),
        Operator::NotEqual => report.warning(Rule::Compare, span, format!("{kinds} always differ"), cure),
        _ => report.error(Rule::Compare, span, format!("comparing {kinds} raises an error"), cure),
    }
}

fn cure(left: &Value, right: &Value) -> String {
    let function = [left, right].into_iter().find_map(|value| match value.what {
        What::Function(function) => Some(function),
        _ => None,
    });
    if let Some(function) = function {
        return call_of(function);
    }
    let number = left.number.or(right.number);
    let strings = [left, right].iter().any(|value| value.only() == Some(Kind::String));
    match number {
        Some(number) if strings => format!("compare with a string, \"{number}\", or use tonumber"),
        _ if strings => "make both strings, or both numbers with tonumber".to_owned(),
        _ => "compare values of one kind".to_owned(),
    }
}

/// 0 counts as true.
fn tested(script: &Script<'_>, expr: &Expr, report: &mut Report) {
    let Node::Call(call) = &expr.bare().node else { return };
    let What::Function(function) = script.values.value(&call.callee).what else { return };
    if function.name == SERVER_STATUS.name {
        let message = format!("{} gives 1 or 0, and 0 is true in Lua: this always holds", function.name);
        report.warning(Rule::Compare, &expr.span, message, "compare with 1: … == 1");
    }
}
