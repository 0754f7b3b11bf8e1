//! Segments of a side whose handshake is complete (RFC 9293, 3.10.7.4; RFC 5961; RFC 7323).

use smoltcp::time::Instant;

use super::half::{Intake, Mode};
use super::leg::{Reset, is_older};
use super::{Binding, Phase};
use crate::{End, Event, Flags, Segment, SeqNumber, Side};

impl Binding {
    pub(super) fn handle_synchronized(&mut self, now: Instant, from: Side, segment: &Segment<'_>) -> Event {
        if let Err(event) = self.check(from, segment) {
            return event;
        }
        self.acknowledge(now, from, segment);
        self.take_payload(now, from, segment)
    }

    /// All that decides whether a segment is acceptable. A segment that is not is answered, where the RFCs want that, by
    /// an acknowledgement; one per poll at most (RFC 5961, 7).
    pub(super) fn check(&mut self, from: Side, segment: &Segment<'_>) -> Result<(), Event> {
        let reset = segment.flags.contains(Flags::RST);
        let answer = match self.judge(from, segment) {
            Ok(()) if reset => return Err(self.reset_by(from, segment)),
            Ok(()) => return Ok(()),
            Err(answer) => answer,
        };
        self.leg_mut(from).ack_due |= answer;
        Err(Event::Rejected)
    }

    /// `Err(true)`: not acceptable, answer by an acknowledgement; `Err(false)`: ignore.
    fn judge(&self, from: Side, segment: &Segment<'_>) -> Result<(), bool> {
        let (leg, half) = (self.leg(from), self.half(from));
        let reset = segment.flags.contains(Flags::RST);
        if reset && half.is_closed() && self.half(from.opposite()).is_closed_by_destination() {
            // For this side the connection is over in good order, and it resets what still comes late. What it has sent
            // is weir's to deliver.
            return Err(false);
        }
        let syn = segment.flags.contains(Flags::SYN);
        if leg.timestamps && !reset && !syn {
            // RFC 7323, 3.2 and 5.3, R1.
            let timestamps = segment.options.timestamps.ok_or(false)?;
            if is_older(timestamps.value, leg.recent) {
                return Err(true);
            }
        }
        if !half.accepts(segment) {
            return Err(!reset);
        }
        if reset {
            // RFC 5961, 3.2. In a stream that passes, the end of what was seen is as exact as what was acknowledged.
            let exact =
                segment.seq == half.next() || (half.mode == Mode::Through && segment.seq == half.replay.high);
            return if exact { Ok(()) } else { Err(true) };
        }
        if syn {
            // RFC 5961, 4.2, whether or not the new connection of the client's would have timestamps.
            return Err(true);
        }
        if !segment.flags.contains(Flags::ACK) {
            return Err(false);
        }
        // RFC 5961, 5.2.
        let sent = self.half(from.opposite());
        let ack = segment.ack.receded(sent.shift);
        let oldest = sent.replay.una.receded(leg.largest_window);
        if ack.is_after(sent.replay.high) || ack.is_before(oldest) { Err(true) } else { Ok(()) }
    }

    /// A genuine reset: passed on to the other side.
    fn reset_by(&mut self, from: Side, segment: &Segment<'_>) -> Event {
        let seq = segment.seq.advanced(self.half(from).shift);
        let to = from.opposite();
        if from == Side::Server {
            let ack = Some(self.up.next());
            self.leg_mut(to).reset = Some(Reset { seq, ack });
            return self.end(End::ServerReset);
        }
        if matches!(self.phase, Phase::Connecting | Phase::Replaying) {
            self.reset_server();
        }
        self.end(End::ClientReset)
    }

