//! What the limits of a configuration cost.

use dataplane::flow_table::FlowTable;
use dataplane::snapshot::{Protocol, Service, Snapshot, TableLimits};
use dataplane::wheel::Wheel;

use crate::process::ProcessSettings;

/// Bytes per flow: its record, its places in the index for both directions, its timer.
pub(crate) const FLOW_BYTES: u64 = (FlowTable::FLOW_BYTES + Wheel::SLOT_BYTES) as u64;
/// Bytes per flow besides, where flows may have addresses of IPv6.
pub(crate) const IPV6_BYTES: u64 = FlowTable::WIDE_BYTES as u64;
/// Bytes per ARP or ND entry, about, without packets that wait for it.
pub(crate) const NEIGHBOR_BYTES: u64 = 150;
/// Bytes per table entry besides key and value, at most: just after a map has grown.
pub(crate) const TABLE_ENTRY_BYTES: u64 = 420;
/// Bytes per packet buffer besides the room for a frame: the mbuf's own header, headroom and the pool's bookkeeping.
const MBUF_OVERHEAD: u64 = 128 + 128 + 64;
/// Smallest room for a frame.
const MBUF_ROOM: u64 = 2048;

/// Memory that a configuration stands for, in bytes, per worker where not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The flow table, taken at start.
    pub flows: u64,
    /// The neighbour table when it is full.
    pub neighbors: u64,
    /// IPv4 fragments that wait for the rest of their datagrams, taken at start.
    pub fragments: u64,
    /// Payload held for flows that wait, when all that may wait have filled the largest buffer.
    pub waiting: u64,
    /// The Lua state at its limit.
    pub scripts: u64,
    /// Tables of all services when they are full of the longest entries.
    pub tables: u64,
    /// Packet buffers of the process, taken at start.
    pub mbufs: u64,
}

impl Memory {
    pub(crate) fn of(snapshot: &Snapshot, process: &ProcessSettings) -> Self {
        let limits = &snapshot.limits;
        let largest_buffer = snapshot.services.iter().map(buffer).max().unwrap_or(0);
        let frame = snapshot.interfaces.iter().map(|i| u64::from(i.mtu) + 18).max().unwrap_or(0);
        let workers = process.dpdk.workers.on(process.dpdk.cpus.len());
        let mbufs = process.dpdk.mbufs_for(workers, snapshot.interfaces.len());
        Memory {
            flows: u64::from(limits.flows)
                * (FLOW_BYTES + if snapshot.expects_ipv6() { IPV6_BYTES } else { 0 }),
            neighbors: u64::from(limits.neighbors) * NEIGHBOR_BYTES,
            fragments: u64::from(limits.fragment_memory),
            waiting: u64::from(limits.waiting) * largest_buffer,
            scripts: if snapshot.script_sets.is_empty() { 0 } else { u64::from(limits.script_memory) },
            tables: snapshot.services.iter().map(|s| table_bytes(&s.tables)).sum(),
            mbufs: u64::from(mbufs) * (frame.max(MBUF_ROOM) + MBUF_OVERHEAD),
        }
    }
}

/// The largest payload that one flow of a service may hold, in bytes.
fn buffer(service: &Service) -> u64 {
    let of = |protocol, bytes: u32| {
        let used = service.ports.iter().any(|p| p.protocol == protocol);
        if used { u64::from(bytes) } else { 0 }
    };
    of(Protocol::Tcp, service.tcp.buffer).max(of(Protocol::Udp, service.udp.buffer))
}

pub(crate) fn table_bytes(limits: &TableLimits) -> u64 {
    limits.bytes.min(longest_entries(limits)) + u64::from(limits.entries) * TABLE_ENTRY_BYTES
}

/// Keys and values of as many entries as there may be, all as long as they may be, in bytes.
pub(crate) fn longest_entries(limits: &TableLimits) -> u64 {
    u64::from(limits.entries) * (u64::from(limits.key_bytes) + u64::from(limits.value_bytes))
}

/// A size for people: "12.5 MiB".
pub(crate) fn size_text(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, factor)) = units.into_iter().find(|(_, factor)| bytes >= *factor) else {
        return format!("{bytes} B");
    };
    let tenths = bytes.saturating_mul(10).checked_div(factor).unwrap_or(0);
    let (whole, tenth) = (tenths.checked_div(10).unwrap_or(0), tenths.checked_rem(10).unwrap_or(0));
    if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_for_people() {
        assert_eq!(size_text(0), "0 B");
        assert_eq!(size_text(1023), "1023 B");
        assert_eq!(size_text(1536), "1.5 KiB");
        assert_eq!(size_text(16 << 20), "16 MiB");
        assert_eq!(size_text(3 << 30), "3 GiB");
    }

    /// In docs/configuration.md and docs/performance.md. That flow table and wheel take what they say is a test of theirs.
    #[test]
    fn a_flow_costs_what_the_documents_say() {
        assert_eq!(
            (size_of::<dataplane::flow::Flow>(), FlowTable::FLOW_BYTES, Wheel::SLOT_BYTES),
            (128, 150, 12)
        );
        assert_eq!((FLOW_BYTES, IPV6_BYTES), (162, 64));
    }

    #[test]
    fn a_table_costs_its_entries() {
        let limits = TableLimits { entries: 1000, key_bytes: 100, value_bytes: 200, bytes: 1 << 30 };
        assert_eq!(table_bytes(&limits), 720_000);
        assert_eq!(table_bytes(&TableLimits { bytes: 40_000, ..limits }), 460_000);
    }
}
