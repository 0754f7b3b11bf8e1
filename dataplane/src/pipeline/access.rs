//! The parts of a pipeline, for its worker, for control and for tests.

use std::sync::Arc;

use super::Pipeline;
use crate::balance::Balancer;
use crate::channel::RecordSender;
use crate::counters::Counters;
use crate::flow_table::FlowTable;
use crate::io::{PortId, PortSettings};
use crate::neighbor::{NeighborId, Neighbors};
use crate::policy::Policy;
use crate::snapshot::Snapshot;
use crate::steering::Seat;
use crate::table::TableStore;

impl<P: Policy> Pipeline<P> {
    /// Which worker this is.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.steering.seat()
    }

    /// The configuration.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Counters; the worker moves those of verdicts and transmissions.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Server states.
    #[must_use]
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Server states, for control's commands.
    pub fn balancer_mut(&mut self) -> &mut Balancer {
        &mut self.balancer
    }

    /// Script tables.
    #[must_use]
    pub fn tables(&self) -> &TableStore {
        &self.tables
    }

    /// Script tables, for what other workers have to know of them.
    pub fn tables_mut(&mut self) -> &mut TableStore {
        &mut self.tables
    }

    /// Flows.
    #[must_use]
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Neighbours.
    pub fn neighbors_mut(&mut self) -> &mut Neighbors {
        &mut self.neighbors
    }

    /// The MAC address of a neighbour, if it is known.
    #[must_use]
    pub fn neighbor_mac(&self, id: NeighborId) -> Option<[u8; 6]> {
        self.neighbors.mac(id)
    }

    /// The scripts.
    #[must_use]
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// The scripts, for their housekeeping.
    pub fn policy_mut(&mut self) -> &mut P {
        &mut self.policy
    }

    /// The port's own MAC address and tag.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&PortSettings> {
        self.ports.get(port.index())
    }

    /// Sends the records of flows that end from now on this way, in the order of their ends.
    pub fn report_to(&mut self, records: RecordSender) {
        self.records = records;
    }

    /// The next IP packet for the control thread.
    pub fn poll_punted(&mut self) -> Option<Vec<u8>> {
        self.punted.pop_front()
    }

    /// The next neighbour that became known; packets that wait for it can leave.
    pub fn poll_resolved(&mut self) -> Option<NeighborId> {
        self.resolved.pop_front()
    }

    /// Slow-path records in use; 0 when nothing but bound, silent flows is left.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.in_use()
    }

    /// TCP flows whose handshake is not complete, and flows that wait for a script or a server: what the limits of
    /// these names are about.
    #[must_use]
    pub fn undecided(&self) -> (u32, u32) {
        (self.embryonic, self.waiting)
    }

    /// Neighbours that flows refer to.
    #[must_use]
    pub fn neighbors_in_use(&self) -> usize {
        self.neighbors.in_use()
    }

    /// Datagrams of which fragments are missing, and blocks of memory that they use.
    #[must_use]
    pub fn fragments(&self) -> (usize, usize) {
        self.reassembly.in_use()
    }

    /// Timers that will fire.
    #[must_use]
    pub fn timers(&self) -> u32 {
        self.wheel.len()
    }
}
