//! PROXY headers, accepted and sent: only where weir itself has the connection before the server does.

use dataplane::snapshot::{PoolId, Protocol, Service, Snapshot, TcpProfile};

use crate::problem::Problems;
use crate::written::{File, VirtualService};

/// True if connections of the service begin with a header, or are to begin with one for a server.
pub(super) fn is_proxied(service: &Service, snapshot: &Snapshot) -> bool {
    !service.tcp.accept_proxy_from.is_empty() || pool_with_header(service, snapshot).is_some()
}

fn pool_with_header(service: &Service, snapshot: &Snapshot) -> Option<PoolId> {
    let wants =
        |pool: &PoolId| snapshot.pools.get(pool.index()).is_some_and(|p| p.tcp.proxy_protocol.is_some());
    snapshot.pools_of(service).into_iter().find(wants)
}

pub(super) fn check(
    written: &VirtualService,
    meant: &Service,
    file: &File,
    snapshot: &Snapshot,
    problems: &mut Problems,
) {
    check_profile(written, meant, file, snapshot, problems);
    check_udp(written, meant, file, snapshot, problems);
    check_preserved(written, meant, problems);
}

/// The address that is preserved is that of whoever connects.
fn check_preserved(written: &VirtualService, meant: &Service, problems: &mut Problems) {
    if let (Some(key), Some(networks)) = (&written.preserve_client_ip.0, &written.tcp.accept_proxy_from.span)
        && meant.preserve_client_ip
        && !meant.tcp.accept_proxy_from.is_empty()
    {
        let message =
            "servers will see the proxy's address, not that of the client that its PROXY header names";
        problems
            .warning(&key.span, message)
            .help("`proxy_protocol` of the pool tells the servers whom the header named")
            .also(networks, "headers are accepted here");
    }
}

/// With `fast_path` the handshake is the end hosts': there is no place for a header.
fn check_profile(
    written: &VirtualService,
    meant: &Service,
    file: &File,
    snapshot: &Snapshot,
    problems: &mut Problems,
) {
    let Some(profile) = written.tcp.profile.0.as_ref().filter(|at| at.value == TcpProfile::FastPath) else {
        return;
    };
    if let Some(networks) =
        written.tcp.accept_proxy_from.span.as_ref().filter(|_| !meant.tcp.accept_proxy_from.is_empty())
    {
        let message =
            "profile \"fast_path\" cannot accept PROXY headers: it passes the client's handshake on";
        problems
            .error(&profile.span, message)
            .help("write profile = \"proxy\", or take `accept_proxy_from` away")
            .also(networks, "accepted here");
    }
    if let Some((name, key)) = place(meant, file, snapshot) {
        let message = format!(
            "profile \"fast_path\" cannot send the PROXY header that pool `{name}` asks for: it passes the client's handshake on"
        );
        problems
            .error(&profile.span, message)
            .help("write profile = \"proxy\", or send these flows to a pool with proxy_protocol = \"off\"")
            .also(&key, "asked for here");
    }
}

/// There are no headers ahead of datagrams.
fn check_udp(
    written: &VirtualService,
    meant: &Service,
    file: &File,
    snapshot: &Snapshot,
    problems: &mut Problems,
) {
    let Some(ports) = written.ports.items.iter().find(|ports| ports.value.0.protocol == Protocol::Udp) else {
        return;
    };
    let Some((name, key)) = place(meant, file, snapshot) else { return };
    let message =
        format!("datagrams to {} may go to pool `{name}`, whose servers expect a PROXY header", ports.value);
    problems
        .error(&ports.span, message)
        .help("the header is for TCP only: give the UDP ports a service and a pool of their own")
        .also(&key, "asked for here");
}

/// Name and key of the first pool of a service that asks for a header.
fn place(service: &Service, file: &File, snapshot: &Snapshot) -> Option<(String, crate::problem::Span)> {
    let pool = pool_with_header(service, snapshot)?;
    let key = file.pool.get(pool.index())?.tcp.proxy_protocol.0.as_ref()?;
    Some((snapshot.pools.get(pool.index())?.name.clone(), key.span.clone()))
}
