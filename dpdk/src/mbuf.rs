//! One packet buffer.

use std::ptr::NonNull;

use dataplane::io::PacketBuf;
use dpdk_sys::{mbuf, rte_mbuf};

/// A frame in a DPDK buffer of one segment, owned: not `Clone`, and dropping it gives the buffer back to its pool.
///
/// Sending hands it to the device, see [`crate::DpdkIo`]. It is one pointer wide.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<rte_mbuf>,
}

// SAFETY: the only owner of the buffer; pools take it back on any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `raw` is an mbuf of one segment with a reference count of 1 whose pool lives, and the caller gives it up.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self { raw }
    }

    /// Whether the frame is in one piece. Only receiving sees others, before it hands them out.
    #[inline]
    pub(crate) fn is_contiguous(&self) -> bool {
        // SAFETY: `self` owns the mbuf.
        unsafe { mbuf::nb_segs(self.raw.as_ptr()) == 1 }
    }

    /// Bytes that the frame could be extended by.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        let raw = self.raw.as_ptr();
        // SAFETY: `self` owns the mbuf.
        let (buffer, front, len) = unsafe { (mbuf::buf_len(raw), mbuf::data_off(raw), mbuf::data_len(raw)) };
        usize::from(buffer).saturating_sub(usize::from(front)).saturating_sub(usize::from(len))
    }

    #[cfg(test)]
    pub(crate) fn raw(&self) -> *mut rte_mbuf {
        self.raw.as_ptr()
    }

    /// Where the frame begins, and its length.
    #[inline]
    fn span(&self) -> (*mut u8, usize) {
        let raw = self.raw.as_ptr();
        // SAFETY: `self` owns the mbuf, and `data_off` lies within the buffer.
        unsafe {
            (mbuf::buf_addr(raw).add(usize::from(mbuf::data_off(raw))), usize::from(mbuf::data_len(raw)))
        }
    }
}

impl PacketBuf for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let (start, len) = self.span();
        // SAFETY: `data_off + data_len` is within the buffer, which is mapped memory that was zero at first and is written
        // by nobody but the owner of the mbuf; it lives until the mbuf is freed.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = self.span();
        // SAFETY: as in `bytes`; `&mut self` makes it the only borrow.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        let room = self.span().1 + self.tailroom();
        let Ok(short) = u16::try_from(len) else { return false };
        if len > room {
            return false;
        }
        // SAFETY: `self` owns the mbuf; the new length ends within the buffer, and is that of the packet too, since it
        // has one segment.
        unsafe {
            mbuf::set_data_len(self.raw.as_ptr(), short);
            mbuf::set_pkt_len(self.raw.as_ptr(), u32::from(short));
        }
        true
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` owns the mbuf, whose pool lives as long as one of its buffers is out.
        unsafe { dpdk_sys::weir_mbuf_free(self.raw.as_ptr()) }
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.span().1).field("tailroom", &self.tailroom()).finish()
    }
}
