//! Timers: one per place of the flow table.

use arena::{Arena, ArenaError};
use smoltcp::time::{Duration, Instant};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Length of a tick in microseconds: how late a timer may be.
const TICK_MICROS: u64 = 8_000;

/// Ticks of one turn of the wheel, about 33 seconds. Timers further away stay on it and are looked at once per turn.
const SPOKES: u32 = 4096;

/// Timers that one call looks at, those that are put back included.
const LOOKS: u32 = 64;

/// Most ticks that a timer may be ahead, 198 days: the distance between two numbers of 32 bits has a sign up to there.
const FARTHEST: u64 = i32::MAX as u64;

/// A timer, or the head of a list of timers: linked by index into the same arena. A timer that is not scheduled is linked to
/// itself, as the head of an empty list is.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Node {
    next: u32,
    previous: u32,
    /// First tick at which it may fire: the lower 32 bits, which come again after 397 days.
    due: u32,
}

/// One timer per slot, on a wheel with ticks of 8 ms. All memory (12 bytes per slot) is there from the start.
///
/// A time more than 198 days ahead counts as 198 days; the owner must not be silent for as long.
///
/// [`schedule`](Self::schedule) and [`cancel`](Self::cancel) cost a few writes, wherever the timer stands. A timer that
/// is far away is looked at every 33 seconds and put back. Nothing happens by itself: the owner calls
/// [`pop_expired`](Self::pop_expired) often. A timer never fires before its time, and at most one tick after it if
/// calls are frequent enough. Timers that fire in the same tick do so in no particular order, and so do all that became
/// due while there was no call for a whole turn.
pub struct Wheel {
    /// Timers, then the heads of the spokes, then the head of the list of those to look at now.
    nodes: Arena<Node>,
    timers: u32,
    /// The next tick whose spoke was not yet looked at.
    cursor: u64,
    /// The latest tick that was seen, up to which spokes are being looked at; time never goes back.
    latest: u64,
    scheduled: u32,
}

impl Wheel {
    /// Most slots.
    pub const MAX_CAPACITY: u32 = 1 << 30;

    /// Bytes of each slot. The spokes take 48 KiB more.
    pub const SLOT_BYTES: usize = size_of::<Node>();

    /// Timers for the slots `0..capacity`, none of them scheduled. Time begins at `now`.
    ///
    /// # Errors
    /// [`ArenaError`] if there is no memory, `TooLarge` above [`Wheel::MAX_CAPACITY`].
    pub fn new(capacity: u32, now: Instant) -> Result<Self, ArenaError> {
        if capacity > Self::MAX_CAPACITY {
            return Err(ArenaError::TooLarge { len: capacity as usize, entry: size_of::<Node>() });
        }
        let mut nodes = Arena::<Node>::zeroed((capacity + SPOKES + 1) as usize)?;
        for (node, index) in nodes.iter_mut().zip(0..) {
            (node.next, node.previous) = (index, index);
        }
        let latest = tick_before(now);
        Ok(Wheel { nodes, timers: capacity, cursor: latest + 1, latest, scheduled: 0 })
    }

