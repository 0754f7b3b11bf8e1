//! A flood of SYNs from addresses that nobody has, while real clients connect.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir};

const LIMIT: Duration = Duration::from_secs(30);
const SYNS: u64 = 200_000;
const TEXT: &str = "0123456789012345678 and more";

const CONFIG: &str = r#"
[[pool]]
name = "a"
servers = [{ address = "10.0.0.20", port = 7 }]

[[datascript_set]]
name = "twentieth"
request_inline = "avi.l4.collect(20)"

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10"]
ports = ["tcp/700"]
pool = "a"
datascript_sets = ["twentieth"]

[[route]]
to = "198.18.0.0/15"
via = "192.0.2.100"

[limits]
flows = 4096
embryonic = 1024
waiting = 1024
"#;

/// Real clients come one after the other until the flood is over.
#[test]
fn all_real_clients_connect_during_a_flood() -> Result {
    let Some(network) = Network::new("flood", Arms::Two)? else { return Ok(()) };
    let mut weir = Weir::start(&network, CONFIG)?;
    let _server = network.server("a", "echo.py", &["tcp", "a", "10.0.0.20", "7"])?;
    let client = || network.run_client(LIMIT, "tcp_client.py", &["192.0.2.10", "700", TEXT, "28", "100000"]);
    let expected = format!("a:{TEXT}+100000\n");
    assert_eq!(client()?, expected);
    let before = weir.memory()?;
    let arguments = ["weir0", "192.0.2.10", "700", &SYNS.to_string(), "1"];
    let mut flood = network.peer("flood", &network.client(), "flood.py", &arguments)?;
    let mut clients = 0;
    while flood.ended()?.is_none() {
        assert_eq!(client()?, expected, "client {clients}");
        clients += 1;
    }
    assert_eq!(flood.finish(LIMIT)?.trim(), SYNS.to_string());
    let grown = weir.memory()?.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more than before the flood");
    assert!(weir.runs()?, "weir ended: {}", weir.said());
    assert!(clients >= 5, "only {clients} clients during the flood");
    // The tap may drop some of them.
    assert!(weir.counter("syn_cookies_sent")? > SYNS / 2);
    assert!(weir.counter("syn_cookies_accepted")? >= clients / 2);
    assert_eq!(weir.counter("embryonic_evicted")?, 0);
    weir.check_balance()
}
