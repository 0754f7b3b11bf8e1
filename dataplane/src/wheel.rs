//! Timers: one per flow slot, in a wheel.
//!
//! Packets do not touch it: a flow's idle timer is looked at when it fires, and set again if the flow was busy.

use arena::{Arena, ArenaError};
use smoltcp::time::Instant;
use zerocopy::FromZeros;

/// Resolution in microseconds: a timer never fires early and at most this much late.
const TICK: i64 = 16_000;
/// Buckets: one turn of the wheel is 65.5 s. Later timers stay in their bucket for more turns.
const BUCKETS: u64 = 4096;

/// One slot's timer. Links are slot + 1, 0 for none, so that zeroed memory is an empty wheel.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
struct Timer {
    next: u32,
    previous: u32,
    /// Tick + 1 at which it fires, 0: not set.
    due: u64,
    /// Bucket that it hangs in.
    bucket: u64,
}

/// The timers of one worker: 24 bytes per slot and a fixed 16 KiB.
///
/// Setting and cancelling cost the same for any number of timers. [`Wheel::pop_expired`] looks at every timer once per
/// turn, 65.5 s, and otherwise only at those of the ticks that have passed.
#[derive(Debug)]
pub struct Wheel {
    timers: Arena<Timer>,
    /// First timer of each bucket.
    heads: Vec<u32>,
    /// The tick whose bucket was looked at last.
    current: u64,
    /// The next timer to look at in that bucket.
    walk: u32,
}

/// The tick that has begun at `now`.
fn tick(now: Instant) -> u64 {
    u64::try_from(now.total_micros().div_euclid(TICK)).unwrap_or(0)
}

/// The first tick that begins at or after `at`.
fn tick_after(at: Instant) -> u64 {
    let micros = at.total_micros();
    tick(at) + u64::from(micros > 0 && micros % TICK != 0)
}

fn bucket_of(tick: u64) -> usize {
    (tick % BUCKETS) as usize
}

impl Wheel {
    /// A wheel for slots below `capacity`.
    ///
    /// # Errors
    /// [`ArenaError`] if there is no memory.
    pub fn new(capacity: u32, now: Instant) -> Result<Self, ArenaError> {
        let heads = vec![0; BUCKETS as usize];
        Ok(Wheel { timers: Arena::zeroed(capacity as usize)?, heads, current: tick(now), walk: 0 })
    }

    /// Sets the timer of `slot`, instead of the one it may have. A time that has passed fires with the next tick.
    /// Slots beyond the capacity are ignored.
    pub fn schedule(&mut self, slot: u32, at: Instant) {
        self.cancel(slot);
        let due = tick_after(at);
        let bucket = bucket_of(due.max(self.current + 1));
        let Some(head) = self.heads.get_mut(bucket) else { return };
        let Some(timer) = self.timers.get_mut(slot as usize) else { return };
        let next = std::mem::replace(head, slot + 1);
        *timer = Timer { next, previous: 0, due: due + 1, bucket: bucket as u64 };
        if let Some(timer) = self.linked(next) {
            timer.previous = slot + 1;
        }
    }

    /// Unsets the timer of `slot`, if it has one.
    pub fn cancel(&mut self, slot: u32) {
        let Some(timer) = self.timers.get_mut(slot as usize) else { return };
        if timer.due == 0 {
            return;
        }
        let removed = *timer;
        timer.due = 0;
        if self.walk == slot + 1 {
            self.walk = removed.next;
        }
        if let Some(next) = self.linked(removed.next) {
            next.previous = removed.previous;
        }
        match self.linked(removed.previous) {
            Some(previous) => previous.next = removed.next,
            None => {
                if let Some(head) = self.heads.get_mut(removed.bucket as usize) {
                    *head = removed.next;
                }
            }
        }
    }

