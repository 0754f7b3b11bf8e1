//! Fixed-length tables in memory that is mapped, zeroed and touched before the first packet arrives.
//!
//! A random access into a table of many megabytes costs a walk of the page tables besides the miss in the cache.
//! Huge pages make the walk shorter, touching every page at start keeps page faults off the packet path, and
//! [`Arena::prefetch`] lets a burst fetch all its entries at once.
//!
//! [`matches`] finds the place of a number in a cache line's half.
//!
//! The crate knows nothing of packets and nothing of DPDK, so that whoever uses it builds and tests without them.

mod mapping;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use mapping::Mapping;
use zerocopy::FromZeros;

/// Bytes that the processor fetches at a time.
const CACHE_LINE: usize = 64;

/// What kind of pages an [`Arena`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Pages of 2 MiB out of the pool that the operator reserved (`vm.nr_hugepages`).
    Huge,
    /// Ordinary memory for which the kernel was asked to use transparent huge pages. Whether it could depends on how
    /// fragmented the memory is.
    Transparent,
    /// Pages of the machine's base size: tables smaller than one huge page, or no huge pages of any kind.
    Plain,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backing::Huge => "huge pages",
            Backing::Transparent => "transparent huge pages",
            Backing::Plain => "plain pages",
        })
    }
}

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The table would not fit into the address space.
    #[error("a table of {len} entries of {entry} bytes is larger than the address space")]
    TooLarge {
        /// Entries asked for.
        len: usize,
        /// Bytes of one entry.
        entry: usize,
    },
    /// The entry type wants an alignment that a page does not have.
    #[error("an entry aligned to {align} bytes cannot be placed at the start of a page")]
    Alignment {
        /// The alignment of the entry type, bytes.
        align: usize,
    },
    /// The kernel refused the memory.
    #[error("cannot map {bytes} bytes: {source}")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A slice of fixed length, all zero at first, whose pages are all present from the start unless it is made
/// [untouched](Arena::untouched).
///
/// It dereferences to `[T]`. It never grows and never moves; dropping it drops the entries and gives the memory back.
pub struct Arena<T> {
    mapping: Mapping,
    len: usize,
    entries: PhantomData<T>,
}

// SAFETY: an arena owns its mapping alone, as a `Box<[T]>` owns its allocation, so it may go wherever its `T` may go.
unsafe impl<T: Send> Send for Arena<T> {}
// SAFETY: `&Arena<T>` gives out nothing but `&[T]`.
unsafe impl<T: Sync> Sync for Arena<T> {}

impl<T: FromZeros> Arena<T> {
    /// Maps and touches a table of `len` zeroed entries; the best pages that can be had.
    ///
    /// Costs milliseconds to hundreds of milliseconds for tables of gigabytes: call it before the first packet.
    ///
    /// # Errors
    /// [`ArenaError`] when the size overflows, when `T` is aligned to more than 4096 bytes, or when there is no memory.
    pub fn zeroed(len: usize) -> Result<Self, ArenaError> {
        Self::with_best(len, Backing::Huge)
    }

    /// As [`Arena::zeroed`], but without memory as long as no entry is used: for tables that most processes leave alone. The
    /// first writing to an entry costs a page fault. Ordinary pages.
    ///
    /// # Errors
    /// As [`Arena::zeroed`].
    pub fn untouched(len: usize) -> Result<Self, ArenaError> {
        Ok(Self { mapping: Mapping::untouched(Self::bytes(len)?)?, len, entries: PhantomData })
    }

    /// As [`Arena::zeroed`], trying nothing better than `best`.
    fn with_best(len: usize, best: Backing) -> Result<Self, ArenaError> {
        Ok(Self { mapping: Mapping::zeroed(Self::bytes(len)?, best)?, len, entries: PhantomData })
    }

    /// What so many entries take.
    fn bytes(len: usize) -> Result<usize, ArenaError> {
        let (entry, align) = (size_of::<T>(), align_of::<T>());
        if align > mapping::ALIGN {
            return Err(ArenaError::Alignment { align });
        }
        let bytes = entry.checked_mul(len).filter(|&bytes| isize::try_from(bytes).is_ok());
        bytes.ok_or(ArenaError::TooLarge { len, entry })
    }
}

