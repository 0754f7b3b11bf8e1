//! What the other workers have to be told, and the clock that orders what all workers do.

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::state::{KeyState, Stamp};
use crate::snapshot::ServiceId;

/// Which of how many replicas a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The worker, from 0.
    pub number: u8,
    /// Workers in all.
    pub of: u8,
}

impl Replica {
    /// The only worker: nobody is told anything, and nothing is spent on it.
    pub const ALONE: Replica = Replica { number: 0, of: 1 };
}

/// How long what has ended is remembered, so that news on the way find it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long before the end that the peers know of they are told of a later one.
pub(super) const LEAD: Duration = Duration::from_secs(2);
/// News that are older than this when they are heard came to one who was cut off, and are told on; less than
/// [`GRACE`] by more than news take.
pub(super) const LATE: Duration = Duration::from_secs(2);
/// A worker that did not look at its tables for this long may have old news in its rings.
const STALL: Duration = Duration::from_secs(1);
/// Changes that wait to be told. A peer that is further behind is told everything anew.
pub(super) const BACKLOG: usize = 4096;

/// Name of the table, `None` for the default one, and key.
pub(super) type Place = (Option<Arc<[u8]>>, Arc<[u8]>);
/// A place in the order of expiry: time and a number that makes it unique.
pub(super) type Turn = (Instant, u64);

/// Something that one worker tells another about its tables. Cheap to clone: keys and values are shared.
#[derive(Clone, Debug)]
pub struct TableNews(pub(super) News);

#[derive(Clone, Debug)]
pub(super) enum News {
    /// All that is known about a key.
    Key { service: ServiceId, place: Place, state: KeyState },
    /// This worker could not keep something for lack of room and now has room: it wants everything anew.
    Again { from: u8 },
}

impl TableNews {
    pub(super) fn service(&self) -> Option<ServiceId> {
        match &self.0 {
            News::Key { service, .. } => Some(*service),
            News::Again { .. } => None,
        }
    }
}

/// A change that is to be told. What is told is the state at the time of telling.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Key(ServiceId, Place),
    Again,
}

/// How far a resync of one peer has come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) service: usize,
    /// The last entry told, in the service's order of expiry.
    pub(super) after: Option<Turn>,
    /// Entries from this number on are told as changes; set when the walk enters a service.
    pub(super) below: Option<u64>,
}

#[derive(Debug)]
struct Peer {
    /// The next change to tell, counted from the start; `u64::MAX` for the worker itself.
    cursor: u64,
    /// What its ring did not take; told first.
    returned: Option<TableNews>,
    /// The resync that is under way.
    walk: Option<Walk>,
}

/// The other workers as one store sees them.
#[derive(Debug)]
pub(super) struct Peers {
    number: u8,
    /// By worker, itself included; empty if there is no other.
    peers: Vec<Peer>,
    /// Changes that some peer has not been told yet.
    log: VecDeque<Change>,
    /// The number of the log's first change.
    base: u64,
    /// The latest time in a stamp made or heard, in microseconds.
    latest: u64,
    /// When [`Peers::may_collect`] was asked last.
    seen: Instant,
    /// Nothing that has ended is forgotten before.
    keep_until: Instant,
    /// Resyncs begun.
    pub(super) resyncs: u64,
}

