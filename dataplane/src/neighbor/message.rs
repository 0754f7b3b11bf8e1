//! What ARP and ND messages say about neighbours, and what is asked of these.

use crate::address::Address;
use crate::counters::DropReason;
use crate::frame::Link;
use crate::header::{BROADCAST, Mac};
use crate::io::{PacketBuf, PortId};

/// What a received ARP or ND message says about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The port it came in by.
    pub port: PortId,
    /// The neighbour.
    pub address: Address,
    /// Its MAC address; an advertisement may come without.
    pub mac: Option<Mac>,
    /// How much that is worth.
    pub evidence: Evidence,
}

/// How an [`Observation`] was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The neighbour asked for one of weir's addresses: it exists, but whether it hears weir is open.
    Request,
    /// The neighbour told its address. An ARP reply is solicited, a gratuitous ARP is not; both override.
    Advertisement {
        /// It answers a question of weir's, so the path works both ways.
        solicited: bool,
        /// It replaces another MAC address.
        overrides: bool,
    },
}

/// A question to send: an ARP request or a neighbour solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The port to send it by.
    pub port: PortId,
    /// The neighbour asked for.
    pub target: Address,
    /// Its MAC address as far as known: the question goes to it alone; `None`: to all.
    pub mac: Option<Mac>,
}

impl Solicitation {
    /// Makes `buf` the frame to send. `own` is the port's MAC address, `vlan` its tag, `source` weir's address there
    /// ([`crate::route::NextHop::source`]).
    ///
    /// # Errors
    /// `NoBuffer`: no room. `Malformed`: `source` is of the other family.
    pub fn build<B: PacketBuf>(
        &self,
        buf: &mut B,
        own: Mac,
        vlan: Option<u16>,
        source: Address,
    ) -> Result<(), DropReason> {
        if self.target.is_v4() {
            let link = Link { source_mac: own, destination_mac: self.mac.unwrap_or(BROADCAST), vlan };
            crate::arp::request(buf, &link, source, self.target)
        } else {
            crate::nd::solicit(buf, own, vlan, source, self.target, self.mac)
        }
    }
}
