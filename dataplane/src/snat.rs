//! Source addresses and ports towards servers.

use crate::address::{Address, FlowKey};
use crate::flow_table::hash::Hasher;
use crate::snapshot::SnatPool;

/// Pairs that an allocation tries in the order of the cursor.
const IN_ORDER: u64 = 64;

/// Pairs that it tries anywhere, when those were all in use.
const ANYWHERE: u64 = 64;

/// Pairs, for each worker, among which the next one is looked for before its flow begins.
const AHEAD: u64 = 4;

/// Cursors per address family: servers share one by chance.
const CURSORS: usize = 1024;

/// Hands out pairs of SNAT address and port; one per worker.
///
/// What must be unique is the whole tuple towards a server: the same pair serves flows to different servers at the same
/// time, so one address with 60,000 ports carries 60,000 flows per protocol and *server*. Whether a
/// tuple is in use is the flow table's knowledge, asked through `is_free`: there is nothing to give back, and nothing that could
/// disagree with the table.
///
/// Of several workers each takes the pairs whose replies come back to it (`is_here` says so), one of as many as there are workers; it
/// tries that many times more pairs for it.
///
/// Each server has a cursor, which goes through all pairs in an order that visits each once and that outsiders cannot
/// foresee (RFC 6056, 3.3.4: a counter per destination). So a pair that became free comes last again, and the server
/// has all that time for its TIME_WAIT. Where the next 64 pairs are in use (a crowd of long-lived flows), 64 more are
/// tried anywhere: with nine pairs of ten in use an allocation still fails only once in 800. The cursor stays behind
/// what it has tried, so failed allocations in a row go through all pairs, 64 at a time, and every free pair is found.
/// With up to 128 pairs each allocation tries all of them.
///
/// Costs one lookup nearly always, 128 (for each worker) at most. What that reads was fetched when the flow before it to the
/// same server began: the next pair is known by then, but for one time in fifty with several workers. Memory: 64 KB per address family, and the addresses.
#[derive(Debug)]
pub struct SnatPorts {
    v4: Pairs,
    v6: Pairs,
    hasher: Hasher,
    /// Counts the tries anywhere.
    tries: u64,
}

impl SnatPorts {
    /// For a pool of the configuration, shared by so many workers. `seed` must be secret.
    #[must_use]
    pub fn new(pool: &SnatPool, workers: u8, seed: u64) -> Self {
        let hasher = Hasher::new(seed);
        let family = |v4: bool| {
            let addresses = pool.addresses.iter().filter(|address| address.is_ipv4() == v4);
            let addresses = addresses.map(|&address| address.into()).collect();
            Pairs::new(addresses, pool, u64::from(workers.max(1)), &hasher)
        };
        SnatPorts { v4: family(true), v6: family(false), hasher, tries: 0 }
    }

    /// Address and port from which a new flow may go to a server. `key` is that of the packets that come back: with the
    /// server as its source it goes in, and with the pair as its destination it comes out.
    ///
    /// The pair is the first one with which replies would arrive here, as `is_here` says, and for which `is_free`, asked with the
    /// key and its hash, says yes; the hash is the result. `look_up` gives the hash of a key that is here, and lets come from
    /// memory what `is_free` reads of it; it is also called with the key that the next flow to this server is likely to get.
    ///
    /// `None`: all pairs that were tried are refused, or there is no address of the server's family.
    #[inline]
    pub fn allocate(
        &mut self,
        key: &mut FlowKey,
        is_here: impl Fn(&FlowKey) -> bool,
        look_up: impl Fn(&FlowKey) -> u64,
        mut is_free: impl FnMut(&FlowKey, u64) -> bool,
    ) -> Option<u64> {
        let SnatPorts { v4, v6, hasher, tries } = self;
        let pairs = if key.source.is_v4() { v4 } else { v6 };
        (key.destination, key.destination_port) = (key.source, 0);
        let cursor = hasher.hash(key) as usize % CURSORS;
        let mut ready = pairs.take_ready(cursor, key);
        for _ in 0..pairs.in_order {
            let known = ready.take();
            if known.is_none() {
                let place = pairs.advance(cursor);
                pairs.lay(place, key)?;
            }
            // What is ready was here when it was made so.
            let hash = is_here(key).then(|| known.unwrap_or_else(|| look_up(key)));
            if let Some(hash) = hash.filter(|hash| is_free(key, *hash)) {
                pairs.make_ready(cursor, key, &is_here, &look_up);
                return Some(hash);
            }
        }
        (0..pairs.anywhere).find_map(|_| {
            *tries = tries.wrapping_add(1);
            pairs.lay(hasher.hash_number(*tries) % pairs.count, key)?;
            let hash = is_here(key).then(|| look_up(key))?;
            is_free(key, hash).then_some(hash)
        })
    }
}

