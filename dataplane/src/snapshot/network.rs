//! Ports, routes and source addresses.

use std::net::IpAddr;

/// An address with the prefix length of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// For an interface its own address, for a route the network.
    pub address: IpAddr,
    /// 0 to 32 or 128.
    pub length: u8,
}

impl Prefix {
    /// True if `other` is of the same family and inside the subnet.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32u32.saturating_sub(u32::from(self.length));
                a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128u32.saturating_sub(u32::from(self.length));
                a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// One port of the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name in the configuration.
    pub name: String,
    /// Own addresses with their subnets. ARP, ND, ping and health monitors answer and start from these.
    pub addresses: Vec<Prefix>,
    /// 802.1Q tag of every frame on this port, or `None` for untagged. Received frames with another tag are dropped.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
}

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination network.
    pub to: Prefix,
    /// Next hop, on the subnet of an interface.
    pub via: IpAddr,
}

/// The source addresses and ports that full NAT may use towards servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnatPool {
    /// Each inside the subnet of an interface; weir answers ARP and ND for them.
    pub addresses: Vec<IpAddr>,
    /// First port, inclusive.
    pub first_port: u16,
    /// Last port, inclusive. Ports above it are free for the health monitors' own connections.
    pub last_port: u16,
}
