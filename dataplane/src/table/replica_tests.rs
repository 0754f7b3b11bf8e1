//! Replicas that tell each other, one case at a time. Random histories are in `replica_model`.

use std::collections::VecDeque;

use super::peers::{BACKLOG, GRACE};
use super::*;

const SERVICE: ServiceId = ServiceId(0);

fn ms(ms: i64) -> Instant {
    Instant::from_millis(ms)
}

/// Stores of `of` workers, and what is on its way from each to each.
struct Cluster {
    stores: Vec<TableStore>,
    links: Vec<Vec<VecDeque<TableNews>>>,
}

impl Cluster {
    fn new(of: u8, entries: u32) -> Self {
        let mut snapshot = Snapshot::default();
        snapshot.add_service("first", None, entries);
        let store = |number| TableStore::new(&snapshot, Seat { number, of });
        let links = vec![vec![VecDeque::new(); usize::from(of)]; usize::from(of)];
        Cluster { stores: (0..of).map(store).collect(), links }
    }

    fn insert(&mut self, now: Instant, worker: usize, key: &[u8], value: &[u8]) -> Inserted {
        self.stores[worker].insert(now, SERVICE, None, key, value, 300)
    }

    fn remove(&mut self, now: Instant, worker: usize, key: &[u8]) -> bool {
        self.stores[worker].remove(now, SERVICE, None, key)
    }

    fn peek(&mut self, now: Instant, worker: usize, key: &[u8]) -> Option<(Vec<u8>, u64)> {
        let found = self.stores[worker].lookup(now, SERVICE, None, key, 0);
        found.map(|(value, left)| (value.to_vec(), left))
    }

    /// The value that all workers see; panics if they differ.
    fn agreed(&mut self, now: Instant, key: &[u8]) -> Option<Vec<u8>> {
        let values: Vec<_> =
            (0..self.stores.len()).map(|w| self.peek(now, w, key).map(|(value, _)| value)).collect();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        values[0].clone()
    }

    /// Puts on its way what `from` has to tell `to`; the number of news.
    fn send(&mut self, from: usize, to: usize) -> usize {
        let mut count = 0;
        while let Some(news) = self.stores[from].poll_news(to as u8) {
            self.links[from][to].push_back(news);
            count += 1;
        }
        count
    }

    fn arrive(&mut self, now: Instant, from: usize, to: usize) {
        while let Some(news) = self.links[from][to].pop_front() {
            self.stores[to].hear(now, news);
        }
    }

