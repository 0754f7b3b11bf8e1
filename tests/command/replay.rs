//! `weir replay` and `weir explain` as they are typed.

use std::path::Path;
use std::process::{Command, Output};

use weir_tests::testkit::{Result, repository, weir_binary};

const CAPTURE: &str = "lab/tests/captures/kernel.pcap";
const CONFIG: &str = "config/examples/minimal.toml";
const VIP: &str = "203.0.113.80:8080=192.0.2.10:80";

fn weir(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(weir_binary()?);
    Ok(command.args(arguments).env_clear().current_dir(repository()).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_replay_has_an_exit_code_for_each_outcome() -> Result {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (json, other, out) = (path("expected.json"), path("other.json"), path("out.pcapng"));
    let played = weir(&["replay", "--config", CONFIG, "--vip", VIP, "--json", "--out", &out, CAPTURE])?;
    assert_eq!(played.status.code(), Some(0), "{played:?}");
    let report: serde_json::Value = serde_json::from_slice(&played.stdout)?;
    assert_eq!(report["flows"][0]["servers"][0], "192.0.2.20:8080 of 'web'");
    assert_eq!((&report["flows"][0]["to_server"], &report["flows"][0]["end"]), (&4007.into(), &"--".into()));
    std::fs::write(&json, &played.stdout)?;
    std::fs::write(&other, text(&played.stdout).replace("192.0.2.20:8080", "192.0.2.21:8080"))?;
    for (arguments, code) in [
        (&["--vip", VIP, CAPTURE][..], 0),
        (&["--vip", VIP, "--expect", &json, CAPTURE], 0),
        // What came out is played without a mapping: its addresses are weir's.
        (&["--expect", &json, &out], 0),
        (&["--vip", VIP, "--expect", &other, CAPTURE], 1),
        (&["--vip", VIP, "--expect", CONFIG, CAPTURE], 2),
        (&[CAPTURE], 2),
        (&["--vip", "here", CAPTURE], 2),
        (&[CONFIG], 2),
        (&["none.pcap"], 2),
    ] {
        let output = weir(&[&["replay", "--config", CONFIG], arguments].concat())?;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
    let output = weir(&["replay", "--config", "none.toml", CAPTURE])?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(Path::new(&out).exists());
    Ok(())
}

#[test]
fn an_explanation_names_service_server_and_address() -> Result {
    let ask = |rest: &[&str]| {
        weir(&[&["explain", "--config", CONFIG, "--client", "192.0.2.77:4242", "--vip"], rest].concat())
    };
    let said = ask(&["192.0.2.10:80"])?;
    let out = text(&said.stdout);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(out.contains("pool 'web' (the service's default): round robin by weight"), "{out}");
    assert!(
        out.contains("   1. 192.0.2.20:8080 of 'web': up") && out.contains("   2. 192.0.2.21:8080"),
        "{out}"
    );
    assert!(out.contains("server: 192.0.2.20:8080 of 'web', from 192.0.2.2:"), "{out}");
    let json: serde_json::Value = serde_json::from_slice(&ask(&["192.0.2.10:80", "--json"])?.stdout)?;
    assert_eq!(json["choice"]["servers"][1]["place"], 2);
    let unserved = ask(&["192.0.2.10:81"])?;
    assert_eq!(unserved.status.code(), Some(1), "{unserved:?}");
    assert!(text(&unserved.stderr).contains("'www' has 192.0.2.10 tcp/80"), "{unserved:?}");
    assert_eq!(ask(&["192.0.2.10:80", "--hex", "abc"])?.status.code(), Some(2));
    assert_eq!(ask(&["192.0.2.10:80", "--payload", "none"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_capture_that_cannot_begin_leaves_the_file_as_it_was() -> Result {
    let directory = tempfile::tempdir()?;
    let (file, socket) = (directory.path().join("old.pcapng"), directory.path().join("none.sock"));
    std::fs::write(&file, "of yesterday")?;
    let paths = [&file, &socket].map(|path| path.to_str().ok_or("path"));
    let output = weir(&["capture", "--out", paths[0]?, "--socket", paths[1]?])?;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file)?, "of yesterday");
    Ok(())
}
