//! What took the processor away from a loop that never waits, and how long.
//!
//! Both ends of a wire are such loops. Each notes when it did not come round for long, and what the kernel says of the
//! time of its thread then: of a gap without processor time something else had the processor. A gap with it is work of the
//! thread itself, as far as the kernel can tell: what a hypervisor takes and does not report looks like that as well.

use rustix::time::{ClockId, clock_gettime};

use crate::tsc;

/// Nanoseconds after which a loop that did not come round was stopped. The generator and the bare loop have some 10 µs to do
/// in a turn at most.
pub const STOP: u64 = 100_000;
/// Nanoseconds after which the processor time is noted again, so that a gap is not told what was missing long before.
const AGAIN: u64 = 1_000_000;

/// Wall time and processor time of a thread at one moment, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// By the clock.
    pub wall: u64,
    /// While it ran.
    pub run: u64,
}

impl Account {
    /// Of this thread now.
    #[must_use]
    pub fn now() -> Account {
        let run = clock_gettime(ClockId::ThreadCPUTime);
        let run =
            u64::try_from(run.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(run.tv_nsec).unwrap_or(0);
        Account { wall: tsc::nanoseconds(), run }
    }

    /// Nanoseconds since an earlier one in which the thread did not run.
    #[must_use]
    pub fn idle_since(&self, earlier: &Account) -> u64 {
        let run = self.run.saturating_sub(earlier.run);
        self.wall.saturating_sub(earlier.wall).saturating_sub(run)
    }
}

/// A time in which a loop did not come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When it began.
    pub begin: u64,
    /// How long it was, nanoseconds.
    pub nanoseconds: u64,
    /// How much of it the thread did not run, by the kernel's account.
    pub idle: u64,
}

impl Gap {
    /// Whether the thread did not run for most of it.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.idle > self.nanoseconds / 2
    }
}

/// Notes the gaps of a loop; belongs to its thread.
#[derive(Clone, Debug)]
pub struct Watch {
    threshold: u64,
    last: u64,
    account: Account,
    gaps: Vec<Gap>,
}

impl Watch {
    /// Of gaps longer than so many nanoseconds, from the moment of this account on.
    #[must_use]
    pub fn new(threshold: u64, account: Account) -> Watch {
        Watch { threshold, last: account.wall, account, gaps: Vec::new() }
    }

    /// The loop has come round. `account` is asked for only after a gap, or a millisecond.
    #[inline]
    pub fn pass(&mut self, now: u64, account: impl FnOnce() -> Account) {
        if now - self.last > self.threshold || now - self.account.wall > AGAIN {
            self.note(now, account());
        } else {
            self.last = now;
        }
    }

    #[cold]
    fn note(&mut self, now: u64, account: Account) {
        let nanoseconds = now - self.last;
        if nanoseconds > self.threshold {
            let idle = account.idle_since(&self.account).min(nanoseconds);
            self.gaps.push(Gap { begin: self.last, nanoseconds, idle });
        }
        // What it took to ask is no gap.
        self.last = account.wall.max(now);
        self.account = account;
    }

    /// What has been noted.
    #[must_use]
    pub fn into_gaps(self) -> Vec<Gap> {
        self.gaps
    }
}

/// Reads the clock for so long and does nothing else: the gaps are those of the processor.
#[must_use]
pub fn idle(nanoseconds: u64) -> Vec<Gap> {
    let mut watch = Watch::new(HICCUP, Account::now());
    let end = tsc::nanoseconds() + nanoseconds;
    loop {
        let now = tsc::nanoseconds();
        watch.pass(now, Account::now);
        if now >= end {
            return watch.into_gaps();
        }
    }
}

/// Nanoseconds after which a loop that only reads the clock was interrupted.
pub const HICCUP: u64 = 1_000;

