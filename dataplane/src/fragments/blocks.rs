//! Memory for the payload of datagrams that are not complete.

use std::ops::Range;

/// Bytes of a block.
pub(super) const BLOCK: usize = 2048;
/// Names no block.
pub(super) const NONE: u32 = u32::MAX;

/// Blocks of [`BLOCK`] bytes, all made at the start.
pub(super) struct Blocks {
    memory: Box<[u8]>,
    free: Vec<u32>,
}

impl Blocks {
    pub(super) fn new(count: u32) -> Self {
        let memory = vec![0; count as usize * BLOCK].into_boxed_slice();
        Blocks { memory, free: (0..count).rev().collect() }
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes back what [`Blocks::take`] gave; [`NONE`] is nothing.
    pub(super) fn give(&mut self, block: u32) {
        if block != NONE {
            self.free.push(block);
        }
    }

    pub(super) fn bytes(&self, block: u32, range: Range<usize>) -> &[u8] {
        let start = (block as usize).saturating_mul(BLOCK);
        self.memory.get(start..).and_then(|memory| memory.get(range)).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self, block: u32, range: Range<usize>) -> &mut [u8] {
        let start = (block as usize).saturating_mul(BLOCK);
        self.memory.get_mut(start..).and_then(|memory| memory.get_mut(range)).unwrap_or_default()
    }
}

/// What a range of a datagram's payload is made of: the number of the block, the range in it, the range in `range`.
pub(super) fn spans(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let (start, end) = (range.start, range.end);
    let blocks = if range.is_empty() { 0..0 } else { start / BLOCK..end.div_ceil(BLOCK) };
    blocks.map(move |block| {
        let first = block * BLOCK;
        let (from, to) = (start.max(first), end.min(first + BLOCK));
        (block, from - first..to - first, from - start..to - start)
    })
}
