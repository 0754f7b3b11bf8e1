//! What the examples mean: each value of the file is where the core looks for it, and defaults are as documented.

#![cfg(test)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use config::{Config, Device, Hugepages, Idle, LogDestination, Memory, Workers};
use dataplane::proxy_protocol::Version;
use dataplane::snapshot::{
    Algorithm, FailAction, Fallback, MonitorKind, PoolGroupId, PoolId, PortRange, Protocol, ScriptSetId,
    ServerId, Target, TcpProfile,
};
use smoltcp::time::Duration;

fn example(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    config::load(&path).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_defaults_of_a_minimal_file_are_the_documented_ones() {
    let config = example("minimal.toml");
    let snapshot = &config.snapshot;
    let interface = &snapshot.interfaces[0];
    assert_eq!((interface.name.as_str(), interface.vlan, interface.mtu), ("lan", None, 1500));
    assert_eq!((interface.addresses[0].address, interface.addresses[0].length), (ip("192.0.2.1"), 24));
    assert_eq!(snapshot.snat.addresses, [ip("192.0.2.2")]);
    assert_eq!((snapshot.snat.first_port, snapshot.snat.last_port), (1024, 63999));

    let pool = &snapshot.pools[0];
    assert_eq!(pool.algorithm, Algorithm::RoundRobin);
    assert_eq!(pool.servers, [ServerId(0), ServerId(1)]);
    assert_eq!((pool.fail_action, pool.port_translation), (FailAction::Reset, true));
    let promise = tcp::Promise { mss: 1460, window_scale: Some(7), sack: true, timestamps: true };
    assert_eq!(pool.tcp.promise, promise);
    assert_eq!((pool.tcp.connect_timeout, pool.tcp.connect_retries), (Duration::from_secs(5), 2));
    let monitor = &pool.monitors[0];
    assert_eq!((&monitor.kind, monitor.port), (&MonitorKind::Tcp, None));
    assert_eq!((monitor.interval, monitor.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!((monitor.rise, monitor.fall), (2, 3));

    let server = &snapshot.servers[1];
    assert_eq!((server.pool, server.address, server.port), (PoolId(0), ip("192.0.2.21"), 8080));
    assert_eq!((server.weight, server.enabled, &server.hostname), (1, true, &None));
    assert_eq!(server.max_connections, None);

    let limits = &snapshot.limits;
    assert_eq!((limits.flows, limits.embryonic, limits.waiting, limits.neighbors), (65536, 8192, 8192, 1024));
    assert_eq!(limits.fragment_memory, 4 << 20);
    assert_eq!((limits.script_budget, limits.script_memory), (Duration::from_millis(1), 16 << 20));
}

#[test]
fn services_that_preserve_their_clients_addresses_need_no_snat_addresses() {
    let minimal = include_str!("../examples/minimal.toml");
    let without = minimal.replace("[snat]\naddresses = [\"192.0.2.2\"]", "#");
    assert_ne!(minimal, without);
    let refused = config::parse(&without, "t.toml", Path::new(".")).unwrap_err();
    assert!(refused.render(false).contains("there is no IPv4 SNAT address"));
    let kept = without.replace("pool = \"web\"\n", "pool = \"web\"\npreserve_client_ip = true\n");
    let config = config::parse(&kept, "t.toml", Path::new(".")).unwrap();
    assert!(config.warnings.problems().is_empty());
    assert!(config.snapshot.services[0].preserve_client_ip && config.snapshot.preserves_clients());
    let summary = config.summary();
    assert!(
        summary.contains("\nsnat none\n") && summary.contains("; clients' addresses preserved\n"),
        "{summary}"
    );
}

#[test]
fn a_script_may_name_the_default_pool_of_its_service() {
    let minimal = include_str!("../examples/minimal.toml");
    let set = |pool: &str| {
        format!(
            "{minimal}datascript_sets = [\"s\"]\n[[datascript_set]]\nname = \"s\"\n\
             request_inline = \"avi.pool.select('{pool}')\"\n"
        )
    };
    let parse = |text: &str| config::parse(text, "f.toml", Path::new(""));
    assert!(parse(&set("web")).is_ok_and(|config| config.warnings.problems().is_empty()));
    let errors = parse(&set("webs")).err().map(|errors| errors.render(false)).unwrap_or_default();
    assert!(errors.contains("no pool named 'webs'") && errors.contains("did you mean 'web'"), "{errors}");
}

#[test]
fn scripts_may_be_wrong_where_a_tool_says_so_itself() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("unchecked-{}.toml", std::process::id()));
    let minimal = include_str!("../examples/minimal.toml");
    let set = "datascript_sets = [\"s\"]\n[[datascript_set]]\nname = \"s\"\nrequest_inline = \"if\"\n";
    std::fs::write(&path, format!("{minimal}{set}")).unwrap();
    let refused = config::load(&path).is_err();
    let taken = config::load_with_unchecked_scripts(&path);
    std::fs::write(&path, format!("{minimal}nonsense = 1\n")).unwrap();
    let nonsense = config::load_with_unchecked_scripts(&path).is_err();
    std::fs::remove_file(&path).unwrap();
    assert!(refused && nonsense);
    assert_eq!(taken.map(|config| config.snapshot.script_sets.len()).ok(), Some(1));
}

#[test]
fn the_defaults_of_a_service_are_the_documented_ones() {
    let config = example("minimal.toml");
    let service = &config.snapshot.services[0];
    assert_eq!((service.name.as_str(), service.addresses.as_slice()), ("www", [ip("192.0.2.10")].as_slice()));
    assert_eq!(service.ports, [PortRange { protocol: Protocol::Tcp, first: 80, last: 80 }]);
    assert_eq!((service.default, service.script_sets.len()), (Some(Target::Pool(PoolId(0))), 0));
    assert!(service.log_connections);
    assert_eq!(service.tcp.profile, TcpProfile::FastPath);
    assert_eq!(service.tcp.idle_timeout, Duration::from_secs(300));
    assert_eq!(service.tcp.handshake_timeout, Duration::from_secs(10));
    assert_eq!(service.tcp.first_payload_timeout, Duration::from_secs(10));
    assert_eq!(service.tcp.on_first_payload_timeout, Fallback::Close);
    assert_eq!((service.tcp.reset_on_idle, service.tcp.buffer), (true, 65536));
    assert_eq!((service.udp.per_packet, service.udp.idle_timeout), (false, Duration::from_secs(30)));
    assert_eq!((service.udp.first_payload_timeout, service.udp.buffer), (Duration::from_secs(5), 65536));
    assert_eq!((service.datascript.every_payload, service.datascript.debug_log), (false, false));
    assert_eq!(service.datascript.on_error, Fallback::Close);
    let tables = service.tables;
    assert_eq!((tables.entries, tables.key_bytes, tables.value_bytes), (16384, 256, 256));
    assert_eq!(tables.bytes, 16384 * 512);
}

#[test]
fn the_defaults_of_the_process_are_the_documented_ones() {
    let process = example("minimal.toml").process;
    assert_eq!(process.devices, [Device::Virtual("net_tap0,iface=weir0".into())]);
    assert_eq!(process.admin_socket, Some(PathBuf::from("/run/weir.sock")));
    assert_eq!(process.connection_log, LogDestination::Stdout);
    assert_eq!(process.monitor_ports, 64000..=65535);
    let dpdk = process.dpdk;
    assert_eq!((dpdk.rx_descriptors, dpdk.tx_descriptors, dpdk.mbufs), (1024, 1024, None));
    assert_eq!((dpdk.mbufs_for(1, 2), dpdk.mbufs_for(8, 2)), (16_383, 65_535));
    assert_eq!((dpdk.hugepages, dpdk.idle), (Hugepages::Auto, Idle::Sleep), "for a virtual device");
    assert_eq!((dpdk.workers, dpdk.cpus.len()), (Workers::Count(1), 0));
    assert!(dpdk.eal_args.is_empty());
}

/// Cards are worth a CPU of their own, also beside virtual devices; whoever says something else gets that.
#[test]
fn a_network_card_is_polled_unless_something_else_is_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/minimal.toml");
    let minimal = std::fs::read_to_string(path).unwrap();
    let idle = |device: &str, other: Option<&str>, written: &str| {
        let mut text = minimal.replace("net_tap0,iface=weir0", device);
        if let Some(other) = other {
            let addresses = "addresses = [\"198.51.100.1/24\"]";
            text += &format!("[[interface]]\nname = \"wan\"\ndevice = \"{other}\"\n{addresses}\n");
        }
        let config = config::parse(&format!("{text}[dpdk]\n{written}\n"), "weir.toml", Path::new(""));
        config.unwrap_or_else(|e| panic!("{e}")).process.dpdk.idle
    };
    let (tap, card) = ("net_tap0", "0000:3b:00.0");
    for other in [None, Some("net_tap1")] {
        assert_eq!(idle(tap, other, ""), Idle::Sleep);
        assert_eq!(idle(tap, other, "idle = \"poll\""), Idle::Poll);
    }
    for (one, other) in [(card, None), (card, Some(tap)), (tap, Some(card))] {
        assert_eq!(idle(one, other, ""), Idle::Poll);
        assert_eq!(idle(one, other, "idle = \"pause\""), Idle::Pause);
        assert_eq!(idle(one, other, "idle = \"sleep\""), Idle::Sleep);
    }
}

