use std::sync::Arc;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use smoltcp::time::Duration;
use zerocopy::IntoBytes;

use super::*;
use crate::address::Address;
use crate::balance::ServerStatus;
use crate::balance::fixture::ip;
use crate::channel::{Capacities, RecordReceiver, channel};
use crate::counters::DropReason;
use crate::flow::INSPECT;
use crate::frame::tests::TestBuf;
use crate::neighbor::{Evidence, Observation};
use crate::parse::Packet;
use crate::policy::{Context, Event, Outcome, RunId, ScriptReport};
use crate::script_profile::ScriptProfile;
use crate::snapshot::{
    Algorithm, Interface, Limits, PortRange, Prefix, Protocol, ScriptSetId, ServerId, ServiceId, Snapshot,
    Target, TcpProfile,
};
use crate::steering::Seat;

const OWN: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const CLIENT: [u8; 4] = [10, 0, 0, 9];
const VIP: [u8; 4] = [10, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [6, 0, 0, 0, 0, 9];
const SERVER_MAC: [u8; 6] = [6, 0, 0, 0, 0, 8];
const START: Instant = Instant::from_micros_const(7_000_000);

/// Nobody's scripts.
struct NoScripts;

impl Policy for NoScripts {
    fn handles(&self, _: ServiceId, _: Event) -> bool {
        false
    }
    fn start(&mut self, _: &mut Context<'_>) -> Outcome {
        Outcome::Done
    }
    fn resume(&mut self, _: RunId, _: &mut Context<'_>) -> Outcome {
        Outcome::Done
    }
    fn cancel(&mut self, _: RunId) {}
    fn idle(&mut self) {}
    fn start_profile(&mut self, _: ScriptSetId, _: Event) {}
    fn end_profile(&mut self) -> ScriptProfile {
        ScriptProfile::default()
    }
    fn prepare(&mut self, _: &Arc<Snapshot>) -> Result<(), String> {
        Ok(())
    }
    fn adopt(&mut self) {}
    fn abandon(&mut self) {}
    fn report(&self) -> Vec<ScriptReport> {
        Vec::new()
    }
}

fn snapshot(vlans: [Option<u16>; 2]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (n, vlan) in (0u8..).zip(vlans) {
        let address = [10, n, 0, 2].into();
        let addresses = vec![Prefix { address, length: 16 }];
        snapshot.interfaces.push(Interface { name: format!("p{n}"), addresses, vlan, mtu: 1500 });
    }
    snapshot.snat.addresses = vec![ip("10.1.0.3")];
    (snapshot.snat.first_port, snapshot.snat.last_port) = (1024, 1151);
    let pool = snapshot.add_pool("pool", Algorithm::RoundRobin, &["10.1.0.8:8080"]);
    snapshot.add_service("vs", Some(Target::Pool(pool)), 0);
    snapshot.services[0].addresses = vec![VIP.into()];
    let range = |protocol| PortRange { protocol, first: 53, last: 53 };
    snapshot.services[0].ports = vec![range(Protocol::Udp), range(Protocol::Tcp)];
    snapshot.services[0].tcp.profile = TcpProfile::FastPath;
    snapshot.limits = Limits { flows: 64, neighbors: 16, spliced: 64, ..snapshot.limits };
    snapshot
}

/// One of the two that are compared.
struct Twin {
    pipeline: Pipeline<NoScripts>,
    records: RecordReceiver,
    fast: bool,
}

impl Twin {
    fn new(vlans: [Option<u16>; 2], fast: bool) -> Self {
        let mut pipeline =
            Pipeline::new(Arc::new(snapshot(vlans)), Seat::ALONE, &OWN, NoScripts, 5, START).unwrap();
        for (port, address, mac) in [(0, CLIENT, CLIENT_MAC), (1, [10, 1, 0, 8], SERVER_MAC)] {
            let (port, address) = (PortId(port), Address::from_v4(address));
            let seen = Observation { port, address, mac: Some(mac), evidence: Evidence::Request };
            pipeline.neighbors_mut().learn(START, &seen);
        }
        let (end, control) = channel(Capacities::default());
        pipeline.report_to(end.records().clone());
        Twin { pipeline, records: control.records, fast }
    }

    /// What becomes of a burst: frames and verdicts.
    fn take(&mut self, now: Instant, port: u8, frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Verdict)> {
        let mut burst: Burst<TestBuf> = frames.iter().map(|frame| TestBuf::holding(frame)).collect();
        let mut verdicts = ArrayVec::new();
        if self.fast {
            if let Some(out) = self.pipeline.process(now, PortId(port), &mut burst, &mut verdicts) {
                assert!(verdicts.is_empty());
                verdicts = burst.iter().map(|_| Verdict::Forward(out)).collect();
            }
        } else {
            let (parsed, millis) = (ArrayVec::new(), milliseconds(now));
            let mut none = ArrayVec::new();
            let port = PortId(port);
            let mut walk = Walk { now, millis, port, verdicts: &mut none, parsed, acted: 0, common: None };
            for buf in &mut burst {
                verdicts.push(self.pipeline.detour::<UNTAGGED, _>(buf, &Lane::EMPTY, &mut walk));
            }
        }
        assert_eq!(verdicts.len(), burst.len());
        burst.iter().map(|buf| buf.bytes().to_vec()).zip(verdicts).collect()
    }

    /// What else is known of the flows: records, the server's flows, timers.
    fn told(&mut self) -> (Vec<String>, ServerStatus, u32, Option<Instant>) {
        let records =
            std::iter::from_fn(|| self.records.receive()).map(|record| format!("{record:?}")).collect();
        let (server, wheel) = (self.pipeline.balancer.status(ServerId(0)), &self.pipeline.wheel);
        (records, server, wheel.len(), wheel.next_expiry())
    }

    fn flows(&self) -> Vec<(FlowId, Vec<u8>)> {
        self.pipeline.flows().iter().map(|(id, flow)| (id, flow.as_bytes().to_vec())).collect()
    }
}

#[derive(Clone, Debug)]
struct Shot {
    tcp: bool,
    server: bool,
    flags: u8,
    ttl: u8,
    numbers: (u32, u32, u16),
    payload: usize,
    damage: Option<(usize, u8)>,
    pause: u64,
}

fn shot() -> impl Strategy<Value = Shot> {
    let flags =
        prop_oneof![8 => Just(0x10u8), 2 => Just(0x18), 1 => Just(0x11), 1 => Just(0x02), 1 => any::<u8>()];
    let ttl = prop_oneof![20 => Just(64u8), 1 => 0..3u8];
    let payload = prop_oneof![4 => 0..40usize, 1 => 1400..1480usize];
    let damage = prop_oneof![6 => Just(None), 1 => (0..60usize, any::<u8>()).prop_map(Some)];
    let numbers = (0..4000u32, 0..4000u32, any::<u16>());
    (any::<bool>(), any::<bool>(), flags, ttl, numbers, payload, damage, 0..1_000_000u64).prop_map(
        |(tcp, server, flags, ttl, numbers, payload, damage, pause)| Shot {
            tcp,
            server,
            flags,
            ttl,
            numbers,
            payload,
            damage,
            pause,
        },
    )
}

impl Shot {
    /// The frame; `snat` is the port that weir has chosen for the flow.
    fn frame(&self, vlans: [Option<u16>; 2], snat: u16) -> Vec<u8> {
        let port = usize::from(self.server);
        let (source, destination, ports) = match self.server {
            false => (CLIENT, VIP, (4000, 53)),
            true => ([10, 1, 0, 8], [10, 1, 0, 3], (8080, snat)),
        };
        let builder = PacketBuilder::ethernet2([6; 6], OWN[port]);
        let ip =
            etherparse::Ipv4Header::new(0, self.ttl, etherparse::IpNumber(0), source, destination).unwrap();
        let ip = etherparse::IpHeaders::Ipv4(ip, Default::default());
        let builder = match vlans[port] {
            Some(vlan) => builder.single_vlan(vlan.try_into().unwrap()).ip(ip),
            None => builder.ip(ip),
        };
        let (mut frame, payload) = (Vec::new(), vec![7; self.payload]);
        if self.tcp {
            let (seq, ack, window) = self.numbers;
            let mut header = etherparse::TcpHeader::new(ports.0, ports.1, seq, window);
            header.acknowledgment_number = ack;
            let flag = |bit: u8| self.flags & bit != 0;
            (header.fin, header.syn, header.rst) = (flag(1), flag(2), flag(4));
            (header.psh, header.ack, header.urg) = (flag(8), flag(16), flag(32));
            if window % 2 == 1 {
                use etherparse::TcpOptionElement::{Noop, Timestamp};
                header.set_options(&[Noop, Noop, Timestamp(seq, ack)]).unwrap();
            }
            builder.tcp_header(header).write(&mut frame, &payload).unwrap();
        } else {
            builder.udp(ports.0, ports.1).write(&mut frame, &payload).unwrap();
        }
        frame.resize(frame.len().max(60), 0);
        if let Some((at, value)) = self.damage {
            frame[at] = value;
        }
        frame
    }
}

fn snat_port(twin: &Twin, tcp: bool) -> u16 {
    let flows = twin.pipeline.flows().iter().find(|(_, flow)| flow.is_tcp() == tcp);
    flows.map_or(1, |(_, flow)| flow.server_key().destination_port)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, rng_seed: RngSeed::Fixed(0xfa57), failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever comes, in whatever bursts: the fast path leaves frames, verdicts and flows as the long way does.
    #[test]
    fn the_shortcut_leads_where_the_detour_leads(
        shots in proptest::collection::vec((shot(), 1..34usize), 1..24), tags: (bool, bool), inspect: bool,
    ) {
        let vlans = [tags.0.then_some(7), tags.1.then_some(9)];
        let (mut fast, mut slow) = (Twin::new(vlans, true), Twin::new(vlans, false));
        let mut now = START;
        for (shot, copies) in shots {
            now += Duration::from_micros(shot.pause);
            let frame = shot.frame(vlans, snat_port(&slow, shot.tcp));
            let frames = vec![frame; copies.min(BURST)];
            let port = u8::from(shot.server);
            prop_assert_eq!(fast.take(now, port, &frames), slow.take(now, port, &frames));
            prop_assert_eq!(fast.flows(), slow.flows());
            prop_assert_eq!(fast.told(), slow.told());
            for twin in [&mut fast, &mut slow] {
                while twin.pipeline.neighbors_mut().poll_transmit(now).is_some() {}
                let ids: Vec<FlowId> = twin.pipeline.flows.iter().map(|(id, _)| id).collect();
                for flow in ids.into_iter().filter(|_| inspect) {
                    twin.pipeline.flows.flow_mut(flow).unwrap().flags ^= INSPECT;
                }
            }
        }
        prop_assert_eq!(fast.pipeline.counters().dropped, slow.pipeline.counters().dropped);
        // In the end nothing is left but records.
        let [fast, slow] = [fast, slow].map(|mut twin| {
            for hours in 1..9 {
                twin.pipeline.handle_timeout(now + Duration::from_secs(3600) * hours);
            }
            twin.told()
        });
        prop_assert_eq!((fast.1.flows, fast.2), (0, 0));
        prop_assert_eq!(fast, slow);
    }
}

const DATAGRAM: Shot = Shot {
    tcp: false,
    server: false,
    flags: 0,
    ttl: 64,
    numbers: (0, 0, 0),
    payload: 9,
    damage: None,
    pause: 0,
};

/// What the shortcut alone makes of a frame that arrives on `port`.
fn shortcut(twin: &mut Twin, port: u8, frame: &[u8]) -> Option<PortId> {
    let mut none = ArrayVec::new();
    let (parsed, port) = (ArrayVec::new(), PortId(port));
    let mut walk = Walk { now: START, millis: 0, port, verdicts: &mut none, parsed, acted: 0, common: None };
    let (mut lanes, mut bufs) = ([Lane::EMPTY; GROUP], [TestBuf::holding(frame)]);
    twin.pipeline.look::<TAGGED, _>(&bufs, &mut lanes, &mut walk);
    twin.pipeline.approach(&mut lanes);
    twin.pipeline.shortcut::<TAGGED, _>(0, &mut bufs[0], &lanes[0])
}

#[test]
fn packets_of_bound_flows_take_the_shortcut() {
    let vlans = [Some(7), Some(9)];
    let mut twin = Twin::new(vlans, true);
    let segment = |flags, server| Shot { tcp: true, flags, server, numbers: (5, 5, 100), ..DATAGRAM };
    for opening in [DATAGRAM, segment(2, false)] {
        let frame = opening.frame(vlans, 1);
        assert_eq!(shortcut(&mut twin, 0, &frame), None, "there is no flow yet");
        assert_eq!(twin.take(START, 0, &[frame])[0].1, Verdict::Forward(PortId(1)));
    }
    let (udp, tcp) = (snat_port(&twin, false), snat_port(&twin, true));
    let answer = Shot { server: true, ..DATAGRAM };
    for (shot, snat) in [(DATAGRAM, 1), (answer, udp), (segment(0x10, false), 1), (segment(0x18, true), tcp)]
    {
        let (frame, from, to) = (shot.frame(vlans, snat), u8::from(shot.server), u8::from(!shot.server));
        assert_eq!(shortcut(&mut twin, from, &frame), Some(PortId(to)), "{shot:?}");
        let mut burst: Burst<TestBuf> = (0..BURST).map(|_| TestBuf::holding(&frame)).collect();
        let mut verdicts = ArrayVec::new();
        let common = twin.pipeline.process(START, PortId(from), &mut burst, &mut verdicts);
        assert_eq!((common, verdicts.len()), (Some(PortId(to)), 0), "all leave by one port: {shot:?}");
    }
}

/// The datagrams that open flows leave by the same port, too; what opens none gives verdicts to all.
#[test]
fn a_burst_of_openings_needs_no_verdicts() {
    let mut twin = Twin::new([None, None], true);
    let opening = |client: u8| {
        let mut frame = DATAGRAM.frame([None, None], 1);
        frame[35] ^= client;
        frame[40..42].fill(0);
        TestBuf::holding(&frame)
    };
    let mut burst: Burst<TestBuf> = (0..BURST as u8).map(opening).collect();
    let mut verdicts = ArrayVec::new();
    let common = twin.pipeline.process(START, PortId(0), &mut burst, &mut verdicts);
    assert_eq!((common, verdicts.len()), (Some(PortId(1)), 0));
    assert_eq!(twin.pipeline.counters().flows_created, BURST as u64);
    for buf in &burst {
        assert_eq!(buf.bytes()[..12], [SERVER_MAC, OWN[1]].concat()[..]);
    }
}

/// Both twins open flows alike; this is what the long way makes of the same datagram.
#[test]
fn the_datagram_that_opens_a_flow_leaves_as_those_that_are_translated() {
    for vlans in [[None, None], [Some(7), Some(9)], [Some(7), None], [None, Some(9)]] {
        for payload in [0, 9, 1400, 1472] {
            let frame = Shot { payload, ..DATAGRAM }.frame(vlans, 1);
            let mut twin = Twin::new(vlans, true);
            let opened = twin.take(START, 0, std::slice::from_ref(&frame));
            let Ok(Packet::Transport(headers)) = parse::parse(&frame, vlans[0]) else { panic!("{vlans:?}") };
            let (id, mut buf) = (twin.flows()[0].0, TestBuf::holding(&frame));
            let verdict = twin.pipeline.translate(START, &mut buf, headers, id, Direction::FromClient);
            assert_eq!(opened, [(buf.bytes().to_vec(), verdict)], "{vlans:?} {payload}");
            let flow = twin.pipeline.flows().flow(id).unwrap();
            assert_eq!((flow.client_packets, flow.client_bytes), (2, 2 * payload as u64));
        }
    }
}

/// A packet that is something else than those before it gives verdicts to all.
#[test]
fn a_packet_that_differs_gives_verdicts_to_those_before_it() {
    let mut twin = Twin::new([None, None], true);
    let good = DATAGRAM.frame([None, None], 1);
    let expired = Shot { ttl: 1, ..DATAGRAM }.frame([None, None], 1);
    assert_eq!(
        twin.take(START, 0, std::slice::from_ref(&good))[0].1,
        Verdict::Forward(PortId(1)),
        "opens the flow"
    );
    let mut frames = vec![good; 20];
    frames[13] = expired;
    let verdicts: Vec<Verdict> = twin.take(START, 0, &frames).into_iter().map(|taken| taken.1).collect();
    let expected =
        |n| if n == 13 { Verdict::Drop(DropReason::TtlExpired) } else { Verdict::Forward(PortId(1)) };
    assert_eq!(verdicts, (0..20).map(expected).collect::<Vec<_>>());
    let rx = (twin.pipeline.counters().rx, twin.pipeline.counters().rx_bytes);
    assert_eq!(rx, (21, 21 * 60));
    let mut buf = TestBuf::holding(&frames[0]);
    assert_eq!(twin.pipeline.shortcut::<UNTAGGED, _>(0, &mut buf, &Lane::EMPTY), None);
    assert_eq!(buf.bytes(), frames[0], "nothing is done without a flow");
}

/// What stage two has seen of the index holds no more when an earlier packet of the burst has begun the flow.
#[test]
fn datagrams_of_new_flows_in_one_burst_are_one_flow_each() {
    let mut twin = Twin::new([None, None], true);
    let frame = |client: u8| {
        let mut frame = DATAGRAM.frame([None, None], 1);
        frame[35] = client;
        frame[40..42].fill(0);
        frame
    };
    let clients = [1, 2, 1, 1, 3, 2, 1, 3, 2, 1, 4, 3];
    let taken = twin.take(START, 0, &clients.map(frame));
    assert!(taken.iter().all(|(_, verdict)| *verdict == Verdict::Forward(PortId(1))));
    let counters = twin.pipeline.counters();
    assert_eq!((counters.flows_created, counters.dropped_total()), (4, 0));
    let mut ports = [None; 5];
    for ((frame, _), client) in taken.iter().zip(clients) {
        let port: [u8; 2] = frame[34..36].try_into().unwrap();
        assert_eq!(*ports[usize::from(client)].get_or_insert(port), port, "client {client}");
    }
    let packets = twin.pipeline.flows().iter().map(|(_, flow)| flow.client_packets);
    assert_eq!(packets.collect::<Vec<_>>(), [5, 3, 3, 1]);
}

/// A connection that begins, is reset and begins again, twice, and each time what follows belongs to the new one.
#[test]
fn connections_that_begin_and_end_in_one_burst_are_told_apart() {
    let segment = |flags, seq| {
        Shot { tcp: true, flags, numbers: (seq, 0, 100), payload: 0, ..DATAGRAM }.frame([None, None], 1)
    };
    let (syn, rst) = (|seq: u32| segment(0x02, seq), |seq: u32| segment(0x04, seq + 1));
    let burst = [syn(10), syn(10), rst(10), syn(500), rst(500), syn(900), syn(900)];
    let mut twin = Twin::new([None, None], true);
    let taken = twin.take(START, 0, &burst);
    assert!(taken.iter().all(|(_, verdict)| *verdict == Verdict::Forward(PortId(1))), "{taken:?}");
    let counters = twin.pipeline.counters();
    assert_eq!((counters.flows_created, counters.flows_ended), (3, 2));
    let packets = twin.pipeline.flows().iter().map(|(_, flow)| flow.client_packets);
    assert_eq!(packets.collect::<Vec<_>>(), [2]);
}

/// A queue to control that is full takes no record and keeps nobody waiting.
#[test]
fn records_that_find_no_room_are_counted() {
    let mut twin = Twin::new([None, None], true);
    let (end, control) = channel(Capacities { records: 2, ..Capacities::default() });
    twin.pipeline.report_to(end.records().clone());
    let opening = |client: u8| {
        let mut frame = DATAGRAM.frame([None, None], 1);
        frame[35] = client;
        frame[40..42].fill(0);
        frame
    };
    twin.take(START, 0, &[1, 2, 3, 4, 5].map(opening));
    twin.pipeline.handle_timeout(START + Duration::from_secs(3600));
    let counters = twin.pipeline.counters();
    assert_eq!((counters.flows_ended, counters.records_lost), (5, 3));
    let records: Vec<_> = std::iter::from_fn(|| control.records.receive()).collect();
    assert_eq!(records.iter().map(|record| record.from_client.packets).collect::<Vec<_>>(), [1, 1]);
}
