//! The Test Anything Protocol, version 14.

use std::fmt::Write;

use super::text::{failure_lines, problem_lines};
use crate::trial::CaseReport;
use crate::{FileReport, outcome::Problem};

/// Writes numbers as it goes; the plan comes last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tap {
    points: usize,
}

impl Tap {
    /// The first line.
    #[must_use]
    pub fn version() -> &'static str {
        "TAP version 14\n"
    }

    /// One case of a file.
    pub fn case(&mut self, file: &str, case: &CaseReport) -> String {
        let lines = case.failure.iter().flat_map(failure_lines).collect();
        self.point(case.failure.is_none(), &format!("{file}: {}", case.name), lines)
    }

    /// A file that cannot be loaded.
    pub fn broken(&mut self, report: &FileReport, problem: &Problem) -> String {
        self.point(false, &report.file, problem_lines(problem))
    }

    fn point(&mut self, good: bool, name: &str, lines: Vec<String>) -> String {
        self.points += 1;
        let word = if good { "ok" } else { "not ok" };
        let name = name.replace('\\', "\\\\").replace('#', "\\#");
        let mut text = format!("{word} {} - {name}\n", self.points);
        if !lines.is_empty() {
            text.push_str("  ---\n  message: |\n");
            for line in lines {
                let _ = writeln!(text, "    {line}");
            }
            text.push_str("  ...\n");
        }
        text
    }

    /// The last line.
    #[must_use]
    pub fn plan(self) -> String {
        format!("1..{}\n", self.points)
    }
}
