//! Pools of packet buffers.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_mempool;

use crate::eal::{Core, c_string};
use crate::{Eal, Error, Mbuf};

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Buffers in the pool. All receive and transmit descriptors of all ports, and some bursts, have to be covered; a
    /// power of two minus one is the most economical.
    pub mbufs: u32,
    /// Buffers that the lcore keeps at hand; less than two thirds of `mbufs`, and at most 512.
    pub cache: u32,
    /// The largest frame that a buffer holds, bytes, without FCS. DPDK's headroom comes on top.
    pub frame: u16,
}

impl Default for MempoolConfig {
    /// 16,383 buffers of 2,048 bytes, about 38 MiB; a cache of 256.
    fn default() -> Self {
        Self { mbufs: 16_383, cache: 256, frame: 2048 }
    }
}

/// A pool of packet buffers; a clone is a second handle on the same pool.
///
/// The pool is freed when no handle and no port that receives into it is left. Buffers that somebody still owns then
/// stay valid: the pool, and EAL, are kept for the rest of the life of the process.
#[derive(Clone)]
pub struct Mempool {
    pool: Arc<Pool>,
}

struct Pool {
    raw: NonNull<rte_mempool>,
    frame: u16,
    eal: Arc<Core>,
}

// SAFETY: DPDK's pools are made for several threads at once: each lcore has a cache of its own, and the common part is a
// ring for several producers and consumers.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Mempool {
    /// Makes a pool. `name` is unique in the process and at most 25 bytes long.
    ///
    /// # Errors
    /// [`Error::Call`] when the name is in use or the memory is not there.
    pub fn new(eal: &Eal, name: &str, config: &MempoolConfig) -> Result<Self, Error> {
        const CALL: &str = "rte_pktmbuf_pool_create";
        let c_name = c_string(name)?;
        let refuse = |reason: &str| {
            let (subject, reason) = (name.to_owned(), reason.to_owned());
            Error::Call { call: CALL, subject, reason }
        };
        // DPDK's ring computes its size in 32 bits, and a wrapped size makes it write outside.
        if config.mbufs >= dpdk_sys::RTE_RING_SZ_MASK {
            return Err(refuse("too many buffers"));
        }
        let too_large = || refuse("frame too large");
        let headroom = u16::try_from(dpdk_sys::RTE_PKTMBUF_HEADROOM).map_err(|_| too_large())?;
        let room = config.frame.checked_add(headroom).ok_or_else(too_large)?;
        let (mbufs, cache, anywhere) = (config.mbufs, config.cache, dpdk_sys::SOCKET_ID_ANY);
        // SAFETY: EAL is initialised (`eal`); the name is copied; the number of
        // buffers is within what a ring can hold, and DPDK checks the others.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), mbufs, cache, 0, room, c_int::from(anywhere))
        };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last(CALL, name))?;
        Ok(Self { pool: Arc::new(Pool { raw, frame: config.frame, eal: Arc::clone(eal.core()) }) })
    }

    /// An empty frame, or `None` when the pool is.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives; it uses the cache of the calling lcore, or none on other threads.
        let mbuf = NonNull::new(unsafe { dpdk_sys::weir_mbuf_alloc(self.raw()) })?;
        // SAFETY: a fresh mbuf of one segment, which nobody else owns.
        Some(unsafe { Mbuf::from_raw(mbuf) })
    }

    /// Buffers that are in the pool now.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw()) }
    }

    /// Buffers that devices or the program hold now.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.pool.in_use()
    }

    /// The largest frame that a buffer holds, bytes.
    #[must_use]
    pub fn frame(&self) -> u16 {
        self.pool.frame
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.pool.raw.as_ptr()
    }
}

impl Pool {
    fn in_use(&self) -> u32 {
        // SAFETY: the pool lives.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Never less than what is out: without a handle nobody takes buffers any more, and one that is being given back is
        // still counted or back.
        if self.in_use() > 0 {
            self.eal.keep_forever();
            return;
        }
        // SAFETY: no handle is left and every buffer is back, so nothing refers to the pool any more.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
    }
}