    /// Acknowledgement and window for what goes to `from`.
    fn acknowledge(&mut self, now: Instant, from: Side, segment: &Segment<'_>) {
        let (leg, sent) = match from {
            Side::Client => (&mut self.client, &mut self.down),
            Side::Server => (&mut self.server, &mut self.up),
        };
        let ack = segment.ack.receded(sent.shift);
        let widened = leg.update_window(segment);
        let duplicate = segment.is_empty() && !widened && ack == sent.replay.una;
        match sent.mode {
            Mode::Held => {}
            Mode::Replaying => {
                sent.replay.deadline = now + self.limits.replay_timeout;
                sent.replay.acknowledge(now, ack, duplicate, leg.payload_size());
            }
            Mode::Through => {
                let advanced = ack.is_after(sent.replay.una);
                sent.replay.una = sent.replay.una.later(ack);
                sent.widen(leg.window);
                leg.reported.clone_from(&segment.options.sack);
                let news = advanced || widened || (duplicate && ack.is_before(sent.replay.high));
                self.leg_mut(from.opposite()).ack_due |= news;
            }
        }
    }

    /// Payload and FIN of an acceptable segment, and what follows from everything in it.
    pub(super) fn take_payload(&mut self, now: Instant, from: Side, segment: &Segment<'_>) -> Event {
        let (leg, half) = match from {
            Side::Client => (&mut self.client, &mut self.up),
            Side::Server => (&mut self.server, &mut self.down),
        };
        leg.note_clock(segment, half.next());
        let fin = segment.flags.contains(Flags::FIN);
        // What passes is acknowledged by the destination; but what the destination has had already may be a sign that the
        // acknowledgement got lost on its way back.
        leg.ack_due |= match half.mode {
            Mode::Held | Mode::Replaying => !segment.is_empty(),
            Mode::Through => segment.seq.is_before(half.next()),
        };
        let intake = half.take(segment, fin);
        let Ok(intake) = intake else { return Event::Rejected };
        let spliced = self.settle(now);
        if intake == Intake::Pass {
            return self.passed(now, from, spliced);
        }
        if spliced {
            return Event::Spliced;
        }
        if intake == Intake::Progress { self.progress(now, from) } else { Event::Consumed }
    }

    /// This packet goes on; if it was the last one before the splice, the event for that follows by timer.
    fn passed(&mut self, now: Instant, from: Side, spliced: bool) -> Event {
        if spliced {
            self.pending = Some(now);
            self.leg_mut(from.opposite()).ack_due = false;
        }
        Event::Forward
    }

    /// A segment between the splice and the moment when the caller hears of it: [`Binding::track`] stays true.
    pub(super) fn pass(&mut self, from: Side, segment: &Segment<'_>) -> Event {
        if self.half(from).accepts(segment)
            && self.half_mut(from).take(segment, segment.flags.contains(Flags::FIN)).is_ok()
        {
            let (leg, sent) = match from {
                Side::Client => (&mut self.client, &mut self.down),
                Side::Server => (&mut self.server, &mut self.up),
            };
            let ack = segment.ack.receded(sent.shift);
            if !ack.is_after(sent.replay.high) {
                let newest = !ack.is_before(sent.replay.una) && !segment.seq.is_before(leg.window_seq);
                let plain =
                    segment.flags.contains(Flags::ACK) && !segment.flags.intersects(Flags::SYN | Flags::RST);
                sent.replay.una = sent.replay.una.later(ack);
                // What weir still has to acknowledge goes out after this packet, and must not take its window back.
                leg.update_window(segment);
                sent.widen(leg.window);
                // It says all that weir still had to: what its sender has acknowledged, and its window.
                self.leg_mut(from.opposite()).ack_due &= !(newest && plain);
            }
        }
        Event::Forward
    }

    /// Whether somebody is still to decide on new bytes.
    fn progress(&mut self, now: Instant, from: Side) -> Event {
        match from {
            Side::Client if matches!(self.phase, Phase::Waiting | Phase::TimedOut) => {
                if self.up.payload().is_empty() { self.client_closed(now) } else { Event::Data(from) }
            }
            Side::Server if self.down.mode == Mode::Held => Event::Data(from),
            _ => Event::Consumed,
        }
    }

    /// weir's own next number towards `to`, in the numbering of that side.
    #[inline]
    pub(super) fn send_next(&self, to: Side) -> SeqNumber {
        let sent = self.half(to.opposite());
        sent.replay.high.advanced(sent.shift)
    }
}
