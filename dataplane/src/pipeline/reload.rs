//! Another configuration takes the place of the present one.

use std::sync::Arc;

use super::connection::Connection;
use super::destinations::Destinations;
use super::preserve::Preserved;
use super::terms::Offers;
use super::transmit::Originated;
use super::vips::Vips;
use super::{Pipeline, own_addresses};
use crate::address::Address;
use crate::io::PortId;
use crate::overlay::InUse;
use crate::policy::{Policy, Selection};
use crate::snapshot::Snapshot;
use crate::steering::Steering;
use crate::uses::Uses;

impl<P: Policy> Pipeline<P> {
    /// Goes on with a configuration that is laid over the present one ([`Snapshot::overlaid`]) and that the policy has
    /// prepared. New flows begin by it. Flows that exist keep their servers, their translation and the settings and
    /// scripts of their service as these were. Addresses that are new are announced. ARP and ND are answered for the VIPs of
    /// retired services until these are empty: the clients of their flows ask, too.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        let seat = self.seat();
        self.vips = Vips::new(&self.snapshot);
        self.offers = Offers::new(&self.snapshot);
        self.steering = Steering::of(seat, &self.snapshot);
        self.preserved = Preserved::new(&self.snapshot);
        self.destinations = Destinations::new(&self.snapshot, &self.routes);
        self.balancer.lay_over(&old, &self.snapshot, seat);
        self.tables.lay_over(&self.snapshot);
        self.uses.lay_over(&self.snapshot);
        self.policy.adopt();
        let own = own_addresses(&self.snapshot);
        let before = std::mem::replace(&mut self.own, own.clone());
        let known = |(port, address): &(PortId, Address)| {
            before.binary_search_by_key(&(*port, address.0), |(port, address)| (*port, address.0)).is_ok()
        };
        // Once is enough.
        for (port, address) in own.into_iter().filter(|own| seat.number == 0 && !known(own)) {
            self.originate(Originated::Announcement { port, address });
        }
    }

    /// What of the retired things this worker names, and where to go on: some connections from this place on, and with the
    /// first and the last of them what is counted, at no cost per flow. What a connection gives its flow between two questions is
    /// counted in the end; what a flow leaves to its connection, as a server that was tried, was counted at the start. Behind
    /// all connections nothing but what is counted is left to say.
    #[must_use]
    pub fn in_use(&self, first: u32) -> (InUse, Option<u32>) {
        let mut in_use = InUse::default();
        let end = first.saturating_add(LOOKED_AT);
        (first..end).filter_map(|index| self.connections.peek(index)).for_each(|it| name(it, &mut in_use));
        let retired = &self.snapshot.retired;
        in_use.servers.retain(|id| retired.servers.contains(id));
        in_use.pools.retain(|id| retired.pools.contains(id));
        in_use.pool_groups.retain(|id| retired.pool_groups.contains(id));
        let last = end >= self.connections.places();
        if first == 0 || last {
            self.add_counted(&mut in_use);
        }
        (in_use, (!last).then_some(end))
    }

    /// What flows and tables name.
    fn add_counted(&self, in_use: &mut InUse) {
        let retired = &self.snapshot.retired;
        let services = retired.services.iter().copied();
        in_use.services.extend(services.clone().filter(|id| self.uses.of_service(*id) > 0));
        in_use.tables.extend(services.filter(|id| self.tables.stats(*id).entries > 0));
        in_use.servers.extend(retired.servers.iter().copied().filter(|id| self.uses.of_server(*id) > 0));
    }

    /// Flows by service and by server.
    #[must_use]
    pub fn uses(&self) -> &Uses {
        &self.uses
    }
}

/// Connections that are looked at between two bursts.
const LOOKED_AT: u32 = 1 << 8;

/// What a connection may give its flow: nothing, once it is settled.
fn name(connection: &Connection, in_use: &mut InUse) {
    if connection.is_settled() {
        return;
    }
    in_use.pools.extend(connection.pool);
    in_use.servers.extend(connection.tried.iter().copied());
    in_use.servers.extend(connection.record.persist.as_ref().and_then(|persist| persist.server));
    for selection in [connection.selection, connection.record.selection].into_iter().flatten() {
        match selection {
            Selection::Pool(pool) => in_use.pools.extend([pool]),
            Selection::PoolGroup(group) => in_use.pool_groups.extend([group]),
            Selection::Server(server) => in_use.servers.extend([server]),
        }
    }
}
