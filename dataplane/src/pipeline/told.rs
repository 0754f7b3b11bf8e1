//! What is told of a flow that has ended.

use smoltcp::time::Instant;

use super::Pipeline;
use super::connection::{Connection, Milestones};
use super::end::Fate;
use crate::channel::{EndedFlow, Notes, Phase};
use crate::flow::{Direction, FlowRef};
use crate::flow_table::FlowId;
use crate::policy::{Event, Policy};
use crate::report;
use crate::snapshot::ServiceId;

impl<P: Policy> Pipeline<P> {
    /// Tells control, if its service is logged, and whoever watches, of a flow that ends. Of an incomplete handshake nobody was
    /// there to be reported, and in a flood of SYNs there would be no end to it: those are counted.
    pub(super) fn tell_end(
        &mut self,
        now: Instant,
        id: FlowId,
        fate: Fate,
        connection: Option<&mut Connection>,
    ) {
        let begun = fate.termination.phase != Phase::Handshake;
        self.counters.handshakes_incomplete += u64::from(!begun);
        let Some(flow) = self.flows.flow(id) else { return };
        let service = self.snapshot.services.get(usize::from(flow.service));
        let logged = begun && service.is_some_and(|service| service.log_connections);
        let traced = self.traces_end(id, fate);
        if !logged && !traced {
            return;
        }
        let started = now - flow.age(now);
        let more = match connection {
            Some(connection) => (connection.milestones, notes(connection)),
            // Of a logged flow whose script has decided on the first datagram, and had nothing else to say, none is left.
            None if logged && !flow.is_tcp() && flow.server_id().is_some() => {
                let decided = self.policy.handles(ServiceId(flow.service), Event::Request);
                (Milestones { decided: decided.then_some(started), ..Milestones::default() }, None)
            }
            None => (Milestones::default(), None),
        };
        let watched = traced.then(|| Box::new(ended((started, now), flow, fate, more.clone())));
        if logged && !self.records.send(ended((started, now), flow, fate, more)) {
            self.counters.records_lost += 1;
        }
        if let Some(ended) = watched {
            self.trace_ended(now, id, *ended);
        }
    }
}

/// What is to be told of a flow: what its own record says, and more.
#[inline]
fn ended(
    (started, ended): (Instant, Instant),
    flow: FlowRef<'_>,
    fate: Fate,
    (milestones, notes): (Milestones, Option<Box<Notes>>),
) -> EndedFlow {
    EndedFlow {
        service: ServiceId(flow.service),
        server: flow.server_id(),
        termination: fate.termination,
        reason: fate.reason,
        client_key: flow.client_key(),
        server_key: flow.is_bound().then(|| flow.server_key()),
        started,
        ended,
        established: milestones.established,
        decided: milestones.decided,
        connected: milestones.connected,
        from_client: report::traffic(&flow, Direction::FromClient),
        from_server: report::traffic(&flow, Direction::FromServer),
        notes,
    }
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
