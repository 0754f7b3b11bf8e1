//! Servers that see their clients' own addresses and have weir as their gateway: kernels on both sides, one worker and two.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir, within};

const LIMIT: Duration = Duration::from_secs(60);

/// A service that preserves its clients' addresses on 700 and, with the same servers, one that does not on 701. Both with
/// delayed binding; 702 chooses the server on the SYN.
const CONFIG: &str = r#"
[[pool]]
name = "a"
servers = [
  { address = "10.0.0.20", port = 7 }, { address = "10.0.0.21", port = 7 },
  { address = "2001:db8:2::20", port = 7 }, { address = "2001:db8:2::21", port = 7 },
]
  [[pool.health_monitor]]
  type = "tcp"
  interval = "500ms"
  timeout = "250ms"
  rise = 1
  fall = 2

[[datascript_set]]
name = "first"
request_inline = "avi.vs.log(avi.l4.read(1))"

[[virtual_service]]
name = "kept"
addresses = ["192.0.2.10", "2001:db8:1::10"]
ports = ["tcp/700", "udp/700"]
pool = "a"
datascript_sets = ["first"]
preserve_client_ip = true

[[virtual_service]]
name = "translated"
addresses = ["192.0.2.10", "2001:db8:1::10"]
ports = ["tcp/701", "udp/701"]
pool = "a"
datascript_sets = ["first"]

[[virtual_service]]
name = "kept at once"
addresses = ["192.0.2.10", "2001:db8:1::10"]
ports = ["tcp/702", "udp/702"]
pool = "a"
preserve_client_ip = true
"#;

const SERVERS: [&str; 4] = ["10.0.0.20", "10.0.0.21", "2001:db8:2::20", "2001:db8:2::21"];

fn start(network: &Network, workers: u8) -> Result<(Weir, Vec<weir_tests::testkit::Process>)> {
    let weir = Weir::start_on_workers(network, CONFIG, workers)?;
    let serve = |(number, address): (usize, &&str)| {
        network.server(&format!("server{number}"), "seen.py", &["serve", address, "7"])
    };
    let servers = SERVERS.iter().enumerate().map(serve).collect::<Result<Vec<_>>>()?;
    weir.wait_for_servers(4, Duration::from_secs(10))?;
    Ok((weir, servers))
}

fn ask(network: &Network, vip: &str, port: &str) -> Result<String> {
    network.run_client(LIMIT, "seen.py", &["ask", vip, port, "40", "100000"])
}

fn servers_see_clients(workers: u8) -> Result {
    let Some(network) = Network::new("preserved clients", Arms::Two)? else { return Ok(()) };
    let (weir, _servers) = start(&network, workers)?;
    network.in_servers("ip", &["route", "add", "default", "via", "10.0.0.1"])?;
    network.in_servers("ip", &["-6", "route", "add", "default", "via", "2001:db8:2::1"])?;
    for vip in ["192.0.2.10", "2001:db8:1::10"] {
        for port in ["700", "702"] {
            assert_eq!(ask(&network, vip, port)?, "tcp 40\nudp 40\n", "{vip} {port}");
        }
        let translated = ask(&network, vip, "701")?;
        assert!(translated.contains("tcp 0\n") && translated.contains("udp 0\n"), "{translated}");
        let snat = if vip.contains(':') { "2001:db8:2::2 " } else { "10.0.0.2 " };
        assert_eq!(translated.matches(&format!("b'{snat}")).count(), 80, "{translated}");
    }
    let records = weir.wait_for_records(240)?;
    let tcp = records.iter().filter(|record| record["protocol"] == "tcp");
    assert_eq!(tcp.filter(|record| record["termination"] != "--").count(), 0, "{}", weir.odd_records());
    let kept = records.iter().filter(|record| record["service"] != "translated");
    assert!(kept.clone().count() > 0 && kept.clone().all(|record| record["snat"] == record["client"]));
    assert_eq!((weir.counter("client_in_use")?, weir.counter("hand_over")?), (0, 0));
    weir.check_balance()
}

#[test]
fn one_worker() -> Result {
    servers_see_clients(1)
}

/// The queues of the devices know nothing of clients: what is not theirs the workers hand over.
#[test]
fn two_workers() -> Result {
    servers_see_clients(2)
}

/// As docs/operations.md says for servers that have another gateway for all the rest.
#[test]
fn servers_with_a_rule_for_their_answers() -> Result {
    let Some(network) = Network::new("preserved clients by a rule", Arms::Two)? else { return Ok(()) };
    let (weir, _servers) = start(&network, 1)?;
    let documented = include_str!("../../docs/operations.md");
    for command in [
        "sysctl -w net.ipv4.conf.all.rp_filter=2",
        "ip route add default via 10.0.0.1 table 100",
        "ip rule add ipproto tcp sport 7 lookup 100",
        "ip rule add ipproto udp sport 7 lookup 100",
    ] {
        assert!(documented.contains(command), "{command} is not in docs/operations.md");
        let words: Vec<&str> = command.split(' ').collect();
        network.in_servers(words[0], &words[1..])?;
    }
    // All but answers would go nowhere: there is no other route.
    assert_eq!(ask(&network, "192.0.2.10", "700")?, "tcp 40\nudp 40\n");
    weir.check_balance()
}

/// What servers send to others than clients of flows does not get through.
#[test]
fn weir_is_no_router_for_its_servers() -> Result {
    let Some(network) = Network::new("no router", Arms::Two)? else { return Ok(()) };
    let (weir, _servers) = start(&network, 2)?;
    network.in_servers("ip", &["route", "add", "default", "via", "10.0.0.1"])?;
    let before = weir.counter("no_address")?;
    let send = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); \
                [s.sendto(b'out', ('192.0.2.100', 9)) for _ in range(2)]";
    network.in_servers("python3", &["-c", send])?;
    within(Duration::from_secs(5), || match weir.counter("no_address")? {
        count if count >= before + 2 => Ok(()),
        count => Err(format!("{count} dropped, {before} of them before").into()),
    })?;
    assert_eq!(weir.show("counters")?["totals"]["forwarded"], 0);
    assert_eq!(ask(&network, "192.0.2.10", "700")?, "tcp 40\nudp 40\n");
    weir.check_balance()
}
