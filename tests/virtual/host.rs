//! End hosts: smoltcp's TCP, or nothing but an inbox for tests that speak by hand.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpListenEndpoint};

use crate::device::Device1500;
use crate::wire::Packet;

/// One connection of a host: what it is to say and what it has heard.
pub struct Conversation {
    handle: SocketHandle,
    pub outgoing: Vec<u8>,
    pub sent: usize,
    pub received: Vec<u8>,
    /// Send FIN once everything is written.
    pub finish: bool,
    closed: bool,
    pub opened: bool,
}

struct Stack {
    device: Device1500,
    interface: Interface,
    sockets: SocketSet<'static>,
}

/// A host on one of weir's ports.
pub struct Host {
    pub port: u8,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// Answers ARP and ND.
    pub answers: bool,
    stack: Option<Stack>,
    pub conversations: Vec<Conversation>,
    /// What came in and no stack took.
    pub inbox: VecDeque<Packet>,
    /// IP packets to be sent.
    pub outbox: Vec<Vec<u8>>,
}

const BUFFER: usize = 65535;

impl Host {
    /// A host without TCP: everything goes to its inbox.
    pub fn silent(port: u8, address: IpAddr, number: u8) -> Host {
        Host {
            port,
            address,
            mac: [2, 0, 0, 0, 1, number],
            answers: true,
            stack: None,
            conversations: Vec::new(),
            inbox: VecDeque::new(),
            outbox: Vec::new(),
        }
    }

    /// A host with smoltcp's TCP.
    pub fn with_tcp(port: u8, address: IpAddr, number: u8, now: Instant) -> Host {
        Host::with_mtu(port, address, number, now, None)
    }

    /// As `with_tcp`, with an MTU and therefore an MSS of its own.
    pub fn with_mtu(port: u8, address: IpAddr, number: u8, now: Instant, mtu: Option<usize>) -> Host {
        let mut device = Device1500 { mtu, ..Device1500::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(number) * 7919;
        let mut interface = Interface::new(config, &mut device, now);
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        interface.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::from(address), prefix)).unwrap());
        interface.routes_mut().add_default_ipv4_route([10, 0, 0, 1].into()).unwrap();
        interface.routes_mut().add_default_ipv6_route([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1].into()).unwrap();
        let stack = Stack { device, interface, sockets: SocketSet::new(Vec::new()) };
        Host { stack: Some(stack), ..Host::silent(port, address, number) }
    }

    fn socket(&mut self) -> (usize, SocketHandle) {
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let handle = self.stack.as_mut().unwrap().sockets.add(socket);
        self.conversations.push(Conversation {
            handle,
            outgoing: Vec::new(),
            sent: 0,
            received: Vec::new(),
            finish: false,
            closed: false,
            opened: false,
        });
        (self.conversations.len() - 1, handle)
    }

    /// One more conversation with the next client of this port.
    pub fn listen(&mut self, port: u16) -> usize {
        let (index, handle) = self.socket();
        let endpoint = IpListenEndpoint { addr: Some(self.address.into()), port };
        self.stack.as_mut().unwrap().sockets.get_mut::<Socket<'_>>(handle).listen(endpoint).unwrap();
        index
    }

    pub fn connect(&mut self, to: SocketAddr, from: u16) -> usize {
        let (index, handle) = self.socket();
        let stack = self.stack.as_mut().unwrap();
        let socket = stack.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(stack.interface.context(), to, from).unwrap();
        index
    }

    pub fn state(&mut self, conversation: usize) -> State {
        let handle = self.conversations[conversation].handle;
        self.stack.as_mut().unwrap().sockets.get_mut::<Socket<'_>>(handle).state()
    }

    /// Uses timestamps (RFC 7323) from now on.
    pub fn use_timestamps(&mut self, conversation: usize, clock: fn() -> u32) {
        let handle = self.conversations[conversation].handle;
        let sockets = &mut self.stack.as_mut().unwrap().sockets;
        sockets.get_mut::<Socket<'_>>(handle).set_tsval_generator(Some(clock));
    }

    /// RST now.
    pub fn abort(&mut self, conversation: usize) {
        let handle = self.conversations[conversation].handle;
        self.stack.as_mut().unwrap().sockets.get_mut::<Socket<'_>>(handle).abort();
    }

    /// Takes in an IP packet.
    pub fn take_in(&mut self, bytes: &[u8], packet: Packet) {
        match &mut self.stack {
            Some(stack) if matches!(packet.transport, crate::wire::Transport::Tcp(_)) => {
                stack.device.rx.push_back(bytes.to_vec());
            }
            _ => self.inbox.push_back(packet),
        }
    }

    /// Lets the stack work; gives the IP packets to send.
    pub fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut packets = std::mem::take(&mut self.outbox);
        let Some(Stack { device, interface, sockets }) = &mut self.stack else { return packets };
        interface.poll(now, device, sockets);
        for conversation in &mut self.conversations {
            conversation.work(sockets.get_mut(conversation.handle));
        }
        interface.poll(now, device, sockets);
        packets.append(&mut device.tx);
        packets
    }
}

impl Conversation {
    fn work(&mut self, socket: &mut Socket<'static>) {
        while socket.can_recv() {
            let received = &mut self.received;
            socket.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
        }
        let state = socket.state();
        self.opened |= !matches!(state, State::Listen | State::SynSent | State::SynReceived | State::Closed);
        if socket.can_send() && self.sent < self.outgoing.len() {
            self.sent += socket.send_slice(&self.outgoing[self.sent..]).unwrap();
        }
        if self.opened && self.finish && self.sent == self.outgoing.len() && !self.closed {
            socket.close();
            self.closed = true;
        }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }
}
