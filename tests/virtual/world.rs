//! weir between hosts, without a device and without a clock.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use dataplane::channel::{ConnectionRecord, ControlEnd};
use dataplane::counters::DropReason;
use dataplane::io::PortId;
use dataplane::memory::MemoryIo;
use dataplane::snapshot::ServerId;
use dataplane::worker::Worker;
use etherparse::{ArpOperation, ArpPacket, NetHeaders, PacketBuilder, PacketHeaders};
use scripting::LuaPolicy;
use smoltcp::time::{Duration, Instant};

use crate::host::{Conversation, Host};
use crate::pieces::{self, Joiner};
use crate::weir::Seated;
use crate::wire::{self, Packet};
use crate::{invariants, weir};

pub use crate::weir::{INSIDE, OUTSIDE, TWO_ARMS, weir_mac};

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostId(usize);

/// A conversation of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk(HostId, usize);

pub struct World {
    pub worker: Worker<MemoryIo, LuaPolicy>,
    pub control: ControlEnd,
    /// All workers but that one.
    pub others: Vec<Seated>,
    /// To the queue of which worker a frame comes.
    pub queue: fn(&[u8]) -> usize,
    pub now: Instant,
    pub records: Vec<ConnectionRecord>,
    /// Every IP packet that left weir.
    pub left: Vec<Packet>,
    hosts: Vec<Host>,
    tags: Vec<Option<u16>>,
    mtus: Vec<u16>,
    /// Frames that weir forwards may be broken: only the hosts judge them.
    pub lenient: bool,
    /// Compare all counts with the flows after each round.
    pub scrutinize: bool,
    /// Of so many frames on each wire one is lost.
    pub loss: Option<u64>,
    lottery: u64,
    /// Keep what hosts send in `frames`.
    pub keep_frames: bool,
    pub frames: Vec<(u8, Vec<u8>)>,
    /// Where TCP frames of weir's go, instead of to the hosts. Nobody has judged them.
    pub tap: Option<Vec<Tapped>>,
    /// Hosts put fragments together.
    pub joiner: Joiner,
    /// Hosts send IPv4 packets in fragments of so many bytes of payload.
    pub cut: Option<usize>,
    identification: u16,
    /// In how many pieces each packet came that was not whole.
    pub pieces: Vec<usize>,
    /// Frames that reach weir later.
    late: VecDeque<(u8, Vec<u8>)>,
}

/// A TCP frame of weir's on its way to a host.
pub struct Tapped {
    pub at: Instant,
    pub port: u8,
    /// The whole one, if its packet left in fragments.
    pub frame: Vec<u8>,
    /// In how many of them.
    pub pieces: usize,
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    /// Two arms and this configuration.
    pub fn new(toml: &str) -> World {
        World::with_network(&format!("{TWO_ARMS}{toml}"))
    }

    pub fn with_network(toml: &str) -> World {
        World::with_workers(toml, 1, |_| 0)
    }

    /// This configuration on so many workers; `queue` says to which one of them a frame comes.
    pub fn with_workers(toml: &str, workers: u8, queue: fn(&[u8]) -> usize) -> World {
        let now = Instant::from_secs(1000);
        let mut others = weir::build_all(toml, workers, now);
        let (worker, control) = others.remove(0);
        let snapshot = worker.pipeline().snapshot();
        let tags = snapshot.interfaces.iter().map(|interface| interface.vlan).collect();
        let mtus = snapshot.interfaces.iter().map(|interface| interface.mtu).collect();
        let mut world = World {
            worker,
            control,
            others,
            queue,
            now,
            records: Vec::new(),
            left: Vec::new(),
            hosts: Vec::new(),
            tags,
            mtus,
            lenient: false,
            scrutinize: true,
            loss: None,
            lottery: 0x1057,
            keep_frames: false,
            frames: Vec::new(),
            tap: None,
            joiner: Joiner::default(),
            cut: None,
            identification: 0,
            pieces: Vec::new(),
            late: VecDeque::new(),
        };
        world.settle();
        world
    }

    /// A host with smoltcp's TCP.
    pub fn host(&mut self, port: u8, at: &str) -> HostId {
        let number = u8::try_from(self.hosts.len()).unwrap();
        self.hosts.push(Host::with_tcp(port, address(at), number, self.now));
        HostId(self.hosts.len() - 1)
    }

