//! Sending buffered bytes until they are acknowledged: retransmission timer (RFC 6298), slow start, congestion avoidance
//! and fast retransmit (RFC 5681, RFC 6582), zero window probes (RFC 9293, 3.8.6.1).

use smoltcp::time::{Duration, Instant};

use crate::SeqNumber;

/// Timeout before anything is known about the path (RFC 6298, 2.1).
pub(crate) const INITIAL_TIMEOUT: Duration = Duration::from_millis(1000);
/// Smallest timeout. RFC 6298 wants one second; 200 ms is what end hosts use, and above every delayed acknowledgement
/// that the measured variance does not cover.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Largest timeout (RFC 6298, 2.5).
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Duplicate acknowledgements that mean a loss (RFC 5681, 3.2).
const DUPLICATES: u8 = 3;
/// Segments that may be sent before the first acknowledgement (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;

/// What the receiver and the buffer allow at the moment of sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supply {
    /// After the last byte, or the FIN, that is there to be sent.
    pub end: SeqNumber,
    /// Window of the receiver in bytes.
    pub window: u32,
    /// Largest payload of a segment.
    pub mss: u32,
}

/// The send side of one stream. All sequence numbers are those of the stream's source.
///
/// While a stream is only forwarded, `una` is what its destination has acknowledged and `high` the end of what was seen.
#[derive(Debug)]
pub(crate) struct Replay {
    /// First number that is not acknowledged.
    pub una: SeqNumber,
    /// Next to send; goes back to `una` when the timer fires.
    nxt: SeqNumber,
    /// After the last that was ever sent.
    pub high: SeqNumber,
    /// When it is given up, unless an acknowledgement comes.
    pub deadline: Instant,
    timer: Option<Instant>,
    timeout: Duration,
    /// Smoothed round trip and its variance, in microseconds.
    estimate: Option<(u64, u64)>,
    timed: Option<(SeqNumber, Instant)>,
    congestion: Congestion,
    duplicates: u8,
    recover: Option<SeqNumber>,
    resend: bool,
    /// The next segment may go one byte beyond the window.
    probe: bool,
    /// The last segment did.
    probing: bool,
}

#[derive(Debug, Default)]
struct Congestion {
    /// 0: nothing was sent yet.
    window: u32,
    threshold: Option<u32>,
}

impl Replay {
    pub(crate) fn new(first: SeqNumber) -> Self {
        Replay {
            una: first,
            nxt: first,
            high: first,
            deadline: Instant::ZERO,
            timer: None,
            timeout: INITIAL_TIMEOUT,
            estimate: None,
            timed: None,
            congestion: Congestion::default(),
            duplicates: 0,
            recover: None,
            resend: false,
            probe: false,
            probing: false,
        }
    }

    /// The next range to send: its first number and its length, FIN counted. `None`: nothing may be sent now.
    pub(crate) fn poll(&mut self, now: Instant, supply: Supply) -> Option<(SeqNumber, u32)> {
        let (seq, length) = if std::mem::take(&mut self.resend) {
            (self.una, self.high.since(self.una).min(supply.mss))
        } else {
            (self.nxt, self.sendable(supply))
        };
        if length == 0 {
            if self.nxt.is_before(supply.end) && self.timer.is_none() {
                self.timer = Some(now + self.timeout);
            }
            return None;
        }
        self.probing = std::mem::take(&mut self.probe) && supply.window == 0;
        let after = seq.advanced(length);
        if after.is_after(self.high) && !seq.is_before(self.high) && self.timed.is_none() {
            self.timed = Some((after, now));
        }
        self.nxt = self.nxt.later(after);
        self.high = self.high.later(after);
        self.timer.get_or_insert(now + self.timeout);
        Some((seq, length))
    }

    /// False if [`Replay::poll`] would give nothing and change nothing, whatever the window; `end` is that of its supply.
    #[inline]
    pub(crate) fn wants_poll(&self, end: SeqNumber) -> bool {
        self.resend || self.nxt.is_before(end)
    }

