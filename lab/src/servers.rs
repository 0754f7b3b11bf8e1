//! The servers of the configuration, as they would be if all was well, or as a test wants them.

use std::net::SocketAddr;

use dataplane::address::FlowKey;
use dataplane::snapshot::{Protocol, ServerId};
use smoltcp::time::Instant;

use crate::endpoint::{Endpoint, Settings};
use crate::packet::{self, Packet, Transport};
use crate::world::{End, Lab};

/// What a host does with those who come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// It takes them.
    #[default]
    Accept,
    /// It answers SYN with RST; datagrams get no answer.
    Refuse,
    /// It answers nothing.
    Silent,
}

/// What a host says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// Nothing; the caller may use [`Lab::server_send`].
    #[default]
    Nothing,
    /// This, once, after the first payload of a connection, and for each datagram.
    Bytes(Vec<u8>),
    /// What it gets.
    Echo,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What it does with those who come.
    pub behaviour: Behaviour,
    /// What it says before it has heard anything (TCP).
    pub greeting: Vec<u8>,
    /// What it answers.
    pub reply: Reply,
    /// It ends its stream when the client has ended its own.
    pub follows: bool,
}

impl Default for Host {
    fn default() -> Self {
        Host { behaviour: Behaviour::Accept, greeting: Vec::new(), reply: Reply::Nothing, follows: true }
    }
}

/// A session of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub usize);

/// A connection, or a UDP peer, as a server sees it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Which member of which pool weir meant.
    pub server: Option<ServerId>,
    /// Where it came to.
    pub address: SocketAddr,
    /// Where it came from: weir's SNAT address and port.
    pub snat: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whose flow it is.
    pub client: Option<SocketAddr>,
    /// The VIP that the client used.
    pub vip: Option<SocketAddr>,
    /// When it began.
    pub began: Instant,
    pub(crate) tcp: Option<Endpoint>,
    pub(crate) datagrams: Vec<Vec<u8>>,
    answered: usize,
    greeted: bool,
}

impl Session {
    /// What came: the stream, or all datagrams one after the other. A PROXY header is part of it.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        match &self.tcp {
            Some(tcp) => tcp.received().to_vec(),
            None => self.datagrams.concat(),
        }
    }

    /// The datagrams that came (UDP).
    #[must_use]
    pub fn datagrams(&self) -> &[Vec<u8>] {
        &self.datagrams
    }

    /// Its TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<&Endpoint> {
        self.tcp.as_ref()
    }
}

impl Lab {
    /// What the host of a server does from now on.
    pub fn set_host(&mut self, server: ServerId, host: Host) {
        if let Some(server) = self.snapshot().servers.get(server.index()) {
            let key = (server.address, server.port);
            self.hosts.insert(key, host);
        }
    }

    /// What the host of a server does.
    #[must_use]
    pub fn host(&self, server: ServerId) -> Host {
        let server = self.snapshot().servers.get(server.index());
        server.and_then(|server| self.hosts.get(&(server.address, server.port))).cloned().unwrap_or_default()
    }

    /// Everything that came to servers, in order.
    #[must_use]
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Lets a server say something: adds to its stream, or sends a datagram.
    pub fn server_send(&mut self, id: SessionId, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(id.0) else { return };
        match &mut session.tcp {
            Some(tcp) => {
                tcp.send(bytes);
                self.active.insert(End::Session(id.0));
            }
            None => {
                let packet = packet::udp(session.address, session.snat, bytes);
                let from = session.address.ip();
                if let Some(packet) = packet {
                    self.towards_weir(from, &packet);
                }
            }
        }
        self.settle();
    }

    /// Ends a server's stream.
    pub fn server_finish(&mut self, id: SessionId) {
        self.with_session(id, Endpoint::finish);
    }

    /// Lets a server reset a connection.
    pub fn server_reset(&mut self, id: SessionId) {
        self.with_session(id, Endpoint::reset);
    }

    fn with_session(&mut self, id: SessionId, act: impl FnOnce(&mut Endpoint)) {
        if let Some(tcp) = self.sessions.get_mut(id.0).and_then(|session| session.tcp.as_mut()) {
            act(tcp);
            self.active.insert(End::Session(id.0));
            self.settle();
        }
    }

    /// The host at an address: of the server that listens there, or of one whose pool keeps the client's port.
    fn host_at(&self, address: SocketAddr) -> Option<Host> {
        let snapshot = self.snapshot();
        let keeps_port = |pool: dataplane::snapshot::PoolId| {
            snapshot.pools.get(pool.index()).is_some_and(|pool| !pool.port_translation)
        };
        let fits = |server: &&dataplane::snapshot::Server| {
            server.address == address.ip() && (server.port == address.port() || keeps_port(server.pool))
        };
        let server = snapshot.servers.iter().find(fits)?;
        Some(self.hosts.get(&(server.address, server.port)).cloned().unwrap_or_default())
    }

