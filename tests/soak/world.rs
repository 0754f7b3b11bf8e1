//! weir between hosts whose wires lose, delay, reorder, repeat and spoil what they carry.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::channel::{ConnectionRecord, ControlEnd};
use dataplane::io::PortId;
use dataplane::memory::MemoryIo;
use dataplane::worker::Worker;
use etherparse::{Icmpv6Type, PacketBuilder};
use scripting::LuaPolicy;
use smoltcp::time::{Duration, Instant};

use crate::host::Host;
use crate::impair::Leg;
use crate::invariants;
use crate::matrix::{Lost, Row};
use crate::weir::{self, INSIDE, OUTSIDE, weir_mac};

/// weir's timers are looked at so often.
const TICK: Duration = Duration::from_millis(20);

thread_local! {
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

fn client_clock() -> u32 {
    CLOCK.get().wrapping_add(0xFFF0_0000)
}

/// A server whose clock is slower and elsewhere.
fn server_clock() -> u32 {
    (CLOCK.get() / 10).wrapping_add(77)
}

/// Where a packet on its way arrives.
#[derive(Clone, Copy, Debug)]
enum To {
    /// weir, from this host.
    Weir(usize),
    Host(usize),
}

/// A neighbour solicitation (RFC 4861, 4.3).
fn is_solicitation(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135
}

fn is_tcp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 6 || frame[12..14] == [0x86, 0xdd] && frame[20] == 6
}

pub struct World {
    pub worker: Worker<MemoryIo, LuaPolicy>,
    control: ControlEnd,
    pub now: Instant,
    pub records: Vec<ConnectionRecord>,
    /// The client, then the servers.
    pub hosts: Vec<Host>,
    /// To weir and from weir, of each port.
    legs: [[Leg; 2]; 2],
    /// What is on its way, by the time of its arrival and the order in which it was sent.
    under_way: BTreeMap<(Instant, u64), (To, Vec<u8>)>,
    sent: u64,
    /// What is lost once in each connection, and addresses and ports of those in which it was.
    lost: Option<Lost>,
    missed: BTreeSet<Vec<u8>>,
}

impl World {
    pub fn new(row: &Row, seed: u64) -> World {
        let now = Instant::from_secs(1000);
        CLOCK.set(now.total_millis() as u32);
        let (worker, control) = weir::build_all(&row.toml(), 1, now).remove(0);
        let host = |port, number| Host::new(port, number, row, seed.wrapping_add(u64::from(number)), now);
        let mut hosts = vec![host(OUTSIDE, 100), host(INSIDE, 21), host(INSIDE, 22)];
        if row.timestamps.0 {
            hosts[0].use_timestamps(client_clock);
        }
        if row.timestamps.1 {
            hosts[1..].iter_mut().for_each(|server| server.use_timestamps(server_clock));
        }
        let leg = |number| Leg::new(row.impairment, seed.wrapping_mul(4).wrapping_add(number), now);
        let legs = [[leg(0), leg(1)], [leg(2), leg(3)]];
        let (records, under_way, missed) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        World { worker, control, now, records, hosts, legs, under_way, sent: 0, lost: row.lost, missed }
    }

    /// Goes on to the next moment at which something happens.
    pub fn step(&mut self) {
        let mut next = self.now + TICK;
        for host in &mut self.hosts {
            next = host.next(self.now).map_or(next, |at| next.min(at));
        }
        if let Some(((at, _), _)) = self.under_way.first_key_value() {
            next = next.min(*at);
        }
        // One millisecond at least: otherwise two ends that answer each other at once would stop the time.
        self.now = next.max(self.now + Duration::from_millis(1));
        CLOCK.set(self.now.total_millis() as u32);
        self.arrivals();
        self.act();
    }

    /// Lets everybody act at this moment.
    pub fn act(&mut self) {
        for index in 0..self.hosts.len() {
            let packets = self.hosts[index].poll(self.now);
            let port = self.hosts[index].port;
            for packet in packets {
                self.send(port, 0, To::Weir(index), &packet);
            }
        }
        let rest = (0..10_000).find(|_| self.worker.run_once(self.now).is_idle() & !self.take_sent());
        assert!(rest.is_some(), "weir does not come to rest");
        let counters = self.worker.pipeline().counters();
        assert!(counters.balanced(), "{counters:?}");
        assert_eq!(counters.records_lost, 0);
        self.records.extend(std::iter::from_fn(|| self.control.records.receive()));
    }

