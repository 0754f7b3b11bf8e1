//! Arguments: their number, kinds and literal values.

use super::tables::NAMED_INSERT;
use super::{Report, Script, finding};
use crate::api::{Function, Kind, Meaning, Need, Parameter, SELECT_POOL, TABLE_INSERT};
use crate::finding::{Rule, Severity};
use crate::lower::number;
use crate::tree::{Node, Span};
use crate::value::{Value, What};
use crate::walk::{CallFact, Event};

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    for fact in script.facts {
        let Event::Call(call) = &fact.what else { continue };
        match call.callee.what {
            What::Function(function) => Checked::of(script, call, function).check(report),
            What::ModuleMember(_, _, Some(function)) => {
                Checked::of(script, call, function).number(report);
            }
            _ => {}
        }
    }
}

/// The values of a call's arguments, the object before a colon first.
pub(crate) fn arguments(script: &Script<'_>, call: &CallFact<'_>) -> Vec<(Value, Span)> {
    let own = call.method.then(|| (script.values.value_of_space(), call.name.clone()));
    let rest = call.arguments.iter().map(|expr| (script.values.value(expr), expr.span.clone()));
    own.into_iter().chain(rest).collect()
}

/// Whether the number of arguments is not known.
pub(crate) fn is_open(script: &Script<'_>, call: &CallFact<'_>) -> bool {
    let Some(last) = call.arguments.last().filter(|last| last.is_many()) else { return false };
    let Node::Call(inner) = &last.node else { return true };
    if inner.method.is_some() {
        return true;
    }
    match script.values.value(&inner.callee).what {
        What::Function(function) => function.results.len() != 1,
        What::Base(name) => !["tostring", "tonumber", "type"].contains(&name.as_str()),
        _ => true,
    }
}

/// A call of a known function.
struct Checked<'c> {
    call: &'c CallFact<'c>,
    function: &'static Function,
    arguments: Vec<(Value, Span)>,
    /// The last argument may be any number of them.
    open: bool,
}

impl<'c> Checked<'c> {
    fn of(script: &Script<'_>, call: &'c CallFact<'c>, function: &'static Function) -> Self {
        Checked { call, function, arguments: arguments(script, call), open: is_open(script, call) }
    }

    fn severity(&self) -> Severity {
        if self.function.never_raises { Severity::Warning } else { Severity::Error }
    }

    fn check(&self, report: &mut Report) {
        if self.call.method && !self.number(report) {
            let name = self.function.name;
            let message =
                format!("{name} is called with a colon, which makes its namespace the first argument");
            let cure = format!("write a dot: {}", self.function.signatures());
            report.add(finding(self.severity(), Rule::Type, &self.call.name, message, cure));
            return;
        }
        if !self.call.method && self.number(report) {
            return;
        }
        let Some(form) = self.form() else { return };
        for (index, (value, span)) in self.arguments.iter().enumerate() {
            if self.open && index + 1 == self.arguments.len() {
                break;
            }
            match form.get(index).or(self.function.rest.as_ref()) {
                Some(parameter) => self.argument(parameter, index, value, span, report),
                None => break,
            }
        }
        self.port_without_server(report);
    }