/// How far the flows to a server have come: a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Cursor {
    /// The pair that was tried last.
    place: u64,
    /// The key with the next one that is here, for the server that had the last one, its hash and its place; no flow's without a
    /// protocol.
    ready: FlowKey,
    hash: u64,
    next: u64,
}

/// The pairs of one address family, numbered: all addresses with the first port, then all with the second one, ...
#[derive(Debug)]
struct Pairs {
    addresses: Vec<Address>,
    /// Divides by their number.
    divisor: Divisor,
    first_port: u16,
    /// How many there are.
    count: u64,
    /// From one pair to the next one: coprime to their number, so that all are visited.
    step: u64,
    /// How many an allocation tries in the order of the cursor, and then anywhere.
    in_order: u64,
    anywhere: u64,
    /// How many are looked at for one that can be made ready.
    ahead: u64,
    cursors: Vec<Cursor>,
}

impl Pairs {
    fn new(addresses: Vec<Address>, pool: &SnatPool, workers: u64, hasher: &Hasher) -> Self {
        let ports = (u64::from(pool.last_port) + 1).saturating_sub(u64::from(pool.first_port));
        let count = addresses.len() as u64 * ports;
        let some = count.max(1);
        let wanted = hasher.hash_number(u64::MAX) % some;
        let step = (wanted..some).chain(1..wanted).find(|&step| coprime(step, some)).unwrap_or(0);
        let cursor = |n| Cursor { place: hasher.hash_number(u64::MAX - 1 - n) % some, ..Cursor::default() };
        let cursors = (0..CURSORS as u64).map(cursor).collect();
        let divisor = Divisor::new(addresses.len() as u64);
        let (in_order, anywhere) = match count <= (IN_ORDER + ANYWHERE) * workers {
            true => (count, 0),
            false => (IN_ORDER * workers, ANYWHERE * workers),
        };
        let ahead = AHEAD * workers;
        Pairs {
            addresses,
            divisor,
            first_port: pool.first_port,
            count,
            step,
            in_order,
            anywhere,
            ahead,
            cursors,
        }
    }

    /// Moves a cursor on; there must be pairs.
    #[inline]
    fn advance(&mut self, cursor: usize) -> u64 {
        let (step, count) = (self.step, self.count);
        self.cursors.get_mut(cursor).map_or(0, |cursor| {
            cursor.place = after(cursor.place, step, count);
            cursor.place
        })
    }

    /// Completes a key with a pair.
    #[inline]
    fn lay(&self, place: u64, key: &mut FlowKey) -> Option<()> {
        (key.destination, key.destination_port) = self.pair(place)?;
        Some(())
    }

    /// Completes a key with the pair that has been made ready for this server, if one has, and moves the cursor to it; the key's
    /// hash.
    #[inline]
    fn take_ready(&mut self, cursor: usize, key: &mut FlowKey) -> Option<u64> {
        let Cursor { place, ready, hash, next } = self.cursors.get_mut(cursor)?;
        let server = |key: &FlowKey| (key.source, key.source_port, key.protocol);
        let same = server(ready) == server(key);
        // Whoever is next makes the cursor go on, and may be refused.
        ready.protocol = 0;
        same.then(|| {
            (key.destination, key.destination_port) = (ready.destination, ready.destination_port);
            *place = *next;
            *hash
        })
    }

    /// Completes the key of the next flow to the same server. The cursor stays: another server may be next.
    #[inline]
    fn make_ready(
        &mut self,
        cursor: usize,
        key: &FlowKey,
        is_here: impl Fn(&FlowKey) -> bool,
        look_up: impl Fn(&FlowKey) -> u64,
    ) {
        let Some(&Cursor { place: mut next, .. }) = self.cursors.get(cursor) else { return };
        let mut ready = *key;
        for _ in 0..self.ahead {
            next = after(next, self.step, self.count);
            if self.lay(next, &mut ready).is_none() {
                return;
            }
            if is_here(&ready) {
                let hash = look_up(&ready);
                if let Some(cursor) = self.cursors.get_mut(cursor) {
                    *cursor = Cursor { ready, hash, next, ..*cursor };
                }
                return;
            }
        }
    }

