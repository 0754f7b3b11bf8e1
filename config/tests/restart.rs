//! What a running weir cannot change.

#![cfg(test)]

use std::path::Path;

const BASE: &str = r#"
[[interface]]
name = "lan"
device = "net_null0"
addresses = ["192.0.2.1/24"]
[snat]
addresses = ["192.0.2.2"]
ports = "20000-29999"
[[pool]]
name = "web"
servers = [{ address = "192.0.2.20", port = 80 }]
[[virtual_service]]
name = "www"
addresses = ["192.0.2.10"]
ports = ["tcp/80"]
pool = "web"
"#;

fn parse(text: &str) -> config::Config {
    config::parse(text, "test.toml", Path::new(""))
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

fn keys(text: &str) -> Vec<String> {
    parse(BASE).needs_restart(&parse(text))
}

#[test]
fn keys_that_need_a_restart_are_named() {
    for (from, to, key) in [
        ("192.0.2.1/24", "192.0.2.3/24", "interface.addresses of 'lan'"),
        ("net_null0", "net_null1", "interface.device of 'lan'"),
        ("name = \"lan\"", "name = \"wan\"", "interface"),
        ("name = \"lan\"", "name = \"lan\"\nmtu = 1400", "interface.mtu of 'lan'"),
        ("name = \"lan\"", "name = \"lan\"\nvlan = 7", "interface.vlan of 'lan'"),
        ("192.0.2.2\"", "192.0.2.4\"", "snat.addresses"),
        ("20000-", "20001-", "snat.ports"),
        ("-29999", "-29998", "snat.ports"),
        ("[[pool]]", "monitor_ports = \"40000-41000\"\n[[pool]]", "snat.monitor_ports"),
        ("[[pool]]", "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.254\"\n[[pool]]", "route"),
    ] {
        let text = BASE.replacen(from, to, 1);
        assert_ne!(text, BASE);
        assert_eq!(keys(&text).first().map(String::as_str), Some(key), "{from} -> {to}");
    }
    for (section, key, value) in [
        ("limits", "flows", "4096"),
        ("limits", "embryonic", "512"),
        ("limits", "syn_cookies_above", "7"),
        ("limits", "waiting", "512"),
        ("limits", "spliced", "512"),
        ("limits", "neighbors", "77"),
        ("limits", "fragment_memory", "0"),
        ("limits", "script_budget", "\"7ms\""),
        ("limits", "script_memory", "\"5MiB\""),
        ("dpdk", "eal_args", "[\"--no-telemetry\"]"),
        ("dpdk", "rx_descriptors", "512"),
        ("dpdk", "tx_descriptors", "512"),
        ("dpdk", "mbufs", "32767"),
        ("dpdk", "hugepages", "\"never\""),
        ("dpdk", "workers", "3"),
        ("dpdk", "cpus", "[0]"),
        ("dpdk", "idle", "\"poll\""),
        ("log", "connections", "\"stderr\""),
        ("admin", "socket", "\"/tmp/other.sock\""),
    ] {
        let text = format!("{BASE}[{section}]\n{key} = {value}\n");
        assert!(keys(&text).contains(&format!("{section}.{key}")), "{section}.{key}: {:?}", keys(&text));
    }
}

#[test]
fn everything_else_can_be_changed_while_weir_runs() {
    assert_eq!(keys(BASE), [""; 0]);
    let text = BASE
        .replace("\"web\"", "\"other\"")
        .replace("192.0.2.20", "192.0.2.21")
        .replace("tcp/80", "udp/53")
        .replace("192.0.2.10", "192.0.2.11");
    let more = "[virtual_service.tables]\nentries = 7\n[virtual_service.udp]\nper_packet = true\n";
    assert_eq!(keys(&format!("{text}{more}")), [""; 0]);
}

/// Several workers share packets by the client's address or by addresses and ports, and so do the cards.
#[test]
fn a_service_cannot_begin_to_preserve_addresses_while_several_workers_run() {
    let spread = |workers: &str| {
        let base = format!("{BASE}[dpdk]\nworkers = {workers}\n");
        let text = base.replace("pool = \"web\"", "pool = \"web\"\npreserve_client_ip = true");
        [(&base, &text), (&text, &base), (&text, &text)]
            .map(|(one, other)| parse(one).needs_restart(&parse(other)))
    };
    let key = "virtual_service.preserve_client_ip (the workers' packets are spread by it)".to_owned();
    for workers in ["2", "\"auto\""] {
        assert_eq!(spread(workers), [vec![key.clone()], vec![key.clone()], vec![]]);
    }
    assert_eq!(spread("1"), [const { vec![] }; 3] as [Vec<String>; 3]);
}
