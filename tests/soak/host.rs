//! End hosts: many of smoltcp's sockets behind one address, each with something to say.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use crate::device::Device1500;
use crate::matrix::Row;

/// After so long without a packet an end gives up.
const PATIENCE: Duration = Duration::from_secs(180);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// When an end begins to speak, or closes after its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    AtOnce,
    /// The other end has said something.
    AfterFirstByte,
    /// The other end has closed.
    AfterEnd,
}

/// What one end has to do.
#[derive(Clone, Debug)]
pub struct Part {
    pub bytes: Vec<u8>,
    pub speaks: When,
    pub closes: When,
}

/// One end of a connection.
pub struct End {
    handle: SocketHandle,
    pub part: Part,
    pub received: Vec<u8>,
    sent: usize,
    opened: bool,
    closed: bool,
    /// When everything from the other end was here, its FIN as well.
    pub complete: Option<Instant>,
    /// Who the other end is, as this one sees it.
    pub peer: Option<SocketAddr>,
}

pub struct Host {
    pub port: u8,
    pub address: IpAddr,
    pub mac: [u8; 6],
    device: Device1500,
    interface: Interface,
    sockets: SocketSet<'static>,
    pub ends: Vec<End>,
    buffer: usize,
    clock: Option<fn() -> u32>,
}

impl Host {
    pub fn new(port: u8, number: u8, row: &Row, seed: u64, now: Instant) -> Host {
        let (address, weir, buffer) = (row.address(port, number), row.address(port, 1), row.buffer);
        let mut device = Device1500::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, now);
        let length = if address.is_ipv4() { 24 } else { 64 };
        interface.update_ip_addrs(|list| list.push(IpCidr::new(address.into(), length)).unwrap());
        match weir {
            IpAddr::V4(weir) => interface.routes_mut().add_default_ipv4_route(weir).map(|_| ()).unwrap(),
            IpAddr::V6(weir) => interface.routes_mut().add_default_ipv6_route(weir).map(|_| ()).unwrap(),
        }
        let sockets = SocketSet::new(Vec::new());
        let mac = [2, 0, 0, 0, 1, number];
        Host { port, address, mac, device, interface, sockets, ends: Vec::new(), buffer, clock: None }
    }

    /// All ends that come from now on use timestamps.
    pub fn use_timestamps(&mut self, clock: fn() -> u32) {
        self.clock = Some(clock);
    }

    fn end(&mut self, part: Part) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_timeout(Some(PATIENCE));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_tsval_generator(self.clock);
        let handle = self.sockets.add(socket);
        let received = Vec::new();
        let (sent, opened, closed) = (0, false, false);
        self.ends.push(End { handle, part, received, sent, opened, closed, complete: None, peer: None });
        handle
    }

    pub fn connect(&mut self, from: u16, to: SocketAddr, part: Part) {
        let handle = self.end(part);
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.interface.context(), to, from).unwrap();
    }

    pub fn listen(&mut self, port: u16, part: Part) {
        let handle = self.end(part);
        let endpoint = IpListenEndpoint { addr: Some(self.address.into()), port };
        self.sockets.get_mut::<Socket<'_>>(handle).listen(endpoint).unwrap();
    }

    pub fn take_in(&mut self, packet: Vec<u8>) {
        self.device.rx.push_back(packet);
    }

    /// Lets stack and ends work; gives the IP packets to send.
    pub fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        for end in &mut self.ends {
            end.work(now, self.sockets.get_mut(end.handle));
        }
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        std::mem::take(&mut self.device.tx)
    }

    /// When a timer of the stack fires.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// No end has anything left to do; who still listens does not count.
    pub fn is_quiet(&self) -> bool {
        let over = |state| matches!(state, State::Closed | State::Listen | State::TimeWait);
        (0..self.ends.len()).all(|end| over(self.state(end)))
    }

    pub fn state(&self, end: usize) -> State {
        self.sockets.get::<Socket<'_>>(self.ends[end].handle).state()
    }
}

impl End {
    fn work(&mut self, now: Instant, socket: &mut Socket<'static>) {
        while socket.can_recv() {
            let received = &mut self.received;
            socket.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
        }
        if !self.opened {
            let peer = socket.remote_endpoint();
            self.peer = peer.map(|peer| SocketAddr::new(IpAddr::from(peer.addr), peer.port)).or(self.peer);
            let before = [State::Listen, State::SynSent, State::SynReceived, State::Closed];
            self.opened = !before.contains(&socket.state());
        }
        if self.opened && socket.recv(|_| (0, ())) == Err(RecvError::Finished) {
            self.complete.get_or_insert(now);
        }
        if self.is_time(self.part.speaks) && socket.can_send() && self.sent < self.part.bytes.len() {
            self.sent += socket.send_slice(&self.part.bytes[self.sent..]).unwrap();
        }
        let said = self.sent == self.part.bytes.len() && self.is_time(self.part.speaks);
        if said && self.is_time(self.part.closes) && !self.closed {
            socket.close();
            self.closed = true;
        }
    }

    fn is_time(&self, when: When) -> bool {
        self.opened
            && match when {
                When::AtOnce => true,
                When::AfterFirstByte => !self.received.is_empty() || self.complete.is_some(),
                When::AfterEnd => self.complete.is_some(),
            }
    }
}
