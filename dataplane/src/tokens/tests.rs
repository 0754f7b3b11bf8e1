use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::snapshot::Algorithm::RoundRobin;

/// One server for each limit, the first one without any.
fn snapshot(limits: &[u32]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let servers: Vec<String> =
        (0..=limits.len()).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1)).collect();
    snapshot.add_pool("web", RoundRobin, &servers.iter().map(String::as_str).collect::<Vec<_>>());
    for (server, limit) in snapshot.servers.iter_mut().skip(1).zip(limits) {
        server.max_connections = Some(*limit);
    }
    snapshot
}

fn workers(snapshot: &Snapshot, count: u8) -> Vec<WorkerTokens> {
    Seat::all(count).map(|seat| WorkerTokens::new(snapshot, seat)).collect()
}

const FIRST: Place = Place(0);

#[test]
fn places_are_those_of_the_limited_servers() {
    let mut snapshot = snapshot(&[5, 6, 7]);
    snapshot.servers[2].max_connections = None;
    let tokens = &workers(&snapshot, 1)[0];
    let places: Vec<(ServerId, Place)> = tokens.places().collect();
    assert_eq!(places, [(ServerId(1), Place(0)), (ServerId(3), Place(1))]);
    assert_eq!((tokens.spare(Place(0)), tokens.spare(Place(1)), tokens.spare(Place(2))), (5, 7, 0));
    assert!(!tokens.take(Place(2)), "there is no such server");
}

#[test]
fn each_worker_begins_with_its_part_and_ends_with_what_it_was_given() {
    let snapshot = snapshot(&[10]);
    let workers = workers(&snapshot, 4);
    let shares = || -> Vec<u32> {
        let share = |worker| workers[0].tokens.share(worker, FIRST).unwrap().load(Ordering::Relaxed);
        (0..4).map(|worker| spare(share(worker))).collect()
    };
    assert_eq!(shares(), [3, 3, 2, 2]);
    (0..5).for_each(|_| assert!(workers[2].take(FIRST)));
    assert_eq!(shares(), [2, 3, 0, 0], "its own first, then those of the workers after it");
    workers[2].give(FIRST, 5);
    assert_eq!(shares(), [2, 3, 5, 0]);
}

#[test]
fn a_limit_below_the_number_of_workers_is_one_for_all_of_them() {
    let snapshot = snapshot(&[1]);
    let workers = workers(&snapshot, 64);
    for worker in &workers {
        assert!(worker.any(FIRST) && worker.take(FIRST));
        assert!(workers.iter().all(|other| !other.any(FIRST) && !other.take(FIRST)));
        worker.give(FIRST, 1);
    }
}

#[test]
fn servers_do_not_take_each_others_tokens() {
    let limits: Vec<u32> = (1..=40).collect();
    let snapshot = snapshot(&limits);
    let workers = workers(&snapshot, 3);
    for (place, limit) in (0..).map(Place).zip(&limits) {
        let taken = (0..100).filter(|n| workers[n % 3].take(place)).count();
        assert_eq!(taken, *limit as usize);
    }
}

#[test]
fn a_copy_of_a_snapshot_has_tokens_of_its_own() {
    let snapshot = snapshot(&[1]);
    let copy = snapshot.clone();
    assert!(workers(&snapshot, 1)[0].take(FIRST));
    assert!(workers(&copy, 1)[0].take(FIRST));
    assert!(!workers(&snapshot, 1)[0].take(FIRST));
}

/// What happens after the look with this number: a flow of one worker ends, one of another worker begins with a token of
/// its own.
type Move = (u32, usize, usize);

/// Three workers of which the last has the one spare token; the first looks through the shares while tokens move.
fn found_while_moving(moves: &[Move]) -> (bool, u32) {
    let snapshot = snapshot(&[6]);
    let workers = workers(&snapshot, 3);
    (0..5).for_each(|_| assert!(workers[0].take(FIRST)));
    let looks = Cell::new(0);
    let look = |share: &Share| {
        looks.set(looks.get() + 1);
        let now = share.load(Ordering::Acquire);
        for (_, ends, begins) in moves.iter().filter(|(after, _, _)| *after == looks.get()) {
            workers[*ends].give(FIRST, 1);
            take_one(workers[0].tokens.share(*begins, FIRST).unwrap()).unwrap();
        }
        if spare(now) > 0 { Ok(()) } else { Err(gifts(now)) }
    };
    (workers[0].seek(FIRST, look).is_some(), looks.get())
}

/// At each moment there is a spare token. Whoever looks once finds none, because it moves behind his back.
#[test]
fn a_server_is_not_full_because_its_spare_token_moves() {
    assert_eq!(found_while_moving(&[]), (true, 3));
    assert_eq!(found_while_moving(&[(2, 1, 2)]), (true, 5), "found in the second sweep");
    assert_eq!(found_while_moving(&[(2, 1, 2), (4, 0, 1)]), (true, 7), "in the third");
    assert_eq!(
        found_while_moving(&[(2, 1, 2), (4, 0, 1), (6, 2, 0)]),
        (true, 9),
        "in place of the last look"
    );
}

