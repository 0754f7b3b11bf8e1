//! `weir trace` and `weir capture` while kernels talk through weir.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use weir_tests::testkit::{Arms, Network, Process, Result, Weir, repository, weir_binary, within};

const LIMIT: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"
[[pool]]
name = "a"
servers = [{ address = "10.0.0.20", port = 7 }]

[[pool]]
name = "b"
servers = [{ address = "10.0.0.21", port = 7 }]

[[datascript_set]]
name = "by-letter"
request_inline = """
if avi.l4.collect(3) and avi.l4.read(1) == "b" then avi.pool.select("b") end
if avi.l4.read(1) == "x" then avi.vs.close_conn(true) end
"""
pools = ["a", "b"]

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10"]
ports = ["tcp/700", "udp/700"]
pool = "a"
datascript_sets = ["by-letter"]
  [virtual_service.udp]
  idle_timeout = "1s"
"#;

/// The network, weir on two workers, and its servers.
fn scene(test: &str) -> Result<Option<(Network, Weir, Vec<Process>)>> {
    let Some(network) = Network::new(test, Arms::Two)? else { return Ok(None) };
    let weir = Weir::start_on_workers(&network, CONFIG, 2)?;
    let servers = [("tcp", "a", "10.0.0.20"), ("tcp", "b", "10.0.0.21"), ("udp", "b", "10.0.0.21")];
    let start = |(kind, name, address): (&str, &str, &str)| {
        network.server(&format!("{kind}-{name}"), "echo.py", &[kind, name, address, "7"])
    };
    let servers = servers.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    Ok(Some((network, weir, servers)))
}

/// Starts a command of weir's against the one that runs, and waits until that has heard it.
fn begin(
    network: &Network,
    name: &str,
    arguments: &[&str],
    armed: impl Fn(&Process) -> bool,
) -> Result<Process> {
    let all = [arguments, &["--socket", "weir.sock"]].concat();
    let process = Process::start(name, &network.balancer(), network.directory(), &weir_binary()?, &all)?;
    within(LIMIT, || if armed(&process) { Ok(()) } else { Err(process.errors().into()) })?;
    Ok(process)
}

/// Everything that a capture has: by a reader that shares no code with weir.
fn packets(network: &Network, file: &str) -> Result<Vec<Value>> {
    let reader = repository().join("tests/peers/pcapng.py");
    let output = Command::new("/usr/bin/python3")
        .arg("-B")
        .arg(reader)
        .arg(network.directory().join(file))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

#[test]
fn a_trace_of_kernels() -> Result {
    let Some((network, weir, _servers)) = scene("trace")? else { return Ok(()) };
    let arguments = ["trace", "--client", "192.0.2.100", "--port", "700", "--flows", "3", "--seconds", "30"];
    let trace = begin(&network, "trace", &arguments, |trace| trace.output().starts_with("armed"))?;
    assert_eq!(network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "bcd", "1"])?, "b:bcd\n");
    assert_eq!(network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "xyz"])?, "reset\n");
    assert_eq!(network.run_client(LIMIT, "udp_client.py", &["192.0.2.10", "700", "bye"])?, "b:bye\n");
    let told = trace.finish(LIMIT)?;
    for wanted in [
        "> 192.0.2.10:700 [S] seq ",
        "new flow of service echo",
        "request script waits for 3 bytes in all",
        "avi.l4.read(1) = \"b\"",
        "avi.pool.select(\"b\")",
        "a script chose pool b: 10.0.0.21:7 of pool b (round_robin)",
        "packets to the server go from 10.0.0.2:",
        "bound: packets are translated from here on",
        "forwarded by outside as tcp 192.0.2.10:700 > 192.0.2.100:",
        "avi.vs.close_conn(true)",
        "flow ends: WP",
        "forwarded by inside as udp 10.0.0.2:",
        "over: all flows have ended; 3 flows,",
    ] {
        assert!(told.contains(wanted), "{wanted}\n{told}");
    }
    assert!(told.ends_with(" 0 events lost\n"), "{told}");
    weir.check_balance()
}

