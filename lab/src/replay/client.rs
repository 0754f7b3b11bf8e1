//! The client's side of a TCP flow: its own sequence numbers, and what weir has said here.

use std::collections::BTreeMap;

use etherparse::{TcpHeader, TcpOptionElement};

/// MSS of a peer that names none (RFC 9293, 3.7.1).
const DEFAULT_MSS: usize = 536;
/// Bytes of the timestamps option, padded.
const TIMESTAMPS: usize = 12;
/// Segments kept to be sent again.
const KEPT: usize = 4096;

/// What is known about the two directions; all zero for UDP.
#[derive(Default)]
pub(super) struct ClientSide {
    /// The sequence number of the client's SYN.
    pub(super) isn: u32,
    /// The handshake was made up, or is to be completed because the capture lacks its end.
    pub(super) made_up: bool,
    /// The next byte of weir's that the client waits for; `None`: weir has not answered its SYN.
    next: Option<u32>,
    /// weir has accepted timestamps; its last one.
    timestamp: Option<u32>,
    /// The client's last timestamp.
    own_timestamp: u32,
    /// What weir takes in a segment.
    mss: usize,
    /// Bytes of the client's stream that weir has acknowledged.
    acknowledged: u32,
    /// What weir has not acknowledged, by its offset in the stream.
    owed: BTreeMap<u32, (TcpHeader, Vec<u8>)>,
    /// Ranges of the stream that were in the capture: (first, past the last).
    ranges: BTreeMap<u32, u32>,
    /// From this offset on nothing is known.
    pub(super) unknown: Option<u32>,
    /// weir has reset the connection, or the client has.
    pub(super) reset: bool,
    /// The client has finished.
    pub(super) finished: bool,
    /// weir waits for an acknowledgement.
    must_answer: bool,
    /// Segments that had to be sent again.
    pub(super) again: u64,
}

impl ClientSide {
    /// weir has answered the SYN.
    pub(super) fn is_open(&self) -> bool {
        self.next.is_some()
    }

    /// A SYN of the capture's as it is sent here.
    pub(super) fn syn(&mut self, header: &TcpHeader) -> TcpHeader {
        self.isn = header.sequence_number;
        let mut header = header.clone();
        header.acknowledgment_number = 0;
        let options = header.options_iterator().flatten();
        let options: Vec<TcpOptionElement> =
            options.filter(|option| !matches!(option, TcpOptionElement::Noop)).collect();
        // What does not fit is left out, which no set of these four is.
        let _ = header.set_options(&options);
        header
    }

    /// A SYN for a capture that begins behind it.
    pub(super) fn made_up_syn(&mut self, first: &TcpHeader) -> TcpHeader {
        let mut header = TcpHeader::new(0, 0, first.sequence_number.wrapping_sub(1), first.window_size);
        header.syn = true;
        let mut options = vec![
            TcpOptionElement::MaximumSegmentSize(1460),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::WindowScale(7),
        ];
        if let Some(value) = timestamp(first) {
            options.push(TcpOptionElement::Timestamp(value.0.wrapping_sub(1), 0));
        }
        let _ = header.set_options(&options);
        self.isn = header.sequence_number;
        self.made_up = true;
        header
    }

    /// A segment of weir's.
    pub(super) fn hear(&mut self, header: &TcpHeader, payload: &[u8]) {
        if header.rst {
            self.reset = true;
            return;
        }
        if let Some((value, _)) = timestamp(header) {
            self.timestamp = Some(value);
        }
        if header.syn {
            self.next.get_or_insert(header.sequence_number.wrapping_add(1));
            let mss = header.options_iterator().flatten().find_map(|option| match option {
                TcpOptionElement::MaximumSegmentSize(mss) => Some(usize::from(mss)),
                _ => None,
            });
            self.mss = mss.unwrap_or(DEFAULT_MSS);
            self.must_answer = self.made_up;
            return;
        }
        if header.ack {
            let acknowledged = self.offset(header.acknowledgment_number);
            if acknowledged > self.acknowledged && acknowledged < u32::MAX / 2 {
                self.acknowledged = acknowledged;
                self.owed = self.owed.split_off(&acknowledged);
            }
        }
        let length = payload.len() as u32 + u32::from(header.fin);
        if length > 0 {
            self.must_answer = true;
            if self.next == Some(header.sequence_number) {
                self.next = Some(header.sequence_number.wrapping_add(length));
            }
        }
    }

    /// The offset of a sequence number in the client's stream.
    fn offset(&self, seq: u32) -> u32 {
        seq.wrapping_sub(self.isn.wrapping_add(1))
    }

