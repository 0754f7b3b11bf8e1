//! JUnit XML, as far as its readers agree: suites, cases, failures and errors.

use std::fmt::Write;

use super::text::{failure_lines, problem_lines};
use crate::FileReport;

/// All files.
#[must_use]
pub fn junit(files: &[FileReport]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for file in files {
        suite(&mut text, file);
    }
    text.push_str("</testsuites>\n");
    text
}

fn suite(text: &mut String, file: &FileReport) {
    let failed = file.cases.iter().filter(|case| case.failure.is_some()).count();
    let broken = usize::from(file.broken.is_some());
    let name = escaped(&file.file);
    let tests = file.cases.len() + broken;
    let _ = writeln!(
        text,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failed}\" errors=\"{broken}\">"
    );
    for case in &file.cases {
        let _ = write!(text, "    <testcase classname=\"{name}\" name=\"{}\"", escaped(&case.name));
        match &case.failure {
            None => text.push_str("/>\n"),
            Some(failure) => trouble(text, "failure", &failure_lines(failure)),
        }
    }
    if let Some(problem) = &file.broken {
        let _ = write!(text, "    <testcase classname=\"{name}\" name=\"loading\"");
        trouble(text, "error", &problem_lines(problem));
    }
    text.push_str("  </testsuite>\n");
}

fn trouble(text: &mut String, kind: &str, lines: &[String]) {
    let first = lines.first().map_or("", String::as_str);
    let whole = escaped(&lines.join("\n"));
    let _ =
        writeln!(text, ">\n      <{kind} message=\"{}\">{whole}</{kind}>\n    </testcase>", escaped(first));
}

/// For text and attributes; what XML does not have is replaced.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