#[test]
fn the_full_example_means_what_it_says() {
    let config = example("full.toml");
    let snapshot = &config.snapshot;
    assert_eq!((snapshot.interfaces[1].vlan, snapshot.interfaces[1].addresses.len()), (Some(20), 2));
    assert_eq!((snapshot.routes[1].to.length, snapshot.routes[1].via), (0, ip("2001:db8:1::ff")));

    let blue = &snapshot.pools[0];
    assert_eq!(
        (blue.algorithm, blue.fail_action),
        (Algorithm::LeastConnections, FailAction::Pool(PoolId(1)))
    );
    assert_eq!((blue.monitors[0].port, &blue.monitors[1].kind), (Some(8443), &MonitorKind::Icmp));
    assert_eq!(blue.tcp.promise.mss, 1440);
    assert_eq!(snapshot.pools[1].fail_action, FailAction::Close);
    assert_eq!(snapshot.pools[1].tcp.promise.mss, 1440, "an IPv6 server takes 20 bytes more of the MTU");
    assert_eq!((snapshot.pools[2].algorithm, snapshot.pools[2].monitors.len()), (Algorithm::SourceIpHash, 0));
    let query = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let udp = MonitorKind::Udp { send: query.to_vec(), expect: vec![0xab, 0xcd] };
    assert_eq!(snapshot.pools[3].monitors[0].kind, udp);
    assert_eq!((snapshot.servers[0].weight, snapshot.servers[1].enabled), (2, false));
    assert_eq!(snapshot.servers[0].hostname.as_deref(), Some("blue-1.example"));
    let most: Vec<Option<u32>> = snapshot.servers[..4].iter().map(|server| server.max_connections).collect();
    assert_eq!(most, [Some(500), Some(250), Some(250), None], "its own, the pool's, none");
    let members = &snapshot.pool_groups[0].members;
    assert_eq!((members[0].priority, members[0].ratio, members[1].pool), (10, 3, PoolId(1)));
}

