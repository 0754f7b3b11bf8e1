//! Reload under traffic: by command and by signal, with files that are right and wrong.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir, within};

const LIMIT: Duration = Duration::from_secs(20);

/// All flows go to this pool.
fn config(pool: &str, address: &str) -> String {
    format!(
        r#"
[[pool]]
name = "{pool}"
servers = [{{ address = "{address}", port = 7 }}]
health_monitor = [{{ type = "tcp" }}]

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10"]
ports = ["tcp/700"]
pool = "{pool}"
"#
    )
}

/// Status and both outputs of `weir reload`.
fn reload(weir: &Weir) -> Result<(Option<i32>, String, String)> {
    let output = weir.command(&["reload"]).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn reloads(workers: u8) -> Result {
    let Some(network) = Network::new(&format!("reload {workers}"), Arms::Two)? else { return Ok(()) };
    let (one, two) = (config("one", "10.0.0.20"), config("two", "10.0.0.21"));
    let weir = Weir::start_on_workers(&network, &one, workers)?;
    let _one = network.server("one", "echo.py", &["tcp", "one", "10.0.0.20", "7"])?;
    let _two = network.server("two", "echo.py", &["tcp", "two", "10.0.0.21", "7"])?;
    weir.wait_for_servers(1, LIMIT)?;
    let ask = || network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "x"]);
    let steady = network.peer("steady", &network.client(), "steady.py", &["192.0.2.10", "700", "300"])?;
    assert_eq!(ask()?, "one:x\n");

    weir.rewrite(&network, &two, workers)?;
    let taken = if workers == 1 { "the worker has taken it" } else { "all 2 workers have taken it" };
    let expected = format!(
        "services: changed echo\npools: added two; removed one\n\
         servers: added two 10.0.0.21:7; removed one 10.0.0.20:7\n{taken}\n"
    );
    assert_eq!(reload(&weir)?, (Some(0), expected, String::new()));
    assert_eq!(ask()?, "two:x\n");
    let servers = weir.show("servers")?;
    let states: Vec<_> = servers.as_array().into_iter().flatten().map(|row| &row["state"]).collect();
    assert_eq!(states, ["removed", "up"], "the steady connection is there: {servers}");

    for (wrong, message) in [
        (two.replace("pool = \"two\"", "pool = \"twp\""), "did you mean `two`?"),
        (format!("{two}[limits]\nflows = 4096\n"), "needs a restart: limits.flows"),
    ] {
        weir.rewrite(&network, &wrong, workers)?;
        let (status, said, error) = reload(&weir)?;
        assert!(error.contains(message) && said.is_empty(), "{said}{error}");
        assert_eq!(status, Some(2));
        assert_eq!(ask()?, "two:x\n");
    }

    weir.rewrite(&network, &one, workers)?;
    weir.signal("HUP")?;
    within(LIMIT, || match ask()?.as_str() {
        "one:x\n" => Ok(()),
        other => Err(format!("still {other}").into()),
    })?;
    for _ in 0..5 {
        for config in [&two, &one] {
            weir.rewrite(&network, config, workers)?;
            assert_eq!(reload(&weir)?.0, Some(0));
            let name = if config == &one { "one" } else { "two" };
            assert_eq!(ask()?, format!("{name}:x\n"));
        }
    }
    assert_eq!(steady.finish(LIMIT)?.lines().last(), Some("300 from one"));
    let records = weir.wait_for_records(15)?;
    assert!(records.iter().all(|record| record["termination"] == "--"), "{}", weir.odd_records());
    let log = std::fs::read_to_string(network.directory().join("connections.log"))?;
    let told = |applied: bool| log.matches(&format!(r#""applied":{applied}"#)).count();
    assert_eq!((told(true), told(false)), (12, 2));
    weir.check_balance()
}

#[test]
fn a_connection_lasts_over_reloads_under_traffic() -> Result {
    reloads(1)
}

#[test]
fn two_workers_reload() -> Result {
    reloads(2)
}
