//! The Toeplitz hash by which a network card spreads packets over its queues.
//!
//! weir needs it for two things: to choose SNAT ports whose replies come back to the same queue, and to spread
//! packets itself where the device cannot.

use crate::address::{Address, FlowKey};

/// Bytes of a key: 32 bits more than the longest input.
pub const KEY_LEN: usize = 40;

/// The key of Microsoft's RSS specification, which most drivers use by default.
pub const DEFAULT_KEY: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The key for the hash of an address alone: four bytes, again and again.
///
/// Cards differ in where the input of such a hash lies, because some leave out what does not count and others take zeros for it.
/// With this key that makes no difference, for both families, and the hash of a source address is that of the same address as a
/// destination. The four bytes (a circulant matrix of odd weight) give each IPv4 address a hash of its own, and the low bits
/// (a Hankel matrix of Catalan numbers) give 2, 4, 8 … 128 addresses of an aligned block as many different ones.
pub const CLIENT_KEY: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17, 0x6d,
    0x5a, 0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17, 0x6d, 0x5a,
    0x41, 0x17, 0x6d, 0x5a, 0x41, 0x17,
];

/// Half bytes of the longest input: two IPv6 addresses and two ports.
const NIBBLES: usize = 72;

/// A key, prepared: 4.6 KB. One hash costs 24 (IPv4) or 72 (IPv6) table reads.
///
/// The hash is linear over exclusive or, so the share of a port can be added to a hash of the rest:
/// `hash(..port 7) == hash(..port 0) ^ destination_port(7)`.
#[derive(Clone, Debug)]
pub struct Toeplitz {
    /// The hash of an input that is all zeros but for this half byte with this value.
    shares: [[u32; 16]; NIBBLES],
}

impl Toeplitz {
    /// Prepares `key`.
    #[must_use]
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        let shares = std::array::from_fn(|place| {
            std::array::from_fn(|value| {
                let bits = (0..4).filter(|bit| value & (8 >> bit) != 0);
                bits.fold(0, |hash, bit| hash ^ window(key, place * 4 + bit))
            })
        });
        Toeplitz { shares }
    }

    /// The hash of a TCP or UDP packet with this key, of its addresses alone for other protocols.
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u32 {
        let ports = match key.protocol {
            crate::header::PROTOCOL_TCP | crate::header::PROTOCOL_UDP => {
                Some((key.source_port, key.destination_port))
            }
            _ => None,
        };
        self.hash_of(key.source, key.destination, ports)
    }

    /// The hash of a packet from `source` to `destination`, with source and destination port if there are any.
    #[must_use]
    pub fn hash_of(&self, source: Address, destination: Address, ports: Option<(u16, u16)>) -> u32 {
        let (source_port, destination_port) = ports.unwrap_or((0, 0)); // zeros add nothing
        let addresses = match (source.v4(), destination.v4()) {
            (Some(source), Some(destination)) => self.share(0, &source) ^ self.share(4, &destination),
            _ => self.share(0, &source.0) ^ self.share(16, &destination.0),
        };
        let at = ports_at(source.is_v4());
        addresses
            ^ self.share(at, &source_port.to_be_bytes())
            ^ self.share(at + 2, &destination_port.to_be_bytes())
    }

    /// The hash of an input that is this address alone.
    #[must_use]
    pub fn hash_address(&self, address: Address) -> u32 {
        match address.v4() {
            Some(octets) => self.share(0, &octets),
            None => self.share(0, &address.0),
        }
    }

    /// What a destination port adds to the hash of a packet with destination port 0.
    #[must_use]
    pub fn destination_port(&self, v4: bool, port: u16) -> u32 {
        self.share(ports_at(v4) + 2, &port.to_be_bytes())
    }

    /// The hash of an input that has `bytes` at `offset` and is zero elsewhere.
    fn share(&self, offset: usize, bytes: &[u8]) -> u32 {
        let rows = self.shares.get(offset * 2..).unwrap_or_default().as_chunks::<2>().0;
        bytes.iter().zip(rows).fold(0, |hash, (byte, [high, low])| {
            let read = |row: &[u32; 16], nibble: u8| row.get(usize::from(nibble)).copied().unwrap_or(0);
            hash ^ read(high, byte >> 4) ^ read(low, byte & 15)
        })
    }
}