    fn form(&self) -> Option<&'static [Parameter]> {
        if self.open {
            return match self.function.forms {
                [only] => Some(only),
                _ => None,
            };
        }
        let last = self.arguments.last().and_then(|(value, _)| value.only());
        self.function.form(self.arguments.len(), last)
    }

    /// Reports a wrong number of arguments; true if something is missing.
    fn number(&self, report: &mut Report) -> bool {
        let count = self.arguments.len();
        let longest = self.function.forms.last().map_or(0, |form| form.len());
        if count > longest + usize::from(self.open) && self.function.rest.is_none() && !self.call.method {
            let at = self.arguments.get(longest).map_or(&self.call.name, |(_, span)| span);
            let takes = match longest {
                0 => "no arguments".to_owned(),
                1 => "at most 1 argument".to_owned(),
                n => format!("at most {n} arguments"),
            };
            let message = format!("{} takes {takes}; this and what follows is ignored", self.function.name);
            report.warning(Rule::Arity, at, message, format!("write {}", self.function.signatures()));
        }
        if self.open {
            return false;
        }
        let form = self.form().or(self.function.forms.first().copied()).unwrap_or_default();
        let missing = form.iter().skip(count).find(|parameter| parameter.need != Need::Optional);
        let Some(parameter) = missing else { return false };
        let name = self.function.name;
        let cure = format!("write {}; {}: {}", self.function.signatures(), parameter.name, parameter.text);
        let (severity, message) = match parameter.need {
            Need::Required if !self.function.never_raises => {
                (Severity::Error, format!("{name} needs `{}`, argument {}", parameter.name, count + 1))
            }
            _ => (Severity::Warning, format!("{name} does nothing without `{}`", parameter.name)),
        };
        report.add(finding(severity, Rule::Arity, &self.call.name, message, cure));
        true
    }

    fn argument(&self, parameter: &Parameter, index: usize, value: &Value, span: &Span, report: &mut Report) {
        let name = self.function.name;
        let cure = format!("must be {}", parameter.meaning.allowed());
        if let Some(kind) = value.only() {
            if !parameter.takes(kind) {
                let message =
                    format!("`{}`, argument {} of {name}, is a {}", parameter.name, index + 1, kind.name());
                self.wrong(self.severity(), Rule::Type, value, span, message, cure, report);
                return;
            }
            if kind == Kind::Nil && matches!(parameter.meaning, Meaning::Key | Meaning::Stored) {
                let message = format!("{name} does nothing with a nil `{}`", parameter.name);
                self.wrong(Severity::Warning, Rule::Type, value, span, message, cure, report);
                return;
            }
            let last = index + 1 == self.arguments.len();
            if kind == Kind::Significant && !last {
                let message = "avi.SIG_ENABLE marks the record only as the last argument".to_owned();
                let cure = "put it at the end of the arguments".to_owned();
                self.wrong(Severity::Warning, Rule::Type, value, span, message, cure, report);
                return;
            }
        }
        if let Some((severity, rule, message)) = out_of_range(parameter, value) {
            let severity = severity.max(self.severity());
            let message = format!("`{}`, argument {} of {name}, {message}", parameter.name, index + 1);
            let may_be_value = name == TABLE_INSERT.name && index == 2 && rule == Rule::Lifetime;
            let cure = if may_be_value { format!("{cure}; {NAMED_INSERT}") } else { cure };
            self.wrong(severity, rule, value, span, message, cure, report);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one finding")]
    fn wrong(
        &self,
        severity: Severity,
        rule: Rule,
        value: &Value,
        span: &Span,
        message: String,
        cure: String,
        report: &mut Report,
    ) {
        let mut found = finding(severity, rule, span, message, cure);
        found.literal = value.direct;
        report.add(found);
    }

    /// `select(pool, nil, 80)`.
    fn port_without_server(&self, report: &mut Report) {
        let [_, (server, span), (port, _)] = self.arguments.as_slice() else { return };
        let given = port.only().is_some_and(|kind| kind != Kind::Nil);
        if self.function.name == SELECT_POOL.name && server.only() == Some(Kind::Nil) && given {
            let message = format!("{} has a port and no server before it", self.function.name);
            let cure = "name the server, or leave the port out".to_owned();
            self.wrong(Severity::Error, Rule::Type, server, span, message, cure, report);
        }
    }
}

/// What is wrong with a value of a kind that is taken.
fn out_of_range(parameter: &Parameter, value: &Value) -> Option<(Severity, Rule, String)> {
    let spelled = value.text.as_deref();
    let is = |number: Option<f64>| {
        number.map_or_else(|| format!("is '{}'", spelled.unwrap_or("")), |n| format!("is {n}"))
    };
    let error = |number: Option<f64>| Some((Severity::Error, Rule::Type, is(number)));
    match parameter.meaning {
        Meaning::Bytes | Meaning::Offset => {
            let Some(n) = value.number.or_else(|| spelled.and_then(number)) else {
                return if spelled.is_some() { error(None) } else { None };
            };
            let most = if parameter.meaning == Meaning::Bytes { Meaning::MOST_BYTES } else { f64::INFINITY };
            if n < 0.0 || n > most { error(Some(n)) } else { None }
        }
        Meaning::Side => {
            let wrong = spelled.is_some_and(|side| side != "client" && side != "server");
            if wrong { error(None) } else { None }
        }
        Meaning::Lifetime => {
            let n = value.number?;
            if n <= 0.0 {
                return error(Some(n));
            }
            let least = Meaning::LEAST_LIFETIME;
            let short = format!("is {n} seconds: it is raised to {least}");
            (n < least).then_some((Severity::Warning, Rule::Lifetime, short))
        }
        Meaning::Extension => value.number.filter(|n| *n < 0.0).and_then(|n| error(Some(n))),
        Meaning::Renewal => {
            let n = value.number.filter(|n| *n <= 0.0)?;
            Some((Severity::Warning, Rule::Lifetime, format!("is {n}: it changes nothing")))
        }
        Meaning::Port => {
            let port = |n: f64| (0.0..=65535.0).contains(&n) && n.fract() == 0.0;
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            match (value.number, spelled) {
                (Some(n), _) if !port(n) => error(Some(n)),
                (None, Some(text)) if !digits(text) || !number(text).is_some_and(port) => error(None),
                _ => None,
            }
        }
        _ => None,
    }
}
