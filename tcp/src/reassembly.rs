//! Bytes of a stream put in order (RFC 9293, 3.10.7.4, seventh step).

use smoltcp::storage::Assembler;

/// More than 32 separate ranges are waiting for the bytes between them; the data was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many holes in the received data")]
pub struct TooManyHoles;

/// So many ranges fit in the SACK option of a segment without other options.
const REPORTED: usize = 4;

/// Largest buffer that is kept for the stream of another connection.
const REUSED: usize = 2048;

/// A bounded buffer that takes segments of a stream in any order and gives the bytes from the first one on.
///
/// Where segments overlap, the copy that came first stays: bytes that somebody may have looked at never change. The
/// buffer starts empty and grows with the data; the list of ranges (512 bytes) exists only while there is a hole.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// The contiguous bytes, then what lies beyond the first hole, holes included.
    bytes: Vec<u8>,
    contiguous: usize,
    /// Ranges beyond the first hole, relative to the end of the contiguous bytes.
    beyond: Option<Box<Beyond>>,
}

#[derive(Debug)]
struct Beyond {
    ranges: Assembler,
    /// Where data began that came last, the latest first: each in another range, as long as no ranges grow together.
    latest: [usize; REPORTED],
}

impl Reassembly {
    /// Takes `data` that stands at `offset` of the stream. What lies at or beyond `limit` is left out. Returns the number
    /// of bytes by which the contiguous part grew.
    ///
    /// # Errors
    /// [`TooManyHoles`]; nothing was taken.
    pub fn insert(&mut self, offset: usize, data: &[u8], limit: usize) -> Result<usize, TooManyHoles> {
        let end = offset.saturating_add(data.len()).min(limit);
        let start = offset.max(self.contiguous);
        let Some(fresh) = data.get(start.saturating_sub(offset)..end.saturating_sub(offset)) else {
            return Ok(0);
        };
        if fresh.is_empty() {
            return Ok(0);
        }
        match self.beyond.take() {
            None if start == self.contiguous => {
                self.reserve(end, limit);
                self.bytes.extend_from_slice(fresh);
                self.contiguous = end;
                Ok(fresh.len())
            }
            beyond => {
                let fresh_list = || Box::new(Beyond { ranges: Assembler::new(), latest: [0; REPORTED] });
                self.insert_between(start, fresh, limit, beyond.unwrap_or_else(fresh_list))
            }
        }
    }

    fn insert_between(
        &mut self,
        start: usize,
        fresh: &[u8],
        limit: usize,
        mut beyond: Box<Beyond>,
    ) -> Result<usize, TooManyHoles> {
        let base = self.contiguous;
        let (end, before) = (start + fresh.len(), self.bytes.len());
        if before < end {
            self.reserve(end, limit);
            self.bytes.resize(end, 0);
        }
        let ranges = &mut beyond.ranges;
        let mut from = start;
        for (left, right) in ranges.iter_data().map(|(left, right)| (base + left, base + right)) {
            copy(&mut self.bytes, start, fresh, from, left.min(end));
            from = from.max(right);
        }
        copy(&mut self.bytes, start, fresh, from, end);
        let added = ranges.add(start - base, fresh.len());
        if added.is_err() {
            // What is left of it in holes is written over; behind them nothing may be left.
            self.bytes.truncate(before);
        }
        let grown = ranges.remove_front();
        self.contiguous += grown;
        if !ranges.is_empty() {
            beyond.note(base + grown, start);
            self.beyond = Some(beyond);
        }
        added.map(|()| grown).map_err(|_| TooManyHoles)
    }

    /// Puts `bytes` in the place of the first `count` bytes, as far as they are contiguous. All offsets move along.
    pub fn replace_front(&mut self, count: usize, bytes: &[u8]) {
        let count = count.min(self.contiguous);
        self.bytes.reserve_exact(bytes.len().saturating_sub(count));
        self.bytes.splice(..count, bytes.iter().copied());
        self.contiguous = self.contiguous - count + bytes.len();
        if let Some(beyond) = &mut self.beyond {
            for at in &mut beyond.latest {
                *at = at.saturating_sub(count) + bytes.len();
            }
        }
    }

