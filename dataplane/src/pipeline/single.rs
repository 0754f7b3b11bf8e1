//! Datagrams that are balanced one by one (`per_packet`): a client tuple has a flow with each server that one of them went
//! to, by which the answers find their way.

use smoltcp::time::Instant;

use super::connection::Connection;
use super::datagram::{client_run, first_facts};
use super::decide::{Decision, Refusal};
use super::end::Fate;
use super::preserve::Servers;
use super::{Pipeline, Verdict};
use crate::address::FlowKey;
use crate::balance::Pick;
use crate::channel::Phase;
use crate::counters::DropReason;
use crate::flow::{Direction, FlowState};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::parse::Headers;
use crate::policy::{Policy, Selection};
use crate::snapshot::{ServerId, ServiceId};

impl<P: Policy> Pipeline<P> {
    /// A datagram that is balanced by itself; answers find their way by the flow that each server has.
    pub(super) fn balance_datagram<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        service: ServiceId,
        scripted: bool,
    ) -> Verdict {
        let mut connection = self.connections.fresh();
        let decision = if scripted {
            let payload = buf.bytes().get(headers.payload_range()).unwrap_or_default();
            let facts = first_facts(&headers.key, service);
            let run = client_run(None, &facts, payload, false, None);
            self.decide(now, run, &mut connection.record)
        } else {
            self.default_decision(service)
        };
        connection.request_ended = true;
        let bound = self.branch(now, &headers, service, decision, connection);
        match bound {
            Ok(id) => self.translate(now, buf, headers, id, Direction::FromClient),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The flow between a client tuple and the server that was chosen for this datagram.
    fn branch(
        &mut self,
        now: Instant,
        headers: &Headers,
        service: ServiceId,
        decision: Decision,
        mut connection: Box<Connection>,
    ) -> Result<FlowId, DropReason> {
        let selection = match decision {
            Decision::Select(selection) => selection,
            Decision::Close(reason, _) => {
                self.connections.recycle(connection);
                return Err(reason);
            }
            Decision::Wait(waiting) => {
                self.policy.cancel(waiting.run);
                self.connections.recycle(connection);
                return Err(DropReason::ScriptError);
            }
        };
        let chosen = self.choose_for_datagram(service, selection, &headers.key);
        let server = chosen.map(|(server, _)| server);
        self.trace_choice(now, None, (selection, 0), Some(&connection.record), &server);
        let (server, known) = chosen.map_err(|refusal| refusal.reason)?;
        if let Some(id) = known {
            if let Some((index, mut known)) = self.borrow_connection(id) {
                known.record.absorb(&mut connection.record);
                self.connections.put(index, known);
            }
            self.connections.recycle(connection);
            return Ok(id);
        }
        let key = branch_to(&headers.key, server);
        let hash = self.flows.hash(&key);
        let id = match self.new_flow(now, (&key, hash), service, FlowState::Waiting) {
            Ok(id) => id,
            Err(reason) => {
                self.balancer.closed(server);
                return Err(reason);
            }
        };
        self.keep(id, connection);
        let (index, mut connection) = self.borrow_connection(id).ok_or(DropReason::NoFlow)?;
        let attached = self.attach(now, (id, service, &key), server, Some(&mut connection));
        self.connections.put(index, connection);
        match attached {
            Ok(()) => {
                self.became_bound(now, id);
                Ok(id)
            }
            Err(refusal) => {
                self.end(now, id, Fate::refused(refusal.reason, Phase::Deciding));
                Err(refusal.reason)
            }
        }
    }

    /// The server of a datagram that is balanced by itself, and the flow of its client to that server; a server with room
    /// for one if there is none.
    fn choose_for_datagram(
        &mut self,
        service: ServiceId,
        selection: Selection,
        key: &FlowKey,
    ) -> Result<(ServerId, Option<FlowId>), Refusal> {
        let claim = self.claim(service, key)?;
        let mut servers = Servers::but(&[]);
        let flows = &self.flows;
        let branch = |server| flows.lookup(&branch_to(key, server)).map(|(id, _)| id);
        let known = |server| branch(server).is_some();
        let client = key.source.ip();
        let pick = loop {
            match self.balancer.pick_for_datagram(
                &self.snapshot,
                selection,
                client,
                &servers.excluded,
                &known,
            ) {
                Pick::Server(server) => match branch(server) {
                    Some(id) => return Ok((server, Some(id))),
                    None if claim.as_ref().is_some_and(|claim| self.is_in_use(claim, server)) => {
                        servers.pass_over(server);
                    }
                    None if self.balancer.take(server) => return Ok((server, None)),
                    None => {}
                },
                failed => break failed,
            }
        };
        self.picked(pick, servers.in_use).map(|server| (server, None))
    }
}

/// The key of the flow between a client tuple and one server, where each datagram is balanced by itself.
fn branch_to(key: &FlowKey, server: ServerId) -> FlowKey {
    FlowKey { branch: server.0.wrapping_add(1), ..*key }
}
