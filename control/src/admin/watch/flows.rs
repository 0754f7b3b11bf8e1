//! One numbering of the flows that several workers follow.

use std::collections::HashMap;

use dataplane::address::FlowKey;
use dataplane::pipeline::Verdict;
use dataplane::trace::{TraceEvent, What};

/// Numbers from 1 on; what two workers tell of the same tuple (one has handed its packets to the other) is of one flow.
pub(super) struct Flows {
    limit: u32,
    /// By worker, and by the worker's own number. 0: one too many.
    numbers: HashMap<(usize, u32), u32>,
    /// The last flow of a tuple, and the worker that told of it first.
    tuples: HashMap<FlowKey, (u32, usize)>,
    /// By number - 1.
    states: Vec<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Packets that belong to no flow of weir's, yet.
    Packets,
    Open,
    Over,
}

impl Flows {
    pub(super) fn new(limit: u32) -> Self {
        Flows { limit, numbers: HashMap::new(), tuples: HashMap::new(), states: Vec::new() }
    }

    /// How many are wanted.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// How many there were.
    pub(super) fn given(&self) -> usize {
        self.states.len()
    }

    /// True if there were as many as were wanted, and all have ended.
    pub(super) fn all_over(&self) -> bool {
        self.states.len() >= self.limit as usize && self.states.iter().all(|state| *state == State::Over)
    }

    /// The number of the flow of an event; `None` if it is one too many.
    pub(super) fn number(&mut self, worker: usize, event: &TraceEvent) -> Option<u32> {
        let place = (worker, event.flow);
        if let What::Begin { key, .. } = &event.what {
            let number = self.begin(worker, key);
            self.numbers.insert(place, number);
        }
        let number = self.numbers.get(&place).copied().filter(|number| *number > 0)?;
        let state = self.states.get_mut(number as usize - 1)?;
        *state = match (&event.what, *state) {
            (What::New(_), _) | (What::Found(_), State::Packets) => State::Open,
            (What::End(_), _) => State::Over,
            (What::Verdict { verdict: Verdict::Drop(_), .. }, State::Packets) => State::Over,
            (_, state) => state,
        };
        Some(number)
    }

    fn begin(&mut self, worker: usize, key: &FlowKey) -> u32 {
        if let Some((number, _)) = self.tuples.get(key).filter(|(_, first)| *first != worker) {
            return *number;
        }
        if self.states.len() >= self.limit as usize {
            return 0;
        }
        self.states.push(State::Packets);
        let number = self.states.len() as u32;
        self.tuples.insert(*key, (number, worker));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::counters::DropReason;
    use dataplane::snapshot::{Protocol, ServiceId};
    use smoltcp::time::Instant;

    fn begin(flow: u32, port: u16) -> TraceEvent {
        let client = std::net::SocketAddr::new("192.0.2.7".parse().unwrap(), port);
        let key = FlowKey::new(Protocol::Tcp, client, "192.0.2.10:443".parse().unwrap());
        told(flow, What::Begin { key, open: false })
    }

    fn told(flow: u32, what: What) -> TraceEvent {
        TraceEvent { at: Instant::ZERO, flow, what }
    }

    fn verdict(flow: u32, verdict: Verdict) -> TraceEvent {
        told(flow, What::Verdict { verdict, left: None })
    }

    #[test]
    fn workers_that_hand_packets_over_tell_of_one_flow() {
        let mut flows = Flows::new(2);
        assert_eq!(flows.number(0, &begin(0, 1000)), Some(1));
        assert_eq!(flows.number(0, &verdict(0, Verdict::HandOver(1))), Some(1));
        assert_eq!(flows.number(1, &begin(0, 1000)), Some(1));
        assert_eq!(flows.number(1, &begin(1, 2000)), Some(2));
        assert_eq!(flows.number(1, &begin(2, 3000)), None, "two were wanted");
        assert_eq!(flows.number(1, &told(2, What::Bound)), None);
        assert_eq!(flows.number(1, &told(1, What::New(ServiceId(0)))), Some(2));
        assert!(!flows.all_over());
        flows.number(1, &verdict(0, Verdict::Drop(DropReason::NoService)));
        assert!(!flows.all_over(), "one is open");
        flows.number(1, &verdict(1, Verdict::Drop(DropReason::TooBig)));
        assert!(!flows.all_over(), "a packet is dropped, its flow goes on");
        flows.number(1, &told(1, What::End(Box::new(crate::fixture::record()))));
        flows.number(1, &told(1, What::Found(dataplane::channel::FlowState::Closing)));
        assert!(flows.all_over(), "late packets do not open it again");
    }

    #[test]
    fn a_tuple_that_comes_again_at_its_worker_is_another_flow() {
        let mut flows = Flows::new(5);
        assert_eq!(flows.number(0, &begin(0, 1000)), Some(1));
        assert_eq!(flows.number(0, &begin(1, 1000)), Some(2));
        assert_eq!((flows.given(), flows.number(0, &told(0, What::Bound))), (2, Some(1)));
    }
}
