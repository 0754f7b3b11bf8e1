//! What the other workers have to be told, and the clock that orders what all workers do.

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::state::{KeyState, Stamp};
use crate::snapshot::ServiceId;
use crate::steering::Seat;

/// How long what has ended is remembered, so that news on the way find it; more than twice [`LATE`].
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long before the end that the peers know of they are told of a later one.
pub(super) const LEAD: Duration = Duration::from_secs(2);
/// News that were on the way for longer count only for the removals in them, and their sender is asked for everything
/// anew. What is heard of for longer than this after it was done came to one who was cut off, and is told on.
pub(super) const LATE: Duration = Duration::from_secs(2);
/// Changes that wait this long wait for a peer that is cut off.
const BEHIND: Duration = Duration::from_secs(1);
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
    /// All that `from` knew about a key at the time `sent`. `given` tells the services apart that have had one place.
    Key { from: u8, sent: Instant, service: ServiceId, given: u32, place: Place, state: KeyState },
    /// `from` lacks something and wants to be told everything anew.
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

/// Where something changed that is to be told. What is told is the state at the time of telling.
pub(super) type Change = (ServiceId, Place);

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
    /// It is to be asked for everything, and when that was decided last.
    ask: bool,
    asked: Instant,
    /// What its ring did not take; told first.
    returned: Option<TableNews>,
    /// The resync that is under way.
    walk: Option<Walk>,
}

impl Peer {
    fn returned_since(&self) -> Option<Instant> {
        match self.returned.as_ref()?.0 {
            News::Key { sent, .. } => Some(sent),
            News::Again { .. } => None,
        }
    }
}

/// The other workers as one store sees them.
#[derive(Debug)]
pub(super) struct Peers {
    number: u8,
    /// By worker, itself included; empty if there is no other.
    peers: Vec<Peer>,
    /// Changes that some peer has not been told yet, and since when.
    log: VecDeque<(Instant, Change)>,
    /// The most that `log` holds, [`BACKLOG`].
    pub(super) backlog: usize,
    /// The number of the log's first change.
    base: u64,
    /// The latest time in a stamp made or heard, in microseconds.
    pub(super) latest: u64,
    /// The latest `now` of any call.
    pub(super) now: Instant,
    /// Nothing that has ended is forgotten before.
    keep_until: Instant,
    /// Resyncs begun.
    pub(super) resyncs: u64,
}

impl Peers {
    pub(super) fn new(seat: Seat) -> Self {
        let others = if seat.of > 1 { seat.of } else { 0 };
        let cursor = |worker| if worker == seat.number { u64::MAX } else { 0 };
        let peer = |worker| Peer {
            cursor: cursor(worker),
            ask: false,
            asked: Instant::ZERO,
            returned: None,
            walk: None,
        };
        Peers {
            number: seat.number,
            peers: (0..others).map(peer).collect(),
            log: VecDeque::with_capacity(if others > 0 { BACKLOG } else { 0 }),
            backlog: BACKLOG,
            base: 0,
            latest: 0,
            now: Instant::ZERO,
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
        self.now = self.now.max(now);
        self.latest = u64::try_from(now.total_micros()).unwrap_or(0).max(self.latest + 1);
        Stamp::new(self.latest, self.number)
    }

    /// Notes the latest stamp in news. False if they were on the way for too long, so that all but their removals may
    /// be out of date: then their sender is asked for everything anew.
    pub(super) fn heard(&mut self, now: Instant, from: u8, sent: Instant, latest: Stamp) -> bool {
        self.now = self.now.max(now);
        self.latest = self.latest.max(latest.micros());
        let in_time = sent + LATE >= now;
        if !in_time
            && let Some(peer) = self.peer_mut(from)
            && (sent > peer.asked || peer.asked == Instant::ZERO)
        {
            (peer.ask, peer.asked) = (true, now);
        }
        in_time
    }

    /// All peers are to be asked for everything.
    pub(super) fn ask_all(&mut self, now: Instant) {
        for peer in &mut self.peers {
            (peer.ask, peer.asked) = (true, now);
        }
    }

    /// Whether the peer is to be asked now; once.
    pub(super) fn take_ask(&mut self, peer: u8) -> bool {
        self.peer_mut(peer).is_some_and(|peer| std::mem::take(&mut peer.ask))
    }

    /// Every peer has to be told this. One that is [`BACKLOG`] changes behind is resynchronised instead.
    pub(super) fn tell(&mut self, now: Instant, change: Change) {
        if self.alone() {
            return;
        }
        if self.log.len() >= self.backlog {
            let base = self.base;
            for peer in 0..=u8::MAX {
                match self.peers.get(usize::from(peer)) {
                    Some(Peer { cursor, .. }) if *cursor == base => self.resync(peer),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        self.log.push_back((now, change));
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
        let (_, change) = self.log.get(usize::try_from(cursor.checked_sub(base)?).ok()?)?.clone();
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

    /// Whether what ended a [`GRACE`] ago may be forgotten: not while a peer is being resynchronised or is behind.
    pub(super) fn may_collect(&mut self, now: Instant) -> bool {
        if self.alone() {
            return true;
        }
        self.now = self.now.max(now);
        let old = |since: Instant| now > since + BEHIND;
        if self.log.front().is_some_and(|(since, _)| old(*since))
            || self.peers.iter().any(|peer| peer.walk.is_some() || peer.returned_since().is_some_and(old))
        {
            self.keep_until = now + GRACE;
        }
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
