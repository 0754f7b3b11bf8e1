//! What packets a flow is found by: its keys, in its record if they are IPv4, else beside it.

use std::ops::Deref;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BRANCHED, Direction, Flow, SERVER_KEY, UDP, WIDE};
use crate::address::{Address, FlowKey};
use crate::header::{PROTOCOL_TCP, PROTOCOL_UDP};

/// The addresses of a flow that are not all IPv4: a cache line beside its record.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Wide {
    client: Address,
    vip: Address,
    server: Address,
    snat: Address,
}

impl Wide {
    /// Source and destination of packets of that direction as they arrive, in the order of the bytes on the wire.
    #[inline]
    pub(crate) fn ends(&self, direction: Direction) -> [u64; 4] {
        let [client, server]: &[[u64; 4]; 2] = zerocopy::transmute_ref!(self);
        if direction == Direction::FromClient { *client } else { *server }
    }

    /// Source and destination of the same packets as they leave.
    #[inline]
    pub(super) fn onward(&self, direction: Direction) -> [u64; 4] {
        let [client, server]: &[[u64; 4]; 2] = zerocopy::transmute_ref!(self);
        let [a, b, c, d] = *if direction == Direction::FromClient { server } else { client };
        [c, d, a, b]
    }
}

/// What packets a flow was found by, in as few bytes as its record has for it: all but addresses that are not IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    client_addresses: u64,
    server_addresses: u64,
    client_ports: u32,
    server_ports: u32,
}

/// Protocol and keys of a flow: its flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind(u8);

impl Kind {
    /// True if not all addresses are IPv4.
    #[inline]
    pub(crate) fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }
}

impl Ends {
    /// The key of packets from the client, without its branch, and, if there was a server, that of its packets. `addresses` are
    /// those of [`FlowRef::addresses`].
    pub(crate) fn keys(&self, kind: Kind, addresses: Option<[Address; 4]>) -> (FlowKey, Option<FlowKey>) {
        let [client, vip, server, snat] = addresses.unwrap_or_else(|| {
            let ((client, vip), (server, snat)) =
                (widened(self.client_addresses), widened(self.server_addresses));
            [client, vip, server, snat]
        });
        let protocol = protocol_of(kind.0);
        let bound = kind.0 & SERVER_KEY != 0;
        let of_server = bound.then(|| key_between(protocol, server, snat, self.server_ports));
        (key_between(protocol, client, vip, self.client_ports), of_server)
    }
}

/// A look at a flow in its table: the record, which it dereferences to, and its keys.
#[derive(Clone, Copy)]
pub struct FlowRef<'a> {
    flow: &'a Flow,
    /// Those of all flows; only looked at if this one has any.
    wide: &'a [Wide],
    index: usize,
}

impl<'a> FlowRef<'a> {
    #[inline]
    pub(crate) fn new(flow: &'a Flow, wide: &'a [Wide], index: usize) -> Self {
        FlowRef { flow, wide, index }
    }

    /// The key of packets as they arrive from the client: from the client to the VIP.
    #[inline]
    #[must_use]
    pub fn client_key(&self) -> FlowKey {
        let (source, destination) = match self.wide() {
            Some(wide) => (wide.client, wide.vip),
            None => widened(self.client_addresses),
        };
        FlowKey { branch: self.branch(), ..self.key_between(source, destination, self.client_ports) }
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
            Some(wide) => (wide.server, wide.snat),
            None => widened(self.server_addresses),
        };
        self.key_between(source, destination, self.server_ports)
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

    /// The key of that direction as [`FlowKey::narrow`] gives it, where all of the flow is IPv4.
    #[inline]
    pub(crate) fn narrow_key(&self, direction: Direction) -> Option<(u64, u64)> {
        let (addresses, ports, branch) = match direction {
            Direction::FromClient => (self.client_addresses, self.client_ports, self.branch()),
            Direction::FromServer => (self.server_addresses, self.server_ports, 0),
        };
        let [b0, b1] = branch.to_ne_bytes();
        let rest = [ports.to_ne_bytes(), [self.protocol(), 0, b0, b1]];
        (self.flags & WIDE == 0).then_some((addresses, zerocopy::transmute!(rest)))
    }

