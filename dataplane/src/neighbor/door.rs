//! What the fast path needs of the neighbours, in as few bytes as possible.

use super::NeighborId;
use crate::frame::Link;
use crate::header::Mac;
use crate::io::{PortId, PortSettings};

/// A neighbour that packets of flows can leave to without further ado, with all that they need on the link.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// Its MAC address, then the port's own.
    pub macs: [u8; 12],
    /// Its id, or [`CLOSED`].
    id: NeighborId,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The port that leads there.
    pub port: PortId,
    /// Whether frames have a tag there.
    pub tagged: bool,
    /// Which one.
    pub vlan: u16,
}

impl Door {
    /// The Ethernet side of packets that leave by it.
    #[inline]
    #[must_use]
    pub fn link(&self) -> Link {
        let [destination_mac, source_mac] = zerocopy::transmute!(self.macs);
        Link { source_mac, destination_mac, vlan: self.tagged.then_some(self.vlan) }
    }
}

/// No id is like that: there are no more than 65,535 slots.
const CLOSED: NeighborId = NeighborId(u32::MAX);

/// The doors of all slots of a table of neighbours.
#[derive(Debug)]
pub(super) struct Doors {
    doors: Vec<Door>,
    ports: Vec<PortSettings>,
}

impl Doors {
    /// For that many neighbours, all closed.
    pub(super) fn new(capacity: u16) -> Self {
        Doors { doors: Vec::with_capacity(usize::from(capacity)), ports: Vec::new() }
    }

    pub(super) fn with_ports(self, ports: &[PortSettings]) -> Self {
        Doors { ports: ports.to_vec(), ..self }
    }

    #[inline]
    pub(super) fn find(&self, id: NeighborId) -> Option<&Door> {
        self.doors.get(usize::from(id.slot())).filter(|door| door.id == id)
    }

    /// The neighbour has this address on this port.
    pub(super) fn open(&mut self, id: NeighborId, port: PortId, mac: Mac) {
        let Some(settings) = self.ports.get(port.index()).copied() else { return };
        let door = Door {
            macs: zerocopy::transmute!([mac, settings.mac]),
            id,
            mtu: settings.mtu,
            port,
            tagged: settings.vlan.is_some(),
            vlan: settings.vlan.unwrap_or(0),
        };
        self.put(id.slot(), door);
    }

    /// The neighbour in this slot needs a closer look.
    pub(super) fn close(&mut self, slot: u16) {
        let closed = Door { macs: [0; 12], id: CLOSED, mtu: 0, port: PortId(0), tagged: false, vlan: 0 };
        self.put(slot, closed);
    }

    /// Slots come into use one after the other.
    fn put(&mut self, slot: u16, door: Door) {
        match self.doors.get_mut(usize::from(slot)) {
            Some(old) => *old = door,
            None => self.doors.push(door),
        }
    }
}
