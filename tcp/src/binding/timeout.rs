//! What happens when nothing happens.

use smoltcp::time::Instant;

use super::half::Mode;
use super::{Binding, Phase};
use crate::{ConnectFailure, End, Event, Side};

impl Binding {
    /// When [`Binding::handle_timeout`] is to be called; `None`: not before the next segment or call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let replays = [&self.up, &self.down].into_iter().filter(|half| half.mode == Mode::Replaying);
        match self.phase {
            Phase::Handshake | Phase::Connecting => Some(self.retry.at.min(self.deadline)),
            Phase::Waiting => Some(self.deadline),
            Phase::TimedOut => None,
            Phase::Replaying => replays
                .flat_map(|half| [half.replay.poll_timeout(), Some(half.replay.deadline)])
                .flatten()
                .min(),
            Phase::Closing => {
                let timers = replays.filter_map(|half| half.replay.poll_timeout());
                timers.chain([self.deadline]).min()
            }
            Phase::Spliced | Phase::Ended => self.pending,
        }
    }

    /// To be called when the time of [`Binding::poll_timeout`] has come; earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) -> Event {
        match self.phase {
            Phase::Handshake if now >= self.deadline => self.end(End::HandshakeTimeout),
            Phase::Waiting if now >= self.deadline => {
                self.phase = Phase::TimedOut;
                self.reset_client();
                Event::Ended(End::FirstPayloadTimeout)
            }
            Phase::Connecting if now >= self.deadline => self.connect_failed(now, ConnectFailure::Silent),
            Phase::Handshake | Phase::Connecting => {
                self.retry.handle_timeout(now);
                Event::Consumed
            }
            Phase::Replaying => self.replay_timeout(now),
            Phase::Closing => self.closing_timeout(now),
            Phase::Spliced | Phase::Ended => self.report_pending(now),
            Phase::Waiting | Phase::TimedOut => Event::Consumed,
        }
    }

    fn report_pending(&mut self, now: Instant) -> Event {
        if self.pending.is_none_or(|at| now < at) {
            return Event::Consumed;
        }
        self.pending = None;
        if self.phase == Phase::Spliced { Event::Spliced } else { Event::Ended(End::Closed) }
    }

    fn replay_timeout(&mut self, now: Instant) -> Event {
        for from in [Side::Client, Side::Server] {
            let half = self.half_mut(from);
            if half.mode == Mode::Replaying && now >= half.replay.deadline {
                if half.replay.una != half.next() {
                    self.reset_client();
                    self.reset_server();
                    return self.end(End::ReplayTimeout);
                }
                // All is delivered but for what waits beyond a hole: the source still has it (RFC 2018, 8).
                half.data.forget_waiting();
            }
        }
        self.retransmit(now);
        if self.settle(now) { Event::Spliced } else { Event::Consumed }
    }

    fn closing_timeout(&mut self, now: Instant) -> Event {
        if now < self.deadline {
            self.retransmit(now);
            return Event::Consumed;
        }
        self.reset_client();
        self.end(self.ending)
    }

    fn retransmit(&mut self, now: Instant) {
        self.up.replay.handle_timeout(now, self.server.payload_size());
        self.down.replay.handle_timeout(now, self.client.payload_size());
    }
}
