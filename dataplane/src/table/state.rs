//! What a replica knows about one key, and how what two replicas know becomes one.
//!
//! A state is a floor (the latest removal) and the births after it. Joining two states is a least upper bound:
//! in any order, and however often, the same news make the same state. What a reader sees is computed from the state
//! and the time alone; see [`KeyState::lives`].

use std::sync::Arc;

use smoltcp::time::Instant;

/// When something was done and by which worker: microseconds, then the worker's number. No two are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// Before all others.
    pub(super) const NEVER: Stamp = Stamp(0);

    pub(super) fn new(micros: u64, worker: u8) -> Self {
        Stamp(micros << 8 | u64::from(worker))
    }

    pub(super) fn micros(self) -> u64 {
        self.0 >> 8
    }

    pub(super) fn time(self) -> Instant {
        Instant::from_micros(i64::try_from(self.micros()).unwrap_or(i64::MAX))
    }

    pub(super) fn worker(self) -> u8 {
        self.0 as u8
    }
}

/// One insert that found no live entry where it was made.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    pub(super) born: Stamp,
    /// When `value` came by a replacement, [`Stamp::NEVER`] while it is the inserted one.
    pub(super) written: Stamp,
    pub(super) value: Arc<[u8]>,
    pub(super) expires: Instant,
    /// The expiry that a worker has told all others; never later than `expires`. A peer may be told of a later one by
    /// chance, with another change: that does not count.
    pub(super) told: Instant,
}

/// Births in their order. One is the rule; more come of inserts at the same moment.
#[derive(Clone, Debug, Default)]
enum Births {
    #[default]
    None,
    One(Birth),
    Many(Vec<Birth>),
}

impl Births {
    fn as_slice(&self) -> &[Birth] {
        match self {
            Births::None => &[],
            Births::One(birth) => std::slice::from_ref(birth),
            Births::Many(births) => births,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Birth] {
        match self {
            Births::None => &mut [],
            Births::One(birth) => std::slice::from_mut(birth),
            Births::Many(births) => births,
        }
    }

    fn add(&mut self, birth: Birth) {
        let mut births = match std::mem::take(self) {
            Births::None => {
                *self = Births::One(birth);
                return;
            }
            Births::One(other) => vec![other],
            Births::Many(births) => births,
        };
        births.insert(births.partition_point(|other| other.born < birth.born), birth);
        *self = Births::Many(births);
    }

    fn retain(&mut self, keep: impl Fn(&Birth) -> bool) {
        if self.as_slice().iter().all(&keep) {
            return;
        }
        let Births::Many(mut births) = std::mem::take(self) else { return };
        births.retain(keep);
        *self = match births.len() {
            0 => Births::None,
            1 => births.pop().map_or(Births::None, Births::One),
            _ => Births::Many(births),
        };
    }
}

/// Births that are one entry to a reader: the later ones came while the entry lived, so they only renewed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    from: usize,
    to: usize,
    /// The end of the entry.
    pub(super) ends: Instant,
    /// The end that the peers know of.
    pub(super) told: Instant,
}

/// What a replica knows about a key.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyState {
    /// The latest removal; births up to it are gone.
    floor: Stamp,
    births: Births,
}

impl KeyState {
    pub(super) fn floor(&self) -> Stamp {
        self.floor
    }

    pub(super) fn births(&self) -> &[Birth] {
        self.births.as_slice()
    }

