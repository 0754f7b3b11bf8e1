//! What is remembered of a connection that is only translated, to tell what its ends say from what somebody else makes
//! up (RFC 5961), and when both have heard all.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Flags, Segment, SeqNumber, Side};

/// Where both directions of a connection stand. Plain data of 24 bytes for a flow table, owned by the flow; starts with
/// [`Track::note_syn`] for both sides, or as [`Binding::track`](crate::Binding::track).
///
/// All numbers of a direction are those of its source. The hot path calls [`Track::note`] for each segment, a few
/// instructions; the judgements are for segments with FIN or RST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Track {
    client: Course,
    server: Course,
}

/// One direction, and the window that its source offers to the other one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Course {
    /// After the last number that its source has used (SND.NXT).
    next: u32,
    /// First number that its destination has not acknowledged (SND.UNA).
    acked: u32,
    /// The window field of its source, not scaled.
    window: u16,
    shift: u8,
    reserved: u8,
}

/// Numbers by which segments may be late or ahead, whatever the windows say.
const LEAST_ROOM: u32 = 0xFFFF;

/// What a segment that would change the state of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its number is what an end host would use.
    Genuine,
    /// In the window, but not exact: the end host that gets it challenges it, and so tells.
    InWindow,
    /// No end host sends that.
    Outside,
}

impl Track {
    pub(crate) fn new(
        (client_next, client_acked, client_window, client_shift): (SeqNumber, SeqNumber, u32, u8),
        (server_next, server_acked, server_window, server_shift): (SeqNumber, SeqNumber, u32, u8),
    ) -> Self {
        let course = |next: SeqNumber, acked: SeqNumber, window: u32, shift: u8| Course {
            next: next.value(),
            acked: acked.value(),
            window: u16::try_from(window >> shift.min(14)).unwrap_or(u16::MAX),
            shift,
            reserved: 0,
        };
        Track {
            client: course(client_next, client_acked, client_window, client_shift),
            server: course(server_next, server_acked, server_window, server_shift),
        }
    }

    /// The SYN of one side, of a connection whose handshake passes.
    pub fn note_syn(&mut self, from: Side, segment: &Segment<'_>) {
        let (own, other) = self.courses(from);
        own.next = segment.seq.advanced(1).value();
        own.acked = segment.seq.value();
        own.window = segment.window;
        own.shift = segment.options.window_scale.unwrap_or(0);
        if segment.flags.contains(Flags::ACK) {
            other.acked = segment.ack.value();
            // Scaling is in force only if both have offered it (RFC 7323, 2.2).
            if segment.options.window_scale.is_none() {
                other.shift = 0;
            }
        }
    }

    /// A segment of `length` numbers that passes. `ack` is in the numbering of the side that it is sent to. What is
    /// beyond the window, or acknowledges what was never sent, is not believed: it cannot move anything.
    #[inline]
    pub fn note(&mut self, from: Side, seq: u32, ack: u32, window: u16, length: u32) {
        let (own, other) = self.courses(from);
        let (behind, flight) = (other.next.wrapping_sub(ack), other.next.wrapping_sub(other.acked));
        if behind > flight.wrapping_add(LEAST_ROOM) {
            return;
        }
        let end = seq.wrapping_add(length);
        if (end.wrapping_sub(own.next) as i32) > 0 && end.wrapping_sub(own.acked) <= other.room() {
            own.next = end;
        }
        if behind <= flight {
            other.acked = ack;
            own.window = window;
        }
    }

    /// A reset with this number. Exact is what the other side expects next, as far as that was seen, and what its
    /// sender would send next: the end host that gets it may have more than was acknowledged yet (RFC 5961, 3.2).
    #[must_use]
    pub fn judge_reset(&self, from: Side, seq: u32) -> Judgement {
        let (own, other) = self.peek(from);
        if seq == own.acked || seq == own.next {
            Judgement::Genuine
        } else if seq.wrapping_sub(own.acked) <= other.room() {
            Judgement::InWindow
        } else {
            Judgement::Outside
        }
    }

    /// A FIN in a segment of `length` numbers, itself included: in the window, not acknowledged long since, and
    /// acknowledging something that may be acknowledged (RFC 5961, 5.2).
    #[must_use]
    pub fn believes_fin(&self, from: Side, seq: u32, ack: u32, length: u32) -> bool {
        let (own, other) = self.peek(from);
        let ahead = seq.wrapping_add(length).wrapping_sub(own.acked);
        let in_window = ahead > 0 && ahead <= other.room().saturating_add(1);
        let behind = other.next.wrapping_sub(ack);
        in_window && behind <= own.room().max(other.next.wrapping_sub(other.acked))
    }

    /// A segment with this number, sent by `from`, may still be on its way.
    #[must_use]
    pub fn in_flight(&self, from: Side, seq: u32) -> bool {
        let own = self.peek(from).0;
        seq.wrapping_sub(own.acked) <= own.next.wrapping_sub(own.acked)
    }

    /// Everything that either side has sent is acknowledged by the other.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.client.acked == self.client.next && self.server.acked == self.server.next
    }

    /// First number of `side` that the other one has not acknowledged: what it expects next (RCV.NXT).
    #[must_use]
    pub fn acknowledged(&self, side: Side) -> SeqNumber {
        self.peek(side).0.acked.into()
    }

    /// After the last number that `side` has used.
    #[must_use]
    pub fn next(&self, side: Side) -> SeqNumber {
        self.peek(side).0.next.into()
    }

    #[inline]
    fn courses(&mut self, from: Side) -> (&mut Course, &mut Course) {
        match from {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        }
    }

    fn peek(&self, from: Side) -> (&Course, &Course) {
        match from {
            Side::Client => (&self.client, &self.server),
            Side::Server => (&self.server, &self.client),
        }
    }
}

