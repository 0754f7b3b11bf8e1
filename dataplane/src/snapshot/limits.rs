//! Bounds of everything that grows.

use smoltcp::time::Duration;

/// Bounds of one worker. Each is a key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows, all states together.
    pub flows: u32,
    /// TCP flows whose handshake is not complete.
    pub embryonic: u32,
    /// With more incomplete handshakes than that SYNs are answered by cookies; less than `embryonic`.
    pub syn_cookies_above: u32,
    /// Flows that wait for a script's decision or a server.
    pub waiting: u32,
    /// Flows that have a server.
    pub spliced: u32,
    /// Neighbours (ARP and ND entries).
    pub neighbors: u32,
    /// Memory for IPv4 fragments that wait for the rest of their datagrams, in bytes; 0: none are put together.
    pub fragment_memory: u32,
    /// Time in Lua per run.
    pub script_budget: Duration,
    /// Memory of the Lua state, in bytes.
    pub script_memory: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            flows: 1 << 16,
            embryonic: 1 << 13,
            syn_cookies_above: 1 << 12,
            waiting: 1 << 13,
            spliced: 1 << 16,
            neighbors: 1024,
            fragment_memory: 4 << 20,
            script_budget: Duration::from_millis(1),
            script_memory: 16 << 20,
        }
    }
}
