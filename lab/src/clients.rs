//! Who comes to the VIPs.

use std::net::SocketAddr;

use dataplane::snapshot::Protocol;
use smoltcp::time::Instant;

use crate::endpoint::{Endpoint, Settings};
use crate::error::LabError;
use crate::packet::{self, Packet, Transport};
use crate::world::{End, Lab};

/// A client of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub(crate) usize);

/// A client: one connection, or one UDP socket.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) vip: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) tcp: Option<Endpoint>,
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) packets: Vec<(Instant, Packet)>,
    pub(crate) keeps_packets: bool,
}

impl Client {
    /// Its address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whom it talks to.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        self.vip
    }

    /// TCP or UDP.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its TCP, unless it is a UDP client or one that sends packets of the caller's.
    #[must_use]
    pub fn tcp(&self) -> Option<&Endpoint> {
        self.tcp.as_ref()
    }

    /// The stream that came back (TCP).
    #[must_use]
    pub fn received(&self) -> &[u8] {
        self.tcp.as_ref().map_or(&[], Endpoint::received)
    }

    /// The datagrams that came back (UDP).
    #[must_use]
    pub fn datagrams(&self) -> &[Vec<u8>] {
        &self.datagrams
    }

    /// All that came to a client whose packets are the caller's.
    #[must_use]
    pub fn packets(&self) -> &[(Instant, Packet)] {
        &self.packets
    }
}

impl Lab {
    /// A client that talks to a VIP; for TCP [`Lab::connect`] comes next.
    ///
    /// # Errors
    /// [`LabError::Families`].
    pub fn client(
        &mut self,
        address: SocketAddr,
        vip: SocketAddr,
        protocol: Protocol,
    ) -> Result<ClientId, LabError> {
        self.client_with(address, vip, protocol, Settings::default())
    }

    /// As [`Lab::client`], with other TCP settings.
    ///
    /// # Errors
    /// [`LabError::Families`].
    pub fn client_with(
        &mut self,
        address: SocketAddr,
        vip: SocketAddr,
        protocol: Protocol,
        settings: Settings,
    ) -> Result<ClientId, LabError> {
        let isn = self.next_isn();
        let tcp = (protocol == Protocol::Tcp).then(|| Endpoint::new(address, vip, isn, settings));
        self.add_client(address, vip, protocol, tcp)
    }

    /// A client without a stack: the caller sends its packets ([`Lab::packet`]) and finds what came for it in
    /// [`Client::packets`].
    ///
    /// # Errors
    /// [`LabError::Families`].
    pub fn raw_client(
        &mut self,
        address: SocketAddr,
        vip: SocketAddr,
        protocol: Protocol,
    ) -> Result<ClientId, LabError> {
        let id = self.add_client(address, vip, protocol, None)?;
        if let Some(client) = self.clients.get_mut(id.0) {
            client.keeps_packets = true;
        }
        Ok(id)
    }

    fn add_client(
        &mut self,
        address: SocketAddr,
        vip: SocketAddr,
        protocol: Protocol,
        tcp: Option<Endpoint>,
    ) -> Result<ClientId, LabError> {
        if address.is_ipv4() != vip.is_ipv4() {
            return Err(LabError::Families { client: address, vip });
        }
        let id = self.clients.len();
        self.clients.push(Client {
            address,
            vip,
            protocol,
            tcp,
            datagrams: Vec::new(),
            packets: Vec::new(),
            keeps_packets: false,
        });
        self.client_at.insert((protocol, address, vip), id);
        Ok(ClientId(id))
    }

    /// The client; of an id of another lab, any.
    #[must_use]
    pub fn client_view(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(id.0)
    }

    /// Begins the handshake; nothing for UDP.
    pub fn connect(&mut self, id: ClientId) {
        self.with_tcp(id, Endpoint::connect);
    }

    /// Adds to the client's stream, or sends a datagram.
    pub fn send(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(client) = self.clients.get(id.0) else { return };
        if client.tcp.is_some() {
            return self.with_tcp(id, |tcp| tcp.send(bytes));
        }
        let packet = packet::udp(client.address, client.vip, bytes);
        let from = client.address.ip();
        self.identification = self.identification.wrapping_add(1);
        let mtu = self.mtu(self.port_towards(from));
        let pieces = packet.map(|packet| packet::fragments(packet, mtu, self.identification));
        for piece in pieces.unwrap_or_default() {
            self.towards_weir(from, &piece);
        }
        self.settle();
    }

    /// Sends the bytes of the client's stream from `offset` on in one segment; in any order, and more than once.
    pub fn segment(&mut self, id: ClientId, offset: usize, bytes: &[u8]) {
        self.with_tcp(id, |tcp| tcp.segment(offset, bytes));
    }

    /// Ends the client's stream with FIN, once all of it is sent.
    pub fn finish(&mut self, id: ClientId) {
        self.with_tcp(id, Endpoint::finish);
    }

    /// Resets the client's connection.
    pub fn reset(&mut self, id: ClientId) {
        self.with_tcp(id, Endpoint::reset);
    }

    /// Sends an IP packet, whatever it is, from where its source address lies.
    pub fn packet(&mut self, source: std::net::IpAddr, packet: &[u8]) {
        self.towards_weir(source, packet);
        self.settle();
    }

    fn with_tcp(&mut self, id: ClientId, act: impl FnOnce(&mut Endpoint)) {
        if let Some(tcp) = self.clients.get_mut(id.0).and_then(|client| client.tcp.as_mut()) {
            act(tcp);
            self.active.insert(End::Client(id.0));
            self.settle();
        }
    }

    /// A packet of weir's for a client.
    pub(crate) fn deliver_to_client(&mut self, packet: &Packet) -> bool {
        let protocol = match packet.transport {
            Transport::Tcp(_) => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
            Transport::Other => return false,
        };
        let key = (protocol, packet.destination, packet.source);
        let Some((index, client)) =
            self.client_at.get(&key).and_then(|index| Some((*index, self.clients.get_mut(*index)?)))
        else {
            return false;
        };
        if client.keeps_packets {
            client.packets.push((self.now, packet.clone()));
            self.heard.insert(index);
        }
        match (&packet.transport, &mut client.tcp) {
            (Transport::Tcp(header), Some(tcp)) => {
                tcp.handle(header, &packet.payload);
                self.active.insert(End::Client(index));
            }
            (Transport::Udp, _) => client.datagrams.push(packet.payload.clone()),
            _ => {}
        }
        true
    }
}