impl Course {
    /// Numbers that this side may be sent beyond what it has acknowledged. An end host that has shrunk its window still
    /// takes what it offered before; and a probe goes beyond a closed one.
    #[inline]
    fn room(&self) -> u32 {
        (u32::from(self.window) << (self.shift & 15)).max(LEAST_ROOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connected(client: u32, server: u32) -> Track {
        let mut track = Track::default();
        let scale = crate::Options { window_scale: Some(4), ..crate::Options::default() };
        let syn = Segment { seq: client.into(), window: 1000, options: scale.clone(), ..Segment::default() };
        track.note_syn(Side::Client, &Segment { flags: Flags::SYN, ..syn });
        let answer = Segment {
            seq: server.into(),
            ack: client.wrapping_add(1).into(),
            flags: Flags::SYN | Flags::ACK,
            window: 8000,
            options: scale,
            ..Segment::default()
        };
        track.note_syn(Side::Server, &answer);
        track.note(Side::Client, client.wrapping_add(1), server.wrapping_add(1), 8000, 0);
        track
    }

    proptest! {
        #![proptest_config(crate::seeded(256))]

        /// Both sides send and acknowledge in turn, some segments are lost before weir, some come twice. The model counts
        /// in 64 bits and so knows no wrap.
        #[test]
        fn numbers_follow_an_exchange_across_the_wrap(
            client: u32, server: u32,
            steps in proptest::collection::vec((any::<bool>(), 0u32..1461, 0u32..6), 1..300),
        ) {
            let mut track = connected(client, server);
            let isn = [u64::from(client) + 1, u64::from(server) + 1];
            let (mut next, mut acked) = (isn, isn);
            for (from_client, length, kind) in steps {
                let (own, other) = if from_client { (0, 1) } else { (1, 0) };
                let side = if from_client { Side::Client } else { Side::Server };
                let flight = next[own] - acked[own];
                let length = if flight + u64::from(length) > 60_000 { 0 } else { length };
                let seq = if kind == 0 { acked[own] } else { next[own] };
                let length = if kind == 0 { length.min(flight as u32) } else { length };
                if kind != 1 {
                    acked[other] = next[other];
                }
                track.note(side, seq as u32, acked[other] as u32, 8000, length);
                next[own] = next[own].max(seq + u64::from(length));
                prop_assert_eq!(track.next(side).value(), next[own] as u32);
                prop_assert_eq!(track.acknowledged(side.opposite()).value(), acked[other] as u32);
                prop_assert_eq!(track.is_settled(), next == acked);
                prop_assert_eq!(track.judge_reset(side, next[own] as u32), Judgement::Genuine);
                prop_assert!(track.believes_fin(side, next[own] as u32, acked[other] as u32, 1));
            }
        }

        #[test]
        fn what_is_made_up_moves_nothing(client: u32, server: u32, seq: u32, ack: u32, length in 0u32..1461) {
            let mut track = connected(client, server);
            let before = track;
            let ahead = seq.wrapping_add(length).wrapping_sub(client.wrapping_add(1));
            prop_assume!(ahead > 128_000 && ack != server.wrapping_add(1));
            track.note(Side::Client, seq, ack, 1, length);
            prop_assert_eq!(track, before);
            prop_assert!(!track.believes_fin(Side::Client, seq, server.wrapping_add(1), length.max(1)));
            prop_assert_eq!(track.judge_reset(Side::Client, seq.wrapping_add(length)), Judgement::Outside);
        }
    }

    #[test]
    fn a_reset_is_exact_at_what_is_expected_and_at_what_comes_next() {
        let mut track = connected(100, 200);
        track.note(Side::Client, 101, 201, 8000, 500);
        for (seq, expected) in [
            (101, Judgement::Genuine),
            (601, Judgement::Genuine),
            (300, Judgement::InWindow),
            (602, Judgement::InWindow),
            (100, Judgement::Outside),
            (101 + 128_001, Judgement::Outside),
        ] {
            assert_eq!(track.judge_reset(Side::Client, seq), expected, "{seq}");
        }
    }

    #[test]
    fn a_fin_needs_a_number_in_the_window_and_an_acknowledgement_of_what_was_sent() {
        let track = connected(100, 200);
        assert!(track.believes_fin(Side::Client, 101, 201, 1));
        assert!(track.believes_fin(Side::Client, 1101, 201, 1), "what is between was lost before weir");
        assert!(!track.believes_fin(Side::Client, 101, 202, 1), "never sent");
        assert!(!track.believes_fin(Side::Client, 100, 201, 1), "acknowledged before");
        assert!(!track.believes_fin(Side::Client, 101 + 130_000, 201, 1), "beyond the window");
    }

    #[test]
    fn without_an_offer_of_both_there_is_no_scale() {
        let mut track = Track::default();
        let options = crate::Options { window_scale: Some(7), ..crate::Options::default() };
        let syn = Segment { seq: 1.into(), flags: Flags::SYN, options, ..Segment::default() };
        track.note_syn(Side::Client, &syn);
        let answer = Segment { flags: Flags::SYN | Flags::ACK, ack: 2.into(), ..Segment::default() };
        track.note_syn(Side::Server, &answer);
        assert_eq!((track.client.shift, track.server.shift), (0, 0));
    }
}
