//! The record of one flow: all that is kept of it in the flow table.

use smoltcp::time::{Duration, Instant};
use tcp::{Lifecycle, Splice, Track};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::address::{Address, FlowKey};
use crate::header::PROTOCOL_TCP;
use crate::snapshot::ServerId;

/// Value of [`Flow::connection`], [`Flow::client_hop`] and [`Flow::server_hop`] that means: none.
pub const NONE: u32 = u32::MAX;

/// Value of [`Flow::server`] that means: none.
pub const NO_SERVER: u16 = u16::MAX;

/// Bit of [`Flow::flags`]: packets of the bound flow do not take the fast path, because somebody wants to see them.
pub const INSPECT: u8 = 0x01;
/// Bit of [`Flow::flags`]: the flow is on the list of those that may have something to send.
pub const DIRTY: u8 = 0x02;
/// Bit of [`Flow::flags`]: it was the server that sent RST.
pub const RESET_BY_SERVER: u8 = 0x04;
/// Bit of [`Flow::flags`]: the flow is reported and no longer counted; only late packets may still come.
pub const CONCLUDED: u8 = 0x08;
/// Bit of [`Flow::flags`]: one of the keys is not IPv4. Set by the flow alone.
const WIDE: u8 = 0x40;
/// Bit of [`Flow::flags`]: the client's key has a branch. Set by the flow alone.
const BRANCHED: u8 = 0x80;

/// Where the packets of a flow come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the VIP.
    FromClient,
    /// From the server to the SNAT address.
    FromServer,
}

/// Phase of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// No flow: the slot is free.
    Free = 0,
    /// TCP: the client's handshake is not complete.
    Embryonic = 1,
    /// No server is chosen: a script waits for payload.
    Waiting = 2,
    /// A server is chosen and its handshake, or the replay to it, is not complete.
    Connecting = 3,
    /// Packets are translated.
    Bound = 4,
    /// weir itself is ending the connection.
    Closing = 5,
    /// Over; the slot is kept for late packets.
    Lingering = 6,
}

impl FlowState {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => FlowState::Embryonic,
            2 => FlowState::Waiting,
            3 => FlowState::Connecting,
            4 => FlowState::Bound,
            5 => FlowState::Closing,
            6 => FlowState::Lingering,
            _ => FlowState::Free,
        }
    }
}

/// One flow, in both directions: plain data of 192 bytes, owned by a [`crate::flow_table::FlowTable`].
///
/// Three cache lines. Translating a datagram over IPv4 touches the first, a segment the first two; IPv6 addresses and what
/// is of interest only at the beginning and the end of a flow are in the third.
///
/// The table alone writes the keys, because they are what it finds the flow by. All other fields belong to the
/// pipeline; a new flow has [`FlowState::Embryonic`], no hops, no connection, no server, and zeros.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Flow {
    /// Without [`WIDE`]: source and destination of packets from the client. With it: the first half of the client's address.
    client_addresses: u64,
    /// Without [`WIDE`]: source and destination of packets from the server. With it: the rest of the client's address.
    server_addresses: u64,
    client_ports: u32,
    server_ports: u32,
    /// Neighbour through which packets leave towards the client, or [`NONE`].
    pub client_hop: u32,
    /// Neighbour through which packets leave towards the server, or [`NONE`].
    pub server_hop: u32,
    /// Payload bytes from the client.
    pub client_bytes: u64,
    /// Payload bytes from the server.
    pub server_bytes: u64,
    /// Packets from the client, wrapping.
    pub client_packets: u32,
    /// Packets from the server, wrapping.
    pub server_packets: u32,
    /// Time of the last packet in milliseconds, wrapping after 49 days.
    pub last_seen: u32,
    client_protocol: u8,
    /// 0 while there is no server key.
    server_protocol: u8,
    state: u8,
    /// Bits such as [`INSPECT`].
    pub flags: u8,

    /// How TCP segments are translated; of no meaning before the flow is [`FlowState::Bound`].
    pub splice: Splice,
    /// Where a TCP connection stands; of no meaning before the flow is [`FlowState::Bound`].
    pub track: Track,
    /// The client's TSval: the last one where weir puts timestamps into packets of the server, else that of its FIN.
    pub client_timestamp: u32,
    /// Index of the slow-path record, or [`NONE`].
    pub connection: u32,
    /// Odd while the flow lives; goes up when it begins and when it ends.
    pub(crate) generation: u32,
    /// While the slot is free: index + 1 of the next free slot, 0 for the last.
    pub(crate) next_free: u32,
    lifecycle: u8,
    reserved: [u8; 3],

    /// Time of the first packet in microseconds.
    pub started: u64,
    /// With [`WIDE`]: the VIP, the server, the SNAT address.
    others: [Address; 3],
    /// Index of the virtual service.
    pub service: u16,
    /// Index of the server, or [`NO_SERVER`].
    pub server: u16,
    branch: u16,
    reserved_too: u16,
}

