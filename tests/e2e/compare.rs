//! `make compare`, with weir alone and for a few seconds: it brings figures, no errors, and leaves nothing behind.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_tests::testkit::{Result, obstacle, repository, weir_binary, within};

/// Namespaces of the comparison that this process started.
fn namespaces(stem: &str) -> Result<Vec<String>> {
    let output = Command::new("ip").args(["netns", "list"]).output()?;
    let list = String::from_utf8(output.stdout)?;
    Ok(list.lines().filter(|line| line.starts_with(stem)).map(str::to_owned).collect())
}

#[test]
fn figures_come_out_and_nothing_goes_wrong() -> Result {
    if let Some(obstacle) = obstacle() {
        eprintln!("SKIPPED: the comparison: {obstacle}");
        return Ok(());
    }
    let directory = tempfile::TempDir::with_prefix("weir-compare-test-")?;
    let (results, said) = (directory.path().join("results"), directory.path().join("said"));
    // target/debug/deps/e2e-0123 -> target/debug/weir-load
    let load = std::env::current_exe()?.ancestors().nth(2).map(|built| built.join("weir-load"));
    let load =
        load.filter(|path| path.is_file()).ok_or("no weir-load: run `cargo build -p weir-perf` first")?;
    let run = format!("{}-{}", std::env::var("WEIR_TEST_RUN").unwrap_or_default(), std::process::id());
    let mut child = Command::new(repository().join("perf/compare/run.sh"))
        .args(["--quick", "--only", "weir-af_packet,weir-af_xdp", "--rates", "100,500", "--results"])
        .arg(&results)
        .env("WEIR_BIN", weir_binary()?)
        .env("LOAD_BIN", load)
        .env("WEIR_TEST_RUN", &run)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said)?)
        .spawn()?;
    let ended = within(Duration::from_secs(60), || child.try_wait()?.ok_or_else(|| "still running".into()));
    if ended.is_err() {
        // SIGTERM, so that it takes its namespaces away.
        Command::new("kill").arg(child.id().to_string()).status()?;
    }
    let status = child.wait()?;
    let said = std::fs::read_to_string(&said)?;
    assert!(status.success(), "{status}: {said}");
    assert_eq!(namespaces(&format!("weir-test-{run}-"))?, Vec::<String>::new());

    let lines = std::fs::read_to_string(&results)?;
    let lines = lines.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>()?;
    let of = |contender| lines.iter().filter(move |line| line["contender"] == contender);
    assert_eq!(of("weir-af_packet").count(), 5, "{lines:?}");
    // A machine without AF_XDP says so in one line.
    assert!([1, 5].contains(&of("weir-af_xdp").count()), "{lines:?}");
    for line in lines.iter().filter(|line| line.get("skipped").is_none()) {
        assert!(line["per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
        assert_eq!(line["errors"], 0, "{line}: {said}");
        let paced = line["measure"].as_str().is_some_and(|name| name.starts_with("paced-"));
        assert!(!paced || line["p99"].as_f64() >= line["p50"].as_f64(), "{line}");
    }
    Ok(())
}
