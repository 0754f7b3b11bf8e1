//! What is wrong with a file, where, and what to write instead: [`Problem`]; all of one run: [`Errors`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// Bytes of a text, from the first one on.
pub type Span = Range<usize>;

/// Columns of a rendered report.
const WIDTH: usize = 100;
/// Problems of a rendered report; the others are counted.
const SHOWN: usize = 100;

/// The text without what a terminal would obey: each control character but line feed, return and tab is replaced by a
/// mark of the same length, so that places stay where they are.
fn printable(text: &str) -> String {
    let mark = |c: char| match c {
        '\n' | '\r' | '\t' => c,
        '\u{80}'..='\u{9f}' => '¿',
        c if c.is_control() => '?',
        c => c,
    };
    text.chars().map(mark).collect()
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is taken, but probably not what was meant.
    Warning,
}

/// One thing that is wrong, with its place in the configuration file or in a script.
#[derive(Clone, Debug)]
pub struct Problem {
    severity: Severity,
    message: String,
    help: Option<String>,
    source: Arc<NamedSource<String>>,
    span: Span,
    label: Option<String>,
    others: Vec<(Span, String)>,
}

impl Problem {
    /// Error or warning.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, in one sentence without a full stop.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What is allowed, or what was probably meant.
    #[must_use]
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Name of the file or inline script.
    #[must_use]
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The offending text.
    #[must_use]
    pub fn found(&self) -> &str {
        self.source.inner().get(self.span.clone()).unwrap_or("")
    }

    /// Line, from 1 on.
    #[must_use]
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// Column in characters, from 1 on.
    #[must_use]
    pub fn column(&self) -> usize {
        self.before().rsplit('\n').next().unwrap_or("").chars().count() + 1
    }

    fn before(&self) -> &str {
        self.source.inner().get(..self.span.start).unwrap_or("")
    }

    /// Says what the marked text is.
    pub(crate) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = Some(printable(&label.into()));
        self
    }

    /// Says what to write instead.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(printable(&help.into()));
        self
    }

    /// Marks another place that belongs to the problem.
    pub(crate) fn also(&mut self, span: &Span, label: impl Into<String>) -> &mut Self {
        if *span != self.span {
            self.others.push((span.clone(), label.into()));
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let primary = LabeledSpan::new_primary_with_span(self.label.clone(), self.span.clone());
        let others = self.others.iter().map(|(span, label)| LabeledSpan::at(span.clone(), label.clone()));
        Some(Box::new(std::iter::once(primary).chain(others)))
    }
}

/// All problems of one file, in the order of their places; never empty when returned as an error.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    problems: Vec<Problem>,
}

impl Errors {
    /// The problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Every problem with its place in the text marked, what is allowed, and a count at the end; several lines.
    /// Of very many problems the first hundred; nothing at all where there is none.
    /// With `color`: ANSI colours.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        if self.problems.is_empty() {
            return String::new();
        }
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
        let mut text = String::new();
        for problem in self.problems.iter().take(SHOWN) {
            if handler.render_report(&mut text, problem).is_err() {
                text.push_str(&one_line(problem));
            }
            text.push('\n');
        }
        if let Some(more) = self.problems.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            text.push_str(&format!("… and {more} more\n\n"));
        }
        text.push_str(&self.count());
        text.push('\n');
        text
    }

    fn count(&self) -> String {
        let of = |severity| self.problems.iter().filter(|p| p.severity == severity).count();
        let part = |n: usize, what: &str| match n {
            0 => None,
            1 => Some(format!("1 {what}")),
            n => Some(format!("{n} {what}s")),
        };
        let parts = [part(of(Severity::Error), "error"), part(of(Severity::Warning), "warning")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn one_line(problem: &Problem) -> String {
    let (line, column) = (problem.line(), problem.column());
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}:{line}:{column}: {severity}: {}{help}", problem.file(), problem.message)
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(one_line).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Errors {}

/// Collects problems while a file is read and checked.
#[derive(Debug)]
pub(crate) struct Problems {
    source: Arc<NamedSource<String>>,
    list: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file_name: &str, text: &str) -> Self {
        Problems {
            source: Arc::new(NamedSource::new(printable(file_name), printable(text))),
            list: Vec::new(),
        }
    }

    /// The text of the configuration file.
    pub(crate) fn text(&self) -> &str {
        self.source.inner()
    }

    /// Adds an error at `span` of the configuration file.
    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, Arc::clone(&self.source), span, message.into())
    }

    /// Adds a warning at `span` of the configuration file.
    pub(crate) fn warning(&mut self, span: &Span, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Warning, Arc::clone(&self.source), span, message.into())
    }

    /// Adds a problem at `span` of a script, whose bytes need not be UTF-8.
    pub(crate) fn in_script(
        &mut self,
        severity: Severity,
        script: &dataplane::snapshot::Source,
        span: &Span,
        message: String,
    ) -> &mut Problem {
        let text = printable(&String::from_utf8_lossy(&script.text));
        // A byte that is not UTF-8 has become three; what stands before the span shows by how much it has moved.
        let moved = |at: usize| {
            let before = script.text.get(..at).unwrap_or(&script.text);
            String::from_utf8_lossy(before).len().min(text.len())
        };
        let span = moved(span.start)..moved(span.end);
        self.push(severity, Arc::new(NamedSource::new(printable(&script.name), text)), &span, message)
    }

    fn push(
        &mut self,
        severity: Severity,
        source: Arc<NamedSource<String>>,
        span: &Span,
        message: String,
    ) -> &mut Problem {
        let (help, label, others) = (None, None, Vec::new());
        let message = printable(&message);
        let problem = Problem { severity, message, help, source, span: span.clone(), label, others };
        self.list.push_mut(problem)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// How many errors there are by now.
    pub(crate) fn errors(&self) -> usize {
        self.list.iter().filter(|p| p.severity == Severity::Error).count()
    }

    /// The problems in the order of the configuration file, those of scripts last.
    pub(crate) fn finish(mut self) -> Errors {
        let source = self.source;
        let place = |p: &Problem| (!Arc::ptr_eq(&p.source, &source), p.file().to_owned(), p.span.start);
        self.list.sort_by_cached_key(place);
        Errors { problems: self.list }
    }
}
