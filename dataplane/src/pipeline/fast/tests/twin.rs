//! Two pipelines that are given the same frames, of which one takes the long way with all, and those frames.

use std::net::IpAddr;
use std::sync::Arc;

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, PacketBuilder,
};
use proptest::prelude::*;
use tcp::Side;
use zerocopy::IntoBytes;

use super::super::*;
use crate::address::FlowKey;
use crate::balance::ServerStatus;
use crate::balance::fixture::ip;
use crate::channel::{Capacities, RecordReceiver, channel};
use crate::flow::FlowRef;
use crate::frame::tests::TestBuf;
use crate::neighbor::{Evidence, Observation};
use crate::policy::{Context, Event, Outcome, RunId, ScriptReport};
use crate::script_profile::ScriptProfile;
use crate::snapshot::{
    Algorithm, Interface, Limits, PortRange, Prefix, Protocol, ScriptSetId, ServerId, ServiceId, Snapshot,
    Target, TcpProfile,
};
use crate::steering::Seat;

pub(super) const OWN: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
pub(super) const SERVER_MAC: [u8; 6] = [6, 0, 0, 0, 0, 8];
const CLIENT_MAC: [u8; 6] = [6, 0, 0, 0, 0, 9];
pub(super) const START: Instant = Instant::from_micros_const(7_000_000);

/// Client, VIP, server and SNAT address.
const ADDRESSES: [[&str; 4]; 2] = [
    ["10.0.0.9", "10.0.0.1", "10.1.0.8", "10.1.0.3"],
    ["2001:db8::9", "2001:db8::1", "2001:db8:1::8", "2001:db8:1::3"],
];

pub(super) fn addresses(v6: bool) -> [IpAddr; 4] {
    ADDRESSES[usize::from(v6)].map(ip)
}

/// Nobody's scripts.
pub(super) struct NoScripts;

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
        let v6 = [0x2001, 0xdb8, u16::from(n), 0, 0, 0, 0, 2];
        let prefixes =
            [Prefix { address: [10, n, 0, 2].into(), length: 16 }, Prefix { address: v6.into(), length: 64 }];
        snapshot.interfaces.push(Interface {
            name: format!("p{n}"),
            addresses: prefixes.into(),
            vlan,
            mtu: 1500,
        });
    }
    let [[_, vip, server, snat], [_, vip6, server6, snat6]] = ADDRESSES;
    snapshot.snat.addresses = vec![ip(snat), ip(snat6)];
    (snapshot.snat.first_port, snapshot.snat.last_port) = (1024, 1151);
    let servers = [format!("{server}:8080"), format!("[{server6}]:8080")];
    let pool = snapshot.add_pool("pool", Algorithm::RoundRobin, &[&servers[0], &servers[1]]);
    snapshot.add_service("vs", Some(Target::Pool(pool)), 0);
    snapshot.services[0].addresses = vec![ip(vip), ip(vip6)];
    let range = |protocol| PortRange { protocol, first: 53, last: 53 };
    snapshot.services[0].ports = vec![range(Protocol::Udp), range(Protocol::Tcp)];
    snapshot.services[0].tcp.profile = TcpProfile::FastPath;
    snapshot.limits = Limits { flows: 64, neighbors: 16, spliced: 64, ..snapshot.limits };
    snapshot
}

/// One of the two that are compared.
pub(super) struct Twin {
    pub(super) pipeline: Pipeline<NoScripts>,
    records: RecordReceiver,
    fast: bool,
}

impl Twin {
    pub(super) fn new(vlans: [Option<u16>; 2], fast: bool) -> Self {
        let mut pipeline =
            Pipeline::new(Arc::new(snapshot(vlans)), Seat::ALONE, &OWN, NoScripts, 5, START).unwrap();
        for [client, _, server, _] in [addresses(false), addresses(true)] {
            for (port, address, mac) in [(0, client, CLIENT_MAC), (1, server, SERVER_MAC)] {
                let (port, address) = (PortId(port), address.into());
                let seen = Observation { port, address, mac: Some(mac), evidence: Evidence::Request };
                pipeline.neighbors_mut().learn(START, &seen);
            }
        }
        let (end, control) = channel(Capacities::default());
        pipeline.report_to(end.records().clone());
        Twin { pipeline, records: control.records, fast }
    }