#[test]
fn the_scripts_of_the_full_example_are_there() {
    let config = example("full.toml");
    let sets = &config.snapshot.script_sets;
    let request = sets[0].request.as_ref().unwrap();
    assert_eq!(request.name, "server_name.lua");
    assert!(request.text.starts_with(b"-- Chooses a pool by the server name"));
    assert_eq!(sets[0].response.as_ref().unwrap().name, "by-server-name:response_inline");
    assert_eq!(
        (sets[0].pools.as_slice(), sets[0].pool_groups.as_slice()),
        ([PoolId(0), PoolId(1)].as_slice(), [PoolGroupId(0)].as_slice())
    );
    assert_eq!(sets[0].parsers[0].0, "Default-TLS");
    assert_eq!(sets[0].parsers[0].1.text, scripting::builtin_parser("Default-TLS").unwrap().as_bytes());
    assert_eq!(
        (sets[1].parsers[0].0.as_str(), sets[1].parsers[0].1.name.as_str()),
        ("first-byte", "first_byte.lua")
    );

    let services = &config.snapshot.services;
    assert_eq!(
        (services[0].default, services[0].script_sets.as_slice()),
        (Some(Target::PoolGroup(PoolGroupId(0))), [ScriptSetId(0)].as_slice())
    );
    assert_eq!(services[0].tcp.profile, TcpProfile::Proxy);
    assert_eq!(services[0].tcp.on_first_payload_timeout, Fallback::DefaultPool);
    assert_eq!(services[0].datascript.on_error, Fallback::DefaultPool);
    assert_eq!(services[1].ports, [PortRange { protocol: Protocol::Udp, first: 1812, last: 1813 }]);
    assert!(services[2].udp.per_packet);
}