    /// Nothing has come yet; the buffer goes on to be used if it is not larger than that.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > REUSED {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.contiguous = 0;
        self.beyond = None;
    }

    /// Room for `needed` bytes in all: at least doubling, but never more than `limit`.
    fn reserve(&mut self, needed: usize, limit: usize) {
        if needed > self.bytes.capacity() {
            let target = needed.max(self.bytes.capacity().saturating_mul(2).min(limit));
            self.bytes.reserve_exact(target.saturating_sub(self.bytes.len()));
        }
    }

    /// All bytes from the first one to the first hole.
    #[must_use]
    #[inline]
    pub fn contiguous(&self) -> &[u8] {
        self.bytes.get(..self.contiguous).unwrap_or_default()
    }

    /// True while data beyond a hole is waiting.
    #[must_use]
    #[inline]
    pub fn has_holes(&self) -> bool {
        self.beyond.is_some()
    }

    /// The waiting ranges as offsets of the stream: those that changed last first, the latest at the front, then the others
    /// (RFC 2018, 4).
    pub fn waiting(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let base = self.contiguous;
        self.beyond.iter().flat_map(move |beyond| {
            (0..=REPORTED)
                .flat_map(move |rank| beyond.all(base).filter(move |range| beyond.rank(range) == rank))
        })
    }

    /// Forgets what waits beyond the first hole.
    pub fn forget_waiting(&mut self) {
        self.beyond = None;
        self.bytes.truncate(self.contiguous);
    }
}

impl Beyond {
    /// The ranges as offsets of the stream, whose first `base` bytes are contiguous.
    fn all(&self, base: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.ranges.iter_data().map(move |(left, right)| (base + left, base + right))
    }

    /// How many ranges changed later, at most [`REPORTED`].
    fn rank(&self, range: &(usize, usize)) -> usize {
        self.latest.iter().position(|at| (range.0..range.1).contains(at)).unwrap_or(REPORTED)
    }

    /// The range with the byte at `start`, if it still waits, is now the one that changed last.
    fn note(&mut self, base: usize, start: usize) {
        let Some(range) = self.all(base).find(|range| (range.0..range.1).contains(&start)) else { return };
        let place = self.rank(&range).min(REPORTED - 1);
        if let Some(later) = self.latest.get_mut(..=place) {
            later.rotate_right(1);
        }
        self.latest[0] = start;
    }
}

