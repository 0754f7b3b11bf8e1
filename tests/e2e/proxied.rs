//! PROXY headers between kernels: a server that reads them, and a proxy that sends them.

use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Result, Weir};

const LIMIT: Duration = Duration::from_secs(30);

/// Two pools whose servers expect a header; services on 701 and 702 for whom it may concern, on 711 and 712 for a proxy.
fn config(vip: &str, server: &str, proxy: &str) -> String {
    let mut text = r#"
[[datascript_set]]
name = "collect"
request_inline = """
local before = avi.l4.collect(10)
avi.vs.log(avi.vs.client_ip(), " ", avi.l4.read(10))
"""
pools = ["v1", "v2"]
"#
    .to_owned();
    for (version, port) in [("v1", 7), ("v2", 8)] {
        text += &format!(
            r#"
[[pool]]
name = "{version}"
servers = [{{ address = "{server}", port = {port} }}]
  [[pool.health_monitor]]
  type = "tcp"
  interval = "300ms"
  timeout = "250ms"
  [pool.tcp]
  proxy_protocol = "{version}"

[[virtual_service]]
name = "clients {version}"
addresses = ["{vip}"]
ports = ["tcp/70{port}"]
pool = "{version}"

[[virtual_service]]
name = "proxies {version}"
addresses = ["{vip}"]
ports = ["tcp/71{port}"]
pool = "{version}"
datascript_sets = ["collect"]
  [virtual_service.tcp]
  accept_proxy_from = ["{proxy}"]
"#
        );
    }
    text
}

/// What a service on `vip` was asked for, and what the header to a server says then.
fn kernels(vip: &str, server: &str, client: &str, named: [&str; 2]) -> Result {
    let Some(network) = Network::new("proxy protocol", Arms::Two)? else { return Ok(()) };
    let prefix = if vip.contains(':') { 128 } else { 32 };
    let weir = Weir::start(&network, &config(vip, server, &format!("{client}/{prefix}")))?;
    let servers = [
        network.server("v1", "proxied.py", &["v1", server, "7"])?,
        network.server("v2", "proxied.py", &["v2", server, "8"])?,
    ];
    weir.wait_for_servers(2, Duration::from_secs(10))?;
    let [source, destination] = named;
    let run = |port: &str, header: &str, rest: &[&str]| {
        let arguments = [&[vip, port, header, source, "1234", destination, "443"], rest].concat();
        network.run_client(LIMIT, "proxy_client.py", &arguments)
    };
    // No header comes, one goes out: with the client's own port.
    for port in ["707", "708"] {
        let answer = run(port, "none", &["0123456789 text", "7", "1000000"])?;
        let own = answer.split('|').next().ok_or("no port")?.to_owned();
        assert_eq!(answer, format!("{own}|{client}|{own}|{vip}|{port}|0123456789 text+1000000\n"));
    }
    // One comes, in pieces of seven bytes too, and what it says goes out.
    for (port, header) in [("717", "v1"), ("717", "v2"), ("718", "v1"), ("718", "v2-tlv")] {
        for rest in [&["0123456789 text"][..], &["0123456789 text", "7", "1000000"]] {
            let answer = run(port, header, rest)?;
            let (_, answer) = answer.split_once('|').ok_or("no port")?;
            let extra = if rest.len() > 1 { "+1000000" } else { "" };
            assert_eq!(
                answer,
                format!("{source}|1234|{destination}|443|0123456789 text{extra}\n"),
                "{header}"
            );
        }
    }
    let answer = run("717", "local", &["0123456789 text"])?;
    let own = answer.split('|').next().ok_or("no port")?.to_owned();
    assert_eq!(answer, format!("{own}|{client}|{own}|{vip}|717|0123456789 text\n"), "LOCAL");
    assert_eq!(run("717", "none", &["0123456789 text"])?, "reset\n");

    records(&weir, client, source)?;
    assert_eq!(weir.counter("proxy_header")?, 1);
    for server in servers {
        let said = server.output();
        assert!(said.contains("unknown"), "no health monitor was here: {said}");
        assert!(!said.contains("wrong"), "{said}");
    }
    weir.check_balance()
}

/// 2 clients, 8 that a header named, one that it did not name, one without.
fn records(weir: &Weir, client: &str, source: &str) -> Result {
    let records = weir.wait_for_records(12)?;
    let socket = |ip: &str| if ip.contains(':') { format!("[{ip}]:") } else { format!("{ip}:") };
    let begins =
        |value: &serde_json::Value, ip: &str| value.as_str().is_some_and(|s| s.starts_with(&socket(ip)));
    let named: Vec<_> = records.iter().filter(|record| record.get("peer").is_some()).collect();
    assert_eq!(named.len(), 8);
    for record in named {
        assert!(begins(&record["client"], source) && begins(&record["peer"], client), "{record}");
        assert_eq!(
            (&record["ds_log"], &record["termination"]),
            (&format!("{source} 0123456789").into(), &"--".into())
        );
    }
    let refused =
        records.iter().find(|record| record["termination"] == "RP").ok_or("no record of the refusal")?;
    assert_eq!(refused["reason"], "proxy_header");
    Ok(())
}

#[test]
fn headers_ipv4() -> Result {
    kernels("192.0.2.10", "10.0.0.20", "192.0.2.100", ["203.0.113.7", "198.51.100.1"])
}

#[test]
fn headers_ipv6() -> Result {
    kernels("2001:db8:1::10", "2001:db8:2::20", "2001:db8:1::100", ["2001:db8:7::7", "2001:db8:8::1"])
}
