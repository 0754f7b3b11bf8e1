//! The connections that servers with `max_connections` may still have, as tokens that all workers of a configuration
//! share.
//!
//! A token is either spare or held by one flow; nothing else ever has one, so a server never has more flows than tokens.
//! There are as many as the limit says, and more only for flows that were there before the limit was so low.
//! The spare tokens of a server lie in shares, one for each worker: each begins with its part, and a flow that ends leaves
//! its token in the share of its worker. A worker takes from its own share as long as there is any, which
//! is an atomic operation on a cache line that no other worker touches; then it takes one that is spare elsewhere.
//! So tokens come to lie where the flows are.
//!
//! Nobody keeps tokens back and nobody is asked for them: a server is full only if all its tokens were held at one moment.
//! Looking through the shares one after the other does not show that, because one may be left in a share that was
//! looked at already while another one is taken from a share that comes later. Therefore each share counts what was ever
//! given to it. Shares that are all empty twice in a row, and have been given nothing in between, were empty at once.
//!
//! A configuration that takes the place of another one shares its tokens. The first worker that goes on with it makes the
//! tokens that a higher limit adds. Those that a lower limit takes away are owed: spare ones go at once, and as long as anything
//! is owed, a flow that ends, on whatever worker, pays with its token instead of giving it back. A server that had no
//! limit gets tokens of its own; each worker that goes on brings one for each of its flows there, and owes as many.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::snapshot::{Server, ServerId, Snapshot};
use crate::steering::Seat;

/// How often all shares are looked through while tokens are given back and taken all the time, before a server counts as
/// full. Each repetition means that a flow ended and another one began meanwhile.
const SWEEPS: usize = 64;
/// Shares in a cache line.
const PER_LINE: usize = 8;
/// What one more given token adds to a share: one to its count of gifts, one to its spare tokens.
const GIVEN: u64 = 1 << 32 | 1;

/// Spare tokens (low half) and how many were ever given (high half, going round).
type Share = AtomicU64;

/// Shares of one worker, or debts.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Share; PER_LINE]);

/// The tokens of all servers of a configuration that have a limit.
#[derive(Debug)]
struct Tokens {
    /// By worker; in each line after line the shares of the limited servers.
    shares: Box<[Box<[Arc<Line>]>]>,
    /// In line after line what the limited servers owe.
    debts: Box<[Arc<Line>]>,
    /// By server.
    places: Box<[Option<Place>]>,
    /// Limits that are not those of the configuration before.
    changes: Box<[Change]>,
    /// A worker has gone on with this configuration, and the changes are made.
    begun: AtomicBool,
}

/// Another limit.
#[derive(Debug)]
struct Change {
    place: Place,
    before: u32,
    now: u32,
}

/// Tokens of a [`Snapshot`], made when its first worker asks. A copy of a snapshot has its own.
#[derive(Debug, Default)]
pub struct SharedTokens(OnceLock<Arc<Tokens>>);

impl Clone for SharedTokens {
    fn clone(&self) -> Self {
        SharedTokens::default()
    }
}

impl SharedTokens {
    /// Those of `new`, which has all servers of `old` in their places.
    pub(crate) fn overlaid(old: &Snapshot, new: &Snapshot) -> SharedTokens {
        let tokens = old.tokens.0.get().map(|tokens| Arc::new(tokens.overlaid(old, new)));
        SharedTokens(tokens.map(OnceLock::from).unwrap_or_default())
    }
}

/// Which of the limited servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u32);

/// One worker's way to the tokens.
#[derive(Clone, Debug)]
pub(crate) struct WorkerTokens {
    tokens: Arc<Tokens>,
    own: usize,
}

impl WorkerTokens {
    /// For the worker on this seat; all workers of a snapshot share its tokens.
    pub(crate) fn new(snapshot: &Snapshot, seat: Seat) -> Self {
        let tokens = Arc::clone(snapshot.tokens.0.get_or_init(|| Arc::new(Tokens::new(snapshot, seat.of))));
        let own = usize::from(seat.number) % tokens.shares.len().max(1);
        tokens.begin();
        WorkerTokens { tokens, own }
    }

    /// The limited servers with their places.
    pub(crate) fn places(&self) -> impl Iterator<Item = (ServerId, Place)> {
        (0u16..).zip(&self.tokens.places).filter_map(|(id, place)| Some((ServerId(id), (*place)?)))
    }

