//! What a test file calls by its name: servers, services, and where they listen.

use std::net::{IpAddr, SocketAddr};

use dataplane::snapshot::{Protocol, ServerId, Snapshot};
use script_check::nearest;

/// `address:port` of a server.
pub fn server_name(snapshot: &Snapshot, id: ServerId) -> Option<String> {
    let server = snapshot.servers.get(id.index())?;
    Some(SocketAddr::new(server.address, server.port).to_string())
}

/// That there is no such thing, and what is there.
pub fn no_such(what: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("there is no {what} \"{name}\": did you mean \"{meant}\"?"),
        None => format!("there is no {what} \"{name}\": there are {}", known.join(", ")),
    }
}

/// The VIP, port and protocol that a client means.
pub fn listener(
    snapshot: &Snapshot,
    client: IpAddr,
    to: Option<&str>,
    protocol: Option<&str>,
) -> Result<(SocketAddr, Protocol), String> {
    let to: Option<SocketAddr> = match to {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            format!("`to` is a VIP with a port, not \"{text}\": {{ to = \"192.0.2.10:443\" }}")
        })?),
    };
    let protocol = match protocol {
        None => None,
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some(other) => return Err(format!("`proto` is \"tcp\" or \"udp\", not \"{other}\"")),
    };
    let fits = |vip: &SocketAddr, of: Protocol| {
        vip.is_ipv4() == client.is_ipv4()
            && to.is_none_or(|to| to == *vip)
            && protocol.is_none_or(|p| p == of)
    };
    let mut found =
        listeners(snapshot, to.map(|to| to.port())).into_iter().filter(|(vip, of)| fits(vip, *of));
    let first = found.next().ok_or_else(|| {
        let all: Vec<_> = listeners(snapshot, None).iter().map(|(vip, of)| written(*vip, *of)).collect();
        format!("no service listens there: there are {}", all.join(", "))
    })?;
    match found.next() {
        None => Ok(first),
        Some((vip, of)) => Err(format!(
            "say which service is meant, there are several: client(address, {}) or {}",
            written(first.0, first.1),
            written(vip, of)
        )),
    }
}

fn written(vip: SocketAddr, protocol: Protocol) -> String {
    let protocol = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    format!("{{ to = \"{vip}\", proto = \"{protocol}\" }}")
}

/// Where services listen; of a range of ports the one that is asked for, else the first.
fn listeners(snapshot: &Snapshot, port: Option<u16>) -> Vec<(SocketAddr, Protocol)> {
    let mut found = Vec::new();
    for service in &snapshot.services {
        for address in &service.addresses {
            for range in &service.ports {
                let port =
                    port.filter(|port| (range.first..=range.last).contains(port)).unwrap_or(range.first);
                found.push((SocketAddr::new(*address, port), range.protocol));
            }
        }
    }
    found
}
