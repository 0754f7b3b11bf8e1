use super::*;
use crate::snapshot::Protocol;

fn flow() -> Flow {
    let key = FlowKey::new(Protocol::Tcp, "10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    Flow::begin(key, 1)
}

#[test]
fn a_flow_is_three_cache_lines_and_datagrams_need_one() {
    assert_eq!((size_of::<Flow>(), align_of::<Flow>()), (192, 64));
    assert_eq!(std::mem::offset_of!(Flow, splice), 64);
    assert_eq!(std::mem::offset_of!(Flow, started), 128);
}

#[test]
fn keys_of_all_families_are_kept_apart() {
    let sockets = ["10.0.0.1:1000", "192.0.2.9:2000", "[2001:db8::1]:3000", "[2001:db8::2]:4000"];
    let pair = |a: usize, b: usize, protocol| {
        FlowKey::new(protocol, sockets[a].parse().unwrap(), sockets[b].parse().unwrap())
    };
    let keys = [pair(0, 1, Protocol::Udp), pair(2, 3, Protocol::Tcp), pair(3, 2, Protocol::Udp)];
    for client in keys {
        let mut flow = Flow::begin(FlowKey { branch: 7, ..client }, 1);
        let mut servers = keys.into_iter().chain(keys.into_iter().rev());
        assert!(servers.all(|server| {
            flow.set_server_key(server);
            let before = (flow.client_key(), flow.server_key(), flow.is_bound());
            flow.clear_server_key();
            let after = (flow.client_key(), flow.server_key(), flow.is_bound());
            let client = FlowKey { branch: 7, ..client };
            before == (client, server, true) && after == (client, FlowKey::default(), false)
        }));
    }
}

#[test]
fn a_new_flow_has_neither_hops_nor_connection_nor_server() {
    let flow = flow();
    assert_eq!((flow.client_hop, flow.server_hop, flow.connection), (NONE, NONE, NONE));
    assert_eq!((flow.server_id(), flow.is_bound(), flow.state()), (None, false, FlowState::Embryonic));
    assert!(flow.is_tcp());
}

#[test]
fn every_state_survives_its_byte() {
    let all = [
        FlowState::Free,
        FlowState::Embryonic,
        FlowState::Waiting,
        FlowState::Connecting,
        FlowState::Bound,
        FlowState::Closing,
        FlowState::Lingering,
    ];
    for state in all {
        let mut flow = flow();
        flow.set_state(state);
        assert_eq!(flow.state(), state);
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