/// Offset of the ports in the input.
fn ports_at(v4: bool) -> usize {
    if v4 { 8 } else { 32 }
}

/// The 32 bits of `key` from `bit` on, for `bit` up to 287.
fn window(key: &[u8; KEY_LEN], bit: usize) -> u32 {
    let bytes = key.iter().skip(bit / 8).take(5);
    let wide = bytes.fold(0u64, |wide, byte| wide << 8 | u64::from(*byte));
    (wide >> (8 - bit % 8)) as u32
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::snapshot::Protocol;

    /// Verification suite of Microsoft's RSS specification: destination, source, hash of the addresses, hash with
    /// the ports.
    const PUBLISHED: [(&str, &str, u32, u32); 8] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn published_vectors() {
        let toeplitz = Toeplitz::new(&DEFAULT_KEY);
        for (destination, source, addresses, with_ports) in PUBLISHED {
            let mut key = FlowKey::new(Protocol::Tcp, socket(source), socket(destination));
            assert_eq!(toeplitz.hash(&key), with_ports, "{source} to {destination}");
            key.protocol = 1;
            assert_eq!(toeplitz.hash(&key), addresses, "{source} to {destination}, addresses");
        }
    }

    /// Wherever a card puts the address, and whatever family.
    #[test]
    fn with_the_key_for_clients_an_address_hashes_alike_as_source_and_as_destination() {
        let toeplitz = Toeplitz::new(&CLIENT_KEY);
        let zero = |v4: bool| if v4 { Address::from_v4([0; 4]) } else { Address::default() };
        for (destination, source, ..) in PUBLISHED {
            for address in [socket(source), socket(destination)].map(|socket| Address::from(socket.ip())) {
                let alone = toeplitz.hash_address(address);
                let nothing = zero(address.is_v4());
                assert_eq!(toeplitz.hash_of(address, nothing, None), alone);
                assert_eq!(toeplitz.hash_of(nothing, address, None), alone);
            }
        }
    }

    #[test]
    fn with_the_key_for_clients_addresses_are_spread_evenly() {
        let toeplitz = Toeplitz::new(&CLIENT_KEY);
        let hash = |bits: u32| toeplitz.hash_address(Address::from_v4(bits.to_be_bytes()));
        // One basis vector for each of the 32 bits: no two addresses have the same hash.
        let mut basis: Vec<u32> = Vec::new();
        for bit in 0..32 {
            let left = basis.iter().fold(hash(1 << bit), |left, vector| left.min(left ^ vector));
            assert_ne!(left, 0, "bit {bit}");
            basis.push(left);
            basis.sort_unstable_by(|a, b| b.cmp(a));
        }
        for log in 1..8u32 {
            for first in [0xc000_0200u32, 0x0a00_0080, 0xac10_0000] {
                let low = |n: u32| hash(first + n) & ((1 << log) - 1);
                let seen: std::collections::HashSet<u32> = (0..1 << log).map(low).collect();
                assert_eq!(seen.len(), 1 << log, "{} addresses from {first:x}", 1 << log);
            }
        }
    }

    #[test]
    fn a_port_is_added() {
        let toeplitz = Toeplitz::new(&DEFAULT_KEY);
        for (destination, source, _, with_ports) in PUBLISHED {
            let key = FlowKey::new(Protocol::Udp, socket(source), socket(destination));
            let rest = toeplitz.hash(&FlowKey { destination_port: 0, ..key });
            let port = toeplitz.destination_port(key.source.is_v4(), key.destination_port);
            assert_eq!(rest ^ port, with_ports, "{source} to {destination}");
        }
    }
}
