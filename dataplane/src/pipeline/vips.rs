//! Which service a destination belongs to.

use std::collections::HashMap;

use crate::address::Address;
use crate::neighbor::keyed::Keyed;
use crate::snapshot::{PortRange, ServiceId, Snapshot};

/// Destination address to services; built once per snapshot.
#[derive(Debug, Default)]
pub struct Vips {
    by_address: HashMap<Address, Vec<(PortRange, ServiceId)>, Keyed>,
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
        Vips { by_address }
    }

    /// True if any service listens on `address`.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        self.by_address.contains_key(address)
    }

    /// The service on this address, IP protocol and port.
    #[must_use]
    pub fn service(&self, address: &Address, protocol: u8, port: u16) -> Option<ServiceId> {
        let ranges = self.by_address.get(address)?;
        let serves = |range: &PortRange| {
            range.protocol as u8 == protocol && (range.first..=range.last).contains(&port)
        };
        ranges.iter().find(|(range, _)| serves(range)).map(|(_, id)| *id)
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
        let vips = Vips::new(&snapshot);
        let vip = Address::from_v4([192, 0, 2, 10]);
        assert_eq!(vips.service(&vip, 17, 53), Some(ServiceId(0)));
        assert_eq!(vips.service(&vip, 17, 54), Some(ServiceId(0)));
        assert_eq!(vips.service(&vip, 17, 55), None);
        assert_eq!(vips.service(&vip, 6, 53), None);
        assert_eq!(vips.service(&Address::from_v4([192, 0, 2, 11]), 17, 53), None);
    }
}
