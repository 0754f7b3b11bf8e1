//! The keyed hash of flow keys.

use crate::address::FlowKey;

/// A universal hash: the words of the key, plus secret ones, multiplied in pairs and summed (the NH of RFC 4418, 2.2.2,
/// with 64-bit words), then mixed down to 64 bits by a product with two more secrets. Two given keys collide under a random
/// secret with a chance of about 2^-64, so an attacker who does not know the seed cannot choose keys that collide. Keys of
/// IPv4 are one pair of words, all others three.
#[derive(Clone)]
pub(crate) struct Hasher {
    secret: [u64; 8],
}

impl Hasher {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Hasher { secret: std::array::from_fn(|_| next_secret(&mut state)) }
    }

    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> u64 {
        match key.narrow() {
            Some(narrow) => self.hash_narrow(narrow),
            None => {
                let ends: [u64; 4] = zerocopy::transmute!([key.source, key.destination]);
                let ports = u64::from(key.source_port) | u64::from(key.destination_port) << 16;
                let rest =
                    u64::from(key.protocol) | u64::from(key.reserved) << 8 | u64::from(key.branch) << 16;
                self.hash_words(ends, ports | rest << 32)
            }
        }
    }

    /// The hash of a key that is [narrow](FlowKey::narrow).
    #[inline]
    pub(crate) fn hash_narrow(&self, (addresses, rest): (u64, u64)) -> u64 {
        let [k0, k1, .., k6, k7] = self.secret;
        let product = wide(addresses.wrapping_add(k0), rest.wrapping_add(k1));
        fold(wide(product as u64 ^ k6, (product >> 64) as u64 ^ k7))
    }

    /// The hash of the key of a packet that is not IPv4: source and destination, ports as they are in the packet, protocol.
    #[inline]
    pub(crate) fn hash_wide(&self, ends: [u64; 4], ports: u32, protocol: u8) -> u64 {
        let ports = u32::from_be(ports).rotate_left(16);
        self.hash_words(ends, u64::from(ports) | u64::from(protocol) << 32)
    }

    #[inline]
    fn hash_words(&self, [a, b, c, d]: [u64; 4], e: u64) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.secret;
        let sum = wide(a.wrapping_add(k0), b.wrapping_add(k1))
            .wrapping_add(wide(c.wrapping_add(k2), d.wrapping_add(k3)))
            .wrapping_add(wide(e.wrapping_add(k4), k5));
        finish(fold(wide(sum as u64 ^ k6, (sum >> 64) as u64 ^ k7)))
    }

    /// The keyed hash of a number: a random-looking sequence for numbers that go up.
    #[inline]
    pub(crate) fn hash_number(&self, number: u64) -> u64 {
        let [k0, k1, ..] = self.secret;
        finish(fold(wide(number.wrapping_add(k0) ^ number.rotate_left(32), k1 | 1)))
    }
}

impl std::fmt::Debug for Hasher {
    /// The secret is not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

#[inline]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[inline]
fn fold(product: u128) -> u64 {
    product as u64 ^ (product >> 64) as u64
}

/// Lets every bit depend on every other one.
#[inline]
fn finish(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ (x >> 29)
}

/// The next word of a secret: an additive sequence through a mixing function of xor-shifts and multiplications.
fn next_secret(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Protocol;
    use std::net::SocketAddr;

    const SEED: u64 = 1;

    fn key(n: u32) -> FlowKey {
        let source =
            SocketAddr::from(([10, (n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8], n as u8 as u16));
        FlowKey::new(Protocol::Udp, source, "192.0.2.1:53".parse().unwrap())
    }

    #[test]
    fn every_field_of_a_key_counts() {
        let hasher = Hasher::new(SEED);
        let base = key(1);
        for byte in 0..40 {
            let mut bytes: [u8; 40] = zerocopy::transmute!(base);
            bytes[byte] ^= 1;
            let changed: FlowKey = zerocopy::transmute!(bytes);
            let moved = (hasher.hash(&base) ^ hasher.hash(&changed)).count_ones();
            assert!((12..=52).contains(&moved), "byte {byte} moves {moved} bits, seed {SEED}");
        }
    }

    /// A packet is hashed by what lies in it, a flow by its key.
    #[test]
    fn a_packet_has_the_hash_of_its_key() {
        let hasher = Hasher::new(SEED);
        for (source, destination) in
            [("[2001:db8::1]:4321", "[fd00:1:2:3:4:5:6:7]:53"), ("[::1]:1", "[::]:2")]
        {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = FlowKey::new(protocol, source.parse().unwrap(), destination.parse().unwrap());
                let ends = zerocopy::transmute!([key.source, key.destination]);
                let ports = [key.source_port.to_be_bytes(), key.destination_port.to_be_bytes()];
                let hash = hasher.hash_wide(ends, zerocopy::transmute!(ports), key.protocol);
                assert_eq!(hash, hasher.hash(&key), "{key:?}");
            }
        }
    }

    #[test]
    fn another_seed_is_another_hash() {
        assert_ne!(Hasher::new(1).hash(&key(7)), Hasher::new(2).hash(&key(7)));
        assert_eq!(Hasher::new(1).hash(&key(7)), Hasher::new(1).hash(&key(7)));
    }

    #[test]
    fn similar_keys_spread_evenly_over_both_halves() {
        let hasher = Hasher::new(SEED);
        let (mut high, mut low) = ([0u32; 64], [0u32; 64]);
        for n in 0..64_000 {
            let hash = hasher.hash(&key(n));
            high[(hash >> 58) as usize] += 1;
            low[(hash & 63) as usize] += 1;
        }
        for count in high.iter().chain(&low) {
            // 1000 expected, standard deviation 31.
            assert!((840..1160).contains(count), "{count} of 1000, seed {SEED}");
        }
    }
}
