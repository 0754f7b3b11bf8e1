//! Which service a destination belongs to.

use std::collections::HashMap;

use crate::address::Address;
use crate::neighbor::keyed::Keyed;
use crate::snapshot::{PortRange, ServiceId, Snapshot};

/// Destination address to services; built once per snapshot.
#[derive(Debug)]
pub struct Vips {
    by_address: HashMap<Address, Vec<(PortRange, ServiceId)>, Keyed>,
    /// Services that were found lately: `by_address` is asked only if another one is there.
    recent: [Option<(Destination, ServiceId)>; RECENT],
}

/// Size of [`Vips::recent`].
const RECENT: usize = 64;

/// Address, port and IP protocol.
type Destination = (Address, u16, u8);

/// Where it is among the recent ones.
#[inline]
fn place((Address([.., low]), port, _): &Destination) -> usize {
    usize::from(u16::from(*low) ^ port) % RECENT
}

impl Vips {
    /// All VIPs of a configuration. Those of services that are no longer in it have no service.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut by_address: HashMap<Address, Vec<(PortRange, ServiceId)>, Keyed> = HashMap::default();
        for (service, id) in snapshot.services.iter().zip(0u16..) {
            for address in &service.addresses {
                let ranges = by_address.entry((*address).into()).or_default();
                if !snapshot.retired.services.contains(&ServiceId(id)) {
                    ranges.extend(service.ports.iter().map(|range| (*range, ServiceId(id))));
                }
            }
        }
        Vips { by_address, recent: [None; RECENT] }
    }

    /// True if any service listens on `address`.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        self.by_address.contains_key(address)
    }

    /// The service on this address, IP protocol and port.
    #[inline]
    #[must_use]
    pub fn service(&mut self, address: &Address, protocol: u8, port: u16) -> Option<ServiceId> {
        let destination = (*address, port, protocol);
        match self.recent.get(place(&destination))? {
            Some((found, service)) if *found == destination => Some(*service),
            _ => self.search(destination),
        }
    }

    /// The same for one that was not found lately.
    fn search(&mut self, destination: Destination) -> Option<ServiceId> {
        let (address, port, protocol) = destination;
        let ranges = self.by_address.get(&address)?;
        let serves = |range: &PortRange| {
            range.protocol as u8 == protocol && (range.first..=range.last).contains(&port)
        };
        let service = ranges.iter().find(|(range, _)| serves(range)).map(|(_, id)| *id)?;
        *self.recent.get_mut(place(&destination))? = Some((destination, service));
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Protocol;

    #[test]
    fn a_destination_belongs_to_the_service_whose_range_and_protocol_match() {
        let mut snapshot = Snapshot::default();
        snapshot.add_service("dns", None, 1);
        snapshot.services[0].addresses = vec!["192.0.2.10".parse().unwrap()];
        snapshot.services[0].ports = vec![PortRange { protocol: Protocol::Udp, first: 53, last: 54 }];
        let mut vips = Vips::new(&snapshot);
        let vip = Address::from_v4([192, 0, 2, 10]);
        for _ in 0..2 {
            assert_eq!(vips.service(&vip, 17, 53), Some(ServiceId(0)));
            assert_eq!(vips.service(&vip, 17, 54), Some(ServiceId(0)));
            assert_eq!(vips.service(&vip, 17, 55), None);
            assert_eq!(vips.service(&vip, 6, 53), None);
            assert_eq!(vips.service(&Address::from_v4([192, 0, 2, 11]), 17, 53), None);
        }
    }

    /// As many services as these take each other's places among those that were found lately.
    #[test]
    fn services_that_share_a_place_are_told_apart() {
        let mut snapshot = Snapshot::default();
        for number in 0..4u8 {
            snapshot.add_service(&format!("s{number}"), None, 1);
            let service = &mut snapshot.services[usize::from(number)];
            service.addresses = vec![[192, 0, 2, 10 ^ (number & 1)].into()];
            let protocol = if number < 2 { Protocol::Udp } else { Protocol::Tcp };
            service.ports = vec![PortRange { protocol, first: 1, last: u16::MAX }];
        }
        let mut vips = Vips::new(&snapshot);
        for round in 0..1000u16 {
            for number in 0..4u8 {
                let (vip, protocol) =
                    (Address::from_v4([192, 0, 2, 10 ^ (number & 1)]), [17, 6][usize::from(number / 2)]);
                let port = (1 + round % 130) ^ u16::from(number & 1);
                let expected = (port != 0).then_some(ServiceId(u16::from(number)));
                assert_eq!(vips.service(&vip, protocol, port), expected, "{round} {number}");
            }
        }
    }
}
