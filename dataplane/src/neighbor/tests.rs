use super::*;
use crate::header::BROADCAST;
use crate::io::PacketBuf;

const PORT: PortId = PortId(0);
const MAC: Mac = [2, 0, 0, 0, 0, 1];
const NEW: Mac = [2, 0, 0, 0, 0, 2];

fn at(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

fn address(last: u8) -> Address {
    Address::from_v4([192, 0, 2, last])
}

fn hop(last: u8) -> (PortId, Address) {
    (PORT, address(last))
}

fn asked(last: u8, mac: Option<Mac>) -> Option<Solicitation> {
    Some(Solicitation { port: PORT, target: address(last), mac })
}

fn request(last: u8, mac: Mac) -> Observation {
    Observation { port: PORT, address: address(last), mac: Some(mac), evidence: Evidence::Request }
}

fn advertised(mac: Option<Mac>, solicited: bool, overrides: bool) -> Observation {
    let evidence = Evidence::Advertisement { solicited, overrides };
    Observation { port: PORT, address: address(1), mac, evidence }
}

/// A table in which neighbour 1 has answered at time 0 and is held by a flow.
fn reachable() -> (Neighbors, NeighborId) {
    let mut table = Neighbors::new(8);
    let id = table.resolve(at(0), hop(1)).unwrap();
    assert!(table.retain(id));
    assert_eq!(table.poll_transmit(at(0)), asked(1, None));
    assert_eq!(table.learn(at(0), &advertised(Some(MAC), true, true)), Some(id));
    (table, id)
}

#[test]
fn asks_three_times_and_gives_up() {
    let mut table = Neighbors::new(8);
    let id = table.resolve(at(0), hop(1)).unwrap();
    assert_eq!(table.resolve(at(1), hop(1)), Some(id));
    for second in 0..3 {
        assert_eq!(table.poll_transmit(at(second * 1000)), asked(1, None), "second {second}");
        assert_eq!(table.poll_transmit(at(second * 1000 + 999)), None);
        assert_eq!(table.poll_timeout(), Some(at(second * 1000 + 1000)));
    }
    assert_eq!(table.poll_failed(), None);
    assert_eq!(table.poll_transmit(at(3000)), None);
    assert_eq!((table.poll_failed(), table.poll_failed()), (Some(id), None));
    assert_eq!((table.mac(id), table.poll_timeout()), (None, None));
    // The next packet starts over.
    assert!(table.want(at(9000), id));
    assert_eq!(table.poll_transmit(at(9000)), asked(1, None));
    assert_eq!(table.learn(at(9001), &advertised(Some(MAC), true, true)), Some(id));
    assert_eq!(table.mac(id), Some(MAC));
}

#[test]
fn a_used_neighbor_is_confirmed_and_kept_meanwhile() {
    let (mut table, id) = reachable();
    assert_eq!(table.poll_timeout(), Some(at(30_000)));
    assert_eq!(table.poll_transmit(at(29_999)), None);
    assert_eq!(table.poll_transmit(at(30_000)), asked(1, Some(MAC)));
    assert_eq!(table.mac(id), Some(MAC));
    assert_eq!(table.learn(at(30_100), &advertised(Some(MAC), true, true)), None, "was known");
    assert_eq!(table.poll_timeout(), Some(at(60_100)));
}

#[test]
fn a_used_neighbor_that_is_gone_is_asked_for_by_broadcast() {
    let (mut table, id) = reachable();
    for second in 30..33 {
        assert_eq!(table.poll_transmit(at(second * 1000)), asked(1, Some(MAC)), "second {second}");
        assert_eq!(table.mac(id), Some(MAC));
    }
    for second in 33..36 {
        assert_eq!(table.poll_transmit(at(second * 1000)), asked(1, None), "second {second}");
        assert_eq!(table.mac(id), None);
    }
    assert_eq!(table.poll_transmit(at(36_000)), None);
    assert_eq!(table.poll_failed(), Some(id));
    // It comes back by itself.
    assert_eq!(table.learn(at(40_000), &request(1, NEW)), Some(id));
    assert_eq!(table.mac(id), Some(NEW));
}

#[test]
fn an_unused_neighbor_is_left_alone() {
    let (mut table, id) = reachable();
    table.release(at(0), id);
    assert_eq!(table.poll_transmit(at(30_000)), None);
    assert_eq!((table.mac(id), table.poll_timeout()), (Some(MAC), None));
    // The next use confirms it, later.
    assert_eq!(table.resolve(at(50_000), hop(1)), Some(id));
    assert_eq!(table.poll_transmit(at(54_999)), None);
    assert_eq!(table.poll_transmit(at(55_000)), asked(1, Some(MAC)));
}

#[test]
fn who_asks_is_known_but_not_confirmed() {
    let mut table = Neighbors::new(8);
    let id = table.learn(at(0), &request(1, MAC)).unwrap();
    assert_eq!((table.mac(id), table.poll_timeout()), (Some(MAC), None));
    assert_eq!(table.resolve(at(1000), hop(1)), Some(id));
    assert_eq!(table.poll_timeout(), Some(at(6000)));
    let listed: Vec<_> = table.iter().collect();
    assert_eq!(listed, [(PORT, address(1), Some(MAC))]);
    assert_eq!(table.next_hop(id), Some(hop(1)));
}

#[test]
fn advertisements_make_no_entries() {
    let mut table = Neighbors::new(8);
    assert_eq!(table.learn(at(0), &advertised(Some(MAC), true, true)), None);
    assert!(table.is_empty());
}

#[test]
fn what_an_observation_changes() {
    // RFC 4861, appendix C, for a neighbour that is reachable: its MAC address and the next question afterwards.
    let cases = [
        (request(1, MAC), MAC, 30_000),
        (request(1, NEW), NEW, 6000),
        (advertised(Some(NEW), true, true), NEW, 31_000),
        (advertised(Some(NEW), false, true), NEW, 6000),
        (advertised(Some(NEW), true, false), MAC, 6000),
        (advertised(Some(NEW), false, false), MAC, 6000),
        (advertised(Some(MAC), true, false), MAC, 31_000),
        (advertised(Some(MAC), false, true), MAC, 30_000),
        (advertised(None, true, true), MAC, 31_000),
        (advertised(None, false, true), MAC, 30_000),
    ];
    for (seen, mac, next) in cases {
        let (mut table, id) = reachable();
        assert_eq!(table.learn(at(1000), &seen), None);
        assert_eq!((table.mac(id), table.poll_timeout()), (Some(mac), Some(at(next))), "{seen:?}");
    }
    // And for one that is not: another address without override changes nothing.
    let (mut table, id) = reachable();
    table.learn(at(1000), &advertised(Some(NEW), false, false));
    table.learn(at(2000), &advertised(Some(NEW), true, false));
    assert_eq!((table.mac(id), table.poll_timeout()), (Some(MAC), Some(at(6000))));
}

#[test]
fn an_answer_without_address_does_not_complete() {
    let mut table = Neighbors::new(8);
    let id = table.resolve(at(0), hop(1)).unwrap();
    assert_eq!(table.learn(at(0), &advertised(None, true, true)), None);
    assert_eq!(table.mac(id), None);
}

#[test]
fn the_longest_unused_goes() {
    let mut table = Neighbors::new(3);
    let ids: Vec<_> = (1..=3).map(|last| table.resolve(at(i64::from(last)), hop(last)).unwrap()).collect();
    assert!(table.retain(ids[0]));
    assert_eq!(table.resolve(at(10), hop(2)), Some(ids[1]));
    let fourth = table.resolve(at(11), hop(4)).unwrap();
    assert_eq!((table.len(), table.poll_failed()), (3, Some(ids[2])), "the third was not used");
    assert_eq!((table.next_hop(ids[2]), table.mac(ids[2])), (None, None), "its id names nothing");
    assert!(!table.want(at(12), ids[2]) && !table.retain(ids[2]));
    assert!(table.retain(ids[1]) && table.retain(fourth));
    assert_eq!(table.resolve(at(13), hop(5)), None, "all are held");
    assert_eq!(table.learn(at(13), &request(5, MAC)), None);
    table.release(at(14), ids[0]);
    table.release(at(14), ids[0]); // once too often does no harm
    assert!(table.resolve(at(15), hop(5)).is_some());
    assert_eq!(table.next_hop(ids[0]), None);
    // The evicted entries' timers are gone with them.
    let mut targets: Vec<_> =
        std::iter::from_fn(|| table.poll_transmit(at(20))).map(|ask| ask.target).collect();
    targets.sort_by_key(|target| target.0);
    assert_eq!(targets, [address(2), address(4), address(5)]);
}

#[test]
fn ports_are_apart() {
    let mut table = Neighbors::new(8);
    let first = table.resolve(at(0), hop(1)).unwrap();
    let second = table.resolve(at(0), (PortId(1), address(1))).unwrap();
    table.learn(at(0), &request(1, MAC));
    assert_eq!((table.mac(first), table.mac(second)), (Some(MAC), None));
}

#[test]
fn questions_are_built_for_their_family() {
    use crate::frame::tests::TestBuf;
    let v6 = |last| Address([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let cases = [(address(1), address(9), Some(MAC)), (address(1), address(9), None), (v6(1), v6(9), None)];
    for (target, source, mac) in cases {
        let mut buf = TestBuf::new(100);
        Solicitation { port: PORT, target, mac }.build(&mut buf, NEW, Some(7), source).unwrap();
        assert_eq!(buf.bytes()[16..18], if target.is_v4() { [8, 6] } else { [0x86, 0xdd] });
        let to = match (mac, target.is_v4()) {
            (Some(mac), _) => mac,
            (None, true) => BROADCAST,
            (None, false) => [0x33, 0x33, 0xff, 0, 0, 1],
        };
        assert_eq!(buf.bytes()[..6], to);
    }
}

#[test]
fn a_long_life_leaks_no_timer() {
    // Many neighbours than come and go, by a fixed sequence.
    let mut table = Neighbors::new(16);
    let mut seed = 0x9e37_79b9_u32;
    for step in 0..20_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (now, last) = (at(step * 50), (seed >> 24) as u8);
        match seed >> 8 & 3 {
            0 => drop(table.learn(now, &request(last, MAC))),
            1 => drop(
                table
                    .learn(now, &Observation { address: address(last), ..advertised(Some(NEW), true, true) }),
            ),
            _ => drop(table.resolve(now, hop(last))),
        }
        while table.poll_transmit(now).is_some() {}
        while table.poll_failed().is_some() {}
        assert!(
            table.len() <= 16 && table.timers.len() <= 16 && table.idle.len() == table.len(),
            "step {step}"
        );
        assert!(table.poll_timeout().is_none_or(|next| next > now));
    }
}

/// Two tables with the same history, of which one holds and the other resolves and retains: unknown, asked for, known, not
/// confirmed, let go, and forgotten.
#[test]
fn holding_is_resolving_and_retaining() {
    let (mut short, mut long) = (Neighbors::new(2), Neighbors::new(2));
    let alike = |short: &Neighbors, long: &Neighbors, when: i64| {
        let timers = (short.poll_timeout(), long.poll_timeout());
        assert_eq!(timers.0, timers.1, "at {when}");
        assert_eq!(format!("{:?}", short.entries), format!("{:?}", long.entries), "at {when}");
        assert_eq!(short.idle, long.idle, "at {when}");
    };
    for (when, neighbor) in
        [(0, 1), (1, 1), (500, 2), (700, 1), (40_000, 1), (70_000, 2), (70_001, 3), (70_002, 3)]
    {
        let held = short.hold(at(when), hop(neighbor));
        let resolved = long.resolve(at(when), hop(neighbor)).filter(|id| long.retain(*id));
        assert_eq!(held, resolved, "at {when}");
        alike(&short, &long, when);
        for table in [&mut short, &mut long] {
            while table.poll_transmit(at(when)).is_some() {}
            table.learn(at(when), &advertised(Some(MAC), when == 700, true));
            // One of two stays held, but for the last.
            if let Some(id) = held.filter(|_| when != 1 && when < 70_001) {
                table.release(at(when), id);
            }
        }
        alike(&short, &long, when);
    }
    let references = short.entries.iter().map(|entry| entry.references).sum::<u32>();
    assert_eq!((references, long.in_use()), (3, 2));
}