#[test]
fn a_capture_of_both_sides() -> Result {
    let Some((network, weir, _servers)) = scene("capture")? else { return Ok(()) };
    let file = network.directory().join("out.pcapng");
    let arguments = ["capture", "--out", "out.pcapng", "--vip", "192.0.2.10", "--seconds", "30"];
    // The interfaces are in the file once the workers are armed; a packet makes it written.
    let capture = begin(&network, "capture", &arguments, |_| file.exists())?;
    within(LIMIT, || {
        network.run_client(LIMIT, "udp_client.py", &["192.0.2.10", "700", "bye"])?;
        let traced = weir.show("info")?["watching"] == Value::Bool(true);
        if traced { Ok(()) } else { Err("not armed".into()) }
    })?;
    let begun = SystemTime::now();
    assert_eq!(network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "bcd"])?, "b:bcd\n");
    assert_eq!(network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "abc", "1"])?, "a:abc\n");
    assert_eq!(network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", "xyz"])?, "reset\n");
    let refused = network
        .in_client("python3", &["-c", "import socket; socket.create_connection(('192.0.2.10', 701))"])?;
    assert!(!refused.status.success());
    let live = weir.wait_for_records(4)?;
    capture.signal("INT")?;
    let said = capture.finish(LIMIT)?;
    assert!(said.starts_with("out.pcapng: ") && said.ends_with(" 0 events lost\n"), "{said}");

    let packets = packets(&network, "out.pcapng")?;
    let find = |interface: &str, way: &str, payload: &str, port: &str, number: u16| {
        let found = packets.iter().find(|packet| {
            packet["interface"] == interface
                && packet["way"] == way
                && packet["payload"] == payload
                && packet["protocol"] == 6
                && packet[port] == number
        });
        found.cloned().ok_or_else(|| format!("no {way} {payload} at {interface}: {packets:#?}"))
    };
    // The client's bytes as they came and as weir replayed them; the server's answer as it came and as it left.
    let came = find("outside", "in", "626364", "dport", 700)?;
    let left = find("inside", "out", "626364", "dport", 7)?;
    assert_eq!((&came["source"], &left["source"]), (&"192.0.2.100".into(), &"10.0.0.2".into()));
    let answer = find("inside", "in", "623a626364", "sport", 7)?;
    let passed = find("outside", "out", "623a626364", "sport", 700)?;
    assert_eq!((&answer["destination"], &passed["destination"]), (&"10.0.0.2".into(), &"192.0.2.100".into()));
    let comment = |packet: &Value| packet["comment"].as_str().unwrap_or_default().to_owned();
    for (packet, wanted) in [
        (&came, "request scripts have run\na script chose pool b: 10.0.0.21:7 of pool b"),
        (&left, "a script chose pool b"),
        (&passed, "a script chose pool b"),
        (&find("outside", "in", "", "dport", 701)?, "DROPPED: no_service ("),
        (&find("outside", "out", "", "sport", 701)?, "weir sent by outside"),
    ] {
        assert!(comment(packet).starts_with("weir flow ") && comment(packet).contains(wanted), "{packet:#?}");
    }
    let at = Duration::from_nanos(came["nanos"].as_u64().ok_or("no time")?);
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH)?;
    assert!(at + Duration::from_millis(50) > begun && at < begun + LIMIT, "{at:?} {begun:?}");
    same_decisions(&network, &live)?;
    weir.check_balance()
}

/// What the capture replays to is what was decided live.
fn same_decisions(network: &Network, live: &[Value]) -> Result {
    let output = Command::new(weir_binary()?)
        .args(["replay", "--config", "weir.toml", "--json", "out.pcapng"])
        .current_dir(network.directory())
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let replayed = report.get("flows").and_then(Value::as_array).ok_or("no flows")?;
    for record in live {
        let of_client =
            |flow: &&Value| flow["client"] == record["client"] && flow["protocol"] == record["protocol"];
        let flow =
            replayed.iter().find(of_client).ok_or_else(|| format!("not replayed: {record} {report:#}"))?;
        let server = record["server"].as_str().map(|server| {
            let pool = record["pool"].as_str().unwrap_or_default();
            format!("{server} of '{pool}'")
        });
        let servers: Vec<_> =
            flow["servers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(servers, server.iter().map(String::as_str).collect::<Vec<_>>(), "{record} {flow:#}");
        assert_eq!(flow["end"], record["termination"], "{record} {flow:#}");
    }
    let decided = |pool: &str| live.iter().filter(|record| record["pool"] == pool).count();
    assert!(decided("a") > 0 && decided("b") > 1, "{live:?}");
    Ok(())
}

/// Two at a time are refused, a limit ends a capture, and what waits in vain says so by its exit code.
#[test]
fn limits_and_refusals() -> Result {
    let Some((network, weir, _servers)) = scene("trace limits")? else { return Ok(()) };
    let arguments = ["trace", "--vip", "192.0.2.99", "--seconds", "3"];
    let idle = begin(&network, "idle", &arguments, |trace| trace.output().starts_with("armed"))?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(weir_binary()?);
        Ok::<_, Box<dyn std::error::Error>>(
            command.args(arguments).current_dir(network.directory()).output()?,
        )
    };
    let second = run(&["trace", "--socket", "weir.sock"])?;
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("under way already"), "{second:?}");
    let error = idle.finish(LIMIT).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("exit status: 1") && error.contains("over: the time is over; 0 flows"), "{error}");

    let arguments = ["capture", "--out", "few.pcapng", "--packets", "3", "--seconds", "30", "--snap", "42"];
    let capture = begin(&network, "capture", &arguments, |_| {
        weir.show("info").is_ok_and(|info| info["watching"] == Value::Bool(true))
    })?;
    network.run_client(LIMIT, "udp_client.py", &["192.0.2.10", "700", "bye", "bye"])?;
    capture.finish(LIMIT)?;
    let few = packets(&network, "few.pcapng")?;
    assert!((3..=4).contains(&few.len()) && few[0]["length"].as_u64() > Some(42), "{few:#?}");
    let nobody = run(&["capture", "--out", "x.pcapng", "--socket", "nobody.sock"])?;
    assert_eq!(nobody.status.code(), Some(2));
    weir.check_balance()
}

