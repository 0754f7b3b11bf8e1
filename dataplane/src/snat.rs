//! Source addresses and ports towards servers.

use std::net::SocketAddr;

use crate::address::{Address, FlowKey};
use crate::snapshot::{Protocol, SnatPool};

/// Pairs of address and port looked at per allocation before it is given up.
const PROBES: u64 = 128;

/// Hands out SNAT addresses and ports; one per worker.
///
/// What must be unique is the whole tuple towards the server: the same port serves flows to different servers at the
/// same time, so that one address with 60,000 ports carries 60,000 flows *per server*. Whether a tuple is in use is the
/// flow table's knowledge, asked through `is_free`; nothing is stored here but a cursor.
///
/// Pairs are tried in a fixed order that visits each of them once and looks random to whoever does not know the seed
/// (RFC 6056, 3.1). The cursor goes on from where it was, so a pair that was just given back comes last: the server has
/// all that time for its TIME_WAIT. Costs one look-up per pair tried, 128 at most: when nearly all pairs to one server
/// are in use, an allocation can fail although a few are left; a later one finds them.
#[derive(Debug)]
pub struct SnatPorts {
    v4: Family,
    v6: Family,
    first_port: u16,
    ports: u64,
}

#[derive(Debug, Default)]
struct Family {
    addresses: Vec<Address>,
    cursor: u64,
    /// Coprime to the number of pairs.
    step: u64,
}

impl SnatPorts {
    /// For a pool of the configuration. `seed` orders the pairs and must be unpredictable outside tests.
    #[must_use]
    pub fn new(pool: &SnatPool, seed: u64) -> Self {
        let ports = u64::from(pool.last_port.saturating_sub(pool.first_port)) + 1;
        let family = |v4: bool| {
            let addresses = pool.addresses.iter().filter(|a| a.is_ipv4() == v4);
            Family::new(addresses.map(|a| (*a).into()).collect(), ports, seed)
        };
        SnatPorts { v4: family(true), v6: family(false), first_port: pool.first_port, ports }
    }

    /// An address and port from which a flow to `server` may start: one for which `is_free` holds for the key of the
    /// server's packets. `None`: all that were tried are in use, or the family has no address.
    pub fn allocate(
        &mut self,
        protocol: Protocol,
        server: SocketAddr,
        is_free: impl Fn(&FlowKey) -> bool,
    ) -> Option<SocketAddr> {
        let (first_port, ports) = (self.first_port, self.ports);
        let family = if server.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let pairs = family.addresses.len() as u64 * ports;
        (0..PROBES.min(pairs)).find_map(|_| {
            family.cursor = (family.cursor + family.step) % pairs;
            let address = family.addresses.get((family.cursor / ports) as usize)?;
            let port = first_port + u16::try_from(family.cursor % ports).ok()?;
            let candidate = SocketAddr::new(address.ip(), port);
            is_free(&FlowKey::new(protocol, server, candidate)).then_some(candidate)
        })
    }
}

impl Family {
    fn new(addresses: Vec<Address>, ports: u64, seed: u64) -> Self {
        let pairs = addresses.len() as u64 * ports;
        if pairs == 0 {
            return Family::default();
        }
        let wanted = (seed % pairs).max(1);
        let step = (wanted..pairs).chain(1..wanted).find(|step| coprime(*step, pairs)).unwrap_or(1);
        Family { addresses, cursor: (seed >> 32) % pairs, step }
    }
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::*;

    fn pool(addresses: &[&str], first_port: u16, last_port: u16) -> SnatPool {
        SnatPool { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), first_port, last_port }
    }

    #[test]
    fn every_pair_is_handed_out_once_before_any_comes_again() {
        for (first, last, seed) in [(1024, 1024, 1), (1000, 1099, 77), (5000, 5006, u64::MAX), (1, 60, 0)] {
            let mut ports =
                SnatPorts::new(&pool(&["10.0.0.1", "10.0.0.2", "2001:db8::1"], first, last), seed);
            let used: RefCell<HashSet<FlowKey>> = RefCell::default();
            let server: SocketAddr = "10.1.0.1:53".parse().unwrap();
            let pairs = 2 * (usize::from(last - first) + 1);
            for _ in 0..pairs {
                let given = ports.allocate(Protocol::Udp, server, |k| !used.borrow().contains(k));
                let key = FlowKey::new(Protocol::Udp, server, given.expect("a pair is free"));
                assert!(used.borrow_mut().insert(key), "handed out twice (seed {seed})");
            }
            assert_eq!(ports.allocate(Protocol::Udp, server, |k| !used.borrow().contains(k)), None);
            let other: SocketAddr = "10.1.0.2:53".parse().unwrap();
            let reused = ports.allocate(Protocol::Udp, other, |k| !used.borrow().contains(k));
            assert!(reused.is_some(), "another server has all pairs for itself");
            let back = *used.borrow().iter().next().unwrap();
            used.borrow_mut().remove(&back);
            let again =
                (0..8).find_map(|_| ports.allocate(Protocol::Udp, server, |k| !used.borrow().contains(k)));
            assert_eq!(again, Some(back.destination_socket()));
        }
    }

    #[test]
    fn a_pair_that_was_given_back_is_the_last_to_come_again() {
        let mut ports = SnatPorts::new(&pool(&["10.0.0.1"], 1000, 1099), 12345);
        let server: SocketAddr = "10.1.0.1:53".parse().unwrap();
        let first = ports.allocate(Protocol::Tcp, server, |_| true);
        for _ in 0..99 {
            assert_ne!(ports.allocate(Protocol::Tcp, server, |_| true), first);
        }
        assert_eq!(ports.allocate(Protocol::Tcp, server, |_| true), first);
    }

    #[test]
    fn addresses_of_the_servers_family_are_used() {
        let mut ports = SnatPorts::new(&pool(&["10.0.0.1"], 1000, 1001), 3);
        assert_eq!(ports.allocate(Protocol::Tcp, "[2001:db8::5]:80".parse().unwrap(), |_| true), None);
        assert!(ports.allocate(Protocol::Tcp, "10.1.0.1:80".parse().unwrap(), |_| true).is_some());
    }
}
