//! Bursts to and from DPDK ports.

use std::sync::Arc;

use dataplane::io::{BURST, Burst, PacketIo, PortId, PortStats, SHORT_BURST};
use dpdk_sys::rte_mbuf;

use crate::{Error, Mbuf, Mempool, Port};

/// The DPDK side of one worker: one queue pair on each port, and a pool for frames of its own making.
///
/// [`PortId`] is the place in the list of ports. When the last worker's is dropped, the ports are closed.
pub struct DpdkIo {
    ports: Vec<Queues>,
    pool: Mempool,
    /// The largest burst: no more than half of what each port has room for, which would have to take all of it at once; a short
    /// one at most once a port has not taken a whole one.
    most: usize,
}

/// A queue pair of a port. There is one of them for each number, and whoever has it is the only one to use it.
struct Queues {
    port: Arc<Port>,
    queue: u16,
    /// The port has a receive queue of this number.
    receives: bool,
}

impl DpdkIo {
    /// Takes started ports, for one worker.
    ///
    /// # Errors
    /// [`Error::State`] when one of them is not started.
    pub fn new(ports: Vec<Port>, pool: Mempool) -> Result<Self, Error> {
        let mut all = Self::split(ports, pool, 1)?;
        Ok(all.remove(0))
    }

    /// Takes started ports and gives each of so many workers (at least one) a queue pair of each.
    ///
    /// # Errors
    /// [`Error::State`] when a port is not started, [`Error::Queues`] when it was configured with fewer queues.
    pub fn split(ports: Vec<Port>, pool: Mempool, workers: u16) -> Result<Vec<Self>, Error> {
        ports.iter().try_for_each(Port::require_started)?;
        let workers = workers.max(1);
        for port in &ports {
            if port.tx_queues() < workers {
                let (port, max) = (port.device().to_owned(), port.tx_queues());
                return Err(Error::Queues { port, wanted: workers, max });
            }
        }
        let fewest = ports.iter().map(Port::tx_descriptors).min();
        let most = fewest.map_or(BURST, |descriptors| usize::from(descriptors) / 2).clamp(1, BURST);
        let ports: Vec<Arc<Port>> = ports.into_iter().map(Arc::new).collect();
        let queues = |port: &Arc<Port>, queue| Queues {
            port: Arc::clone(port),
            queue,
            receives: queue < port.rx_queues(),
        };
        let worker = |queue| DpdkIo {
            ports: ports.iter().map(|port| queues(port, queue)).collect(),
            pool: pool.clone(),
            most,
        };
        Ok((0..workers).map(worker).collect())
    }

    /// A port, to look at.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port.index()).map(|queues| &*queues.port)
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// The ports that no other worker has, to stop or close them.
    #[must_use]
    pub fn into_ports(self) -> Vec<Port> {
        self.ports.into_iter().filter_map(|queues| Arc::into_inner(queues.port)).collect()
    }
}

impl PacketIo for DpdkIo {
    type Buf = Mbuf;

    fn ports(&self) -> usize {
        self.ports.len()
    }

    #[inline]
    fn most(&self) -> usize {
        self.most
    }

    #[inline]
    fn rx_up_to(&mut self, most: usize, port: PortId, burst: &mut Burst<Mbuf>) {
        let Some(queues) = self.ports.get(port.index()).filter(|queues| queues.receives) else { return };
        let held = burst.len();
        // BURST fits: a burst is never longer.
        let room = most.min(self.most).saturating_sub(held) as u16;
        // SAFETY: an Mbuf is one pointer to an mbuf; `held` is within the capacity of the burst, and `room` is what is left
        // of it. The port is started (`split` saw that, and it is not stopped while it is shared), the queue exists
        // (`receives`), and `&mut self` is the only way to it. The driver writes `received` pointers to packets that are ours
        // from now on.
        unsafe {
            let free = burst.as_mut_ptr().add(held).cast::<*mut rte_mbuf>();
            let received = dpdk_sys::rx_burst(queues.port.id(), queues.queue, free, room);
            burst.set_len(held + usize::from(received.min(room)));
        }
        if burst.iter().skip(held).any(|mbuf| !mbuf.is_contiguous()) {
            let before = burst.len();
            burst.retain(|mbuf| mbuf.is_contiguous());
            queues.port.count_chained(before - burst.len());
        }
    }

    #[inline]
    fn tx_burst(&mut self, port: PortId, burst: &mut Burst<Mbuf>) {
        let Some(queues) = self.ports.get(port.index()) else { return };
        let count = burst.len();
        // SAFETY: as for receiving; the first `count` pointers are packets of ours. Those that the driver took, from the
        // front, are no longer: they leave the burst without being dropped, and the rest moves to the front.
        unsafe {
            let packets = burst.as_mut_ptr();
            let sent = dpdk_sys::tx_burst(queues.port.id(), queues.queue, packets.cast(), count as u16);
            let sent = usize::from(sent).min(count);
            if sent < count {
                // Some drivers have fewer descriptors than they say.
                self.most = self.most.min(SHORT_BURST);
            }
            std::ptr::copy(packets.add(sent), packets, count - sent);
            burst.set_len(count - sent);
        }
    }

