//! HTTP with curl, health monitors, and a server that stops.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir};

const CONFIG: &str = r#"
[[pool]]
name = "web"
servers = [{ address = "10.0.0.20", port = 80 }, { address = "10.0.0.21", port = 80 }]
  [[pool.health_monitor]]
  type = "tcp"
  interval = "500ms"
  timeout = "250ms"
  rise = 1
  fall = 2

[[virtual_service]]
name = "www"
addresses = ["192.0.2.10", "2001:db8:1::10"]
ports = ["tcp/8080"]
pool = "web"
"#;

fn fetch(network: &Network, count: usize) -> Result<Vec<String>> {
    (0..count)
        .map(|_| {
            let output =
                network.in_client("curl", &["-sS", "--max-time", "5", "http://192.0.2.10:8080/name"])?;
            if output.status.success() {
                Ok(String::from_utf8(output.stdout)?)
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into())
            }
        })
        .collect()
}

/// Requests go to both servers in turn; one stops, its monitor notices, all go to the other; it comes back.
#[test]
fn traffic_moves_when_a_server_stops() -> Result {
    let Some(network) = Network::new("http", Arms::Two)? else { return Ok(()) };
    let config = CONFIG.replace(", \"2001:db8:1::10\"", "");
    let weir = Weir::start(&network, &config)?;
    let start = |name, address| network.server(name, "http_server.py", &[name, address, "80"]);
    let first = start("one", "10.0.0.20")?;
    let _second = start("two", "10.0.0.21")?;
    weir.wait_for_servers(2, Duration::from_secs(10))?;
    let mut answers = fetch(&network, 6)?;
    answers.sort_unstable();
    assert_eq!(answers, ["one", "one", "one", "two", "two", "two"]);

    drop(first);
    weir.wait_for_servers(1, Duration::from_secs(5))?;
    assert_eq!(fetch(&network, 4)?, ["two"; 4]);

    let _again = start("one", "10.0.0.20")?;
    weir.wait_for_servers(2, Duration::from_secs(5))?;
    let answers = fetch(&network, 4)?;
    assert!(answers.contains(&"one".to_owned()), "{answers:?}");
    weir.check_balance()
}

/// Without a server that is up a client is refused at once, not left waiting.
#[test]
fn no_server_is_up() -> Result {
    let Some(network) = Network::new("http without servers", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(&network, &CONFIG.replace(", \"2001:db8:1::10\"", ""))?;
    let error = fetch(&network, 1).expect_err("nobody can have answered").to_string();
    // curl's exit code 7: the connection was refused. A time-out would be 28.
    assert!(error.contains("(7)"), "{error}");
    assert!(weir.counter("no_server")? >= 1);
    weir.check_balance()
}

/// A real client, each request on a connection of its own that a script decides on: no error among 5,000.
#[test]
fn five_thousand_connections_without_an_error() -> Result {
    const COUNT: usize = 5_000;
    let Some(network) = Network::new("http many", Arms::Two)? else { return Ok(()) };
    let script = r#"
[[datascript_set]]
name = "get"
request_inline = "avi.l4.collect(4) if avi.l4.read(4) ~= 'GET ' then avi.vs.close_conn(true) end"
"#;
    let config = CONFIG.replace(", \"2001:db8:1::10\"", "");
    let config = config.replace("[[virtual_service]]", &format!("{script}\n[[virtual_service]]"));
    let weir = Weir::start(&network, &format!("{config}datascript_sets = [\"get\"]\n"))?;
    let start = |name, address| network.server(name, "http_server.py", &[name, address, "80"]);
    let (_one, _two) = (start("one", "10.0.0.20")?, start("two", "10.0.0.21")?);
    weir.wait_for_servers(2, Duration::from_secs(10))?;
    let urls = format!("http://192.0.2.10:8080/[1-{COUNT}]");
    let options = ["-sS", "--max-time", "60", "-Z", "--parallel-max", "50", "-H", "Connection: close"];
    let output = network.in_client("curl", &[&options[..], &["-w", " %{http_code}\n", &urls]].concat())?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout)?;
    let good = answers.matches("one 200\n").count() + answers.matches("two 200\n").count();
    assert_eq!(good, COUNT);
    let records = weir.wait_for_records(COUNT)?;
    let odd: Vec<_> = records.iter().filter(|record| record["termination"] != "--").collect();
    assert!(odd.is_empty(), "{odd:?}");
    weir.check_balance()
}