/// Copies the part `from..to` of `fresh`, which stands at `start`, to its place.
fn copy(bytes: &mut [u8], start: usize, fresh: &[u8], from: usize, to: usize) {
    let part = (from < to).then(|| fresh.get(from - start..to - start)).flatten();
    if let (Some(part), Some(place)) = (part, bytes.get_mut(from..to)) {
        place.copy_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Found by the fuzz target: what was refused stood behind everything else, and became part of the stream later.
    #[test]
    fn what_was_refused_leaves_nothing_behind() {
        let mut bytes = Reassembly::default();
        for hole in 0..32 {
            bytes.insert(2 * hole + 1, b"a", 1000).unwrap();
        }
        assert_eq!(bytes.insert(100, b"refused", 1000), Err(TooManyHoles));
        bytes.insert(0, &[b'b'; 64], 1000).unwrap();
        assert_eq!((bytes.contiguous().len(), bytes.has_holes()), (64, false));
        bytes.insert(64, &[b'c'; 60], 1000).unwrap();
        assert_eq!(bytes.contiguous()[64..], [b'c'; 60]);
    }

    /// One cell per byte; the first write stays.
    struct Model(Vec<Option<u8>>);

    impl Model {
        fn insert(&mut self, offset: usize, data: &[u8]) {
            for (cell, byte) in self.0.iter_mut().skip(offset).zip(data) {
                cell.get_or_insert(*byte);
            }
        }

        fn contiguous(&self) -> Vec<u8> {
            self.0.iter().map_while(|cell| *cell).collect()
        }

        fn ranges(&self) -> Vec<(usize, usize)> {
            let mut ranges: Vec<(usize, usize)> = Vec::new();
            for at in self.contiguous().len()..self.0.len() {
                match ranges.last_mut() {
                    _ if self.0[at].is_none() => {}
                    Some(range) if range.1 == at => range.1 += 1,
                    _ => ranges.push((at, at + 1)),
                }
            }
            ranges
        }
    }

    proptest! {
        #![proptest_config(crate::seeded(256))]

        #[test]
        fn same_as_the_model(
            limit in 1usize..300,
            inserts in proptest::collection::vec((0usize..320, proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
        ) {
            let mut model = Model(vec![None; limit]);
            let mut reassembly = Reassembly::default();
            for (offset, data) in inserts {
                let before = reassembly.contiguous().len();
                match reassembly.insert(offset, &data, limit) {
                    Ok(grown) => {
                        model.insert(offset, &data);
                        prop_assert_eq!(reassembly.contiguous().len(), before + grown);
                    }
                    Err(TooManyHoles) => prop_assert!(model.ranges().len() >= 32),
                }
                let contiguous = model.contiguous();
                prop_assert_eq!(reassembly.contiguous(), contiguous.as_slice());
                let mut waiting: Vec<_> = reassembly.waiting().collect();
                if offset > before && offset < limit && !data.is_empty() && !waiting.is_empty() {
                    let first = waiting[0];
                    prop_assert!(first.0 <= offset && offset < first.1 || reassembly.contiguous().len() > offset);
                }
                waiting.sort_unstable();
                prop_assert_eq!(&waiting, &model.ranges());
                prop_assert_eq!(reassembly.has_holes(), !waiting.is_empty());
                prop_assert!(reassembly.bytes.capacity() <= limit);
            }
        }
    }

    #[test]
    fn the_33rd_hole_is_refused_and_the_data_before_is_kept() {
        let mut reassembly = Reassembly::default();
        for n in 1..=32 {
            assert_eq!(reassembly.insert(n * 2 + 1, b"x", 1000), Ok(0));
        }
        assert_eq!(reassembly.insert(100, b"y", 1000), Err(TooManyHoles));
        assert_eq!(reassembly.waiting().count(), 32);
        assert_eq!(reassembly.insert(0, b"abcd", 1000), Ok(4));
        assert_eq!(reassembly.insert(100, b"y", 1000), Ok(0));
        assert_eq!(reassembly.contiguous(), b"abcx");
    }

    #[test]
    fn ranges_are_told_in_the_order_in_which_they_changed_last() {
        let mut reassembly = Reassembly::default();
        let told = |reassembly: &Reassembly| reassembly.waiting().map(|range| range.0).collect::<Vec<_>>();
        for at in [50, 10, 30, 20, 40] {
            reassembly.insert(at, b"x", 100).unwrap();
        }
        assert_eq!(told(&reassembly), [40, 20, 30, 10, 50]);
        reassembly.insert(11, b"x", 100).unwrap();
        assert_eq!(told(&reassembly), [10, 40, 20, 30, 50]);
        reassembly.insert(0, &[b'x'; 10], 100).unwrap();
        assert_eq!(told(&reassembly), [40, 20, 30, 50]);
    }

    proptest! {
        #![proptest_config(crate::seeded(256))]

        /// Whatever stands at the front, and however often it changes, what follows it is the same.
        #[test]
        fn a_front_may_be_replaced(
            inserts in proptest::collection::vec((0usize..60, proptest::collection::vec(any::<u8>(), 1..20)), 1..20),
            fronts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 1..5),
            after in 0usize..20,
        ) {
            let (mut plain, mut fronted) = (Reassembly::default(), Reassembly::default());
            let mut front: Vec<u8> = Vec::new();
            let mut fronts = fronts.into_iter();
            for (step, (offset, data)) in inserts.into_iter().enumerate() {
                if step >= after && let Some(next) = fronts.next() {
                    fronted.replace_front(front.len(), &next);
                    front = next;
                }
                let grown = plain.insert(offset, &data, 80);
                prop_assert_eq!(fronted.insert(front.len() + offset, &data, front.len() + 80), grown);
                prop_assert_eq!(fronted.contiguous(), [&front, plain.contiguous()].concat());
                let moved: Vec<_> = plain.waiting().map(|(l, r)| (l + front.len(), r + front.len())).collect();
                prop_assert_eq!(fronted.waiting().collect::<Vec<_>>(), moved);
            }
        }
    }

    #[test]
    fn no_more_than_what_is_contiguous_is_replaced() {
        let mut reassembly = Reassembly::default();
        reassembly.insert(0, b"abc", 100).unwrap();
        reassembly.insert(5, b"fg", 100).unwrap();
        reassembly.replace_front(9, b"");
        assert_eq!((reassembly.contiguous(), reassembly.waiting().next()), (&b""[..], Some((2, 4))));
        reassembly.insert(0, b"de", 100).unwrap();
        assert_eq!(reassembly.contiguous(), b"defg");
    }

    #[test]
    fn forgetting_keeps_the_contiguous_bytes() {
        let mut reassembly = Reassembly::default();
        reassembly.insert(0, b"abc", 100).unwrap();
        reassembly.insert(5, b"fg", 100).unwrap();
        reassembly.forget_waiting();
        assert!(!reassembly.has_holes());
        assert_eq!(reassembly.insert(3, b"de", 100), Ok(2));
        assert_eq!(reassembly.contiguous(), b"abcde");
    }
}