#[test]
fn a_search_ends_whatever_others_do() {
    let snapshot = snapshot(&[1]);
    let workers = workers(&snapshot, 2);
    let looks = Cell::new(0);
    let look = |_: &Share| -> Result<(), u32> {
        looks.set(looks.get() + 1);
        Err(looks.get())
    };
    assert!(workers[0].seek(FIRST, look).is_none());
    assert_eq!(looks.get() as usize, SWEEPS * 2);
}

proptest! {
    /// One after the other, whoever takes and gives: there is a token exactly while fewer are held than the limit says.
    #[test]
    fn a_server_is_full_exactly_at_its_limit(
        count in 1u8..5,
        limit in 1u32..40,
        steps in prop::collection::vec((0usize..4, 0u32..5), 1..400),
    ) {
        let snapshot = snapshot(&[9, limit]);
        let workers = workers(&snapshot, count);
        let place = Place(1);
        let mut held = vec![0u32; workers.len()];
        for (worker, step) in steps {
            let worker = worker % workers.len();
            let room = held.iter().sum::<u32>() < limit;
            match step {
                0 if held[worker] > 0 => {
                    workers[worker].give(place, held[worker]);
                    held[worker] = 0;
                }
                1 if held[worker] > 0 => {
                    workers[worker].give(place, 1);
                    held[worker] -= 1;
                }
                _ => {
                    prop_assert_eq!(workers[worker].any(place), room);
                    prop_assert_eq!(workers[worker].take(place), room);
                    held[worker] += u32::from(room);
                }
            }
            prop_assert_eq!(workers[0].spare(place), u64::from(limit - held.iter().sum::<u32>()));
        }
        prop_assert_eq!(workers[0].spare(Place(0)), 9);
    }
}

/// A generator that is good enough for choices, seeded by the thread's number.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |sides| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % sides
    }
}