    /// All news arrive, also those that come of others; the number of news.
    fn settle(&mut self, now: Instant) -> usize {
        let mut total = 0;
        loop {
            let mut count = 0;
            for from in 0..self.stores.len() {
                for to in 0..self.stores.len() {
                    self.send(from, to);
                    count += self.links[from][to].len();
                    self.arrive(now, from, to);
                }
            }
            total += count;
            if count == 0 {
                return total;
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        for store in &mut self.stores {
            store.expire(now, 1000);
        }
    }

    fn stats(&self, worker: usize) -> TableStats {
        self.stores[worker].stats(SERVICE)
    }
}

#[test]
fn a_store_that_is_alone_tells_nobody() {
    let mut cluster = Cluster::new(1, 10);
    cluster.insert(ms(0), 0, b"k", b"v");
    assert_eq!(cluster.send(0, 0), 0);
    assert!(cluster.stores[0].poll_news(1).is_none());
}

#[test]
fn an_insert_is_readable_at_every_peer_once_heard() {
    let mut cluster = Cluster::new(3, 10);
    assert_eq!(cluster.insert(ms(1), 1, b"k", b"v"), Inserted::New);
    assert_eq!(cluster.peek(ms(1), 0, b"k"), None);
    assert_eq!(cluster.settle(ms(2)), 2, "one message to each peer, and none come of it");
    for worker in 0..3 {
        assert_eq!(cluster.peek(ms(1), worker, b"k"), Some((b"v".to_vec(), 300)));
    }
    assert_eq!((cluster.stats(1).news_sent, cluster.stats(1).news_heard), (2, 0));
    assert_eq!((cluster.stats(0).news_sent, cluster.stats(0).news_heard), (0, 1));
    assert_eq!((cluster.stats(0).inserted, cluster.stats(0).entries, cluster.stats(0).bytes), (0, 1, 2));
}

#[test]
fn a_named_table_is_told_with_its_name() {
    let mut cluster = Cluster::new(2, 10);
    cluster.stores[0].insert(ms(1), SERVICE, Some(b"t"), b"k", b"v", 300);
    cluster.settle(ms(1));
    assert_eq!(cluster.stores[1].lookup(ms(1), SERVICE, Some(b"t"), b"k", 0), Some((&b"v"[..], 300)));
    assert_eq!(cluster.stats(1).named_tables, 1);
    assert_eq!(cluster.peek(ms(1), 1, b"k"), None);
}

#[test]
fn the_earlier_insert_wins_and_the_later_one_prolongs_it() {
    let mut cluster = Cluster::new(3, 10);
    cluster.insert(ms(2000), 0, b"k", b"later");
    cluster.insert(ms(1000), 1, b"k", b"earlier");
    cluster.settle(ms(2001));
    assert_eq!(cluster.agreed(ms(2001), b"k"), Some(b"earlier".to_vec()));
    assert_eq!(cluster.peek(ms(2000), 2, b"k"), Some((b"earlier".to_vec(), 300)), "300 s from the later one");
    let lost: Vec<u64> = (0..3).map(|worker| cluster.stats(worker).conflicts_lost).collect();
    assert_eq!(lost, [1, 0, 0]);
}

#[test]
fn at_the_same_moment_the_lower_worker_wins() {
    let mut cluster = Cluster::new(3, 10);
    for worker in [2, 0, 1] {
        cluster.insert(ms(1), worker, b"k", &[worker as u8]);
    }
    cluster.settle(ms(2));
    assert_eq!(cluster.agreed(ms(2), b"k"), Some(vec![0]));
    let lost: u64 = (0..3).map(|worker| cluster.stats(worker).conflicts_lost).sum();
    assert_eq!(lost, 2);
    assert!(cluster.remove(ms(3), 1, b"k"));
    cluster.settle(ms(3));
    assert_eq!(cluster.agreed(ms(3), b"k"), None, "no rival comes back");
}

#[test]
fn what_was_heard_makes_the_next_insert_a_later_one() {
    let mut cluster = Cluster::new(2, 10);
    cluster.insert(ms(5), 0, b"k", b"v");
    cluster.settle(ms(5));
    cluster.remove(ms(1), 1, b"k");
    assert_eq!(cluster.insert(ms(1), 1, b"k", b"w"), Inserted::New, "by a clock that is 4 ms behind");
    cluster.settle(ms(5));
    assert_eq!(cluster.agreed(ms(5), b"k"), Some(b"w".to_vec()));
}

/// Worker 0 inserts and removes, worker 1 inserts afterwards and knows of neither.
#[test]
fn a_removal_between_two_inserts_takes_the_first_whatever_comes_first() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut cluster = Cluster::new(3, 10);
        cluster.insert(ms(1), 0, b"k", b"first");
        cluster.send(0, 2);
        let mut news = vec![cluster.links[0][2].pop_front().unwrap()];
        cluster.remove(ms(2), 0, b"k");
        cluster.send(0, 2);
        news.push(cluster.links[0][2].pop_front().unwrap());
        cluster.insert(ms(3), 1, b"k", b"second");
        cluster.send(1, 2);
        news.push(cluster.links[1][2].pop_front().unwrap());
        for index in order {
            cluster.stores[2].hear(ms(4), news[index].clone());
        }
        assert_eq!(cluster.peek(ms(4), 2, b"k").unwrap().0, b"second", "{order:?}");
        cluster.settle(ms(4));
        assert_eq!(cluster.agreed(ms(4), b"k"), Some(b"second".to_vec()));
    }
}

#[test]
fn a_removal_that_comes_first_is_remembered_but_not_shown() {
    let mut cluster = Cluster::new(3, 10);
    cluster.insert(ms(1), 0, b"k", b"v");
    cluster.send(0, 1);
    cluster.send(0, 2);
    cluster.arrive(ms(1), 0, 1);
    cluster.remove(ms(2), 1, b"k");
    cluster.send(1, 2);
    cluster.arrive(ms(2), 1, 2);
    assert_eq!(cluster.stats(2).entries, 1, "it takes room");
    assert_eq!(cluster.stores[2].entries(SERVICE, 10).count(), 0);
    cluster.settle(ms(3));
    assert_eq!(cluster.agreed(ms(3), b"k"), None);
    for time in (0..=5000).step_by(500) {
        cluster.sweep(ms(time));
    }
    assert_eq!(cluster.stats(2).entries, 1, "heard at 2 ms and kept for a grace of 5 s");
    cluster.sweep(ms(5500));
    let all: Vec<_> = (0..3).map(|worker| cluster.stats(worker).entries).collect();
    assert_eq!(all, [0, 0, 0]);
}