    /// How much may go out at `nxt`, silly windows avoided (RFC 9293, 3.8.6.2.1).
    fn sendable(&mut self, supply: Supply) -> u32 {
        if !self.nxt.is_before(supply.end) {
            return 0;
        }
        if self.congestion.window == 0 {
            self.congestion.window = supply.mss.saturating_mul(INITIAL_SEGMENTS);
        }
        let mut window = supply.window.min(self.congestion.window);
        if self.probe {
            window = window.max(1);
        }
        let in_flight = self.nxt.since(self.una);
        let left = supply.end.since(self.nxt);
        let length = left.min(window.saturating_sub(in_flight)).min(supply.mss);
        let worthwhile = length == left || length == supply.mss || in_flight == 0;
        if worthwhile { length } else { 0 }
    }

    /// An acceptable acknowledgement; `duplicate` if its segment carried nothing and changed nothing.
    pub(crate) fn acknowledge(&mut self, now: Instant, ack: SeqNumber, duplicate: bool, mss: u32) {
        if std::mem::take(&mut self.probing) {
            // A probe that was not taken goes out again with the rest.
            self.nxt = self.una;
        }
        if ack.is_after(self.una) {
            self.advance(now, ack, mss);
        } else if duplicate && ack == self.una && self.una.is_before(self.high) {
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates == DUPLICATES && self.recover.is_none() {
                let threshold = (self.high.since(self.una) / 2).max(mss.saturating_mul(2));
                self.congestion = Congestion { window: threshold, threshold: Some(threshold) };
                self.recover = Some(self.high);
                self.resend = true;
                self.timed = None;
            }
        }
    }

    fn advance(&mut self, now: Instant, ack: SeqNumber, mss: u32) {
        if let Some((_, sent)) = self.timed.filter(|(seq, _)| !ack.is_before(*seq)) {
            self.timed = None;
            self.measure((now - sent).total_micros());
        }
        self.congestion.grow(ack.since(self.una), mss);
        self.una = ack;
        self.nxt = self.nxt.later(ack);
        self.duplicates = 0;
        match self.recover {
            Some(recover) if ack.is_before(recover) => self.resend = true,
            _ => self.recover = None,
        }
        self.timeout = self.settled_timeout();
        self.timer = self.una.is_before(self.high).then(|| now + self.timeout);
    }

    /// RFC 6298, 2.2 and 2.3.
    fn measure(&mut self, sample: u64) {
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((smooth, variance)) => {
                ((7 * smooth + sample) / 8, (3 * variance + smooth.abs_diff(sample)) / 4)
            }
        });
    }

    fn settled_timeout(&self) -> Duration {
        let Some((smooth, variance)) = self.estimate else { return INITIAL_TIMEOUT };
        let timeout = Duration::from_micros(smooth.saturating_add(variance.saturating_mul(4)));
        timeout.clamp(MIN_TIMEOUT, MAX_TIMEOUT)
    }

    /// When [`Replay::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// The timer fired: everything from `una` on goes out again (RFC 6298, 5.4 to 5.6; RFC 5681, 3.1).
    pub(crate) fn handle_timeout(&mut self, now: Instant, mss: u32) {
        if self.timer.is_none_or(|at| now < at) {
            return;
        }
        let in_flight = self.high.since(self.una);
        if in_flight > 0 {
            let threshold = (in_flight / 2).max(mss.saturating_mul(2));
            self.congestion = Congestion { window: mss, threshold: Some(threshold) };
        }
        self.timeout = Duration::from_micros(self.timeout.total_micros().saturating_mul(2)).min(MAX_TIMEOUT);
        self.timer = None;
        self.timed = None;
        self.recover = None;
        self.resend = false;
        self.duplicates = 0;
        self.nxt = self.una;
        self.probe = true;
    }

    /// Nothing is to be sent any more; acknowledgements go on to be followed.
    pub(crate) fn stop(&mut self) {
        self.timer = None;
        self.resend = false;
    }
}