impl Flow {
    /// A flow that has just begun.
    pub(crate) fn begin(client_key: FlowKey, generation: u32) -> Self {
        let mut flow = Flow {
            client_ports: ports_of(&client_key),
            client_protocol: client_key.protocol,
            branch: client_key.branch,
            client_hop: NONE,
            server_hop: NONE,
            connection: NONE,
            server: NO_SERVER,
            state: FlowState::Embryonic as u8,
            generation,
            ..Flow::new_zeroed()
        };
        match narrow(&client_key) {
            Some(addresses) => flow.client_addresses = addresses,
            None => flow.set_wide(client_key.source, client_key.destination),
        }
        if client_key.branch != 0 {
            flow.flags |= BRANCHED;
        }
        flow
    }

    /// The key of packets as they arrive from the client: from the client to the VIP.
    #[inline]
    #[must_use]
    pub fn client_key(&self) -> FlowKey {
        let (source, destination) = match self.wide() {
            Some((client, [vip, ..])) => (client, vip),
            None => widened(self.client_addresses),
        };
        FlowKey { branch: self.branch, ..key(source, destination, self.client_ports, self.client_protocol) }
    }

    /// The key of packets as they arrive from the server: from the server to the SNAT address. All zero while the flow
    /// is not bound, see [`Flow::is_bound`].
    #[inline]
    #[must_use]
    pub fn server_key(&self) -> FlowKey {
        if !self.is_bound() {
            return FlowKey::default();
        }
        let (source, destination) = match self.wide() {
            Some((_, [_, server, snat])) => (server, snat),
            None => widened(self.server_addresses),
        };
        key(source, destination, self.server_ports, self.server_protocol)
    }

    /// True if packets of the server find this flow: the table has been given a server key.
    #[inline]
    #[must_use]
    pub fn is_bound(&self) -> bool {
        // No packet has the protocol number 0 (it is an IPv6 extension header's).
        self.server_protocol != 0
    }

    /// Keys of servers have no branch.
    pub(crate) fn set_server_key(&mut self, key: FlowKey) {
        self.server_ports = ports_of(&key);
        self.server_protocol = key.protocol;
        match (narrow(&key), self.wide()) {
            (Some(addresses), None) => self.server_addresses = addresses,
            (_, Some((_, [vip, ..]))) => self.others = [vip, key.source, key.destination],
            (None, None) => {
                let (client, vip) = widened(self.client_addresses);
                self.set_wide(client, vip);
                self.others = [vip, key.source, key.destination];
            }
        }
    }

    pub(crate) fn clear_server_key(&mut self) {
        self.server_protocol = 0;
    }