impl Peers {
    pub(super) fn new(replica: Replica) -> Self {
        let others = if replica.of > 1 { replica.of } else { 0 };
        let cursor = |worker| if worker == replica.number { u64::MAX } else { 0 };
        let peer = |worker| Peer { cursor: cursor(worker), returned: None, walk: None };
        Peers {
            number: replica.number,
            peers: (0..others).map(peer).collect(),
            log: VecDeque::with_capacity(if others > 0 { BACKLOG } else { 0 }),
            base: 0,
            latest: 0,
            seen: Instant::ZERO,
            keep_until: Instant::ZERO,
            resyncs: 0,
        }
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// True if there is no other worker.
    pub(super) fn alone(&self) -> bool {
        self.peers.is_empty()
    }

    /// [`GRACE`], or nothing where there is nobody to wait for.
    pub(super) fn grace(&self) -> Duration {
        if self.alone() { Duration::ZERO } else { GRACE }
    }

    /// A stamp later than all that were made or heard here, and not before `now`.
    pub(super) fn stamp(&mut self, now: Instant) -> Stamp {
        self.latest = u64::try_from(now.total_micros()).unwrap_or(0).max(self.latest + 1);
        Stamp::new(self.latest, self.number)
    }

    pub(super) fn heard(&mut self, stamp: Stamp) {
        self.latest = self.latest.max(stamp.micros());
    }

    /// Every peer has to be told this. One that is [`BACKLOG`] changes behind is resynchronised instead.
    pub(super) fn tell(&mut self, change: Change) {
        if self.alone() {
            return;
        }
        if self.log.len() >= BACKLOG {
            let base = self.base;
            for peer in 0..=u8::MAX {
                match self.peers.get(usize::from(peer)) {
                    Some(Peer { cursor, .. }) if *cursor == base => self.resync(peer),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        self.log.push_back(change);
    }

    /// The whole state has to be told to this peer, and of the changes those from now on.
    pub(super) fn resync(&mut self, peer: u8) {
        let end = self.end();
        let Some(peer) = self.peer_mut(peer) else { return };
        peer.cursor = end;
        let first = peer.walk.replace(Walk::default()).is_none();
        self.resyncs += u64::from(first);
        self.trim();
    }

    /// The peer's ring did not take this.
    pub(super) fn returned(&mut self, peer: u8, news: TableNews) {
        if let Some(peer) = self.peer_mut(peer) {
            peer.returned = Some(news);
        }
    }

    pub(super) fn take_returned(&mut self, peer: u8) -> Option<TableNews> {
        self.peer_mut(peer)?.returned.take()
    }

    /// The next change that the peer has not been told.
    pub(super) fn next_change(&mut self, peer: u8) -> Option<Change> {
        let base = self.base;
        let cursor = self.peer_mut(peer)?.cursor;
        let change = self.log.get(usize::try_from(cursor.checked_sub(base)?).ok()?)?.clone();
        self.peer_mut(peer)?.cursor = cursor + 1;
        self.trim();
        Some(change)
    }

    /// The peer's resync, if one is under way.
    pub(super) fn walk_mut(&mut self, peer: u8) -> Option<&mut Walk> {
        self.peer_mut(peer)?.walk.as_mut()
    }

    pub(super) fn finish_walk(&mut self, peer: u8) {
        if let Some(peer) = self.peer_mut(peer) {
            peer.walk = None;
        }
    }

    /// Whether what ended a [`GRACE`] ago may be forgotten; not while a peer is being resynchronised, nor just after
    /// this worker stood still, because what it has not heard yet may be about it.
    pub(super) fn may_collect(&mut self, now: Instant) -> bool {
        if self.alone() {
            return true;
        }
        if now > self.seen + STALL || self.peers.iter().any(|peer| peer.walk.is_some()) {
            self.keep_until = now + GRACE;
        }
        self.seen = self.seen.max(now);
        now >= self.keep_until
    }

    pub(super) fn keep_until(&self) -> Instant {
        self.keep_until
    }

    fn peer_mut(&mut self, peer: u8) -> Option<&mut Peer> {
        if peer == self.number {
            return None;
        }
        self.peers.get_mut(usize::from(peer))
    }

    fn end(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    /// Drops the changes that all peers were told.
    fn trim(&mut self) {
        let first = self.peers.iter().map(|peer| peer.cursor).min().unwrap_or(u64::MAX);
        while self.base < first && self.log.pop_front().is_some() {
            self.base += 1;
        }
    }
}
