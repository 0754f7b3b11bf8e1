//! Looking ahead: which servers the next flow would be offered, without giving it one.

use super::{Balancer, Client, Pick};
use crate::policy::Selection;
use crate::snapshot::{FailAction, ServerId, Snapshot};
use crate::steering::Seat;
use crate::tokens::WorkerTokens;

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

    /// A copy that shares nothing: a server that is full now is as good as disabled there.
    fn rehearsal(&self) -> Balancer {
        let nothing = Snapshot::default();
        let mut copy = Balancer {
            servers: self.servers.clone(),
            pools: self.pools.clone(),
            group_credits: self.group_credits.clone(),
            tokens: WorkerTokens::new(&nothing, Seat::ALONE),
        };
        let ids = (0..copy.servers.len()).filter_map(|index| u16::try_from(index).ok()).map(ServerId);
        for id in ids {
            if !self.is_available(id) {
                copy.set_enabled(id, false);
            }
            if let Some(state) = copy.servers.get_mut(id.index()) {
                state.place = None;
            }
        }
        copy
    }
}
