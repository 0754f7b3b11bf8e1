//! The record of one flow: all that is kept of it in the flow table.

mod keys;

use smoltcp::time::{Duration, Instant};
use tcp::{Lifecycle, Splice, Track};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::address::FlowKey;
use crate::header::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::snapshot::ServerId;
pub use keys::FlowRef;
pub(crate) use keys::{Ends, Kind, Wide};

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
/// Bit of [`Flow::flags`]: the flow is UDP, not TCP. Set by the flow alone. It is a bit of the one protocol number and not of
/// the other, so that no comparison is needed.
const UDP: u8 = PROTOCOL_UDP & !PROTOCOL_TCP & 0x10;
/// Bit of [`Flow::flags`]: there is a server key. Set by the flow alone.
const SERVER_KEY: u8 = 0x20;
/// Bit of [`Flow::flags`]: one of the keys is not IPv4. Set by the flow alone.
const WIDE: u8 = 0x40;
/// Bit of [`Flow::flags`]: the client's key has a branch. Set by the flow alone.
const BRANCHED: u8 = 0x80;

/// Bits of [`Flow::phase`] that are the [`FlowState`].
const STATE: u8 = 0x0f;
/// Where in [`Flow::phase`] the [`Lifecycle`] begins.
const LIFECYCLE: u32 = 4;
/// In the second half of a [narrow](FlowKey::narrow) key: [`Flow::is_plain`] is not to know it. No state has this bit.
pub(crate) const ASIDE: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0x08, 0, 0]);
/// Bits of the time of the first packet.
const MICROS: u64 = (1 << 48) - 1;

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

/// One flow, in both directions: plain data of 128 bytes, owned by a [`crate::flow_table::FlowTable`].
///
/// Two cache lines. Translating a datagram over IPv4 touches the first, a segment both. Addresses of IPv6 have no room here:
/// the table keeps them in a line beside it, and [`FlowRef`] knows where.
///
/// The table alone writes the keys, because they are what it finds the flow by. All other fields belong to the
/// pipeline; a new flow has [`FlowState::Embryonic`], no hops, no connection, no server, and zeros.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Flow {
    /// Source and destination of packets from the client; of no meaning with [`WIDE`].
    client_addresses: u64,
    /// Source and destination of packets from the server; of no meaning with [`WIDE`].
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
    /// Time of the first packet in microseconds, wrapping after 8.9 years: the upper 16 of its 48 bits.
    started_high: u16,
    /// [`FlowState`] in the lower half, [`Lifecycle`] in the upper.
    phase: u8,
    /// Bits such as [`INSPECT`].
    pub flags: u8,

    /// How TCP segments are translated; of no meaning before the flow is [`FlowState::Bound`].
    pub splice: Splice,
    /// Where a TCP connection stands; of no meaning before the flow is [`FlowState::Bound`].
    pub track: Track,
    /// TCP: [`Flow::client_timestamp`]. UDP: [`FlowKey::branch`] of the client's key.
    timestamp_or_branch: u32,
    /// Index of the slow-path record, or [`NONE`]. While the slot is free: [`Flow::next_free`].
    pub connection: u32,
    /// Odd while the flow lives; goes up when it begins and when it ends.
    pub(crate) generation: u32,
    /// The lower 32 bits of the time of the first packet.
    started_low: u32,
    /// Index of the virtual service.
    pub service: u16,
    /// Index of the server, or [`NO_SERVER`].
    pub server: u16,
}

impl Flow {
    /// A flow that has just begun, over TCP or UDP. Only the key of a UDP flow can have a branch.
    pub(crate) fn begin(client_key: &FlowKey, generation: u32) -> Self {
        let mut flow = Flow {
            client_hop: NONE,
            server_hop: NONE,
            connection: NONE,
            server: NO_SERVER,
            phase: FlowState::Embryonic as u8,
            generation,
            ..Flow::new_zeroed()
        };
        flow.set_client_key(client_key);
        flow
    }