    /// What becomes of a burst: frames and verdicts.
    pub(super) fn take(&mut self, now: Instant, port: u8, frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Verdict)> {
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
            let mut walk =
                Walk { now, millis, port, verdicts: &mut none, parsed, acted: 0, detours: 0, common: None };
            for buf in &mut burst {
                verdicts.push(self.pipeline.detour::<UNTAGGED, _>(buf, &Lane::EMPTY, &mut walk));
            }
        }
        assert_eq!(verdicts.len(), burst.len());
        burst.iter().map(|buf| buf.bytes().to_vec()).zip(verdicts).collect()
    }

    /// What else is known of the flows: records, the servers' flows, timers.
    pub(super) fn told(&mut self) -> (Vec<String>, [ServerStatus; 2], u32, Option<Instant>) {
        let records =
            std::iter::from_fn(|| self.records.receive()).map(|record| format!("{record:?}")).collect();
        let servers = [ServerId(0), ServerId(1)].map(|server| self.pipeline.balancer.status(server));
        let wheel = &self.pipeline.wheel;
        (records, servers, wheel.len(), wheel.next_expiry())
    }

    /// The records of all flows, with their keys.
    pub(super) fn flows(&self) -> Vec<(FlowId, [FlowKey; 2], Vec<u8>)> {
        let flows = self.pipeline.flows().iter();
        flows
            .map(|(id, flow)| (id, [flow.client_key(), flow.server_key()], flow.as_bytes().to_vec()))
            .collect()
    }

    /// The one flow of that kind.
    pub(super) fn flow(&self, tcp: bool, v6: bool) -> Option<FlowRef<'_>> {
        let mut flows = self.pipeline.flows().iter().map(|(_, flow)| flow);
        flows.find(|flow| flow.is_tcp() == tcp && flow.is_wide() == v6)
    }

    /// The port that weir has chosen for it; 1 if there is none.
    pub(super) fn snat_port(&self, tcp: bool, v6: bool) -> u16 {
        self.flow(tcp, v6).map_or(1, |flow| flow.server_key().destination_port)
    }

    pub(super) fn with_flows(&mut self, mut change: impl FnMut(&mut Flow)) {
        let ids: Vec<FlowId> = self.pipeline.flows.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| change(self.pipeline.flows.flow_mut(id).unwrap()));
    }
}

/// A frame of a client or a server.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    pub(super) server: bool,
    pub(super) flags: u8,
    pub(super) ttl: u8,
    pub(super) numbers: (u32, u32, u16),
    pub(super) payload: usize,
    pub(super) damage: Option<(usize, u8)>,
    /// A segment has the numbers that come next in its connection.
    pub(super) follows: bool,
    /// Bytes that are missing.
    pub(super) cut: usize,
    /// Behind the IPv6 header.
    pub(super) extension: bool,
    pub(super) pause: u64,
}

pub(super) const DATAGRAM: Shot = Shot {
    v6: false,
    tcp: false,
    server: false,
    flags: 0,
    ttl: 64,
    numbers: (0, 0, 0),
    payload: 9,
    damage: None,
    follows: false,
    cut: 0,
    extension: false,
    pause: 0,
};

pub(super) fn shot() -> impl Strategy<Value = Shot> {
    let flags =
        prop_oneof![8 => Just(0x10u8), 2 => Just(0x18), 1 => Just(0x11), 1 => Just(0x02), 1 => any::<u8>()];
    let ttl = prop_oneof![20 => Just(64u8), 1 => 0..3u8];
    let payload = prop_oneof![4 => 0..40usize, 1 => 1380..1480usize];
    let damage = prop_oneof![6 => Just(None), 1 => (0..90usize, any::<u8>()).prop_map(Some)];
    let cut = prop_oneof![20 => Just(0), 1 => 1..70usize];
    let numbers = (0..4000u32, 0..4000u32, any::<u16>());
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.05));
    (kind, flags, ttl, numbers, payload, damage, cut, 0..1_000_000u64).prop_map(
        |((v6, tcp, server, follows, extension), flags, ttl, numbers, payload, damage, cut, pause)| Shot {
            v6,
            tcp,
            server,
            flags,
            ttl,
            numbers,
            payload,
            damage,
            follows,
            cut,
            extension,
            pause,
        },
    )
}

