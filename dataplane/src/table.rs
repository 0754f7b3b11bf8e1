//! Key-value tables of scripts: one store per virtual service, in it a default table and named ones.
//!
//! One [`TableStore`] per worker. Keys and values are bytes. An entry lives until its expiry and not a microsecond
//! longer, whether or not it has been swept; [`TableStore::expire`], called between bursts, gives memory back.
//! All tables of a service share one bound on entries; a full store reclaims what has expired and else refuses.
//!
//! Each entry costs its key and value and about 200 bytes. Maps are keyed at random per process against collisions
//! made on purpose. Reading and renewing do not allocate.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smoltcp::time::Instant;

use crate::snapshot::{ServiceId, Snapshot, TableLimits};

/// Lifetime of an entry that was given none, and what a lookup adds to it, in seconds.
pub const DEFAULT_LIFETIME_S: u32 = 300;
/// Shortest lifetime of a new entry, in seconds.
pub const MINIMUM_LIFETIME_S: u32 = 300;
/// Most named tables of a service that have entries.
pub const NAMED_TABLES: usize = 256;
/// Steps that an insert into a full store spends on finding an expired entry.
const RECLAIM_STEPS: usize = 256;

/// What an insert came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// A new entry.
    New,
    /// The key was there: its value is kept, or replaced where that was asked, and its lifetime is renewed.
    Renewed,
    /// The store has no room for another entry or another named table.
    Full,
    /// Key, value or the table's name is longer than allowed.
    TooLong,
}

impl Inserted {
    /// True if the key is in the table now.
    #[must_use]
    pub fn stored(self) -> bool {
        matches!(self, Inserted::New | Inserted::Renewed)
    }
}

/// Numbers of one service for the operator. Counts are since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Entries held now, expired ones that are not yet swept included.
    pub entries: usize,
    /// Named tables that have entries now.
    pub named_tables: usize,
    /// New entries.
    pub inserted: u64,
    /// Inserts refused because the store was full.
    pub refused_full: u64,
    /// Inserts refused because something was too long.
    pub refused_too_long: u64,
    /// Lifetimes below [`MINIMUM_LIFETIME_S`] that were raised to it.
    pub raised_lifetimes: u64,
    /// Entries that ended by their expiry.
    pub expired: u64,
}

/// One entry for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry<'a> {
    /// Name of the table, `None` for the default one.
    pub table: Option<&'a [u8]>,
    /// Key.
    pub key: &'a [u8],
    /// Value.
    pub value: &'a [u8],
    /// End of its life; in the past for an entry that is not yet swept.
    pub expires: Instant,
}

/// A place in the order of expiry: time and a number that makes it unique.
type Turn = (Instant, u64);

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    expires: Instant,
    /// Where the entry stands in [`ServiceTables::order`]; never later than `expires`.
    turn: Turn,
}

type Table = HashMap<Arc<[u8]>, Entry>;

/// Name of the table, `None` for the default one, and key.
type Place = (Option<Arc<[u8]>>, Arc<[u8]>);

/// All tables of one service.
#[derive(Debug)]
struct ServiceTables {
    limits: TableLimits,
    default: Table,
    /// Never holds an empty table.
    named: HashMap<Arc<[u8]>, Table>,
    /// All entries, by a time that is at most their expiry: renewing does not move an entry, its turn does.
    order: BTreeMap<Turn, Place>,
    next_number: u64,
    /// All but the numbers of entries and tables.
    stats: TableStats,
}

/// All tables of all services; one per worker.
#[derive(Debug)]
pub struct TableStore {
    /// By [`ServiceId`].
    services: Vec<ServiceTables>,
    /// The service that [`TableStore::expire`] swept last.
    sweep: usize,
}

