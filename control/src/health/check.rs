//! From single probes to a state: rise and fall.

use smoltcp::time::{Duration, Instant};

use dataplane::snapshot::Monitor;

/// Shortest time between the starts of two probes of one check, whatever the configuration says.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// What one monitor knows about one server.
///
/// Until anything is known, one good probe makes it up; `fall` failed ones in a row make it down. After that `rise`
/// and `fall` apply. While failures are being confirmed, probes follow each other by `timeout / fall`, so that a
/// server that refuses is down within one interval and one timeout whatever `fall` is.
#[derive(Debug)]
pub(super) struct Check {
    up: Option<bool>,
    /// Results in a row that contradict `up`.
    streak: u8,
    rise: u8,
    fall: u8,
    interval: Duration,
    timeout: Duration,
}

impl Check {
    pub(super) fn new(monitor: &Monitor) -> Self {
        Check {
            up: None,
            streak: 0,
            rise: monitor.rise.max(1),
            fall: monitor.fall.max(1),
            interval: monitor.interval.max(SHORTEST_INTERVAL),
            timeout: monitor.timeout.max(Duration::from_millis(1)),
        }
    }

    /// `None` until enough is known.
    pub(super) fn up(&self) -> Option<bool> {
        self.up
    }

    /// True if it judges by the same numbers.
    pub(super) fn is_like(&self, other: &Check) -> bool {
        let numbers = |check: &Check| (check.rise, check.fall, check.interval, check.timeout);
        numbers(self) == numbers(other)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes in the result of a probe; true if [`Check::up`] changed.
    pub(super) fn handle_result(&mut self, good: bool) -> bool {
        if self.up == Some(good) {
            self.streak = 0;
            return false;
        }
        self.streak = self.streak.saturating_add(1);
        let needed = match (self.up, good) {
            (None, true) => 1,
            (Some(_), true) => self.rise,
            (_, false) => self.fall,
        };
        if self.streak < needed {
            return false;
        }
        self.up = Some(good);
        self.streak = 0;
        true
    }

    /// When the next probe starts, after one that lasted from `started` to `ended`.
    pub(super) fn next_start(&self, started: Instant, ended: Instant) -> Instant {
        let failing = self.streak > 0 && self.up != Some(false);
        let gap = if failing {
            (self.timeout / u32::from(self.fall)).max(SHORTEST_INTERVAL).min(self.interval)
        } else {
            self.interval
        };
        (started + gap).max(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::snapshot::MonitorKind;

    fn check(rise: u8, fall: u8) -> Check {
        Check::new(&Monitor {
            kind: MonitorKind::Icmp,
            interval: Duration::from_millis(2000),
            timeout: Duration::from_millis(900),
            rise,
            fall,
            port: None,
        })
    }

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_first_good_probe_makes_it_up_and_then_rise_and_fall_count() {
        let mut check = check(2, 3);
        let script = [
            (false, None),
            (true, Some(true)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(false)),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(true)),
        ];
        for (step, (good, change)) in script.into_iter().enumerate() {
            let changed = check.handle_result(good);
            assert_eq!(changed.then_some(check.up()).flatten(), change, "step {step}");
        }
    }

    #[test]
    fn a_server_that_never_answered_is_known_to_be_down_after_fall_probes() {
        let mut check = check(2, 2);
        assert!(!check.handle_result(false));
        assert!(check.handle_result(false));
        assert_eq!(check.up(), Some(false));
        assert!(!check.handle_result(true), "from now on rise counts");
    }

    #[test]
    fn failures_are_confirmed_quickly_and_recovery_is_not_hurried() {
        let mut check = check(2, 3);
        check.handle_result(true);
        assert_eq!(check.next_start(at(0), at(1)), at(2000));
        check.handle_result(false);
        assert_eq!(check.next_start(at(2000), at(2001)), at(2300), "refused: timeout / fall later");
        assert_eq!(check.next_start(at(2000), at(2900)), at(2900), "silent: at once after the timeout");
        check.handle_result(false);
        check.handle_result(false);
        assert_eq!(check.up(), Some(false));
        check.handle_result(true);
        assert_eq!(check.next_start(at(5000), at(5001)), at(7000));
    }
}
