//! Two workers on devices without RSS: the kernel picks the queue of a tap device by a hash of its own.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir, within};

const LIMIT: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[[pool]]
name = "files"
servers = [{ address = "10.0.0.20", port = 7 }, { address = "10.0.0.21", port = 7 }]
  [[pool.health_monitor]]
  type = "tcp"
  interval = "500ms"
  timeout = "250ms"
  rise = 1
  fall = 2

[[pool]]
name = "files6"
servers = [{ address = "2001:db8:2::20", port = 7 }]

[[datascript_set]]
name = "head"
request_inline = """
avi.l4.collect(4096)
avi.vs.log(avi.l4.read(4))
"""

[[virtual_service]]
name = "files"
addresses = ["192.0.2.10"]
ports = ["tcp/700"]
pool = "files"
datascript_sets = ["head"]

[[virtual_service]]
name = "files6"
addresses = ["2001:db8:1::10"]
ports = ["tcp/700"]
pool = "files6"
datascript_sets = ["head"]
"#;

#[test]
fn two_workers_carry_connections_of_kernels() -> Result {
    let Some(network) = Network::new("workers", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start_on_workers(&network, CONFIG, 2)?;
    let serve = |name, address| network.server(name, "transfer.py", &["serve", address, "7"]);
    let _servers = [serve("a", "10.0.0.20")?, serve("b", "10.0.0.21")?, serve("six", "2001:db8:2::20")?];
    weir.wait_for_servers(3, Duration::from_secs(10))?;
    for vip in ["192.0.2.10", "2001:db8:1::10"] {
        for (kind, bytes) in [("up", "20000"), ("down", "200000")] {
            network.run_client(LIMIT, "transfer.py", &[kind, vip, "700", bytes, "1", "100"])?;
        }
    }

    let records = weir.wait_for_records(400)?;
    assert_eq!(records.iter().filter(|record| record["termination"] == "--").count(), 400);
    let of = |server: &str| records.iter().filter(|record| record["server"] == server).count();
    let (a, b) = (of("10.0.0.20:7"), of("10.0.0.21:7"));
    assert!(a.abs_diff(b) <= 2, "each worker serves in turn: {a} and {b}");
    weir.check_balance()?;
    let workers = weir.show("workers")?;
    for worker in workers.as_array().ok_or("no list")? {
        assert!(worker["flows_created"].as_u64().is_some_and(|flows| flows > 100), "{workers}");
        assert!(worker["handed_over"].as_u64().is_some_and(|packets| packets > 100), "{workers}");
    }
    assert_eq!(weir.counter("hand_over")?, 0, "nothing was lost between them");
    Ok(())
}

/// One of two workers is stopped as a debugger would, for longer than the patience of two seconds.
#[test]
fn a_worker_that_stalls_is_named_while_the_others_go_on() -> Result {
    let Some(network) = Network::new("stalls", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start_on_workers(&network, CONFIG, 2)?;
    let worker = |word: &str| {
        let told = weir.events("worker")?;
        match told.last() {
            Some(last) if last["worker"] == 1 && last["stalled"] == (word == "stalled") => Ok(told.len()),
            _ => Err(format!("not {word}: {told:?}").into()),
        }
    };
    let pid = weir.id().to_string();
    let stall = network.peer("stall", &network.balancer(), "stall.py", &[&pid, "rte-worker-1", "5"])?;
    let seen = within(Duration::from_secs(10), || worker("stalled"));
    seen.map_err(|error| format!("{error}; {}", stall.errors()))?;
    let shown = weir.show("workers")?;
    assert_eq!((&shown[0]["state"], &shown[1]["state"]), (&"running".into(), &"no answer".into()), "{shown}");
    stall.finish(LIMIT)?;
    assert_eq!(within(Duration::from_secs(10), || worker("running"))?, 2, "it is said once each");
    let shown = weir.show("workers")?;
    assert!(
        shown.as_array().is_some_and(|all| all.iter().all(|worker| worker["state"] == "running")),
        "{shown}"
    );
    Ok(())
}
