//! What control knows about itself, for `show info`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use dataplane::snapshot::Snapshot;

use crate::clock::Clock;
use crate::log::LogStats;

/// Written by the threads of control, read by the admin socket.
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) clock: Clock,
    pub(crate) log: Arc<LogStats>,
    /// Monitor probes in flight.
    pub(crate) probes: AtomicU64,
    /// Packets of monitors that found the queue to the worker full.
    pub(crate) packets_lost: AtomicU64,
    /// A trace or a capture is under way.
    pub(crate) watching: Arc<AtomicBool>,
}

/// The answer to `show info`.
#[derive(Serialize)]
pub(crate) struct Info {
    version: String,
    pid: u32,
    uptime_s: i64,
    services: usize,
    pools: usize,
    servers: usize,
    probes_in_flight: u64,
    probe_packets_lost: u64,
    log_lines: u64,
    log_lines_lost: u64,
    watching: bool,
}

/// The fields of [`Info`] in their order.
pub(crate) const FIELDS: &[&str] = &[
    "version",
    "pid",
    "uptime_s",
    "services",
    "pools",
    "servers",
    "probes_in_flight",
    "probe_packets_lost",
    "log_lines",
    "log_lines_lost",
    "watching",
];

impl Status {
    pub(crate) fn info(&self, snapshot: &Snapshot) -> Info {
        Info {
            version: self.version.clone(),
            pid: std::process::id(),
            uptime_s: self.clock.now().secs(),
            services: snapshot.services.len() - snapshot.retired.services.len(),
            pools: snapshot.pools.len() - snapshot.retired.pools.len(),
            servers: snapshot.servers.len() - snapshot.retired.servers.len(),
            probes_in_flight: self.probes.load(Ordering::Relaxed),
            probe_packets_lost: self.packets_lost.load(Ordering::Relaxed),
            log_lines: self.log.written(),
            log_lines_lost: self.log.lost(),
            watching: self.watching.load(Ordering::Relaxed),
        }
    }
}
