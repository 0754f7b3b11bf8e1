//! Start and stop: signals, and configurations that are refused.

use std::process::Command;
use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir, weir_binary};

const CONFIG: &str = r#"
[[pool]]
name = "one"
servers = [{ address = "10.0.0.20", port = 7 }]

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10"]
ports = ["tcp/700", "udp/700"]
pool = "one"
"#;

/// Within a second the process is gone with status 0, and so are its ports and its socket; open flows are logged.
fn ends_on(signal: &str) -> Result {
    let Some(network) = Network::new(signal, Arms::Two)? else { return Ok(()) };
    let mut weir = Weir::start(&network, CONFIG)?;
    let _server = network.server("one", "echo.py", &["udp", "one", "10.0.0.20", "7"])?;
    let answer = network.run_client(Duration::from_secs(5), "udp_client.py", &["192.0.2.10", "700", "x"])?;
    assert_eq!(answer, "one:x\n");
    assert!(network.has_port());

    let status = weir.stop(signal, Duration::from_secs(1))?;
    assert!(status.success(), "{status}: {}", weir.said());
    assert!(!network.has_port(), "the tap device is still there");
    assert!(!network.directory().join("weir.sock").exists(), "the admin socket is still there");
    let records = weir.records()?;
    let codes: Vec<_> = records.iter().map(|record| record["termination"].as_str()).collect();
    assert_eq!(codes, [Some("KD")], "{records:?}");
    Ok(())
}

#[test]
fn ends_on_sigterm() -> Result {
    ends_on("TERM")
}

#[test]
fn ends_on_sigint() -> Result {
    ends_on("INT")
}

/// `weir check` and `weir run` refuse the same file with the same words, and no device is made.
#[test]
fn a_wrong_configuration_is_refused() -> Result {
    let Some(network) = Network::new("wrong configuration", Arms::Two)? else { return Ok(()) };
    let path = network.directory().join("wrong.toml");
    let file = path.display().to_string();
    for (wrong, right, message) in [
        ("adresses = [\"192.0.2.10\"]", "addresses = [\"192.0.2.10\"]", "addresses"),
        ("pool = \"on\"", "pool = \"one\"", "on"),
        ("ports = [\"tpc/700\"]", "ports = [\"tcp/700\", \"udp/700\"]", "tpc/700"),
        ("port = 70000", "port = 7", "70000"),
    ] {
        let config = CONFIG.replace(right, wrong);
        assert_ne!(config, CONFIG, "{right} is in the configuration");
        std::fs::write(&path, format!("{}{config}", network.config_head(1)))?;
        let balancer = network.balancer();
        let mut answers = Vec::new();
        for arguments in [vec!["check", &file], vec!["run", "--config", &file]] {
            let weir = weir_binary()?;
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &balancer]).arg(weir).args(&arguments);
            let output = command.output()?;
            assert!(!output.status.success(), "{arguments:?} took {wrong}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
            answers.push(String::from_utf8(output.stderr)?);
        }
        assert!(answers[0].contains("wrong.toml") && answers[0].contains(message), "{}", answers[0]);
        assert_eq!(answers[0], answers[1], "`check` and `run` say the same");
    }
    Ok(())
}