    /// As `host`, with this MTU.
    pub fn small_host(&mut self, port: u8, at: &str, mtu: usize) -> HostId {
        let number = u8::try_from(self.hosts.len()).unwrap();
        self.hosts.push(Host::with_mtu(port, address(at), number, self.now, Some(mtu)));
        HostId(self.hosts.len() - 1)
    }

    /// A host that answers ARP and ND and nothing else.
    pub fn silent(&mut self, port: u8, at: &str) -> HostId {
        let number = u8::try_from(self.hosts.len()).unwrap();
        self.hosts.push(Host::silent(port, address(at), number));
        HostId(self.hosts.len() - 1)
    }

    pub fn at(&mut self, host: HostId) -> &mut Host {
        &mut self.hosts[host.0]
    }

    pub fn connect(&mut self, from: HostId, port: u16, to: &str) -> Talk {
        Talk(from, self.at(from).connect(socket(to), port))
    }

    pub fn listen(&mut self, at: HostId, port: u16) -> Talk {
        Talk(at, self.at(at).listen(port))
    }

    pub fn talk(&mut self, talk: Talk) -> &mut Conversation {
        &mut self.at(talk.0).conversations[talk.1]
    }

    pub fn use_timestamps(&mut self, talk: Talk, clock: fn() -> u32) {
        self.at(talk.0).use_timestamps(talk.1, clock);
    }

    pub fn state(&mut self, talk: Talk) -> smoltcp::socket::tcp::State {
        self.at(talk.0).state(talk.1)
    }

    pub fn abort(&mut self, talk: Talk) {
        self.at(talk.0).abort(talk.1);
        self.settle();
    }

    /// Lets a host send a datagram, from its own address.
    pub fn datagram(&mut self, from: HostId, port: u16, to: impl Into<String>, payload: &[u8]) {
        let source = SocketAddr::new(self.at(from).address, port);
        let packet = wire::udp(source, socket(&to.into()), payload);
        self.at(from).outbox.push(packet);
    }

    /// What has come to a host and no stack of its took.
    pub fn inbox(&mut self, host: HostId) -> Vec<Packet> {
        self.at(host).inbox.drain(..).collect()
    }

    /// The payloads of [`World::inbox`].
    pub fn payloads(&mut self, host: HostId) -> Vec<Vec<u8>> {
        self.inbox(host).into_iter().map(|packet| packet.payload).collect()
    }

    /// Puts a frame on the wire towards weir as it is.
    pub fn inject(&mut self, port: u8, frame: &[u8]) {
        if self.keep_frames {
            self.frames.push((port, frame.to_vec()));
        }
        let worker = match (self.queue)(frame) {
            0 => &mut self.worker,
            number => &mut self.others[number - 1].0,
        };
        assert!(worker.io_mut().inject(PortId(port), frame));
    }

    /// An IP packet of a host in its frame.
    pub fn framed(&self, host: HostId, packet: &[u8]) -> Vec<u8> {
        let host = &self.hosts[host.0];
        let mut frame = [weir_mac(host.port), host.mac].concat();
        if let Some(tag) = self.tags[usize::from(host.port)] {
            frame.extend([0x81, 0, (tag >> 8) as u8, tag as u8]);
        }
        frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
        frame.extend_from_slice(packet);
        frame
    }

    /// One round of each worker, and its invariants.
    pub fn round(&mut self) -> bool {
        let mut busy = false;
        let others = self.others.iter_mut().map(|(worker, control)| (worker, &*control));
        for (worker, control) in std::iter::once((&mut self.worker, &self.control)).chain(others) {
            let round = worker.run_once(self.now);
            let counters = worker.pipeline().counters();
            assert!(counters.balanced(), "{counters:?}");
            assert_eq!(counters.records_lost, 0);
            self.records.extend(std::iter::from_fn(|| control.records.receive()));
            if self.scrutinize {
                invariants::assert_consistent(worker.pipeline());
            }
            busy |= !round.is_idle();
        }
        if self.scrutinize {
            self.assert_limits();
        }
        busy
    }

