//! The tables of one service in one worker.

mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::entry::{Entry, Index, after, later};
use super::peers::{LATE, Peers, Place, Turn};
use super::state::{Birth, KeyState, Stamp};
use super::{Inserted, MINIMUM_LIFETIME_S, NAMED_TABLES, TableStats};
use crate::snapshot::{ServiceId, TableLimits};

/// Steps that an insert into a full store spends on finding an expired entry.
const RECLAIM_STEPS: usize = 256;
/// Entries that a replica takes from its peers beyond its bound, at least; see [`ServiceTables::fits`].
const SPARE_ENTRIES: usize = 64;
/// The part of its bounds that a replica takes from its peers beyond them.
const SPARE_PART: usize = 8;

/// What an insert needs room for.
struct Need<'a> {
    table: Option<&'a [u8]>,
    entries: usize,
    bytes: usize,
    /// It comes from a peer.
    heard: bool,
}

/// All tables of one service.
#[derive(Debug)]
pub(super) struct ServiceTables {
    id: ServiceId,
    /// In which generation of the configuration it got its place.
    pub(super) given: u32,
    limits: TableLimits,
    index: Index,
    /// All entries, by a time that is at most the one when they have to be looked at: renewing does not move an
    /// entry, its turn does.
    order: BTreeMap<Turn, Place>,
    next_number: u64,
    /// Entries, tombstones and rivals held.
    entries: usize,
    /// Bytes of keys and values held.
    bytes: usize,
    /// Something that a peer told found no room.
    pub(super) missed: bool,
    /// All but what is held now.
    pub(super) stats: TableStats,
}

impl ServiceTables {
    pub(super) fn new(id: ServiceId, given: u32, limits: TableLimits) -> Self {
        ServiceTables {
            id,
            given,
            limits,
            index: Index::default(),
            order: BTreeMap::new(),
            next_number: 0,
            entries: 0,
            bytes: 0,
            missed: false,
            stats: TableStats::default(),
        }
    }

    /// Bounds for what comes from now on.
    pub(super) fn set_limits(&mut self, limits: TableLimits) {
        self.limits = limits;
    }

    pub(super) fn stats(&self) -> TableStats {
        let named_tables = self.index.named.len();
        TableStats { entries: self.entries, bytes: self.bytes as u64, named_tables, ..self.stats }
    }

    pub(super) fn put(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        (table, key, value): (Option<&[u8]>, &[u8], &[u8]),
        lifetime_s: u32,
        replace: bool,
    ) -> Inserted {
        if !self.short_enough(table, key, value) {
            self.stats.refused_too_long += 1;
            return Inserted::TooLong;
        }
        if lifetime_s < MINIMUM_LIFETIME_S {
            self.stats.raised_lifetimes += 1;
        }
        let expires = later(now, lifetime_s.max(MINIMUM_LIFETIME_S));
        let state = self.index.get(table, key).map(|entry| &entry.state);
        if let Some((state, life)) = state.and_then(|state| state.life(now).map(|life| (state, life))) {
            if replace && state.value(&life).is_none_or(|old| **old != *value) {
                return self.rewrite(peers, now, (table, key, value), expires);
            }
            self.prolong(peers, now, table, key, |_| expires);
            return Inserted::Renewed;
        }
        self.create(peers, now, (table, key, value), expires, replace)
    }

    /// Gives a live entry another value.
    fn rewrite(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        (table, key, value): (Option<&[u8]>, &[u8], &[u8]),
        expires: Instant,
    ) -> Inserted {
        let old = self.index.get(table, key).map(|entry| &entry.state);
        let old = old.and_then(|state| state.last(&state.life(now)?));
        let freed = old.map_or(0, |birth| birth.value.len());
        let bytes = value.len().saturating_sub(freed);
        if bytes > 0 && !self.make_room(peers, now, &Need { table, entries: 0, bytes, heard: false }) {
            self.stats.refused_full += 1;
            return Inserted::Full;
        }
        let Some(entry) = self.index.get_mut(table, key) else { return Inserted::Full };
        let Some(life) = entry.state.life(now) else { return Inserted::Full };
        entry.state.replace(&life, peers.stamp(now), value);
        entry.state.prolong(&life, expires);
        self.bytes = (self.bytes + value.len()).saturating_sub(freed);
        tell(self.id, &self.order, peers, now, entry);
        Inserted::Renewed
    }

