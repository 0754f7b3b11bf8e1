//! What labs of a configuration have in common.

use std::sync::Arc;

use dataplane::script_trace::Detail;
use dataplane::snapshot::Snapshot;
use smoltcp::time::Instant;

use crate::error::LabError;
use crate::world::Lab;

/// Memory for fragments: enough for some datagrams of the largest size.
const FRAGMENT_MEMORY: u32 = 512 << 10;

/// How a lab is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The time at the beginning. Far enough from 0 that nothing is before all time.
    pub start: Instant,
    /// Keys hashes, initial sequence numbers and SNAT ports. The same seed and the same calls give the same packets.
    pub seed: u128,
    /// At most that many flows, embryonic ones, waiting ones and ones with a server; less if the configuration says so.
    pub flows: u32,
    /// What scripts do is noted in [`crate::Run::trace`].
    pub trace: Option<Tracing>,
    /// Every frame is kept, for captures.
    pub keep_frames: bool,
    /// Which servers a run's choice is offered, in which order and why, is kept in [`crate::Run::choice`].
    pub explain: bool,
    /// Nanoseconds of a real clock, for [`crate::Run::nanoseconds`]; decides nothing.
    pub stopwatch: Option<fn() -> u64>,
    /// Runs that are kept; later ones are counted in [`crate::Observed::missed`] only.
    pub most_runs: usize,
}

/// How much of a run is noted.
#[derive(Clone, Copy, Debug)]
pub struct Tracing {
    /// Calls, or lines too.
    pub detail: Detail,
    /// Steps of a run that are kept.
    pub steps: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            start: Instant::from_secs(1000),
            seed: 0x5eed,
            flows: 1024,
            trace: None,
            keep_frames: false,
            explain: false,
            stopwatch: None,
            most_runs: 100_000,
        }
    }
}

/// A configuration from which labs are made.
#[derive(Clone, Debug)]
pub struct Blueprint {
    snapshot: Arc<Snapshot>,
    options: Options,
}

impl Blueprint {
    /// Of this configuration; its limits are cut down as the options say.
    #[must_use]
    pub fn new(snapshot: &Snapshot, options: Options) -> Blueprint {
        let mut snapshot = snapshot.clone();
        let limits = &mut snapshot.limits;
        let most = options.flows.max(1);
        limits.flows = limits.flows.min(most);
        limits.embryonic = limits.embryonic.min(most);
        limits.syn_cookies_above = limits.syn_cookies_above.min(limits.embryonic.saturating_sub(1));
        limits.waiting = limits.waiting.min(most);
        limits.spliced = limits.spliced.min(most);
        limits.neighbors = limits.neighbors.min(most);
        limits.fragment_memory = limits.fragment_memory.min(FRAGMENT_MEMORY);
        Blueprint { snapshot: Arc::new(snapshot), options }
    }

    /// The configuration, with its limits cut down.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How labs are made.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A fresh lab.
    ///
    /// # Errors
    /// Scripts that do not compile (those of a configuration that was checked do), or no memory.
    pub fn lab(&self) -> Result<Lab, LabError> {
        // Labs that are there at the same time share no limits of servers.
        let limited = self.snapshot.servers.iter().any(|server| server.max_connections.is_some());
        match limited {
            true => Lab::build(&Arc::new((*self.snapshot).clone()), &self.options),
            false => Lab::build(&self.snapshot, &self.options),
        }
    }
}
