//! The server's handshake: SYN-SENT (RFC 9293, 3.10.7.3).

use smoltcp::time::Instant;

use super::handshake::{DEFAULT_MSS, MIN_MSS};
use super::{Binding, Leg, Phase};
use crate::splice::clock;
use crate::{ConnectFailure, Event, Flags, Segment, SeqNumber};

impl Binding {
    pub(super) fn handle_connecting(&mut self, now: Instant, segment: &Segment<'_>) -> Event {
        let acknowledged = segment.flags.contains(Flags::ACK) && segment.ack == self.up.first;
        if segment.flags.contains(Flags::ACK) && !acknowledged {
            self.server.reset_for(segment);
            return Event::Rejected;
        }
        if segment.flags.contains(Flags::RST) {
            return if acknowledged {
                self.connect_failed(now, ConnectFailure::Refused)
            } else {
                Event::Rejected
            };
        }
        if !acknowledged || !segment.flags.contains(Flags::SYN) {
            return Event::Rejected;
        }
        self.server_answered(now, segment);
        if self.settle(now) { Event::Spliced } else { Event::Consumed }
    }

    pub(super) fn connect_failed(&mut self, now: Instant, failure: ConnectFailure) -> Event {
        self.phase = Phase::Waiting;
        self.retry.due = false;
        self.deadline = now + self.limits.first_payload_timeout;
        Event::ConnectFailed(failure)
    }

    /// SYN-ACK: what the server has beyond the promise is not used; what it lacks is made up for by the splice.
    fn server_answered(&mut self, now: Instant, segment: &Segment<'_>) {
        self.server = self.server_leg(segment);
        self.server.ack_due = true;
        self.phase = Phase::Replaying;
        self.retry.due = false;
        self.connected = true;
        self.timestamp_delta = clock(now).wrapping_add(self.timestamp_offset);
        self.timestamp_delta = if self.server.timestamps {
            self.timestamp_delta.wrapping_sub(self.server.newest)
        } else {
            self.timestamp_offset
        };
        let first = segment.seq.advanced(1);
        let shift = self.isn.advanced(1).since(first);
        self.down.begin(first, shift, self.server_room, 1 << self.server.our_shift);
        if !self.hold {
            self.down.pass_through(self.client.window);
        }
        self.up.start_replay(now + self.limits.replay_timeout);
    }

    /// Bytes of a held response: no more than the client itself has offered, so that its window does not shrink for the
    /// server when the flow is spliced; but always one segment, so that there is a response to hold.
    pub(super) fn room_for_server(&self) -> u32 {
        self.client.window.max(u32::from(self.client.mss)).min(self.limits.buffer)
    }

    fn server_leg(&self, segment: &Segment<'_>) -> Leg {
        let options = &segment.options;
        let timestamps = options.timestamps.filter(|_| self.client.timestamps);
        let scale = options.window_scale.filter(|_| self.client.scaled);
        let clock = timestamps.map_or(0, |timestamps| timestamps.value);
        let window = u32::from(segment.window);
        Leg {
            mss: options.mss.unwrap_or(DEFAULT_MSS).min(self.promise.mss).max(MIN_MSS),
            timestamps: timestamps.is_some(),
            sack: options.sack_permitted && self.client.sack,
            scaled: scale.is_some(),
            their_shift: scale.unwrap_or(0),
            our_shift: if scale.is_some() { self.client.their_shift } else { 0 },
            window,
            largest_window: window,
            window_seq: segment.seq,
            window_ack: segment.ack,
            recent: clock,
            newest: clock,
            ..Leg::default()
        }
    }

    /// The client's own MSS; less the option that weir may have to insert into the server's segments.
    pub(super) fn mss_for_server(&self) -> u16 {
        self.client.mss - if self.client.timestamps { 12 } else { 0 }
    }

    /// Sequence number of the SYN to the server: the client's, moved by what was skipped and by what is put in front.
    pub(super) fn syn_seq(&self) -> SeqNumber {
        self.up.first.receded(1)
    }
}
