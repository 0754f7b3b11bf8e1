//! All flows of one worker, found by the keys of both directions.

pub(crate) mod hash;
mod index;
mod wide;

use std::ops::Range;

use arena::{Arena, ArenaError};

use crate::address::FlowKey;
pub use crate::flow::Direction;
use crate::flow::{Flow, FlowRef, Wide};
use hash::Hasher;
use index::Index;

/// A flow of one [`FlowTable`]; of no flow at all once that flow has ended, even if its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// The place: below [`FlowTable::capacity`]. Timers are kept by it.
    pub index: u32,
    /// Which of the flows that have been in that place.
    pub generation: u32,
}

/// Bytes that the processor fetches at a time.
const LINE: usize = 64;

/// Where a flow may be: what the fast path keeps of a packet between the stages of its lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot(u32);

impl Spot {
    /// There is no such flow: no entry of the index has this number.
    pub(crate) const NONE: Spot = Spot(u32::MAX);
}

/// The second place where the index may know a hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OtherBucket(u32);

/// The hashes of the keys of a flow: what it is found by in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    client: u64,
    server: Option<u64>,
}

/// Why a flow or a key was not taken in. The table is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowTableError {
    /// As many flows as the table was made for.
    #[error("the flow table is full")]
    Full,
    /// Packets with that key belong to another flow already.
    #[error("the key belongs to another flow")]
    AlreadyThere,
    /// The flow has ended.
    #[error("the flow has ended")]
    Stale,
}

/// The flows of one worker: records in one arena, found through a hash index with up to two keys per flow.
///
/// For a burst: [`hash`](Self::hash) and [`prefetch_bucket`](Self::prefetch_bucket) for all packets, then
/// [`prefetch_entry`](Self::prefetch_entry) for all, then [`find`](Self::find) one by one: the misses in the cache
/// overlap. The fast path has stages of its own with the same aim, which touch less: `prefetch_bucket`, `spot`,
/// `prefetch_spot` and `prefetch_splice`, `plain_mut`; over IPv6 `hash_wide`, `prefetch_wide` and
/// `plain_wide_mut` (`wide.rs`).
///
/// For one flow: [`insert`](Self::insert), [`bind`](Self::bind) when its server is known (and [`unbind`](Self::unbind) to try
/// another), [`remove`](Self::remove).
///
/// A flow costs 128 bytes and 22 bytes of index, which are there from the start, and 64 more with an address of IPv6. A lookup
/// reads one or two cache lines of the index and, only if there is a flow, that flow. The hash is keyed, so that nobody who
/// does not know the seed can pile up keys in one place.
#[derive(Debug)]
pub struct FlowTable {
    flows: Arena<Flow>,
    /// Addresses of flows that are not IPv4 alone, by the same places.
    wide: Arena<Wide>,
    index: Index,
    hasher: Hasher,
    live: u32,
    /// Places that were in use at some time: all from 0 to this.
    touched: u32,
    /// Index + 1 of the first free place among those, 0 for none.
    free: u32,
}

impl FlowTable {
    /// The largest capacity.
    pub const MAX_CAPACITY: u32 = 1 << 30;

    /// Bytes that each flow of the capacity takes: its record, and two entries of the index with their part of the slots that
    /// stay free. A small table has a larger index than this.
    pub const FLOW_BYTES: usize = size_of::<Flow>() + index::BYTES_OF_TWO;

    /// Bytes that each takes besides, where flows have addresses of IPv6.
    pub const WIDE_BYTES: usize = size_of::<Wide>();

    /// A table for `capacity` flows. `seed` must be secret and different for each start of the process. Without `ipv6` the
    /// memory for such addresses is taken only by the flows that have one, when they begin.
    ///
    /// # Errors
    /// [`ArenaError`] if there is no memory, `TooLarge` above [`FlowTable::MAX_CAPACITY`].
    pub fn new(capacity: u32, seed: u64, ipv6: bool) -> Result<Self, ArenaError> {
        if capacity > Self::MAX_CAPACITY {
            return Err(ArenaError::TooLarge { len: capacity as usize, entry: size_of::<Flow>() });
        }
        Ok(FlowTable {
            flows: Arena::zeroed(capacity as usize)?,
            wide: if ipv6 { Arena::zeroed(capacity as usize) } else { Arena::untouched(capacity as usize) }?,
            index: Index::new(capacity.saturating_mul(2))?,
            hasher: Hasher::new(seed),
            live: 0,
            touched: 0,
            free: 0,
        })
    }