    /// Lets the timer of a slot fire at `at`, or as soon as possible if that is past, and at no other time: a time set
    /// before is forgotten. Slots beyond the capacity have no timer.
    pub fn schedule(&mut self, slot: u32, at: Instant) {
        if slot >= self.timers {
            return;
        }
        self.cancel(slot);
        let due = self.due(at);
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            node.due = due as u32;
        }
        self.scheduled += 1;
        let list = if due < self.cursor { self.pending() } else { self.spoke(due as u32) };
        self.link(slot, list);
    }

    /// As [`schedule`](Self::schedule), but a timer that fires earlier stays as it is: for whoever looks, when it fires,
    /// whether it is time. Costs one read where it is.
    pub fn hasten(&mut self, slot: u32, at: Instant) {
        let due = self.due(at) as u32;
        let soon = self.node(slot).is_some_and(|node| node.due.wrapping_sub(due) as i32 <= 0);
        if !(soon && self.is_scheduled(slot)) {
            self.schedule(slot, at);
        }
    }

    /// The tick of a timer for this time. What is past is due now: a number of 32 bits has its meaning near the present only.
    fn due(&self, at: Instant) -> u64 {
        tick_after(at).clamp(self.latest, self.latest + FARTHEST)
    }

    /// Takes the timer of a slot back. Without effect if it is not scheduled.
    pub fn cancel(&mut self, slot: u32) {
        if self.is_scheduled(slot) {
            self.unlink(slot);
            self.join(slot, slot);
            self.scheduled -= 1;
        }
    }

    /// True if the timer of the slot will fire.
    #[must_use]
    pub fn is_scheduled(&self, slot: u32) -> bool {
        slot < self.timers && self.first(slot).is_some()
    }

    /// Number of timers that will fire.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.scheduled
    }

    /// True if no timer will fire.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scheduled == 0
    }

    /// A slot whose time has come; its timer is no longer scheduled. Call until `None`, or until enough is done: what is
    /// left is found by the next call.
    ///
    /// A call looks at no more than 64 timers that must be put back, and answers `None` then, too, so that a crowd of
    /// far timers cannot hold up a burst. It passes at most twice over the 4096 spokes, however long ago the last call
    /// was; that takes some microseconds.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let mut looks = LOOKS;
        loop {
            if let Some(slot) = self.first(self.pending()) {
                looks = looks.checked_sub(1)?;
                if let Some(slot) = self.fire(slot) {
                    return Some(slot);
                }
            } else if !self.go_on(now) {
                return None;
            }
        }
    }

    /// Moves the next spoke whose tick has come to the (empty) pending list. `false`: there is none.
    #[inline(never)]
    fn go_on(&mut self, now: Instant) -> bool {
        if self.cursor > self.latest {
            self.latest = self.latest.max(tick_before(now));
            // After a turn without a call, each spoke needs to be looked at once.
            self.cursor = self.cursor.max((self.latest + 1).saturating_sub(u64::from(SPOKES)));
        }
        let come = self.cursor <= self.latest;
        if come {
            self.gather(self.spoke(self.cursor as u32));
            self.cursor += 1;
        }
        come
    }

    /// No timer fires before this; `None` if none is scheduled. Not later than the first timer, but perhaps up to half a
    /// minute at a time earlier when that one is far away. Looks at up to 4096 spokes: for when there is nothing else
    /// to do, and for tests that let time jump.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        if self.first(self.pending()).is_some() {
            return Some(start_of(self.latest));
        }
        let ticks = self.cursor..=self.cursor + u64::from(SPOKES);
        ticks.into_iter().find(|&tick| self.first(self.spoke(tick as u32)).is_some()).map(start_of)
    }

    /// Takes the timer out of the pending list: fires it, or puts it on its spoke if it is not due.
    fn fire(&mut self, slot: u32) -> Option<u32> {
        let due = self.node(slot)?.due;
        let ahead = due.wrapping_sub(self.latest as u32) as i32;
        if ahead <= 0 {
            self.cancel(slot);
            return Some(slot);
        }
        self.unlink(slot);
        self.link(slot, self.spoke(due));
        None
    }

    /// Moves a whole spoke to the (empty) pending list.
    fn gather(&mut self, spoke: u32) {
        let pending = self.pending();
        let Some(Node { next, previous, .. }) = self.node(spoke).filter(|head| head.next != spoke) else {
            return;
        };
        self.join(spoke, spoke);
        self.join(pending, next);
        self.join(previous, pending);
    }

    /// The list of timers to look at now.
    fn pending(&self) -> u32 {
        self.timers + SPOKES
    }

    /// The list of timers that are due at `tick`, or any number of turns later.
    fn spoke(&self, tick: u32) -> u32 {
        self.timers + tick % SPOKES
    }

    fn node(&self, index: u32) -> Option<Node> {
        self.nodes.get(index as usize).copied()
    }

    /// The first timer of a list; of a timer, the next one on its list.
    fn first(&self, list: u32) -> Option<u32> {
        self.node(list).map(|head| head.next).filter(|&next| next != list)
    }

    fn join(&mut self, before: u32, after: u32) {
        if let Some(node) = self.nodes.get_mut(before as usize) {
            node.next = after;
        }
        if let Some(node) = self.nodes.get_mut(after as usize) {
            node.previous = before;
        }
    }

    /// Puts a timer at the end of a list.
    fn link(&mut self, slot: u32, list: u32) {
        if let Some(head) = self.node(list) {
            self.join(head.previous, slot);
            self.join(slot, list);
        }
    }

    fn unlink(&mut self, slot: u32) {
        if let Some(node) = self.node(slot) {
            self.join(node.previous, node.next);
        }
    }
}

