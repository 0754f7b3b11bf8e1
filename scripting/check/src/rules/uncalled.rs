//! Functions of the API that are used as if they were what they give.

use super::{Report, Script, call_of, finding};
use crate::api::{Kind, Kinds};
use crate::finding::{Rule, Severity};
use crate::value::What;
use crate::walk::Event;

/// Values without a metatable of the script's own.
const PLAIN: Kinds = Kinds::of(&[Kind::String, Kind::Number, Kind::Nil, Kind::Boolean, Kind::Function]);

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    for fact in script.facts {
        let Event::Operand { value, other, done } = &fact.what else { continue };
        let What::Function(function) = script.values.value(value).what else { continue };
        let certain = other.is_none_or(|other| script.values.value(other).kinds.within(PLAIN));
        let severity = if certain { Severity::Error } else { Severity::Warning };
        let message = format!("{} is {done} and not called", function.name);
        report.add(finding(severity, Rule::Type, &fact.span, message, call_of(function)));
    }
}