impl TableStore {
    /// Empty tables with the bounds of this configuration.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let services = snapshot.services.iter().map(|service| ServiceTables::new(service.tables));
        TableStore { services: services.collect(), sweep: 0 }
    }

    /// Adds an entry that lives `lifetime_s` seconds, at least [`MINIMUM_LIFETIME_S`] (raising is counted). A live
    /// key keeps its value; its expiry becomes `now + lifetime_s` if that is later. Refusals are counted.
    pub fn insert(
        &mut self,
        now: Instant,
        service: ServiceId,
        table: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        lifetime_s: u32,
    ) -> Inserted {
        let Some(tables) = self.services.get_mut(service.index()) else { return Inserted::Full };
        tables.put(now, table, key, value, lifetime_s, false)
    }

    /// As [`TableStore::insert`], but a live key takes the new value.
    pub fn replace(
        &mut self,
        now: Instant,
        service: ServiceId,
        table: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        lifetime_s: u32,
    ) -> Inserted {
        let Some(tables) = self.services.get_mut(service.index()) else { return Inserted::Full };
        tables.put(now, table, key, value, lifetime_s, true)
    }

    /// Value and remaining seconds (rounded up, never 0) of a live entry, after `exten_s` seconds were added to its
    /// life. Life never goes beyond `u32::MAX` seconds from now.
    pub fn lookup(
        &mut self,
        now: Instant,
        service: ServiceId,
        table: Option<&[u8]>,
        key: &[u8],
        exten_s: u32,
    ) -> Option<(&[u8], u64)> {
        let entry = self.services.get_mut(service.index())?.live(now, table, key)?;
        entry.expires = later(entry.expires, exten_s).min(later(now, u32::MAX));
        let left = (entry.expires - now).total_micros().div_ceil(1_000_000);
        Some((&entry.value, left))
    }

    /// Makes a live entry last until `now + exten_s` if that is later; `false` if the key is not there.
    pub fn refresh(
        &mut self,
        now: Instant,
        service: ServiceId,
        table: Option<&[u8]>,
        key: &[u8],
        exten_s: u32,
    ) -> bool {
        let Some(tables) = self.services.get_mut(service.index()) else { return false };
        let Some(entry) = tables.live(now, table, key) else { return false };
        entry.expires = entry.expires.max(later(now, exten_s));
        true
    }

    /// Ends an entry; `true` if there was one (perhaps expired and not yet swept).
    pub fn remove(&mut self, service: ServiceId, table: Option<&[u8]>, key: &[u8]) -> bool {
        self.services.get_mut(service.index()).is_some_and(|tables| tables.remove(table, key))
    }

    /// Frees expired entries in at most `budget` steps, each of which looks at one entry whose time may have come;
    /// services are served in turn. Returns the number of entries freed.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let (mut freed, mut left) = (0, budget);
        for _ in 0..self.services.len() {
            self.sweep = if self.sweep + 1 < self.services.len() { self.sweep + 1 } else { 0 };
            let Some(tables) = self.services.get_mut(self.sweep) else { break };
            let (steps, count) = tables.expire(now, left, usize::MAX);
            freed += count;
            left = left.saturating_sub(steps);
            if left == 0 {
                break;
            }
        }
        freed
    }

    /// Numbers of one service.
    #[must_use]
    pub fn stats(&self, service: ServiceId) -> TableStats {
        let Some(tables) = self.services.get(service.index()) else { return TableStats::default() };
        TableStats { entries: tables.order.len(), named_tables: tables.named.len(), ..tables.stats }
    }

    /// Up to `limit` entries of a service, those that expire first (about) first.
    pub fn entries(&self, service: ServiceId, limit: usize) -> impl Iterator<Item = TableEntry<'_>> {
        let tables = self.services.get(service.index());
        tables.into_iter().flat_map(ServiceTables::iter).take(limit)
    }
}

impl ServiceTables {
    fn new(limits: TableLimits) -> Self {
        ServiceTables {
            limits,
            default: Table::new(),
            named: HashMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            stats: TableStats::default(),
        }
    }

    fn table(&mut self, table: Option<&[u8]>) -> Option<&mut Table> {
        match table {
            None => Some(&mut self.default),
            Some(name) => self.named.get_mut(name),
        }
    }

    fn live(&mut self, now: Instant, table: Option<&[u8]>, key: &[u8]) -> Option<&mut Entry> {
        self.table(table)?.get_mut(key).filter(|entry| entry.expires > now)
    }

    fn put(
        &mut self,
        now: Instant,
        table: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        lifetime_s: u32,
        replace: bool,
    ) -> Inserted {
        if !self.fits(table, key, value) {
            self.stats.refused_too_long += 1;
            return Inserted::TooLong;
        }
        if lifetime_s < MINIMUM_LIFETIME_S {
            self.stats.raised_lifetimes += 1;
        }
        let expires = later(now, lifetime_s.max(MINIMUM_LIFETIME_S));
        if let Some(entry) = self.live(now, table, key) {
            entry.expires = entry.expires.max(expires);
            if replace && *entry.value != *value {
                entry.value = value.into();
            }
            return Inserted::Renewed;
        }
        if !self.make_room(now, table, key) {
            self.stats.refused_full += 1;
            return Inserted::Full;
        }
        self.add(table, key, value, expires);
        Inserted::New
    }

