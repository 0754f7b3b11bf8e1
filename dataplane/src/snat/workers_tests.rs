//! Several workers and one pool of pairs.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use super::tests::number;
use super::*;
use crate::header::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::steering::{Seat, Steering};

const PORTS: std::ops::RangeInclusive<u16> = 1000..=1499;
const PAIRS: usize = 1000;

/// A worker's allocator and what it has given.
struct Desk {
    ports: SnatPorts,
    steering: Steering,
    used: HashSet<FlowKey>,
    /// Allocations in a row that failed.
    refused: usize,
    /// Keys that were hashed, and fetched.
    looked_up: Cell<usize>,
}

impl Desk {
    fn new(pool: &SnatPool, seat: Seat) -> Self {
        let ports = SnatPorts::new(pool, seat.of, 70 + u64::from(seat.number));
        Desk {
            ports,
            steering: Steering::new(seat),
            used: HashSet::new(),
            refused: 0,
            looked_up: Cell::new(0),
        }
    }

    fn take(&mut self, protocol: u8, (source, source_port): (Address, u16)) -> Option<FlowKey> {
        let mut key = FlowKey { source, source_port, protocol, ..FlowKey::default() };
        let Desk { ports, steering, used, refused, looked_up } = self;
        let mut asked = 0;
        let here = |key: &FlowKey| steering.is_here(key);
        let look_up = |key: &FlowKey| {
            assert!(here(key), "another worker's: {key:?}");
            looked_up.set(looked_up.get() + 1);
            number(key)
        };
        let free = |key: &FlowKey, hash| {
            assert_eq!(hash, number(key), "{key:?}");
            asked += 1;
            !used.contains(key)
        };
        let given = ports.allocate(&mut key, here, look_up, free).is_some();
        assert!(asked <= 128 * usize::from(steering.seat().of), "{asked} tries");
        *refused = if given { 0 } else { *refused + 1 };
        assert!(!given || used.insert(key), "handed out twice: {key:?}");
        given.then_some(key)
    }
}

#[test]
fn several_workers_hand_out_each_pair_once_and_none_is_left() {
    let addresses = ["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"];
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let pool = SnatPool { addresses, first_port: *PORTS.start(), last_port: *PORTS.end() };
    let servers = ["10.1.0.7", "2001:db8:1::7"].map(|server| server.parse::<IpAddr>().unwrap());
    for of in [2, 3, 5] {
        for (server, protocol) in servers.iter().flat_map(|s| [PROTOCOL_TCP, PROTOCOL_UDP].map(|p| (*s, p))) {
            let mut desks: Vec<Desk> = Seat::all(of).map(|seat| Desk::new(&pool, seat)).collect();
            // As often as it takes to go through all pairs, 64 at a time.
            while desks.iter().any(|desk| desk.refused <= PAIRS / 64) {
                for desk in &mut desks {
                    desk.take(protocol, (server.into(), 53));
                }
            }
            let mut owners = HashMap::new();
            for (desk, number) in desks.iter().zip(0u8..) {
                assert!(desk.used.len() > PAIRS / usize::from(of) / 2, "{} of {PAIRS}", desk.used.len());
                for key in &desk.used {
                    assert!(PORTS.contains(&key.destination_port) && key.source == server.into());
                    let pair = (key.destination, key.destination_port);
                    assert_eq!(owners.insert(pair, number), None, "{pair:?} has two owners");
                }
            }
            assert_eq!(owners.len(), PAIRS, "{of} workers, {server}");
        }
    }
}

/// Long-lived flows in one piece of the order, as after a start of many clients at once: to each worker most pairs of that
/// piece are another's, and its own are in use.
#[test]
fn each_of_several_workers_passes_a_crowd_of_long_lived_flows() {
    let pool = SnatPool { addresses: vec!["10.0.0.1".parse().unwrap()], first_port: 1000, last_port: 10_999 };
    let server = (Address::from_v4([10, 1, 0, 7]), 53);
    for of in [2, 3, 5] {
        for seat in Seat::all(of) {
            let mut desk = Desk::new(&pool, seat);
            for _ in 0..8000 / u32::from(of) {
                desk.take(PROTOCOL_UDP, server).unwrap();
            }
            let mut recent = VecDeque::new();
            for n in 0..1000 {
                let key = desk.take(PROTOCOL_UDP, server);
                recent.push_back(key.unwrap_or_else(|| panic!("{seat:?}: none after {n}")));
                if recent.len() > 100 {
                    let oldest = recent.pop_front().unwrap();
                    desk.used.remove(&oldest);
                }
            }
        }
    }
}
