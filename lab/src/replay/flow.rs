//! A flow of a capture on its way through weir.

use std::net::SocketAddr;

use dataplane::snapshot::{Protocol, ServiceId};
use smoltcp::time::Instant;

use super::client::ClientSide;
use super::server::ServerSide;
use crate::clients::ClientId;
use crate::explain::Choice;

/// What tells flows apart: protocol, client, and the VIP of the configuration.
pub(super) type Key = (Protocol, SocketAddr, SocketAddr);

/// Notes of a flow that are kept.
const NOTES: usize = 16;

/// One flow.
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) service: ServiceId,
    pub(super) id: ClientId,
    pub(super) began: Instant,
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) packets: u64,
    pub(super) notes: Vec<String>,
    /// Something that the client said is not known.
    pub(super) incomplete: bool,
    /// The default choice at its first packet.
    pub(super) choice: Option<Choice>,
    /// Places of its runs in [`crate::Lab::runs`].
    pub(super) runs: Vec<usize>,
    /// Packets of weir's to the client that were looked at.
    pub(super) heard: usize,
    pub(super) client: ClientSide,
    pub(super) server: ServerSide,
}

impl Flow {
    pub(super) fn note(&mut self, text: String) {
        if self.notes.len() < NOTES {
            self.notes.push(text);
        } else if self.notes.len() == NOTES {
            self.notes.push("and more like this".to_owned());
        }
    }

    /// A packet is not whole.
    pub(super) fn cut(&mut self, number: usize, kept: usize, length: usize, then: &str) {
        self.incomplete = true;
        self.note(format!("packet {number} has {kept} of {length} bytes (snap length): {then}"));
    }
}