    /// The segments to send for one of the capture's: those that weir can take in, and with what weir has said here
    /// acknowledged.
    pub(super) fn segments(
        &mut self,
        header: &TcpHeader,
        payload: &[u8],
        length: usize,
    ) -> Vec<(TcpHeader, Vec<u8>)> {
        if let Some((value, _)) = timestamp(header) {
            self.own_timestamp = value;
        }
        let offset = self.offset(header.sequence_number);
        if length > 0 && offset < u32::MAX / 2 {
            self.cover(offset, offset.wrapping_add(payload.len() as u32));
            if payload.len() < length {
                let from = offset.wrapping_add(payload.len() as u32);
                self.unknown = Some(self.unknown.map_or(from, |unknown| unknown.min(from)));
            }
        }
        if self.unknown.is_some_and(|unknown| offset > unknown && offset < u32::MAX / 2) {
            return Vec::new();
        }
        let whole = payload.len() == length;
        // The MSS is about payload and options together (RFC 6691).
        let options = if self.timestamp.is_some() { TIMESTAMPS } else { 0 };
        let step = self.mss.saturating_sub(options).max(1);
        let count = payload.len().div_ceil(step).max(1);
        let mut made = Vec::new();
        for (index, chunk) in payload.chunks(step).chain(payload.is_empty().then_some(payload)).enumerate() {
            let last = index + 1 == count;
            let mut part = self.adapted(header);
            part.sequence_number = header.sequence_number.wrapping_add((index * step) as u32);
            part.fin = header.fin && last && whole;
            part.psh = header.psh && last;
            if !chunk.is_empty() || part.fin {
                let place = offset.wrapping_add((index * step) as u32);
                if self.owed.len() < KEPT {
                    self.owed.insert(place, (part.clone(), chunk.to_vec()));
                }
            }
            self.finished |= part.fin;
            made.push((part, chunk.to_vec()));
        }
        self.reset |= header.rst;
        self.must_answer = false;
        made
    }

    /// The capture's header with what it says about the other side made anew.
    fn adapted(&self, header: &TcpHeader) -> TcpHeader {
        let mut header = header.clone();
        header.acknowledgment_number = if header.ack { self.next.unwrap_or(0) } else { 0 };
        let options: Vec<TcpOptionElement> = self.timestamps().into_iter().collect();
        let _ = header.set_options(&options);
        header
    }

    fn timestamps(&self) -> Option<TcpOptionElement> {
        self.timestamp.map(|echo| TcpOptionElement::Timestamp(self.own_timestamp, echo))
    }

    /// An acknowledgement, if weir waits for one.
    pub(super) fn answer(&mut self) -> Option<TcpHeader> {
        if !std::mem::take(&mut self.must_answer) || self.reset {
            return None;
        }
        self.made_up = false;
        let mut header = TcpHeader::new(0, 0, self.said(), u16::MAX);
        header.ack = true;
        Some(self.adapted(&header))
    }

    /// The sequence number behind all that the client has said without a gap.
    fn said(&self) -> u32 {
        let mut end = 0;
        for (first, past) in &self.ranges {
            if *first <= end {
                end = end.max(*past);
            }
        }
        let end = end.max(self.acknowledged);
        self.isn.wrapping_add(1).wrapping_add(end)
    }

    /// The first segment that weir has not acknowledged, to be sent again.
    pub(super) fn resend(&mut self) -> Option<(TcpHeader, Vec<u8>)> {
        if self.reset {
            return None;
        }
        let (header, payload) = self.owed.first_key_value().map(|(_, segment)| segment.clone())?;
        self.again += 1;
        Some((self.adapted(&header), payload))
    }

    /// FIN where what is known ends, for a flow whose end is unknown.
    pub(super) fn fin(&mut self) -> TcpHeader {
        let mut header = TcpHeader::new(0, 0, self.said(), u16::MAX);
        header.ack = true;
        header.fin = true;
        self.finished = true;
        self.adapted(&header)
    }

    fn cover(&mut self, first: u32, past: u32) {
        if past > first {
            match self.ranges.range_mut(..=first).next_back().filter(|(_, end)| **end >= first) {
                Some((_, end)) => *end = (*end).max(past),
                None => {
                    self.ranges.insert(first, past);
                }
            }
        }
    }

    /// Gaps of the stream that no packet of the capture fills, as far as it is known: (first, past the last).
    pub(super) fn gaps(&self) -> Vec<(u32, u32)> {
        let mut end = 0;
        let mut gaps = Vec::new();
        for (first, past) in &self.ranges {
            if self.unknown.is_some_and(|unknown| *first > unknown) {
                break;
            }
            if *first > end {
                gaps.push((end, *first));
            }
            end = end.max(*past);
        }
        gaps
    }
}

/// TSval and TSecr of a segment.
fn timestamp(header: &TcpHeader) -> Option<(u32, u32)> {
    header.options_iterator().flatten().find_map(|option| match option {
        TcpOptionElement::Timestamp(value, echo) => Some((value, echo)),
        _ => None,
    })
}