    #[inline]
    fn pair(&self, place: u64) -> Option<(Address, u16)> {
        let port = self.divisor.quotient(place);
        let address = self.addresses.get((place - port * self.addresses.len() as u64) as usize)?;
        Some((*address, u16::try_from(u64::from(self.first_port) + port).ok()?))
    }
}

/// The place behind another one, `step` further in a ring of `count`.
#[inline]
fn after(place: u64, step: u64, count: u64) -> u64 {
    let next = place + step;
    if next >= count { next - count } else { next }
}

/// Divides by a number that stays the same with one multiplication.
#[derive(Clone, Copy, Debug)]
struct Divisor {
    /// 2^64 divided by the number, a little less at most.
    reciprocal: u64,
}

impl Divisor {
    fn new(number: u64) -> Self {
        Divisor { reciprocal: u64::MAX / number.max(1) }
    }

    /// The whole part of `n` divided by the number, if the product of the number and `n + 1` is not above 2^64. The product
    /// below is less than `(n + 1) / number`, by no more than `(n + 1) / 2^64`, that is by no more than `1 / number`: too
    /// little to pass a whole number, other than `(n + 1) / number` itself.
    #[inline]
    fn quotient(self, n: u64) -> u64 {
        (((u128::from(n) + 1) * u128::from(self.reciprocal)) >> 64) as u64
    }
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod workers_tests;

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;
    use crate::header::{PROTOCOL_TCP, PROTOCOL_UDP};

    const SEEDS: std::ops::Range<u64> = 40..50;