#[test]
fn the_later_replacement_wins() {
    let mut cluster = Cluster::new(2, 10);
    let replace = |cluster: &mut Cluster, now, worker: usize, value: &[u8]| {
        cluster.stores[worker].replace(now, SERVICE, None, b"k", value, 300)
    };
    cluster.insert(ms(1), 0, b"k", b"v");
    cluster.settle(ms(1));
    assert_eq!(replace(&mut cluster, ms(3), 0, b"late"), Inserted::Renewed);
    assert_eq!(replace(&mut cluster, ms(2), 1, b"early"), Inserted::Renewed);
    cluster.settle(ms(4));
    assert_eq!(cluster.agreed(ms(4), b"k"), Some(b"late".to_vec()));
    assert_eq!(replace(&mut cluster, ms(5), 1, b"late"), Inserted::Renewed);
    assert_eq!(cluster.settle(ms(5)), 0, "the same value is only a renewal");
    let bytes: Vec<_> = (0..2).map(|worker| cluster.stats(worker).bytes).collect();
    assert_eq!(bytes, [5, 5]);
}

#[test]
fn renewals_are_told_once_a_lifetime_and_in_time() {
    let mut cluster = Cluster::new(2, 10);
    cluster.insert(ms(0), 0, b"k", b"v");
    cluster.settle(ms(0));
    let mut messages = 0;
    // Worker 0 uses the entry for 3,000 s, worker 1 never does.
    for time in (0..3_000_000i64).step_by(500) {
        if time % 1000 == 0 {
            assert!(cluster.stores[0].refresh(ms(time), SERVICE, None, b"k", 300));
        }
        cluster.sweep(ms(time));
        messages += cluster.settle(ms(time));
        assert!(cluster.peek(ms(time), 1, b"k").is_some(), "at {time} ms");
    }
    assert!((9..=11).contains(&messages), "{messages} messages");
    for time in (3_000_000..3_299_000i64).step_by(500) {
        cluster.sweep(ms(time));
        cluster.settle(ms(time));
        assert!(cluster.agreed(ms(time), b"k").is_some(), "at {time} ms");
    }
    assert_eq!(cluster.agreed(ms(3_299_000), b"k"), None);
}

#[test]
fn a_renewal_that_comes_too_late_revives_the_entry() {
    let mut cluster = Cluster::new(2, 10);
    cluster.insert(ms(0), 0, b"k", b"v");
    cluster.settle(ms(0));
    assert!(cluster.stores[0].refresh(ms(299_999), SERVICE, None, b"k", 300));
    cluster.send(0, 1);
    assert_eq!(cluster.peek(ms(300_001), 1, b"k"), None);
    assert_eq!(cluster.insert(ms(300_001), 1, b"k", b"w"), Inserted::New, "it cannot know");
    cluster.settle(ms(300_002));
    assert_eq!(cluster.agreed(ms(300_002), b"k"), Some(b"v".to_vec()), "it was the first");
    assert_eq!(cluster.stats(1).conflicts_lost, 1);
}

#[test]
fn an_insert_after_the_end_is_a_new_life() {
    let mut cluster = Cluster::new(2, 10);
    cluster.insert(ms(0), 0, b"k", b"old");
    cluster.settle(ms(0));
    assert_eq!(cluster.insert(ms(300_000), 1, b"k", b"new"), Inserted::New);
    cluster.settle(ms(300_000));
    assert_eq!(cluster.agreed(ms(300_000), b"k"), Some(b"new".to_vec()));
    assert_eq!(cluster.stats(0).entries, 2, "the old one is kept for a while");
    for time in (300_000..312_000).step_by(500) {
        cluster.sweep(ms(time));
    }
    assert_eq!((cluster.stats(0).entries, cluster.stats(1).entries), (1, 1));
    assert_eq!((cluster.stats(0).expired, cluster.stats(1).expired), (1, 0), "who inserted it counts");
    assert_eq!(cluster.agreed(ms(312_000), b"k"), Some(b"new".to_vec()));
}

