use std::collections::HashMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::snapshot::Protocol;

const SEED: u64 = 0xf10e;

/// A different key for each number; clients and servers apart, IPv4 and IPv6 mixed, also within a flow.
fn key(direction: Direction, n: u32) -> FlowKey {
    let octets = n.to_be_bytes();
    let (near, near6, part): (SocketAddr, SocketAddr, u32) = match direction {
        Direction::FromClient => ("192.0.2.1:443".parse().unwrap(), "[2001:db8:1::1]:53".parse().unwrap(), 3),
        Direction::FromServer => ("10.9.9.9:2000".parse().unwrap(), "[2001:db8:2::1]:99".parse().unwrap(), 4),
    };
    if n.is_multiple_of(part) {
        let far = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, (n >> 16) as u16, n as u16], 1024));
        return FlowKey::new(Protocol::Tcp, far, near6);
    }
    FlowKey::new(Protocol::Tcp, SocketAddr::from((octets, 1024 + (n % 7) as u16)), near)
}

fn client(n: u32) -> FlowKey {
    key(Direction::FromClient, n)
}

fn server(n: u32) -> FlowKey {
    key(Direction::FromServer, n)
}

/// Fills a table to the last flow, both keys each, and looks at everything.
fn fill(capacity: u32, seed: u64) {
    // Where the memory for IPv6 comes from makes no difference to what is found.
    let mut table = FlowTable::new(capacity, seed, capacity.is_multiple_of(2)).unwrap();
    let mut ids = Vec::new();
    for n in 0..capacity {
        let id = table.insert(client(n)).unwrap_or_else(|e| panic!("{n} of {capacity}, seed {seed}: {e}"));
        table.bind(id, server(n)).unwrap_or_else(|e| panic!("{n} of {capacity}, seed {seed}: {e}"));
        ids.push(id);
    }
    assert_eq!((table.len(), table.capacity()), (capacity, capacity));
    assert_eq!(table.insert(client(capacity)), Err(FlowTableError::Full));
    for (id, n) in ids.iter().zip(0..) {
        assert_eq!(table.lookup(&client(n)), Some((*id, Direction::FromClient)), "seed {seed}");
        assert_eq!(table.lookup(&server(n)), Some((*id, Direction::FromServer)), "seed {seed}");
    }
    assert_eq!(table.lookup(&client(capacity)), None);
    for id in &ids {
        assert!(table.remove(*id));
    }
    assert!(table.is_empty());
    assert!((0..capacity).all(|n| table.lookup(&client(n)).is_none() && table.lookup(&server(n)).is_none()));
    assert!(capacity == 0 || table.insert(client(1)).is_ok());
}

/// Whatever the capacity, but for the least index, and not a byte less than has to be said.
#[test]
fn flows_take_what_is_said() {
    for capacity in [64, 192, 1000, 4097, 65_536, 300_001] {
        let table = FlowTable::new(capacity, SEED, true).unwrap();
        let flows = table.capacity() as usize;
        let taken = size_of_val(&*table.flows) + table.index.bytes();
        let least = if capacity > 192 { 0 } else { 4096 };
        assert!(taken <= flows * FlowTable::FLOW_BYTES + least, "{taken} for {capacity}");
        assert!(taken > flows * (FlowTable::FLOW_BYTES - 1), "{taken} for {capacity}");
        assert_eq!(size_of_val(&*table.wide), flows * FlowTable::WIDE_BYTES);
    }
}

#[test]
fn a_table_takes_as_many_flows_as_it_was_made_for() {
    for capacity in [0, 1, 2, 3, 8, 100, 192, 193, 1000, 4096, 50_021] {
        for seed in SEED..SEED + if capacity < 10_000 { 5 } else { 1 } {
            fill(capacity, seed);
        }
    }
}

#[test]
fn the_stages_of_a_lookup_agree() {
    let mut table = FlowTable::new(10, SEED, true).unwrap();
    let id = table.insert(client(1)).unwrap();
    for n in 0..100 {
        let hash = table.hash(&client(n));
        table.prefetch_bucket(hash);
        table.prefetch_entry(hash);
        let expected = (n == 1).then_some((id, Direction::FromClient));
        assert_eq!(table.find(hash, &client(n)), expected);
    }
}

#[test]
fn a_key_has_one_flow() {
    let mut table = FlowTable::new(10, SEED, true).unwrap();
    let (a, b) = (table.insert(client(1)).unwrap(), table.insert(client(2)).unwrap());
    assert_eq!(table.insert(client(1)), Err(FlowTableError::AlreadyThere));
    table.bind(a, server(1)).unwrap();
    assert_eq!(table.bind(b, server(1)), Err(FlowTableError::AlreadyThere));
    assert_eq!(table.bind(b, client(1)), Err(FlowTableError::AlreadyThere));
    assert_eq!(table.insert(server(1)), Err(FlowTableError::AlreadyThere));
    assert!(!table.flow(b).unwrap().is_bound());
    assert_eq!((table.len(), table.lookup(&server(1))), (2, Some((a, Direction::FromServer))));
}

#[test]
fn a_new_server_key_replaces_the_old_one_and_a_refused_one_does_not() {
    let mut table = FlowTable::new(10, SEED, true).unwrap();
    let (a, b) = (table.insert(client(1)).unwrap(), table.insert(client(2)).unwrap());
    table.bind(a, server(1)).unwrap();
    table.bind(b, server(2)).unwrap();
    assert_eq!(table.bind(a, server(2)), Err(FlowTableError::AlreadyThere));
    assert_eq!(table.lookup(&server(1)), Some((a, Direction::FromServer)));
    table.bind(a, server(3)).unwrap();
    assert_eq!(table.lookup(&server(1)), None);
    assert_eq!(table.lookup(&server(3)), Some((a, Direction::FromServer)));
    table.unbind(a);
    assert_eq!(table.lookup(&server(3)), None);
    assert_eq!(table.lookup(&client(1)), Some((a, Direction::FromClient)));
}

