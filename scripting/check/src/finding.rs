//! What the checks find, and how it is shown.

use std::ops::Range;

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The script cannot be loaded, or the line raises an error whenever it is reached.
    Error,
    /// Probably not what was meant.
    Warning,
}

impl Severity {
    /// As in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// The kinds of findings; `docs/script-tools.md` describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The text is no Lua.
    Syntax,
    /// A name in `avi`, in a module or in a library that does not exist.
    Undefined,
    /// A function of the original that weir does not have.
    Unsupported,
    /// Too few or too many arguments.
    Arity,
    /// An argument of a kind or value that is not taken; a function where only what it gives can be used.
    Type,
    /// A call that is not available in the event.
    Event,
    /// A pool, group, server or module of the configuration.
    Name,
    /// An insert that is meant to overwrite.
    InsertKeeps,
    /// A lookup that prolongs what should end.
    LookupProlongs,
    /// A lifetime that is raised to 300 seconds.
    Lifetime,
    /// A payload from before a `collect`, used after it.
    StaleRead,
    /// A global that is set or read by accident.
    Global,
    /// A comparison that always has the same result.
    Compare,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 13] = [
        Rule::Syntax,
        Rule::Undefined,
        Rule::Unsupported,
        Rule::Arity,
        Rule::Type,
        Rule::Event,
        Rule::Name,
        Rule::InsertKeeps,
        Rule::LookupProlongs,
        Rule::Lifetime,
        Rule::StaleRead,
        Rule::Global,
        Rule::Compare,
    ];

    /// As in reports and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Syntax => "syntax",
            Rule::Undefined => "undefined",
            Rule::Unsupported => "unsupported",
            Rule::Arity => "arity",
            Rule::Type => "type",
            Rule::Event => "event",
            Rule::Name => "name",
            Rule::InsertKeeps => "insert-keeps",
            Rule::LookupProlongs => "lookup-prolongs",
            Rule::Lifetime => "lifetime",
            Rule::StaleRead => "stale-read",
            Rule::Global => "global",
            Rule::Compare => "compare",
        }
    }
}

/// Something found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What kind it is.
    pub rule: Rule,
    /// The bytes of the text as read.
    pub span: Range<usize>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What would be right.
    pub cure: String,
    /// Whether the value that it is about stands at its place, and does not come through a local variable.
    pub literal: bool,
}

/// A finding with its place in lines and columns.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The file, as it was given.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
    /// Where it ends: the line, and the column of the first byte after it.
    pub end_line: usize,
    /// See `end_line`.
    pub end_column: usize,
    /// `error` or `warning`.
    pub severity: Severity,
    /// What kind it is.
    pub rule: Rule,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub cure: String,
    /// The line itself, without its end.
    pub source: String,
}

impl Shown {
    /// Places a finding in the text that it is about.
    #[must_use]
    pub fn new(file: &str, text: &[u8], finding: &Finding) -> Shown {
        let (line, column, start) = place(text, finding.span.start);
        let (end_line, end_column, _) = place(text, finding.span.end.max(finding.span.start));
        let rest = text.get(start..).unwrap_or_default();
        let source = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let source = source.strip_suffix(b"\r").unwrap_or(source);
        Shown {
            file: file.to_owned(),
            line,
            column,
            end_line,
            end_column,
            severity: finding.severity,
            rule: finding.rule,
            message: finding.message.clone(),
            cure: finding.cure.clone(),
            source: crate::source::as_text(source),
        }
    }

    /// As one object of JSON, without a line feed.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As four lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let source = printable(&self.source);
        let indent = self.source.get(..self.column.saturating_sub(1)).unwrap_or_default();
        let before: String = indent.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let end = if self.end_line == self.line { self.end_column } else { self.source.len() + 1 };
        let inside =
            self.source.get(self.column.saturating_sub(1)..end.saturating_sub(1)).unwrap_or_default();
        let marks = "^".repeat(inside.chars().count().max(1));
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        format!(
            "{}:{number}:{}: {}[{}]: {}\n {number} | {source}\n {gutter} | {before}{marks}\n {gutter} = {}\n",
            printable(&self.file),
            self.column,
            self.severity.word(),
            self.rule.name(),
            printable(&self.message),
            printable(&self.cure),
        )
    }
}

/// Line, column and start of the line of a byte.
fn place(text: &[u8], at: usize) -> (usize, usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = if line == 1 { crate::source::bom_bytes(text).min(before.len()) } else { start };
    (line, before.len() - start + 1, start)
}

/// Without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}