    /// True if this is the key of that direction; `narrow` is [`FlowKey::narrow`] of it.
    pub(crate) fn has_key(&self, direction: Direction, narrow: Option<(u64, u64)>, key: &FlowKey) -> bool {
        let (own, ports, branch, there) = match direction {
            Direction::FromClient => (self.client_addresses, self.client_ports, self.branch(), true),
            Direction::FromServer => (self.server_addresses, self.server_ports, 0, self.is_bound()),
        };
        match narrow.filter(|_| self.flags & WIDE == 0) {
            Some((addresses, _)) => {
                let same = (own == addresses) & (ports == ports_of(key)) & (self.protocol() == key.protocol);
                same & there & (branch == key.branch) & (key.reserved == 0)
            }
            None => self.key(direction) == *key,
        }
    }

    /// What is told of the keys when the flow has ended.
    #[inline]
    pub(crate) fn ends(&self) -> (Ends, Kind) {
        let Flow { client_addresses, server_addresses, client_ports, server_ports, flags, .. } = *self.flow;
        (Ends { client_addresses, server_addresses, client_ports, server_ports }, Kind(flags))
    }

    /// Client, VIP, server and SNAT address, the latter two of no meaning while the flow is not [bound](Flow::is_bound); `None`
    /// if all are IPv4.
    #[inline]
    #[must_use]
    pub fn addresses(&self) -> Option<[Address; 4]> {
        self.wide().map(|wide| [wide.client, wide.vip, wide.server, wide.snat])
    }

    #[inline]
    fn wide(&self) -> Option<&'a Wide> {
        if self.flags & WIDE == 0 { None } else { self.wide.get(self.index) }
    }

    #[inline]
    fn key_between(&self, source: Address, destination: Address, ports: u32) -> FlowKey {
        key_between(self.protocol(), source, destination, ports)
    }
}

impl Deref for FlowRef<'_> {
    type Target = Flow;

    #[inline]
    fn deref(&self) -> &Flow {
        self.flow
    }
}

impl std::fmt::Debug for FlowRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = (self.client_key(), self.server_key());
        f.debug_struct("FlowRef").field("keys", &keys).field("flow", self.flow).finish()
    }
}

impl Flow {
    /// The client's key, but for addresses that are not IPv4: [`Flow::set_wide_client`].
    pub(super) fn set_client_key(&mut self, key: &FlowKey) {
        debug_assert!(key.protocol == PROTOCOL_UDP || key.protocol == PROTOCOL_TCP && key.branch == 0);
        self.client_ports = ports_of(key);
        self.flags |= key.protocol & UDP;
        if key.branch != 0 {
            self.flags |= BRANCHED;
            self.timestamp_or_branch = u32::from(key.branch);
        }
        match narrow(key) {
            Some(addresses) => self.client_addresses = addresses,
            None => self.flags |= WIDE,
        }
    }

    /// Writes the client's addresses to where the flow has said that they are.
    pub(crate) fn set_wide_client(&self, key: &FlowKey, wide: &mut Wide) {
        if self.flags & WIDE != 0 {
            (wide.client, wide.vip) = (key.source, key.destination);
        }
    }

    /// Keys of servers have no branch, and the protocol of the client's.
    pub(crate) fn set_server_key(&mut self, key: &FlowKey, wide: &mut Wide) {
        debug_assert!(key.protocol == self.protocol() && key.branch == 0);
        self.server_ports = ports_of(key);
        self.flags |= SERVER_KEY;
        if let Some(addresses) = narrow(key).filter(|_| self.flags & WIDE == 0) {
            self.server_addresses = addresses;
            return;
        }
        if self.flags & WIDE == 0 {
            (wide.client, wide.vip) = widened(self.client_addresses);
            self.flags |= WIDE;
        }
        (wide.server, wide.snat) = (key.source, key.destination);
    }

    pub(crate) fn clear_server_key(&mut self) {
        self.flags &= !SERVER_KEY;
    }

    #[inline]
    fn protocol(&self) -> u8 {
        protocol_of(self.flags)
    }

    /// The branch of the client's key.
    #[inline]
    fn branch(&self) -> u16 {
        if self.flags & BRANCHED == 0 { 0 } else { self.timestamp_or_branch as u16 }
    }
}

/// The protocol of a flow with these flags.
#[inline]
fn protocol_of(flags: u8) -> u8 {
    if flags & UDP == 0 { PROTOCOL_TCP } else { PROTOCOL_UDP }
}

