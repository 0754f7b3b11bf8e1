//! What goes through the entries of a service in their order: the sweep, a resync, the operator's view.

use std::ops::Bound;

use smoltcp::time::Instant;

use super::ServiceTables;
use crate::table::TableEntry;
use crate::table::entry::Entry;
use crate::table::peers::{News, Peers, Place, TableNews, Walk};

/// New entries that one step of a resync passes over.
const WALK_STEPS: usize = 64;

impl ServiceTables {
    /// Frees expired entries in at most `budget` steps; the steps taken and the entries freed.
    pub(in crate::table) fn expire(
        &mut self,
        peers: &mut Peers,
        now: Instant,
        budget: usize,
    ) -> (usize, usize) {
        let (mut steps, mut freed) = (0, 0);
        while steps < budget
            && let Some(gone) = self.step(peers, now)
        {
            steps += 1;
            freed += usize::from(gone);
        }
        (steps, freed)
    }

    /// Looks at the entry that stands first in the order if its turn has come; true if it was freed.
    pub(super) fn step(&mut self, peers: &mut Peers, now: Instant) -> Option<bool> {
        let first = self.order.first_entry().filter(|first| first.key().0 <= now)?;
        let ((_, number), place) = first.remove_entry();
        let (table, key) = (place.0.as_deref(), &*place.1);
        let Some(entry) = self.index.get_mut(table, key) else { return Some(true) };
        let (grace, number_here) = (peers.grace(), peers.number());
        let collect = peers.may_collect(now);
        let held = (entry.state.entries(), entry.state.bytes(), entry.state.births_of(number_here));
        if collect {
            entry.state.forget(now - grace);
        }
        if !peers.alone() && entry.state.life(now).is_some_and(|life| Entry::outlives(&life, now)) {
            entry.state.tell();
            peers.tell(now, (self.id, place.clone()));
        }
        self.entries = (self.entries + entry.state.entries()).saturating_sub(held.0);
        self.bytes = (self.bytes + entry.state.bytes()).saturating_sub(held.1);
        self.stats.expired += held.2.saturating_sub(entry.state.births_of(number_here));
        let due = entry.due(now, grace);
        if due <= now && collect {
            self.stats.expired += entry.state.births_of(number_here);
            if let Some(entry) = self.index.remove(table, key) {
                self.released(&entry, key);
            }
            return Some(true);
        }
        entry.turn = (if due <= now { peers.keep_until() } else { due }, number);
        self.order.insert(entry.turn, place);
        Some(false)
    }

    /// The news about a key; `None` if it is forgotten.
    pub(in crate::table) fn news(&self, (from, sent): (u8, Instant), place: &Place) -> Option<TableNews> {
        let state = self.index.get(place.0.as_deref(), &place.1)?.state.clone();
        Some(TableNews(News::Key {
            from,
            sent,
            service: self.id,
            given: self.given,
            place: place.clone(),
            state,
        }))
    }

    /// Takes a resync on to the next entry; `None` when there is none in this service, and news if there are any.
    pub(in crate::table) fn walk(&self, from: (u8, Instant), walk: &mut Walk) -> Option<Option<TableNews>> {
        let below = *walk.below.get_or_insert(self.next_number);
        let start = walk.after.map_or(Bound::Unbounded, Bound::Excluded);
        for (count, (turn, place)) in self.order.range((start, Bound::Unbounded)).enumerate() {
            walk.after = Some(*turn);
            if turn.1 < below {
                return Some(self.news(from, place));
            }
            if count >= WALK_STEPS {
                return Some(None);
            }
        }
        None
    }

    pub(in crate::table) fn iter(&self) -> impl Iterator<Item = TableEntry<'_>> {
        self.order.values().filter_map(|(name, key)| {
            let state = &self.index.get(name.as_deref(), key)?.state;
            let life = state.lives().last()?;
            let value = state.value(&life)?;
            Some(TableEntry { table: name.as_deref(), key, value, expires: life.ends })
        })
    }
}
