use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::time::{Duration, Instant};

use super::*;
use crate::address::FlowKey;
use crate::counters::{Counters, DropReason};
use crate::flow_table::FlowTable;
use crate::snapshot::{Protocol, ServerId, ServiceId};

#[test]
fn queries_reach_the_worker_and_answers_come_back() {
    let (mut worker, control) = channel(Capacities { commands: 2, records: 1, packets: 1 });
    let answer = control.commands.query(Query::Counters).unwrap();
    control.commands.send(Command::Stop).unwrap();
    assert!(control.commands.query(Query::Ports).is_none(), "the queue holds two");
    match worker.command() {
        Some(Command::Query(Query::Counters, reply)) => {
            reply.send(Answer::Counters(Box::new(Counters { rx: 7, ..Counters::default() })));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(worker.command(), Some(Command::Stop)));
    assert!(worker.command().is_none());
    match answer.try_recv() {
        Ok(Answer::Counters(counters)) => assert_eq!(counters.rx, 7),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_that_nobody_waits_for_is_dropped_quietly() {
    let (mut worker, control) = channel(Capacities::default());
    drop(control.commands.query(Query::Pools).unwrap());
    match worker.command() {
        Some(Command::Query(Query::Pools, reply)) => reply.send(Answer::Pools(Vec::new(), Vec::new())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_cross_in_both_directions_and_full_queues_refuse() {
    let (mut worker, control) = channel(Capacities { commands: 1, records: 1, packets: 1 });
    assert!(worker.punt(&[1, 2, 3]));
    assert!(!worker.punt(&[4]), "the queue holds one packet");
    assert_eq!(control.packets.receive(), Some(PuntedPacket(vec![1, 2, 3])));
    assert!(control.packets.send(PuntedPacket(vec![9])));
    assert!(!control.packets.send(PuntedPacket(vec![8])));
    assert_eq!(worker.packet(), Some(PuntedPacket(vec![9])));
    assert_eq!(worker.packet(), None);
}

#[test]
fn terminations_are_two_letters() {
    assert_eq!(Termination::NORMAL.to_string(), "--");
    assert_eq!(Termination::new(EndedBy::Refused, Phase::Deciding).to_string(), "RP");
    assert_eq!(Termination::new(EndedBy::ServerTimeout, Phase::from(FlowState::Closing)).to_string(), "sD");
    let mut letters: Vec<char> = EndedBy::ALL.iter().map(|by| by.letter()).collect();
    letters.sort_unstable();
    letters.dedup();
    assert_eq!(letters.len(), EndedBy::ALL.len(), "each letter means one thing");
}

#[test]
fn monitor_ports_are_above_the_snat_ports() {
    let mut snapshot = Snapshot::default();
    snapshot.snat.last_port = 60999;
    assert_eq!(monitor_ports(&snapshot), 61000..=65535);
    snapshot.snat.last_port = 65535;
    assert!(monitor_ports(&snapshot).is_empty());
}

/// Both keys of a flow of that family and protocol, by its number.
fn keys(protocol: Protocol, wide: bool, number: u32) -> [FlowKey; 2] {
    let [client, vip, server, snat] = match wide {
        false => ["192.0.2.10:4000", "198.51.100.1:443", "10.0.0.11:8443", "10.0.0.1:1024"],
        true => ["[2001:db8::9]:4000", "[2001:db8::1]:443", "[fd00::11]:8443", "[fd00::1]:1024"],
    }
    .map(|socket| {
        let mut socket: SocketAddr = socket.parse().unwrap();
        if let IpAddr::V6(ip) = socket.ip() {
            socket.set_ip(Ipv6Addr::from_bits(ip.to_bits() | u128::from(number) << 32).into());
        }
        socket
    });
    [FlowKey::new(protocol, client, vip), FlowKey::new(protocol, server, snat)]
}

/// A flow that ends, by its number: what its own record says, and the rest of it.
fn end(protocol: Protocol, wide: bool, bound: bool, number: u32) -> (EndedFlow, Option<[Address; 4]>) {
    let mut flows = FlowTable::new(1, 7, wide).unwrap();
    let [client, server] = keys(protocol, wide, number);
    let id = flows.insert(client).unwrap();
    if bound {
        flows.bind(id, server).unwrap();
    }
    let flow = flows.flow_mut(id).unwrap();
    flow.service = 3;
    flow.server = if bound { 9 } else { flow.server };
    (flow.client_packets, flow.client_bytes) = (number, 1 << 40);
    (flow.server_packets, flow.server_bytes) = (u32::MAX, 5);
    let at = |micros| Some(Instant::from_micros(micros));
    let milestones = Milestones {
        established: if protocol == Protocol::Tcp { at(1_000_030) } else { None },
        decided: at(1_000_070),
        connected: if bound { at(1_000_170) } else { None },
    };
    let fate = (Termination::new(EndedBy::Refused, Phase::Deciding), Some(DropReason::NoServer));
    let flow = flows.flow(id).unwrap();
    let times = (Instant::from_micros(1_000_000), Instant::from_micros(i64::from(number)));
    let mut ended = EndedFlow::of(flow, times, fate);
    match protocol {
        Protocol::Udp if !bound => ended.add(&milestones, None),
        Protocol::Udp => ended.decided_at_once(),
        Protocol::Tcp => ended.add(&milestones, None),
    }
    (ended, flow.addresses())
}

#[test]
fn what_is_known_of_an_ended_flow_comes_out_as_it_was() {
    let (worker, control) = channel(Capacities::default());
    let all = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|protocol| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(wide, bound)| (protocol, wide, bound))
    });
    for (protocol, wide, bound) in all.clone() {
        let (flow, addresses) = end(protocol, wide, bound, 2_000_000);
        assert_eq!(addresses.is_some(), wide);
        assert!(worker.records().send(flow, addresses));
    }
    for (protocol, wide, bound) in all {
        let record = control.records.receive().unwrap();
        let [client, server] = keys(protocol, wide, 2_000_000);
        assert_eq!((record.service, record.protocol), (ServiceId(3), protocol));
        assert_eq!((record.client, record.vip), (client.source_socket(), client.destination_socket()));
        assert_eq!((record.peer, record.server), (None, bound.then_some(ServerId(9))));
        let of_server = bound.then(|| (server.source_socket(), server.destination_socket()));
        assert_eq!((record.server_address, record.snat), of_server.unzip());
        let times = (record.started.total_micros(), record.ended.total_micros());
        assert_eq!(times, (1_000_000, 2_000_000));
        let (handshake, decision, connect) = match (protocol, bound) {
            (Protocol::Tcp, _) => (Some(30), Some(40), bound.then_some(100)),
            (Protocol::Udp, true) => (None, Some(0), None),
            (Protocol::Udp, false) => (None, Some(70), None),
        };
        let times = [record.handshake, record.decision, record.connect];
        assert_eq!(times, [handshake, decision, connect].map(|time| time.map(Duration::from_micros)));
        assert_eq!(record.from_client, Traffic { packets: 2_000_000, bytes: 1 << 40 });
        assert_eq!(record.from_server, Traffic { packets: u64::from(u32::MAX), bytes: 5 });
        assert_eq!(
            (record.termination.to_string(), record.reason),
            ("RP".to_owned(), Some(DropReason::NoServer))
        );
    }
    assert!(control.records.receive().is_none());
}

/// A record that finds no room must not leave its addresses to the next one.
#[test]
fn records_that_are_lost_take_their_addresses_with_them() {
    let (worker, control) = channel(Capacities { commands: 1, records: 2, packets: 1 });
    let send = |wide, number| {
        let (flow, addresses) = end(Protocol::Udp, wide, true, number);
        worker.records().send(flow, addresses)
    };
    for round in 0..5 {
        assert!(send(true, 10 * round) && send(round % 2 == 0, 10 * round + 1));
        assert!(!send(true, 7) && !send(false, 8));
        for (number, wide) in [(10 * round, true), (10 * round + 1, round % 2 == 0)] {
            let record = control.records.receive().unwrap();
            assert_eq!(record.from_client.packets, u64::from(number));
            let [client, server] = keys(Protocol::Udp, wide, number);
            assert_eq!((record.client, record.vip), (client.source_socket(), client.destination_socket()));
            let of_server = (record.server_address, record.snat);
            assert_eq!(of_server, (Some(server.source_socket()), Some(server.destination_socket())));
        }
        assert!(control.records.receive().is_none());
    }
}

#[test]
fn a_record_of_an_ended_flow_takes_as_few_bytes_as_the_documentation_says() {
    assert_eq!(size_of::<EndedFlow>(), 104);
}
