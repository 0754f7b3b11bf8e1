//! Random histories of several replicas against a naive model.
//!
//! The model knows nothing of states, floors or joins: it keeps all events that ever happened, notes which of them each
//! worker can know, and answers a read by playing those to one plain table in the order of their stamps.
//! `WEIR_SEEDS` sets the number of histories.

use std::collections::{BTreeSet, VecDeque};

use super::*;

const SERVICE: ServiceId = ServiceId(0);
const KEYS: usize = 6;
const SECOND: i64 = 1_000_000;
/// Places in the ring of a pair, and changes that wait for a place.
const RING: usize = 4;
const BACKLOG: usize = 8;

/// Time in microseconds and worker.
type At = (u64, usize);

#[derive(Clone, Debug)]
enum Event {
    /// A new entry, and whether by `replace`.
    Insert {
        at: At,
        value: Vec<u8>,
        replace: bool,
        until: i64,
    },
    Remove {
        at: At,
    },
    /// Another value for the entry that was inserted at `of`.
    Write {
        of: At,
        at: At,
        value: Vec<u8>,
    },
    /// A later end for it.
    Renew {
        of: At,
        until: i64,
    },
}

/// An entry as the plain table holds it.
struct Row {
    value: Vec<u8>,
    written: At,
    until: i64,
    /// The insert that a worker that sees the row renews.
    last: At,
}

/// What a reader sees after `events`, in whatever order they are given.
fn play(events: &[&Event], now: i64) -> Option<Row> {
    let when = |event: &&&Event| match event {
        Event::Insert { at, .. } | Event::Remove { at } => Some(*at),
        _ => None,
    };
    let mut serial: Vec<_> = events.iter().filter(|event| when(event).is_some()).collect();
    serial.sort_by_key(when);
    let mut rows: Vec<Row> = Vec::new();
    for event in serial {
        let Event::Insert { at, value, replace, until } = event else {
            rows.clear();
            continue;
        };
        let mut until = *until;
        let mut write = if *replace { Some((*at, value)) } else { None };
        for event in events {
            match event {
                Event::Renew { of, until: later } if of == at => until = until.max(*later),
                Event::Write { of, at: written, value } if of == at => {
                    write = write.max(Some((*written, value)));
                }
                _ => {}
            }
        }
        match rows.last_mut() {
            Some(row) if row.until > at.0 as i64 => {
                row.until = row.until.max(until);
                row.last = *at;
                if let Some((written, value)) = write
                    && written > row.written
                {
                    (row.written, row.value) = (written, value.clone());
                }
            }
            _ => {
                let (written, value) = write.unwrap_or(((0, 0), value));
                rows.push(Row { value: value.clone(), written, until, last: *at });
            }
        }
    }
    rows.into_iter().find(|row| row.until > now)
}

