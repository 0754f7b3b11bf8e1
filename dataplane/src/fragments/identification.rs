//! Identifications of datagrams that leave in fragments.

use crate::address::{Address, FlowKey};
use crate::flow_table::hash::Hasher;

/// Counters; a power of two.
const COUNTERS: usize = 1024;

/// Numbers that tell the datagrams of one source, destination and protocol apart (RFC 6864, 4.3). Many clients share
/// weir's SNAT addresses, so their own identifications cannot stay (RFC 6864, 5.3).
///
/// One counter for all triples of the same hash: none of them sees a number again before 65,536 datagrams, and whoever
/// watches his own learns nothing of those of others.
#[derive(Debug)]
pub(super) struct Identifications {
    hasher: Hasher,
    counters: Vec<u16>,
}

impl Identifications {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = Hasher::new(seed);
        let counters = (0..COUNTERS as u64).map(|place| hasher.hash_number(place) as u16).collect();
        Identifications { hasher, counters }
    }

    pub(super) fn next(&mut self, source: [u8; 4], destination: [u8; 4], protocol: u8) -> u16 {
        let (source, destination) = (Address::from_v4(source), Address::from_v4(destination));
        let key = FlowKey { source, destination, protocol, ..FlowKey::default() };
        let place = self.hasher.hash(&key) as usize % COUNTERS;
        self.counters.get_mut(place).map_or(0, |counter| {
            *counter = counter.wrapping_add(1);
            *counter
        })
    }
}