/// The second flow of a key goes to pool b: what is explained depends on what is in the tables.
const SEEN_BEFORE: &str = r#"
if avi.vs.table_lookup(avi.l4.read(3), 0) then avi.pool.select("b") end
avi.vs.table_insert(avi.l4.read(3), "seen")
"#;

#[test]
fn a_flow_is_explained_as_things_are_and_nothing_changes() -> Result {
    let Some(network) = Network::new("explain", Arms::Two)? else { return Ok(()) };
    let (head, tail) = CONFIG.split_once("if avi.l4.collect").ok_or("no script")?;
    let (_, tail) = tail.split_once("\n\"\"\"").ok_or("no end of the script")?;
    let weir = Weir::start(&network, &format!("{head}{SEEN_BEFORE}\n\"\"\"{tail}"))?;
    let _a = network.server("a", "echo.py", &["udp", "a", "10.0.0.20", "7"])?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(weir_binary()?);
        command.args(arguments).args(["--socket", "weir.sock"]).current_dir(network.directory());
        Ok::<_, Box<dyn std::error::Error>>(command.output()?)
    };
    let explain = |vip: &str, more: &[&str]| {
        run(&[&["explain", "--client", "192.0.2.100:4242", "--vip", vip, "--proto", "udp"], more].concat())
    };
    let server = |more: &[&str]| {
        let output = explain("192.0.2.10:700", &[&["--hex", "61 6263", "--json"], more].concat())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let flow: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {said}"))?;
        Ok::<_, Box<dyn std::error::Error>>((
            flow["servers"][0].as_str().unwrap_or_default().to_owned(),
            flow,
        ))
    };
    assert_eq!(server(&[])?.0, "10.0.0.20:7 of 'a'");
    assert_eq!(server(&[])?.0, "10.0.0.20:7 of 'a'", "explaining leaves nothing in the tables");
    assert_eq!(network.run_client(LIMIT, "udp_client.py", &["192.0.2.10", "700", "abc"])?, "a:abc\n");
    let before = (weir.counter("flows_created")?, weir.show("scripts")?[0]["runs"].clone());
    assert_eq!(server(&[])?.0, "10.0.0.21:7 of 'b'", "the entry of the flow that was");
    assert!(run(&["disable", "server", "b", "10.0.0.21:7"])?.status.success());
    let (none, flow) = server(&["--trace"])?;
    assert_eq!((none.as_str(), &flow["reason"]), ("", &"no_server".into()), "{flow:#}");
    assert!(flow["scripts"].to_string().contains("\"line\""), "{flow:#}");
    assert_eq!((weir.counter("flows_created")?, weir.show("scripts")?[0]["runs"].clone()), before);
    let text = explain("192.0.2.10:700", &["--hex", "616263"])?;
    let text = String::from_utf8(text.stdout)?;
    assert!(text.contains("avi.vs.table_lookup(\"abc\", 0)") && text.contains("disabled"), "{text}");
    assert_eq!(explain("192.0.2.10:701", &[])?.status.code(), Some(1));
    assert_eq!(explain("192.0.2.10:700", &["--hex", "6"])?.status.code(), Some(2));
    weir.check_balance()
}
