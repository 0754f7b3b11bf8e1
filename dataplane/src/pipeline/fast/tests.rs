mod twin;
mod wide;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use smoltcp::time::Duration;
use tcp::Splice;
use zerocopy::FromBytes;

use super::*;
use crate::channel::{Capacities, channel};
use crate::counters::DropReason;
use crate::flow::INSPECT;
use crate::frame::tests::TestBuf;
use crate::parse::Packet;
use twin::{DATAGRAM, OWN, SERVER_MAC, START, Shot, Twin, shot};

/// How segments of a connection are translated, mostly as the shortcut can.
fn splice() -> impl Strategy<Value = Splice> {
    let flags = prop_oneof![3 => Just(1u8), 2 => Just(0), 1 => 0..0x20u8];
    let mss = prop_oneof![4 => Just(0u16), 1 => 1380..1460u16];
    let (deltas, held) = ((any::<u32>(), any::<u32>()), (any::<u32>(), any::<u16>()));
    let shifts = (-4..5i8, -4..5i8);
    (deltas, held, mss, flags, shifts).prop_map(|((seq, clock), (ack, window), mss, flags, shifts)| {
        let numbers = [seq, clock, ack].map(u32::to_ne_bytes).concat();
        let sizes = [window, mss].map(u16::to_ne_bytes).concat();
        let rest = vec![flags, shifts.0 as u8, shifts.1 as u8, 0];
        Splice::read_from_bytes(&[numbers, sizes, rest].concat()).unwrap()
    })
}