    /// True if packets of the server find this flow: the table has been given a server key.
    #[inline]
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.flags & SERVER_KEY != 0
    }

    /// True if packets of this direction with this [narrow](FlowKey::narrow) key belong to the flow, which is
    /// [`FlowState::Bound`] and not to be inspected: all that has to be done is in the first line, and for TCP the second.
    /// The table has found it by a key of that direction; so it has one. A key that is set [`ASIDE`] belongs to none.
    #[inline]
    pub(crate) fn is_plain(&self, direction: Direction, key: (u64, u64)) -> bool {
        let [protocol, aside] = protocol_of(key);
        let looked_at = u16::from_ne_bytes([STATE, INSPECT | WIDE | BRANCHED | UDP]);
        let wanted = u16::from_ne_bytes([FlowState::Bound as u8 | aside, protocol & UDP]);
        let found = u16::from_ne_bytes([self.phase, self.flags]) & looked_at;
        self.is_between(direction, key) & (found == wanted)
    }

    /// True if packets of this direction with this [narrow](FlowKey::narrow) key, of TCP or UDP, belong to the flow.
    #[inline]
    pub(crate) fn is_narrow(&self, direction: Direction, key: (u64, u64)) -> bool {
        let [protocol, aside] = protocol_of(key);
        // An earlier packet of the burst may have taken the server's key away; what it was is still there.
        let there = if direction == Direction::FromServer { SERVER_KEY } else { 0 };
        let found = self.flags & (WIDE | BRANCHED | UDP | there);
        self.is_between(direction, key) & (found == (protocol & UDP | there)) & (aside == 0)
    }

    /// Addresses and ports alone. The key of the client side only can have a branch, and then it is not that of a packet.
    #[inline]
    fn is_between(&self, direction: Direction, (addresses, rest): (u64, u64)) -> bool {
        let (own, ports) = match direction {
            Direction::FromClient => (self.client_addresses, self.client_ports),
            Direction::FromServer => (self.server_addresses, self.server_ports),
        };
        let [of_packet, _]: [u32; 2] = zerocopy::transmute!(rest);
        (own == addresses) & (ports == of_packet)
    }

    /// As [`Flow::is_plain`] for a flow with addresses of IPv6, as far as its record knows: `rest` are ports and protocol, as
    /// in a [narrow](FlowKey::narrow) key.
    #[inline]
    pub(crate) fn is_plain_wide(&self, direction: Direction, rest: u64) -> bool {
        let [protocol, _] = protocol_of((0, rest));
        let [of_packet, _]: [u32; 2] = zerocopy::transmute!(rest);
        let ports = if direction == Direction::FromClient { self.client_ports } else { self.server_ports };
        let looked_at = u16::from_ne_bytes([STATE, INSPECT | WIDE | BRANCHED | UDP | SERVER_KEY]);
        let wanted = u16::from_ne_bytes([FlowState::Bound as u8, WIDE | SERVER_KEY | protocol & UDP]);
        let found = u16::from_ne_bytes([self.phase, self.flags]) & looked_at;
        (ports == of_packet) & (found == wanted)
    }

    /// As [`Flow::is_narrow`], likewise.
    #[inline]
    pub(crate) fn may_be_wide(&self, direction: Direction, rest: u64) -> bool {
        let [protocol, _] = protocol_of((0, rest));
        let [of_packet, _]: [u32; 2] = zerocopy::transmute!(rest);
        let (ports, there) = match direction {
            Direction::FromClient => (self.client_ports, 0),
            Direction::FromServer => (self.server_ports, SERVER_KEY),
        };
        let found = self.flags & (WIDE | BRANCHED | UDP | there);
        (ports == of_packet) & (found == (WIDE | protocol & UDP | there))
    }

    /// True if all packets of the flow are translated without further ado, as far as the flow itself is concerned.
    #[inline]
    pub(crate) fn passes(&self) -> bool {
        self.flags & INSPECT == 0 && self.state() == FlowState::Bound
    }

    /// True if not all addresses are IPv4.
    #[inline]
    pub(crate) fn is_wide(&self) -> bool {
        self.flags & WIDE != 0
    }

    /// Source and destination, ports, and next hop that a packet of this direction leaves with, if [`Flow::is_plain`], or
    /// [`Flow::passes`] and the flow is not [wide](Flow::is_wide).
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

    /// As [`Flow::onward`] for a [wide](Flow::is_wide) flow that is bound, with its addresses, unless those of this direction
    /// might be IPv4.
    #[inline]
    pub(crate) fn wide_onward(&self, wide: &Wide, direction: Direction) -> Option<([u64; 4], u32, u32)> {
        let (_, ports, hop) = self.onward(direction);
        let addresses = wide.onward(direction);
        let [source, _, destination, _] = addresses;
        ((source != 0) & (destination != 0)).then_some((addresses, ports, hop))
    }

    /// True for TCP, else the flow is UDP.
    #[inline]
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.flags & UDP == 0
    }

    /// The phase.
    #[inline]
    #[must_use]
    pub fn state(&self) -> FlowState {
        FlowState::from_byte(self.phase & STATE)
    }

    /// Changes the phase.
    #[inline]
    pub fn set_state(&mut self, state: FlowState) {
        self.phase = self.phase & !STATE | state as u8;
    }

    /// Where the TCP connection of a bound flow stands.
    #[inline]
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        Lifecycle::from(self.phase >> LIFECYCLE)
    }

    /// Notes where the TCP connection stands.
    #[inline]
    pub fn set_lifecycle(&mut self, lifecycle: Lifecycle) {
        self.phase = self.phase & STATE | (lifecycle as u8) << LIFECYCLE;
    }

    /// TCP: the client's TSval, the last one where weir puts timestamps into packets of the server, else that of its FIN.
    #[must_use]
    pub fn client_timestamp(&self) -> u32 {
        if self.is_tcp() { self.timestamp_or_branch } else { 0 }
    }

    /// Notes the client's TSval. Without effect for UDP.
    pub fn set_client_timestamp(&mut self, value: u32) {
        if self.is_tcp() {
            self.timestamp_or_branch = value;
        }
    }

    /// While the slot is free: index + 1 of the next free slot, 0 for the last.
    pub(crate) fn next_free(&self) -> u32 {
        self.connection
    }

    /// The flow is over, and its slot is free.
    pub(crate) fn finish(&mut self, next_free: u32) {
        self.set_state(FlowState::Free);
        self.generation = self.generation.wrapping_add(1);
        self.connection = next_free;
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

    /// Notes when the flow has begun.
    pub fn set_started(&mut self, now: Instant) {
        let micros = now.total_micros() as u64;
        (self.started_low, self.started_high) = (micros as u32, (micros >> 32) as u16);
    }

    /// Time since the first packet, exact to a microsecond up to four years.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let started = u64::from(self.started_high) << 32 | u64::from(self.started_low);
        let age = (now.total_micros() as u64).wrapping_sub(started) & MICROS;
        // More than half of what can be told is a time that is still to come.
        Duration::from_micros(if age > MICROS / 2 { 0 } else { age })
    }

    /// Time since the last packet, exact to a millisecond up to 49 days.
    #[must_use]
    pub fn idle(&self, now: Instant) -> Duration {
        Duration::from_millis(u64::from(milliseconds(now).wrapping_sub(self.last_seen)))
    }
}

/// Protocol and the byte behind it of a [narrow](FlowKey::narrow) key.
#[inline]
fn protocol_of((_, rest): (u64, u64)) -> [u8; 2] {
    let [_, _, of_protocol, _]: [[u8; 2]; 4] = zerocopy::transmute!(rest);
    of_protocol
}

/// The lower 32 bits of the milliseconds.
pub(crate) fn milliseconds(now: Instant) -> u32 {
    now.total_millis() as u32
}

#[cfg(test)]
mod tests;
