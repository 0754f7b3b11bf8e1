//! `rte_eth_rx_burst` and `rte_eth_tx_burst`, which DPDK has only inline, over the table that ethdev exports for them.
//!
//! As in C, callbacks that were added to a queue (packet capture does that) are called.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::{rte_eth_call_rx_callbacks, rte_eth_call_tx_callbacks, rte_eth_fp_ops, rte_mbuf};

/// Receives up to `count` packets into `packets`; how many there were. The caller owns them.
///
/// # Safety
/// `port` is a started port, `queue` one of its receive queues, which no other thread uses now, and `packets` has room
/// for `count` pointers.
#[inline]
pub unsafe fn rx_burst(port: u16, queue: u16, packets: *mut *mut rte_mbuf, count: u16) -> u16 {
    // SAFETY: a started port is an index into the table, and ethdev has filled its entry: the receive function, and for
    // each configured queue an element of `data` and of `clbk`. Nobody writes them while the port is started, but
    // `clbk`, whose elements C writes atomically.
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let Some(receive) = (*ops).rx_pkt_burst else { return 0 };
        let received = receive(*(*ops).rxq.data.add(usize::from(queue)), packets, count);
        let callback = first_callback((*ops).rxq.clbk.add(usize::from(queue)));
        if callback.is_null() {
            return received;
        }
        rte_eth_call_rx_callbacks(port, queue, packets, received, count, callback)
    }
}

/// Hands up to `count` packets to the device; how many it took, from the front. Those belong to the device now, the
/// others stay the caller's.
///
/// # Safety
/// `port` is a started port, `queue` one of its transmit queues, which no other thread uses now, and `packets` holds
/// `count` pointers to packets that the caller owns.
#[inline]
pub unsafe fn tx_burst(port: u16, queue: u16, packets: *mut *mut rte_mbuf, count: u16) -> u16 {
    // SAFETY: as in `rx_burst`, with the transmit half of the entry.
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let Some(send) = (*ops).tx_pkt_burst else { return 0 };
        let callback = first_callback((*ops).txq.clbk.add(usize::from(queue)));
        let count = if callback.is_null() {
            count
        } else {
            rte_eth_call_tx_callbacks(port, queue, packets, count, callback)
        };
        send(*(*ops).txq.data.add(usize::from(queue)), packets, count)
    }
}

/// # Safety
/// `slot` points to an element of a queue's callback array.
#[inline]
unsafe fn first_callback(slot: *mut *mut c_void) -> *mut c_void {
    // SAFETY: the element is an aligned pointer that lives as long as the port, and C only writes it atomically. Relaxed
    // is what DPDK uses: what the callback points to is reached through this very load.
    unsafe { AtomicPtr::from_ptr(slot) }.load(Ordering::Relaxed)
}
