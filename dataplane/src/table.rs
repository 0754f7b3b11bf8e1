//! Key-value tables of scripts: one store per virtual service, in it a default table and named ones.
//!
//! One [`TableStore`] per worker. Keys and values are bytes. An entry lives until its expiry and not a microsecond
//! longer, whether or not it has been swept; [`TableStore::expire`], called between bursts, gives memory back.
//! All tables of a service share the bounds on entries and bytes; a full store reclaims what has expired and else
//! refuses.
//!
//! # Replicas
//! With several workers the stores are replicas: each works on its own copy at once and tells the others. After a burst
//! the worker asks [`TableStore::poll_news`] for each peer until there is nothing more, puts what it gets into the
//! ring to that peer (what the ring does not take goes back with [`TableStore::news_refused`]), and hands what it finds
//! in its own rings to [`TableStore::hear`].
//!
//! All replicas that have heard the same come to the same, whatever the order: what a single table would hold had it
//! been given the inserts and removals in the order of their stamps. A stamp is a time in microseconds and, between
//! equal ones, the worker's number; it is later than all that its worker had made or heard before. So
//! - of two inserts of a key the earlier wins, and the later one only renews it;
//! - of two replacements the later wins;
//! - a removal ends what was inserted before it, and with it the renewals and replacements that others made meanwhile.
//!
//! Inserts, replacements and removals are told at once. Renewals, a `lookup` included, are told shortly before the end
//! that the peers know of, so an entry in use costs a message per lifetime. Extensions that several workers add do not
//! add up: the latest end counts.
//!
//! What has ended stays for some seconds, unreadable, so that news on the way find it. A peer that is thousands of
//! changes behind is told everything anew instead (a resync); meanwhile nothing is forgotten. News that were on the way
//! for seconds count only for their removals, and their sender is asked for a resync. Who learns late that what it had
//! was out of date tells it on. Each replica takes an eighth more from its peers than it takes itself; what does not fit
//! even there is counted, and asked for again once there is room.
//!
//! # Cost
//! Each entry costs its key and value and 280 to 420 bytes, most just after a map has grown. Maps are keyed at random per process
//! against collisions made on purpose. Reading and renewing do not allocate. Keys and values are shared between workers, read only.

mod entry;
mod peers;
mod service;
mod state;

use smoltcp::time::{Duration, Instant};

use crate::snapshot::{ServiceId, Snapshot};
use crate::steering::Seat;
use entry::later;
pub use peers::TableNews;
use peers::{News, Peers, Walk};
use service::ServiceTables;

/// Lifetime of an entry that was given none, and what a lookup adds to it, in seconds.
pub const DEFAULT_LIFETIME_S: u32 = 300;
/// Shortest lifetime of a new entry, in seconds.
pub const MINIMUM_LIFETIME_S: u32 = 300;
/// Most named tables of a service that have entries.
pub const NAMED_TABLES: usize = 256;
/// A replica that missed something for lack of room asks for it at most this often.
const ASK_EVERY: Duration = Duration::from_secs(10);

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

/// Numbers of one service in one worker for the operator. Counts are since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Entries held now, ended ones that are not yet swept and second inserts at the same moment included. Replicas
    /// hold about the same, all other numbers but `bytes` and `named_tables` are each worker's own.
    pub entries: usize,
    /// Bytes of keys and values held now.
    pub bytes: u64,
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
    /// Of the entries inserted here, those that ended by their expiry.
    pub expired: u64,
    /// News given out for the peers.
    pub news_sent: u64,
    /// News heard from the peers.
    pub news_heard: u64,
    /// News that a ring did not take at once.
    pub news_refused: u64,
    /// News heard for which there was no room.
    pub news_no_room: u64,
    /// Resyncs of a peer that were begun, of the whole store.
    pub resyncs: u64,
    /// Inserts made here that gave way to an earlier one of a peer.
    pub conflicts_lost: u64,
}

