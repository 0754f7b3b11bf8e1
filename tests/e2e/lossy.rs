//! The kernel's TCP on both sides of weir, over wires that lose, delay, reorder and repeat frames.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir, Wire};

/// What the transfers of one direction may take, whatever their size.
const LIMIT: Duration = Duration::from_secs(90);
const MEBIBYTE: u64 = 1 << 20;
/// Of `transfer.py`.
const HEAD: u64 = 4096;
const DIGEST: u64 = 64;

/// One in a hundred is lost on each wire, so about two on the way from end to end.
const WIRE: Wire = Wire {
    loss: 10,
    late: 20,
    repeat: 5,
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(4),
    seed: 3,
};

/// The script waits for several segments, which weir has to put in order, and to repeat to the server until it has them.
/// Of five SYNs in 30 s one always gets through; of the three in the usual 5 s, all are lost once in 100,000 connections.
fn config(vip: &str, server: &str) -> String {
    format!(
        r#"
[[pool]]
name = "files"
servers = [{{ address = "{server}", port = 7 }}]
tcp = {{ connect_timeout = "30s" }}

[[datascript_set]]
name = "head"
request_inline = """
avi.l4.collect({HEAD})
avi.vs.log(avi.l4.read(4))
"""

[[virtual_service]]
name = "files"
addresses = ["{vip}"]
ports = ["tcp/700"]
pool = "files"
datascript_sets = ["head"]
"#
    )
}

/// Carries `bytes` up and down over the wires, `times` times each; `transfer.py` compares the hashes.
fn carries(test: &str, [vip, server]: [&str; 2], wire: &Wire, bytes: u64, times: usize) -> Result {
    let Some(network) = Network::new(test, Arms::Two)? else { return Ok(()) };
    let (weir, wires) = Weir::start_on_wires(&network, &config(vip, server), wire)?;
    let _server = network.server("files", "transfer.py", &["serve", server, "7"])?;
    for kind in ["up", "down"] {
        let arguments = [kind, vip, "700", &bytes.to_string(), "1", &times.to_string()];
        let carried = network.run_client(LIMIT, "transfer.py", &arguments);
        carried.map_err(|error| format!("{kind}: {error}\n{}", weir.odd_records()))?;
    }

    let records = weir.wait_for_records(2 * times)?;
    assert_eq!(records.len(), 2 * times, "{records:?}");
    for record in &records {
        assert_eq!(record["termination"], "--", "{record}");
        // What is sent again counts again. The hash that answers `up` may be missing: the record is written at the second
        // FIN, and what was lost before that comes later.
        let at_least = |name: &str, count| record[name].as_u64().is_some_and(|bytes| bytes >= count);
        let up = record["ds_log"] == "up 1";
        let (sent, answered) = if up { (HEAD + bytes, 0) } else { (HEAD, bytes + DIGEST) };
        assert!(at_least("bytes_in", sent) && at_least("bytes_out", answered), "{record}");
    }
    weir.check_balance()?;
    for wire in wires {
        for tally in Wire::cut(wire)? {
            let happened = |kind| tally.get(kind).is_some_and(|frames| *frames > 0);
            assert!(["lost", "late", "repeated"].into_iter().all(happened), "{tally:?}");
        }
    }
    Ok(())
}

#[test]
fn one_mebibyte_ipv4() -> Result {
    carries("lossy 1 MiB", ["192.0.2.10", "10.0.0.20"], &WIRE, MEBIBYTE, 5)
}

#[test]
fn one_mebibyte_ipv6() -> Result {
    carries("lossy 1 MiB IPv6", ["2001:db8:1::10", "2001:db8:2::20"], &WIRE, MEBIBYTE, 5)
}

/// Handshakes, collected bytes and their replay make up most of these: what is lost of them weir has to send again.
#[test]
fn short_connections() -> Result {
    carries("lossy short", ["192.0.2.10", "10.0.0.20"], &WIRE, 1000, 200)
}

/// Without delay: what New Reno and CUBIC carry at a loss sinks with the time of a round trip.
#[test]
fn hundred_mebibytes() -> Result {
    let wire = Wire { delay: Duration::ZERO, jitter: Duration::from_millis(1), ..WIRE };
    carries("lossy 100 MiB", ["192.0.2.10", "10.0.0.20"], &wire, 100 * MEBIBYTE, 1)
}
