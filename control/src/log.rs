//! The log: one JSON object per line, for ended connections and for changes of servers.

mod line;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use line::protocol_name;
pub(crate) use line::reload_line;
pub use line::{connection_line, server_line, worker_line};
pub(crate) use writer::{LogThread, Message};

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, which is opened again on [`crate::Control::reopen_log`].
    File(PathBuf),
    /// Nothing is written.
    None,
}

/// What the log did; read while it runs.
#[derive(Debug, Default)]
pub(crate) struct LogStats {
    written: AtomicU64,
    lost: AtomicU64,
    /// By worker: how often its queue was seen empty, or as many records were taken as it holds.
    passes: Vec<AtomicU64>,
}

impl LogStats {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let passes = std::iter::repeat_with(AtomicU64::default).take(workers).collect();
        LogStats { passes, ..LogStats::default() }
    }

    pub(crate) fn note_pass(&self, worker: usize) {
        if let Some(passes) = self.passes.get(worker) {
            passes.fetch_add(1, Ordering::Release);
        }
    }

    /// A mark for [`LogStats::are_written`].
    pub(crate) fn passes(&self) -> Vec<u64> {
        self.passes.iter().map(|passes| passes.load(Ordering::Acquire)).collect()
    }

    /// True if the lines of all records that were queued at the time of the mark have been made: one pass may have been under
    /// way then, the one behind it was not.
    pub(crate) fn are_written(&self, mark: &[u64]) -> bool {
        self.passes.iter().zip(mark).all(|(passes, mark)| passes.load(Ordering::Acquire) >= mark + 2)
    }

    fn add_written(&self, lines: u64) {
        self.written.fetch_add(lines, Ordering::Relaxed);
    }

    pub(crate) fn add_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines that the destination did not take.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
