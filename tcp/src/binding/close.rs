//! Endings of weir's own.

use smoltcp::time::Instant;

use super::half::Mode;
use super::leg::Reset;
use super::{Binding, Phase};
use crate::{Event, Segment, Side};

impl Binding {
    /// Ends the connection for a reason of the caller's.
    ///
    /// With `reset`, or where the client has not yet completed its handshake, or where it has not acknowledged all that
    /// it was sent: RST, and [`End::Closed`] at the next [`Binding::handle_timeout`], which is due at once. Otherwise FIN
    /// after what the client was sent, repeated until it is acknowledged and the client's own FIN has come, each within
    /// the replay timeout; then [`End::Closed`]. A server that was asked for is reset in both cases: it has seen a part of
    /// a conversation that nobody goes on with.
    pub fn close(&mut self, now: Instant, reset: bool) {
        match self.phase {
            Phase::Ended | Phase::Closing if !reset => return,
            Phase::Ended => return,
            Phase::Connecting | Phase::Replaying | Phase::Spliced => self.reset_server(),
            Phase::Handshake | Phase::Waiting | Phase::TimedOut | Phase::Closing => {}
        }
        self.retry.due = false;
        if reset || !self.established || self.owes_client() {
            self.reset_client();
            self.phase = Phase::Ended;
            self.pending = Some(now);
        } else {
            self.start_closing(now);
        }
    }

    /// The client was sent bytes that it has not acknowledged.
    fn owes_client(&self) -> bool {
        self.down.replay.una != self.down.replay.high
    }

    pub(super) fn start_closing(&mut self, now: Instant) {
        self.client.reset = None;
        self.client.ack_due = true;
        let deadline = now + self.limits.replay_timeout;
        self.down.begin(self.send_next(Side::Client), 0, 0, 1);
        self.down.finish();
        self.down.start_replay(deadline);
        if self.up.mode == Mode::Through {
            let unit = 1 << self.client.our_shift;
            self.up.begin(self.up.next(), 0, self.limits.buffer, unit);
        }
        self.up.mode = Mode::Held;
        self.deadline = deadline;
        self.phase = Phase::Closing;
    }

    /// A segment of the client after weir's FIN. Bytes that still come are acknowledged as far as there is room.
    pub(super) fn handle_closing(&mut self, now: Instant, segment: &Segment<'_>) -> Event {
        let event = self.handle_synchronized(now, Side::Client, segment);
        if matches!(event, Event::Ended(_)) {
            return event;
        }
        if self.down.is_delivered() {
            self.down.replay.stop();
            if self.up.finished() {
                self.client.last_ack_due = self.client.ack_due;
                return self.end(self.ending);
            }
        } else {
            self.deadline = self.down.replay.deadline;
        }
        event
    }

    pub(super) fn reset_client(&mut self) {
        let ack = Some(self.up.next());
        self.client.reset = Some(Reset { seq: self.send_next(Side::Client), ack });
    }

    /// A server in SYN-RECEIVED or beyond takes this reset; before that there is nothing to reset.
    pub(super) fn reset_server(&mut self) {
        let seq = self.send_next(Side::Server);
        let ack = self.connected.then(|| self.down.next());
        self.server.reset = Some(Reset { seq, ack });
    }
}
