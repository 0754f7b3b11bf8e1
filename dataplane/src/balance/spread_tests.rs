//! How evenly several workers, none of which knows of the others' flows, fill the servers of a pool.

use super::fixture::ip;
use super::*;
use crate::snapshot::Algorithm::{self, LeastConnections, RoundRobin};
use crate::snapshot::Target;

const SEED: u64 = 0x5eed;
const SERVERS: usize = 10;
const WORKERS: [u8; 5] = [1, 2, 4, 8, 16];

/// The next of a sequence that looks random, below `most`.
fn random(state: &mut u64, most: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    ((*state >> 32) as usize * most) >> 32
}

/// Workers, what they have open, and the flows of all.
struct Site {
    snapshot: Snapshot,
    workers: Vec<Balancer>,
    /// Worker and server of each open flow.
    open: Vec<(usize, ServerId)>,
    per_server: [u32; SERVERS],
    state: u64,
}

impl Site {
    fn new(algorithm: Algorithm, workers: u8) -> Self {
        let names: Vec<String> = (1..=SERVERS).map(|last| format!("10.0.0.{last}:80")).collect();
        let mut snapshot = Snapshot::default();
        snapshot.add_pool("web", algorithm, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let workers = Seat::all(workers).map(|seat| Balancer::on(&snapshot, seat)).collect();
        Site { snapshot, workers, open: Vec::new(), per_server: [0; SERVERS], state: SEED }
    }

    /// A flow at a worker that its hash, as good as chance, says.
    fn open(&mut self) {
        let worker = random(&mut self.state, self.workers.len());
        let balancer = &mut self.workers[worker];
        let pick = balancer.pick(&self.snapshot, Target::Pool(PoolId(0)), ip("192.0.2.7"), &[]);
        let Pick::Server(server) = pick else { panic!("{pick:?}") };
        assert!(balancer.take(server));
        balancer.opened(server);
        self.per_server[server.index()] += 1;
        self.open.push((worker, server));
    }

    /// Any of the open flows ends: lifetimes are exponential.
    fn close(&mut self) {
        let any = random(&mut self.state, self.open.len());
        let (worker, server) = self.open.swap_remove(any);
        self.workers[worker].closed(server);
        self.per_server[server.index()] -= 1;
    }

    /// The fewest and the most flows that a server ever has while `flows` are open.
    fn extremes(mut self, flows: usize) -> (u32, u32) {
        (0..flows).for_each(|_| self.open());
        let (mut fewest, mut most) = (u32::MAX, 0);
        for step in 0..8 * flows {
            self.close();
            self.open();
            if step > 2 * flows {
                fewest = fewest.min(*self.per_server.iter().min().unwrap());
                most = most.max(*self.per_server.iter().max().unwrap());
            }
        }
        (fewest, most)
    }
}

/// One line of the table in the documentation.
fn line(workers: u8) -> String {
    let of = |algorithm, flows| {
        let (fewest, most) = Site::new(algorithm, workers).extremes(flows);
        format!("{fewest} to {most}")
    };
    let [few, many] = [100, 10_000].map(|flows| (of(RoundRobin, flows), of(LeastConnections, flows)));
    format!("| {workers} | {} | {} | {} | {} |\n", few.0, few.1, many.0, many.1)
}

#[test]
fn the_documentation_says_how_evenly_servers_are_filled() {
    let document = include_str!("../../../docs/packet-path.md");
    let table: String = WORKERS.map(line).concat();
    assert!(document.contains(&table), "seed {SEED:#x}; docs/packet-path.md should have\n{table}");
}

#[test]
fn the_first_flows_of_all_workers_go_to_different_servers() {
    for algorithm in [RoundRobin, LeastConnections] {
        for workers in [1, 2, 5, 10] {
            let mut site = Site::new(algorithm, workers);
            for worker in 0..site.workers.len() {
                let pick =
                    site.workers[worker].pick(&site.snapshot, Target::Pool(PoolId(0)), ip("192.0.2.7"), &[]);
                let Pick::Server(server) = pick else { panic!("{pick:?}") };
                site.per_server[server.index()] += 1;
            }
            let busiest = site.per_server.iter().max();
            assert_eq!(busiest, Some(&1), "{algorithm:?}, {workers} workers: {:?}", site.per_server);
        }
    }
}

/// Each change of a server's state begins the turns anew, and apart again.
#[test]
fn workers_stay_apart_when_a_server_comes_and_goes() {
    let mut site = Site::new(RoundRobin, 3);
    for up in [false, true] {
        for worker in &mut site.workers {
            worker.set_health(ServerId(4), up);
        }
    }
    let first = |balancer: &mut Balancer| {
        balancer.pick(&site.snapshot, Target::Pool(PoolId(0)), ip("192.0.2.7"), &[])
    };
    let picks: Vec<Pick> = site.workers.iter_mut().map(first).collect();
    assert_eq!(picks, [0, 3, 6].map(|server| Pick::Server(ServerId(server))));
}
