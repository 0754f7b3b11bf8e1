//! How long an insert takes to be readable on the other cores, with real threads and rings. Run it alone:
//! `cargo test --release -p dataplane --lib table::propagation -- --ignored --nocapture`
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration as StdDuration, Instant as Clock};

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;

use super::*;

const SERVICE: ServiceId = ServiceId(0);
/// What a worker does in a round besides its part of the news: lookups as of a burst of packets, and inserts.
const BURST: u64 = crate::io::SHORT_BURST as u64;
const RING: usize = 1024;
/// Keys that the load uses.
const KEYS: u64 = 12_000;
const RUN: StdDuration = StdDuration::from_secs(5);

/// Rings from each worker to each, by `from * workers + to`.
struct Shared {
    workers: usize,
    rings: Vec<ArrayQueue<TableNews>>,
    /// Waits until all are ready.
    start: Barrier,
    /// Workers whose time is over.
    done: AtomicUsize,
}

impl Shared {
    fn ring(&self, from: usize, to: usize) -> &ArrayQueue<TableNews> {
        &self.rings[from * self.workers + to]
    }
}

struct Worker<'a> {
    number: usize,
    shared: &'a Shared,
    store: TableStore,
    begin: Clock,
    /// The next probe expected from each peer.
    expected: Vec<u64>,
    random: u64,
    /// Nanoseconds from insert to readable.
    delays: Histogram<u64>,
    operations: u64,
}

impl Worker<'_> {
    fn now(&self) -> Instant {
        Instant::from_micros(self.begin.elapsed().as_micros() as i64)
    }

    fn key(&mut self) -> [u8; 8] {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.random >> 33) % KEYS).to_le_bytes()
    }

    /// A burst: time is read once. Every eighth operation changes something.
    fn burst(&mut self) {
        let now = self.now();
        for packet in 0..BURST {
            let key = self.key();
            match packet % 16 {
                0 => drop(self.store.insert(now, SERVICE, None, &key, &key, 300)),
                8 => drop(self.store.remove(now, SERVICE, None, &key)),
                _ => drop(self.store.lookup(now, SERVICE, None, &key, 300).is_some()),
            }
        }
        self.operations += BURST;
    }

    fn tell(&mut self) {
        for peer in (0..self.shared.workers).filter(|peer| *peer != self.number) {
            while let Some(news) = self.store.poll_news(peer as u8) {
                if let Err(news) = self.shared.ring(self.number, peer).push(news) {
                    self.store.news_refused(peer as u8, news);
                    break;
                }
            }
        }
    }

    fn hear(&mut self) {
        let now = self.now();
        for peer in (0..self.shared.workers).filter(|peer| *peer != self.number) {
            while let Some(news) = self.shared.ring(peer, self.number).pop() {
                self.store.hear(now, news);
            }
        }
    }

    fn probe_key(worker: usize, probe: u64) -> [u8; 9] {
        let mut key = [worker as u8; 9];
        key[1..].copy_from_slice(&probe.to_le_bytes());
        key
    }

    /// Inserts the worker's next probe; its value is the time before the insert.
    fn insert_probe(&mut self, probe: u64) {
        let nanos = (self.begin.elapsed().as_nanos() as u64).to_le_bytes();
        let (now, key) = (self.now(), Self::probe_key(self.number, probe));
        assert_eq!(self.store.insert(now, SERVICE, Some(b"probes"), &key, &nanos, 300), Inserted::New);
    }

    /// Reads the probes that can be read.
    fn read_probes(&mut self) {
        for peer in (0..self.shared.workers).filter(|peer| *peer != self.number) {
            let now = self.now();
            let key = Self::probe_key(peer, self.expected[peer]);
            if let Some((value, _)) = self.store.lookup(now, SERVICE, Some(b"probes"), &key, 0) {
                let inserted = u64::from_le_bytes(value.try_into().unwrap());
                let delay = (self.begin.elapsed().as_nanos() as u64).saturating_sub(inserted);
                self.delays.record(delay).unwrap();
                self.expected[peer] += 1;
            }
        }
    }

    fn run(mut self) -> (Histogram<u64>, TableStore, u64, Vec<u64>, u64) {
        self.shared.start.wait();
        let (begin, mut probes) = (Clock::now(), 0);
        while begin.elapsed() < RUN {
            self.hear();
            self.read_probes();
            self.burst();
            if begin.elapsed().as_micros() as u64 / 200 > probes {
                self.insert_probe(probes);
                probes += 1;
            }
            self.tell();
            self.store.expire(self.now(), 32);
        }
        self.shared.done.fetch_add(1, Ordering::SeqCst);
        let all_done = |shared: &Shared| shared.done.load(Ordering::SeqCst) == shared.workers;
        while !all_done(self.shared) || begin.elapsed() < RUN + StdDuration::from_millis(200) {
            self.hear();
            self.read_probes();
            self.tell();
        }
        (self.delays, self.store, self.operations, self.expected, probes)
    }
}

fn measure(workers: usize) {
    let mut snapshot = Snapshot::default();
    snapshot.add_service("first", None, 200_000);
    let shared = Shared {
        workers,
        rings: (0..workers * workers).map(|_| ArrayQueue::new(RING)).collect(),
        start: Barrier::new(workers),
        done: AtomicUsize::new(0),
    };
    let begin = Clock::now();
    let worker = |number: usize| Worker {
        number,
        shared: &shared,
        store: TableStore::new(&snapshot, Seat { number: number as u8, of: workers as u8 }),
        begin,
        expected: vec![0; workers],
        random: number as u64,
        delays: Histogram::new(3).unwrap(),
        operations: 0,
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let workers = (0..workers).map(worker);
        let threads: Vec<_> = workers.map(|worker| scope.spawn(move || worker.run())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut delays = Histogram::<u64>::new(3).unwrap();
    let mut stats = TableStats::default();
    let mut operations = 0;
    for (histogram, store, count, _, _) in &results {
        delays.add(histogram).unwrap();
        stats.add(&store.stats(SERVICE));
        operations += count;
    }
    let micros = |quantile| delays.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{workers} workers: insert to readable, {} probes: p50 {:.1} us, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
        delays.len(),
        micros(0.5),
        micros(0.9),
        micros(0.99),
        micros(0.999),
        micros(1.0),
    );
    println!(
        "  {:.2} million operations a second in all; {stats:?}",
        operations as f64 / RUN.as_secs_f64() / 1e6
    );
    let probes: Vec<u64> = results.iter().map(|result| result.4).collect();
    for (number, (_, _, _, expected, _)) in results.iter().enumerate() {
        for (peer, (expected, probes)) in expected.iter().zip(&probes).enumerate() {
            assert!(peer == number || expected == probes, "worker {number} read {expected} of {probes}");
        }
    }
    let now = Instant::from_micros(begin.elapsed().as_micros() as i64);
    for key in 0..KEYS {
        let key = key.to_le_bytes();
        let mut values =
            results.iter_mut().map(|(_, store, ..)| store.lookup(now, SERVICE, None, &key, 0).is_some());
        let first = values.next();
        assert!(values.all(|value| Some(value) == first), "key {key:?}");
    }
    assert_eq!(stats.news_sent, stats.news_heard);
}

#[test]
#[ignore = "a measurement; needs cores of its own"]
fn an_insert_is_soon_readable_on_the_other_cores() {
    measure(2);
    measure(3);
}