#[test]
fn what_a_full_ring_refuses_is_told_first_and_nothing_is_lost() {
    let mut cluster = Cluster::new(2, 100);
    for key in 0..5u8 {
        cluster.insert(ms(1), 0, &[key], b"v");
    }
    let refused = cluster.stores[0].poll_news(1).unwrap();
    cluster.stores[0].news_refused(1, refused);
    assert_eq!((cluster.stats(0).news_refused, cluster.stats(0).news_sent), (1, 0));
    assert_eq!(cluster.send(0, 1), 5);
    cluster.arrive(ms(1), 0, 1);
    assert_eq!((cluster.stats(1).entries, cluster.stats(0).resyncs, cluster.stats(0).news_sent), (5, 0, 5));
}

#[test]
fn a_peer_that_is_too_far_behind_is_told_everything() {
    let mut cluster = Cluster::new(3, 20_000);
    cluster.insert(ms(1), 0, b"removed", b"v");
    cluster.settle(ms(1));
    cluster.remove(ms(2), 0, b"removed");
    for key in 0..BACKLOG as u32 + 500 {
        cluster.insert(ms(3), 0, &key.to_le_bytes(), b"v");
        cluster.send(0, 2);
    }
    assert_eq!(cluster.stats(0).resyncs, 1, "worker 2 was polled");
    assert_eq!(cluster.peek(ms(3), 1, b"removed").unwrap().0, b"v", "worker 1 is cut off");
    cluster.settle(ms(4));
    assert_eq!(cluster.agreed(ms(4), b"removed"), None, "the resync tells of removals, too");
    for key in 0..BACKLOG as u32 + 500 {
        assert_eq!(cluster.agreed(ms(4), &key.to_le_bytes()), Some(b"v".to_vec()));
    }
    assert_eq!((cluster.stats(0).resyncs, cluster.stats(1).resyncs), (1, 0));
    let (told, heard) =
        (cluster.stats(0).news_sent, cluster.stats(1).news_heard + cluster.stats(2).news_heard);
    assert_eq!(told, heard);
}

#[test]
fn nothing_is_forgotten_while_a_peer_is_being_told_everything() {
    let mut cluster = Cluster::new(2, 20_000);
    cluster.insert(ms(0), 0, b"removed", b"v");
    cluster.settle(ms(0));
    cluster.remove(ms(1), 0, b"removed");
    for key in 0..BACKLOG as u32 + 1 {
        cluster.insert(ms(2), 0, &key.to_le_bytes(), b"v");
    }
    for time in (0..60_000).step_by(500) {
        cluster.stores[0].expire(ms(time), 1000);
    }
    cluster.settle(ms(60_000));
    assert_eq!(cluster.agreed(ms(60_000), b"removed"), None);
    for time in (60_000..70_000).step_by(500) {
        cluster.sweep(ms(time));
    }
    assert_eq!(cluster.stats(0).entries, BACKLOG + 1, "afterwards it is");
}

#[test]
fn a_worker_that_stood_still_hears_before_it_forgets() {
    let mut cluster = Cluster::new(3, 10);
    for time in (0..=10_000).step_by(500) {
        cluster.sweep(ms(time));
    }
    cluster.insert(ms(10_000), 0, b"k", b"v");
    cluster.settle(ms(10_000));
    // Worker 1 renews at the moment when worker 0 removes; worker 2 hears of the removal and stands still for 20 s.
    cluster.remove(ms(10_001), 0, b"k");
    cluster.stores[1].replace(ms(10_001), SERVICE, None, b"k", b"w", 300);
    cluster.send(1, 2);
    cluster.send(0, 2);
    cluster.arrive(ms(10_002), 0, 2);
    cluster.sweep(ms(30_000));
    cluster.settle(ms(30_001));
    assert_eq!(cluster.agreed(ms(30_001), b"k"), None);
}

/// Worker 1 is cut off from worker 0, misses a removal, and tells worker 2 of the entry when that has forgotten it.
#[test]
fn who_learns_late_of_a_removal_tells_it_on() {
    let mut cluster = Cluster::new(3, 20_000);
    cluster.insert(ms(0), 0, b"k", b"v");
    cluster.settle(ms(0));
    cluster.remove(ms(1), 0, b"k");
    for key in 0..BACKLOG as u32 + 1 {
        cluster.insert(ms(2), 0, &key.to_le_bytes(), b"v");
        cluster.send(0, 2);
        cluster.arrive(ms(2), 0, 2);
    }
    for time in (0..30_000).step_by(500) {
        cluster.sweep(ms(time));
    }
    assert_eq!(cluster.stats(2).entries, BACKLOG + 1, "worker 2 forgot the removal");
    cluster.stores[1].replace(ms(30_000), SERVICE, None, b"k", b"w", 300);
    cluster.send(1, 2);
    cluster.arrive(ms(30_000), 1, 2);
    assert_eq!(cluster.peek(ms(30_000), 2, b"k").unwrap().0, b"w", "it is back");
    cluster.settle(ms(30_001));
    assert_eq!(cluster.agreed(ms(30_001), b"k"), None, "and gone again");
}

