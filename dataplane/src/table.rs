//! Key-value tables of scripts. (H-balance writes this file.)
use crate::snapshot::Snapshot;
/// All tables of all services; one per worker.
#[derive(Debug)]
pub struct TableStore {}
impl TableStore {
    /// Empty tables with the bounds of this configuration.
    #[must_use]
    pub fn new(_snapshot: &Snapshot) -> Self {
        TableStore {}
    }
}
