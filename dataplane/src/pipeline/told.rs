//! What is told of a flow that has ended.

use smoltcp::time::Instant;

use super::Pipeline;
use super::connection::Connection;
use super::end::Fate;
use crate::address::FlowKey;
use crate::channel::{ConnectionRecord, EndedFlow, Notes, Phase};
use crate::flow::FlowRef;
use crate::flow_table::FlowId;
use crate::policy::{Event, Policy};
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
        let mut ended = EndedFlow::of(flow, (started, now), (fate.termination, fate.reason));
        match connection {
            Some(connection) => {
                let notes = notes(connection);
                ended.add(&connection.milestones, notes);
            }
            // Of a logged flow whose script has decided on the first datagram, and had nothing else to say, none is left.
            None if logged
                && !flow.is_tcp()
                && flow.server_id().is_some()
                && self.policy.handles(ServiceId(flow.service), Event::Request) =>
            {
                ended.decided_at_once();
            }
            None => {}
        }
        let watched = if traced { Some(watched(&ended, flow)) } else { None };
        if logged && !self.records.send(ended, flow.addresses()) {
            self.counters.records_lost += 1;
        }
        if let Some(watched) = watched {
            let (key, record) = *watched;
            self.trace_ended(now, id, key, record);
        }
    }
}

/// The same for somebody who watches, with the key of the client's packets.
#[cold]
#[inline(never)]
fn watched(ended: &EndedFlow, flow: FlowRef<'_>) -> Box<(FlowKey, ConnectionRecord)> {
    Box::new((flow.client_key(), ended.clone().record(flow.addresses())))
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
