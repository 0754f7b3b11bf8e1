//! What a worker and control do for each other, between two bursts.

use smoltcp::time::Instant;

use super::Worker;
use crate::channel::{Answer, Command, PortView, Query, Reply};
use crate::counters::DropReason;
use crate::io::{PacketIo, PortId};
use crate::policy::Policy;
use crate::report;

/// Commands of control carried out between two bursts.
const COMMANDS: usize = 16;

impl<I: PacketIo, P: Policy> Worker<I, P> {
    pub(super) fn take_packets_of_control(&mut self) {
        while let Some(packet) = self.end.packet() {
            self.pipeline.send_local(packet.0);
        }
    }

    /// Packets for control.
    pub(super) fn hand_over(&mut self) {
        while let Some(packet) = self.pipeline.poll_punted() {
            if !self.end.punt(&packet) {
                let counters = self.pipeline.counters_mut();
                counters.consumed -= 1;
                counters.drop(DropReason::Punt);
            }
        }
    }

    /// Carries out what control asks for.
    pub(super) fn obey(&mut self, now: Instant) {
        for _ in 0..COMMANDS {
            match self.end.command() {
                None => return,
                Some(Command::Stop) => self.stopping = true,
                Some(Command::ServerHealth { server, up }) => {
                    self.pipeline.balancer_mut().set_health(server, up);
                }
                Some(Command::ServerEnabled { server, enabled }) => {
                    self.pipeline.balancer_mut().set_enabled(server, enabled);
                }
                Some(Command::StartProfile { set, event }) => {
                    self.pipeline.policy_mut().start_profile(set, event);
                }
                Some(Command::Prepare(snapshot, reply)) => {
                    let prepared = self.pipeline.policy_mut().prepare(&snapshot);
                    self.prepared = prepared.is_ok().then_some(snapshot);
                    reply.send(Answer::Prepared(prepared));
                }
                Some(Command::Adopt(reply)) => {
                    let snapshot = self.prepared.take();
                    reply.send(Answer::Adopted(snapshot.map(|new| self.pipeline.adopt(new)).is_some()));
                }
                Some(Command::Abandon) => {
                    self.prepared = None;
                    self.pipeline.policy_mut().abandon();
                }
                Some(Command::Query(query, reply)) => self.answer(now, query, reply),
                Some(Command::Trace(order)) => self.pipeline.trace(now, *order),
            }
        }
    }

    fn answer(&mut self, now: Instant, query: Query, reply: Reply) {
        let answer = match query {
            Query::Ping => Answer::Pong,
            Query::EndProfile => Answer::Profile(self.pipeline.policy_mut().end_profile()),
            Query::Time => Answer::Time(now),
            Query::InUse { first } => {
                let (in_use, go_on) = self.pipeline.in_use(first);
                Answer::InUse(Box::new(in_use), go_on)
            }
            Query::Live { service, limit } => {
                Answer::Live(Box::new(report::live(&self.pipeline, now, service, limit)))
            }
            Query::Latency => Answer::Latency(self.latency.clone()),
            Query::Ports => Answer::Ports(self.port_views()),
            Query::Counters => Answer::Counters(Box::new(self.pipeline.counters().clone())),
            Query::Scripts => Answer::Scripts(self.pipeline.policy().report()),
            Query::Pools => Answer::Pools(report::servers(&self.pipeline), report::pools(&self.pipeline)),
            Query::Flows { limit, service, client } => {
                Answer::Flows(report::flows(&self.pipeline, now, limit, service, client))
            }
            Query::Tables { service, limit } => {
                let (entries, stats) = report::tables(&self.pipeline, now, service, limit);
                Answer::Tables(entries, stats)
            }
        };
        reply.send(answer);
    }

    fn port_views(&self) -> Vec<PortView> {
        let interfaces = self.pipeline.snapshot().interfaces.iter().zip(0u8..);
        let views = interfaces.map(|(interface, port)| PortView {
            name: interface.name.clone(),
            mac: self.pipeline.port(PortId(port)).map(|settings| settings.mac).unwrap_or_default(),
            link: self.io.link(PortId(port)),
            stats: self.io.port_stats(PortId(port)),
        });
        views.collect()
    }
}