impl<T> Arena<T> {
    /// What kind of pages the table is on.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.mapping.backing()
    }

    /// Asks the processor to bring the first cache line of an entry near. Never blocks and never faults; an index past
    /// the end does nothing, and so does every index on processors other than x86.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if let Some(entry) = self.deref().get(index) {
            prefetch_line(std::ptr::from_ref(entry).cast());
        }
    }

    /// As [`Arena::prefetch`], but all cache lines that the entry touches.
    #[inline]
    pub fn prefetch_whole(&self, index: usize) {
        if let Some(entry) = self.deref().get(index) {
            let start = std::ptr::from_ref(entry).cast::<i8>();
            // A constant for types that are aligned to cache lines.
            let into_line = if align_of::<T>() < CACHE_LINE { start.addr() % CACHE_LINE } else { 0 };
            for offset in (0..into_line + size_of::<T>()).step_by(CACHE_LINE) {
                prefetch_line(start.wrapping_add(offset));
            }
        }
    }

    /// As [`Arena::prefetch`], but the cache line in which the byte at `offset` of the entry is.
    #[inline]
    pub fn prefetch_at(&self, index: usize, offset: usize) {
        if let Some(entry) = self.deref().get(index) {
            prefetch_line(std::ptr::from_ref(entry).cast::<i8>().wrapping_add(offset));
        }
    }

    fn first(&self) -> NonNull<T> {
        self.mapping.start().cast()
    }
}

/// Where `wanted` is among the numbers: bit n is set for number n. Without a branch.
#[cfg(target_arch = "x86_64")]
#[inline]
#[must_use]
pub fn matches(numbers: &[u32; 8], wanted: u32) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32,
        _mm_set1_epi32, _mm_setzero_si128,
    };
    let (low, high) = numbers.split_at(4);
    // SAFETY: SSE2, which all of these belong to, is part of the x86-64 baseline; each half is four numbers, which are 16
    // bytes to read, and a load that need not be aligned.
    unsafe {
        let wanted = _mm_set1_epi32(wanted as i32);
        let low = _mm_cmpeq_epi32(_mm_loadu_si128(low.as_ptr().cast()), wanted);
        let high = _mm_cmpeq_epi32(_mm_loadu_si128(high.as_ptr().cast()), wanted);
        // From 32 bits per number to 16 and to 8, all ones or all zeros.
        let bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
        _mm_movemask_epi8(bytes) as u32
    }
}