/// By how much gaps hold up a packet that is due at any moment of `total` nanoseconds: the delay that only a share of
/// 1 - `quantile` of the moments exceeds.
#[must_use]
pub fn delay(gaps: &[Gap], total: u64, quantile: f64) -> u64 {
    let exceeding =
        |delay: u64| -> u64 { gaps.iter().map(|gap| gap.nanoseconds.saturating_sub(delay)).sum() };
    let allowed = total as f64 * (1.0 - quantile);
    let (mut low, mut high) = (0, gaps.iter().map(|gap| gap.nanoseconds).max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low) / 2;
        if exceeding(middle) as f64 <= allowed {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The stops of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// Stops of the generator.
    pub generator: usize,
    /// Stops of what it sends to.
    pub other: usize,
    /// The longest of both, nanoseconds.
    pub longest: u64,
    /// Gaps of what it sends to in which that ran, as far as the kernel knows.
    pub unproven: usize,
    /// The longest of them.
    pub longest_unproven: u64,
}

impl Stops {
    /// Of gaps that began before `until`. Every gap of the generator is a stop; of the other end each one if what it does in a
    /// turn `is_bounded`, else those that the kernel proves.
    #[must_use]
    pub fn of(generator: &[Gap], other: &[Gap], is_bounded: bool, until: u64) -> Stops {
        let seen = |gap: &&Gap| gap.nanoseconds > STOP && gap.begin < until;
        let longest = |gaps: &[&Gap]| gaps.iter().map(|gap| gap.nanoseconds).max().unwrap_or(0);
        let generator: Vec<&Gap> = generator.iter().filter(seen).collect();
        let other: Vec<&Gap> = other.iter().filter(seen).collect();
        let unproven: Vec<&Gap> = other.iter().copied().filter(|gap| !gap.is_proven()).collect();
        let stops: Vec<&Gap> = other.iter().copied().filter(|gap| is_bounded || gap.is_proven()).collect();
        Stops {
            generator: generator.len(),
            other: stops.len(),
            longest: longest(&generator).max(longest(&stops)),
            unproven: unproven.len(),
            longest_unproven: longest(&unproven),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(begin: u64, nanoseconds: u64, idle: u64) -> Gap {
        Gap { begin, nanoseconds, idle }
    }

    #[test]
    fn a_gap_is_told_how_much_of_it_the_thread_did_not_run() {
        let at = |wall, run| Account { wall, run };
        let mut watch = Watch::new(STOP, at(1_000, 500));
        let never = || -> Account { panic!("asked without a reason") };
        watch.pass(50_000, never);
        watch.pass(150_000, never);
        // Half a millisecond away, of which the kernel has 20 µs as run since the first account.
        watch.pass(650_000, || at(651_000, 170_500));
        // A gap of work: all of it was run.
        watch.pass(851_000, || at(851_500, 371_000));
        watch.pass(900_000, never);
        assert_eq!(watch.into_gaps(), [gap(150_000, 500_000, 480_000), gap(651_000, 200_000, 0)]);
    }

    #[test]
    fn what_was_missing_long_ago_proves_nothing() {
        let mut watch = Watch::new(STOP, Account { wall: 0, run: 0 });
        let mut asked = 0;
        // Each turn of 50 µs the thread misses one; then it works for 150.
        for turn in 1..=100 {
            let now = turn * 50_000;
            watch.pass(now, || {
                asked += 1;
                Account { wall: now, run: turn * 49_000 }
            });
        }
        watch.pass(5_150_000, || Account { wall: 5_150_000, run: 5_050_000 });
        assert_eq!(asked, 4, "once in a millisecond");
        let gaps = watch.into_gaps();
        assert_eq!(gaps, [gap(5_000_000, 150_000, 16_000)], "not the 100 µs since the start");
        assert!(!gaps[0].is_proven());
    }

    #[test]
    fn of_weir_only_what_the_kernel_proves_is_a_stop() {
        let generator = [gap(0, 99_000, 99_000)];
        let other = [gap(0, 400_000, 0), gap(10, 300_000, 160_000), gap(2_000, 900_000, 900_000)];
        let weir = Stops::of(&generator, &other, false, 1_000);
        let proven =
            Stops { other: 1, longest: 300_000, unproven: 1, longest_unproven: 400_000, ..Stops::default() };
        assert_eq!(weir, proven);
        let bare = Stops::of(&generator, &other, true, 1_000);
        assert_eq!(bare, Stops { other: 2, longest: 400_000, ..proven });
        let own = Stops::of(&generator, &other[..1], false, 1_000);
        assert_eq!((own.other, own.unproven), (0, 1), "what may be weir's own work excuses nothing");
        let late = Stops::of(&[gap(5, 200_000, 0)], &[], false, 1_000);
        assert_eq!(late.generator, 1, "a generator that is late is late without proof, too");
    }

    #[test]
    fn a_delay_is_what_moments_in_gaps_wait_for_their_end() {
        // One gap of 2 ms in a second: a moment in 500 lies in it, one in 1,000 waits for longer than a millisecond.
        let gaps = [gap(0, 2_000_000, 0)];
        assert_eq!(delay(&gaps, 1_000_000_000, 0.999), 1_000_000);
        assert_eq!(delay(&gaps, 1_000_000_000, 0.99), 0);
        assert_eq!(delay(&gaps, 1_000_000_000, 1.0), 2_000_000);
        // Gaps add up: 300 of 10 µs are three in a thousand, a third of which waits for more than two thirds.
        let many: Vec<Gap> = (0..300).map(|n| gap(n * 1_000_000, 10_000, 0)).collect();
        assert_eq!(delay(&many, 1_000_000_000, 0.999), 6_667);
        assert_eq!(delay(&[], 1_000_000_000, 0.999), 0);
    }
}
