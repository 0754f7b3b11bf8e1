//! One JSON object on a line.

use serde_json::{Value, json};

use super::text::failure_lines;
use crate::coverage::Covered;
use crate::outcome::{Difference, Problem};
use crate::trial::{CaseReport, Failure};

/// One case of a file.
#[must_use]
pub fn case_json(file: &str, case: &CaseReport) -> String {
    let failure = case.failure.as_ref();
    let mut object = json!({
        "file": file,
        "case": case.name,
        "place": case.place,
        "passed": failure.is_none(),
        "runs": case.runs,
        "cuts": case.cuts,
        "all_cuts": case.all_cuts,
    });
    if let (Some(failure), Some(fields)) = (failure, object.as_object_mut()) {
        fields.insert("failure".to_owned(), failure_json(failure));
    }
    object.to_string()
}

fn failure_json(failure: &Failure) -> Value {
    let (kind, problem, differences) = match failure {
        Failure::Whole(problem) => ("whole", Some(problem), &[][..]),
        Failure::Unsteady { problem, differences } => ("unsteady", problem.as_ref(), differences.as_slice()),
        Failure::Cut { problem, differences, .. } => ("cut", problem.as_ref(), differences.as_slice()),
    };
    let payloads: Vec<Value> = match failure {
        Failure::Cut { payloads, .. } => payloads
            .iter()
            .map(|(payload, pieces)| {
                let pieces: Vec<_> = pieces.iter().map(|piece| json!([piece.start, piece.end])).collect();
                json!({
                    "place": payload.place,
                    "client": payload.client,
                    "from_server": payload.from_server,
                    "bytes": payload.length,
                    "pieces": pieces,
                })
            })
            .collect(),
        _ => Vec::new(),
    };
    json!({
        "kind": kind,
        "text": failure_lines(failure).join("\n"),
        "problem": problem.map(problem_json),
        "payloads": payloads,
        "differences": differences.iter().map(difference_json).collect::<Vec<_>>(),
    })
}

fn problem_json(problem: &Problem) -> Value {
    json!({ "place": problem.place, "text": problem.text, "expected": problem.wanted, "found": problem.got })
}

fn difference_json(difference: &Difference) -> Value {
    json!({ "what": difference.what, "whole": difference.whole, "cut": difference.cut })
}

/// A file that cannot be loaded.
#[must_use]
pub fn file_json(file: &str, problem: &Problem) -> String {
    json!({ "file": file, "passed": false, "broken": problem_json(problem) }).to_string()
}

/// Lines of a script that were and were not executed.
#[must_use]
pub fn coverage_json(directory: &str, covered: &Covered) -> String {
    let (reached, all) = covered.count();
    let missed: Vec<u32> =
        covered.lines.iter().filter(|(_, reached)| !**reached).map(|(line, _)| *line).collect();
    json!({ "directory": directory, "script": covered.name, "lines": all, "reached": reached, "missed": missed })
        .to_string()
}
