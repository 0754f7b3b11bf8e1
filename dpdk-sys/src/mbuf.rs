//! The fields of `struct rte_mbuf`, at the places where the C compiler put them (see `shim/shim.h`).

use crate::rte_mbuf;

macro_rules! getters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $offset:ident;)*) => { $(
        $(#[doc = $doc])+
        ///
        /// # Safety
        /// `mbuf` points to an mbuf that the caller may read.
        #[inline]
        #[must_use]
        pub unsafe fn $name(mbuf: *const rte_mbuf) -> $type {
            // SAFETY: the field is within the mbuf; `shim.c` asserts that it is as wide as its type here.
            unsafe { mbuf.byte_add(crate::$offset as usize).cast::<$type>().read() }
        }
    )* };
}

macro_rules! setters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $offset:ident;)*) => { $(
        $(#[doc = $doc])+
        ///
        /// # Safety
        /// `mbuf` points to an mbuf that the caller owns.
        #[inline]
        pub unsafe fn $name(mbuf: *mut rte_mbuf, value: $type) {
            // SAFETY: the field is within the mbuf; `shim.c` asserts that it is as wide as its type here.
            unsafe { mbuf.byte_add(crate::$offset as usize).cast::<$type>().write(value) }
        }
    )* };
}

getters! {
    /// Start of the buffer.
    buf_addr: *mut u8 = WEIR_MBUF_BUF_ADDR;
    /// Bytes of the buffer, headroom included.
    buf_len: u16 = WEIR_MBUF_BUF_LEN;
    /// Bytes of headroom: where in the buffer the data begins.
    data_off: u16 = WEIR_MBUF_DATA_OFF;
    /// Bytes of data in this segment.
    data_len: u16 = WEIR_MBUF_DATA_LEN;
    /// Bytes of data in all segments of the packet.
    pkt_len: u32 = WEIR_MBUF_PKT_LEN;
    /// Number of segments of the packet.
    nb_segs: u16 = WEIR_MBUF_NB_SEGS;
}

setters! {
    /// Sets the bytes of data in this segment.
    set_data_len: u16 = WEIR_MBUF_DATA_LEN;
    /// Sets the bytes of data in all segments of the packet.
    set_pkt_len: u32 = WEIR_MBUF_PKT_LEN;
}