#[test]
fn a_stale_id_reaches_nothing() {
    let mut table = FlowTable::new(1, SEED, true).unwrap();
    let old = table.insert(client(1)).unwrap();
    table.bind(old, server(1)).unwrap();
    table.flow_mut(old).unwrap().client_bytes = 5;
    assert!(table.remove(old) && !table.remove(old));
    let new = table.insert(client(2)).unwrap();
    assert_eq!((new.index, table.flow_at(0)), (old.index, Some(new)));
    assert_ne!(new, old);
    assert!(table.flow(old).is_none() && table.flow_mut(old).is_none());
    assert_eq!(table.bind(old, server(5)), Err(FlowTableError::Stale));
    table.unbind(old);
    assert!(!table.remove(old));
    let flow = table.flow(new).unwrap();
    assert_eq!((flow.client_bytes, flow.is_bound(), flow.client_key()), (0, false, client(2)));
}

#[test]
fn a_listing_sees_every_flow_once_and_survives_removals() {
    let mut table = FlowTable::new(100, SEED, true).unwrap();
    let ids: Vec<FlowId> = (0..50).map(|n| table.insert(client(n)).unwrap()).collect();
    for id in ids.iter().step_by(3) {
        table.remove(*id);
    }
    let left: Vec<FlowId> = (0..50).filter(|n| n % 3 != 0).map(|n| ids[n]).collect();
    assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), left);
    assert_eq!(table.live_in(0..10).count() + table.live_in(10..200).count(), left.len());
    let mut seen = Vec::new();
    let mut at = table.next_after(None);
    while let Some(id) = at {
        seen.push(id);
        table.remove(id);
        at = table.next_after(Some(id));
    }
    assert_eq!((seen, table.len()), (left, 0));
}

#[test]
fn a_capacity_out_of_bounds_is_refused() {
    assert!(matches!(FlowTable::new(u32::MAX, SEED, true), Err(ArenaError::TooLarge { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Bind(usize, u32),
    Unbind(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..200u32).prop_map(Step::Insert),
        4 => (any::<usize>(), 0..200u32).prop_map(|(id, n)| Step::Bind(id, n)),
        1 => any::<usize>().prop_map(Step::Unbind),
        2 => any::<usize>().prop_map(Step::Remove),
    ]
}

/// The table and what it should hold: the numbers of the keys of each flow.
struct Pair {
    table: FlowTable,
    model: HashMap<FlowId, (u32, Option<u32>)>,
    /// All ids ever given, so that stale ones are tried, too.
    ids: Vec<FlowId>,
}

impl Pair {
    fn pick(&self, n: usize) -> FlowId {
        // A place that is never used, as long as there are no ids.
        let none = FlowId { index: 99_999, generation: 1 };
        self.ids.get(n % self.ids.len().max(1)).copied().unwrap_or(none)
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Insert(n) => {
                let expected = if self.model.values().any(|f| f.0 == n) {
                    Err(FlowTableError::AlreadyThere)
                } else if self.model.len() == self.table.capacity() as usize {
                    Err(FlowTableError::Full)
                } else {
                    Ok(())
                };
                let result = self.table.insert(client(n));
                assert_eq!(result.map(drop), expected);
                if let Ok(id) = result {
                    assert!(self.model.insert(id, (n, None)).is_none());
                    self.ids.push(id);
                }
            }
            Step::Bind(id, n) => {
                let id = self.pick(id);
                let taken = self.model.values().any(|f| f.1 == Some(n));
                let expected = match self.model.get_mut(&id) {
                    None => Err(FlowTableError::Stale),
                    Some(_) if taken => Err(FlowTableError::AlreadyThere),
                    Some(flow) => {
                        flow.1 = Some(n);
                        Ok(())
                    }
                };
                assert_eq!(self.table.bind(id, server(n)), expected);
            }
            Step::Unbind(id) => {
                let id = self.pick(id);
                self.table.unbind(id);
                self.model.entry(id).and_modify(|flow| flow.1 = None);
            }
            Step::Remove(id) => {
                let id = self.pick(id);
                assert_eq!(self.table.remove(id), self.model.remove(&id).is_some());
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.table.len() as usize, self.model.len());
        let clients: HashMap<u32, FlowId> = self.model.iter().map(|(id, f)| (f.0, *id)).collect();
        let servers: HashMap<u32, FlowId> =
            self.model.iter().filter_map(|(id, f)| Some((f.1?, *id))).collect();
        for n in 0..200 {
            let expected = clients.get(&n).map(|id| (*id, Direction::FromClient));
            assert_eq!(self.table.lookup(&client(n)), expected);
            let expected = servers.get(&n).map(|id| (*id, Direction::FromServer));
            assert_eq!(self.table.lookup(&server(n)), expected);
        }
        for id in &self.ids {
            let keys = self.table.flow(*id).map(|f| (f.client_key(), f.is_bound().then_some(f.server_key())));
            assert_eq!(keys, self.model.get(id).map(|f| (client(f.0), f.1.map(server))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, rng_seed: RngSeed::Fixed(SEED), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_agrees_with_a_map(capacity in 1..80u32, steps in proptest::collection::vec(step(), 0..400)) {
        let table = FlowTable::new(capacity, SEED, true).unwrap();
        let mut pair = Pair { table, model: HashMap::new(), ids: Vec::new() };
        for (n, step) in steps.iter().enumerate() {
            pair.apply(step);
            if n % 50 == 0 {
                pair.compare();
            }
        }
        pair.compare();
    }
}
