//! Where packets to each server go: what a new flow has to know of its server, in one place.

use crate::address::Address;
use crate::io::PortId;
use crate::route::Routes;
use crate::snapshot::{PoolId, ServerId, Snapshot};

/// By [`ServerId`]; built once per snapshot.
#[derive(Debug, Default)]
pub(super) struct Destinations(Vec<Option<Destination>>);

/// Of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Its own address.
    pub(super) address: Address,
    /// Port and neighbour that lead there, if a route does.
    pub(super) hop: Option<(PortId, Address)>,
    /// Its pool.
    pub(super) pool: PoolId,
    /// `None`: packets keep the port of the service.
    port: Option<u16>,
}

impl Destination {
    /// Where packets go that the client sent to this port.
    #[inline]
    pub(super) fn socket(&self, service_port: u16) -> (Address, u16) {
        (self.address, self.port.unwrap_or(service_port))
    }
}

impl Destinations {
    /// Those of all servers of a configuration that have a pool.
    pub(super) fn new(snapshot: &Snapshot, routes: &Routes) -> Self {
        let destinations = snapshot.servers.iter().map(|server| {
            let pool = snapshot.pools.get(server.pool.index())?;
            let address = Address::from(server.address);
            Some(Destination {
                address,
                hop: routes.lookup(address).map(|hop| (hop.port, hop.address)),
                pool: server.pool,
                port: pool.port_translation.then_some(server.port),
            })
        });
        Destinations(destinations.collect())
    }

    /// That of a server.
    #[inline]
    pub(super) fn of(&self, server: ServerId) -> Option<&Destination> {
        self.0.get(server.index())?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Algorithm, Interface, Prefix};

    /// Two pools at the same server, of which the second keeps the ports of its services; a server without a route, and one
    /// without a pool.
    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let own = Prefix { address: "10.0.0.1".parse().unwrap(), length: 24 };
        snapshot.interfaces =
            vec![Interface { name: String::new(), addresses: vec![own], vlan: None, mtu: 1500 }];
        snapshot.add_pool("translated", Algorithm::RoundRobin, &["10.0.0.7:8080", "192.0.2.7:8080"]);
        snapshot.add_pool("kept", Algorithm::RoundRobin, &["10.0.0.7:8080", "10.0.0.8:8080"]);
        snapshot.pools[1].port_translation = false;
        snapshot.servers[3].pool = PoolId(9);
        snapshot
    }

    #[test]
    fn a_server_has_its_address_its_port_or_the_service_s_and_a_hop_if_there_is_a_route() {
        let snapshot = snapshot();
        let destinations = Destinations::new(&snapshot, &Routes::new(&snapshot));
        let near = Address::from_v4([10, 0, 0, 7]);
        let of = |server| destinations.of(ServerId(server));
        let seen = |server| of(server).map(|there| (there.socket(53), there.hop, there.pool));
        assert_eq!(seen(0), Some(((near, 8080), Some((PortId(0), near)), PoolId(0))));
        assert_eq!(seen(1), Some(((Address::from_v4([192, 0, 2, 7]), 8080), None, PoolId(0))));
        assert_eq!(seen(2), Some(((near, 53), Some((PortId(0), near)), PoolId(1))));
        assert_eq!((of(3), of(4)), (None, None));
    }
}
