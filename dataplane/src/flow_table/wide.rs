//! What the fast path asks of the table about packets over IPv6.

use super::{Direction, FlowId, FlowTable, Spot, is_live, place};
use crate::flow::{Flow, Wide};

impl FlowTable {
    /// The hash of the key of a packet that is not IPv4: source and destination, ports as they are in the packet, protocol.
    #[inline]
    pub(crate) fn hash_wide(&self, ends: [u64; 4], ports: u32, protocol: u8) -> u64 {
        self.hasher.hash_wide(ends, ports, protocol)
    }

    /// Fetches the addresses of a flow that are not IPv4 alone.
    #[inline]
    pub(crate) fn prefetch_wide(&self, Spot(entry): Spot) {
        self.wide.prefetch(place(entry).0);
    }

    /// As [`plain_mut`](Self::plain_mut) for a key that is not IPv4 alone: source and destination as they are in the packet, and
    /// what a narrow key has of ports and protocol.
    #[inline]
    pub(crate) fn plain_wide_mut(
        &mut self,
        Spot(entry): Spot,
        (ends, rest): ([u64; 4], u64),
    ) -> Option<(&mut Flow, &Wide, Direction)> {
        let (index, direction) = place(entry);
        let flow = self.flows.get_mut(index).filter(|flow| flow.is_plain_wide(direction, rest))?;
        let wide = self.wide.get(index).filter(|wide| wide.ends(direction) == ends)?;
        Some((flow, wide, direction))
    }

    /// As [`found`](Self::found), likewise.
    #[inline]
    pub(crate) fn found_wide(
        &self,
        Spot(entry): Spot,
        (ends, rest): ([u64; 4], u64),
    ) -> Option<(FlowId, Direction)> {
        let (index, direction) = place(entry);
        let flow = self.flows.get(index).filter(|flow| is_live(flow) && flow.may_be_wide(direction, rest))?;
        self.wide.get(index).filter(|wide| wide.ends(direction) == ends)?;
        Some((FlowId { index: index as u32, generation: flow.generation }, direction))
    }