impl TableStats {
    /// Adds the numbers of another worker: counts add up, of what is held the most counts.
    pub fn add(&mut self, other: &TableStats) {
        self.entries = self.entries.max(other.entries);
        self.bytes = self.bytes.max(other.bytes);
        self.named_tables = self.named_tables.max(other.named_tables);
        self.inserted += other.inserted;
        self.refused_full += other.refused_full;
        self.refused_too_long += other.refused_too_long;
        self.raised_lifetimes += other.raised_lifetimes;
        self.expired += other.expired;
        self.news_sent += other.news_sent;
        self.news_heard += other.news_heard;
        self.news_refused += other.news_refused;
        self.news_no_room += other.news_no_room;
        self.resyncs += other.resyncs;
        self.conflicts_lost += other.conflicts_lost;
    }
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

/// All tables of all services; one per worker.
#[derive(Debug)]
pub struct TableStore {
    /// By [`ServiceId`]; used are those that are owners.
    services: Vec<ServiceTables>,
    /// By [`ServiceId`]: the service whose tables it has, itself but for one that a reload has changed.
    owners: Vec<ServiceId>,
    /// Those that are, by place: what is looked at without a reason. Reloads leave many that are not.
    owning: Vec<usize>,
    /// A peer told of a service that is not known here yet.
    ahead: bool,
    /// Where in `owning` the service is that [`TableStore::expire`] swept last.
    sweep: usize,
    peers: Peers,
    /// When something that was missed may be asked for.
    ask_at: Instant,
}

impl TableStore {
    /// Empty tables with the bounds of this configuration.
    #[must_use]
    pub fn new(snapshot: &Snapshot, seat: Seat) -> Self {
        let services = (0..).zip(&snapshot.services);
        let services = services.map(|(id, service)| {
            let id = ServiceId(id);
            ServiceTables::new(id, given(snapshot, id), service.tables)
        });
        let owners = snapshot.table_owners();
        TableStore {
            services: services.collect(),
            owning: owning(snapshot, &owners),
            owners,
            ahead: false,
            sweep: 0,
            peers: Peers::new(seat),
            ask_at: Instant::ZERO,
        }
    }

    /// Goes on with a configuration that is laid over the present one ([`Snapshot::overlaid`]): services of the same name have
    /// the same tables, with the bounds of the one that is not retired. Entries beyond lower bounds stay until they expire.
    pub fn lay_over(&mut self, snapshot: &Snapshot) {
        for (service, id) in snapshot.services.iter().zip((0u16..).map(ServiceId)) {
            let given = given(snapshot, id);
            let fresh = || ServiceTables::new(id, given, service.tables);
            match self.services.get_mut(id.index()) {
                Some(tables) if tables.given == given => {}
                Some(tables) => *tables = fresh(),
                None => self.services.push(fresh()),
            }
        }
        self.owners = snapshot.table_owners();
        self.owning = owning(snapshot, &self.owners);
        for ((service, id), owner) in snapshot.services.iter().zip(0u16..).zip(&self.owners) {
            if !snapshot.retired.services.contains(&ServiceId(id))
                && let Some(tables) = self.services.get_mut(owner.index())
            {
                tables.set_limits(service.tables);
            }
        }
        if std::mem::take(&mut self.ahead) {
            self.peers.ask_all(self.peers.now);
        }
    }

    fn tables(&self, service: ServiceId) -> Option<&ServiceTables> {
        self.services.get(self.owners.get(service.index())?.index())
    }

    fn of_service(&mut self, service: ServiceId) -> Option<(&mut ServiceTables, &mut Peers)> {
        let tables = self.services.get_mut(self.owners.get(service.index())?.index())?;
        Some((tables, &mut self.peers))
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
        let Some((tables, peers)) = self.of_service(service) else { return Inserted::Full };
        tables.put(peers, now, (table, key, value), lifetime_s, false)
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
        let Some((tables, peers)) = self.of_service(service) else { return Inserted::Full };
        tables.put(peers, now, (table, key, value), lifetime_s, true)
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
        let (tables, peers) = self.of_service(service)?;
        let extended = |ends| if exten_s == 0 { now } else { later(ends, exten_s).min(later(now, u32::MAX)) };
        let (value, ends) = tables.prolong(peers, now, table, key, extended)?;
        Some((value, (ends - now).total_micros().div_ceil(1_000_000)))
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
        let Some((tables, peers)) = self.of_service(service) else { return false };
        tables.prolong(peers, now, table, key, |_| later(now, exten_s)).is_some()
    }

    /// Ends an entry; `true` if there was one (perhaps expired and not yet swept).
    pub fn remove(&mut self, now: Instant, service: ServiceId, table: Option<&[u8]>, key: &[u8]) -> bool {
        let Some((tables, peers)) = self.of_service(service) else { return false };
        tables.remove(peers, now, table, key)
    }

    /// The next thing that worker `peer` has to be told; `None` if there is nothing for now.
    pub fn poll_news(&mut self, peer: u8) -> Option<TableNews> {
        let news = self.next_news(peer)?;
        if let Some(stats) = self.stats_of(&news) {
            stats.news_sent += 1;
        }
        Some(news)
    }

