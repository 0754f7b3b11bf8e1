//! TLS passthrough by server name, with the script that weir ships.

use std::process::Command;
use std::time::Duration;

use weir_tests::testkit::{Arms, Network, Process, Result, Weir, repository};

fn config() -> String {
    let script = repository().join("scripting/examples/tls_sni/tls_sni.lua");
    format!(
        r#"
[[pool]]
name = "www"
servers = [{{ address = "10.0.0.20", port = 443 }}]

[[pool]]
name = "api"
servers = [{{ address = "10.0.0.21", port = 443 }}]

[[datascript_set]]
name = "by-server-name"
request = "{}"
pools = ["www", "api"]
parsers = ["Default-TLS"]

[[virtual_service]]
name = "https"
addresses = ["192.0.2.10"]
ports = ["tcp/443"]
pool = "www"
datascript_sets = ["by-server-name"]
"#,
        script.display()
    )
}

fn openssl(network: &Network, arguments: &[&str]) -> Result {
    let output = Command::new("openssl").args(arguments).current_dir(network.directory()).output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// A certificate for `name` that is its own authority, in NAME.pem, and its key in NAME.key.
fn certificate(network: &Network, name: &str) -> Result {
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    let (subject, alternative) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    openssl(network, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key])?;
    let common = ["req", "-x509", "-new", "-days", "2"];
    let own = ["-key", &key, "-out", &pem, "-subj", &subject, "-addext", &alternative];
    openssl(network, &[&common[..], &own[..]].concat())
}

fn server(network: &Network, name: &str, address: &str) -> Result<Process> {
    let host = format!("{name}.example.com");
    certificate(network, &host)?;
    let (pem, key) = (format!("{host}.pem"), format!("{host}.key"));
    network.server(name, "tls_server.py", &[name, address, "443", &pem, &key])
}

/// 200 clients at once for 20 seconds; every answer is compared with what the right server must say.
#[test]
fn two_hundred_clients() -> Result {
    let Some(network) = Network::new("200 TLS clients", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(&network, &config())?;
    let _www = server(&network, "www", "10.0.0.20")?;
    let _api = server(&network, "api", "10.0.0.21")?;
    let authorities = ["www", "api"]
        .map(|name| std::fs::read_to_string(network.directory().join(format!("{name}.example.com.pem"))));
    let [www, api] = authorities;
    std::fs::write(network.directory().join("authorities.pem"), www? + &api?)?;
    let answers = network.run_client(
        Duration::from_secs(80),
        "tls_clients.py",
        &["192.0.2.10", "443", "authorities.pem", "200", "20", "www.example.com=www", "api.example.com=api"],
    );
    let answers = answers.map_err(|error| format!("{error}\n{}", weir.odd_records()))?;
    println!("{answers}");
    let counts: Vec<u64> =
        answers.lines().filter_map(|line| line.split(' ').nth(1)).filter_map(|n| n.parse().ok()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| *count >= 400), "{answers}");
    assert_eq!(weir.counter("records_lost")?, 0);
    weir.check_balance()
}

/// A ClientHello whose bytes come one per segment, in orders that no kernel would choose, by a TCP of the test's own.
#[test]
fn a_hello_in_any_order() -> Result {
    let Some(network) = Network::new("ClientHello out of order", Arms::Two)? else { return Ok(()) };
    let weir = Weir::start(&network, &config())?;
    let _www = network.server("www", "echo.py", &["tcp", "www", "10.0.0.20", "443"])?;
    let _api = network.server("api", "echo.py", &["tcp", "api", "10.0.0.21", "443"])?;
    for order in ["reversed", "duplicated", "shuffled", "overlapping"] {
        for name in ["api", "www"] {
            let host = format!("{name}.example.com");
            let arguments = ["weir0", "192.0.2.10", "443", &host, order];
            let answer = network
                .run_client(Duration::from_secs(20), "odd_tcp_client.py", &arguments)
                .map_err(|error| format!("{order} {name}: {error}\n{}", weir.said()))?;
            assert_eq!(answer, format!("{name}:\n"), "{order}");
        }
    }
    weir.check_balance()
}
