//! Anonymous memory from the kernel, in the best pages that there are.

use std::io;
use std::ptr::NonNull;

use crate::{ArenaError, Backing};

/// Every mapping starts at a multiple of this many bytes, and no base page is smaller.
pub(crate) const ALIGN: usize = 4096;
/// The huge page that x86-64, and arm64 with base pages of 4 KiB, have.
const HUGE_PAGE: usize = 2 << 20;

/// One range of zeroed memory; gives itself back when dropped.
pub(crate) struct Mapping {
    /// Where the usable bytes start.
    start: NonNull<u8>,
    /// What the kernel mapped, which may begin earlier; `None` when nothing had to be mapped.
    mapped: Option<(NonNull<u8>, usize)>,
    backing: Backing,
}

impl Mapping {
    /// Maps at least `bytes` bytes, all of them present. Tries `best` first and then what is left below it.
    pub(crate) fn zeroed(bytes: usize, best: Backing) -> Result<Self, ArenaError> {
        if bytes == 0 {
            return Ok(Self::nothing());
        }
        let best = if bytes < HUGE_PAGE { Backing::Plain } else { best };
        let attempt = match best {
            Backing::Huge => {
                Self::huge(bytes).or_else(|_| Self::transparent(bytes)).or_else(|_| Self::plain(bytes))
            }
            Backing::Transparent => Self::transparent(bytes).or_else(|_| Self::plain(bytes)),
            Backing::Plain => Self::plain(bytes),
        };
        attempt.map_err(|source| ArenaError::Map { bytes, source })
    }

    /// Maps at least `bytes` bytes that the kernel provides page by page, when each is first written to.
    pub(crate) fn untouched(bytes: usize) -> Result<Self, ArenaError> {
        if bytes == 0 {
            return Ok(Self::nothing());
        }
        let length = round_up(bytes, ALIGN);
        // Nobody counts on memory that is perhaps never used.
        let attempt = length.and_then(|length| Ok((map(length, libc::MAP_NORESERVE)?, length)));
        let (start, length) = attempt.map_err(|source| ArenaError::Map { bytes, source })?;
        Ok(Self { start, mapped: Some((start, length)), backing: Backing::Plain })
    }

    fn nothing() -> Self {
        let start = NonNull::without_provenance(std::num::NonZero::<usize>::MIN.saturating_add(ALIGN - 1));
        Self { start, mapped: None, backing: Backing::Plain }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn backing(&self) -> Backing {
        self.backing
    }

    pub(crate) fn huge(bytes: usize) -> io::Result<Self> {
        let length = round_up(bytes, HUGE_PAGE)?;
        let start = map(length, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB | libc::MAP_POPULATE)?;
        Ok(Self { start, mapped: Some((start, length)), backing: Backing::Huge })
    }

    fn transparent(bytes: usize) -> io::Result<Self> {
        // One huge page more, so that there is a multiple of the huge page size to start at.
        let length = round_up(bytes, HUGE_PAGE)?.checked_add(HUGE_PAGE).ok_or_else(out_of_memory)?;
        let mapped = map(length, 0)?;
        let skip = mapped.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: `skip` is less than HUGE_PAGE, and the mapping is longer than that.
        let start = unsafe { mapped.add(skip) };
        let mapping = Self { start, mapped: Some((mapped, length)), backing: Backing::Transparent };
        // SAFETY: the range lies within the mapping, which is ours; MADV_HUGEPAGE does not change its content.
        let result = unsafe { libc::madvise(start.as_ptr().cast(), length - HUGE_PAGE, libc::MADV_HUGEPAGE) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        mapping.touch(bytes);
        Ok(mapping)
    }

    fn plain(bytes: usize) -> io::Result<Self> {
        let length = round_up(bytes, ALIGN)?;
        let start = map(length, 0)?;
        let mapping = Self { start, mapped: Some((start, length)), backing: Backing::Plain };
        mapping.touch(bytes);
        Ok(mapping)
    }

    /// Writes once to every page of the first `bytes` bytes, so that the kernel provides it now and not at a packet.
    fn touch(&self, bytes: usize) {
        for offset in (0..bytes).step_by(ALIGN) {
            // SAFETY: `offset` is below `bytes`, all of which are mapped writable, and no reference to them exists yet.
            unsafe { self.start.add(offset).write_volatile(0) }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some((address, length)) = self.mapped {
            // SAFETY: exactly what mmap gave, once; the owner of the mapping has dropped all references into it.
            unsafe { libc::munmap(address.as_ptr().cast(), length) };
        }
    }
}

/// Maps `length` bytes of private anonymous memory.
fn map(length: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: with no address hint and no file, mmap makes a new range that overlaps nothing, or fails.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(out_of_memory)
}

fn round_up(bytes: usize, unit: usize) -> io::Result<usize> {
    bytes.checked_next_multiple_of(unit).ok_or_else(out_of_memory)
}

fn out_of_memory() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOMEM)
}
