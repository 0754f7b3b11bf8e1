//! Where packets come from and go to.
//!
//! [`PacketIo`] has two real implementations: the DPDK ports of the `dpdk` crate and [`crate::memory::MemoryIo`],
//! the in-memory twin that tests, replays and fuzzers use. The core never learns which one it talks to.

/// The largest number of packets that one call moves: enough that what each burst waits for memory at its begin, before there is
/// anything else to do, is a small part of it.
pub const BURST: usize = 256;

/// As many are received at once where many of the last ones took long, because they opened flows or were for scripts, so that
/// the packets of a burst do not wait too long for each other, and where workers tell each other of tables, so that they hear soon.
pub const SHORT_BURST: usize = 64;

/// A port, by its place in [`crate::snapshot::Snapshot::interfaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

impl PortId {
    /// The place in [`crate::snapshot::Snapshot::interfaces`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A port as the pipeline needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// Own MAC address.
    pub mac: [u8; 6],
    /// 802.1Q tag, `None` for untagged.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
}

/// A burst of packets on its way through the pipeline; never more than [`BURST`].
pub type Burst<B> = arrayvec::ArrayVec<B, BURST>;

/// One Ethernet frame, owned by whoever holds it; dropping it gives the memory back.
///
/// A frame is one contiguous slice. Buffers made of several segments are not handed out by any [`PacketIo`].
pub trait PacketBuf: Sized {
    /// The frame, from the destination MAC address on, without FCS.
    fn bytes(&self) -> &[u8];
    /// The frame, writable.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Cuts or extends the frame at its end to `len` bytes. Extended bytes have unspecified content.
    /// `false`, and nothing done, when the buffer has no room for that.
    fn set_len(&mut self, len: usize) -> bool;
}

/// The receive and transmit side of one worker: one queue pair on each port.
pub trait PacketIo {
    /// The buffers of this device.
    type Buf: PacketBuf;

    /// Number of ports.
    fn ports(&self) -> usize;
    /// Appends received frames to `burst`, as many as there is room for. Never blocks.
    #[inline]
    fn rx_burst(&mut self, port: PortId, burst: &mut Burst<Self::Buf>) {
        self.rx_up_to(BURST, port, burst);
    }
    /// The same until `burst` has `most` frames.
    fn rx_up_to(&mut self, most: usize, port: PortId, burst: &mut Burst<Self::Buf>);
    /// The largest burst that this side is good for: what can leave at once by each port.
    #[inline]
    fn most(&self) -> usize {
        BURST
    }
    /// Sends frames from the front of `burst` and removes what was accepted; what is left stays in `burst`.
    fn tx_burst(&mut self, port: PortId, burst: &mut Burst<Self::Buf>);
    /// An empty frame for a packet that weir originates, or `None` when the pool is empty.
    fn alloc(&mut self) -> Option<Self::Buf>;
    /// Whether the link is up; `None` where the device does not say.
    fn link(&self, port: PortId) -> Option<bool> {
        let _ = port;
        None
    }
    /// Capability and error counters of the device since start, for the operator.
    fn port_stats(&self, port: PortId) -> PortStats;
}

/// What a device counted by itself. Frames that the device dropped never reach the pipeline's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames handed to weir.
    pub rx_packets: u64,
    /// Frames taken from weir.
    pub tx_packets: u64,
    /// Frames the device dropped for lack of receive descriptors or buffers.
    pub rx_missed: u64,
    /// Frames the device could not receive, for any other reason.
    pub rx_errors: u64,
    /// Frames the device could not send.
    pub tx_errors: u64,
}
