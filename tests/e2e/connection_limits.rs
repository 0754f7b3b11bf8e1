//! `max_connections` of servers on two workers, between kernels.

use std::time::Duration;

use serde_json::Value;
use weir_tests::testkit::{Arms, Network, Result, Weir, within};

const LIMIT: Duration = Duration::from_secs(100);

const CONFIG: &str = r#"
[[pool]]
name = "held"
max_connections_per_server = 10
servers = [
  { address = "10.0.0.20", port = 7 },
  { address = "10.0.0.21", port = 7, max_connections = 15 },
]

[[datascript_set]]
name = "head"
request_inline = "avi.l4.collect(8)"

[[virtual_service]]
name = "held"
addresses = ["192.0.2.10"]
ports = ["tcp/700"]
pool = "held"
datascript_sets = ["head"]
"#;

/// Of each row of an answer, the number with this name.
fn numbers(rows: &Value, name: &str) -> Vec<u64> {
    rows.as_array().into_iter().flatten().filter_map(|row| row[name].as_u64()).collect()
}

#[test]
fn two_workers_fill_servers_to_exactly_their_limits() -> Result {
    let Some(network) = Network::new("connection_limits", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start_on_workers(&network, CONFIG, 2)?;
    let serve = |name, address, limit| network.server(name, "limits.py", &["serve", address, "7", limit]);
    let _servers = [serve("a", "10.0.0.20", "10")?, serve("b", "10.0.0.21", "15")?];
    let arguments = ["fill", "192.0.2.10", "700", "25", "12", "1"];
    let client = network.peer("client", &network.client(), "limits.py", &arguments)?;
    let full = || if client.output().contains("full") { Ok(()) } else { Err(client.errors().into()) };
    within(Duration::from_secs(60), full)?;

    let servers = weir.show("servers")?;
    assert_eq!(numbers(&servers, "flows"), [10, 15], "{servers}");
    assert_eq!(numbers(&servers, "max_connections"), [10, 15]);
    assert!(
        servers.as_array().is_some_and(|rows| rows.iter().all(|row| row["state"] == "full")),
        "{servers}"
    );
    let workers = weir.show("workers")?;
    assert!(numbers(&workers, "flows").iter().all(|flows| *flows > 0), "both have some: {workers}");

    std::fs::write(network.directory().join("go"), "")?;
    let said = client.finish(LIMIT)?;
    let refused: u64 = said.lines().last().unwrap_or_default().parse()?;
    let pools = weir.show("pools")?;
    assert_eq!(numbers(&pools, "refused_full"), [refused], "{pools}");
    assert_eq!((numbers(&pools, "max_connections"), numbers(&pools, "flows")), (vec![25], vec![0]));
    let taken = numbers(&pools, "flows_total").iter().sum::<u64>();
    let records = weir.wait_for_records(usize::try_from(taken + refused)?)?;
    let at_limit = records.iter().filter(|record| record["reason"] == "max_connections").count();
    assert_eq!(at_limit as u64, refused);
    assert_eq!(records.iter().filter(|record| record["termination"] == "--").count() as u64, taken);
    weir.check_balance()?;
    Ok(())
}
