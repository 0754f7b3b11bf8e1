//! One datagram that is not complete.

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::blocks::{BLOCK, Blocks, NONE, spans};
use super::header::Fragment;
use super::linear::ROOM;
use crate::address::FlowKey;
use crate::counters::DropReason;

/// Most fragments of one datagram: the largest one in 64 pieces, or 35 KB over links of 576 bytes.
pub const MOST_PIECES: usize = 64;
/// Blocks of the largest datagram.
const MOST_BLOCKS: usize = ROOM.div_ceil(BLOCK);
/// Longest IPv4 header.
pub(super) const MOST_HEADER: usize = 60;

/// Bytes of the payload that have come with one fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u16,
    end: u16,
}

/// What is there of one datagram, with its places in the lists of [`super::Reassembly`].
pub(super) struct Datagram {
    pub(super) key: FlowKey,
    /// When its first fragment came.
    pub(super) since: Instant,
    /// The header of the fragment with offset 0; empty until that has come.
    pub(super) header: ArrayVec<u8, MOST_HEADER>,
    /// In the order of their places; they do not overlap.
    pieces: ArrayVec<Piece, MOST_PIECES>,
    blocks: [u32; MOST_BLOCKS],
    /// Bytes of payload, once the last fragment has come.
    total: Option<u16>,
    received: u32,
    /// The ECN codepoints that were seen, a bit each.
    ecn: u8,
    /// It is given up, and so are the fragments that are still to come (RFC 5722, 4).
    refused: Option<DropReason>,
    /// The next one in its bucket, or in the list of free ones.
    pub(super) next: u32,
    pub(super) older: u32,
    pub(super) newer: u32,
}

/// What a fragment is to its datagram.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// It belongs at this place among the pieces.
    New(usize),
    /// It has come before.
    Repeat,
    /// It contradicts what has come before.
    Overlap,
}

impl Datagram {
    pub(super) fn empty() -> Self {
        Datagram {
            key: FlowKey::default(),
            since: Instant::ZERO,
            header: ArrayVec::new(),
            pieces: ArrayVec::new(),
            blocks: [NONE; MOST_BLOCKS],
            total: None,
            received: 0,
            ecn: 0,
            refused: None,
            next: NONE,
            older: NONE,
            newer: NONE,
        }
    }

    /// Begins a datagram in a record whose blocks have been given back.
    pub(super) fn begin(&mut self, key: FlowKey, since: Instant) {
        (self.key, self.since) = (key, since);
        self.header.clear();
        self.pieces.clear();
        (self.total, self.received, self.ecn, self.refused) = (None, 0, 0, None);
    }

    /// Gives all blocks back.
    pub(super) fn release(&mut self, blocks: &mut Blocks) {
        for block in &mut self.blocks {
            blocks.give(std::mem::replace(block, NONE));
        }
    }

    /// Gives the datagram up; its record stays, so that what still comes is given up as well.
    fn refuse(&mut self, reason: DropReason, blocks: &mut Blocks) -> DropReason {
        self.release(blocks);
        self.refused = Some(reason);
        reason
    }