impl Shot {
    /// Takes the numbers that come next in its connection, if it is to, and if there is one.
    pub(super) fn follow(&mut self, twin: &Twin) {
        let Some(flow) = twin.flow(self.tcp, self.v6).filter(|_| self.tcp && self.follows) else { return };
        let [client, server] = [Side::Client, Side::Server].map(|side| flow.track.next(side));
        let (seq, ack) = match self.server {
            true => (server, client),
            false => (client, flow.splice.to_client(server)),
        };
        (self.numbers.0, self.numbers.1) = (seq.value(), ack.value());
    }

    /// The frame; `snat` is the port that weir has chosen for the flow.
    pub(super) fn frame(&self, vlans: [Option<u16>; 2], snat: u16) -> Vec<u8> {
        let port = usize::from(self.server);
        let ports = if self.server { (8080, snat) } else { (4000, 53) };
        let builder = PacketBuilder::ethernet2([6; 6], OWN[port]);
        let builder = match vlans[port] {
            Some(vlan) => builder.single_vlan(vlan.try_into().unwrap()).ip(self.ip()),
            None => builder.ip(self.ip()),
        };
        let (mut frame, payload) = (Vec::new(), vec![7; self.payload]);
        if self.tcp {
            builder.tcp_header(self.segment(ports)).write(&mut frame, &payload).unwrap();
        } else {
            builder.udp(ports.0, ports.1).write(&mut frame, &payload).unwrap();
        }
        frame.resize(frame.len().max(60), 0);
        if let Some((at, value)) = self.damage {
            let at = at % frame.len();
            frame[at] = value;
        }
        frame.truncate(frame.len().saturating_sub(self.cut));
        frame
    }

    fn ip(&self) -> IpHeaders {
        let [client, vip, server, snat] = addresses(self.v6);
        let ends = if self.server { (server, snat) } else { (client, vip) };
        match ends {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let ip = Ipv4Header::new(0, self.ttl, IpNumber(0), source, destination).unwrap();
                IpHeaders::Ipv4(ip, Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ip = Ipv6Header {
                    traffic_class: self.numbers.2 as u8,
                    flow_label: (self.numbers.0 & 0xf_ffff).try_into().unwrap(),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                let options = Ipv6RawExtHeader::new_raw(IpNumber(0), &[1, 4, 0, 0, 0, 0]).unwrap();
                let destination_options = self.extension.then_some(options);
                IpHeaders::Ipv6(ip, Ipv6Extensions { destination_options, ..Ipv6Extensions::default() })
            }
            ends => panic!("{ends:?}"),
        }
    }

    fn segment(&self, ports: (u16, u16)) -> etherparse::TcpHeader {
        use etherparse::TcpOptionElement::{Noop, SelectiveAcknowledgement, Timestamp};
        let (seq, ack, window) = self.numbers;
        let mut header = etherparse::TcpHeader::new(ports.0, ports.1, seq, window);
        header.acknowledgment_number = ack;
        let flag = |bit: u8| self.flags & bit != 0;
        (header.fin, header.syn, header.rst) = (flag(1), flag(2), flag(4));
        (header.psh, header.ack, header.urg) = (flag(8), flag(16), flag(32));
        let block = SelectiveAcknowledgement((seq, ack), [None; 3]);
        match window % 8 {
            1 | 3 | 5 => header.set_options(&[Noop, Noop, Timestamp(seq, ack)]).unwrap(),
            6 => header.set_options(&[Noop, Noop, block]).unwrap(),
            7 => header.set_options(&[Timestamp(seq, ack)]).unwrap(),
            _ => {}
        }
        header
    }
}