/// A script alone makes `proxy` the default, a key overrides that, and a limit shrinks the defaults that depend on it.
#[test]
fn defaults_follow_what_they_depend_on() {
    let text = r#"
[[interface]]
name = "lan"
device = "net_tap0"
addresses = ["192.0.2.1/24"]
mtu = 1400
[snat]
addresses = ["192.0.2.1"]
ports = "2000-2999"
[[pool]]
name = "web"
servers = [{ address = "192.0.2.20", port = 80 }]
  [[pool.health_monitor]]
  type = "icmp"
  interval = "500ms"
[[datascript_set]]
name = "set"
response_inline = "avi.vs.log('x')"
[[virtual_service]]
name = "scripted"
addresses = ["192.0.2.10"]
ports = ["tcp/80"]
pool = "web"
datascript_sets = ["set"]
[[virtual_service]]
name = "on the SYN"
addresses = ["192.0.2.11"]
ports = ["tcp/80"]
pool = "web"
datascript_sets = ["set"]
  [virtual_service.tcp]
  profile = "fast_path"
  buffer = 4096
  [virtual_service.datascript]
  run = "every_payload"
  debug_log = true
[limits]
flows = 1000
fragment_memory = "1MiB"
[log]
connections = "/var/log/weir.log"
"#;
    let config = config::parse(text, "weir.toml", Path::new("")).unwrap_or_else(|e| panic!("{e}"));
    let snapshot = &config.snapshot;
    let profiles = [snapshot.services[0].tcp.profile, snapshot.services[1].tcp.profile];
    assert_eq!(profiles, [TcpProfile::Proxy, TcpProfile::FastPath]);
    assert!(snapshot.services[1].datascript.every_payload && snapshot.services[1].datascript.debug_log);
    assert_eq!((snapshot.limits.embryonic, snapshot.limits.waiting), (1000, 1000));
    assert_eq!(snapshot.pools[0].tcp.promise.mss, 1360);
    assert_eq!(snapshot.pools[0].monitors[0].timeout, Duration::from_millis(500));
    assert_eq!(config.process.monitor_ports, 3000..=65535);
    assert_eq!(config.process.connection_log, LogDestination::File("/var/log/weir.log".into()));
    let memory = Memory {
        flows: 1000 * 162,
        neighbors: 1024 * 150,
        fragments: 1 << 20,
        waiting: 1000 * 65536,
        scripts: 16 << 20,
        tables: 2 * 16384 * (256 + 256 + 420),
        mbufs: 16383 * (2048 + 320),
    };
    assert_eq!(config.memory(), memory);
}

