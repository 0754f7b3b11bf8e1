//! What is told of a flow that has ended.

use smoltcp::time::Instant;

use super::connection::{Connection, Milestones};
use super::end::Fate;
use super::{Pipeline, QUEUE};
use crate::channel::{EndedFlow, Notes};
use crate::flow::{Direction, FlowRef};
use crate::flow_table::FlowId;
use crate::policy::{Event, Policy};
use crate::report;
use crate::snapshot::ServiceId;

impl<P: Policy> Pipeline<P> {
    /// Tells control, and whoever watches, of a flow that ends.
    pub(super) fn write_record(
        &mut self,
        now: Instant,
        (logged, traced): (bool, bool),
        id: FlowId,
        fate: Fate,
        connection: Option<&mut Connection>,
    ) {
        let Some(flow) = self.flows.flow(id) else { return };
        let mut ended = ended(now, flow, fate);
        match connection {
            Some(connection) => tell_more(&mut ended, connection),
            // Of a logged flow whose script has decided on the first datagram, and had nothing else to say, none is left.
            None if logged && !flow.is_tcp() && ended.server.is_some() => {
                let decided = self.policy.handles(ended.service, Event::Request);
                ended.decided = decided.then_some(ended.started);
            }
            None => {}
        }
        if traced {
            self.trace_ended(now, id, ended.clone());
        }
        match logged {
            true if self.records.len() < QUEUE => self.records.push(ended),
            true => self.counters.records_lost += 1,
            false => {}
        }
    }
}

/// What is to be told of a flow that ends now, as far as its own record says.
#[inline]
fn ended(now: Instant, flow: FlowRef<'_>, fate: Fate) -> EndedFlow {
    EndedFlow {
        service: ServiceId(flow.service),
        server: flow.server_id(),
        termination: fate.termination,
        reason: fate.reason,
        client_key: flow.client_key(),
        server_key: flow.is_bound().then(|| flow.server_key()),
        started: now - flow.age(now),
        ended: now,
        established: None,
        decided: None,
        connected: None,
        from_client: report::traffic(&flow, Direction::FromClient),
        from_server: report::traffic(&flow, Direction::FromServer),
        notes: None,
    }
}

/// What its connection says.
fn tell_more(ended: &mut EndedFlow, connection: &mut Connection) {
    let Milestones { established, decided, connected } = connection.milestones;
    (ended.established, ended.decided, ended.connected) = (established, decided, connected);
    ended.notes = notes(connection);
}

/// Ends a `ds_log` that was cut.
const CUT_MARK: &[u8] = b"...";

/// What scripts and PROXY headers have said of a flow, if they have.
fn notes(connection: &mut Connection) -> Option<Box<Notes>> {
    let (record, client) = (&mut connection.record, connection.endpoints.map(|endpoints| endpoints.source));
    if record.is_silent() && client.is_none() {
        return None;
    }
    let mut log = std::mem::take(&mut record.log);
    if record.log_cut {
        log.extend_from_slice(CUT_MARK);
    }
    Some(Box::new(Notes {
        client,
        ds_log: (!log.is_empty()).then(|| log.into_boxed_slice()),
        significant: record.significant,
        error: record.error.take().map(String::into_boxed_str),
    }))
}