#[test]
fn two_workers_that_fill_the_last_place_both_keep_both() {
    let mut cluster = Cluster::new(2, 3);
    for key in [b"a", b"b"] {
        cluster.insert(ms(0), 0, key, b"v");
    }
    cluster.settle(ms(0));
    assert_eq!(cluster.insert(ms(1), 0, b"c", b"v"), Inserted::New);
    assert_eq!(cluster.insert(ms(1), 1, b"d", b"v"), Inserted::New);
    cluster.settle(ms(1));
    for key in [b"a", b"b", b"c", b"d"] {
        assert!(cluster.agreed(ms(1), key).is_some());
    }
    assert_eq!(cluster.insert(ms(2), 0, b"e", b"v"), Inserted::Full);
    assert_eq!((cluster.stats(0).entries, cluster.stats(0).news_no_room), (4, 0));
}

#[test]
fn what_found_no_room_is_counted_and_asked_for_when_there_is_room() {
    const ROOM: u32 = 100;
    let mut cluster = Cluster::new(2, ROOM);
    for key in 0..ROOM {
        let inserted = cluster.insert(ms(0), 1, &key.to_le_bytes(), b"mine");
        assert_eq!(inserted, Inserted::New);
        cluster.insert(ms(0), 0, &(1000 + key).to_le_bytes(), b"theirs");
    }
    cluster.settle(ms(1));
    assert_eq!(cluster.stats(1).entries, 164, "as many as the spare room takes");
    assert_eq!((cluster.stats(0).news_no_room, cluster.stats(1).news_no_room), (36, 36));
    for key in 0..ROOM {
        cluster.remove(ms(10_000), 1, &key.to_le_bytes());
    }
    for time in (10_000..40_000).step_by(500) {
        cluster.sweep(ms(time));
        cluster.settle(ms(time));
    }
    for key in 0..ROOM {
        assert_eq!(cluster.agreed(ms(40_000), &key.to_le_bytes()), None);
        assert_eq!(cluster.agreed(ms(40_000), &(1000 + key).to_le_bytes()), Some(b"theirs".to_vec()));
    }
    assert!(cluster.stats(0).resyncs >= 1);
}

#[test]
fn bytes_are_bounded_for_new_and_for_longer_values() {
    let mut snapshot = Snapshot::default();
    snapshot.add_service("first", None, 100);
    snapshot.services[0].tables.bytes = 100;
    let mut store = TableStore::new(&snapshot, Seat::ALONE);
    let long = [b'x'; 60];
    assert_eq!(store.insert(ms(0), SERVICE, None, b"a", &long, 300), Inserted::New);
    assert_eq!(store.insert(ms(0), SERVICE, None, b"b", &long, 300), Inserted::Full);
    assert_eq!(store.insert(ms(0), SERVICE, None, b"b", &long[..38], 600), Inserted::New, "exactly");
    assert_eq!(store.insert(ms(0), SERVICE, None, b"", b"", 300), Inserted::New);
    assert_eq!(store.replace(ms(0), SERVICE, None, b"a", &[b'y'; 60], 300), Inserted::Renewed);
    assert_eq!(store.replace(ms(0), SERVICE, None, b"a", &[b'y'; 61], 300), Inserted::Full);
    assert_eq!(store.lookup(ms(0), SERVICE, None, b"a", 0), Some((&[b'y'; 60][..], 300)), "kept");
    let stats = store.stats(SERVICE);
    assert_eq!((stats.bytes, stats.entries, stats.refused_full), (100, 3, 2));
    assert_eq!(
        store.replace(ms(300_000), SERVICE, None, b"b", &long, 300),
        Inserted::Renewed,
        "a has expired"
    );
    assert_eq!(store.stats(SERVICE).bytes, 61);
    assert!(store.remove(ms(300_000), SERVICE, None, b"b"));
    assert_eq!((store.stats(SERVICE).bytes, store.stats(SERVICE).entries), (0, 1), "the one without bytes");
}

