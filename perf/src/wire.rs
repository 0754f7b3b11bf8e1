//! Between the end hosts and weir: two crossed DPDK ring ports, or memory.

use dataplane::io::{Burst, PacketBuf, PacketIo, PortId};
use dataplane::memory::MemoryIo;
use dataplane::worker::{Round, Worker};
use dpdk::{DpdkIo, Mbuf};
use scripting::LuaPolicy;
use smoltcp::time::Instant;

/// The only port on either side.
pub const PORT: PortId = PortId(0);

/// The other end of weir's port.
pub trait Wire {
    /// weir's end.
    type Io: PacketIo;
    /// Puts a frame on its way; `false` if there was no room. Only after [`Wire::flush`] all have arrived.
    fn send(&mut self, io: &mut Self::Io, frame: &[u8]) -> bool;
    /// Sends what is still held back; `false` if not all of it found room.
    fn flush(&mut self) -> bool;
    /// Takes all that weir has sent.
    fn collect(&mut self, io: &mut Self::Io, see: &mut dyn FnMut(&[u8]));
    /// A round of weir's.
    fn round(worker: &mut Worker<Self::Io, LuaPolicy>, now: Instant) -> Round;
}

/// [`MemoryIo`] has its own far end.
#[derive(Debug)]
pub struct Memory;

impl Wire for Memory {
    type Io = MemoryIo;

    fn send(&mut self, io: &mut MemoryIo, frame: &[u8]) -> bool {
        io.inject(PORT, frame)
    }

    fn flush(&mut self) -> bool {
        true
    }

    fn collect(&mut self, io: &mut MemoryIo, see: &mut dyn FnMut(&[u8])) {
        io.drain_sent(PORT, see);
    }

    fn round(worker: &mut Worker<MemoryIo, LuaPolicy>, now: Instant) -> Round {
        worker.run_once(now)
    }
}

/// The crossed port of weir's, on the same core and with buffers of the same pool.
pub struct Ring {
    io: DpdkIo,
    staged: Burst<Mbuf>,
}

impl Ring {
    /// Around a port of which weir has the other half.
    pub fn new(io: DpdkIo) -> Self {
        Ring { io, staged: Burst::new() }
    }
}

impl Wire for Ring {
    type Io = DpdkIo;

    fn send(&mut self, _: &mut DpdkIo, frame: &[u8]) -> bool {
        let Some(mut mbuf) = self.io.alloc().filter(|_| !self.staged.is_full()) else { return false };
        if !mbuf.set_len(frame.len()) {
            return false;
        }
        mbuf.bytes_mut().copy_from_slice(frame);
        self.staged.push(mbuf);
        !self.staged.is_full() || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.io.tx_burst(PORT, &mut self.staged);
        self.staged.is_empty()
    }

    fn collect(&mut self, _: &mut DpdkIo, see: &mut dyn FnMut(&[u8])) {
        loop {
            let mut burst = Burst::new();
            self.io.rx_burst(PORT, &mut burst);
            if burst.is_empty() {
                return;
            }
            burst.iter().for_each(|mbuf| see(mbuf.bytes()));
        }
    }

    fn round(worker: &mut engine::Worker, now: Instant) -> Round {
        engine::run_once(worker, now)
    }
}
