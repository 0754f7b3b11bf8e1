//! Whom servers are chosen for.

use std::net::IpAddr;

use crate::address::Address;

/// Address family, also the index of what is kept per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The one of a pair (IPv4, IPv6) that belongs to this family.
    pub(super) fn choose<T>(self, [v4, v6]: [T; 2]) -> T {
        match self {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// Whom a server is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What the client address hash is about.
    pub(super) address: Address,
    /// Of the packets, and therefore of the server.
    pub(super) family: Family,
}

impl Client {
    /// Somebody at `address` whose packets have the family of `vip`: not always that of the address, if a PROXY header
    /// names it.
    #[must_use]
    pub fn reached_at(address: IpAddr, vip: IpAddr) -> Self {
        Client { address: address.into(), family: Family::of(vip) }
    }
}

impl From<Address> for Client {
    /// Somebody whose packets come from this address.
    fn from(address: Address) -> Self {
        Client { address, family: if address.is_v4() { Family::V4 } else { Family::V6 } }
    }
}

impl From<IpAddr> for Client {
    /// Somebody whose packets come from this address.
    fn from(address: IpAddr) -> Self {
        Client { address: address.into(), family: Family::of(address) }
    }
}
