//! Parts of configurations.

use std::fmt::Write;

/// Pools with their servers, `address:port`.
pub fn pools(pools: &[(&str, &[&str])]) -> String {
    let mut toml = String::new();
    for (name, servers) in pools {
        let servers: Vec<String> = servers
            .iter()
            .map(|server| {
                let socket: std::net::SocketAddr = server.parse().unwrap();
                format!("{{ address = \"{}\", port = {} }}", socket.ip(), socket.port())
            })
            .collect();
        writeln!(toml, "[[pool]]\nname = \"{name}\"\nservers = [{}]", servers.join(", ")).unwrap();
    }
    toml
}

/// A service without scripts on 192.0.2.10. Tables of the service may follow.
pub fn plain(ports: &str, pool: &str) -> String {
    let pool = if pool.is_empty() { String::new() } else { format!("pool = \"{pool}\"") };
    format!(
        "[[virtual_service]]\nname = \"vs\"\naddresses = [\"192.0.2.10\"]\nports = [\"{ports}\"]\n{pool}\n"
    )
}

/// As `plain`, with a request script.
pub fn scripted(ports: &str, pool: &str, attached: &[&str], request: &str) -> String {
    with_sets(ports, pool, attached, Some(request), None)
}

/// As `plain`, with scripts.
pub fn with_sets(
    ports: &str,
    pool: &str,
    attached: &[&str],
    request: Option<&str>,
    response: Option<&str>,
) -> String {
    let mut set = format!("[[datascript_set]]\nname = \"set\"\npools = {attached:?}\n");
    set.push_str("parsers = [\"Default-TLS\", \"Default-Radius\"]\n");
    for (event, script) in [("request", request), ("response", response)] {
        if let Some(script) = script {
            writeln!(set, "{event}_inline = '''\n{script}\n'''").unwrap();
        }
    }
    format!("{set}{}datascript_sets = [\"set\"]\n", plain(ports, pool))
}

/// The same configuration with a second VIP, 2001:db8:1::10.
pub fn with_ipv6(toml: &str) -> String {
    toml.replace("[\"192.0.2.10\"]", "[\"192.0.2.10\", \"2001:db8:1::10\"]")
}
