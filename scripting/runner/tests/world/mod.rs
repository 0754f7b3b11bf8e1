//! A configuration with one script, and test files as text.

use std::path::Path;
use std::sync::Arc;

use dataplane::snapshot::Snapshot;
use script_runner::report::failure_lines;
use script_runner::{CaseReport, Effort, Failure, FileReport, Lines, Settings, test_file};

/// A TCP service on port 80 with pools `www` and `api`, and `more` of a configuration.
pub fn configuration(request: &str, more: &str) -> Arc<Snapshot> {
    let text = format!(
        r#"
[[interface]]
name = "lan"
device = "net_tap0"
addresses = ["192.0.2.1/24"]
[snat]
addresses = ["192.0.2.2"]
[[pool]]
name = "www"
servers = [{{ address = "192.0.2.20", port = 80 }}, {{ address = "192.0.2.21", port = 80 }}]
[[pool]]
name = "api"
servers = [{{ address = "192.0.2.22", port = 80 }}]
[[datascript_set]]
name = "set"
request_inline = '''
{request}'''
pools = ["www", "api"]
{more}
"#
    );
    config::parse(&text, "weir.toml", Path::new("")).map_err(|errors| errors.render(false)).unwrap().snapshot
}

pub const TCP: &str = r#"
[[virtual_service]]
name = "http"
addresses = ["192.0.2.10"]
ports = ["tcp/80"]
pool = "api"
datascript_sets = ["set"]
"#;

/// Runs a test file against a configuration.
pub fn run(snapshot: &Snapshot, test: &str) -> FileReport {
    run_with(snapshot, test, Settings::default(), &mut Lines::new())
}

pub fn run_with(snapshot: &Snapshot, test: &str, settings: Settings<'_>, lines: &mut Lines) -> FileReport {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/case_test.lua");
    test_file(snapshot, &path, test.as_bytes(), &settings, lines, |_| {})
}

/// The only case of a file that has one.
pub fn only_case(report: &FileReport) -> &CaseReport {
    assert_eq!((report.cases.len(), &report.broken), (1, &None), "{report:?}");
    &report.cases[0]
}

/// What is told of the only case, line by line; empty if it passed.
pub fn told(report: &FileReport) -> Vec<String> {
    only_case(report).failure.iter().flat_map(failure_lines).collect()
}

/// A case around `body`, with a flow that has sent `payload`.
pub fn case(payload: &str, body: &str) -> String {
    format!(
        "it(\"works\", function()\nlocal flow = client(\"192.0.2.7:4242\")\nflow:send({payload})\n{body}\nend)"
    )
}

#[allow(dead_code, reason = "one of the tests uses it")]
pub fn quick() -> Effort {
    Effort { random: 2, ..Effort::default() }
}

#[allow(dead_code, reason = "one of the tests uses it")]
pub fn cut_places(failure: &Failure) -> Vec<Vec<std::ops::Range<usize>>> {
    match failure {
        Failure::Cut { payloads, .. } => payloads.iter().map(|(_, pieces)| pieces.clone()).collect(),
        other => panic!("{other:?}"),
    }
}
