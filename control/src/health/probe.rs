//! One probe: a socket, what it sent, and what its answer means.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpEndpoint, IpListenEndpoint, IpProtocol,
};

use dataplane::snapshot::MonitorKind;

use super::stack::Stack;
use super::unreachable::Unreachable;

/// Payload of an echo request.
const ECHO: &[u8] = b"weir health monitor";
/// Room for what a server says before it is asked (a banner); it is read and thrown away.
const TCP_RECEIVE_BUFFER: usize = 2048;
/// Datagrams from others that may arrive before the answer.
const UDP_RECEIVE_PACKETS: usize = 4;

/// Where a probe goes and where from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoints {
    /// The server; its port means nothing to ICMP.
    pub(super) remote: SocketAddr,
    /// Local port, or echo identifier.
    pub(super) local: u16,
}

/// What is known about a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing yet.
    Waiting,
    /// The server holds.
    Good,
    /// The server refused.
    Failed,
}

/// A probe in flight, or a connection of one on its way to its end.
#[derive(Debug)]
pub(super) struct Probe {
    /// Index of the check; `None` once the result is known and only FINs are still exchanged.
    pub(super) check: Option<usize>,
    /// Index of the stack.
    pub(super) stack: usize,
    pub(super) endpoints: Endpoints,
    pub(super) protocol: IpProtocol,
    pub(super) socket: SocketHandle,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    /// An ICMP error said that the packet did not arrive.
    pub(super) unreachable: bool,
}

impl Probe {
    /// True if an ICMP error is about this probe's packets.
    pub(super) fn concerns(&self, error: &Unreachable, own: IpAddr) -> bool {
        error.protocol == self.protocol
            && error.source == own
            && error.destination == self.endpoints.remote.ip()
            && error.local == self.endpoints.local
    }

    /// What the socket says. Reads everything that has arrived.
    pub(super) fn outcome(&self, stack: &mut Stack, kind: &MonitorKind) -> Outcome {
        if self.unreachable {
            return Outcome::Failed;
        }
        match kind {
            MonitorKind::Tcp => tcp_outcome(stack.sockets.get_mut(self.socket)),
            MonitorKind::Udp { expect, .. } => {
                udp_outcome(stack.sockets.get_mut(self.socket), self.endpoints.remote, expect)
            }
            MonitorKind::Icmp => icmp_outcome(stack.sockets.get_mut(self.socket), self.endpoints),
        }
    }

    /// Starts to close a connection, behind its PROXY header. True if FINs remain to be exchanged.
    pub(super) fn close(&self, stack: &mut Stack, header: &[u8]) -> bool {
        if self.protocol != IpProtocol::Tcp {
            return false;
        }
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        // There is room for it; a server that has closed already does not need it.
        let _ = socket.send_slice(header);
        socket.close();
        socket.state() != tcp::State::Closed
    }

    /// True once both FINs are acknowledged (or the peer has reset the connection): the socket can go. Reads what
    /// the server sends meanwhile, so that its FIN finds room.
    pub(super) fn closed(&self, stack: &mut Stack) -> bool {
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|read| read > 0) {}
        matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait)
    }

    /// Resets a connection that the server does not close; the RST goes out at the next poll.
    pub(super) fn abort(&self, stack: &mut Stack) {
        if self.protocol == IpProtocol::Tcp {
            stack.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
        }
    }
}

/// Opens a socket on `stack` and queues the probe's first packet; a connection has room for `header`. `None`: the socket does not accept these endpoints.
pub(super) fn open(
    stack: &mut Stack,
    kind: &MonitorKind,
    endpoints: Endpoints,
    header: &[u8],
) -> Option<(SocketHandle, IpProtocol)> {
    match kind {
        MonitorKind::Tcp => Some((open_tcp(stack, endpoints, header)?, IpProtocol::Tcp)),
        MonitorKind::Udp { send, .. } => Some((open_udp(stack, endpoints, send)?, IpProtocol::Udp)),
        MonitorKind::Icmp => open_icmp(stack, endpoints),
    }
}

fn open_tcp(stack: &mut Stack, endpoints: Endpoints, header: &[u8]) -> Option<SocketHandle> {
    let receive = tcp::SocketBuffer::new(vec![0; TCP_RECEIVE_BUFFER]);
    let mut socket = tcp::Socket::new(receive, tcp::SocketBuffer::new(vec![0; header.len().max(1)]));
    socket.set_ack_delay(None);
    let local = IpListenEndpoint { addr: Some(stack.source.address.into()), port: endpoints.local };
    socket.connect(stack.interface.context(), IpEndpoint::from(endpoints.remote), local).ok()?;
    Some(stack.sockets.add(socket))
}

