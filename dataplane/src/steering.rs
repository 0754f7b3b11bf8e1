//! Which worker a flow belongs to.
//!
//! Network cards spread packets over their queues by the Toeplitz hash ([`crate::rss`]) of addresses and ports: the low
//! bits of the hash are a place in an indirection table (RETA), and the table names the queue. Queue `n` of each port
//! is polled by worker `n`. [`Steering`] computes the same, so that weir can
//!
//! * choose SNAT ports whose replies come back to the worker that has the flow ([`Steering::is_here`]),
//! * give away what a device put into the wrong queue, because it has no RSS, fewer queues than there are workers, or a hash
//!   of its own ([`Steering::elsewhere`]).
//!
//! Where a service preserves its clients' addresses, nothing can be chosen, and packets are spread by the client's address
//! alone: [`by_client`].
//!
//! A packet is looked up first: one whose flow is found belongs to whoever found it. Only what is not found is hashed,
//! so that steering costs nothing where packets come to the right queue.

pub mod by_client;

use crate::address::FlowKey;
use crate::rss::{DEFAULT_KEY, Toeplitz};
use crate::snapshot::Snapshot;
use by_client::ByClient;

/// Entries of the indirection table that weir computes with. Larger tables repeat it, so a card may have any power of
/// two from this one on.
pub const INDIRECTION: usize = 128;

/// Most workers.
pub const MOST_WORKERS: u8 = 64;

/// A worker's number among all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// From 0 on; also the number of its queue on each port.
    pub number: u8,
    /// How many workers there are, 1 to [`MOST_WORKERS`].
    pub of: u8,
}

impl Seat {
    /// The only worker.
    pub const ALONE: Seat = Seat { number: 0, of: 1 };

    /// All seats of so many workers.
    pub fn all(of: u8) -> impl Iterator<Item = Seat> {
        let of = of.clamp(1, MOST_WORKERS);
        (0..of).map(move |number| Seat { number, of })
    }

    /// True if there is no other worker.
    #[must_use]
    pub fn is_alone(self) -> bool {
        self.of <= 1
    }
}

/// The queue that entry `place` of an indirection table names, for so many queues.
#[must_use]
pub fn queue(place: usize, queues: u8) -> u8 {
    let queues = usize::from(queues.max(1));
    u8::try_from(place % INDIRECTION % queues).unwrap_or(0)
}

/// What one worker knows about who owns which flow; 4.8 KB.
#[derive(Debug)]
pub struct Steering {
    seat: Seat,
    toeplitz: Toeplitz,
    /// Packets are spread by the client's address, else by addresses and ports.
    by_client: Option<ByClient>,
    indirection: [u8; INDIRECTION],
    /// The packets at hand come from another worker, which has hashed them already.
    handed_over: bool,
}

impl Steering {
    /// For the worker on this seat, with the key that the cards are given: by addresses and ports.
    #[must_use]
    pub fn new(seat: Seat) -> Self {
        Steering {
            seat,
            toeplitz: Toeplitz::new(&DEFAULT_KEY),
            by_client: None,
            indirection: std::array::from_fn(|place| queue(place, seat.of)),
            handed_over: false,
        }
    }

    /// For the worker on this seat, as this configuration asks for.
    #[must_use]
    pub fn of(seat: Seat, snapshot: &Snapshot) -> Self {
        let mut steering = Steering::new(seat);
        if snapshot.preserves_clients() {
            steering.toeplitz = by_client::toeplitz();
            let worker = |address| steering.queue_of(steering.toeplitz.hash_address(address));
            steering.by_client = Some(ByClient::new(snapshot, seat.of, worker));
        }
        steering
    }

    /// The worker's seat.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.seat
    }

    /// The worker to which a packet with this key comes.
    #[must_use]
    pub fn owner(&self, key: &FlowKey) -> u8 {
        self.queue_of(match &self.by_client {
            None => self.toeplitz.hash(key),
            Some(rule) => rule.hash(&self.toeplitz, key),
        })
    }

    fn queue_of(&self, hash: u32) -> u8 {
        self.indirection.get(hash as usize % INDIRECTION).copied().unwrap_or(0)
    }

    /// True if a packet with this key comes to this worker.
    #[must_use]
    pub fn is_here(&self, key: &FlowKey) -> bool {
        self.seat.is_alone() || self.owner(key) == self.seat.number
    }

    /// The other worker to which a packet without a flow here has to go. `None`: it stays.
    #[must_use]
    pub fn elsewhere(&self, key: &FlowKey) -> Option<u8> {
        if self.seat.is_alone() || self.handed_over {
            return None;
        }
        Some(self.owner(key)).filter(|&owner| owner != self.seat.number)
    }

    /// Whether the packets that follow come from another worker. They stay here, whatever their hash. Returns what was
    /// said before.
    pub(crate) fn set_handed_over(&mut self, handed_over: bool) -> bool {
        std::mem::replace(&mut self.handed_over, handed_over)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::snapshot::Protocol;

    fn key(client: u16) -> FlowKey {
        let client = SocketAddr::from(([198, 51, 100, (client >> 8) as u8], client));
        FlowKey::new(Protocol::Tcp, client, SocketAddr::from(([192, 0, 2, 10], 443)))
    }

    #[test]
    fn one_worker_owns_everything() {
        let steering = Steering::new(Seat::ALONE);
        for client in 0..100 {
            assert!(steering.is_here(&key(client)));
            assert_eq!(steering.elsewhere(&key(client)), None);
        }
    }

    #[test]
    fn each_flow_has_one_owner_and_all_have_about_the_same_number() {
        for of in [2, 3, 5, 8, 64] {
            let all: Vec<Steering> = Seat::all(of).map(Steering::new).collect();
            let mut owned = vec![0u32; usize::from(of)];
            for client in 0..6400 {
                let key = key(client);
                let here: Vec<&Steering> = all.iter().filter(|s| s.is_here(&key)).collect();
                assert_eq!(here.len(), 1);
                let owner = here[0].seat().number;
                owned[usize::from(owner)] += 1;
                for steering in &all {
                    let elsewhere = (steering.seat().number != owner).then_some(owner);
                    assert_eq!(steering.elsewhere(&key), elsewhere);
                }
            }
            let fair = 6400 / u32::from(of);
            // 128 entries for 3, 5 and so on: some workers have one more than the others.
            assert!(owned.iter().all(|n| (fair / 3..fair * 2).contains(n)), "{of} workers: {owned:?}");
        }
    }

    #[test]
    fn what_was_handed_over_stays() {
        let mut steering = Steering::new(Seat { number: 0, of: 2 });
        let away = (0..100).map(key).find(|key| !steering.is_here(key)).unwrap();
        assert_eq!(steering.elsewhere(&away), Some(1));
        steering.set_handed_over(true);
        assert_eq!(steering.elsewhere(&away), None);
        assert!(!steering.is_here(&away), "SNAT ports are chosen by the hash all the same");
    }

    #[test]
    fn larger_indirection_tables_say_the_same() {
        let steering = Steering::new(Seat { number: 1, of: 3 });
        for client in 0..500 {
            let hash = Toeplitz::new(&DEFAULT_KEY).hash(&key(client)) as usize;
            for size in [128, 256, 512, 1024] {
                assert_eq!(queue(hash % size, 3), steering.owner(&key(client)));
            }
        }
    }
}