    /// The lives of the key, one after another: an insert begins one unless it was born in the one before, which it
    /// then prolongs. This is what a single table would do with the births in the order of their stamps.
    pub(super) fn lives(&self) -> impl Iterator<Item = Life> {
        let births = self.births.as_slice();
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = births.get(from)?;
            let mut life = Life { from, to: from + 1, ends: first.expires, told: first.told };
            for birth in births.iter().skip(life.to) {
                if birth.born.time() >= life.ends {
                    break;
                }
                life.to += 1;
                life.ends = life.ends.max(birth.expires);
                life.told = life.told.max(birth.told);
            }
            from = life.to;
            Some(life)
        })
    }

    /// The life that a reader sees.
    pub(super) fn life(&self, now: Instant) -> Option<Life> {
        self.lives().find(|life| life.ends > now)
    }

    fn of(&self, life: &Life) -> &[Birth] {
        self.births().get(life.from..life.to).unwrap_or_default()
    }

    /// The first insert of a life: the earlier one wins.
    pub(super) fn first(&self, life: &Life) -> Option<&Birth> {
        self.of(life).first()
    }

    /// The latest replacement of a life, and if there was none, what its first insert brought.
    pub(super) fn value<'a>(&'a self, life: &Life) -> Option<&'a Arc<[u8]>> {
        let (first, others) = self.of(life).split_first()?;
        let later =
            |best: &'a Birth, birth: &'a Birth| if birth.written > best.written { birth } else { best };
        Some(&others.iter().fold(first, later).value)
    }

    fn last_mut(&mut self, life: &Life) -> Option<&mut Birth> {
        self.births.as_mut_slice().get_mut(life.to.checked_sub(1)?)
    }

    /// The birth that renewals and replacements belong to: a removal that came between takes those before it.
    pub(super) fn last(&self, life: &Life) -> Option<&Birth> {
        self.of(life).last()
    }

    pub(super) fn prolong(&mut self, life: &Life, until: Instant) {
        if let Some(birth) = self.last_mut(life) {
            birth.expires = birth.expires.max(until);
        }
    }

    pub(super) fn replace(&mut self, life: &Life, stamp: Stamp, value: &[u8]) {
        if let Some(birth) = self.last_mut(life) {
            birth.written = stamp;
            birth.value = value.into();
        }
    }

    pub(super) fn add(&mut self, birth: Birth) {
        self.births.add(birth);
    }

    /// A removal.
    pub(super) fn raise_floor(&mut self, stamp: Stamp) {
        self.floor = self.floor.max(stamp);
        let floor = self.floor;
        self.births.retain(|birth| birth.born > floor);
    }

    /// What it knows of removals.
    pub(super) fn removals(&self) -> KeyState {
        KeyState { floor: self.floor, births: Births::None }
    }

    /// Takes over what another replica knows.
    pub(super) fn join(&mut self, other: &KeyState) {
        self.raise_floor(other.floor);
        for birth in other.births().iter().filter(|birth| birth.born > self.floor) {
            match self.births.as_mut_slice().iter_mut().find(|own| own.born == birth.born) {
                Some(own) => own.join(birth),
                None => self.births.add(birth.clone()),
            }
        }
    }

    /// Forgets lives that ended at `before` or earlier, except the last one.
    pub(super) fn forget(&mut self, before: Instant) {
        if self.births().len() > 1
            && let Some(last) = self.lives().last().map(|last| last.from)
            && let Some(life) = self.lives().take_while(|life| life.to <= last && life.ends <= before).last()
            && let Some(kept) = self.births().get(life.to).map(|birth| birth.born)
        {
            self.births.retain(|birth| birth.born >= kept);
        }
    }

    /// Notes that the peers are being told everything.
    pub(super) fn tell(&mut self) {
        for birth in self.births.as_mut_slice() {
            birth.told = birth.expires;
        }
    }

    /// Entries that this counts as.
    pub(super) fn entries(&self) -> usize {
        self.births().len().max(1)
    }

    /// Bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.births().iter().map(|birth| birth.value.len()).sum()
    }

    /// Births of one worker.
    pub(super) fn births_of(&self, worker: u8) -> u64 {
        self.births().iter().filter(|birth| birth.born.worker() == worker).count() as u64
    }

    /// Entries and bytes that joining `other` adds at most.
    pub(super) fn lacks(&self, other: &KeyState) -> (usize, usize) {
        let floor = self.floor.max(other.floor);
        let (mut entries, mut bytes) = (0, 0);
        for birth in other.births().iter().filter(|birth| birth.born > floor) {
            match self.births().iter().find(|own| own.born == birth.born) {
                Some(own) if birth.written > own.written => {
                    bytes += birth.value.len().saturating_sub(own.value.len());
                }
                Some(_) => {}
                None => {
                    entries += 1;
                    bytes += birth.value.len();
                }
            }
        }
        (entries, bytes)
    }

    /// The latest stamp in it.
    pub(super) fn latest(&self) -> Stamp {
        self.births().iter().map(|birth| birth.born.max(birth.written)).fold(self.floor, Stamp::max)
    }

    /// The oldest fact in this state that `before`, which it came from, did not hold; renewals are none.
    pub(super) fn oldest_since(&self, before: &KeyState) -> Option<Stamp> {
        let floor = (self.floor > before.floor).then_some(self.floor);
        let births = self.births().iter().filter_map(|birth| {
            match before.births().iter().find(|old| old.born == birth.born) {
                None => Some(birth.born),
                Some(old) => (old.written != birth.written).then_some(birth.written),
            }
        });
        floor.into_iter().chain(births).min()
    }
}

impl Birth {
    fn join(&mut self, other: &Birth) {
        self.expires = self.expires.max(other.expires);
        self.told = self.told.max(other.told);
        if other.written > self.written {
            self.written = other.written;
            self.value = other.value.clone();
        }
    }
}