#[test]
fn the_summary_tells_an_operator_what_runs() {
    let expected = "\
interface outside: net_tap0,iface=weir0, 192.0.2.1/24 2001:db8:1::1/64, MTU 1500
interface inside: net_tap1,iface=weir1, 10.0.0.1/24 2001:db8:2::1/64, VLAN 20, MTU 1500
route 0.0.0.0/0 via 192.0.2.254
route ::/0 via 2001:db8:1::ff
snat 10.0.0.2 10.0.0.3 2001:db8:2::2, ports 1024-63999
service https: 192.0.2.10 2001:db8:1::10 tcp/443 → pool group web; datascripts by-server-name; TCP bound on the first payload
service radius: 192.0.2.11 udp/1812-1813 → pool radius; datascripts by-code; clients' addresses preserved
service dns: 192.0.2.12 udp/53 tcp/53 → pool dns; TCP bound on the SYN; UDP balanced per packet
pool web-blue: 10.0.0.20:443 (at most 500) 10.0.0.21:443 (at most 250, disabled) [2001:db8:2::20]:443 (at most 250) by least connections; tcp every 5s, icmp every 5s
pool web-green: 10.0.0.22:443 [2001:db8:2::22]:443 by round robin; not monitored
pool radius: 10.0.0.30:1812 10.0.0.31:1812 by source IP hash; not monitored
pool dns: 10.0.0.40:53 10.0.0.41:53 by round robin; udp every 10s
datascript by-server-name: request server_name.lua, response by-server-name:response_inline; parsers Default-TLS
datascript by-code: request by-code:request_inline, response log_answer.lua; parsers first-byte
limits: 65536 flows (14.1 MiB), of them 8192 in handshake, 8192 waiting (up to 512 MiB); 1024 neighbours (150 KiB); fragments 4 MiB
scripts: 1ms per run, 16 MiB of Lua memory, tables up to 43.6 MiB
packet buffers: 32767 (73.9 MiB)
workers: 2; each has these limits and this memory for itself, but for the packet buffers
";
    assert_eq!(example("full.toml").summary(), expected);
}

/// Headers need the profile `proxy`: it is the default wherever one may be sent or accepted.
#[test]
fn proxy_headers_are_where_the_core_looks_for_them() {
    let config = example("full.toml");
    let snapshot = &config.snapshot;
    let pools: Vec<Option<Version>> = snapshot.pools.iter().map(|pool| pool.tcp.proxy_protocol).collect();
    assert_eq!(pools, [Some(Version::V2), None, None, None]);
    let networks = &snapshot.services[0].tcp.accept_proxy_from;
    let networks: Vec<(IpAddr, u8)> =
        networks.iter().map(|network| (network.address, network.length)).collect();
    assert_eq!(networks, [(ip("192.0.2.64"), 27), (ip("2001:db8:1:64::"), 64)]);
    assert!(snapshot.services[2].tcp.accept_proxy_from.is_empty());

    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/minimal.toml")).unwrap();
    let profile = |text: &str| {
        let config = config::parse(text, "weir.toml", Path::new("")).unwrap_or_else(|e| panic!("{e}"));
        config.snapshot.services[0].tcp.profile
    };
    let accepting = "\n[virtual_service.tcp]\naccept_proxy_from = [\"0.0.0.0/0\"]\n";
    assert_eq!(profile(&text), TcpProfile::FastPath);
    assert_eq!(profile(&format!("{text}{accepting}")), TcpProfile::Proxy);
    for (header, expected) in
        [("v1", TcpProfile::Proxy), ("v2", TcpProfile::Proxy), ("off", TcpProfile::FastPath)]
    {
        let spare = format!(
            "\n[[pool]]\nname = \"spare\"\nservers = [{{ address = \"192.0.2.29\", port = 80 }}]\n\
             [pool.tcp]\nproxy_protocol = \"{header}\"\n"
        );
        let chained = text.replacen("[[pool]]", "[[pool]]\nfail_action = { pool = \"spare\" }", 1);
        assert_eq!(profile(&format!("{chained}{spare}")), expected, "{header}");
        assert_eq!(profile(&format!("{text}{spare}")), TcpProfile::FastPath, "a pool of others");
    }
}
