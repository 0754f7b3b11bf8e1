//! Chooses servers. (H-balance writes this file.)
use crate::snapshot::Snapshot;
/// Server states and choice; one per worker.
#[derive(Debug)]
pub struct Balancer {}
impl Balancer {
    /// For this configuration; servers of pools with monitors start as down, others as up.
    #[must_use]
    pub fn new(_snapshot: &Snapshot) -> Self {
        Balancer {}
    }
}
