//! The in-memory twin of the DPDK ports, for tests, replays and fuzzers.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::io::{Burst, PacketBuf, PacketIo, PortId, PortStats};

/// Bytes in a buffer of [`MemoryIo::new`], as in an mbuf.
pub const FRAME_BYTES: usize = 2048;

/// Buffers in the pool of [`MemoryIo::new`].
pub const POOL_FRAMES: usize = 2048;

type Pool = Arc<ArrayQueue<Box<[u8]>>>;

/// A frame in memory of a fixed size; goes back to its pool when dropped.
pub struct VecBuf {
    memory: Box<[u8]>,
    len: usize,
    pool: Pool,
}

impl PacketBuf for VecBuf {
    fn bytes(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }

    fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.memory.len();
        if fits {
            self.len = len;
        }
        fits
    }
}

impl Drop for VecBuf {
    fn drop(&mut self) {
        // The pool has a place for every buffer that came out of it, so this cannot fail.
        let _ = self.pool.push(std::mem::take(&mut self.memory));
    }
}

impl std::fmt::Debug for VecBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VecBuf").field(&self.bytes()).finish()
    }
}

/// What was refused on purpose or for lack of buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Times that a frame was left in a burst because the transmit queue had no room. A frame offered twice is
    /// counted twice.
    pub tx_refused: u64,
    /// Calls of [`PacketIo::alloc`] that got nothing.
    pub alloc_refused: u64,
}

#[derive(Default)]
struct Queues {
    received: VecDeque<VecBuf>,
    sent: VecDeque<VecBuf>,
    tx_room: Option<usize>,
    stats: PortStats,
}

/// Ports that are two queues each: what a test [`inject`](MemoryIo::inject)s is received, what is sent can be
/// [taken](MemoryIo::take_sent).
///
/// All buffers come from one pool that is made at the start, as with DPDK: receiving and sending allocate nothing,
/// an empty pool is a missed frame or a failed `alloc`, and a buffer that was lost is missing in
/// [`MemoryIo::buffers_free`].
pub struct MemoryIo {
    pool: Pool,
    ports: Vec<Queues>,
    alloc_room: Option<usize>,
    faults: Faults,
}

impl MemoryIo {
    /// `ports` ports and a pool of [`POOL_FRAMES`] buffers of [`FRAME_BYTES`] bytes.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self::with_pool(ports, POOL_FRAMES, FRAME_BYTES)
    }

    /// `ports` ports and a pool of `frames` buffers (at least 1) of `frame_bytes` bytes.
    #[must_use]
    pub fn with_pool(ports: usize, frames: usize, frame_bytes: usize) -> Self {
        let frames = frames.max(1);
        let pool = Arc::new(ArrayQueue::new(frames));
        for _ in 0..frames {
            let _ = pool.push(vec![0; frame_bytes].into_boxed_slice());
        }
        let queues = || Queues {
            received: VecDeque::with_capacity(frames),
            sent: VecDeque::with_capacity(frames),
            ..Queues::default()
        };
        MemoryIo {
            pool,
            ports: std::iter::repeat_with(queues).take(ports).collect(),
            alloc_room: None,
            faults: Faults::default(),
        }
    }

    /// Lets a port receive a copy of `frame`. `false`, and the frame is counted as missed, if the pool is empty or its
    /// buffers are too small; `false` also if there is no such port.
    pub fn inject(&mut self, port: PortId, frame: &[u8]) -> bool {
        let buf = take(&self.pool).and_then(|buf| filled(buf, frame));
        let Some(queues) = self.ports.get_mut(port.index()) else { return false };
        match buf {
            Some(buf) => {
                queues.received.push_back(buf);
                true
            }
            None => {
                queues.stats.rx_missed += 1;
                false
            }
        }
    }

    /// Frames injected and not yet received.
    #[must_use]
    pub fn pending(&self, port: PortId) -> usize {
        self.ports.get(port.index()).map_or(0, |queues| queues.received.len())
    }

    /// Copies of the frames that were sent since the last call, in their order; their buffers go back to the pool.
    pub fn take_sent(&mut self, port: PortId) -> Vec<Vec<u8>> {
        let Some(queues) = self.ports.get_mut(port.index()) else { return Vec::new() };
        queues.sent.drain(..).map(|buf| buf.bytes().to_vec()).collect()
    }

    /// Calls `see` with each frame that was sent since the last call, in their order; nothing is allocated.
    pub fn drain_sent(&mut self, port: PortId, mut see: impl FnMut(&[u8])) {
        let Some(queues) = self.ports.get_mut(port.index()) else { return };
        for buf in queues.sent.drain(..) {
            see(buf.bytes());
        }
    }

    /// From now on the transmit queue of a port takes that many more frames and then none; `None`: no limit.
    pub fn set_tx_room(&mut self, port: PortId, frames: Option<usize>) {
        if let Some(queues) = self.ports.get_mut(port.index()) {
            queues.tx_room = frames;
        }
    }

    /// From now on that many more calls of `alloc` may succeed and then none; `None`: as long as there are buffers.
    pub fn set_alloc_room(&mut self, frames: Option<usize>) {
        self.alloc_room = frames;
    }

    /// What was refused so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Buffers in the pool now. All that are not in a queue or in somebody's hands are here.
    #[must_use]
    pub fn buffers_free(&self) -> usize {
        self.pool.len()
    }
}