/// Where `wanted` is among the numbers: bit n is set for number n.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
#[must_use]
pub fn matches(numbers: &[u32; 8], wanted: u32) -> u32 {
    numbers.iter().zip(0..).fold(0, |mask, (&number, n)| mask | u32::from(number == wanted) << n)
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: PREFETCHT0 is a hint that reads nothing into a register and cannot fault, at whatever address;
    // SSE, which it belongs to, is part of the x86-64 baseline.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_address: *const i8) {}

impl<T> Deref for Arena<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len * size_of::<T>()` bytes (or nothing, and then the pointer is dangling but
        // aligned), aligned for T, zeroed when it was made, which T: FromZeros (the only constructors ask for it) makes
        // `len` valid values; it lives as long as self, and writes need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.first().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Arena<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.first().as_ptr(), self.len) }
    }
}

impl<T> Drop for Arena<T> {
    fn drop(&mut self) {
        // SAFETY: the slice is valid (see `deref_mut`) and nobody sees its entries after this: the mapping goes next.
        unsafe { std::ptr::drop_in_place(std::ptr::from_mut(self.deref_mut())) }
    }
}

impl<T> fmt::Debug for Arena<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.len).field("backing", &self.backing()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(zerocopy::FromZeros)]
    #[repr(C, align(64))]
    struct Line([u64; 8]);

    const KINDS: [Backing; 3] = [Backing::Huge, Backing::Transparent, Backing::Plain];
    /// Three huge pages and a bit.
    const LARGE: usize = 3 * (2 << 20) / 64 + 5;

    fn resident_bytes(arena: &Arena<Line>) -> usize {
        let page = mapping::ALIGN;
        let bytes = std::mem::size_of_val(&**arena).next_multiple_of(page);
        let mut states = vec![0u8; bytes / page];
        // SAFETY: the range belongs to the arena's mapping, which is a multiple of the page size long, and `states` has
        // a byte for each of its pages.
        let result = unsafe { libc::mincore(arena.as_ptr().cast_mut().cast(), bytes, states.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        states.iter().filter(|&&state| state & 1 == 1).count() * page
    }

    #[test]
    fn every_kind_is_zeroed_present_and_writable_to_the_end() {
        for best in KINDS {
            let mut arena = Arena::<Line>::with_best(LARGE, best).unwrap();
            assert_eq!(arena.len(), LARGE);
            assert!(arena.iter().all(|line| line.0 == [0; 8]), "{best}");
            assert!(resident_bytes(&arena) >= LARGE * 64, "{best}: pages are missing");
            for (index, line) in arena.iter_mut().enumerate() {
                line.0[7] = index as u64;
            }
            assert!(arena.iter().enumerate().all(|(index, line)| line.0[7] == index as u64), "{best}");
        }
    }

    #[test]
    fn an_untouched_table_takes_memory_where_it_is_written_to() {
        let mut arena = Arena::<Line>::untouched(LARGE).unwrap();
        assert_eq!((arena.len(), arena.backing(), resident_bytes(&arena)), (LARGE, Backing::Plain, 0));
        let mut written = LARGE / 2;
        arena[written].0 = [9; 8];
        let page = mapping::ALIGN;
        let resident = resident_bytes(&arena);
        // One page, or a huge one where the kernel gives them to everybody.
        assert!(resident >= page && resident <= 2 << 20, "{resident}");
        assert!(
            arena.iter().enumerate().all(|(index, line)| line.0 == [if index == written { 9 } else { 0 }; 8])
        );
        written = LARGE - 1;
        arena[written].0 = [9; 8];
        assert_eq!(arena[written].0, [9; 8]);
        assert!(Arena::<Line>::untouched(0).unwrap().is_empty());
        assert!(matches!(Arena::<Line>::untouched(usize::MAX / 2), Err(ArenaError::TooLarge { .. })));
    }

    #[test]
    fn never_better_than_allowed() {
        assert_eq!(Arena::<Line>::with_best(LARGE, Backing::Plain).unwrap().backing(), Backing::Plain);
        assert_ne!(Arena::<Line>::with_best(LARGE, Backing::Transparent).unwrap().backing(), Backing::Huge);
    }

    #[test]
    fn falls_back_when_the_huge_page_pool_is_too_small() {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let number =
            |text: &str| text.split_whitespace().find_map(|word| word.parse::<usize>().ok()).unwrap();
        let meminfo = read("/proc/meminfo");
        let reserved = meminfo.lines().find(|line| line.starts_with("HugePages_Total")).map_or(0, number);
        let extra = number(&read("/proc/sys/vm/nr_overcommit_hugepages"));
        // One huge page more than the pool could ever give.
        let bytes = (reserved + extra + 1) * (2 << 20);
        assert!(mapping::Mapping::huge(bytes).is_err());
        // With a pool of many gigabytes the first assertion is enough: the fallback would touch as much again.
        if bytes <= 1 << 30 {
            let arena = Arena::<Line>::zeroed(bytes / 64).unwrap();
            assert_ne!(arena.backing(), Backing::Huge);
            assert_eq!(arena.len(), bytes / 64);
        }
    }

    #[test]
    fn small_tables_do_not_take_a_huge_page() {
        let arena = Arena::<u64>::zeroed(3).unwrap();
        assert_eq!(arena.backing(), Backing::Plain);
        assert_eq!(&*arena, &[0, 0, 0]);
    }

    #[test]
    fn nothing_is_a_table_too() {
        let mut arena = Arena::<Line>::zeroed(0).unwrap();
        assert!(arena.is_empty());
        arena.prefetch(0);
        assert_eq!(arena.iter_mut().count(), 0);
        assert_eq!(Arena::<()>::zeroed(7).unwrap().len(), 7);
    }

    #[test]
    fn prefetch_takes_any_index() {
        let arena = Arena::<Line>::zeroed(4).unwrap();
        for index in [0, 3, 4, usize::MAX] {
            arena.prefetch(index);
            arena.prefetch_whole(index);
            arena.prefetch_at(index, 1 << 20);
        }
        assert!(arena.iter().all(|line| line.0 == [0; 8]));
    }

    #[test]
    fn numbers_are_found_wherever_they_are() {
        let numbers = [7, 0, u32::MAX, 7, 1 << 31, 0x1_0000, 7, 0x7fff_ffff];
        for (wanted, mask) in [
            (7, 0b0100_1001),
            (0, 2),
            (u32::MAX, 4),
            (1 << 31, 16),
            (0x1_0000, 32),
            (0x7fff_ffff, 128),
            (1, 0),
        ] {
            assert_eq!(matches(&numbers, wanted), mask, "{wanted:#x}");
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(matches!(Arena::<Line>::zeroed(usize::MAX / 2), Err(ArenaError::TooLarge { entry: 64, .. })));
        assert!(matches!(Arena::<u8>::zeroed(isize::MAX as usize), Err(ArenaError::Map { .. })));
        #[derive(zerocopy::FromZeros)]
        #[repr(C, align(8192))]
        struct Wide([u8; 8192]);
        assert!(matches!(Arena::<Wide>::zeroed(1), Err(ArenaError::Alignment { align: 8192 })));
    }

    #[test]
    fn goes_to_another_thread_and_drops_its_entries() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        #[derive(zerocopy::FromZeros)]
        struct Counted(u32);
        impl Drop for Counted {
            fn drop(&mut self) {
                DROPPED.fetch_add(usize::from(self.0 == 0), Ordering::Relaxed);
            }
        }
        let arena = Arena::<Counted>::zeroed(9).unwrap();
        std::thread::spawn(move || drop(arena)).join().unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 9);
    }
}
