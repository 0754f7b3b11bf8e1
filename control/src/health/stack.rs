//! One smoltcp stack per own address, on IP packets in memory.
//!
//! A stack of its own per address decides the source address of everything that leaves it, and is not bound by the
//! small number of addresses that one smoltcp interface holds.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::source::Source;

/// Sockets on one own address.
pub(super) struct Stack {
    pub(super) source: Source,
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    queues: Queues,
}

impl Stack {
    pub(super) fn new(source: Source, seed: u64, now: Instant) -> Self {
        let mut queues = Queues { incoming: VecDeque::new(), outgoing: Vec::new(), mtu: source.mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, now);
        let own = IpAddress::from(source.address);
        let host = IpCidr::new(own, if source.address.is_ipv4() { 32 } else { 128 });
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(host);
        });
        // The next hop is the worker's business; smoltcp only has to know that there is a way.
        let _ = match own {
            IpAddress::Ipv4(own) => interface.routes_mut().add_default_ipv4_route(own),
            IpAddress::Ipv6(own) => interface.routes_mut().add_default_ipv6_route(own),
        };
        Stack { source, interface, sockets: SocketSet::new(Vec::new()), queues }
    }

    /// Takes an IP packet in; [`Stack::poll`] processes it.
    pub(super) fn handle_packet(&mut self, packet: Vec<u8>) {
        self.queues.incoming.push_back(packet);
    }

    /// Processes what came in, lets the sockets send, and moves what they sent to `transmit`.
    pub(super) fn poll(&mut self, now: Instant, transmit: &mut Vec<Vec<u8>>) {
        self.interface.poll(now, &mut self.queues, &mut self.sockets);
        transmit.append(&mut self.queues.outgoing);
    }

    /// When a socket wants to send again if nothing comes in.
    pub(super) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }
}

struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
    mtu: u16,
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, process: F) -> R {
        process(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut packet = vec![0; len];
        let result = fill(&mut packet);
        self.0.push(packet);
        result
    }
}
