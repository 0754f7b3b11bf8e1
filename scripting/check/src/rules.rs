//! The checks, one file for what belongs together. Each goes through the facts once and reports.

pub(crate) mod calls;
pub(crate) mod compare;
pub(crate) mod events;
pub(crate) mod globals;
pub(crate) mod names;
pub(crate) mod same;
pub(crate) mod stale;
pub(crate) mod tables;
pub(crate) mod uncalled;
pub(crate) mod undefined;

use crate::api::Function;
use crate::check::Settings;
use crate::finding::{Finding, Rule, Severity};
use crate::tree::{Span, Tree};
use crate::value::Values;
use crate::walk::Fact;

/// What the checks look at.
pub(crate) struct Script<'t> {
    /// As parsed.
    pub(crate) text: &'t str,
    pub(crate) tree: &'t Tree,
    pub(crate) values: &'t Values<'t>,
    pub(crate) facts: &'t [Fact<'t>],
    pub(crate) settings: &'t Settings<'t>,
}

impl Script<'_> {
    /// The line of a byte, counted from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or_default().matches('\n').count() + 1
    }
}

/// Where findings go.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(crate) fn error(
        &mut self,
        rule: Rule,
        span: &Span,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.add(finding(Severity::Error, rule, span, message, cure));
    }

    pub(crate) fn warning(
        &mut self,
        rule: Rule,
        span: &Span,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.add(finding(Severity::Warning, rule, span, message, cure));
    }
}

/// A finding about something that stands at its place.
pub(crate) fn finding(
    severity: Severity,
    rule: Rule,
    span: &Span,
    message: impl Into<String>,
    cure: impl Into<String>,
) -> Finding {
    let (message, cure) = (message.into(), cure.into());
    Finding { severity, rule, span: span.clone(), message, cure, literal: true }
}

/// What to write instead of a function's name.
pub(crate) fn call_of(function: &Function) -> String {
    format!("call it: {}", function.signature(function.forms.first().copied().unwrap_or_default()))
}

/// "attached pools: a, b".
pub(crate) fn listed<T: AsRef<str>>(what: &str, names: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 30;
    let names: Vec<String> = names.map(|name| name.as_ref().to_owned()).collect();
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match (names.is_empty(), more) {
        (true, _) => format!("{what}: none"),
        (false, 0) => format!("{what}: {}", shown.join(", ")),
        (false, more) => format!("{what}: {} and {more} more", shown.join(", ")),
    }
}