impl std::fmt::Debug for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel").field("timers", &self.timers).field("scheduled", &self.scheduled).finish()
    }
}

fn micros(at: Instant) -> u64 {
    u64::try_from(at.total_micros()).unwrap_or(0)
}

/// The tick that `now` is in.
fn tick_before(now: Instant) -> u64 {
    micros(now) / TICK_MICROS
}

/// The first tick that does not begin before `at`.
fn tick_after(at: Instant) -> u64 {
    micros(at).div_ceil(TICK_MICROS)
}

fn start_of(tick: u64) -> Instant {
    Instant::ZERO + Duration::from_micros(tick.saturating_mul(TICK_MICROS))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const SEED: u64 = 0x3ee1;
    const START: Instant = Instant::from_micros_const(5_000_003);
    const TICK: Duration = Duration::from_micros(TICK_MICROS);

    fn pop_all(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop_expired(now)).collect()
    }

    fn after(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_timer_fires_once_in_its_tick() {
        let mut wheel = Wheel::new(3, START).unwrap();
        let at = after(1000);
        wheel.schedule(1, at);
        assert!(wheel.is_scheduled(1) && !wheel.is_scheduled(0));
        assert_eq!(pop_all(&mut wheel, at - Duration::from_micros(1)), []);
        assert_eq!(pop_all(&mut wheel, at + TICK), [1]);
        assert_eq!(pop_all(&mut wheel, at + Duration::from_secs(3600)), []);
        assert!(wheel.is_empty() && !wheel.is_scheduled(1));
    }

    #[test]
    fn slots_take_what_is_said() {
        for capacity in [1, 64, 1000, 65_536, 300_001] {
            let wheel = Wheel::new(capacity, START).unwrap();
            let slots = capacity as usize * Wheel::SLOT_BYTES;
            let taken = size_of_val(&*wheel.nodes);
            assert!((slots..=slots + (49 << 10)).contains(&taken), "{taken} for {capacity}");
        }
    }

    #[test]
    fn a_time_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new(3, START).unwrap();
        for (slot, at) in [(0, START), (1, START - Duration::from_secs(5)), (2, Instant::from_micros(-7))] {
            wheel.schedule(slot, at);
        }
        let fired = pop_all(&mut wheel, START);
        assert!(fired.contains(&1) && fired.contains(&2), "{fired:?}");
        let late = pop_all(&mut wheel, START + TICK);
        assert_eq!(fired.len() + late.len(), 3);
    }

    #[test]
    fn far_timers_wait_their_hours_and_jumps_lose_none() {
        let hour = Duration::from_secs(3600);
        let mut wheel = Wheel::new(10, START).unwrap();
        for slot in 0..10 {
            wheel.schedule(slot, START + hour * slot);
        }
        let mut now = START;
        while now < START + hour * 3 + TICK {
            now += Duration::from_secs(7);
            let fired = pop_all(&mut wheel, now);
            assert!(fired.iter().all(|&slot| START + hour * slot <= now), "{fired:?} at {now}");
        }
        assert_eq!(wheel.len(), 6);
        assert_eq!(pop_all(&mut wheel, START + hour * 7 + TICK).len(), 4);
        assert_eq!(BTreeSet::from_iter(pop_all(&mut wheel, START + hour * 100)), BTreeSet::from([8, 9]));
    }

    #[test]
    fn a_crowd_of_far_timers_is_passed_in_several_calls_and_none_is_lost() {
        let mut wheel = Wheel::new(1001, START).unwrap();
        let at = after(50);
        for slot in 0..1000 {
            // Exactly one turn later: in the same spoke, and before the one that is due.
            wheel.schedule(slot, at + TICK * SPOKES);
        }
        wheel.schedule(1000, at);
        let calls: Vec<Option<u32>> = (0..17).map(|_| wheel.pop_expired(at + TICK)).collect();
        let mut expected = [None; 17];
        expected[1000 / 64] = Some(1000);
        assert_eq!(calls, expected);
        assert_eq!(wheel.len(), 1000);
        assert_eq!(BTreeSet::from_iter(pop_all(&mut wheel, at + TICK * (SPOKES + 1))), (0..1000).collect());
    }

    #[test]
    fn a_cancelled_timer_stays_silent_even_when_it_is_next() {
        let mut wheel = Wheel::new(4, START).unwrap();
        for slot in 0..4 {
            wheel.schedule(slot, after(10));
        }
        let first = wheel.pop_expired(after(100)).unwrap();
        let rest: Vec<u32> = (0..4).filter(|&slot| slot != first).collect();
        wheel.cancel(rest[0]);
        wheel.cancel(rest[0]);
        wheel.schedule(rest[1], after(500));
        assert_eq!(pop_all(&mut wheel, after(100)), [rest[2]]);
        assert_eq!(pop_all(&mut wheel, after(600)), [rest[1]]);
    }

    /// Ticks of which the sign of a distance, or the lower 32 bits, turn over.
    const TURNS: [u64; 3] = [1 << 31, 1 << 32, 1 << 33];

    #[test]
    fn timers_fire_on_time_where_their_numbers_begin_again() {
        let hour = Duration::from_secs(3600);
        for now in TURNS.map(|turn| start_of(turn) - hour) {
            let mut wheel = Wheel::new(5, now).unwrap();
            let at =
                [now - hour * 99, now + hour - TICK, now + hour, now + hour + TICK, now + hour * 24 * 190];
            for (slot, at) in (0..).zip(at) {
                wheel.schedule(slot, at);
            }
            assert_eq!(pop_all(&mut wheel, now), [0]);
            assert_eq!(pop_all(&mut wheel, now + hour - TICK), [1]);
            assert_eq!(pop_all(&mut wheel, now + hour), [2]);
            assert_eq!(pop_all(&mut wheel, now + hour + TICK), [3]);
            for day in 0..190 {
                assert_eq!(pop_all(&mut wheel, now + hour * 24 * day), [], "day {day} from {now}");
            }
            assert_eq!(pop_all(&mut wheel, at[4]), [4]);
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn a_time_too_far_to_tell_is_the_farthest_that_there_is() {
        let mut wheel = Wheel::new(2, START).unwrap();
        wheel.schedule(0, START + TICK * u32::MAX);
        wheel.schedule(1, Instant::from_micros(i64::MAX));
        let farthest = start_of(tick_before(START) + FARTHEST);
        for day in 0..198 {
            assert_eq!(pop_all(&mut wheel, START + Duration::from_secs(86_400 * day)), [], "day {day}");
        }
        assert_eq!(pop_all(&mut wheel, farthest - TICK), []);
        let fired = pop_all(&mut wheel, farthest);
        assert_eq!((BTreeSet::from_iter(fired), wheel.len()), (BTreeSet::from([0, 1]), 0));
    }

    #[test]
    fn time_that_goes_back_is_ignored() {
        let mut wheel = Wheel::new(2, START).unwrap();
        wheel.schedule(0, after(1000));
        assert_eq!(pop_all(&mut wheel, after(900)), []);
        assert_eq!(pop_all(&mut wheel, after(0)), []);
        wheel.schedule(1, after(500));
        assert_eq!(pop_all(&mut wheel, after(0)), [1]);
        assert_eq!(pop_all(&mut wheel, after(1010)), [0]);
    }

    #[test]
    fn a_slot_that_is_not_there_has_no_timer() {
        let mut wheel = Wheel::new(2, START).unwrap();
        for slot in [2, 3, 2 + SPOKES, u32::MAX] {
            wheel.schedule(slot, START);
            wheel.cancel(slot);
            assert!(!wheel.is_scheduled(slot));
        }
        assert_eq!((wheel.len(), wheel.next_expiry()), (0, None));
        assert_eq!(pop_all(&mut wheel, after(1_000_000)), []);
        assert!(matches!(Wheel::new(u32::MAX, START), Err(ArenaError::TooLarge { .. })));
    }

    #[test]
    fn the_hint_leads_to_every_timer() {
        let mut wheel = Wheel::new(5, START).unwrap();
        let at = [30, 31, 40_000, 4_000_000, 86_400_000].map(after);
        for (slot, at) in (0..).zip(at) {
            wheel.schedule(slot, at);
        }
        let (mut fired, mut steps, mut last) = (Vec::new(), 0, START);
        while let Some(hint) = wheel.next_expiry() {
            assert!(hint >= last, "{hint} after {last}");
            last = hint;
            for slot in pop_all(&mut wheel, hint) {
                assert!(at[slot as usize] <= hint && hint < at[slot as usize] + TICK, "{slot} at {hint}");
                fired.push(slot);
            }
            steps += 1;
        }
        fired.sort_unstable();
        assert_eq!(fired, [0, 1, 2, 3, 4]);
        assert!(steps < 86_400 / 32 + 300, "{steps} steps");
    }

    #[test]
    fn a_timer_is_hastened_and_never_put_off() {
        let mut wheel = Wheel::new(2, START).unwrap();
        let at = |millis| START + Duration::from_millis(millis);
        wheel.hasten(0, at(500));
        wheel.hasten(0, at(900));
        assert_eq!(pop_all(&mut wheel, at(499)), []);
        assert_eq!(pop_all(&mut wheel, at(510)), [0]);
        wheel.hasten(0, at(900));
        wheel.hasten(0, at(600));
        assert_eq!(pop_all(&mut wheel, at(610)), [0]);
        wheel.hasten(7, at(600));
        assert!(wheel.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, i64),
        Cancel(u32),
        Pass(u64),
        PassHasty(u64, usize),
    }

    fn span() -> impl Strategy<Value = u64> {
        prop_oneof![4 => 0..20_000u64, 4 => 0..2_000_000u64, 2 => 0..100_000_000u64, 1 => 0..40_000_000_000u64]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..40u32, span()).prop_map(|(slot, span)| Step::Schedule(slot, span as i64)),
            1 => (0..40u32, span()).prop_map(|(slot, span)| Step::Schedule(slot, -(span as i64))),
            2 => (0..40u32).prop_map(Step::Cancel),
            3 => span().prop_map(Step::Pass),
            2 => (span(), 0..5usize).prop_map(|(span, calls)| Step::PassHasty(span, calls)),
        ]
    }

    /// Takes out what fired; none of it may be early.
    fn settle(model: &mut BTreeMap<u32, Instant>, fired: &[u32], now: Instant) {
        for slot in fired {
            let at = model.remove(slot).expect("fires once, and only if scheduled");
            assert!(at <= now, "slot {slot} is early: {at} at {now}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 128, rng_seed: RngSeed::Fixed(SEED), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn any_history_agrees_with_a_map(
            turn in prop_oneof![Just(0), Just(TURNS[0]), Just(TURNS[1])],
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut now = start_of(turn) + Duration::from_micros(START.total_micros() as u64);
            if turn != 0 {
                // Half of the steps are before the turn, about.
                now -= Duration::from_secs(3000);
            }
            let mut wheel = Wheel::new(40, now).unwrap();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Schedule(slot, micros) => {
                        let at = Instant::from_micros(now.total_micros() + micros);
                        wheel.schedule(slot, at);
                        model.insert(slot, at);
                    }
                    Step::Cancel(slot) => {
                        wheel.cancel(slot);
                        model.remove(&slot);
                    }
                    Step::Pass(micros) => {
                        now += Duration::from_micros(micros);
                        let fired = pop_all(&mut wheel, now);
                        settle(&mut model, &fired, now);
                        prop_assert!(model.values().all(|&at| at + TICK > now), "late at {now}: {model:?}");
                    }
                    Step::PassHasty(micros, calls) => {
                        now += Duration::from_micros(micros);
                        let fired = std::iter::from_fn(|| wheel.pop_expired(now));
                        let fired: Vec<u32> = fired.take(calls).collect();
                        settle(&mut model, &fired, now);
                    }
                }
                prop_assert_eq!(wheel.len() as usize, model.len());
                prop_assert!((0..40).all(|slot| wheel.is_scheduled(slot) == model.contains_key(&slot)));
            }
        }
    }
}