impl PacketIo for MemoryIo {
    type Buf = VecBuf;

    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn rx_up_to(&mut self, most: usize, port: PortId, burst: &mut Burst<VecBuf>) {
        let Some(queues) = self.ports.get_mut(port.index()) else { return };
        let count = most.min(burst.capacity()).saturating_sub(burst.len()).min(queues.received.len());
        burst.extend(queues.received.drain(..count));
        queues.stats.rx_packets += count as u64;
    }

    fn tx_burst(&mut self, port: PortId, burst: &mut Burst<VecBuf>) {
        let Some(queues) = self.ports.get_mut(port.index()) else { return };
        let count = burst.len().min(queues.tx_room.unwrap_or(usize::MAX));
        queues.tx_room = queues.tx_room.map(|room| room.saturating_sub(count));
        queues.sent.extend(burst.drain(..count));
        queues.stats.tx_packets += count as u64;
        self.faults.tx_refused += burst.len() as u64;
    }

    fn alloc(&mut self) -> Option<VecBuf> {
        let buf = match self.alloc_room {
            Some(0) => None,
            _ => take(&self.pool),
        };
        match buf {
            Some(_) => self.alloc_room = self.alloc_room.map(|room| room.saturating_sub(1)),
            None => self.faults.alloc_refused += 1,
        }
        buf
    }

    fn port_stats(&self, port: PortId) -> PortStats {
        self.ports.get(port.index()).map_or_else(PortStats::default, |queues| queues.stats)
    }
}

/// An empty frame.
fn take(pool: &Pool) -> Option<VecBuf> {
    let memory = pool.pop()?;
    Some(VecBuf { memory, len: 0, pool: Arc::clone(pool) })
}