    /// Adds an entry where no live one is.
    fn create(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        (table, key, value): (Option<&[u8]>, &[u8], &[u8]),
        expires: Instant,
        replace: bool,
    ) -> Inserted {
        if peers.alone() && self.take_out(table, key) {
            self.stats.expired += 1;
        }
        let (entries, key_bytes) = match self.index.get(table, key) {
            None => (1, key.len()),
            Some(entry) => (usize::from(!entry.state.births().is_empty()), 0),
        };
        let need = Need { table, entries, bytes: key_bytes + value.len(), heard: false };
        if !self.make_room(peers, now, &need) {
            self.stats.refused_full += 1;
            return Inserted::Full;
        }
        let born = peers.stamp(now);
        let written = if replace { born } else { Stamp::NEVER };
        let birth = Birth { born, written, value: value.into(), expires, told: expires };
        let mut state = KeyState::default();
        state.add(birth);
        self.stats.inserted += 1;
        self.merge(peers, now, (table, key), &state, None);
        if let Some(entry) = self.index.get_mut(table, key) {
            tell(self.id, &self.order, peers, now, entry);
        }
        Inserted::New
    }

    /// Sets the end of a live entry to what `until` makes of it if that is later; its value and its end.
    pub(super) fn prolong(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        table: Option<&[u8]>,
        key: &[u8],
        until: impl Fn(Instant) -> Instant,
    ) -> Option<(&[u8], Instant)> {
        let entry = self.index.get_mut(table, key)?;
        let mut life = entry.state.life(now)?;
        let until = until(life.ends);
        entry.state.prolong(&life, until);
        life.ends = life.ends.max(until);
        if !peers.alone() && Entry::outlives(&life, now) {
            tell(self.id, &self.order, peers, now, entry);
        }
        Some((entry.state.value(&life)?, life.ends))
    }

    pub(super) fn remove(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        table: Option<&[u8]>,
        key: &[u8],
    ) -> bool {
        if peers.alone() {
            return self.take_out(table, key);
        }
        if self.index.get(table, key).is_none_or(|entry| entry.state.births().is_empty()) {
            return false;
        }
        let mut state = KeyState::default();
        state.raise_floor(peers.stamp(now));
        self.merge(peers, now, (table, key), &state, None);
        if let Some(entry) = self.index.get_mut(table, key) {
            tell(self.id, &self.order, peers, now, entry);
        }
        true
    }

    /// Merges what a peer told about a key; only its removals if it was `late`.
    pub(super) fn hear(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        place: &Place,
        news: &KeyState,
        late: bool,
    ) {
        self.stats.news_heard += 1;
        let (table, key) = (place.0.as_deref(), &*place.1);
        let (entries, bytes) = match self.index.get(table, key) {
            Some(entry) => entry.state.lacks(news),
            None if Self::is_past(peers, now, news) => return,
            None => (news.entries(), key.len() + news.bytes()),
        };
        let need = Need { table, entries, bytes, heard: true };
        if !late && (entries + bytes == 0 || self.make_room(peers, now, &need)) {
            self.merge(peers, now, (table, key), news, Some(place));
            return;
        }
        if !late {
            self.stats.news_no_room += 1;
            self.missed = true;
        }
        if self.index.get(table, key).is_some() {
            self.merge(peers, now, (table, key), &news.removals(), Some(place));
        }
    }

    /// True if news ended so long ago that a replica that knows nothing of the key need not know them.
    fn is_past(peers: &Peers, now: Instant, news: &KeyState) -> bool {
        let last = news.lives().map(|life| life.ends).fold(news.floor().time(), Instant::max);
        after(last, peers.grace()) <= now
    }

    /// Joins `news` with what is known about a key. Heard ones come with the place as the peer wrote it.
    fn merge(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        (table, key): (Option<&[u8]>, &[u8]),
        news: &KeyState,
        heard: Option<&Place>,
    ) {
        let grace = peers.grace();
        let Some(entry) = self.index.get_mut(table, key) else {
            let place = heard.cloned().unwrap_or_else(|| (table.map(Arc::from), key.into()));
            return self.add(now, grace, place, news);
        };
        let before = entry.state.clone();
        entry.state.join(news);
        entry.state.forget(now - grace);
        if entry.state.floor() > before.floor() {
            entry.removed = now;
        }
        self.entries = (self.entries + entry.state.entries()).saturating_sub(before.entries());
        self.bytes = (self.bytes + entry.state.bytes()).saturating_sub(before.bytes());
        let due = entry.due(now, grace);
        if due < entry.turn.0
            && let Some(place) = self.order.remove(&entry.turn)
        {
            entry.turn.0 = due;
            self.order.insert(entry.turn, place);
        }
        if heard.is_some() {
            self.stats.conflicts_lost += u64::from(lost(&before, &entry.state, now, peers.number()));
            let late = |fact: Stamp| fact.time() + LATE < now;
            if !before.births().is_empty() && entry.state.oldest_since(&before).is_some_and(late) {
                tell(self.id, &self.order, peers, now, entry);
            }
        }
    }