    #[inline]
    fn alloc(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    fn link(&self, port: PortId) -> Option<bool> {
        self.port(port)?.link().ok().map(|link| link.up)
    }

    fn port_stats(&self, port: PortId) -> PortStats {
        self.port(port).map_or_else(PortStats::default, Port::stats)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::ptr::null_mut;

    use dataplane::io::PacketBuf;

    use super::*;
    /// The only queue pair.
    const QUEUE: u16 = 0;
    use crate::{Eal, EalArguments, EalOptions, MempoolConfig, PortConfig, ring_pair};

    const A: PortId = PortId(0);
    const B: PortId = PortId(1);

    fn crossed() -> DpdkIo {
        let eal =
            Eal::init(&EalArguments::new(&EalOptions { memory_mib: 32, ..EalOptions::default() })).unwrap();
        let pool =
            Mempool::new(&eal, "frames", &MempoolConfig { mbufs: 255, cache: 32, frame: 2048 }).unwrap();
        let (a, b) = ring_pair(&eal, "wire", 64).unwrap();
        let started = |mut port: Port| {
            port.configure(&PortConfig::default(), &pool).unwrap();
            port.start().unwrap();
            port
        };
        DpdkIo::new(vec![started(a), started(b)], pool.clone()).unwrap()
    }

    fn frames(io: &mut DpdkIo, numbers: std::ops::Range<u8>) -> Burst<Mbuf> {
        let one = |number| {
            let mut mbuf = io.alloc().unwrap();
            assert!(mbuf.set_len(60));
            mbuf.bytes_mut().fill(number);
            mbuf
        };
        numbers.map(one).collect()
    }

    fn numbers(burst: &Burst<Mbuf>) -> Vec<u8> {
        burst.iter().map(|mbuf| mbuf.bytes()[0]).collect()
    }

    #[test]
    fn frames_in_several_pieces_are_dropped_and_counted() {
        let mut io = crossed();
        let mut burst = frames(&mut io, 0..4);
        let tail = std::mem::ManuallyDrop::new(io.alloc().unwrap());
        // SAFETY: both are owned here; the tail belongs to the second frame from now on.
        assert_eq!(unsafe { dpdk_sys::weir_mbuf_chain(burst[1].raw(), tail.raw()) }, 0);
        assert_eq!(io.pool().in_use(), 5);
        io.tx_burst(A, &mut burst);
        let mut received = frames(&mut io, 9..10);
        io.rx_burst(B, &mut received);
        assert_eq!(numbers(&received), [9, 0, 2, 3]);
        assert_eq!(io.pool().in_use(), 4, "both pieces are back");
        let stats = io.port_stats(B);
        assert_eq!((stats.rx_packets, stats.rx_errors, stats.rx_missed), (3, 1, 0));
        assert_eq!(io.port_stats(A).rx_errors, 0);
    }

    /// A callback that keeps only the first packet.
    unsafe extern "C" fn first_received(
        _port: u16,
        _queue: u16,
        packets: *mut *mut rte_mbuf,
        count: u16,
        _room: u16,
        calls: *mut c_void,
    ) -> u16 {
        // SAFETY: the arguments of `first_sent` are the same but for the room.
        unsafe { first_sent(_port, _queue, packets, count, calls) }
    }

    unsafe extern "C" fn first_sent(
        _port: u16,
        _queue: u16,
        packets: *mut *mut rte_mbuf,
        count: u16,
        calls: *mut c_void,
    ) -> u16 {
        // SAFETY: `calls` is the u32 of the test, and `packets` holds `count` packets, of which all but the first are
        // given back here.
        unsafe {
            *calls.cast::<u32>() += 1;
            for index in 1..usize::from(count) {
                dpdk_sys::weir_mbuf_free(*packets.add(index));
            }
        }
        count.min(1)
    }

    #[test]
    fn callbacks_on_the_queues_are_called() {
        let mut io = crossed();
        let (a, b) = (io.port(A).unwrap().id(), io.port(B).unwrap().id());
        let (mut sent, mut received) = (0u32, 0u32);
        // SAFETY: queue 0 of the port exists, and the number outlives the callback, which is removed below.
        let callback = unsafe {
            dpdk_sys::rte_eth_add_rx_callback(b, QUEUE, Some(first_received), (&raw mut received).cast())
        };
        assert_ne!(callback, null_mut());
        let mut burst = frames(&mut io, 0..5);
        io.tx_burst(A, &mut burst);
        let mut got = Burst::new();
        io.rx_burst(B, &mut got);
        assert_eq!((numbers(&got), received), (vec![0], 1));
        // SAFETY: the callback was added above.
        assert_eq!(unsafe { dpdk_sys::rte_eth_remove_rx_callback(b, QUEUE, callback) }, 0);

        // SAFETY: as above.
        let callback =
            unsafe { dpdk_sys::rte_eth_add_tx_callback(a, QUEUE, Some(first_sent), (&raw mut sent).cast()) };
        assert_ne!(callback, null_mut());
        let mut burst = frames(&mut io, 5..6);
        io.tx_burst(A, &mut burst);
        assert!(burst.is_empty());
        // SAFETY: as above.
        assert_eq!(unsafe { dpdk_sys::rte_eth_remove_tx_callback(a, QUEUE, callback) }, 0);
        let mut burst = frames(&mut io, 6..9);
        io.tx_burst(A, &mut burst);
        got.clear();
        io.rx_burst(B, &mut got);
        assert_eq!((numbers(&got), sent, received), (vec![5, 6, 7, 8], 1, 1));
        drop(got);
        assert_eq!(io.pool().in_use(), 0);
    }
}