fn seeds() -> u64 {
    std::env::var("WEIR_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(30)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// The events that a worker can know, by key.
type Known = [BTreeSet<usize>; KEYS];

struct OnTheWay {
    due: i64,
    news: TableNews,
    /// What the sender knew about the key when it made the news.
    known: BTreeSet<usize>,
}

struct World {
    random: Random,
    now: i64,
    stores: Vec<TableStore>,
    /// What each worker's clock is ahead.
    ahead: Vec<i64>,
    events: Vec<(usize, Event)>,
    known: Vec<Known>,
    rings: Vec<Vec<VecDeque<OnTheWay>>>,
    refused: Vec<Vec<Option<BTreeSet<usize>>>>,
    /// Until when nothing comes out of a ring, or a worker does nothing.
    cut: Vec<Vec<i64>>,
    still: Vec<i64>,
    inserted: u64,
    /// What was ever given to an insert or a replacement of a key.
    values: BTreeSet<(usize, Vec<u8>)>,
    /// Reads are checked against the model at once.
    exact: bool,
    reads: u64,
}

impl World {
    fn new(seed: u64, exact: bool) -> Self {
        println!("seed {seed}");
        let mut random = Random(seed);
        let of = 2 + random.below(3) as usize;
        let mut snapshot = Snapshot::default();
        snapshot.add_service("first", None, 1000);
        let store = |number| {
            let mut store = TableStore::new(&snapshot, Seat { number, of: of as u8 });
            store.peers.backlog = BACKLOG;
            store
        };
        let rings = || (0..of).map(|_| (0..of).map(|_| VecDeque::new()).collect()).collect();
        World {
            now: 10 * SECOND,
            stores: (0..of as u8).map(store).collect(),
            ahead: (0..of).map(|_| random.below(10) as i64).collect(),
            random,
            events: Vec::new(),
            known: vec![Known::default(); of],
            rings: rings(),
            refused: vec![vec![None; of]; of],
            cut: vec![vec![0; of]; of],
            still: vec![0; of],
            inserted: 0,
            values: BTreeSet::new(),
            exact,
            reads: 0,
        }
    }

    fn workers(&self) -> std::ops::Range<usize> {
        0..self.stores.len()
    }

    fn clock(&self, worker: usize) -> Instant {
        Instant::from_micros(self.now + self.ahead[worker])
    }

    fn model(&self, worker: usize, key: usize) -> Option<Row> {
        let events: Vec<&Event> =
            self.known[worker][key].iter().map(|&index| &self.events[index].1).collect();
        play(&events, self.now + self.ahead[worker])
    }

    /// What the worker sees: the model says so, but of a worker that was cut off, which may see what it should not any
    /// more, we take its own word.
    fn row(&self, worker: usize, key: usize) -> Option<Row> {
        if self.exact {
            return self.model(worker, key);
        }
        let now = self.clock(worker);
        let news = self.stores[worker].services[0].news((0, now), &(None, [key as u8].as_slice().into()))?;
        let News::Key { state, .. } = news.0 else { return None };
        let life = state.life(now)?;
        let born = state.last(&life)?.born;
        let value = state.value(&life)?.to_vec();
        let last = (born.micros(), usize::from(born.worker()));
        Some(Row { value, written: (0, 0), until: life.ends.total_micros(), last })
    }

    fn happened(&mut self, worker: usize, key: usize, event: Event) {
        self.known[worker][key].insert(self.events.len());
        self.events.push((key, event));
    }

    /// The stamp that the worker's last operation took; later than all that it knew, and not before its clock.
    fn stamp(&self, worker: usize) -> At {
        let at = (self.stores[worker].peers.latest, worker);
        assert!(at.0 >= (self.now + self.ahead[worker]) as u64);
        let known = self.known[worker].iter().flatten().map(|&index| &self.events[index].1);
        for event in known {
            let (Event::Insert { at: before, .. } | Event::Remove { at: before }) = event else { continue };
            assert!(before.0 < at.0, "{before:?} is known at {at:?}");
        }
        at
    }

    fn put(&mut self, worker: usize, key: usize, replace: bool) {
        let (now, life) = (self.clock(worker), 300 + self.random.below(100) as u32);
        self.inserted += 1;
        let repeat = self.row(worker, key).filter(|_| self.random.one_in(3)).map(|row| row.value);
        let value = repeat.unwrap_or_else(|| [&[key as u8][..], &self.inserted.to_le_bytes()].concat());
        self.values.insert((key, value.clone()));
        let before = self.row(worker, key);
        let store = &mut self.stores[worker];
        let result = if replace {
            store.replace(now, SERVICE, None, &[key as u8], &value, life)
        } else {
            store.insert(now, SERVICE, None, &[key as u8], &value, life)
        };
        let until = now.total_micros() + i64::from(life) * SECOND;
        match (result, before) {
            (Inserted::New, before) => {
                assert!(before.is_none(), "there was an entry");
                let at = self.stamp(worker);
                self.happened(worker, key, Event::Insert { at, value, replace, until });
            }
            (Inserted::Renewed, Some(row)) => {
                if replace && row.value != value {
                    let at = self.stamp(worker);
                    self.happened(worker, key, Event::Write { of: row.last, at, value });
                }
                self.happened(worker, key, Event::Renew { of: row.last, until });
            }
            (result, _) => panic!("{result:?}"),
        }
    }

    fn read(&mut self, worker: usize, key: usize, exten: u32) {
        let now = self.clock(worker);
        let row = self.row(worker, key);
        let found = self.stores[worker].lookup(now, SERVICE, None, &[key as u8], exten);
        let found = found.map(|(value, left)| (value.to_vec(), left));
        self.reads += u64::from(found.is_some());
        let until = |row: &Row| row.until + i64::from(exten) * SECOND;
        if let Some((value, _)) = &found {
            let written = self.values.contains(&(key, value.clone()));
            assert!(written, "{value:?} was never inserted for {key}");
        }
        if self.exact {
            let left = |row: &Row| (until(row) - now.total_micros()).div_euclid(SECOND) as u64;
            let exact = |row: &Row| (until(row) - now.total_micros()) % SECOND == 0;
            let expected = row.as_ref().map(|row| (row.value.clone(), left(row) + u64::from(!exact(row))));
            assert_eq!(found, expected, "worker {worker}, key {key}");
        }
        if let Some(row) = row.filter(|_| found.is_some() && exten > 0) {
            self.happened(worker, key, Event::Renew { of: row.last, until: until(&row) });
        }
    }

    fn remove(&mut self, worker: usize, key: usize) {
        let before = self.row(worker, key).is_some();
        let now = self.clock(worker);
        if self.stores[worker].remove(now, SERVICE, None, &[key as u8]) {
            let at = self.stamp(worker);
            self.happened(worker, key, Event::Remove { at });
        } else {
            assert!(!before, "there was an entry");
        }
    }

    fn operate(&mut self) {
        let (worker, key) =
            (self.random.below(self.stores.len() as u64) as usize, self.random.below(KEYS as u64));
        let key = key as usize;
        if self.still[worker] > self.now {
            return;
        }
        match self.random.below(12) {
            0..3 => self.put(worker, key, false),
            3 => self.put(worker, key, true),
            4 => self.remove(worker, key),
            5 | 6 => {
                let exten = self.random.below(3) as u32 * 100;
                self.read(worker, key, exten);
            }
            _ => self.read(worker, key, 0),
        }
    }

    /// What a worker does between bursts: it tells, it hears, it sweeps. `delay` is the longest way of news.
    fn between_bursts(&mut self, worker: usize, delay: u64) {
        if self.still[worker] > self.now {
            return;
        }
        for peer in self.workers() {
            self.hear(peer, worker);
        }
        let now = self.clock(worker);
        self.stores[worker].expire(now, 4);
        for peer in self.workers() {
            self.tell(worker, peer, delay);
        }
    }

    fn tell(&mut self, from: usize, to: usize, delay: u64) {
        while let Some(news) = self.stores[from].poll_news(to as u8) {
            let known = match (self.refused[from][to].take(), &news.0) {
                (Some(known), _) => known,
                (None, News::Key { place, .. }) => self.known[from][usize::from(place.1[0])].clone(),
                (None, News::Again { .. }) => BTreeSet::new(),
            };
            if self.rings[from][to].len() == RING {
                self.stores[from].news_refused(to as u8, news);
                self.refused[from][to] = Some(known);
                return;
            }
            let last = self.rings[from][to].back().map_or(0, |last| last.due);
            let due = last.max(self.now + self.random.below(delay + 1) as i64);
            self.rings[from][to].push_back(OnTheWay { due, news, known });
        }
    }

    fn hear(&mut self, from: usize, to: usize) {
        if self.cut[from][to] > self.now {
            return;
        }
        while self.rings[from][to].front().is_some_and(|first| first.due <= self.now) {
            let Some(OnTheWay { news, known, .. }) = self.rings[from][to].pop_front() else { return };
            let now = self.clock(to);
            if let News::Key { place, sent, .. } = &news.0 {
                let late = *sent + peers::LATE < now;
                let counts = |index: &usize| !late || matches!(self.events[*index].1, Event::Remove { .. });
                self.known[to][usize::from(place.1[0])].extend(known.into_iter().filter(counts));
            }
            self.stores[to].hear(now, news);
        }
    }

    /// Time passes in steps in which everything arrives; after each, all workers see what the model says.
    fn rest(&mut self, steps: usize, step: i64, check: bool) {
        for count in 0..steps {
            self.now += step;
            for _ in 0..2 {
                self.workers().for_each(|worker| self.between_bursts(worker, 0));
            }
            if check {
                self.agree(&format!("after {count} steps of {step} us"));
            }
        }
    }

    fn agree(&mut self, when: &str) {
        for key in 0..KEYS {
            let events: Vec<&Event> =
                self.events.iter().filter(|(of, _)| *of == key).map(|(_, e)| e).collect();
            let expected = play(&events, self.now).map(|row| row.value);
            for worker in self.workers() {
                let now = Instant::from_micros(self.now);
                let found = self.stores[worker].lookup(now, SERVICE, None, &[key as u8], 0);
                assert_eq!(
                    found.map(|(value, _)| value.to_vec()),
                    expected,
                    "worker {worker}, key {key}, {when}"
                );
            }
        }
    }

    fn total(&self, count: impl Fn(&TableStats) -> u64) -> u64 {
        self.stores.iter().map(|store| count(&store.stats(SERVICE))).sum()
    }
}

/// Delays of up to a second and rings that overflow: whoever reads sees what the model makes of what it can know.
#[test]
fn every_read_is_what_a_plain_table_would_say_of_what_was_heard() {
    let (mut reads, mut refused, mut resyncs, mut lost) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        let mut world = World::new(0xab1e_0000 + seed, true);
        for _ in 0..1500 {
            world.now += match world.random.below(100) {
                0 => world.random.below(SECOND as u64 / 2) as i64,
                1..10 => world.random.below(20_000) as i64,
                _ => world.random.below(20) as i64,
            };
            if world.random.one_in(100) {
                let of = world.stores.len() as u64;
                let (from, to) = (world.random.below(of) as usize, world.random.below(of) as usize);
                world.cut[from][to] = world.now + world.random.below(SECOND as u64) as i64;
            }
            world.operate();
            let worker = world.random.below(world.stores.len() as u64) as usize;
            world.between_bursts(worker, 200);
            if world.random.one_in(700) {
                let steps = 400 + world.random.below(500) as usize;
                world.rest(10, SECOND / 2, false);
                world.rest(steps, SECOND / 2, true);
            }
        }
        reads += world.reads;
        refused += world.total(|stats| stats.news_refused);
        resyncs += world.total(|stats| stats.resyncs);
        lost += world.total(|stats| stats.conflicts_lost);
    }
    println!("{reads} reads, {refused} refused, {resyncs} resyncs, {lost} conflicts lost");
    let met = [(reads, 300), (refused, 50), (resyncs, 1), (lost, 5)];
    assert!(met.iter().all(|(count, each)| *count >= each * seeds()), "everything was met: {met:?}");
}

/// Workers that are cut off from each other or stand still for up to a minute, long after others have forgotten what
/// they missed: once they hear again, all come to what a plain table would hold after all events.
#[test]
fn replicas_that_were_cut_off_for_long_converge() {
    let mut resyncs = 0;
    for seed in 0..seeds() {
        let mut world = World::new(0xc07_0000 + seed, false);
        for _ in 0..1500 {
            world.now += world.random.below(SECOND as u64 / 2) as i64;
            let of = world.stores.len() as u64;
            let (from, to) = (world.random.below(of) as usize, world.random.below(of) as usize);
            if world.random.one_in(60) {
                world.cut[from][to] = world.now + world.random.below(60 * SECOND as u64) as i64;
            }
            if world.random.one_in(150) {
                world.still[to] = world.now + world.random.below(20 * SECOND as u64) as i64;
            }
            if world.random.one_in(2) {
                world.operate();
            }
            world.workers().for_each(|worker| world.between_bursts(worker, 200));
        }
        world.now += 61 * SECOND;
        world.rest(80, SECOND / 4, false);
        world.agree("after the way was clear again");
        world.rest(2000, SECOND, true);
        assert_eq!(world.total(|stats| stats.entries as u64), 0, "all is forgotten in the end");
        resyncs += world.total(|stats| stats.resyncs);
    }
    println!("{resyncs} resyncs");
    assert!(resyncs >= 4 * seeds(), "{resyncs} resyncs");
}