    fn arrivals(&mut self) {
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                (To::Host(index), packet) => self.hosts[index].take_in(packet),
                (To::Weir(index), packet) => {
                    let host = &self.hosts[index];
                    let kind = if host.address.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
                    let frame = [&weir_mac(host.port)[..], &host.mac, &kind, &packet].concat();
                    assert!(self.worker.io_mut().inject(PortId(host.port), &frame));
                }
            }
        }
    }

    fn send(&mut self, port: u8, direction: usize, to: To, packet: &[u8]) {
        for (at, copy) in self.legs[usize::from(port)][direction].carry(self.now, packet) {
            self.sent += 1;
            self.under_way.insert((at, self.sent), (to, copy));
        }
    }

    /// What weir has sent goes on its way. Its questions for MAC addresses are answered at once.
    fn take_sent(&mut self) -> bool {
        let mut any = false;
        for port in [OUTSIDE, INSIDE] {
            for frame in self.worker.io_mut().take_sent(PortId(port)) {
                any = true;
                if frame[12..14] == [8, 6] {
                    self.arp(port, &frame);
                } else if is_solicitation(&frame) {
                    self.solicitation(port, &frame);
                } else if is_tcp(&frame) && !self.loses(port, &frame[14..]) {
                    let to = self.hosts.iter().position(|host| host.mac == frame[..6]).expect("a known MAC");
                    self.send(port, 1, To::Host(to), &frame[14..]);
                }
            }
        }
        any
    }

    /// True for the packet that is lost in its connection.
    fn loses(&mut self, port: u8, packet: &[u8]) -> bool {
        let (ip, tcp) = packet.split_at(if packet[0] >> 4 == 4 { 20 } else { 40 });
        let (syn, empty) = (tcp[13] & 2 != 0, tcp.len() == usize::from(tcp[12] >> 4) * 4);
        let meant = match self.lost {
            None => false,
            Some(Lost::Syn) => port == INSIDE && syn,
            Some(Lost::Replay) => port == INSIDE && !empty,
            Some(Lost::Response) => port == OUTSIDE && !empty,
        };
        let addresses = &ip[if ip.len() == 20 { 12 } else { 8 }..];
        meant && self.missed.insert([addresses, &tcp[..4]].concat())
    }

    fn arp(&mut self, port: u8, frame: &[u8]) {
        let octets: [u8; 4] = frame[38..42].try_into().unwrap();
        let wanted = IpAddr::from(octets);
        let Some(host) = self.hosts.iter().find(|host| host.address == wanted) else { return };
        let answer =
            [&frame[6..12], &host.mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &host.mac, &octets, &frame[22..32]]
                .concat();
        assert!(self.worker.io_mut().inject(PortId(port), &answer));
    }

    /// A neighbour advertisement for a solicitation.
    fn solicitation(&mut self, port: u8, frame: &[u8]) {
        let octet = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap();
        let (asker, wanted) = (octet(22), octet(62));
        let Some(host) = self.hosts.iter().find(|host| host.address == IpAddr::from(wanted)) else { return };
        let body = [&[0x60, 0, 0, 0], &wanted[..], &[2, 1], &host.mac].concat();
        let kind =
            Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [body[0], body[1], body[2], body[3]] };
        let ethernet = PacketBuilder::ethernet2(host.mac, weir_mac(port));
        let mut answer = Vec::new();
        ethernet.ipv6(wanted, asker, 255).icmpv6(kind).write(&mut answer, &body[4..]).unwrap();
        assert!(self.worker.io_mut().inject(PortId(port), &answer));
    }

    /// All that is kept twice agrees.
    pub fn check(&self) {
        invariants::assert_consistent(self.worker.pipeline());
    }

    /// Nothing is under way and no end has anything left to do.
    pub fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.hosts.iter().all(Host::is_quiet)
    }

    /// Lets weir's timers run out and looks for whatever is left behind.
    pub fn finish(&mut self) {
        let end = self.now + Duration::from_secs(400);
        while self.now < end && self.worker.pipeline().timers() > 0 {
            self.now += Duration::from_millis(500);
            self.act();
        }
        self.now += Duration::from_secs(1);
        self.act();
        invariants::assert_empty(&mut [&mut self.worker], &self.records);
    }
}