#[test]
fn the_numbers_of_workers_are_put_together() {
    let one = TableStats { entries: 5, bytes: 50, inserted: 3, news_sent: 4, ..TableStats::default() };
    let two = TableStats { entries: 6, bytes: 40, inserted: 3, news_heard: 4, ..TableStats::default() };
    let mut sum = one;
    sum.add(&two);
    let expected = TableStats {
        entries: 6,
        bytes: 50,
        inserted: 6,
        news_sent: 4,
        news_heard: 4,
        ..TableStats::default()
    };
    assert_eq!(sum, expected);
    assert!(GRACE > peers::LATE && GRACE > peers::LEAD, "news have time to travel");
}

#[test]
fn states_of_a_service_have_the_same_tables_and_the_bounds_of_the_latest() {
    let mut snapshot = Snapshot::default();
    snapshot.add_service("first", None, 2);
    let mut store = TableStore::new(&snapshot, Seat::ALONE);
    assert!(store.insert(ms(0), SERVICE, None, b"k", b"v", 300).stored());
    snapshot.add_service("second", None, 5);
    snapshot.add_service("first", None, 1);
    snapshot.retired.services.insert(SERVICE);
    store.lay_over(&snapshot);
    let now = ServiceId(2);
    assert_eq!(store.lookup(ms(1), now, None, b"k", 0).map(|(value, _)| value.to_vec()), Some(b"v".to_vec()));
    assert_eq!(
        store.insert(ms(1), SERVICE, None, b"other", b"v", 300),
        Inserted::Full,
        "there is room for one"
    );
    assert_eq!(store.insert(ms(1), ServiceId(1), None, b"other", b"v", 300), Inserted::New);
    assert_eq!((store.stats(now).entries, store.entries(SERVICE, 9).count()), (1, 1));
    assert!(store.remove(ms(1), now, None, b"k"));
    assert_eq!(store.lookup(ms(1), SERVICE, None, b"k", 0), None);
}

/// Workers take a configuration one after the other.
#[test]
fn what_a_peer_told_of_a_service_that_was_not_known_yet_is_asked_for() {
    let mut cluster = Cluster::new(2, 100);
    let mut snapshot = Snapshot::default();
    snapshot.add_service("first", None, 100);
    snapshot.add_service("second", None, 100);
    let second = ServiceId(1);
    cluster.stores[0].lay_over(&snapshot);
    assert!(cluster.stores[0].insert(ms(0), second, None, b"k", b"v", 300).stored());
    cluster.settle(ms(1));
    cluster.stores[1].lay_over(&snapshot);
    assert_eq!(cluster.stores[1].lookup(ms(2), second, None, b"k", 0), None);
    cluster.settle(ms(3));
    assert_eq!(
        cluster.stores[1].lookup(ms(4), second, None, b"k", 0).map(|(v, _)| v.to_vec()),
        Some(b"v".to_vec())
    );
}

/// One place, two services after each other: what is told of one is nothing to the other.
#[test]
fn news_of_a_service_that_had_the_place_before_or_will_have_it_find_nobody() {
    let of = |given: u32| {
        let mut snapshot = Snapshot::default();
        snapshot.add_service("any", None, 10);
        snapshot.retired.given.services.insert(SERVICE, given);
        snapshot
    };
    let now = Instant::from_secs(1000);
    let seats = [0, 1].map(|number| Seat { number, of: 2 });
    let tell = |from: u32, to: u32| {
        let (mut one, mut other) = (TableStore::new(&of(from), seats[0]), TableStore::new(&of(to), seats[1]));
        assert!(one.insert(now, SERVICE, None, b"k", b"v", 300).stored());
        other.hear(now, one.poll_news(1).unwrap());
        (one, other)
    };
    assert_eq!(tell(3, 3).1.stats(SERVICE).entries, 1);
    assert_eq!(tell(2, 3).1.stats(SERVICE).entries, 0, "it is late");
    let (mut one, mut other) = tell(4, 3);
    assert_eq!(other.stats(SERVICE).entries, 0, "it is early");
    other.lay_over(&of(4));
    one.hear(now, other.poll_news(0).unwrap());
    other.hear(now, one.poll_news(1).unwrap());
    assert_eq!(other.lookup(now, SERVICE, None, b"k", 0), Some((&b"v"[..], 300)), "and asked for again");
    other.lay_over(&of(5));
    assert_eq!(other.stats(SERVICE).entries, 0, "who comes next finds nothing");
}