    fn add(&mut self, now: Instant, grace: Duration, (name, key): Place, news: &KeyState) {
        let mut entry = Entry { state: KeyState::default(), removed: now, turn: (now, self.next_number) };
        entry.state.join(news);
        entry.turn.0 = entry.due(now, grace);
        self.next_number = self.next_number.wrapping_add(1);
        self.entries += entry.state.entries();
        self.bytes += key.len() + entry.state.bytes();
        let name = name.map(|name| match self.index.named.get_key_value(&name) {
            Some((name, _)) => name.clone(),
            None => name,
        });
        self.order.insert(entry.turn, (name.clone(), key.clone()));
        self.index.add((name, key), entry);
    }

    /// Takes an entry out at once, whoever may still ask about it.
    fn take_out(&mut self, table: Option<&[u8]>, key: &[u8]) -> bool {
        let Some(entry) = self.index.remove(table, key) else { return false };
        self.order.remove(&entry.turn);
        self.released(&entry, key);
        true
    }

    fn released(&mut self, entry: &Entry, key: &[u8]) {
        self.entries = self.entries.saturating_sub(entry.state.entries());
        self.bytes = self.bytes.saturating_sub(key.len() + entry.state.bytes());
    }

    fn short_enough(&self, table: Option<&[u8]>, key: &[u8], value: &[u8]) -> bool {
        let within = |bytes: &[u8], limit: u32| u32::try_from(bytes.len()).is_ok_and(|len| len <= limit);
        within(key, self.limits.key_bytes)
            && within(value, self.limits.value_bytes)
            && table.is_none_or(|name| within(name, self.limits.key_bytes))
    }

    /// Sees to it that something can be added; `false` if it cannot.
    fn make_room(&mut self, peers: &mut Peers, now: Instant, need: &Need<'_>) -> bool {
        for _ in 0..RECLAIM_STEPS {
            if self.fits(need) {
                return true;
            }
            if self.step(peers, now).is_none() {
                return false;
            }
        }
        self.fits(need)
    }

    /// What peers tell may go beyond the bounds by an eighth: workers that fill the last places at the same moment
    /// would else refuse each other's entries.
    fn fits(&self, need: &Need<'_>) -> bool {
        let (mut most, mut most_bytes) = (self.limits.entries as usize, self.limits.bytes);
        let mut most_tables = NAMED_TABLES;
        if need.heard {
            let longest = u64::from(self.limits.key_bytes) + u64::from(self.limits.value_bytes);
            most += (most / SPARE_PART).max(SPARE_ENTRIES);
            most_bytes += (most_bytes / SPARE_PART as u64).max(longest * SPARE_PART as u64);
            most_tables += NAMED_TABLES / SPARE_PART;
        }
        let named = &self.index.named;
        self.entries + need.entries <= most
            && (self.bytes + need.bytes) as u64 <= most_bytes
            && need.table.is_none_or(|name| named.len() < most_tables || named.contains_key(name))
    }

    /// True if there is room for one more entry, as long as they may be.
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.limits.key_bytes as usize + self.limits.value_bytes as usize;
        self.fits(&Need { table: None, entries: 1, bytes, heard: false })
            && self.index.named.len() < NAMED_TABLES
    }
}

/// Notes that the peers have to be told about an entry.
fn tell(
    service: ServiceId,
    order: &BTreeMap<Turn, Place>,
    peers: &mut Peers,
    now: Instant,
    entry: &mut Entry,
) {
    if peers.alone() {
        return;
    }
    entry.state.tell();
    if let Some(place) = order.get(&entry.turn) {
        peers.tell(now, (service, place.clone()));
    }
}

/// True if a life that a birth of worker `own` had begun began earlier, elsewhere.
fn lost(before: &KeyState, state: &KeyState, now: Instant, own: u8) -> bool {
    let first = |state: &KeyState| {
        let life = state.life(now)?;
        state.first(&life).map(|birth| birth.born)
    };
    let (Some(ours), Some(theirs)) = (first(before), first(state)) else { return false };
    ours.worker() == own && theirs.worker() != own && theirs < ours
}
