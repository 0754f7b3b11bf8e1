//! How workers reach each other: for each pair of them a lane in either direction, bounded queues without locks.
//!
//! A lane carries packets whose flow is another worker's ([`crate::steering`]), one queue for each port that they came
//! in by, and [`News`]. Nobody waits: what finds a full queue is lost, and the sender counts it.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::io::{BURST, Burst, PortId};
use crate::neighbor::Observation;
use crate::steering::Seat;
use crate::table::TableNews;

/// Packets on their way from one worker to another, for each port.
const PACKETS: usize = 1024;
/// News on their way from one worker to another.
const NEWS: usize = 1024;

/// What a worker tells another one, or all of them.
#[derive(Clone, Debug)]
pub enum News {
    /// It saw this ARP or ND message. Cards give such messages to one queue, whoever asked.
    Neighbor(Observation),
    /// A packet of the other worker's flow, put together of its fragments: too large for a buffer of the devices.
    Whole {
        /// The port by which the fragments came.
        port: PortId,
        /// The frame that they make.
        frame: Box<[u8]>,
    },
    /// What became of a key of a script's table.
    Table(TableNews),
}

/// What one worker sends to another.
#[derive(Debug)]
struct Lane<B> {
    /// By [`PortId`].
    packets: Vec<ArrayQueue<B>>,
    news: ArrayQueue<News>,
}

/// One worker's ends of its lanes.
#[derive(Debug)]
pub struct Mesh<B> {
    seat: Seat,
    /// By number of the worker that sends; none from itself.
    inbound: Vec<Option<Arc<Lane<B>>>>,
    /// By number of the worker that receives.
    outbound: Vec<Option<Arc<Lane<B>>>>,
}

impl<B> Mesh<B> {
    /// The end of a worker that is alone.
    #[must_use]
    pub fn alone() -> Self {
        Mesh { seat: Seat::ALONE, inbound: vec![None], outbound: vec![None] }
    }

    /// The ends of so many workers with so many ports, by number. Each pair of workers takes 240 KB, and 32 KB more for
    /// each port.
    #[must_use]
    pub fn new(workers: u8, ports: usize) -> Vec<Self> {
        let seats: Vec<Seat> = Seat::all(workers).collect();
        let lane = || Lane {
            packets: std::iter::repeat_with(|| ArrayQueue::new(PACKETS)).take(ports).collect(),
            news: ArrayQueue::new(NEWS),
        };
        let row = |from: &Seat| -> Vec<Option<Arc<Lane<B>>>> {
            seats.iter().map(|to| (to != from).then(|| Arc::new(lane()))).collect()
        };
        let lanes: Vec<Vec<Option<Arc<Lane<B>>>>> = seats.iter().map(row).collect();
        let inbound = |to: usize| lanes.iter().map(|row| row.get(to).cloned().flatten()).collect();
        let ends = seats.iter().zip(&lanes).enumerate();
        ends.map(|(number, (seat, row))| Mesh {
            seat: *seat,
            inbound: inbound(number),
            outbound: row.clone(),
        })
        .collect()
    }

    /// The worker's seat.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.seat
    }

    /// Numbers of the other workers.
    pub fn peers(&self) -> impl Iterator<Item = u8> + use<B> {
        let Seat { number, of } = self.seat;
        (0..of).filter(move |&peer| peer != number)
    }

    /// Hands a packet that came in by `port` to another worker; gives it back when that worker's queue is full.
    pub fn hand_over(&self, to: u8, port: PortId, packet: B) -> Result<(), B> {
        let lane = self.outbound.get(usize::from(to)).and_then(Option::as_ref);
        match lane.and_then(|lane| lane.packets.get(port.index())) {
            Some(queue) => queue.push(packet),
            None => Err(packet),
        }
    }

    /// Appends packets that another worker handed over and that came in by `port`, until `burst` has `most`.
    pub fn take_over(&self, most: usize, from: u8, port: PortId, burst: &mut Burst<B>) {
        let lane = self.inbound.get(usize::from(from)).and_then(Option::as_ref);
        let Some(queue) = lane.and_then(|lane| lane.packets.get(port.index())) else { return };
        // Cheaper than an attempt at an empty queue, which needs a fence.
        if queue.is_empty() {
            return;
        }
        while burst.len() < most.min(BURST)
            && let Some(packet) = queue.pop()
        {
            let _ = burst.try_push(packet);
        }
    }

    /// Tells another worker something; gives it back when that worker's queue is full.
    pub fn tell(&self, to: u8, news: News) -> Result<(), News> {
        match self.outbound.get(usize::from(to)).and_then(Option::as_ref) {
            Some(lane) => lane.news.push(news),
            None => Err(news),
        }
    }

    /// The next thing that another worker told.
    #[must_use]
    pub fn hear(&self, from: u8) -> Option<News> {
        let lane = self.inbound.get(usize::from(from)).and_then(Option::as_ref)?;
        if lane.news.is_empty() { None } else { lane.news.pop() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbor::Evidence;

    const A: PortId = PortId(0);
    const B: PortId = PortId(1);

    fn news(last: u8) -> News {
        News::Neighbor(Observation {
            port: A,
            address: std::net::IpAddr::from([192, 0, 2, last]).into(),
            mac: None,
            evidence: Evidence::Request,
        })
    }

    #[test]
    fn packets_and_news_reach_the_worker_they_are_for_in_their_order() {
        let meshes = Mesh::<u32>::new(3, 2);
        assert_eq!(meshes[1].peers().collect::<Vec<_>>(), [0, 2]);
        meshes[0].hand_over(2, B, 7).unwrap();
        meshes[0].hand_over(2, B, 8).unwrap();
        meshes[0].hand_over(2, A, 9).unwrap();
        meshes[1].hand_over(2, B, 10).unwrap();
        meshes[0].tell(2, news(1)).unwrap();
        meshes[0].tell(2, news(2)).unwrap();
        let heard = |from| format!("{:?}", meshes[2].hear(from));
        let said = |last| format!("{:?}", Some(news(last)));
        let taken = |from, port| {
            let mut burst = Burst::new();
            meshes[2].take_over(BURST, from, port, &mut burst);
            burst.to_vec()
        };
        assert_eq!(taken(0, B), [7, 8]);
        assert_eq!(taken(0, B), [0; 0]);
        assert_eq!((taken(0, A), taken(1, B)), (vec![9], vec![10]));
        assert_eq!((heard(0), heard(1)), (said(1), "None".to_owned()));
        assert!(meshes[1].hear(0).is_none());
        assert_eq!((heard(0), heard(0)), (said(2), "None".to_owned()));
    }

    #[test]
    fn full_queues_and_unknown_workers_refuse() {
        let meshes = Mesh::<usize>::new(2, 1);
        for n in 0..PACKETS {
            meshes[0].hand_over(1, A, n).unwrap();
        }
        assert_eq!(meshes[0].hand_over(1, A, 5000), Err(5000));
        assert_eq!(meshes[0].hand_over(0, A, 1), Err(1), "not to itself");
        assert_eq!(meshes[0].hand_over(1, B, 2), Err(2), "no such port");
        let mut burst = Burst::new();
        meshes[1].take_over(BURST, 0, A, &mut burst);
        assert_eq!(burst.len(), BURST);
        meshes[0].hand_over(1, A, 5000).unwrap();
        assert!((0..NEWS).all(|_| meshes[0].tell(1, news(1)).is_ok()));
        assert!(meshes[0].tell(1, news(1)).is_err());
        assert!(Mesh::<u8>::alone().tell(1, news(1)).is_err());
    }
}
