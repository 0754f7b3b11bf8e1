//! UDP through a script, in both address families, with one arm and with two.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir};

const LIMIT: Duration = Duration::from_secs(10);

/// Two pools of one server each; the first letter of the first datagram chooses.
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
name = "by-letter"
request_inline = """
if avi.l4.read(1) == "b" then avi.pool.select("b") end
avi.vs.log("first=", avi.l4.read(1))
"""
pools = ["a", "b"]

[[virtual_service]]
name = "echo"
addresses = ["{vip}"]
ports = ["udp/700"]
pool = "a"
datascript_sets = ["by-letter"]
  [virtual_service.udp]
  idle_timeout = "1s"
"#
    )
}

/// A client of each letter gets its answers from the server that the script chose, and both flows are in the log.
fn echoes(arms: Arms, vip: &str, servers: [&str; 2]) -> Result {
    let Some(network) = Network::new("udp echo", arms)? else { return Ok(()) };
    let weir = Weir::start(&network, &config(vip, servers))?;
    let _a = network.server("a", "echo.py", &["udp", "a", servers[0], "7"])?;
    let _b = network.server("b", "echo.py", &["udp", "b", servers[1], "7"])?;
    let b = network.run_client(LIMIT, "udp_client.py", &[vip, "700", "b-one", "x-two", "x-three"])?;
    assert_eq!(b, "b:b-one\nb:x-two\nb:x-three\n", "the flow stays where its first datagram took it");
    let a = network.run_client(LIMIT, "udp_client.py", &[vip, "700", "a-one"])?;
    assert_eq!(a, "a:a-one\n");

    let records = weir.wait_for_records(2)?;
    let logs: Vec<_> = records.iter().map(|record| record["ds_log"].as_str()).collect();
    assert!(logs.contains(&Some("first=b")) && logs.contains(&Some("first=a")), "{records:?}");
    let of_b = records.iter().find(|record| record["pool"] == "b").ok_or("no record of pool b")?;
    assert_eq!(of_b["packets_in"], 3, "{of_b}");
    assert_eq!(of_b["packets_out"], 3, "{of_b}");
    assert_eq!(of_b["bytes_in"], 17, "{of_b}");
    assert_eq!(of_b["bytes_out"], 23, "{of_b}");
    weir.check_balance()
}

#[test]
fn two_arms_ipv4() -> Result {
    echoes(Arms::Two, "192.0.2.10", ["10.0.0.20", "10.0.0.21"])
}

#[test]
fn two_arms_ipv6() -> Result {
    echoes(Arms::Two, "2001:db8:1::10", ["2001:db8:2::20", "2001:db8:2::21"])
}

#[test]
fn one_arm() -> Result {
    echoes(Arms::One, "192.0.2.10", ["192.0.2.20", "192.0.2.21"])
}

/// The kernels of the client and of the servers cut their datagrams at an MTU of 1500, and put weir's fragments together. The last
/// byte, which is in the last fragment, chooses.
#[test]
fn datagrams_in_fragments() -> Result {
    let Some(network) = Network::new("udp fragments", Arms::Two)? else { return Ok(()) };
    let config = config("192.0.2.10", ["10.0.0.20", "10.0.0.21"])
        .replace("avi.l4.read(1) ==", "avi.l4.read():sub(-1) ==");
    let weir = Weir::start(&network, &config)?;
    let _a = network.server("a", "echo.py", &["udp", "a", "10.0.0.20", "7"])?;
    let _b = network.server("b", "echo.py", &["udp", "b", "10.0.0.21", "7"])?;
    for (last, server) in [("x", "a"), ("b", "b")] {
        let texts = ["8000", "1473", "1472", "60000", "20"].map(|length| format!("{length}*{last}"));
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let answers =
            network.run_client(LIMIT, "udp_client.py", &[&["192.0.2.10", "700"], &texts[..]].concat())?;
        let right = ["8000", "1473", "1472", "60000", "20"].map(|length| format!("{server}:{length} same\n"));
        assert_eq!(answers, right.concat());
    }
    // 8,000, 1,473 and 60,000 bytes there; these and the 1,472 with a name before them back.
    assert_eq!((weir.counter("reassembled")?, weir.counter("fragmented")?), (14, 14));
    assert_eq!((weir.counter("fragments_evicted")?, weir.counter("fragments_expired")?), (0, 0));
    weir.check_balance()
}

/// Each datagram is balanced by itself, though all come from one socket.
#[test]
fn per_packet() -> Result {
    let Some(network) = Network::new("udp per packet", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(
        &network,
        r#"
[[pool]]
name = "both"
servers = [{ address = "10.0.0.20", port = 7 }, { address = "10.0.0.21", port = 7 }]

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10"]
ports = ["udp/700"]
pool = "both"
  [virtual_service.udp]
  per_packet = true
"#,
    )?;
    let _a = network.server("a", "echo.py", &["udp", "a", "10.0.0.20", "7"])?;
    let _b = network.server("b", "echo.py", &["udp", "b", "10.0.0.21", "7"])?;
    let answers = network.run_client(LIMIT, "udp_client.py", &["192.0.2.10", "700", "1", "2", "3", "4"])?;
    let mut servers: Vec<_> = answers.lines().filter_map(|line| line.chars().next()).collect();
    servers.sort_unstable();
    assert_eq!(servers, ['a', 'a', 'b', 'b'], "{answers}");
    weir.check_balance()
}

/// `weir script profile` on a running weir names the line of the script in which its time goes.
#[test]
fn a_profile_of_a_running_script() -> Result {
    let Some(network) = Network::new("udp profile", Arms::Two)? else { return Ok(()) };
    let script = "local sum = 0\nfor i = 1, 3000 do\n  sum = sum + i\nend\navi.vs.log(sum)";
    let toml = format!(
        r#"
[[pool]]
name = "a"
servers = [{{ address = "10.0.0.20", port = 7 }}]

[[datascript_set]]
name = "sum"
request_inline = """
{script}
"""
pools = ["a"]

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10"]
ports = ["udp/700"]
pool = "a"
datascript_sets = ["sum"]
"#
    );
    let weir = Weir::start(&network, &toml)?;
    let _a = network.server("a", "echo.py", &["udp", "a", "10.0.0.20", "7"])?;
    let mut profile = weir.command(&["script", "profile", "sum", "--seconds", "4", "--json"]);
    let profile = profile.stdout(std::process::Stdio::piped()).spawn()?;
    // Each client is a flow of its own; those before the profile begins are not seen.
    while weir.show("scripts")?[0]["runs"].as_u64() < Some(20) {
        network.run_client(LIMIT, "udp_client.py", &["192.0.2.10", "700", "x"])?;
    }
    let output = profile.wait_with_output()?;
    assert!(output.status.success(), "{output:?}");
    let profile: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let hottest = &profile["lines"][0];
    assert!(profile["runs"].as_u64() > Some(0), "{profile}");
    assert!((2..=4).contains(&hottest["line"].as_u64().unwrap_or(0)), "{profile}");
    assert!(hottest["percent"].as_f64() > Some(30.0), "{profile}");

    let unknown = weir.command(&["script", "profile", "somme"]).output()?;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).ends_with("there are: sum\n"), "{unknown:?}");
    weir.check_balance()
}
