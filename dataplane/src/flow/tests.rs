use std::mem::offset_of;

use super::*;
use crate::snapshot::Protocol;

fn flow() -> Flow {
    let key = FlowKey::new(Protocol::Tcp, "10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    Flow::begin(&key, 1)
}

#[test]
fn a_flow_is_two_cache_lines_and_datagrams_need_one() {
    assert_eq!((size_of::<Flow>(), align_of::<Flow>()), (128, 64));
    assert_eq!(offset_of!(Flow, splice), 64);
    let needed = [offset_of!(Flow, client_addresses), offset_of!(Flow, last_seen), offset_of!(Flow, flags)];
    assert!(needed.into_iter().all(|offset| offset < 64));
}

#[test]
fn a_new_flow_has_neither_hops_nor_connection_nor_server() {
    let flow = flow();
    assert_eq!((flow.client_hop, flow.server_hop, flow.connection), (NONE, NONE, NONE));
    assert_eq!((flow.server_id(), flow.is_bound(), flow.state()), (None, false, FlowState::Embryonic));
    assert!(flow.is_tcp());
}

#[test]
fn every_phase_survives_its_half_of_a_byte() {
    let all = [
        FlowState::Free,
        FlowState::Embryonic,
        FlowState::Waiting,
        FlowState::Connecting,
        FlowState::Bound,
        FlowState::Closing,
        FlowState::Lingering,
    ];
    let phases = [
        Lifecycle::Established,
        Lifecycle::ClientFin,
        Lifecycle::ServerFin,
        Lifecycle::BothFin,
        Lifecycle::Reset,
        Lifecycle::SynSent,
    ];
    let mut flow = flow();
    for (state, lifecycle) in all.into_iter().flat_map(|state| phases.map(|phase| (state, phase))) {
        flow.set_state(state);
        flow.set_lifecycle(lifecycle);
        assert_eq!((flow.state(), flow.lifecycle()), (state, lifecycle));
        flow.set_state(state);
        assert_eq!((flow.state(), flow.lifecycle()), (state, lifecycle));
    }
}

#[test]
fn a_new_connection_is_established_until_noted_otherwise() {
    let mut flow = flow();
    assert_eq!((flow.lifecycle(), flow.splice), (Lifecycle::Established, Splice::default()));
    flow.set_lifecycle(Lifecycle::BothFin);
    assert_eq!((flow.lifecycle(), flow.state()), (Lifecycle::BothFin, FlowState::Embryonic));
}

#[test]
fn packets_are_counted_per_direction() {
    let mut flow = flow();
    flow.count(Direction::FromClient, 100);
    flow.count(Direction::FromServer, 40);
    flow.count(Direction::FromServer, 2);
    assert_eq!((flow.client_packets, flow.client_bytes), (1, 100));
    assert_eq!((flow.server_packets, flow.server_bytes), (2, 42));
}

#[test]
fn idle_time_survives_the_wrap_of_the_milliseconds() {
    let mut flow = flow();
    let before = Instant::from_millis(i64::from(u32::MAX) - 10);
    flow.touch(before);
    assert_eq!(flow.idle(before + Duration::from_millis(25)), Duration::from_millis(25));
}

#[test]
fn age_is_exact_and_survives_the_wrap_of_its_bits() {
    for micros in [0, 1, (1 << 32) - 1, (1 << 48) - 5, (1_i64 << 50) + 3] {
        let (mut flow, began) = (flow(), Instant::from_micros(micros));
        flow.set_started(began);
        for age in [0, 9, 4_000_000_000_000] {
            let age = Duration::from_micros(age);
            assert_eq!(flow.age(began + age), age, "from {micros}");
        }
        assert_eq!(flow.age(began - Duration::from_micros(1)), Duration::ZERO, "from {micros}");
    }
}