/// Threads that hold up to `most` tokens each, taking and giving at random; how often they were refused.
fn race(limit: u32, threads: u8, most: u32, steps: u32) -> u32 {
    let snapshot = snapshot(&[limit]);
    let open = AtomicU32::new(0);
    let run = |tokens: &WorkerTokens, seed: u64| {
        let (mut held, mut refused, mut roll) = (0, 0, dice(seed));
        for _ in 0..steps {
            if held < most && roll(3) > 0 {
                if tokens.take(FIRST) {
                    held += 1;
                    assert!(open.fetch_add(1, Ordering::SeqCst) < limit, "more than the limit");
                } else {
                    refused += 1;
                }
            } else if held > 0 {
                // Less than is taken, so that there is seldom much room.
                let back = 1 + roll(u64::from(held.min(2))) as u32;
                open.fetch_sub(back, Ordering::SeqCst);
                tokens.give(FIRST, back);
                held -= back;
            }
        }
        open.fetch_sub(held, Ordering::SeqCst);
        tokens.give(FIRST, held);
        refused
    };
    let workers = workers(&snapshot, threads);
    let refused = std::thread::scope(|scope| {
        let spawn = |(tokens, seed)| scope.spawn(move || run(tokens, seed));
        let running: Vec<_> = workers.iter().zip(1..).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(workers[0].spare(FIRST), u64::from(limit), "all are back");
    assert_eq!(open.into_inner(), 0);
    refused
}

#[test]
fn threads_never_hold_more_than_the_limit() {
    // A thread that is alone for a while is refused, too.
    assert!(race(3, 4, 5, 50_000) > 0, "nobody was ever refused");
    assert!(race(1, 2, 2, 50_000) > 0);
    assert!(race(20, 4, 25, 50_000) > 0);
}

/// All together can hold exactly what there is: if one is refused, the limit was not fully usable.
#[test]
fn threads_that_cannot_exceed_the_limit_are_never_refused() {
    assert_eq!(race(4, 4, 1, 200_000), 0);
    assert_eq!(race(12, 4, 3, 50_000), 0);
    assert_eq!(race(2, 2, 1, 200_000), 0);
    assert_eq!(race(64, 8, 8, 20_000), 0);
}

#[test]
fn another_configuration_shares_the_tokens_of_limits_that_stay() {
    let old = snapshot(&[5, 6, 7]);
    let before = workers(&old, 2);
    assert!(before[0].take(Place(0)) && before[1].take(Place(0)) && before[0].take(Place(1)));
    let mut new = snapshot(&[5, 9, 7, 2]);
    new.tokens = SharedTokens::overlaid(&old, &new);
    let after = workers(&new, 2);
    let places: Vec<(ServerId, Place)> = after[1].places().collect();
    let expected = [(1, 0), (2, 1), (3, 2), (4, 3)].map(|(id, place)| (ServerId(id), Place(place)));
    assert_eq!(places, expected, "the fourth has the next one");
    let spare = |workers: &[WorkerTokens]| [0, 1, 2, 3].map(|place| workers[0].spare(Place(place)));
    assert_eq!((spare(&before), spare(&after)), ([3, 8, 7, 2], [3, 8, 7, 2]), "the new limit is everybody's");
    before[1].give(Place(0), 1);
    assert!(after[0].take(Place(2)));
    assert_eq!((spare(&before), spare(&after)), ([4, 8, 6, 2], [4, 8, 6, 2]), "they are the same");
}

/// What nobody of the running configuration has, nobody touches.
#[test]
fn places_of_limits_that_are_no_more_are_used_again() {
    let mut running = snapshot(&[5]);
    let mut last = workers(&running, 2);
    for limit in 1..200 {
        let held = u32::from(last[1].take(last[1].places().last().unwrap().1));
        assert_eq!(held, 1);
        // Another server in place of the one before, which may still have a flow without a limit.
        let mut new = running.clone();
        new.servers.last_mut().unwrap().max_connections = None;
        new.servers.push(Server { max_connections: Some(limit), ..new.servers[0].clone() });
        new.tokens = SharedTokens::overlaid(&running, &new);
        last = workers(&new, 2);
        let place = last[0].places().last().unwrap().1;
        assert_eq!(last[0].spare(place), u64::from(limit));
        assert_eq!(last[0].tokens.debts.len(), 1, "all of them in one line");
        running = new;
    }
}

#[test]
fn a_configuration_that_no_worker_goes_on_with_changes_no_limit() {
    let old = snapshot(&[5]);
    let tokens = workers(&old, 2);
    let mut new = snapshot(&[1]);
    new.tokens = SharedTokens::overlaid(&old, &new);
    assert_eq!(tokens[0].spare(FIRST), 5);
    drop(new);
    (0..5).for_each(|n| assert!(tokens[n % 2].take(FIRST)));
}

/// Whoever looks at the debt before it is there gives his token back.
#[test]
fn a_token_that_was_given_beside_a_debt_lets_nobody_in() {
    let snapshot = snapshot(&[2]);
    let workers = workers(&snapshot, 2);
    (0..2).for_each(|_| assert!(workers[0].take(FIRST)));
    workers[0].tokens.owe(FIRST, 1);
    workers[1].tokens.add(1, FIRST, 1);
    assert_eq!(workers[0].spare(FIRST), 0);
    assert!(!workers[0].take(FIRST), "it pays the debt");
    workers[0].give(FIRST, 1);
    assert!(workers[1].take(FIRST) && !workers[1].take(FIRST));
}

/// The limit goes up and down while threads take and give, and is never above 40.
#[test]
fn threads_hold_limits_that_change_under_them() {
    let mut running = snapshot(&[40]);
    let all = workers(&running, 4);
    let over = std::sync::atomic::AtomicBool::new(false);
    let open = AtomicU32::new(0);
    let run = |tokens: &WorkerTokens, seed: u64| {
        let (mut held, mut roll, mut taken) = (0u32, dice(seed), 0u32);
        while !over.load(Ordering::Relaxed) {
            if roll(5) > 1 && held < 12 {
                let more = u32::from(tokens.take(FIRST));
                assert!(open.fetch_add(more, Ordering::SeqCst) + more <= 40);
                (held, taken) = (held + more, taken + more);
            } else if held > 0 {
                let back = 1 + roll(u64::from(held)) as u32;
                open.fetch_sub(back, Ordering::SeqCst);
                tokens.give(FIRST, back);
                held -= back;
            }
        }
        open.fetch_sub(held, Ordering::SeqCst);
        tokens.give(FIRST, held);
        taken
    };
    std::thread::scope(|scope| {
        let running_threads: Vec<_> =
            all.iter().zip(1..).map(|(tokens, seed)| scope.spawn(move || run(tokens, seed))).collect();
        let mut roll = dice(9);
        for _ in 0..3_000 {
            let mut new = snapshot(&[1 + roll(40) as u32]);
            new.tokens = SharedTokens::overlaid(&running, &new);
            // One goes on with it; the others have the same shares and debts.
            WorkerTokens::new(&new, Seat { number: 0, of: 4 });
            running = new;
        }
        over.store(true, Ordering::Relaxed);
        assert!(running_threads.into_iter().all(|thread| thread.join().unwrap() > 0));
    });
    let limit = running.servers[1].max_connections.unwrap();
    assert_eq!(all[0].spare(FIRST), u64::from(limit));
    let taken = (0..100).filter(|n| all[n % 4].take(FIRST)).count();
    assert_eq!(taken, limit as usize, "exactly the last limit is there");
}