/// What opens a flow of each kind.
fn openings() -> [Shot; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(tcp, v6)| Shot {
        v6,
        tcp,
        flags: 2,
        numbers: (700, 0, 0x4000),
        ..DATAGRAM
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300, rng_seed: RngSeed::Fixed(0xfa57), failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever comes, in whatever bursts: the fast path leaves frames, verdicts and flows as the long way does.
    #[test]
    fn the_shortcut_leads_where_the_detour_leads(
        shots in proptest::collection::vec((shot(), 1..BURST + 2), 1..24), tags: (bool, bool), inspect: bool,
        splice in proptest::option::of(splice()), mixed: bool, opened in proptest::bool::weighted(0.8),
    ) {
        let vlans = [tags.0.then_some(7), tags.1.then_some(9)];
        let (mut fast, mut slow) = (Twin::new(vlans, true), Twin::new(vlans, false));
        let (mut now, mut last) = (START, [None, None]);
        let openings = openings().into_iter().filter(|_| opened).map(|shot| (shot, 1));
        for (mut shot, copies) in openings.chain(shots) {
            now += Duration::from_micros(shot.pause);
            shot.follow(&slow);
            let frame = shot.frame(vlans, slow.snat_port(shot.tcp, shot.v6));
            let port = u8::from(shot.server);
            // One of another flow, mostly, now and then.
            let before = last[usize::from(port)].replace(frame.clone()).filter(|_| mixed);
            let other = before.unwrap_or_else(|| frame.clone());
            let frames = (0..copies.min(BURST)).map(|n| if n % 3 == 1 { other.clone() } else { frame.clone() });
            let frames: Vec<Vec<u8>> = frames.collect();
            prop_assert_eq!(fast.take(now, port, &frames), slow.take(now, port, &frames));
            prop_assert_eq!(fast.flows(), slow.flows());
            prop_assert_eq!(fast.told(), slow.told());
            for twin in [&mut fast, &mut slow] {
                while twin.pipeline.neighbors_mut().poll_transmit(now).is_some() {}
                twin.with_flows(|flow| {
                    flow.flags ^= if inspect { INSPECT } else { 0 };
                    flow.splice = splice.unwrap_or(flow.splice);
                });
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
        prop_assert_eq!((fast.1.map(|server| server.flows), fast.2), ([0, 0], 0));
        prop_assert_eq!(fast, slow);
    }
}

/// What the shortcut alone makes of a frame that arrives on `port`.
fn shortcut(twin: &mut Twin, port: u8, frame: &[u8]) -> Option<PortId> {
    let mut none = ArrayVec::new();
    let (parsed, port) = (ArrayVec::new(), PortId(port));
    let mut walk =
        Walk { now: START, millis: 0, port, verdicts: &mut none, parsed, acted: 0, detours: 0, common: None };
    let (mut lanes, mut bufs) = ([Lane::EMPTY; GROUP], [TestBuf::holding(frame)]);
    twin.pipeline.look::<TAGGED, _>(&bufs, &mut lanes, &mut walk);
    twin.pipeline.approach(&mut lanes);
    match lanes[0].is_wide() {
        true => twin.pipeline.shortcut_wide::<TAGGED, _>(0, &mut bufs[0], &lanes[0]),
        false => twin.pipeline.shortcut::<TAGGED, _>(0, &mut bufs[0], &lanes[0]),
    }
}

#[test]
fn packets_of_bound_flows_take_the_shortcut() {
    for v6 in [false, true] {
        packets_take_the_shortcut(v6);
    }
}

fn packets_take_the_shortcut(v6: bool) {
    let vlans = [Some(7), Some(9)];
    let mut twin = Twin::new(vlans, true);
    let datagram = Shot { v6, ..DATAGRAM };
    let segment = |flags, server| Shot { tcp: true, flags, server, numbers: (5, 5, 100), ..datagram.clone() };
    for opening in [datagram.clone(), segment(2, false)] {
        let frame = opening.frame(vlans, 1);
        assert_eq!(shortcut(&mut twin, 0, &frame), None, "there is no flow yet");
        assert_eq!(twin.take(START, 0, &[frame])[0].1, Verdict::Forward(PortId(1)));
    }
    let (udp, tcp) = (twin.snat_port(false, v6), twin.snat_port(true, v6));
    let answer = Shot { server: true, ..datagram.clone() };
    for (shot, snat) in
        [(datagram.clone(), 1), (answer, udp), (segment(0x10, false), 1), (segment(0x18, true), tcp)]
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
    let mut burst: Burst<TestBuf> = (0..SHORT_BURST as u8).map(opening).collect();
    let mut verdicts = ArrayVec::new();
    let common = twin.pipeline.process(START, PortId(0), &mut burst, &mut verdicts);
    assert_eq!((common, verdicts.len()), (Some(PortId(1)), 0));
    assert_eq!(twin.pipeline.counters().flows_created, SHORT_BURST as u64);
    for buf in &burst {
        assert_eq!(buf.bytes()[..12], [SERVER_MAC, OWN[1]].concat()[..]);
    }
}

/// So that nobody waits for more than that many scripts.
#[test]
fn a_burst_is_short_after_one_that_opened_many_flows() {
    let mut twin = Twin::new([None, None], true);
    let mut client = 0;
    let mut openings = |count: usize| {
        let new = |_| {
            client += 1;
            let mut frame = DATAGRAM.frame([None, None], 1);
            frame[35] ^= client;
            frame[40..42].fill(0);
            TestBuf::holding(&frame)
        };
        (0..count).map(new).collect::<Burst<TestBuf>>()
    };
    let known = openings(1);
    twin.pipeline.process(START, PortId(0), &mut known.clone(), &mut ArrayVec::new());
    for (opening, of, most) in
        [(MANY, BURST, BURST), (MANY + 1, BURST, SHORT_BURST), (4, 64, BURST), (5, 64, SHORT_BURST)]
    {
        let _ = twin.pipeline.take_most();
        let mut burst = openings(opening);
        burst.extend((opening..of).map(|_| known[0].clone()));
        twin.pipeline.process(START, PortId(0), &mut burst, &mut ArrayVec::new());
        // What another port receives in the same round changes nothing.
        twin.pipeline.process(START, PortId(0), &mut known.clone(), &mut ArrayVec::new());
        assert_eq!(twin.pipeline.take_most(), most, "{opening} of {of} packets");
        assert_eq!(twin.pipeline.take_most(), BURST);
    }
}

/// Both twins open flows alike; this is what the long way makes of the same datagram.
#[test]
fn the_datagram_that_opens_a_flow_leaves_as_those_that_are_translated() {
    for vlans in [[None, None], [Some(7), Some(9)], [Some(7), None], [None, Some(9)]] {
        for (v6, payload) in
            [(false, 0), (false, 9), (false, 1400), (false, 1472), (true, 0), (true, 9), (true, 1452)]
        {
            let frame = Shot { v6, payload, ..DATAGRAM }.frame(vlans, 1);
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
