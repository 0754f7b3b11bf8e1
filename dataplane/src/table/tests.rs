use std::collections::BTreeMap;

use super::*;

const SERVICE: ServiceId = ServiceId(0);

fn store(entries: u32) -> TableStore {
    let mut snapshot = Snapshot::default();
    snapshot.add_service("first", None, entries);
    snapshot.add_service("second", None, entries);
    TableStore::new(&snapshot, Seat::ALONE)
}

fn at(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

impl TableStore {
    fn put(&mut self, now: Instant, table: Option<&[u8]>, key: &[u8], value: &[u8], life: u32) -> Inserted {
        self.insert(now, SERVICE, table, key, value, life)
    }

    /// Value and seconds left, leaving the entry alone.
    fn peek(&mut self, now: Instant, table: Option<&[u8]>, key: &[u8]) -> Option<(Vec<u8>, u64)> {
        self.lookup(now, SERVICE, table, key, 0).map(|(value, left)| (value.to_vec(), left))
    }
}

fn found(value: &[u8], left: u64) -> Option<(Vec<u8>, u64)> {
    Some((value.to_vec(), left))
}

#[test]
fn an_entry_lives_exactly_as_long_as_it_was_given() {
    let mut store = store(10);
    assert_eq!(store.put(at(100), None, b"k", b"v", 400), Inserted::New);
    assert_eq!(store.peek(at(100), None, b"k"), found(b"v", 400));
    let almost = Instant::from_micros(500 * 1_000_000 - 1);
    assert_eq!(store.peek(almost, None, b"k"), found(b"v", 1));
    assert_eq!(store.peek(at(500), None, b"k"), None, "although nothing has swept");
    assert!(!store.refresh(at(500), SERVICE, None, b"k", 300));
    assert_eq!(store.stats(SERVICE).entries, 1);
    assert_eq!(store.expire(almost, 100), 0);
    assert_eq!(store.expire(at(500), 100), 1);
    let stats = store.stats(SERVICE);
    assert_eq!(stats, TableStats { inserted: 1, expired: 1, ..TableStats::default() });
}

#[test]
fn insert_keeps_a_live_value_and_renews_its_life() {
    let mut store = store(10);
    store.put(at(0), None, b"k", b"old", 300);
    assert_eq!(store.put(at(100), None, b"k", b"new", 300), Inserted::Renewed);
    assert_eq!(store.peek(at(100), None, b"k"), found(b"old", 300));
    store.put(at(100), None, b"k", b"new", 1000);
    assert_eq!(store.put(at(100), None, b"k", b"new", 300), Inserted::Renewed);
    assert_eq!(store.peek(at(100), None, b"k"), found(b"old", 1000), "never shortened");
    assert_eq!(store.put(at(1100), None, b"k", b"new", 300), Inserted::New, "expired");
    assert_eq!(store.peek(at(1100), None, b"k"), found(b"new", 300));
    assert_eq!(store.stats(SERVICE).expired, 1);
}

#[test]
fn replace_takes_the_new_value() {
    let mut store = store(10);
    assert_eq!(store.replace(at(0), SERVICE, None, b"k", b"old", 300), Inserted::New);
    assert_eq!(store.replace(at(100), SERVICE, None, b"k", b"new", 300), Inserted::Renewed);
    assert_eq!(store.peek(at(100), None, b"k"), found(b"new", 300));
}

#[test]
fn lookup_adds_to_the_life() {
    let mut store = store(10);
    store.put(at(0), None, b"k", b"v", 300);
    assert_eq!(store.lookup(at(10), SERVICE, None, b"k", 300), Some((&b"v"[..], 590)));
    assert_eq!(store.lookup(at(10), SERVICE, None, b"k", 20), Some((&b"v"[..], 610)));
    assert_eq!(store.peek(at(11), None, b"k"), found(b"v", 609));
    for _ in 0..3 {
        store.lookup(at(11), SERVICE, None, b"k", u32::MAX);
    }
    assert_eq!(store.peek(at(11), None, b"k"), found(b"v", u64::from(u32::MAX)), "there is an end");
}

#[test]
fn refresh_sets_a_later_expiry_only() {
    let mut store = store(10);
    store.put(at(0), None, b"k", b"v", 1000);
    assert!(store.refresh(at(10), SERVICE, None, b"k", 300));
    assert_eq!(store.peek(at(10), None, b"k"), found(b"v", 990));
    assert!(store.refresh(at(10), SERVICE, None, b"k", 2000));
    assert_eq!(store.peek(at(10), None, b"k"), found(b"v", 2000));
    assert!(!store.refresh(at(10), SERVICE, None, b"other", 300));
}

#[test]
fn short_lifetimes_are_raised_and_counted() {
    let mut store = store(10);
    store.put(at(0), None, b"k", b"v", 1);
    store.put(at(0), None, b"l", b"v", 300);
    assert_eq!(store.peek(at(0), None, b"k"), found(b"v", 300));
    assert_eq!(store.stats(SERVICE).raised_lifetimes, 1);
}

#[test]
fn tables_and_services_are_apart() {
    let mut store = store(10);
    store.put(at(0), None, b"k", b"default", 300);
    store.put(at(0), Some(b"t"), b"k", b"named", 300);
    store.put(at(0), Some(b""), b"k", b"empty name", 300);
    assert_eq!(store.peek(at(0), None, b"k"), found(b"default", 300));
    assert_eq!(store.peek(at(0), Some(b"t"), b"k"), found(b"named", 300));
    assert_eq!(store.peek(at(0), Some(b""), b"k"), found(b"empty name", 300));
    assert_eq!(store.lookup(at(0), ServiceId(1), None, b"k", 0), None);
    assert!(store.remove(at(0), SERVICE, Some(b"t"), b"k"));
    assert!(!store.remove(at(0), SERVICE, Some(b"t"), b"k"));
    assert_eq!(store.peek(at(0), Some(b"t"), b"k"), None);
    assert_eq!(store.stats(SERVICE).named_tables, 1, "an empty table is dropped");
    assert_eq!(store.stats(SERVICE).entries, 2);
}

#[test]
fn a_full_store_refuses_unless_something_has_expired() {
    let mut store = store(3);
    store.put(at(0), None, b"a", b"", 300);
    store.put(at(0), Some(b"t"), b"b", b"", 600);
    store.put(at(0), None, b"c", b"", 600);
    assert_eq!(store.put(at(299), None, b"d", b"", 300), Inserted::Full);
    assert!(!Inserted::Full.stored());
    assert_eq!(store.put(at(299), None, b"c", b"", 300), Inserted::Renewed, "a live key needs no room");
    assert_eq!(store.stats(SERVICE).refused_full, 1);
    assert_eq!(store.put(at(300), None, b"d", b"", 300), Inserted::New);
    assert_eq!(store.put(at(300), None, b"e", b"", 300), Inserted::Full);
    let stats = store.stats(SERVICE);
    assert_eq!((stats.entries, stats.expired, stats.refused_full), (3, 1, 2));
    assert_eq!(
        store.insert(at(300), ServiceId(1), None, b"e", b"", 300),
        Inserted::New,
        "bounds are per service"
    );
}

#[test]
fn an_entry_that_was_renewed_is_not_reclaimed() {
    let mut store = store(2);
    store.put(at(0), None, b"a", b"", 300);
    store.put(at(0), None, b"b", b"", 300);
    store.refresh(at(100), SERVICE, None, b"a", 1000);
    assert_eq!(store.put(at(300), None, b"c", b"", 300), Inserted::New);
    assert_eq!(store.peek(at(300), None, b"a"), found(b"", 800));
    assert_eq!(store.peek(at(300), None, b"b"), None);
    assert_eq!(store.put(at(600), None, b"d", b"", 300), Inserted::New, "c has expired");
    assert_eq!(store.expire(at(1100), 100), 2);
    assert_eq!(store.stats(SERVICE).entries, 0);
}

#[test]
fn what_is_too_long_is_refused_and_counted() {
    let mut store = store(10);
    let (fits, long) = ([b'x'; 64], [b'x'; 65]);
    assert_eq!(store.put(at(0), Some(&fits), &fits, &fits, 300), Inserted::New);
    assert_eq!(store.put(at(0), None, &long, b"", 300), Inserted::TooLong);
    assert_eq!(store.put(at(0), None, b"", &long, 300), Inserted::TooLong);
    assert_eq!(store.put(at(0), Some(&long), b"", b"", 300), Inserted::TooLong);
    assert_eq!(store.stats(SERVICE).refused_too_long, 3);
    assert_eq!(store.stats(SERVICE).entries, 1);
}

#[test]
fn the_number_of_named_tables_is_bounded() {
    let mut store = store(1000);
    for table in 0..NAMED_TABLES {
        let name = format!("t{table}");
        assert_eq!(store.put(at(0), Some(name.as_bytes()), b"k", b"", 300), Inserted::New);
    }
    assert_eq!(store.put(at(0), Some(b"one more"), b"k", b"", 300), Inserted::Full);
    assert_eq!(store.put(at(0), Some(b"t7"), b"another", b"", 300), Inserted::New);
    assert_eq!(store.put(at(0), None, b"k", b"", 300), Inserted::New);
    assert_eq!(store.put(at(300), Some(b"one more"), b"k", b"", 300), Inserted::New, "after they expired");
}

#[test]
fn sweeping_keeps_to_its_budget_and_reaches_every_service() {
    let mut store = store(100);
    for key in 0..20u8 {
        store.put(at(0), None, &[key], b"", 300);
        store.insert(at(0), ServiceId(1), None, &[key], b"", 300);
    }
    let freed: Vec<usize> = (0..6).map(|_| store.expire(at(300), 8)).collect();
    assert_eq!(freed, [8, 8, 8, 8, 8, 0]);
    assert_eq!((store.stats(SERVICE).entries, store.stats(ServiceId(1)).entries), (0, 0));
    assert_eq!(store.expire(at(300), 0), 0);
}

#[test]
fn the_operator_sees_entries_in_order_of_expiry() {
    let mut store = store(10);
    store.put(at(0), Some(b"t"), b"late", b"2", 900);
    store.put(at(0), None, b"soon", b"1", 300);
    let soon = TableEntry { table: None, key: b"soon", value: b"1", expires: at(300) };
    let late = TableEntry { table: Some(b"t"), key: b"late", value: b"2", expires: at(900) };
    assert_eq!(store.entries(SERVICE, 10).collect::<Vec<_>>(), [soon, late]);
    assert_eq!(store.entries(SERVICE, 1).collect::<Vec<_>>(), [soon]);
    assert_eq!(store.entries(ServiceId(9), 10).count(), 0);
}

#[test]
fn an_unknown_service_has_no_tables() {
    let mut store = store(10);
    let far = ServiceId(9);
    assert_eq!(store.insert(at(0), far, None, b"k", b"v", 300), Inserted::Full);
    assert_eq!(store.replace(at(0), far, None, b"k", b"v", 300), Inserted::Full);
    assert_eq!(store.lookup(at(0), far, None, b"k", 0), None);
    assert!(!store.refresh(at(0), far, None, b"k", 0));
    assert!(!store.remove(at(0), far, None, b"k"));
    assert_eq!(store.stats(far), TableStats::default());
}

/// What the store should hold: value and expiry in seconds by table and key. Nothing in common with its index.
#[derive(Default)]
struct Model(BTreeMap<(Option<u8>, u8), (u8, i64)>);

impl Model {
    fn insert(&mut self, now: i64, place: (Option<u8>, u8), value: u8, life: i64, room: usize) -> Inserted {
        self.0.retain(|_, (_, expires)| *expires > now);
        let full = self.0.len() >= room;
        if let Some((_, expires)) = self.0.get_mut(&place) {
            *expires = (*expires).max(now + life);
            return Inserted::Renewed;
        }
        if full {
            return Inserted::Full;
        }
        self.0.insert(place, (value, now + life));
        Inserted::New
    }

    fn live(&mut self, now: i64, place: (Option<u8>, u8)) -> Option<&mut (u8, i64)> {
        self.0.get_mut(&place).filter(|(_, expires)| *expires > now)
    }
}

#[test]
fn the_store_agrees_with_a_model_over_many_random_steps() {
    const ROOM: u32 = 7;
    const SEED: u64 = 0x5eed_7ab1e;
    println!("seed {SEED:#x}");
    let mut state = SEED;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut store, mut model, mut now) = (store(ROOM), Model::default(), 0i64);
    let mut outcomes = [0u32; 3];
    for step in 0..40_000 {
        now += random(30) as i64;
        let table = [None, Some(0u8), Some(1)][random(3) as usize];
        let (key, value) = (random(10) as u8, random(256) as u8);
        let name = table.map(|t| [t]);
        let (name, place) = (name.as_ref().map(|n| &n[..]), (table, key));
        let life = 300 + random(300);
        match random(6) {
            0 | 1 => {
                let got = store.put(at(now), name, &[key], &[value], life as u32);
                assert_eq!(got, model.insert(now, place, value, life as i64, ROOM as usize), "step {step}");
                outcomes[match got {
                    Inserted::New => 0,
                    Inserted::Renewed => 1,
                    _ => 2,
                }] += 1;
            }
            2 => {
                let got = store.lookup(at(now), SERVICE, name, &[key], life as u32 / 10);
                let want = model.live(now, place).map(|(value, expires)| {
                    *expires += life as i64 / 10;
                    (*value, (*expires - now) as u64)
                });
                assert_eq!(got.map(|(v, left)| (v[0], left)), want, "step {step}");
            }
            3 => {
                let got = store.refresh(at(now), SERVICE, name, &[key], life as u32);
                let want = model.live(now, place);
                assert_eq!(got, want.is_some(), "step {step}");
                if let Some((_, expires)) = want {
                    *expires = (*expires).max(now + life as i64);
                }
            }
            4 if random(4) == 0 => {
                store.remove(at(0), SERVICE, name, &[key]);
                model.0.remove(&place);
            }
            _ => {
                store.expire(at(now), 5);
            }
        }
        assert!(store.stats(SERVICE).entries <= ROOM as usize, "step {step}");
    }
    assert!(outcomes.iter().all(|&n| n > 500), "every outcome was met: {outcomes:?}");
    store.expire(at(now + 1_000_000), 1000);
    assert_eq!(store.stats(SERVICE).entries, 0);
    assert_eq!(store.stats(SERVICE).named_tables, 0);
}

/// Reloads leave many states of one service, of which one has the tables.
#[test]
fn only_services_with_tables_of_their_own_are_swept() {
    let owners = [0, 1, 0, 0, 4, 1].map(ServiceId);
    assert_eq!(super::owning(&Snapshot::default(), &owners), [0, 1, 4]);
    assert_eq!(super::owning(&Snapshot::default(), &[]), [0; 0]);
}