#[inline]
fn key_between(protocol: u8, source: Address, destination: Address, ports: u32) -> FlowKey {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Protocol;

    const SOCKETS: [&str; 4] =
        ["10.0.0.1:1000", "192.0.2.9:2000", "[2001:db8::1]:3000", "[2001:db8::2]:4000"];

    fn between(protocol: Protocol, a: usize, b: usize) -> FlowKey {
        FlowKey::new(protocol, SOCKETS[a].parse().unwrap(), SOCKETS[b].parse().unwrap())
    }

    /// A flow in the second of two places; the first must stay as it is.
    fn begun(key: &FlowKey) -> (Flow, [Wide; 2]) {
        let mut wide = zerocopy::FromZeros::new_zeroed();
        let flow = Flow::begin(key, 1);
        let [_, own]: &mut [Wide; 2] = &mut wide;
        flow.set_wide_client(key, own);
        (flow, wide)
    }

    #[test]
    fn keys_of_all_families_are_kept_apart() {
        let families = [(0, 1), (2, 3), (1, 0), (3, 2)];
        for (protocol, branch) in [(Protocol::Tcp, 0), (Protocol::Udp, 0), (Protocol::Udp, 7)] {
            for (a, b) in families {
                let client = FlowKey { branch, ..between(protocol, a, b) };
                let (mut flow, mut wide) = begun(&client);
                let servers = families.into_iter().chain(families.into_iter().rev());
                for server in servers.map(|(a, b)| between(protocol, a, b)) {
                    flow.set_server_key(&server, &mut wide[1]);
                    let look = FlowRef::new(&flow, &wide, 1);
                    assert_eq!(
                        (look.client_key(), look.server_key(), look.is_bound()),
                        (client, server, true)
                    );
                    assert!(look.has_key(Direction::FromServer, server.narrow(), &server));
                    assert!(look.has_key(Direction::FromClient, client.narrow(), &client));
                    assert_eq!(
                        look.has_key(Direction::FromServer, client.narrow(), &client),
                        client == server
                    );
                    flow.clear_server_key();
                    let look = FlowRef::new(&flow, &wide, 1);
                    let keys = (look.client_key(), look.server_key(), look.is_bound());
                    assert_eq!(keys, (client, FlowKey::default(), false));
                    assert!(!look.has_key(Direction::FromServer, server.narrow(), &server));
                }
                assert_eq!(wide[0].as_bytes(), [0; 64]);
            }
        }
    }

    #[test]
    fn keys_that_differ_in_one_thing_are_not_the_flow_s() {
        for (a, b) in [(0, 1), (2, 3)] {
            let key = FlowKey { branch: 7, ..between(Protocol::Udp, a, b) };
            let (flow, wide) = begun(&key);
            let look = FlowRef::new(&flow, &wide, 1);
            let others = [
                FlowKey { source: Address::default(), ..key },
                FlowKey { destination: key.source, ..key },
                FlowKey { source_port: 1, ..key },
                FlowKey { destination_port: 1, ..key },
                FlowKey { protocol: PROTOCOL_TCP, ..key },
                FlowKey { protocol: 1, ..key },
                FlowKey { reserved: 1, ..key },
                FlowKey { branch: 0, ..key },
            ];
            assert!(look.has_key(Direction::FromClient, key.narrow(), &key));
            let has = |key: &FlowKey| look.has_key(Direction::FromClient, key.narrow(), key);
            assert_eq!(others.iter().filter(|key| has(key)).count(), 0);
        }
    }

    #[test]
    fn a_timestamp_is_no_branch_and_a_branch_no_timestamp() {
        let (mut tcp, wide) = begun(&between(Protocol::Tcp, 0, 1));
        tcp.set_client_timestamp(u32::MAX);
        assert_eq!((tcp.client_timestamp(), FlowRef::new(&tcp, &wide, 1).client_key().branch), (u32::MAX, 0));
        let (mut udp, wide) = begun(&FlowKey { branch: 7, ..between(Protocol::Udp, 0, 1) });
        udp.set_client_timestamp(9);
        assert_eq!((udp.client_timestamp(), FlowRef::new(&udp, &wide, 1).client_key().branch), (0, 7));
    }

    #[test]
    fn a_server_key_that_was_taken_away_is_not_recognised() {
        let server = between(Protocol::Tcp, 1, 0);
        let (mut flow, mut wide) = begun(&between(Protocol::Tcp, 0, 1));
        let recognised = |flow: &Flow| flow.is_narrow(Direction::FromServer, server.narrow().unwrap());
        assert!(!recognised(&flow));
        flow.set_server_key(&server, &mut wide[1]);
        assert!(recognised(&flow));
        flow.clear_server_key();
        assert!(!recognised(&flow));
    }
}
