//! Ten thousand frames that are wrong: weir lives on, serves on, and every frame is in one counter.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir, within};

const CONFIG: &str = r#"
[[pool]]
name = "one"
servers = [{ address = "10.0.0.20", port = 7 }, { address = "2001:db8:2::20", port = 7 }]

[[datascript_set]]
name = "read"
request_inline = "avi.l4.collect(4) avi.vs.log(avi.l4.read())"

[[virtual_service]]
name = "echo"
addresses = ["192.0.2.10", "2001:db8:1::10"]
ports = ["tcp/700", "udp/700"]
pool = "one"
datascript_sets = ["read"]
"#;

const FRAMES: u64 = 10_000;

#[test]
fn hostile_frames() -> Result {
    let Some(network) = Network::new("hostile frames", Arms::Two)? else { return Ok(()) };
    let mut weir = Weir::start(&network, CONFIG)?;
    let _server = network.server("one", "echo.py", &["udp", "one", "10.0.0.20", "7"])?;
    for seed in ["1", "2"] {
        println!("seed {seed}");
        let before = weir.counter("received")?;
        let arguments = ["weir0", "192.0.2.10", "700", "10000", seed];
        let sent = network.run_client(Duration::from_secs(60), "hostile.py", &arguments)?;
        assert_eq!(sent.trim(), FRAMES.to_string());
        within(Duration::from_secs(5), || {
            let received = weir.counter("received")? - before;
            // The tap may drop a few; it must not have dropped many, or nothing was tested.
            if received > FRAMES * 99 / 100 { Ok(()) } else { Err(format!("{received} received").into()) }
        })?;
        assert!(weir.runs()?, "weir ended: {}", weir.said());
        weir.check_balance()?;
        let answer =
            network.run_client(Duration::from_secs(10), "udp_client.py", &["192.0.2.10", "700", "alive"])?;
        assert_eq!(answer, "one:alive\n");
    }
    for reason in ["truncated", "malformed", "ip_checksum", "tcp_flags", "no_flow", "no_service"] {
        assert!(weir.counter(reason)? > 0, "no frame was dropped as {reason}");
    }
    Ok(())
}
