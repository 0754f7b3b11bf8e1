//! The configuration that runs now.

use std::sync::{Arc, PoisonError, RwLock};

use dataplane::snapshot::Snapshot;

/// The configuration that runs, for all threads of control; a reload puts another one there. What somebody names has the
/// same place in the next ([`dataplane::overlay`]), so it does no harm to look at a later one; but who keeps a place for longer
/// than seconds may find something else there, unless it is waited for as for the log and for traces. Workers take it
/// later than it is here: what they tell of a place may be about what was there before. Cheap to clone.
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