    fn fits(&self, table: Option<&[u8]>, key: &[u8], value: &[u8]) -> bool {
        let within = |bytes: &[u8], limit: u32| u32::try_from(bytes.len()).is_ok_and(|len| len <= limit);
        within(key, self.limits.key_bytes)
            && within(value, self.limits.value_bytes)
            && table.is_none_or(|name| within(name, self.limits.key_bytes))
    }

    /// Sees to it that a key which is not live can be added; `false` if it cannot.
    fn make_room(&mut self, now: Instant, table: Option<&[u8]>, key: &[u8]) -> bool {
        if self.remove(table, key) {
            self.stats.expired += 1;
        }
        let full = |tables: &Self| {
            tables.order.len() >= tables.limits.entries as usize
                || table.is_some_and(|name| {
                    tables.named.len() >= NAMED_TABLES && !tables.named.contains_key(name)
                })
        };
        if full(self) {
            // A slot of a named table may need more than one entry to go.
            let enough = if self.named.len() >= NAMED_TABLES { usize::MAX } else { 1 };
            self.expire(now, RECLAIM_STEPS, enough);
        }
        !full(self)
    }

    fn add(&mut self, table: Option<&[u8]>, key: &[u8], value: &[u8], expires: Instant) {
        let key: Arc<[u8]> = key.into();
        let turn = (expires, self.next_number);
        self.next_number = self.next_number.wrapping_add(1);
        let entry = Entry { value: value.into(), expires, turn };
        let name: Option<Arc<[u8]>> = table.map(|name| match self.named.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        });
        let table = match &name {
            None => &mut self.default,
            Some(name) => self.named.entry(name.clone()).or_default(),
        };
        table.insert(key.clone(), entry);
        self.order.insert(turn, (name, key));
        self.stats.inserted += 1;
    }

    fn remove(&mut self, table: Option<&[u8]>, key: &[u8]) -> bool {
        let Some(entry) = self.table(table).and_then(|t| t.remove(key)) else { return false };
        self.order.remove(&entry.turn);
        self.drop_if_empty(table);
        true
    }

    fn drop_if_empty(&mut self, table: Option<&[u8]>) {
        if let Some(name) = table
            && self.named.get(name).is_some_and(HashMap::is_empty)
        {
            self.named.remove(name);
        }
    }

    /// Looks at entries whose turn has come until `steps` are done or `enough` are freed; returns both counts.
    fn expire(&mut self, now: Instant, steps: usize, enough: usize) -> (usize, usize) {
        let (mut done, mut freed) = (0, 0);
        while done < steps && freed < enough {
            let Some(first) = self.order.first_entry().filter(|e| e.key().0 <= now) else { break };
            let ((_, number), (name, key)) = first.remove_entry();
            done += 1;
            let Some(table) = self.table(name.as_deref()) else { continue };
            match table.get_mut(&key) {
                Some(entry) if entry.expires > now => {
                    entry.turn = (entry.expires, number);
                    let turn = entry.turn;
                    self.order.insert(turn, (name, key));
                }
                _ => {
                    table.remove(&key);
                    self.drop_if_empty(name.as_deref());
                    self.stats.expired += 1;
                    freed += 1;
                }
            }
        }
        (done, freed)
    }

    fn iter(&self) -> impl Iterator<Item = TableEntry<'_>> {
        self.order.values().filter_map(|(name, key)| {
            let table = match name {
                None => &self.default,
                Some(name) => self.named.get(name)?,
            };
            let entry = table.get(key)?;
            Some(TableEntry { table: name.as_deref(), key, value: &entry.value, expires: entry.expires })
        })
    }
}

/// `seconds` after `time`, at the end of time at the latest.
fn later(time: Instant, seconds: u32) -> Instant {
    let micros = i64::from(seconds).saturating_mul(1_000_000);
    Instant::from_micros(time.total_micros().saturating_add(micros))
}

#[cfg(test)]
mod tests;
