//! Ports whose wire is a ring in memory.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{RING_F_SC_DEQ, RING_F_SP_ENQ, SOCKET_ID_ANY, rte_ring};

use crate::eal::c_string;
use crate::{Eal, Error, Port};

/// The two directions of a pair; freed when both ports are closed.
pub(crate) struct Rings {
    rings: [NonNull<rte_ring>; 2],
    /// The virtual devices that the driver makes for the ports, which closing leaves behind.
    devices: [CString; 2],
}

// SAFETY: nothing but dropping uses the pointers, and rings may be freed on any thread.
unsafe impl Send for Rings {}
// SAFETY: as above.
unsafe impl Sync for Rings {}

impl Drop for Rings {
    fn drop(&mut self) {
        for device in &self.devices {
            // SAFETY: EAL is initialised: the ports keep it, and the field that keeps this comes first.
            unsafe { dpdk_sys::rte_eal_hotplug_remove(c"vdev".as_ptr(), device.as_ptr()) };
        }
        for ring in self.rings {
            // SAFETY: both ports, which alone put buffers in and take them out, are closed. The buffers in the ring belong
            // to nobody else; their pools live, since these buffers are out. The ring is freed once.
            unsafe {
                dpdk_sys::weir_ring_drain(ring.as_ptr());
                dpdk_sys::rte_ring_free(ring.as_ptr());
            }
        }
    }
}

/// Two crossed ports in this process: what one sends, the other receives, without a copy and without the kernel. Tests
/// and benchmarks put a traffic generator on one and weir on the other.
///
/// `name` is unique in the process and at most 20 bytes long; `slots`, a power of two, is how many frames (less one)
/// fit into each direction. A direction that is full takes no more, as a device's queue does.
///
/// # Errors
/// [`Error::Call`] when the name is in use, `slots` is not a power of two or the memory is not there.
pub fn ring_pair(eal: &Eal, name: &str, slots: u32) -> Result<(Port, Port), Error> {
    let names = [format!("{name}_a"), format!("{name}_b")];
    let [first, second] = &names;
    let forward = create(first, slots)?;
    let backward = create(second, slots).inspect_err(|_| {
        // SAFETY: the ring has just been made and nobody has it.
        unsafe { dpdk_sys::rte_ring_free(forward.as_ptr()) }
    })?;
    let devices = [c_string(&format!("net_ring_{first}"))?, c_string(&format!("net_ring_{second}"))?];
    let rings = Arc::new(Rings { rings: [forward, backward], devices });
    let a = port(eal, first, backward, forward)?.with_rings(Arc::clone(&rings));
    let b = port(eal, second, forward, backward)?.with_rings(rings);
    Ok((a, b))
}

fn create(name: &str, slots: u32) -> Result<NonNull<rte_ring>, Error> {
    let name_c = c_string(name)?;
    // SAFETY: EAL is initialised (the only caller has it); the name is copied. One producer and one consumer: the two
    // ports are on one thread.
    let ring = unsafe {
        dpdk_sys::rte_ring_create(name_c.as_ptr(), slots, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ)
    };
    NonNull::new(ring).ok_or_else(|| Error::last("rte_ring_create", name))
}

/// A port that receives from one ring and sends into the other.
fn port(eal: &Eal, name: &str, rx: NonNull<rte_ring>, tx: NonNull<rte_ring>) -> Result<Port, Error> {
    let name_c = c_string(name)?;
    let (rx, tx) = ([rx.as_ptr()], [tx.as_ptr()]);
    // SAFETY: EAL is initialised; the arrays hold one ring each and are copied; the rings live until the port, which keeps
    // them, is closed.
    let id = unsafe { dpdk_sys::rte_eth_from_rings(name_c.as_ptr(), rx.as_ptr(), 1, tx.as_ptr(), 1, 0) };
    let id = u16::try_from(id).map_err(|_| Error::last("rte_eth_from_rings", name))?;
    eal.port_by_id(id, name)
}
