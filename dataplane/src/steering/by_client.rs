//! Which worker a client belongs to, where services preserve the client's address.
//!
//! The source port towards a server is the client's own then, so a card can bring both directions of a flow to one worker
//! only if it hashes what is the same in both: the client's address. Packets to VIPs are spread by their source, all others by
//! their destination. A card does not know services, so this holds for all of them: with [`ByClient`], flows of
//! services that do full NAT belong to the worker of their client's address as well, and get a SNAT address whose hash is that
//! worker's. Where a worker has no such address, pairs of SNAT address and port are divided as they are elsewhere, by the hash of
//! addresses and ports, and replies to them are handed over.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::address::{Address, FlowKey};
use crate::io::PortId;
use crate::neighbor::keyed::Keyed;
use crate::route::Routes;
use crate::rss::{CLIENT_KEY, DEFAULT_KEY, KEY_LEN, Toeplitz};
use crate::snapshot::Snapshot;

type Addresses = HashSet<Address, Keyed>;

/// Which address of a packet is the client's.
#[derive(Debug)]
pub struct ByClient {
    vips: Addresses,
    /// SNAT addresses whose ports are divided among the workers.
    divided: Addresses,
}

/// What the hash is computed with, here and on the cards.
pub(super) fn toeplitz() -> Toeplitz {
    Toeplitz::new(&CLIENT_KEY)
}

impl ByClient {
    /// For so many workers; `worker` says to which of them an address belongs.
    pub(super) fn new(snapshot: &Snapshot, workers: u8, worker: impl Fn(Address) -> u8) -> Self {
        let vips = snapshot.services.iter().flat_map(|service| &service.addresses);
        let mut divided = Addresses::default();
        for v4 in [true, false] {
            let family = snapshot.snat.addresses.iter().filter(|address| address.is_ipv4() == v4);
            let family: Vec<Address> = family.map(|address| (*address).into()).collect();
            let has_one = |number: u8| family.iter().any(|address| worker(*address) == number);
            if !(0..workers).all(has_one) {
                divided.extend(family);
            }
        }
        ByClient { vips: vips.map(|address| (*address).into()).collect(), divided }
    }

    /// The hash that decides where a packet with this key goes.
    pub(super) fn hash(&self, toeplitz: &Toeplitz, key: &FlowKey) -> u32 {
        if self.vips.contains(&key.destination) {
            toeplitz.hash_address(key.source)
        } else if self.divided.contains(&key.destination) {
            toeplitz.hash(key)
        } else {
            toeplitz.hash_address(key.destination)
        }
    }
}

/// By what the card of a port is to spread packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Addresses and ports.
    #[default]
    Flow,
    /// The source address: clients are on this side.
    Source,
    /// The destination address: servers are on this side.
    Destination,
    /// Both are on this side, and no card can tell which of two addresses is the client's: as `Flow`, and the workers hand
    /// over to each other what is not theirs.
    Both,
}

impl Spread {
    /// For the port of a configuration. Servers are on the side from which those are reached that see their clients'
    /// addresses. Clients are behind the default route and in the subnets of VIPs, and where no servers are.
    #[must_use]
    pub fn of(snapshot: &Snapshot, port: PortId) -> Self {
        if !snapshot.preserves_clients() {
            return Spread::Flow;
        }
        let routes = Routes::new(snapshot);
        let here = |address: IpAddr| routes.lookup(address.into()).is_some_and(|hop| hop.port == port);
        let preserving = || snapshot.services.iter().filter(|service| service.preserve_client_ip);
        let pools = preserving().flat_map(|service| snapshot.pools_of(service));
        let mut servers =
            pools.filter_map(|id| snapshot.pools.get(id.index())).flat_map(|pool| &pool.servers);
        if !servers.any(|id| snapshot.servers.get(id.index()).is_some_and(|server| here(server.address))) {
            return Spread::Source;
        }
        let mut defaults = snapshot.routes.iter().filter(|route| route.to.length == 0);
        let mut vips = preserving().flat_map(|service| &service.addresses);
        let clients = defaults.any(|route| here(route.via))
            || vips.any(|vip| snapshot.connected(*vip).is_some_and(|(of_vip, _)| of_vip == port))
            || snapshot.interfaces.len() == 1;
        if clients { Spread::Both } else { Spread::Destination }
    }

    /// The key that the card is given.
    #[must_use]
    pub fn key(self) -> &'static [u8; KEY_LEN] {
        match self {
            Spread::Flow => &DEFAULT_KEY,
            Spread::Source | Spread::Destination | Spread::Both => &CLIENT_KEY,
        }
    }
}

#[cfg(test)]
mod tests;