    fn pool(addresses: &[&str], first_port: u16, last_port: u16) -> SnatPool {
        SnatPool { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), first_port, last_port }
    }

    fn server(n: u8) -> (Address, u16) {
        (Address::from_v4([10, 1, 0, n]), 53)
    }

    /// The key of a pair that is given for a flow to a server, if any is.
    fn given(
        ports: &mut SnatPorts,
        protocol: u8,
        (source, source_port): (Address, u16),
        mut is_free: impl FnMut(&FlowKey) -> bool,
    ) -> Option<FlowKey> {
        let mut key = FlowKey { source, source_port, protocol, ..FlowKey::default() };
        let given = ports.allocate(
            &mut key,
            |_| true,
            number,
            |key, hash| {
                assert_eq!(hash, number(key), "{key:?}");
                is_free(key)
            },
        );
        assert_eq!((key.source, key.source_port, key.protocol), (source, source_port, protocol));
        given.map(|hash| {
            assert_eq!(hash, number(&key));
            key
        })
    }

    /// In the place of a hash.
    pub(super) fn number(key: &FlowKey) -> u64 {
        let FlowKey { source, destination, source_port, destination_port, protocol, .. } = *key;
        let ports = u64::from(source_port) << 24 | u64::from(destination_port) << 8 | u64::from(protocol);
        let ends = u128::from_ne_bytes(source.0) ^ u128::from_ne_bytes(destination.0).rotate_left(1);
        (ends as u64 ^ (ends >> 64) as u64).rotate_left(40) ^ ports
    }

    /// What a flow table would know, and an allocator on it.
    struct Side {
        ports: SnatPorts,
        used: HashSet<FlowKey>,
        asked: usize,
    }

    impl Side {
        fn new(pool: &SnatPool, seed: u64) -> Self {
            Side { ports: SnatPorts::new(pool, 1, seed), used: HashSet::new(), asked: 0 }
        }

        fn take(&mut self, server: (Address, u16)) -> Option<FlowKey> {
            self.asked = 0;
            let (used, asked) = (&self.used, &mut self.asked);
            let key = given(&mut self.ports, PROTOCOL_UDP, server, |key| {
                *asked += 1;
                !used.contains(key)
            })?;
            assert!(self.used.insert(key), "handed out twice: {key:?}");
            Some(key)
        }
    }

    #[test]
    fn a_small_range_is_used_up_refused_and_found_again_at_once() {
        for (first, last) in [(1024, 1024), (1, 60), (65_500, 65_535), (5000, 5006)] {
            for seed in SEEDS {
                let pool = pool(&["10.0.0.1", "10.0.0.2", "2001:db8::1"], first, last);
                let mut side = Side::new(&pool, seed);
                let pairs = 2 * (usize::from(last - first) + 1);
                let given: Vec<FlowKey> = (0..pairs).map_while(|_| side.take(server(1))).collect();
                assert_eq!(given.len(), pairs, "seed {seed}");
                let inside = |k: &FlowKey| (first..=last).contains(&k.destination_port);
                assert!(given.iter().all(inside), "seed {seed}");
                assert_eq!(side.take(server(1)), None, "seed {seed}");
                assert_eq!(side.asked, pairs, "all pairs were tried, seed {seed}");
                assert!(side.take(server(2)).is_some(), "another server has all pairs for itself");
                for key in given.iter().step_by(3) {
                    side.used.remove(key);
                    assert_eq!(side.take(server(1)), Some(*key), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_large_range_is_used_to_the_last_pair_with_bounded_work() {
        for seed in SEEDS.take(3) {
            let mut side = Side::new(&pool(&["10.0.0.1", "10.0.0.2"], 1000, 1999), seed);
            let mut refused = 0;
            while side.used.len() < 2000 {
                let taken = side.take(server(1));
                assert!(side.asked <= 128, "{} tries, seed {seed}", side.asked);
                refused = if taken.is_some() { 0 } else { refused + 1 };
                assert!(refused <= 2000 / 64 + 1, "{} of 2000, seed {seed}", side.used.len());
            }
            assert_eq!(side.take(server(1)), None);
        }
    }

    /// Long-lived flows in one piece of the order, as after a start of many clients at once.
    #[test]
    fn a_crowd_of_long_lived_flows_is_passed() {
        let (mut failed, mut slow) = (0, 0);
        for seed in SEEDS {
            let mut side = Side::new(&pool(&["10.0.0.1"], 1000, 10_999), seed);
            for _ in 0..8000 {
                side.take(server(1)).unwrap();
            }
            let mut recent = VecDeque::new();
            for _ in 0..4000 {
                match side.take(server(1)) {
                    Some(key) => recent.push_back(key),
                    None => failed += 1,
                }
                slow += usize::from(side.asked > 64);
                if recent.len() > 500 {
                    let oldest = recent.pop_front().unwrap();
                    side.used.remove(&oldest);
                }
            }
        }
        assert!(slow > 0, "the crowd was never met, seeds {SEEDS:?}");
        assert_eq!(failed, 0, "seeds {SEEDS:?}");
    }

    #[test]
    fn a_pair_that_became_free_comes_last() {
        for seed in SEEDS {
            let mut side = Side::new(&pool(&["10.0.0.1", "10.0.0.3"], 1000, 1499), seed);
            let first = side.take(server(1)).unwrap();
            side.used.clear();
            let others: HashSet<FlowKey> = (0..999).map(|_| side.take(server(1)).unwrap()).collect();
            assert!(!others.contains(&first), "seed {seed}");
            assert_eq!(side.take(server(1)), Some(first), "seed {seed}");
        }
    }

    #[test]
    fn flows_to_other_servers_do_not_turn_the_order_faster() {
        let mut side = Side::new(&pool(&["10.0.0.1"], 1000, 1999), 7);
        let first = side.take(server(1)).unwrap();
        side.used.clear();
        for _ in 0..20_000 {
            side.take(server(2)).unwrap();
            side.used.clear();
        }
        assert_ne!(side.take(server(1)), Some(first));
    }

    /// Two servers that share a cursor: what was made ready for one is not given to the other, and the order stays that of one
    /// cursor. The first of them finds its pair ready, which `look_up` says by not being asked about it again.
    #[test]
    fn the_next_pair_is_looked_up_before_its_flow_begins() {
        let mut ports = SnatPorts::new(&pool(&["10.0.0.1"], 1000, 1999), 1, 5);
        let cursor = |ports: &SnatPorts, (source, source_port): (Address, u16)| {
            let key = FlowKey {
                source,
                source_port,
                destination: source,
                protocol: PROTOCOL_UDP,
                ..FlowKey::default()
            };
            ports.hasher.hash(&key) as usize % CURSORS
        };
        let one = server(1);
        let same = |port: &u16| cursor(&ports, (one.0, *port)) == cursor(&ports, one);
        let other = (one.0, (54..=u16::MAX).find(same).unwrap());
        let mut take = |(source, source_port): (Address, u16)| {
            let mut key = FlowKey { source, source_port, protocol: PROTOCOL_UDP, ..FlowKey::default() };
            let seen = std::cell::RefCell::new(Vec::new());
            let look_up = |key: &FlowKey| {
                seen.borrow_mut().push((key.source_port, key.destination_port));
                number(key)
            };
            let hash = ports.allocate(&mut key, |_| true, look_up, |_, _| true).unwrap();
            assert_eq!(hash, number(&key));
            (key.destination_port, seen.into_inner())
        };
        let (first, seen) = take(one);
        let [(_, taken), (_, second)] = *seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(taken, first);
        let (port, seen) = take(one);
        let [(53, third)] = *seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(port, second);
        let (port, seen) = take(other);
        let [(source, taken), (_, fourth)] = *seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((port, source, taken), (third, other.1, third));
        let (port, seen) = take(one);
        assert_eq!((port, seen.len()), (fourth, 2));
    }

    /// A server that is refused all pairs makes the cursor go on: the next one must not begin where it was before.
    #[test]
    fn a_refusal_lets_nothing_be_ready() {
        for seed in SEEDS {
            let mut ports = SnatPorts::new(&pool(&["10.0.0.1"], 1000, 1999), 1, seed);
            let mut asked = Vec::new();
            assert!(given(&mut ports, PROTOCOL_UDP, server(1), |_| true).is_some());
            assert!(
                given(&mut ports, PROTOCOL_UDP, server(1), |key| {
                    asked.push(key.destination_port);
                    false
                })
                .is_none()
            );
            let port = given(&mut ports, PROTOCOL_UDP, server(1), |_| true).unwrap().destination_port;
            let in_order = asked.get(..IN_ORDER as usize).unwrap();
            assert!(!in_order.contains(&port), "{port}, seed {seed}");
        }
    }

    #[test]
    fn a_filter_narrows_the_choice() {
        let mut ports = SnatPorts::new(&pool(&["10.0.0.1"], 1000, 1999), 1, 5);
        for _ in 0..100 {
            let odd = |key: &FlowKey| key.destination_port % 2 == 1;
            assert_eq!(given(&mut ports, PROTOCOL_TCP, server(1), odd).unwrap().destination_port % 2, 1);
        }
    }

    #[test]
    fn the_family_of_the_server_decides() {
        let mut both = SnatPorts::new(&pool(&["10.0.0.1", "2001:db8::1"], 1000, 1001), 1, 3);
        let v6 = (Address::from("2001:db8::5".parse::<std::net::IpAddr>().unwrap()), 80);
        let given = |ports: &mut SnatPorts, server| given(ports, PROTOCOL_TCP, server, |_| true);
        assert!(!given(&mut both, v6).unwrap().destination.is_v4());
        assert!(given(&mut both, server(1)).unwrap().destination.is_v4());
        let mut one = SnatPorts::new(&pool(&["10.0.0.1"], 1000, 1001), 1, 3);
        assert_eq!(given(&mut one, v6), None);
        assert_eq!(given(&mut SnatPorts::new(&pool(&[], 1000, 1001), 1, 3), server(1)), None);
        assert_eq!(given(&mut SnatPorts::new(&pool(&["10.0.0.1"], 1001, 1000), 1, 3), server(1)), None);
    }

    #[test]
    fn the_order_depends_on_the_seed_and_is_not_plain() {
        let order = |seed| {
            let mut side = Side::new(&pool(&["10.0.0.1"], 1000, 1999), seed);
            (0..50).map(|_| side.take(server(1)).unwrap().destination_port).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(order(1).windows(2).any(|pair| pair[1] != pair[0] + 1));
    }

    #[test]
    fn a_quotient_is_exact_wherever_it_is_promised() {
        for number in
            [1, 2, 3, 5, 7, 32, 33, 62, 255, 256, 257, 65_535, 65_536, 65_537, (1 << 24) - 1, 1 << 24]
        {
            let divisor = Divisor::new(number);
            let last = number * 65_536 - 1;
            let edges = (0..=65_535).map(|q| q * number);
            for n in edges.flat_map(|edge| [edge.saturating_sub(1), edge, (edge + 1).min(last)]).chain([last])
            {
                assert_eq!(divisor.quotient(n), n / number, "{n} / {number}");
            }
        }
    }
}