    /// No server has more flows than it may have, on all workers together, and all the rest is to be had.
    fn assert_limits(&self) {
        let balancers = || self.workers().map(|worker| worker.pipeline().balancer());
        for (server, number) in self.worker.pipeline().snapshot().servers.iter().zip(0..) {
            let Some(most) = server.max_connections.map(u64::from) else { continue };
            let open: u64 = balancers().map(|b| u64::from(b.status(ServerId(number)).flows)).sum();
            assert!(open <= most, "server {number} has {open} of {most}");
            for balancer in balancers() {
                assert_eq!(balancer.room(ServerId(number)), Some(most - open), "server {number}");
            }
        }
    }

    /// All workers, by number.
    pub fn workers(&self) -> impl Iterator<Item = &Worker<MemoryIo, LuaPolicy>> {
        std::iter::once(&self.worker).chain(self.others.iter().map(|(worker, _)| worker))
    }

    /// Lets everybody act until nothing moves at this moment.
    pub fn settle(&mut self) {
        for _ in 0..20_000 {
            let mut busy = false;
            for index in 0..self.hosts.len() {
                let packets = self.hosts[index].poll(self.now);
                let packets: Vec<_> = packets.into_iter().flat_map(|packet| self.as_sent(packet)).collect();
                for packet in packets {
                    busy = true;
                    if self.is_lost() {
                        continue;
                    }
                    let frame = self.framed(HostId(index), &packet);
                    self.inject(self.hosts[index].port, &frame);
                }
            }
            for (port, frame) in std::mem::take(&mut self.late) {
                self.inject(port, &frame);
                busy = true;
            }
            busy |= self.round();
            for port in 0..self.tags.len() {
                busy |= self.deliver(u8::try_from(port).unwrap());
            }
            if !busy {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// A packet of a host, or its fragments.
    fn as_sent(&mut self, packet: Vec<u8>) -> Vec<Vec<u8>> {
        match self.cut.filter(|size| packet[0] >> 4 == 4 && packet.len() > size + 20) {
            Some(size) => {
                self.identification = self.identification.wrapping_add(1);
                pieces::cut(&packet, size, self.identification)
            }
            None => vec![packet],
        }
    }

    /// What weir has sent by this port reaches the hosts, as far as it is not lost.
    pub fn deliver(&mut self, port: u8) -> bool {
        let mut sent = self.worker.io_mut().take_sent(PortId(port));
        for (worker, _) in &mut self.others {
            sent.extend(worker.io_mut().take_sent(PortId(port)));
        }
        for frame in &sent {
            if !self.is_lost() {
                self.arrive(port, frame);
            }
        }
        !sent.is_empty()
    }

    fn is_lost(&mut self) -> bool {
        self.lottery = self.lottery.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.loss.is_some_and(|one_of| (self.lottery >> 33).is_multiple_of(one_of))
    }

    /// Lets time pass: in small steps while something happens, then in larger ones.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        let mut step = Duration::from_millis(5);
        while self.now < end {
            let before = (self.left.len(), self.records.len());
            self.now = (self.now + step).min(end);
            self.settle();
            let quiet = before == (self.left.len(), self.records.len());
            step = if quiet { (step * 2).min(Duration::from_millis(640)) } else { Duration::from_millis(5) };
        }
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    /// A frame of weir's reaches the hosts on that wire.
    fn arrive(&mut self, port: u8, frame: &[u8]) {
        assert_eq!(frame[6..12], weir_mac(port), "source MAC");
        let link = if self.tags[usize::from(port)].is_some() { 18 } else { 14 };
        assert!(frame.len() - link <= usize::from(self.mtus[usize::from(port)]), "MTU");
        let Some((frame, pieces)) = self.joiner.join(port, frame) else { return };
        self.pieces.extend(Some(pieces).filter(|pieces| *pieces > 1));
        let frame = frame.as_slice();
        let is_tcp =
            frame[12..14] == [8, 0] && frame[23] == 6 || frame[12..14] == [0x86, 0xdd] && frame[20] == 6;
        if let Some(tap) = self.tap.as_mut().filter(|_| is_tcp) {
            tap.push(Tapped { at: self.now, port, frame: frame.to_vec(), pieces });
            return;
        }
        if self.lenient && !wire::is_sound(frame) {
            return;
        }
        assert_eq!(wire::tag(frame), self.tags[usize::from(port)], "tag");
        let packet = wire::judge(frame);
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        if let Some(NetHeaders::Arp(arp)) = &headers.net {
            return self.arp(port, arp);
        }
        let Some(packet) = packet else { return };
        if packet.transport == wire::Transport::Icmp(135) {
            return self.solicitation(port, frame, link);
        }
        self.left.push(packet.clone());
        self.left.truncate(if self.lenient { 0 } else { usize::MAX });
        let to = |host: &&mut Host| host.port == port && host.mac[..] == frame[..6];
        if let Some(host) = self.hosts.iter_mut().find(to) {
            assert!(self.lenient || host.address == packet.destination.ip(), "the frame of another host");
            host.take_in(&frame[link..], packet);
        } else if !self.lenient {
            assert_eq!(packet.transport, wire::Transport::Icmp(136), "nobody has this MAC: {packet:?}");
        }
    }

    fn arp(&mut self, port: u8, arp: &ArpPacket) {
        if arp.operation != ArpOperation::REQUEST || arp.sender_protocol_addr() == arp.target_protocol_addr()
        {
            return;
        }
        let wanted: [u8; 4] = arp.target_protocol_addr().try_into().unwrap();
        let asks = |host: &&Host| host.port == port && host.answers && host.address == IpAddr::from(wanted);
        let Some(host) = self.hosts.iter().find(asks) else { return };
        let answer = ArpPacket::new(
            arp.hw_addr_type,
            arp.proto_addr_type,
            ArpOperation::REPLY,
            &host.mac,
            &wanted,
            arp.sender_hw_addr(),
            arp.sender_protocol_addr(),
        );
        let builder = PacketBuilder::ethernet2(host.mac, weir_mac(port));
        let mut frame = Vec::new();
        match self.tags[usize::from(port)] {
            Some(tag) => builder.single_vlan(tag.try_into().unwrap()).arp(answer.unwrap()).write(&mut frame),
            None => builder.arp(answer.unwrap()).write(&mut frame),
        }
        .unwrap();
        self.late.push_back((port, frame));
    }

    fn solicitation(&mut self, port: u8, frame: &[u8], link: usize) {
        let target: [u8; 16] = frame[link + 48..link + 64].try_into().unwrap();
        let asker: [u8; 16] = frame[link + 8..link + 24].try_into().unwrap();
        let asks = |host: &&Host| host.port == port && host.answers && host.address == IpAddr::from(target);
        let Some(index) = self.hosts.iter().position(|host| asks(&host)) else { return };
        let mut body = vec![0x60, 0, 0, 0];
        body.extend_from_slice(&target);
        body.extend([2, 1]);
        body.extend_from_slice(&self.hosts[index].mac);
        let kind = etherparse::Icmpv6Type::Unknown {
            type_u8: 136,
            code_u8: 0,
            bytes5to8: [body[0], body[1], body[2], body[3]],
        };
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv6(target, asker, 255).icmpv6(kind);
        builder.write(&mut packet, &body[4..]).unwrap();
        let frame = self.framed(HostId(index), &packet);
        self.late.push_back((port, frame));
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.worker.pipeline().counters().dropped_for(reason)
    }

    /// The two letters of all records so far.
    pub fn terminations(&self) -> Vec<String> {
        self.records.iter().map(|record| record.termination.to_string()).collect()
    }

    /// `ds_log` of a record as text.
    pub fn log(&self, record: usize) -> String {
        let log = self.records[record].ds_log.as_deref().unwrap_or_default();
        String::from_utf8_lossy(log).into_owned()
    }

    /// Waits until every flow has ended and looks for whatever was left behind.
    pub fn finish(mut self) {
        self.seconds(700);
        self.assert_empty();
        assert_eq!(self.joiner.waiting(), 0, "packets of which weir has sent a part");
        for worker in self.workers() {
            let counters = worker.pipeline().counters();
            assert_eq!(counters.originate_failed, 0, "{counters:?}");
        }
    }

    /// Nothing of any flow is left.
    pub fn assert_empty(&mut self) {
        let others = self.others.iter_mut().map(|(worker, _)| worker);
        let mut workers: Vec<_> = std::iter::once(&mut self.worker).chain(others).collect();
        invariants::assert_empty(&mut workers, &self.records);
    }
}
