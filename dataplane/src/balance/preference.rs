//! Looking ahead: which servers the next flow would be offered, without giving it one.

use super::{Balancer, Client, Pick};
use crate::policy::Selection;
use crate::snapshot::{FailAction, ServerId, Snapshot};

/// Most servers that are named.
const MOST: usize = 256;

/// What [`Balancer::preference`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The first one gets the flow; each other one is tried if those before it cannot be reached.
    pub order: Vec<ServerId>,
    /// What happens when none of them is left.
    pub then: FailAction,
}

impl Balancer {
    /// The servers that a flow of this client would be offered now, in order. Nothing changes. Slow: for the operator.
    #[must_use]
    pub fn preference(
        &self,
        snapshot: &Snapshot,
        selection: Selection,
        client: impl Into<Client>,
    ) -> Preference {
        let (client, mut copy) = (client.into(), self.rehearsal());
        let mut order = Vec::new();
        while order.len() < MOST {
            match copy.pick_selection(snapshot, selection, client, &order) {
                Pick::Server(server) if !order.contains(&server) => order.push(server),
                Pick::Server(_) => break,
                Pick::Failed(then) | Pick::Full(then, _) => return Preference { order, then },
            }
        }
        Preference { order, then: FailAction::Reset }
    }
}