    /// A packet of weir's for a server.
    pub(crate) fn deliver_to_server(&mut self, packet: &Packet) {
        let Some(host) = self.host_at(packet.destination) else { return };
        match &packet.transport {
            Transport::Tcp(header) => {
                if header.syn && !header.ack && host.behaviour != Behaviour::Accept {
                    return self.refuse(&host, packet, header);
                }
                let opens = header.syn && !header.ack;
                let Some(index) = self.session(packet, Protocol::Tcp, opens) else { return };
                if let Some(tcp) = self.sessions.get_mut(index).and_then(|session| session.tcp.as_mut()) {
                    tcp.handle(header, &packet.payload);
                    self.answer(index, &host);
                    self.active.insert(End::Session(index));
                }
            }
            Transport::Udp if host.behaviour == Behaviour::Accept => {
                let Some(index) = self.session(packet, Protocol::Udp, true) else { return };
                if let Some(session) = self.sessions.get_mut(index) {
                    session.datagrams.push(packet.payload.clone());
                }
                let reply = match host.reply {
                    Reply::Nothing => return,
                    Reply::Bytes(bytes) => bytes,
                    Reply::Echo => packet.payload.clone(),
                };
                if let Some(answer) = packet::udp(packet.destination, packet.source, &reply) {
                    self.towards_weir(packet.destination.ip(), &answer);
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, host: &Host, packet: &Packet, syn: &etherparse::TcpHeader) {
        if host.behaviour == Behaviour::Refuse {
            let mut header = etherparse::TcpHeader::new(0, 0, 0, 0);
            header.rst = true;
            header.ack = true;
            header.acknowledgment_number = syn.sequence_number.wrapping_add(1);
            if let Some(answer) = packet::tcp(packet.destination, packet.source, header, &[]) {
                self.towards_weir(packet.destination.ip(), &answer);
            }
        }
    }

    /// The session that a packet belongs to; a new one if it `opens` one.
    fn session(&mut self, packet: &Packet, protocol: Protocol, opens: bool) -> Option<usize> {
        let key = (protocol, packet.destination, packet.source);
        let known = self.session_at.get(&key).copied();
        let ended = |session: &Session| session.tcp.as_ref().is_some_and(ended);
        if let Some(index) = known.filter(|index| !opens || !self.sessions.get(*index).is_some_and(ended)) {
            return Some(index);
        }
        if !opens {
            return None;
        }
        let isn = self.next_isn();
        let settings = self.server_settings(packet.destination);
        let tcp = (protocol == Protocol::Tcp)
            .then(|| Endpoint::new(packet.destination, packet.source, isn, settings));
        let flow = FlowKey::new(protocol, packet.destination, packet.source);
        let flows = self.worker.pipeline().flows();
        let flow = flows.lookup(&flow).and_then(|(id, _)| flows.flow(id));
        self.sessions.push(Session {
            server: flow.and_then(|flow| flow.server_id()),
            address: packet.destination,
            snat: packet.source,
            protocol,
            client: flow.map(|flow| flow.client_key().source_socket()),
            vip: flow.map(|flow| flow.client_key().destination_socket()),
            began: self.now,
            tcp,
            datagrams: Vec::new(),
            answered: 0,
            greeted: false,
        });
        let index = self.sessions.len() - 1;
        self.session_at.insert(key, index);
        Some(index)
    }

    /// A server takes no more than the MTU of its port.
    fn server_settings(&self, address: SocketAddr) -> Settings {
        let headers = if address.is_ipv4() { 40 } else { 60 };
        let mtu = self.mtu(self.port_towards(address.ip()));
        let mss = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX).max(1);
        Settings { mss, ..Settings::default() }
    }

    /// A host says what it has to say to what has come.
    fn answer(&mut self, index: usize, host: &Host) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let Some(tcp) = session.tcp.as_mut().filter(|tcp| tcp.phase() == crate::TcpPhase::Open) else {
            return;
        };
        if !session.greeted {
            session.greeted = true;
            tcp.send(&host.greeting);
        }
        let heard = tcp.received().len();
        if heard > session.answered {
            let first = session.answered == 0;
            match &host.reply {
                Reply::Bytes(bytes) if first => tcp.send(bytes),
                Reply::Echo => {
                    let new = tcp.received().get(session.answered..).unwrap_or_default().to_vec();
                    tcp.send(&new);
                }
                _ => {}
            }
            session.answered = heard;
        }
        if host.follows && tcp.peer_finished() {
            tcp.finish();
        }
    }
}

/// True if nothing more comes of it.
fn ended(tcp: &Endpoint) -> bool {
    use crate::TcpPhase::{Aborted, Reset, TimedOut};
    tcp.is_finished() || matches!(tcp.phase(), Aborted | Reset | TimedOut)
}