    /// The key of packets of that direction.
    #[inline]
    #[must_use]
    pub fn key(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::FromClient => self.client_key(),
            Direction::FromServer => self.server_key(),
        }
    }

    /// True if this is the key of that direction; `narrow` is [`FlowKey::narrow`] of it.
    pub(crate) fn has_key(&self, direction: Direction, narrow: Option<(u64, u64)>, key: &FlowKey) -> bool {
        let (own, ports, protocol, branch) = match direction {
            Direction::FromClient => {
                (self.client_addresses, self.client_ports, self.client_protocol, self.branch)
            }
            Direction::FromServer => (self.server_addresses, self.server_ports, self.server_protocol, 0),
        };
        match narrow.filter(|_| self.flags & WIDE == 0) {
            Some((addresses, _)) => {
                let same = (own == addresses) & (ports == ports_of(key)) & (protocol == key.protocol);
                same & (branch == key.branch) & (key.reserved == 0)
            }
            None => self.key(direction) == *key,
        }
    }

    /// True if packets of this direction with this [narrow](FlowKey::narrow) key belong to the flow, which is
    /// [`FlowState::Bound`] and not to be inspected: all that has to be done is in the first line, and for TCP the second.
    #[inline]
    pub(crate) fn is_plain(&self, direction: Direction, key: (u64, u64)) -> bool {
        self.is_narrow(direction, key) & (self.flags & INSPECT == 0) && self.state == FlowState::Bound as u8
    }

    /// True if packets of this direction with this [narrow](FlowKey::narrow) key belong to the flow.
    #[inline]
    pub(crate) fn is_narrow(&self, direction: Direction, (addresses, rest): (u64, u64)) -> bool {
        let (own, ports, protocol) = match direction {
            Direction::FromClient => (self.client_addresses, self.client_ports, self.client_protocol),
            Direction::FromServer => (self.server_addresses, self.server_ports, self.server_protocol),
        };
        let [source, destination, [of_key, ..], _]: [[u8; 2]; 4] = zerocopy::transmute!(rest);
        let of_packet: u32 = zerocopy::transmute!([source, destination]);
        // The key of the client side only can have a branch, and then it is not that of a packet.
        let unusual = self.flags & (WIDE | BRANCHED);
        (own == addresses) & (ports == of_packet) & (protocol == of_key) & (unusual == 0)
    }

    /// Source and destination, ports, and next hop that a packet of this direction leaves with, if [`Flow::is_plain`].
    #[inline]
    pub(crate) fn onward(&self, direction: Direction) -> (u64, u32, u32) {
        let (addresses, ports, hop) = match direction {
            Direction::FromClient => (self.server_addresses, self.server_ports, self.server_hop),
            Direction::FromServer => (self.client_addresses, self.client_ports, self.client_hop),
        };
        (addresses.rotate_left(32), ports.rotate_left(16), hop)
    }

    /// As [`Flow::onward`], where all addresses of this direction are there and IPv4.
    #[inline]
    pub(crate) fn narrow_onward(&self, direction: Direction) -> Option<(u64, u32, u32)> {
        let there = direction == Direction::FromServer || self.is_bound();
        (there && self.flags & WIDE == 0).then(|| self.onward(direction))
    }

    /// The client's address, and the VIP, the server and the SNAT address, where they do not fit in narrow.
    #[inline]
    fn wide(&self) -> Option<(Address, [Address; 3])> {
        let halves = [self.client_addresses, self.server_addresses];
        (self.flags & WIDE != 0).then(|| (Address(zerocopy::transmute!(halves)), self.others))
    }

    fn set_wide(&mut self, client: Address, vip: Address) {
        self.flags |= WIDE;
        [self.client_addresses, self.server_addresses] = zerocopy::transmute!(client.0);
        self.others = [vip, Address::default(), Address::default()];
    }

    /// True for TCP, else the flow is UDP.
    #[inline]
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.client_protocol == PROTOCOL_TCP
    }

    /// The phase.
    #[inline]
    #[must_use]
    pub fn state(&self) -> FlowState {
        FlowState::from_byte(self.state)
    }

    /// Changes the phase.
    #[inline]
    pub fn set_state(&mut self, state: FlowState) {
        self.state = state as u8;
    }

    /// Where the TCP connection of a bound flow stands.
    #[inline]
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        Lifecycle::from(self.lifecycle)
    }

    /// Notes where the TCP connection stands.
    #[inline]
    pub fn set_lifecycle(&mut self, lifecycle: Lifecycle) {
        self.lifecycle = lifecycle as u8;
    }

    /// The server, once chosen.
    #[inline]
    #[must_use]
    pub fn server_id(&self) -> Option<ServerId> {
        (self.server != NO_SERVER).then_some(ServerId(self.server))
    }

    /// Forgets the server and the hop to it. The server key stays until [`crate::flow_table::FlowTable::unbind`].
    pub fn clear_server(&mut self) {
        self.server = NO_SERVER;
        self.server_hop = NONE;
    }

    /// Counts one packet of `bytes` bytes of IP.
    #[inline]
    pub fn count(&mut self, direction: Direction, bytes: u64) {
        let (packets, total) = match direction {
            Direction::FromClient => (&mut self.client_packets, &mut self.client_bytes),
            Direction::FromServer => (&mut self.server_packets, &mut self.server_bytes),
        };
        *packets = packets.wrapping_add(1);
        *total = total.wrapping_add(bytes);
    }

    /// Notes that a packet was seen at `now`.
    #[inline]
    pub fn touch(&mut self, now: Instant) {
        self.touch_at(milliseconds(now));
    }

    /// The same for a time that is at hand as [`milliseconds`].
    #[inline]
    pub(crate) fn touch_at(&mut self, milliseconds: u32) {
        self.last_seen = milliseconds;
    }

    /// Time since the last packet, exact to a millisecond up to 49 days.
    #[must_use]
    pub fn idle(&self, now: Instant) -> Duration {
        Duration::from_millis(u64::from(milliseconds(now).wrapping_sub(self.last_seen)))
    }
}

/// Ports as they are on the wire.
fn ports_of(key: &FlowKey) -> u32 {
    zerocopy::transmute!([key.source_port.to_be(), key.destination_port.to_be()])
}

/// Source and destination as they are in the packet, if both are IPv4 addresses.
fn narrow(key: &FlowKey) -> Option<u64> {
    let addresses: [[u8; 4]; 2] = [key.source.v4()?, key.destination.v4()?];
    Some(zerocopy::transmute!(addresses))
}

/// The reverse of [`narrow`].
#[inline]
fn widened(addresses: u64) -> (Address, Address) {
    let [source, destination]: [[u8; 4]; 2] = zerocopy::transmute!(addresses);
    (Address::from_v4(source), Address::from_v4(destination))
}

#[inline]
fn key(source: Address, destination: Address, ports: u32, protocol: u8) -> FlowKey {
    let [source_port, destination_port]: [u16; 2] = zerocopy::transmute!(ports);
    FlowKey {
        source,
        destination,
        source_port: u16::from_be(source_port),
        destination_port: u16::from_be(destination_port),
        protocol,
        ..FlowKey::default()
    }
}

/// The lower 32 bits of the milliseconds.
pub(crate) fn milliseconds(now: Instant) -> u32 {
    now.total_millis() as u32
}

#[cfg(test)]
mod tests;