impl Congestion {
    /// Slow start below the threshold, else one segment per round trip (RFC 5681, 3.1).
    fn grow(&mut self, acknowledged: u32, mss: u32) {
        let increase = match self.threshold {
            Some(threshold) if self.window >= threshold => {
                (u64::from(mss) * u64::from(mss) / u64::from(self.window.max(1))).max(1) as u32
            }
            _ => acknowledged.min(mss),
        };
        self.window = self.window.saturating_add(increase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn supply(end: u32, window: u32) -> Supply {
        Supply { end: end.into(), window, mss: 100 }
    }

    fn drain(replay: &mut Replay, now: Instant, supply: Supply) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| replay.poll(now, supply)).map(|(seq, length)| (seq.value(), length)).collect()
    }

    #[test]
    fn segments_by_mss_within_the_window_across_the_wrap() {
        let first = u32::MAX - 149;
        let mut replay = Replay::new(first.into());
        let ranges = drain(&mut replay, at(0), supply(200, 300));
        assert_eq!(ranges, [(first, 100), (first + 100, 100), (50, 100)]);
        replay.acknowledge(at(10), 50.into(), false, 100);
        assert_eq!(drain(&mut replay, at(10), supply(200, 300)), [(150, 50)]);
        replay.acknowledge(at(20), 200.into(), false, 100);
        assert_eq!((replay.una, replay.poll_timeout()), (200.into(), None));
    }

    #[test]
    fn the_timer_backs_off_and_sends_everything_again() {
        let mut replay = Replay::new(0.into());
        assert_eq!(drain(&mut replay, at(0), supply(250, 1000)).len(), 3);
        let mut now = at(0);
        for wait in [1000, 2000, 4000] {
            assert_eq!(replay.poll_timeout(), Some(now + Duration::from_millis(wait)));
            now += Duration::from_millis(wait);
            replay.handle_timeout(now, 100);
            assert_eq!(drain(&mut replay, now, supply(250, 1000)), [(0, 100)]);
        }
        replay.acknowledge(now, 100.into(), false, 100);
        assert_eq!(drain(&mut replay, now, supply(250, 1000)), [(100, 100), (200, 50)]);
    }

    #[test]
    fn three_duplicates_resend_once_and_partial_acknowledgements_go_on() {
        let mut replay = Replay::new(0.into());
        assert_eq!(drain(&mut replay, at(0), supply(500, 1000)).len(), 5);
        for _ in 0..2 {
            replay.acknowledge(at(5), 0.into(), true, 100);
        }
        assert_eq!(replay.poll(at(5), supply(500, 1000)), None);
        for _ in 0..3 {
            replay.acknowledge(at(5), 0.into(), true, 100);
        }
        assert_eq!(drain(&mut replay, at(5), supply(500, 1000)), [(0, 100)]);
        replay.acknowledge(at(9), 300.into(), false, 100);
        assert_eq!(drain(&mut replay, at(9), supply(500, 1000)), [(300, 100)]);
    }

    #[test]
    fn a_closed_window_is_probed_with_one_byte() {
        let mut replay = Replay::new(0.into());
        assert_eq!(drain(&mut replay, at(0), supply(250, 0)), []);
        assert_eq!(replay.poll_timeout(), Some(at(1000)));
        replay.handle_timeout(at(1000), 100);
        assert_eq!(drain(&mut replay, at(1000), supply(250, 0)), [(0, 1)]);
        assert_eq!(replay.poll_timeout(), Some(at(3000)));
        replay.acknowledge(at(1500), 0.into(), false, 100);
        assert_eq!(drain(&mut replay, at(1500), supply(250, 0)), []);
        replay.acknowledge(at(1600), 0.into(), false, 100);
        assert_eq!(drain(&mut replay, at(1600), supply(250, 1000)).first(), Some(&(0, 100)));
    }

    #[test]
    fn a_measured_round_trip_sets_the_timeout() {
        let mut replay = Replay::new(0.into());
        drain(&mut replay, at(0), supply(100, 1000));
        replay.acknowledge(at(300), 100.into(), false, 100);
        drain(&mut replay, at(300), supply(200, 1000));
        assert_eq!(replay.poll_timeout(), Some(at(300 + 900)));
    }
}