    /// True if it was given up.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Where the fragment belongs. A contradiction ends the datagram.
    pub(super) fn place(
        &mut self,
        fragment: &Fragment<'_>,
        blocks: &mut Blocks,
    ) -> Result<usize, DropReason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        match self.fit(fragment, blocks) {
            Fit::Repeat => Err(DropReason::FragmentRepeat),
            Fit::Overlap => Err(self.refuse(DropReason::FragmentOverlap, blocks)),
            Fit::New(_) if self.pieces.is_full() => Err(self.refuse(DropReason::FragmentInvalid, blocks)),
            Fit::New(place) => Ok(place),
        }
    }

    fn fit(&self, fragment: &Fragment<'_>, blocks: &Blocks) -> Fit {
        let (start, end) = (fragment.offset, fragment.end());
        let total = self.total.map(usize::from);
        let furthest = self.pieces.last().map_or(0, |piece| usize::from(piece.end));
        let contradicts = match (fragment.more, total) {
            (true, Some(total)) => end >= total,
            (false, Some(total)) => end != total,
            (false, None) => furthest >= end,
            (true, None) => false,
        };
        if contradicts {
            return Fit::Overlap;
        }
        let place = self.pieces.partition_point(|piece| usize::from(piece.start) < start);
        let before = place.checked_sub(1).and_then(|place| self.pieces.get(place));
        let after = self.pieces.get(place);
        if after.is_some_and(|piece| (usize::from(piece.start), usize::from(piece.end)) == (start, end)) {
            return if self.holds(fragment, blocks) { Fit::Repeat } else { Fit::Overlap };
        }
        let overlaps = before.is_some_and(|piece| usize::from(piece.end) > start)
            || after.is_some_and(|piece| usize::from(piece.start) < end);
        if overlaps { Fit::Overlap } else { Fit::New(place) }
    }

    /// True if the bytes of the fragment are those that are there.
    fn holds(&self, fragment: &Fragment<'_>, blocks: &Blocks) -> bool {
        spans(fragment.offset..fragment.end()).all(|(number, inside, of_fragment)| {
            let block = self.blocks.get(number).copied().unwrap_or(NONE);
            fragment.payload.get(of_fragment) == Some(blocks.bytes(block, inside))
        })
    }

    /// Blocks that the fragment needs and that are not there yet.
    pub(super) fn missing(&self, fragment: &Fragment<'_>) -> usize {
        let absent = |number: &usize| self.blocks.get(*number).is_none_or(|block| *block == NONE);
        spans(fragment.offset..fragment.end()).map(|(number, ..)| number).filter(absent).count()
    }

    /// Takes the fragment in at the place that [`Datagram::place`] gave. True if the datagram is complete.
    pub(super) fn store(&mut self, place: usize, fragment: &Fragment<'_>, blocks: &mut Blocks) -> bool {
        for (number, inside, of_fragment) in spans(fragment.offset..fragment.end()) {
            let Some(block) = self.blocks.get_mut(number) else { return false };
            if *block == NONE {
                *block = blocks.take().unwrap_or(NONE);
            }
            let to = blocks.bytes_mut(*block, inside);
            to.iter_mut().zip(fragment.payload.get(of_fragment).unwrap_or_default()).for_each(
                |(to, from)| {
                    *to = *from;
                },
            );
        }
        // Offsets and ends are below 65,536: `Fragment::check`.
        let piece = Piece { start: fragment.offset as u16, end: fragment.end() as u16 };
        let _ = self.pieces.try_insert(place, piece);
        self.received += u32::from(piece.end - piece.start);
        if !fragment.more {
            self.total = Some(piece.end);
        }
        if fragment.offset == 0 {
            self.header = fragment.header.iter().copied().take(MOST_HEADER).collect();
        }
        self.ecn |= 1 << (fragment.header.get(1).copied().unwrap_or(0) & 3);
        // Pieces do not overlap, so that many bytes are all there are.
        self.total.is_some_and(|total| u32::from(total) == self.received)
    }

    /// Bytes of payload of a complete datagram.
    pub(super) fn len(&self) -> usize {
        usize::from(self.total.unwrap_or(0))
    }

    /// Bytes of payload from the start on that came with the first fragment.
    pub(super) fn first_len(&self) -> usize {
        self.pieces.first().filter(|piece| piece.start == 0).map_or(0, |piece| usize::from(piece.end))
    }

    /// Writes the first bytes of the payload.
    pub(super) fn copy_to(&self, to: &mut [u8], blocks: &Blocks) {
        for (number, inside, range) in spans(0..to.len()) {
            let block = self.blocks.get(number).copied().unwrap_or(NONE);
            let from = blocks.bytes(block, inside);
            if let Some(to) = to.get_mut(range).filter(|to| to.len() == from.len()) {
                to.copy_from_slice(from);
            }
        }
    }

    /// The ECN bits of the whole. `None`: one router has marked a fragment, and the sender of another one did not take
    /// part, so that the whole is to be dropped (RFC 3168, 5.3).
    pub(super) fn ecn(&self, first: u8) -> Option<u8> {
        const NOT_ECT: u8 = 1;
        const CE: u8 = 1 << 3;
        match self.ecn & (NOT_ECT | CE) {
            both if both == NOT_ECT | CE => None,
            CE => Some(3),
            _ => Some(first & 3),
        }
    }
}
