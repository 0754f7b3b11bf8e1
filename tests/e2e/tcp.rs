//! TCP: delayed binding, replay, splice, and servers that refuse.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir};

const LIMIT: Duration = Duration::from_secs(30);

/// The twentieth byte chooses, so the script has to wait for it.
fn config(vip: &str, servers: [&str; 2]) -> String {
    let [a, b] = servers;
    format!(
        r#"
[[pool]]
name = "a"
servers = [{{ address = "{a}", port = 7 }}]

[[pool]]
name = "b"
servers = [{{ address = "{b}", port = 7 }}]

[[datascript_set]]
name = "twentieth"
request_inline = """
local before = avi.l4.collect(20)
if avi.l4.read(1, 19) == "b" then avi.pool.select("b") end
avi.vs.log("start=", avi.l4.read(5))
"""
pools = ["a", "b"]

[[virtual_service]]
name = "echo"
addresses = ["{vip}"]
ports = ["tcp/700"]
pool = "a"
datascript_sets = ["twentieth"]
"#
    )
}

const TO_A: &str = "0123456789012345678a and more";
const TO_B: &str = "0123456789012345678b and more";

/// The text comes one byte per segment; then a megabyte goes through the splice both ways at once and is compared.
fn collects(vip: &str, servers: [&str; 2]) -> Result {
    let Some(network) = Network::new("tcp collect", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(&network, &config(vip, servers))?;
    let _a = network.server("a", "echo.py", &["tcp", "a", servers[0], "7"])?;
    let _b = network.server("b", "echo.py", &["tcp", "b", servers[1], "7"])?;
    let b = network.run_client(LIMIT, "tcp_client.py", &[vip, "700", TO_B, "1", "1000000"])?;
    assert_eq!(b, format!("b:{TO_B}+1000000\n"));
    let a = network.run_client(LIMIT, "tcp_client.py", &[vip, "700", TO_A])?;
    assert_eq!(a, format!("a:{TO_A}\n"));

    let records = weir.wait_for_records(2)?;
    for record in &records {
        assert_eq!(record["termination"], "--", "{record}");
        assert_eq!(record["ds_log"], "start=01234", "{record}");
    }
    let of_a = records.iter().find(|record| record["pool"] == "a").ok_or("no record of pool a")?;
    assert_eq!(of_a["bytes_in"], TO_A.len(), "{of_a}");
    assert_eq!(of_a["bytes_out"], TO_A.len() + 2, "{of_a}");
    weir.check_balance()
}

#[test]
fn collects_ipv4() -> Result {
    collects("192.0.2.10", ["10.0.0.20", "10.0.0.21"])
}

#[test]
fn collects_ipv6() -> Result {
    collects("2001:db8:1::10", ["2001:db8:2::20", "2001:db8:2::21"])
}

/// A client that closes before the script has its bytes reaches no server, and the log says who ended it and when.
#[test]
fn client_closes_too_early() -> Result {
    let Some(network) = Network::new("tcp early close", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(&network, &config("192.0.2.10", ["10.0.0.20", "10.0.0.21"]))?;
    let _a = network.server("a", "echo.py", &["tcp", "a", "10.0.0.20", "7"])?;
    let answer = network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "too short"])?;
    assert!(!answer.contains("a:"), "{answer}");
    let records = weir.wait_for_records(1)?;
    assert_eq!(records[0]["termination"], "CP", "{records:?}");
    weir.check_balance()
}

/// A server that refuses is passed over; when every server refuses, the client is told so at once.
#[test]
fn servers_refuse() -> Result {
    let Some(network) = Network::new("tcp refused", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(
        &network,
        r#"
[[pool]]
name = "half"
servers = [{ address = "10.0.0.20", port = 7 }, { address = "10.0.0.21", port = 7 }]

[[pool]]
name = "none"
servers = [{ address = "10.0.0.22", port = 7 }]

[[datascript_set]]
name = "all"
request_inline = "avi.l4.read()"

[[virtual_service]]
name = "half"
addresses = ["192.0.2.10"]
ports = ["tcp/700"]
pool = "half"
datascript_sets = ["all"]

[[virtual_service]]
name = "none"
addresses = ["192.0.2.11"]
ports = ["tcp/700"]
pool = "none"
datascript_sets = ["all"]
"#,
    )?;
    let _b = network.server("b", "echo.py", &["tcp", "b", "10.0.0.21", "7"])?;
    for _ in 0..4 {
        let answer = network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "hello"])?;
        assert_eq!(answer, "b:hello\n", "the other server of the pool takes over");
    }
    let answer = network.run_client(LIMIT, "tcp_client.py", &["192.0.2.11", "700", "hello"])?;
    assert_eq!(answer, "reset\n");
    let records = weir.wait_for_records(5)?;
    let refused = records.iter().find(|record| record["service"] == "none").ok_or("no record")?;
    assert_eq!(refused["termination"], "SC", "{refused}");
    weir.check_balance()
}

/// Kernels that lack an option on one side or the other, with and without SYN cookies: a megabyte there and back.
#[test]
fn kernels_without_options() -> Result {
    for cookies in ["always", "never"] {
        let Some(network) = Network::new("tcp options", Arms::Two)? else { return Ok(()) };
        let service = format!("[virtual_service.tcp]\nsyn_cookies = \"{cookies}\"\n");
        let weir = Weir::start(&network, &(config("192.0.2.10", ["10.0.0.20", "10.0.0.21"]) + &service))?;
        let _a = network.server("a", "echo.py", &["tcp", "a", "10.0.0.20", "7"])?;
        let mut connections = 0;
        for option in ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"] {
            for namespace in [network.client(), network.servers()] {
                let set = |value: &str| -> Result {
                    let setting = format!("net.ipv4.{option}={value}");
                    let command = ["netns", "exec", &namespace, "sysctl", "-qw", &setting];
                    let status = std::process::Command::new("ip").args(command).status()?;
                    if status.success() { Ok(()) } else { Err(setting.into()) }
                };
                set("0")?;
                let arguments = ["192.0.2.10", "700", TO_A, "29", "1000000"];
                let echo = network.run_client(LIMIT, "tcp_client.py", &arguments)?;
                assert_eq!(echo, format!("a:{TO_A}+1000000\n"), "{option} of {namespace}, cookies {cookies}");
                set("1")?;
                connections += 1;
            }
        }
        for record in weir.wait_for_records(connections)? {
            assert_eq!(record["termination"], "--", "{record}");
        }
        let accepted = weir.counter("syn_cookies_accepted")?;
        assert_eq!(accepted, if cookies == "always" { connections as u64 } else { 0 });
        weir.check_balance()?;
    }
    Ok(())
}
