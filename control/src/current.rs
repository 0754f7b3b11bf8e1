//! The configuration that runs now.

use std::sync::{Arc, PoisonError, RwLock};

use dataplane::snapshot::Snapshot;

/// The configuration that runs, for all threads of control; a reload puts another one there. All places of one are places
/// of the next ([`dataplane::overlay`]), so it does no harm to look at a later one. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Current(Arc<RwLock<Arc<Snapshot>>>);

impl Current {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        Current(Arc::new(RwLock::new(snapshot)))
    }

    /// The configuration of this moment.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, snapshot: Arc<Snapshot>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}
