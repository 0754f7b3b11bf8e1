//! Packets for weir itself: ARP, ND, ping, and what belongs to the control thread.

use smoltcp::time::Instant;

use super::{Pipeline, Verdict};
use crate::address::{Address, FlowKey};
use crate::channel;
use crate::counters::DropReason;
use crate::header::PROTOCOL_TCP;
use crate::icmp::{self, Message};
use crate::io::{PacketBuf, PortId};
use crate::mesh::News;
use crate::parse::{Headers, Packet};
use crate::policy::Policy;
use crate::{arp, nd};

/// Most packets that wait for the control thread.
const PUNTED: usize = 256;

impl<P: Policy> Pipeline<P> {
    /// Everything but TCP and UDP.
    pub(super) fn local<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        buf: &mut B,
        packet: Packet,
    ) -> Verdict {
        match packet {
            Packet::Arp { offset } => self.arp(now, port, buf, offset),
            Packet::Icmp(headers) => self.icmp(now, port, buf, headers),
            Packet::Transport(_) => Verdict::Drop(DropReason::Malformed),
        }
    }

    fn arp<B: PacketBuf>(&mut self, now: Instant, port: PortId, buf: &mut B, offset: u16) -> Verdict {
        let received = arp::receive(buf.bytes(), offset, port, |port, address| self.is_own(port, address));
        let received = match received {
            Ok(received) => received,
            Err(reason) => return Verdict::Drop(reason),
        };
        self.learn(now, &received);
        let Some(settings) = self.ports.get(port.index()).filter(|_| received.reply) else {
            return Verdict::Consumed;
        };
        reply(port, arp::reply(buf.bytes_mut(), offset, settings.mac))
    }

    fn icmp<B: PacketBuf>(&mut self, now: Instant, port: PortId, buf: &mut B, headers: Headers) -> Verdict {
        let Some(mac) = self.ports.get(port.index()).map(|settings| settings.mac) else {
            return Verdict::Drop(DropReason::NotForUs);
        };
        match icmp::classify(buf.bytes(), &headers) {
            Message::NeighborSolicitation | Message::NeighborAdvertisement => {
                self.neighbor_discovery(now, port, buf, &headers, mac)
            }
            Message::Error { cause, original: Some(key) } if self.is_about_client(&headers.key, &key) => {
                self.flow_error(buf, &headers, cause, &key)
            }
            _ if !self.is_ours(headers.key.destination) => Verdict::Drop(DropReason::NoAddress),
            Message::EchoRequest => reply(port, icmp::echo_reply(buf.bytes_mut(), &headers, mac)),
            Message::EchoReply => self.punt(buf.bytes(), &headers),
            Message::Error { cause, original } => {
                let ports = channel::monitor_ports(&self.snapshot);
                let of_monitor =
                    |key: &FlowKey| ports.contains(&key.source_port) && self.is_interface_address(key.source);
                // Without ports it may be about the echo request of a monitor.
                let Some(key) = original.filter(|key| !of_monitor(key)) else {
                    return self.punt(buf.bytes(), &headers);
                };
                self.flow_error(buf, &headers, cause, &key)
            }
            Message::Other => Verdict::Drop(DropReason::Protocol),
        }
    }

    fn neighbor_discovery<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        buf: &mut B,
        headers: &Headers,
        mac: [u8; 6],
    ) -> Verdict {
        let received = nd::receive(buf.bytes(), headers, port, |port, address| self.is_own(port, address));
        let received = match received {
            Ok(received) => received,
            Err(reason) => return Verdict::Drop(reason),
        };
        self.learn(now, &received);
        if !received.reply {
            return Verdict::Consumed;
        }
        reply(port, nd::reply(buf, headers, mac))
    }

    fn learn(&mut self, now: Instant, received: &arp::Received) {
        let Some(seen) = &received.seen else { return };
        self.resolved.extend(self.neighbors.learn(now, seen));
        if !self.seat().is_alone() && !self.tell(None, News::Neighbor(*seen)) {
            self.counters.news_lost += 1;
        }
    }

    /// TCP or UDP that no service wants.
    pub(super) fn without_service<B: PacketBuf>(&mut self, buf: &B, headers: &Headers) -> Verdict {
        let key = &headers.key;
        if !self.is_ours(key.destination) {
            return self.for_a_stranger(buf, headers);
        }
        if channel::monitor_ports(&self.snapshot).contains(&key.destination_port)
            && self.is_interface_address(key.destination)
        {
            return self.punt(buf.bytes(), headers);
        }
        if key.protocol == PROTOCOL_TCP {
            self.answer_with_reset(buf, headers);
        }
        Verdict::Drop(DropReason::NoService)
    }

    /// Hands the IP packet to the control thread.
    fn punt(&mut self, frame: &[u8], headers: &Headers) -> Verdict {
        let packet = frame.get(usize::from(headers.l3)..usize::from(headers.end));
        match packet {
            Some(packet) if self.punted.len() < PUNTED => {
                self.punted.push_back(packet.to_vec());
                Verdict::Consumed
            }
            _ => Verdict::Drop(DropReason::Punt),
        }
    }

    /// True if weir answers ARP and ND for `address` on `port`.
    fn is_own(&self, port: PortId, address: Address) -> bool {
        self.own.contains(&(port, address))
    }

    /// True if packets to `address` are for weir, wherever they come in.
    pub(super) fn is_ours(&self, address: Address) -> bool {
        self.vips.contains(&address) || self.own.iter().any(|(_, own)| *own == address)
    }

    fn is_interface_address(&self, address: Address) -> bool {
        let ip = address.ip();
        self.snapshot.interfaces.iter().any(|i| i.addresses.iter().any(|p| p.address == ip))
    }
}

fn reply(port: PortId, built: Result<(), DropReason>) -> Verdict {
    match built {
        Ok(()) => Verdict::Reply(port),
        Err(reason) => Verdict::Drop(reason),
    }
}