/// `buf` with the bytes of `frame`, if they fit.
fn filled(mut buf: VecBuf, frame: &[u8]) -> Option<VecBuf> {
    buf.set_len(frame.len()).then(|| {
        buf.bytes_mut().copy_from_slice(frame);
        buf
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::BURST;

    const A: PortId = PortId(0);
    const B: PortId = PortId(1);

    fn receive(io: &mut MemoryIo, port: PortId) -> Burst<VecBuf> {
        let mut burst = Burst::new();
        io.rx_burst(port, &mut burst);
        burst
    }

    #[test]
    fn frames_cross_in_order_and_buffers_come_back() {
        let frames: Vec<Vec<u8>> = (0..BURST + 8).map(|i| vec![i as u8; 20 + i / 256]).collect();
        let mut io = MemoryIo::with_pool(2, frames.len(), 64);
        for frame in &frames {
            assert!(io.inject(A, frame));
        }
        assert_eq!((io.pending(A), io.buffers_free()), (BURST + 8, 0));
        let mut burst = receive(&mut io, A);
        assert_eq!((burst.len(), io.pending(A)), (BURST, 8));
        io.tx_burst(B, &mut burst);
        assert!(burst.is_empty());
        assert_eq!(io.take_sent(B), frames[..BURST]);
        assert!(io.take_sent(A).is_empty() && io.take_sent(B).is_empty());
        assert_eq!(io.buffers_free(), BURST);
        let packets = BURST as u64;
        assert_eq!(io.port_stats(A), PortStats { rx_packets: packets, ..PortStats::default() });
        assert_eq!(io.port_stats(B), PortStats { tx_packets: packets, ..PortStats::default() });
        assert_eq!(io.faults(), Faults::default());
    }

    #[test]
    fn a_burst_is_topped_up_and_never_overfilled() {
        let mut io = MemoryIo::new(1);
        io.inject(A, b"one");
        let mut burst = receive(&mut io, A);
        for _ in 0..BURST + 8 {
            io.inject(A, b"more");
        }
        io.rx_burst(A, &mut burst);
        assert_eq!((burst.len(), burst[0].bytes(), io.pending(A)), (BURST, &b"one"[..], 9));
    }

    #[test]
    fn a_full_transmit_queue_leaves_the_rest_in_the_burst() {
        let mut io = MemoryIo::new(1);
        for i in 0..5u8 {
            io.inject(A, &[i]);
        }
        let mut burst = receive(&mut io, A);
        io.set_tx_room(A, Some(3));
        io.tx_burst(A, &mut burst);
        assert_eq!(burst.iter().map(|b| b.bytes()[0]).collect::<Vec<_>>(), [3, 4]);
        io.tx_burst(A, &mut burst);
        assert_eq!((burst.len(), io.faults().tx_refused), (2, 4));
        io.set_tx_room(A, None);
        io.tx_burst(A, &mut burst);
        assert_eq!(io.take_sent(A), [[0], [1], [2], [3], [4]]);
    }

    #[test]
    fn allocation_fails_as_told_or_when_the_pool_is_empty() {
        let mut io = MemoryIo::with_pool(1, 3, 64);
        io.set_alloc_room(Some(1));
        let first = io.alloc();
        assert!(first.is_some() && io.alloc().is_none());
        io.set_alloc_room(None);
        let (second, third) = (io.alloc(), io.alloc());
        assert!(second.is_some() && third.is_some() && io.alloc().is_none());
        assert_eq!(io.faults(), Faults { tx_refused: 0, alloc_refused: 2 });
        assert!(!io.inject(A, b"x"), "no buffer is left");
        drop(second);
        assert!(io.inject(A, b"x"));
        assert!(!io.inject(A, b"x"));
        assert_eq!((io.port_stats(A).rx_missed, io.pending(A)), (2, 1));
    }

    #[test]
    fn a_frame_that_is_too_long_is_missed_and_its_buffer_kept() {
        let mut io = MemoryIo::with_pool(1, 1, 10);
        assert!(!io.inject(A, &[0; 11]));
        assert_eq!((io.buffers_free(), io.port_stats(A).rx_missed), (1, 1));
        let mut buf = io.alloc().unwrap();
        assert!(buf.bytes().is_empty() && buf.set_len(10) && !buf.set_len(11));
        assert_eq!(buf.bytes().len(), 10);
    }

    #[test]
    fn a_port_that_is_not_there_does_nothing() {
        let mut io = MemoryIo::new(1);
        assert!(!io.inject(B, b"x"));
        let mut burst = receive(&mut io, B);
        assert!(burst.is_empty());
        io.inject(A, b"x");
        io.rx_burst(A, &mut burst);
        io.tx_burst(B, &mut burst);
        assert_eq!((burst.len(), io.take_sent(B).len(), io.buffers_free()), (1, 0, POOL_FRAMES - 1));
    }
}
