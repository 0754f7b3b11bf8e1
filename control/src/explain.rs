//! `explain`: what would become of a flow now. Who has the engine answers; control asks a worker how things are.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::channel::Live;
use dataplane::snapshot::{Protocol, Snapshot};

/// Who comes, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// Whom it comes to.
    pub vip: SocketAddr,
    /// Its first bytes, or its datagram; `None`: it says nothing.
    pub payload: Option<Vec<u8>>,
    /// Each line that scripts execute, not only their calls.
    pub lines: bool,
    /// The answer is one line of JSON.
    pub json: bool,
}

type Answers = dyn Fn(&Arc<Snapshot>, &Question, Live) -> Result<String, String> + Send + Sync;

/// Answers questions by the configuration that runs, and the state of a worker. It must not change anything; it runs on
/// the thread of the admin connection. Cheap to clone.
#[derive(Clone)]
pub struct Explainer(Arc<Answers>);

impl Explainer {
    /// Gets the configuration that runs, the question, and how things are. The answer is text; the error is a refusal.
    #[must_use]
    pub fn new(
        answers: impl Fn(&Arc<Snapshot>, &Question, Live) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Explainer(Arc::new(answers))
    }

    pub(crate) fn answer(
        &self,
        snapshot: &Arc<Snapshot>,
        question: &Question,
        live: Live,
    ) -> Result<String, String> {
        (self.0)(snapshot, question, live)
    }
}

impl std::fmt::Debug for Explainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Explainer")
    }
}