    /// Takes a token for a flow. `false`: the server is full.
    pub(crate) fn take(&self, place: Place) -> bool {
        while self.seek(place, take_one).is_some() {
            // It may have been given by somebody who did not know yet that one is owed.
            if self.tokens.pay(place, 1) > 0 {
                return true;
            }
        }
        false
    }

    /// True if there is a token to take.
    pub(crate) fn any(&self, place: Place) -> bool {
        let look = |share: &Share| {
            let now = share.load(Ordering::Acquire);
            if spare(now) > 0 { Ok(()) } else { Err(gifts(now)) }
        };
        self.seek(place, look).is_some()
    }

    /// Gives the tokens of so many flows back, or pays with them.
    pub(crate) fn give(&self, place: Place, flows: u32) {
        let left = self.tokens.pay(place, flows);
        self.tokens.add(self.own, place, left);
    }

    /// Makes tokens for so many flows that have the server already, beyond its limit if need be.
    pub(crate) fn bring(&self, place: Place, flows: u32) {
        self.tokens.owe(place, flows);
    }

    /// All spare tokens of a server; exact only while no worker takes or gives one.
    pub(crate) fn spare(&self, place: Place) -> u64 {
        let shares = (0..self.tokens.shares.len()).filter_map(|worker| self.tokens.share(worker, place));
        let spare: u64 = shares.map(|share| u64::from(spare(share.load(Ordering::Acquire)))).sum();
        spare.saturating_sub(self.tokens.debt(place).map_or(0, |debt| debt.load(Ordering::Acquire)))
    }

    /// Looks through all shares, its own first, until one has what is sought. `look` says of an empty one how many
    /// tokens it was given. `None`: all were empty at one moment.
    fn seek<T>(&self, place: Place, look: impl Fn(&Share) -> Result<T, u32>) -> Option<T> {
        let workers = self.tokens.shares.len();
        let mut before = None;
        for _ in 0..SWEEPS {
            let mut given = 0u32;
            for worker in (self.own..workers).chain(0..self.own) {
                match look(self.tokens.share(worker, place)?) {
                    Ok(found) => return Some(found),
                    Err(gifts) => given = given.wrapping_add(gifts),
                }
            }
            if before == Some(given) {
                return None;
            }
            before = Some(given);
        }
        None
    }
}

impl Tokens {
    fn new(snapshot: &Snapshot, workers: u8) -> Self {
        let none = Tokens {
            shares: (0..workers.max(1)).map(|_| Box::default()).collect(),
            debts: Box::default(),
            places: Box::default(),
            changes: Box::default(),
            begun: AtomicBool::new(true),
        };
        none.overlaid(&Snapshot::default(), snapshot)
    }

    /// Servers that keep a limit keep their places, the others get places that nobody has here, or new ones behind. For the
    /// configuration that the workers of this one, all of them, go on with next.
    fn overlaid(&self, old: &Snapshot, new: &Snapshot) -> Self {
        let (mut limits, mut changes) = (Vec::new(), Vec::new());
        let first = self.debts.len() * PER_LINE;
        let taken: HashSet<Place> = self.places.iter().copied().flatten().collect();
        let all = (0..first).filter_map(|place| u32::try_from(place).ok()).map(Place);
        let mut free = all.filter(|place| !taken.contains(place));
        let place = |(index, server): (usize, &Server)| {
            let now = server.max_connections?;
            let before = old.servers.get(index).and_then(|server| server.max_connections);
            if let (Some(before), Some(place)) = (before, self.places.get(index).copied().flatten()) {
                if before != now {
                    changes.push(Change { place, before, now });
                }
                return Some(place);
            }
            if let Some(place) = free.next() {
                self.begin_anew(place, now);
                return Some(place);
            }
            limits.push(now);
            u32::try_from(first + limits.len() - 1).ok().map(Place)
        };
        let places = new.servers.iter().enumerate().map(place).collect();
        let workers = u32::try_from(self.shares.len()).unwrap_or(u32::MAX);
        let line = |limits: &[u32], worker: u32| {
            let mut line = Line::default();
            line.0
                .iter_mut()
                .zip(limits)
                .for_each(|(place, limit)| *place = Share::new(part(*limit, worker, workers).into()));
            Arc::new(line)
        };
        let lines = |kept: &[Arc<Line>], worker: u32| {
            let fresh = limits.chunks(PER_LINE).map(|limits| line(limits, worker));
            kept.iter().cloned().chain(fresh).collect()
        };
        let shares = self.shares.iter().zip(0..).map(|(kept, worker)| lines(kept, worker)).collect();
        let fresh = limits.chunks(PER_LINE).map(|_| Arc::default());
        let debts = self.debts.iter().cloned().chain(fresh).collect();
        let begun = AtomicBool::new(changes.is_empty());
        Tokens { shares, debts, places, changes: changes.into(), begun }
    }