    /// The flow with its addresses that are not IPv4 alone, if it has such, and if it has not ended.
    #[inline]
    pub(crate) fn wide_mut(&mut self, id: FlowId) -> Option<(&mut Flow, &Wide)> {
        let place = id.index as usize;
        let flow = self.flows.get_mut(place).filter(|flow| is_live(flow) && flow.is_wide())?;
        (flow.generation == id.generation).then_some((flow, self.wide.get(place)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::FlowKey;
    use crate::flow::{ASIDE, FlowState, INSPECT};
    use crate::snapshot::Protocol;

    fn key(protocol: Protocol, server: bool) -> FlowKey {
        let (source, destination) = match server {
            false => ("[2001:db8::9]:4000", "[2001:db8::1]:53"),
            true => ("[2001:db8:1::8]:8080", "[2001:db8:1::3]:1024"),
        };
        FlowKey::new(protocol, source.parse().unwrap(), destination.parse().unwrap())
    }

    /// A key as it lies in a packet.
    fn in_packet(key: &FlowKey) -> ([u64; 4], u32) {
        let ports = [key.source_port.to_be_bytes(), key.destination_port.to_be_bytes()];
        (zerocopy::transmute!([key.source, key.destination]), zerocopy::transmute!(ports))
    }

    /// Where the fast path would look for a key, and what with.
    fn sought(table: &FlowTable, key: &FlowKey) -> (Spot, ([u64; 4], u64)) {
        let (ends, ports) = in_packet(key);
        let rest: u64 = zerocopy::transmute!([ports, u32::from_ne_bytes([key.protocol, 0, 0, 0])]);
        (table.spot(table.hash_wide(ends, ports, key.protocol)), (ends, rest | ASIDE))
    }

    fn bound(protocol: Protocol) -> (FlowTable, FlowId) {
        let mut table = FlowTable::new(8, 5, true).unwrap();
        let id = table.insert(key(protocol, false)).unwrap();
        table.bind(id, key(protocol, true)).unwrap();
        table.flow_mut(id).unwrap().set_state(FlowState::Bound);
        (table, id)
    }

    #[test]
    fn a_bound_flow_is_found_from_both_sides() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (mut table, id) = bound(protocol);
            for (server, direction) in [(false, Direction::FromClient), (true, Direction::FromServer)] {
                let key = key(protocol, server);
                let (spot, words) = sought(&table, &key);
                assert_eq!(table.found_wide(spot, words), Some((id, direction)));
                let (flow, wide, found) = table.plain_wide_mut(spot, words).unwrap();
                let onward = flow.wide_onward(wide, direction).unwrap();
                assert_eq!(found, direction);
                let other = self::key(protocol, !server).reversed();
                let (ends, ports) = in_packet(&other);
                assert_eq!((onward.0, onward.1), (ends, ports));
                let (flow, _) = table.wide_mut(id).unwrap();
                assert!(flow.is_wide() && flow.passes());
            }
            assert!(table.wide_mut(FlowId { generation: id.generation + 2, ..id }).is_none());
            let (spot, words) = sought(&table, &key(protocol, false));
            table.remove(id);
            assert!(table.plain_wide_mut(spot, words).is_none() && table.wide_mut(id).is_none());
            assert_eq!(table.found_wide(spot, words), None);
        }
    }

    /// The index knows hashes, and two keys may have the same: then it is the key that says whose packet it is.
    #[test]
    fn a_key_that_differs_in_one_bit_is_not_the_flow_s() {
        let (mut table, _) = bound(Protocol::Udp);
        for server in [false, true] {
            let key = key(Protocol::Udp, server);
            let (spot, (ends, rest)) = sought(&table, &key);
            for bit in 0..256 {
                let mut other = ends;
                other[bit / 64] ^= 1 << (bit % 64);
                assert!(table.plain_wide_mut(spot, (other, rest)).is_none(), "bit {bit}");
                assert_eq!(table.found_wide(spot, (other, rest)), None);
            }
            for bit in 0..32 {
                let other = (ends, rest ^ 1 << bit);
                assert!(table.plain_wide_mut(spot, other).is_none(), "bit {bit}");
                assert_eq!(table.found_wide(spot, other), None);
            }
            let (_, (_, tcp)) = sought(&table, &FlowKey { protocol: Protocol::Tcp as u8, ..key });
            assert!(table.plain_wide_mut(spot, (ends, tcp)).is_none());
            assert!(table.plain_wide_mut(Spot::NONE, (ends, rest)).is_none());
            assert_eq!(
                [table.found_wide(spot, (ends, tcp)), table.found_wide(Spot::NONE, (ends, rest))],
                [None; 2]
            );
            assert!(table.plain_wide_mut(spot, (ends, rest)).is_some());
        }
    }

    #[test]
    fn a_flow_that_is_not_bound_or_looked_at_is_not_plain() {
        let changes: [fn(&mut FlowTable, FlowId); 4] = [
            |table, id| table.flow_mut(id).unwrap().set_state(FlowState::Waiting),
            |table, id| table.flow_mut(id).unwrap().set_state(FlowState::Lingering),
            |table, id| table.flow_mut(id).unwrap().flags |= INSPECT,
            FlowTable::unbind,
        ];
        for (change, bound) in changes.into_iter().zip([true, true, true, false]) {
            let (mut table, id) = self::bound(Protocol::Tcp);
            let [client, server] = [false, true].map(|server| sought(&table, &key(Protocol::Tcp, server)));
            assert!(table.plain_wide_mut(client.0, client.1).is_some());
            change(&mut table, id);
            for (spot, words) in [client, server] {
                assert!(table.plain_wide_mut(spot, words).is_none());
            }
            // The flow is there still, and its server's packets find it as long as it has a server.
            assert_eq!(table.found_wide(client.0, client.1), Some((id, Direction::FromClient)));
            assert_eq!(table.found_wide(server.0, server.1).is_some(), bound);
        }
    }

    #[test]
    fn ipv4_and_branches_are_not_plain_here() {
        let keys = ["192.0.2.1:4000", "192.0.2.2:53"].map(|socket| socket.parse().unwrap());
        let narrow = FlowKey::new(Protocol::Udp, keys[0], keys[1]);
        let branch = FlowKey { branch: 1, ..key(Protocol::Udp, false) };
        for (client, server) in [(narrow, narrow.reversed()), (branch, key(Protocol::Udp, true))] {
            let mut table = FlowTable::new(8, 5, true).unwrap();
            let id = table.insert(client).unwrap();
            table.bind(id, server).unwrap();
            table.flow_mut(id).unwrap().set_state(FlowState::Bound);
            for key in [client, server] {
                let (spot, (_, words)) = (table.spot(table.hash(&key)), sought(&table, &key));
                assert!(spot != Spot::NONE && table.plain_wide_mut(spot, words).is_none());
                assert_eq!(table.found_wide(spot, words), None);
            }
        }
    }

    /// No service has such flows, but the table could.
    #[test]
    fn a_flow_between_families_has_no_way_onward_to_ipv4() {
        let mut table = FlowTable::new(8, 5, true).unwrap();
        let sockets = ["192.0.2.1:4000", "192.0.2.2:53"].map(|socket| socket.parse().unwrap());
        let id = table.insert(key(Protocol::Tcp, false)).unwrap();
        table.bind(id, FlowKey::new(Protocol::Tcp, sockets[0], sockets[1])).unwrap();
        let (flow, wide) = table.wide_mut(id).unwrap();
        assert!(flow.wide_onward(wide, Direction::FromClient).is_none());
        assert!(flow.wide_onward(wide, Direction::FromServer).is_some());
    }
}
