//! Entries and where they are found.

use std::collections::HashMap;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::peers::{LEAD, Place, Turn};
use super::state::{KeyState, Life, Stamp};

/// What is known about a key, and when to look at it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: KeyState,
    /// When its latest removal was heard of here.
    pub(super) removed: Instant,
    /// Where the entry stands in the service's order; never later than it has to be looked at.
    pub(super) turn: Turn,
}

impl Entry {
    /// When it has to be looked at after `now`: to tell the peers that it lives on, or to forget what has ended.
    pub(super) fn due(&self, now: Instant, grace: Duration) -> Instant {
        let removed = if self.state.floor() == Stamp::NEVER { Instant::ZERO } else { self.removed };
        let (mut due, mut previous) = (Instant::from_micros(i64::MAX), None);
        for life in self.state.lives() {
            if let Some(end) = previous.replace(life.ends) {
                due = due.min(after(end, grace));
            }
            let checks = [life.told - LEAD, life.told];
            if grace > Duration::ZERO
                && let Some(check) = checks.into_iter().find(|check| *check > now)
            {
                due = due.min(check);
            }
        }
        due.min(after(previous.map_or(removed, |end| end.max(removed)), grace))
    }

    /// True if the peers believe that this life ends soon, and it does not.
    pub(super) fn outlives(life: &Life, now: Instant) -> bool {
        life.ends > life.told && life.told <= now + LEAD
    }
}

type Table = HashMap<Arc<[u8]>, Entry>;

/// Entries by table and key.
#[derive(Debug, Default)]
pub(super) struct Index {
    default: Table,
    /// Never holds an empty table.
    pub(super) named: HashMap<Arc<[u8]>, Table>,
}

impl Index {
    pub(super) fn get(&self, table: Option<&[u8]>, key: &[u8]) -> Option<&Entry> {
        table.map_or(Some(&self.default), |name| self.named.get(name))?.get(key)
    }

    pub(super) fn get_mut(&mut self, table: Option<&[u8]>, key: &[u8]) -> Option<&mut Entry> {
        match table {
            None => self.default.get_mut(key),
            Some(name) => self.named.get_mut(name)?.get_mut(key),
        }
    }

    pub(super) fn remove(&mut self, table: Option<&[u8]>, key: &[u8]) -> Option<Entry> {
        let Some(name) = table else { return self.default.remove(key) };
        let entries = self.named.get_mut(name)?;
        let entry = entries.remove(key);
        if entries.is_empty() {
            self.named.remove(name);
        }
        entry
    }

    pub(super) fn add(&mut self, (name, key): Place, entry: Entry) {
        match name {
            None => self.default.insert(key, entry),
            Some(name) => self.named.entry(name).or_default().insert(key, entry),
        };
    }
}

/// `duration` after `time`, at the end of time at the latest.
pub(super) fn after(time: Instant, duration: Duration) -> Instant {
    let micros = i64::try_from(duration.total_micros()).unwrap_or(i64::MAX);
    Instant::from_micros(time.total_micros().saturating_add(micros))
}

/// `seconds` after `time`, at the end of time at the latest.
pub(super) fn later(time: Instant, seconds: u32) -> Instant {
    after(time, Duration::from_secs(u64::from(seconds)))
}