    /// Gives a place that no worker uses the tokens of another server.
    fn begin_anew(&self, place: Place, limit: u32) {
        let workers = u32::try_from(self.shares.len()).unwrap_or(u32::MAX);
        for (worker, number) in (0..self.shares.len()).zip(0..) {
            if let Some(share) = self.share(worker, place) {
                share.store(part(limit, number, workers).into(), Ordering::Release);
            }
        }
        if let Some(debt) = self.debt(place) {
            debt.store(0, Ordering::Release);
        }
    }

    /// Makes the changes, once.
    fn begin(&self) {
        if self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        for Change { place, before, now } in &self.changes {
            self.owe(*place, before.saturating_sub(*now));
            let more = self.pay(*place, now.saturating_sub(*before));
            let workers = u32::try_from(self.shares.len()).unwrap_or(u32::MAX);
            for (worker, number) in (0..self.shares.len()).zip(0..) {
                self.add(worker, *place, part(more, number, workers));
            }
        }
    }

    /// Puts spare tokens into a share.
    fn add(&self, worker: usize, place: Place, tokens: u32) {
        if let Some(share) = self.share(worker, place) {
            share.fetch_add(GIVEN * u64::from(tokens), Ordering::AcqRel);
        }
    }

    /// So many tokens are too many; spare ones go now.
    fn owe(&self, place: Place, tokens: u32) {
        let Some(debt) = self.debt(place).filter(|_| tokens > 0) else { return };
        // First of all, so that nobody keeps what is taken or given from now on.
        debt.fetch_add(tokens.into(), Ordering::AcqRel);
        for worker in 0..self.shares.len() {
            let owed = u32::try_from(debt.load(Ordering::Acquire)).unwrap_or(u32::MAX);
            let taken = self.share(worker, place).map_or(0, |share| take_up_to(share, owed));
            let left = self.pay(place, taken);
            self.add(worker, place, left);
        }
    }

    /// Pays with so many tokens as far as anything is owed; how many are left.
    fn pay(&self, place: Place, tokens: u32) -> u32 {
        let Some(debt) = self.debt(place).filter(|debt| debt.load(Ordering::Acquire) > 0) else {
            return tokens;
        };
        let less = |owed: u64| Some(owed.saturating_sub(tokens.into()));
        let (Ok(owed) | Err(owed)) = debt.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        tokens.saturating_sub(u32::try_from(owed).unwrap_or(u32::MAX))
    }

    fn debt(&self, Place(place): Place) -> Option<&AtomicU64> {
        let place = place as usize;
        self.debts.get(place / PER_LINE)?.0.get(place % PER_LINE)
    }

    fn share(&self, worker: usize, Place(place): Place) -> Option<&Share> {
        let place = place as usize;
        self.shares.get(worker)?.get(place / PER_LINE)?.0.get(place % PER_LINE)
    }
}

/// One worker's part of so many tokens.
fn part(tokens: u32, worker: u32, workers: u32) -> u32 {
    let workers = workers.max(1);
    tokens / workers + u32::from(worker < tokens % workers)
}

fn spare(share: u64) -> u32 {
    share as u32
}

fn gifts(share: u64) -> u32 {
    (share >> 32) as u32
}

fn take_one(share: &Share) -> Result<(), u32> {
    let less = |now: u64| (spare(now) > 0).then(|| now - 1);
    share.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).map(|_| ()).map_err(gifts)
}

/// How many were taken.
fn take_up_to(share: &Share, most: u32) -> u32 {
    let less = |now: u64| Some(now - u64::from(spare(now).min(most)));
    let (Ok(before) | Err(before)) = share.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    spare(before).min(most)
}

#[cfg(test)]
mod tests;