    /// The next slot whose time has come; its timer is unset. Call until `None`, or until enough is done: what is
    /// left is found by the next call.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let now = tick(now);
        loop {
            while let Some(timer) = self.linked(self.walk).copied() {
                let slot = self.walk - 1;
                if timer.due <= now + 1 {
                    self.cancel(slot);
                    return Some(slot);
                }
                self.walk = timer.next;
            }
            if self.current >= now {
                return None;
            }
            // After a long silence every bucket is looked at once, not once per turn.
            self.current = (self.current + 1).max(now.saturating_sub(BUCKETS - 1));
            self.walk = self.heads.get(bucket_of(self.current)).copied().unwrap_or(0);
        }
    }

    /// The timer that a link names.
    fn linked(&mut self, link: u32) -> Option<&mut Timer> {
        self.timers.get_mut(link.checked_sub(1)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const CAPACITY: u32 = 64;

    fn drain(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.pop_expired(now)).collect();
        fired.sort_unstable();
        fired
    }

    #[test]
    fn a_timer_fires_once_not_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(CAPACITY, Instant::from_millis(5)).unwrap();
        wheel.schedule(7, Instant::from_millis(1000));
        assert_eq!(drain(&mut wheel, Instant::from_millis(999)), []);
        assert_eq!(drain(&mut wheel, Instant::from_millis(1016)), [7]);
        assert_eq!(drain(&mut wheel, Instant::from_millis(100_000)), []);
    }

    #[test]
    fn timers_hours_away_survive_many_turns_and_a_jump_of_the_clock() {
        let mut wheel = Wheel::new(CAPACITY, Instant::ZERO).unwrap();
        wheel.schedule(0, Instant::from_secs(3 * 3600));
        wheel.schedule(1, Instant::from_secs(10 * 3600));
        for second in 0..3 * 3600 {
            assert_eq!(drain(&mut wheel, Instant::from_secs(second)), []);
        }
        assert_eq!(drain(&mut wheel, Instant::from_secs(9 * 3600)), [0]);
        assert_eq!(drain(&mut wheel, Instant::from_secs(100 * 3600)), [1]);
    }

    #[test]
    fn a_timer_may_be_cancelled_or_moved_while_its_bucket_is_walked() {
        let mut wheel = Wheel::new(CAPACITY, Instant::ZERO).unwrap();
        for slot in 0..4 {
            wheel.schedule(slot, Instant::from_millis(100));
        }
        let now = Instant::from_millis(200);
        let first = wheel.pop_expired(now).unwrap();
        let others: Vec<u32> = (0..4).filter(|slot| *slot != first).collect();
        wheel.cancel(others[0]);
        wheel.schedule(others[1], Instant::from_millis(5000));
        wheel.cancel(99);
        wheel.schedule(99, now);
        assert_eq!(drain(&mut wheel, now), [others[2]]);
        assert_eq!(drain(&mut wheel, Instant::from_millis(5016)), [others[1]]);
    }

    proptest! {
        /// Against a model that keeps the exact times.
        #[test]
        fn it_fires_what_a_sorted_map_would(
            steps in prop::collection::vec((0u32..CAPACITY, 0i64..200_000, 0i64..90_000, any::<bool>()), 1..200)
        ) {
            let mut now = Instant::from_millis(1);
            let mut wheel = Wheel::new(CAPACITY, now).unwrap();
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (slot, delay, pause, cancel) in steps {
                if cancel {
                    wheel.cancel(slot);
                    model.remove(&slot);
                } else {
                    let at = Instant::from_millis(now.total_millis() + delay);
                    wheel.schedule(slot, at);
                    model.insert(slot, at);
                }
                now = Instant::from_millis(now.total_millis() + pause);
                for slot in drain(&mut wheel, now) {
                    let at = model.remove(&slot);
                    prop_assert!(at.is_some_and(|at| at <= now), "slot {} early", slot);
                }
                let late = now.total_millis() - 2 * TICK / 1000;
                prop_assert!(model.values().all(|at| at.total_millis() >= late || pause < 32));
            }
        }
    }
}
