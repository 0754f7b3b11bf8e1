//! For people.

use std::fmt::Write;

use crate::coverage::Covered;
use crate::cuts::Pieces;
use crate::outcome::Problem;
use crate::trial::{CaseReport, Failure};
use crate::world::Payload;

/// Pieces of a payload that are listed.
const MOST_PIECES: usize = 16;

/// One case: a line, and below it why it failed.
#[must_use]
pub fn case_text(case: &CaseReport) -> String {
    let verdict = if case.failure.is_none() { "ok  " } else { "FAIL" };
    let cuts = if case.cuts == case.all_cuts {
        format!("{} cuts", case.cuts)
    } else {
        format!("{} of {} cuts", case.cuts, case.all_cuts)
    };
    let cuts = if case.all_cuts == 0 { String::new() } else { format!(" ({cuts})") };
    let mut text = format!("{verdict} {}{cuts}\n", case.name);
    for line in case.failure.iter().flat_map(failure_lines) {
        let _ = writeln!(text, "     {line}");
    }
    text
}

/// Why a case failed.
#[must_use]
pub fn failure_lines(failure: &Failure) -> Vec<String> {
    let mut lines = Vec::new();
    match failure {
        Failure::Whole(problem) => lines.extend(problem_lines(problem)),
        Failure::Unsteady { problem, differences } => {
            lines.push(
                "two runs alike came out differently: does the test keep something between its cases?"
                    .to_owned(),
            );
            lines.extend(problem.iter().flat_map(problem_lines));
            for difference in differences {
                lines.extend(two("first", "then", &difference.what, &difference.whole, &difference.cut));
            }
        }
        Failure::Cut { payloads, random, problem, differences } => {
            lines.push("good in one piece, but not as it may arrive:".to_owned());
            for (payload, pieces) in payloads {
                lines.push(format!("  {}", pieces_line(payload, pieces)));
            }
            if *random {
                lines.push("  (no single cut of a payload does it)".to_owned());
            }
            lines.extend(problem.iter().flat_map(problem_lines));
            for difference in differences {
                lines.extend(two("whole", "cut", &difference.what, &difference.whole, &difference.cut));
            }
        }
    }
    lines
}

fn two(first: &str, second: &str, what: &str, here: &str, there: &str) -> [String; 3] {
    [format!("{what}:"), format!("  {first:5} {here}"), format!("  {second:5} {there}")]
}

/// A payload and its pieces.
fn pieces_line(payload: &Payload, pieces: &Pieces) -> String {
    let whose = if payload.from_server { "the server's reply to" } else { "the bytes of" };
    let what = format!("{}: {whose} {} ({} bytes)", payload.place, payload.client, payload.length);
    match pieces.as_slice() {
        [first, last] if first.start == 0 && first.end == last.start => {
            format!("{what}, cut after byte {}", first.end)
        }
        _ => {
            let shown = pieces.iter().take(MOST_PIECES);
            let shown: Vec<_> = shown.map(|piece| format!("{}..{}", piece.start, piece.end)).collect();
            let more = pieces.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{what}, as the pieces {}{more}", shown.join(" "))
        }
    }
}

/// An expectation that failed, or an error.
#[must_use]
pub fn problem_lines(problem: &Problem) -> Vec<String> {
    let colon = if problem.wanted.is_some() { ":" } else { "" };
    let mut lines: Vec<String> =
        format!("{}: {}{colon}", problem.place, problem.text).lines().map(str::to_owned).collect();
    lines.extend(problem.wanted.iter().map(|wanted| format!("  expected  {wanted}")));
    lines.extend(problem.got.iter().map(|got| format!("  found     {got}")));
    lines
}

/// Lines of scripts that no case reached.
#[must_use]
pub fn coverage_text(covered: &[Covered]) -> String {
    let mut text = String::new();
    for script in covered {
        let (reached, all) = script.count();
        let percent = (reached * 100).checked_div(all).unwrap_or(100);
        let _ = writeln!(text, "{}: {reached} of {all} lines ({percent} %)", script.name);
        for (number, _) in script.lines.iter().filter(|(_, reached)| !**reached) {
            let place = usize::try_from(*number).unwrap_or(usize::MAX).saturating_sub(1);
            let line = script.text.get(place).map_or("", String::as_str);
            let _ = writeln!(text, "  {number:4} | {line}");
        }
    }
    text
}