    /// Flows that there is room for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.flows.len() as u32
    }

    /// Flows in the table.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.live
    }

    /// True without a flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The hash by which this table finds `key`. Keyed: also good for other decisions that outsiders must not foresee.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// The same for a key that no flow has yet, but may get soon: fetches all that [`is_vacant`](Self::is_vacant) and
    /// [`bind_vacant`](Self::bind_vacant) look at.
    #[inline]
    pub(crate) fn hash_and_fetch(&self, key: &FlowKey) -> u64 {
        let hash = self.hash(key);
        self.index.prefetch_both(hash);
        hash
    }

    /// The hash of a key of IPv4 in the two words of [`FlowKey::narrow`].
    #[inline]
    #[must_use]
    pub fn hash_narrow(&self, key: (u64, u64)) -> u64 {
        self.hasher.hash_narrow(key)
    }

    /// First stage of a lookup: fetches where the index would know the hash.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second stage: fetches the flow that [`find`](Self::find) will look at, if there is one, else the other place where
    /// the index could know the hash.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        match self.index.candidate(hash) {
            Some(entry) => self.flows.prefetch_whole(place(entry).0),
            None => {
                self.index.prefetch_other(hash);
            }
        }
    }

    /// Second stage for the fast path: where [`plain_mut`](Self::plain_mut) will look. [`Spot::NONE`] if the hash is not in
    /// the first of its two places.
    #[inline]
    pub(crate) fn spot(&self, hash: u64) -> Spot {
        self.index.candidate(hash).map_or(Spot::NONE, Spot)
    }

    /// Fetches the other place of a hash, and says where it is.
    #[inline]
    pub(crate) fn prefetch_other_bucket(&self, hash: u64) -> OtherBucket {
        OtherBucket(self.index.prefetch_other(hash))
    }

    /// As [`spot`](Self::spot) for the other place.
    #[inline]
    pub(crate) fn other_spot(&self, OtherBucket(bucket): OtherBucket, hash: u64) -> Spot {
        self.index.candidate_in(bucket, hash).map_or(Spot::NONE, Spot)
    }

    /// Fetches what the fast path needs of every flow.
    #[inline]
    pub(crate) fn prefetch_spot(&self, Spot(entry): Spot) {
        self.flows.prefetch(place(entry).0);
    }

    /// Fetches what it needs of a connection besides.
    #[inline]
    pub(crate) fn prefetch_splice(&self, Spot(entry): Spot) {
        self.flows.prefetch_at(place(entry).0, LINE);
    }

    /// Before flows are ended, for each of them: fetches the flow in a place.
    pub(crate) fn prefetch_slot(&self, index: u32) {
        self.flows.prefetch_whole(index as usize);
    }

    /// And then, for each of them: fetches where the index has its keys. The flow, and the hashes of its keys.
    pub(crate) fn prefetch_keys(&self, index: u32) -> Option<(FlowId, Hashes)> {
        let flow = self.at(index as usize).filter(|flow| is_live(flow))?;
        let hashes = self.hashes_of(flow);
        self.index.prefetch(hashes.client);
        if let Some(server) = hashes.server {
            self.index.prefetch(server);
        }
        Some((FlowId { index, generation: flow.generation }, hashes))
    }

    /// Third stage for the fast path: the flow, if packets with this [narrow](FlowKey::narrow) key are to be translated
    /// without further ado ([`Flow::is_plain`]).
    #[inline]
    pub(crate) fn plain_mut(&mut self, Spot(entry): Spot, key: (u64, u64)) -> Option<(&mut Flow, Direction)> {
        let (index, direction) = place(entry);
        let flow = self.flows.get_mut(index)?;
        flow.is_plain(direction, key).then_some((flow, direction))
    }

    /// The flow whose packets have this [narrow](FlowKey::narrow) key, and which way they go, if it is at this spot.
    #[inline]
    pub(crate) fn found(&self, Spot(entry): Spot, key: (u64, u64)) -> Option<(FlowId, Direction)> {
        let (index, direction) = place(entry);
        let flow = self.flows.get(index).filter(|flow| is_live(flow) && flow.is_narrow(direction, key))?;
        Some((FlowId { index: index as u32, generation: flow.generation }, direction))
    }

    /// The flow whose packets have this key, and which way they go. `hash` is [`hash`](Self::hash) of `key`.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, key: &FlowKey) -> Option<(FlowId, Direction)> {
        let narrow = key.narrow();
        self.index.find(hash, |entry| {
            let (index, direction) = place(entry);
            let flow = self.at(index).filter(|flow| flow.has_key(direction, narrow, key))?;
            Some((FlowId { index: index as u32, generation: flow.generation }, direction))
        })
    }

    /// True if no key in the table has this hash: then [`find`](Self::find) finds nothing. Says so of nearly all hashes that
    /// no key has, and costs half as much.
    #[inline]
    pub(crate) fn lacks(&self, hash: u64) -> bool {
        self.index.lacks(hash)
    }

    /// True if no flow's packets have this key. `hash` is [`hash`](Self::hash) of `key`.
    #[inline]
    pub(crate) fn is_vacant(&self, hash: u64, key: &FlowKey) -> bool {
        self.lacks(hash) || self.find(hash, key).is_none()
    }

    /// All stages at once.
    #[must_use]
    pub fn lookup(&self, key: &FlowKey) -> Option<(FlowId, Direction)> {
        self.find(self.hash(key), key)
    }

    /// Begins a flow: [`crate::flow::FlowState::Embryonic`], not bound.
    ///
    /// # Errors
    /// `Full`, `AlreadyThere`.
    pub fn insert(&mut self, client_key: FlowKey) -> Result<FlowId, FlowTableError> {
        let hash = self.vacant(&client_key)?;
        self.insert_vacant(&client_key, hash)
    }

    /// As [`insert`](Self::insert) for a key that is known to be no flow's, and its [`hash`](Self::hash).
    ///
    /// # Errors
    /// `Full`.
    pub(crate) fn insert_vacant(
        &mut self,
        client_key: &FlowKey,
        hash: u64,
    ) -> Result<FlowId, FlowTableError> {
        debug_assert!(hash == self.hash(client_key) && self.find(hash, client_key).is_none());
        let index = if self.free != 0 { self.free - 1 } else { self.touched };
        let flow = self.flows.get_mut(index as usize).ok_or(FlowTableError::Full)?;
        let wide = self.wide.get_mut(index as usize).ok_or(FlowTableError::Full)?;
        self.index.insert(hash, entry(index, Direction::FromClient)).map_err(|_| FlowTableError::Full)?;
        if self.free != 0 {
            self.free = flow.next_free();
        } else {
            self.touched += 1;
        }
        self.live += 1;
        *flow = Flow::begin(client_key, flow.generation.wrapping_add(1));
        flow.set_wide_client(client_key, wide);
        let id = FlowId { index, generation: flow.generation };
        // So that the next flow finds its place in the cache.
        self.flows.prefetch_whole(self.free.wrapping_sub(1) as usize);
        Ok(id)
    }

    /// Lets the flow also be found by the packets of its server. Replaces the server key that it had.
    ///
    /// # Errors
    /// `AlreadyThere`, `Stale`, `Full`. After an error the flow has the server key that it had before.
    pub fn bind(&mut self, id: FlowId, server_key: FlowKey) -> Result<(), FlowTableError> {
        if self.flow(id).is_none() {
            return Err(FlowTableError::Stale);
        }
        let hash = self.vacant(&server_key)?;
        self.bind_vacant(id, &server_key, hash)
    }

    /// As [`bind`](Self::bind) for a key that is known to be no flow's, and its [`hash`](Self::hash).
    ///
    /// # Errors
    /// `Stale`, `Full`, with the same effect.
    pub(crate) fn bind_vacant(
        &mut self,
        id: FlowId,
        server_key: &FlowKey,
        hash: u64,
    ) -> Result<(), FlowTableError> {
        debug_assert!(hash == self.hash(server_key) && self.find(hash, server_key).is_none());
        let bound = self.flow(id).ok_or(FlowTableError::Stale)?.is_bound();
        let inserted = self.index.insert(hash, entry(id.index, Direction::FromServer));
        inserted.map_err(|_| FlowTableError::Full)?;
        if bound {
            self.unbind(id);
        }
        let place = id.index as usize;
        if let Some((flow, wide)) = self.flows.get_mut(place).zip(self.wide.get_mut(place)) {
            flow.set_server_key(server_key, wide);
        }
        Ok(())
    }

    /// Takes the server key away, if there is one.
    pub fn unbind(&mut self, id: FlowId) {
        let Some(flow) = self.flow(id).filter(|flow| flow.is_bound()) else { return };
        let hash = self.hash_of(flow, Direction::FromServer);
        self.index.remove(hash, entry(id.index, Direction::FromServer));
        if let Some(flow) = self.flow_mut(id) {
            flow.clear_server_key();
        }
    }

    /// Ends a flow. `false` if it had ended before.
    pub fn remove(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.flow(id) else { return false };
        let hashes = self.hashes_of(flow);
        self.remove_hashed(id, hashes)
    }

    /// As [`remove`](Self::remove) for a flow whose hashes are at hand.
    pub(crate) fn remove_hashed(&mut self, id: FlowId, hashes: Hashes) -> bool {
        debug_assert!(self.flow(id).is_none_or(|flow| hashes == self.hashes_of(flow)));
        let free = self.free;
        let Some(flow) = self.flow_mut(id) else { return false };
        flow.clear_server_key();
        flow.finish(free);
        let Hashes { client, server } = hashes;
        if let Some(server) = server {
            self.index.remove(server, entry(id.index, Direction::FromServer));
        }
        self.index.remove(client, entry(id.index, Direction::FromClient));
        self.free = id.index + 1;
        self.live -= 1;
        true
    }

    /// The flow, if it has not ended.
    #[inline]
    #[must_use]
    pub fn flow(&self, id: FlowId) -> Option<FlowRef<'_>> {
        self.at(id.index as usize).filter(|flow| is_live(flow) && flow.generation == id.generation)
    }

    /// The flow, if it has not ended.
    #[inline]
    pub fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        let flow = self.flows.get_mut(id.index as usize)?;
        (is_live(flow) && flow.generation == id.generation).then_some(flow)
    }

    /// The flow that is in a place now.
    #[must_use]
    pub fn flow_at(&self, index: u32) -> Option<FlowId> {
        let flow = self.flows.get(index as usize).filter(|flow| is_live(flow))?;
        Some(FlowId { index, generation: flow.generation })
    }

    /// The next flow in the order of places, from the first one on for `None`. `after` may have ended meanwhile. Passes
    /// over as many places as are free in between: see [`live_in`](Self::live_in) for steps of bounded cost.
    #[must_use]
    pub fn next_after(&self, after: Option<FlowId>) -> Option<FlowId> {
        let first = after.map_or(0, |id| id.index.saturating_add(1));
        self.live_in(first..self.touched).next()
    }

    /// The flows in a range of places. An operator's listing goes through all places up to
    /// [`capacity`](Self::capacity), a thousand per step or so, and lets packets pass in between.
    pub fn live_in(&self, places: Range<u32>) -> impl Iterator<Item = FlowId> {
        (places.start..places.end.min(self.touched)).filter_map(|index| self.flow_at(index))
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, FlowRef<'_>)> {
        self.live_in(0..self.touched).filter_map(|id| Some((id, self.flow(id)?)))
    }

    /// What is in a place, a flow or not.
    #[inline]
    fn at(&self, index: usize) -> Option<FlowRef<'_>> {
        Some(FlowRef::new(self.flows.get(index)?, &self.wide, index))
    }

    /// The hash of the key that a flow has in a direction. Part of its callers: [`Self::hashes_of`] looks once at what both keys
    /// have in common.
    #[inline(always)]
    fn hash_of(&self, flow: FlowRef<'_>, direction: Direction) -> u64 {
        match flow.narrow_key(direction) {
            Some(narrow) => self.hash_narrow(narrow),
            None => self.hash(&flow.key(direction)),
        }
    }

    #[inline]
    fn hashes_of(&self, flow: FlowRef<'_>) -> Hashes {
        Hashes {
            client: self.hash_of(flow, Direction::FromClient),
            server: flow.is_bound().then(|| self.hash_of(flow, Direction::FromServer)),
        }
    }

    /// The hash of a key that no flow has.
    fn vacant(&self, key: &FlowKey) -> Result<u64, FlowTableError> {
        let hash = self.hash(key);
        if self.is_vacant(hash, key) { Ok(hash) } else { Err(FlowTableError::AlreadyThere) }
    }
}

/// Generations of flows are odd, those of free places even.
fn is_live(flow: &Flow) -> bool {
    flow.generation & 1 == 1
}

/// How the index names a key of a flow.
fn entry(index: u32, direction: Direction) -> u32 {
    index << 1 | u32::from(direction == Direction::FromServer)
}

/// What [`entry`] has named.
fn place(entry: u32) -> (usize, Direction) {
    let direction = if entry & 1 == 1 { Direction::FromServer } else { Direction::FromClient };
    ((entry >> 1) as usize, direction)
}

#[cfg(test)]
mod tests;