    /// Takes back what the ring to `peer` had no room for; it is given out again first.
    pub fn news_refused(&mut self, peer: u8, news: TableNews) {
        if let Some(stats) = self.stats_of(&news) {
            stats.news_sent = stats.news_sent.saturating_sub(1);
            stats.news_refused += 1;
        }
        self.peers.returned(peer, news);
    }

    /// Takes in what a peer told.
    pub fn hear(&mut self, now: Instant, news: TableNews) {
        match &news.0 {
            News::Again { from } => self.peers.resync(*from),
            News::Key { from, sent, service, given, place, state } => {
                let late = !self.peers.heard(now, *from, *sent, state.latest());
                let tables = self.services.get_mut(service.index());
                match tables.filter(|tables| tables.given >= *given) {
                    Some(tables) if tables.given == *given => {
                        tables.hear(&mut self.peers, now, place, state, late);
                    }
                    // Of a service that had the place before.
                    Some(_) => {}
                    None => self.ahead = true,
                }
            }
        }
    }

    fn stats_of(&mut self, news: &TableNews) -> Option<&mut TableStats> {
        let service = news.service()?;
        self.services.get_mut(service.index()).map(|tables| &mut tables.stats)
    }

    /// Changes first, then a resync that is under way.
    fn next_news(&mut self, peer: u8) -> Option<TableNews> {
        if let Some(news) = self.peers.take_returned(peer) {
            return Some(news);
        }
        let from = (self.peers.number(), self.peers.now);
        if self.peers.take_ask(peer) {
            return Some(TableNews(News::Again { from: from.0 }));
        }
        while let Some((service, place)) = self.peers.next_change(peer) {
            let tables = self.services.get(service.index());
            if let Some(news) = tables.and_then(|tables| tables.news(from, &place)) {
                return Some(news);
            }
        }
        let walk = self.peers.walk_mut(peer)?;
        while let Some(tables) = self.services.get(walk.service) {
            if let Some(news) = tables.walk(from, walk) {
                return news;
            }
            *walk = Walk { service: walk.service + 1, ..Walk::default() };
        }
        self.peers.finish_walk(peer);
        None
    }

    /// Has the peers tell everything anew if something that they told found no room and now would.
    fn ask_again(&mut self, now: Instant) {
        if now < self.ask_at {
            return;
        }
        let mut asked = false;
        for place in &self.owning {
            let tables = self.services.get_mut(*place).filter(|tables| tables.missed && tables.has_room());
            asked |= tables.map(|tables| tables.missed = false).is_some();
        }
        if asked {
            self.ask_at = now + ASK_EVERY;
            self.peers.ask_all(now);
        }
    }

    /// Frees expired entries, and tells the peers of renewed ones, in at most `budget` steps, each of which looks at
    /// one entry whose time may have come; services are served in turn. Returns the number of entries freed.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let (mut freed, mut left) = (0, budget);
        if !self.peers.alone() {
            self.peers.may_collect(now);
            self.ask_again(now);
        }
        for _ in 0..self.owning.len() {
            self.sweep = if self.sweep + 1 < self.owning.len() { self.sweep + 1 } else { 0 };
            let place = self.owning.get(self.sweep).copied();
            let Some(tables) = place.and_then(|place| self.services.get_mut(place)) else { break };
            let (steps, count) = tables.expire(&mut self.peers, now, left);
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
        let Some(tables) = self.tables(service) else { return TableStats::default() };
        TableStats { resyncs: self.peers.resyncs, ..tables.stats() }
    }

    /// Up to `limit` entries of a service, those that expire first (about) first.
    pub fn entries(&self, service: ServiceId, limit: usize) -> impl Iterator<Item = TableEntry<'_>> {
        let tables = self.tables(service);
        tables.into_iter().flat_map(ServiceTables::iter).take(limit)
    }
}

/// The places of those that are their own owners, and not let go.
fn owning(snapshot: &Snapshot, owners: &[ServiceId]) -> Vec<usize> {
    let owns = |place: &usize| owners.get(*place).is_some_and(|owner| owner.index() == *place);
    let spare = &snapshot.retired.spare.services;
    let places = (0..owners.len()).filter(owns);
    places.filter(|place| u16::try_from(*place).is_ok_and(|id| !spare.contains_key(&ServiceId(id)))).collect()
}

/// When a place was given to the service that has it.
fn given(snapshot: &Snapshot, id: ServiceId) -> u32 {
    snapshot.retired.given.services.get(&id).copied().unwrap_or(0)
}

#[cfg(test)]
mod replica_model;
#[cfg(test)]
mod replica_tests;
#[cfg(test)]
mod tests;
