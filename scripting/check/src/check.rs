//! [`check`] and [`check_names`]: from a text to its findings.

use crate::api::Event;
use crate::finding::{Finding, Rule, Severity};
use crate::lower;
use crate::names::Names;
use crate::rules::{
    Report, Script, calls, compare, events, globals, names, stale, tables, uncalled, undefined,
};
use crate::source::{bom_bytes, parseable};
use crate::syntax;
use crate::value::Values;
use crate::walk;

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The script of an event.
    Script(Event),
    /// A parser module, which scripts of either event may require.
    Module,
}

/// What is known beside the text.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// What the text is for.
    pub role: Role,
    /// What it may name; without it names are not checked.
    pub names: Option<&'a Names>,
}

/// Everything that is found in a text, in its order. A text that is no Lua has one finding.
#[must_use]
pub fn check(text: &[u8], settings: &Settings<'_>) -> Vec<Finding> {
    of_text(text, settings, |script, report| {
        names_of(script, report);
        events::check(script, report);
        calls::check(script, report);
        tables::check(script, report);
        stale::check(script, report);
        globals::check(script, report);
        compare::check(script, report);
        uncalled::check(script, report);
    })
}

/// Names that do not exist, in the API, in modules and in the configuration. The time it takes grows with the text and
/// not faster, so that no script holds up a start.
#[must_use]
pub fn check_names(text: &[u8], settings: &Settings<'_>) -> Vec<Finding> {
    of_text(text, settings, names_of)
}

fn names_of(script: &Script<'_>, report: &mut Report) {
    undefined::check(script, report);
    names::check(script, report);
}

fn of_text(text: &[u8], settings: &Settings<'_>, rules: impl Fn(&Script<'_>, &mut Report)) -> Vec<Finding> {
    let offset = bom_bytes(text);
    let text = parseable(text);
    let mut findings = match lower::tree(&text) {
        Ok(tree) => {
            let values = Values::of(&tree);
            let facts = walk::facts(&tree.block, &values);
            let mut report = Report::default();
            let script = Script { text: &text, tree: &tree, values: &values, facts: &facts, settings };
            rules(&script, &mut report);
            report.findings
        }
        Err(error) => vec![not_understood(&text, error)],
    };
    findings.retain(|finding| finding.severity == Severity::Error || !is_allowed(&text, finding));
    for finding in &mut findings {
        finding.span = finding.span.start + offset..finding.span.end + offset;
    }
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end, finding.rule));
    findings
}

/// Whether a comment on the line of a warning, or alone on the line before, allows it: `-- weir: allow RULE`.
fn is_allowed(text: &str, finding: &Finding) -> bool {
    let at = finding.span.start.min(text.len());
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let mut above = before.rsplit('\n');
    let start = above.next().unwrap_or_default();
    let rest = after.split('\n').next().unwrap_or_default();
    let comment = above.next().map(str::trim).filter(|line| line.starts_with("--"));
    let allows = |line: &str| {
        let list = line.rsplit_once("-- weir: allow ").map(|(_, list)| list);
        list.is_some_and(|list| list.split([',', ' ']).any(|rule| rule.trim() == finding.rule.name()))
    };
    allows(&format!("{start}{rest}")) || comment.is_some_and(allows)
}

fn not_understood(text: &str, error: lower::SyntaxError) -> Finding {
    let start = text.get(..error.span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let cure = syntax::cure(&error.message, line);
    let (severity, rule) = (Severity::Error, Rule::Syntax);
    Finding { severity, rule, span: error.span, message: error.message, cure, literal: true }
}