fn open_udp(stack: &mut Stack, endpoints: Endpoints, send: &[u8]) -> Option<SocketHandle> {
    let mtu = usize::from(stack.source.mtu);
    let receive = udp::PacketBuffer::new(
        vec![udp::PacketMetadata::EMPTY; UDP_RECEIVE_PACKETS],
        vec![0; mtu * UDP_RECEIVE_PACKETS],
    );
    let transmit = udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 1], vec![0; send.len().max(1)]);
    let mut socket = udp::Socket::new(receive, transmit);
    socket.bind(IpListenEndpoint { addr: Some(stack.source.address.into()), port: endpoints.local }).ok()?;
    socket.send_slice(send, IpEndpoint::from(endpoints.remote)).ok()?;
    Some(stack.sockets.add(socket))
}

fn open_icmp(stack: &mut Stack, endpoints: Endpoints) -> Option<(SocketHandle, IpProtocol)> {
    let (remote, ident) = (IpAddress::from(endpoints.remote.ip()), endpoints.local);
    let checksums = ChecksumCapabilities::default();
    let mut bytes = Vec::new();
    let protocol = match (remote, IpAddress::from(stack.source.address)) {
        (IpAddress::Ipv4(_), _) => {
            let echo = Icmpv4Repr::EchoRequest { ident, seq_no: 1, data: ECHO };
            bytes.resize(echo.buffer_len(), 0);
            echo.emit(&mut Icmpv4Packet::new_unchecked(bytes.as_mut_slice()), &checksums);
            IpProtocol::Icmp
        }
        (IpAddress::Ipv6(to), IpAddress::Ipv6(from)) => {
            let echo = Icmpv6Repr::EchoRequest { ident, seq_no: 1, data: ECHO };
            bytes.resize(echo.buffer_len(), 0);
            echo.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(bytes.as_mut_slice()), &checksums);
            IpProtocol::Icmpv6
        }
        (IpAddress::Ipv6(_), IpAddress::Ipv4(_)) => return None,
    };
    let receive = icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 2], vec![0; bytes.len() * 4]);
    let transmit = icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 1], vec![0; bytes.len()]);
    let mut socket = icmp::Socket::new(receive, transmit);
    socket.bind(icmp::Endpoint::Ident(ident)).ok()?;
    socket.send_slice(&bytes, remote).ok()?;
    Some((stack.sockets.add(socket), protocol))
}

fn tcp_outcome(socket: &mut tcp::Socket<'_>) -> Outcome {
    match socket.state() {
        tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Listen => Outcome::Waiting,
        tcp::State::Closed => Outcome::Failed,
        _ => Outcome::Good,
    }
}

/// Datagrams from anywhere else, or without the expected bytes, are ignored.
fn udp_outcome(socket: &mut udp::Socket<'_>, remote: SocketAddr, expect: &[u8]) -> Outcome {
    while let Ok((data, from)) = socket.recv() {
        if from.endpoint == IpEndpoint::from(remote) && contains(data, expect) {
            return Outcome::Good;
        }
    }
    Outcome::Waiting
}

fn contains(data: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || data.windows(wanted.len()).any(|window| window == wanted)
}

/// The socket has already checked the identifier and the checksum.
fn icmp_outcome(socket: &mut icmp::Socket<'_>, endpoints: Endpoints) -> Outcome {
    while let Ok((message, from)) = socket.recv() {
        if from == IpAddress::from(endpoints.remote.ip()) && is_echo_reply(message, endpoints) {
            return Outcome::Good;
        }
    }
    Outcome::Waiting
}

fn is_echo_reply(message: &[u8], endpoints: Endpoints) -> bool {
    use smoltcp::wire::{Icmpv4Message, Icmpv6Message};
    if endpoints.remote.is_ipv4() {
        Icmpv4Packet::new_checked(message).is_ok_and(|icmp| {
            icmp.msg_type() == Icmpv4Message::EchoReply && icmp.echo_seq_no() == 1 && icmp.data() == ECHO
        })
    } else {
        Icmpv6Packet::new_checked(message).is_ok_and(|icmp| {
            icmp.msg_type() == Icmpv6Message::EchoReply && icmp.echo_seq_no() == 1 && icmp.payload() == ECHO
        })
    }
}
