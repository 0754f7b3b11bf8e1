//! Another configuration takes the place of the present one.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::destinations::Destinations;
use super::preserve::Preserved;
use super::terms::Offers;
use super::transmit::Originated;
use super::vips::Vips;
use super::{Pipeline, own_addresses};
use crate::address::Address;
use crate::io::PortId;
use crate::policy::Policy;
use crate::snapshot::{ServiceId, Snapshot};
use crate::steering::Steering;

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

    /// The services of the flows in a range of places of the table, each once.
    #[must_use]
    pub fn services_in_use(&self, places: Range<u32>) -> BTreeSet<ServiceId> {
        let flows = self.flows.live_in(places).filter_map(|id| self.flows.flow(id));
        flows.map(|flow| ServiceId(flow.service)).collect()
    }
}
