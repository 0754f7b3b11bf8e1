//! What a flow needs besides its entry in the flow table, while anything but translation happens to it.

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use smoltcp::time::Instant;
use tcp::{Binding, SeqNumber, Side};

use super::end::Fate;
use crate::channel::Milestones;
use crate::parse::Headers;
use crate::policy::{FlowFacts, Record, RunId, Selection};
use crate::proxy_protocol::Endpoints;
use crate::snapshot::{PoolId, ServerId};

/// Most servers that one flow tries.
pub const MOST_TRIED: usize = 8;

/// A script run that waits for bytes.
#[derive(Clone, Copy, Debug)]
pub struct Suspended {
    /// The run.
    pub run: RunId,
    /// Bytes wanted in all.
    pub need: usize,
}

/// A datagram that waits for a script's decision: the frame as it arrived.
#[derive(Debug)]
pub struct Held {
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Its headers.
    pub headers: Headers,
}

/// The slow-path side of one flow. Made for flows that run a script or complete a handshake; given back as soon as
/// the flow is only translated and has nothing to report. With `log_connections`, which is the default, it
/// stays to the end of its flow: the log tells when what was decided.
#[derive(Debug, Default)]
pub struct Connection {
    /// The delayed binding; `None` for UDP, for the fast path, and once the flow is spliced.
    pub binding: Option<Box<Binding>>,
    /// The connection begins with a PROXY header, which has not come yet.
    pub header_due: bool,
    /// What its PROXY header says, if it says anything.
    pub endpoints: Option<Endpoints>,
    /// What the scripts decided and said.
    pub record: Record,
    /// A request script waits in `collect`.
    pub request: Option<Suspended>,
    /// A response script waits in `collect`.
    pub response: Option<Suspended>,
    /// The request event has run to its end.
    pub request_ended: bool,
    /// The response event has run to its end.
    pub response_ended: bool,
    /// Datagrams that wait, in order of arrival, all from the same side.
    pub held: VecDeque<Held>,
    /// Payloads of `held` joined.
    pub joined: Vec<u8>,
    /// Held datagrams may leave now.
    pub release: bool,
    /// What was decided.
    pub selection: Option<Selection>,
    /// Servers that refused or stayed silent.
    pub tried: ArrayVec<ServerId, MOST_TRIED>,
    /// The pool of the server in use.
    pub pool: Option<PoolId>,
    /// When it passed what.
    pub milestones: Milestones,
    /// The binding has delivered all: the flow is to be spliced once its last segments are out.
    pub spliced: bool,
    /// The binding has ended: the flow goes once its last segments are out.
    pub over: bool,
    /// How it ended, if that is settled.
    pub fate: Option<Fate>,
    /// When the timer of the binding fires; it may have fired.
    pub timer: Option<Instant>,
    client_seen: Option<SeqNumber>,
    server_seen: Option<SeqNumber>,
}

impl Connection {
    /// Back to the empty state, in place; keeps allocations.
    pub fn clear(&mut self) {
        let Connection {
            binding,
            header_due,
            endpoints,
            record,
            request,
            response,
            request_ended,
            response_ended,
            held,
            joined,
            release,
            selection,
            tried,
            pool,
            milestones,
            spliced,
            over,
            fate,
            timer,
            client_seen,
            server_seen,
        } = self;
        record.clear();
        held.clear();
        joined.clear();
        tried.clear();
        (*binding, *endpoints, *request, *response) = (None, None, None, None);
        (*selection, *pool, *fate, *client_seen, *server_seen) = (None, None, None, None, None);
        *timer = None;
        (*header_due, *request_ended, *response_ended) = (false, false, false);
        (*release, *spliced, *over) = (false, false, false);
        *milestones = Milestones::default();
    }

    /// Nothing is left to be decided: the flow keeps its server, and what is noted here is only reported.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.binding.is_none() && self.request.is_none() && self.response.is_none()
    }

    /// Datagrams that were held have not all left yet.
    #[must_use]
    pub fn is_releasing(&self) -> bool {
        self.release && !self.held.is_empty()
    }

    /// True if the timer fires before the binding wants to be looked at, or then. The idle time is no reason to set it anew:
    /// what comes meanwhile only moves its end.
    #[must_use]
    pub fn fires_before(&self, due: Option<Instant>) -> bool {
        self.timer.is_some_and(|timer| due.is_none_or(|due| timer <= due))
    }

    /// End of the data of a side that scripts of a spliced flow have seen.
    pub fn seen_mut(&mut self, side: Side) -> &mut Option<SeqNumber> {
        match side {
            Side::Client => &mut self.client_seen,
            Side::Server => &mut self.server_seen,
        }
    }

    /// Puts the client that its PROXY header names into the facts of its flow.
    pub fn correct(&self, facts: &mut FlowFacts) {
        if let Some(endpoints) = self.endpoints {
            facts.name_client(endpoints.source);
        }
    }

    /// Bytes of a side that scripts may read now.
    #[must_use]
    pub fn buffered(&self, side: Side) -> &[u8] {
        self.binding.as_ref().map_or(&[], |binding| binding.payload(side))
    }
}

/// All connections of a worker; indices are stable until removed.
#[derive(Debug, Default)]
pub struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    spare: Vec<Box<Connection>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    bindings: Vec<Box<Binding>>,
}

/// Cleared connections kept for reuse, and as many bindings that are over, with at most 5 KB each.
const MOST_SPARE: usize = 1024;

impl Connections {
    /// No connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A cleared connection that belongs to nobody yet.
    pub fn fresh(&mut self) -> Box<Connection> {
        self.spare.pop().unwrap_or_default()
    }

    /// Gives back what [`Connections::fresh`] or [`Connections::take`] gave.
    pub fn recycle(&mut self, mut connection: Box<Connection>) {
        if let Some(binding) = connection.binding.take() {
            self.keep_binding(binding);
        }
        if self.spare.len() < MOST_SPARE {
            connection.clear();
            self.spare.push(connection);
        }
    }

    /// A binding that is over, to be used again.
    pub fn spare_binding(&mut self) -> Option<Box<Binding>> {
        self.bindings.pop()
    }

    /// Keeps a binding that is over.
    pub fn keep_binding(&mut self, mut binding: Box<Binding>) {
        if self.bindings.len() < MOST_SPARE {
            binding.retire();
            self.bindings.push(binding);
        }
    }

    /// Stores a connection; the index stays its own until [`Connections::release`].
    pub fn insert(&mut self, connection: Box<Connection>) -> u32 {
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                *slot = Some(connection);
            }
            return index;
        }
        self.slots.push(Some(connection));
        (self.slots.len() - 1) as u32
    }

    /// Lends a connection out so that the rest of the worker may be used meanwhile; [`Connections::put`] it back.
    #[inline]
    pub fn take(&mut self, index: u32) -> Option<Box<Connection>> {
        self.slots.get_mut(index as usize)?.take()
    }

    /// Puts back what `take` gave.
    #[inline]
    pub fn put(&mut self, index: u32, connection: Box<Connection>) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Some(connection);
        }
    }

    /// The index is free again, whether or not its connection is lent out.
    pub fn release(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            if let Some(connection) = slot.take() {
                self.recycle(connection);
            }
            self.free.push(index);
        }
    }

    /// A look at a connection.
    #[must_use]
    #[inline]
    pub fn peek(&self, index: u32) -> Option<&Connection> {
        self.slots.get(index as usize)?.as_deref()
    }

    /// The same, to change it.
    #[inline]
    pub fn peek_mut(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots.get_mut(index as usize)?.as_deref_mut()
    }

    /// All places, whether in use or not.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
