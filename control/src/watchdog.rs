//! Finds workers that stall: each is asked now and then, and has to answer between two bursts.

use std::sync::mpsc::{Receiver, TryRecvError};

use dataplane::channel::{Answer, Query};
use smoltcp::time::{Duration, Instant};

use crate::workers::Workers;

/// Time between two questions to a worker.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time without an answer after which a worker is said to stall. A worker goes round in microseconds; scripts may hold it
/// up for a few milliseconds, and a machine without a free CPU for some hundred.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known about one worker.
#[derive(Debug, Default)]
struct Ward {
    asked: Option<(Instant, Receiver<Answer>)>,
    /// When it is to be asked next.
    next: Option<Instant>,
    /// Since when its queue has been full.
    full: Option<Instant>,
    stalled: bool,
}

/// A worker began or ceased to stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) worker: usize,
    pub(crate) stalled: bool,
}

/// Looks after all workers.
#[derive(Debug)]
pub(crate) struct Watchdog {
    workers: Workers,
    wards: Vec<Ward>,
}

impl Watchdog {
    pub(crate) fn new(workers: Workers) -> Self {
        let wards = std::iter::repeat_with(Ward::default).take(workers.len()).collect();
        Watchdog { workers, wards }
    }

    /// Asks whom it is time to ask, and says what changed. To be called some times in a second.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (worker, ward) in self.wards.iter_mut().enumerate() {
            let stalled = match self.workers.get(worker) {
                Some(way) => ward.poll(now, || way.query(Query::Ping)),
                None => None,
            };
            if let Some(stalled) = stalled.filter(|stalled| *stalled != ward.stalled) {
                ward.stalled = stalled;
                findings.push(Finding { worker, stalled });
            }
        }
        findings
    }
}

impl Ward {
    /// Whether the worker stalls, if that is known now.
    fn poll(&mut self, now: Instant, ask: impl FnOnce() -> Option<Receiver<Answer>>) -> Option<bool> {
        if let Some((since, receiver)) = &self.asked {
            match receiver.try_recv() {
                Err(TryRecvError::Empty) => return (now >= *since + PATIENCE).then_some(true),
                // Gone is not stalled: it has ended.
                Ok(_) | Err(TryRecvError::Disconnected) => {
                    self.asked = None;
                    self.next = Some(now + INTERVAL);
                    return Some(false);
                }
            }
        }
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        match ask() {
            Some(receiver) => {
                self.full = None;
                self.asked = Some((now, receiver));
                None
            }
            None => {
                let since = *self.full.get_or_insert(now);
                (now >= since + PATIENCE).then_some(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::channel::{Capacities, Command, WorkerEnd, channel};

    use super::*;

    fn workers(count: usize) -> (Workers, Vec<WorkerEnd>) {
        let capacities = Capacities { commands: 2, ..Capacities::default() };
        let (ends, controls): (Vec<_>, Vec<_>) = (0..count).map(|_| channel(capacities)).unzip();
        (Workers::new(controls.into_iter().map(|control| control.commands).collect()), ends)
    }

    fn answer(end: &mut WorkerEnd) -> usize {
        let mut answered = 0;
        while let Some(command) = end.command() {
            if let Command::Query(Query::Ping, reply) = command {
                reply.send(Answer::Pong);
                answered += 1;
            }
        }
        answered
    }

    /// One look every 50 ms.
    fn watch(dog: &mut Watchdog, now: &mut Instant, seconds: u64, mut each: impl FnMut()) -> Vec<Finding> {
        let mut findings = Vec::new();
        for _ in 0..seconds * 20 {
            *now += Duration::from_millis(50);
            findings.extend(dog.poll(*now));
            each();
        }
        findings
    }

    #[test]
    fn a_worker_that_stalls_is_named_and_so_is_its_return() {
        let (workers, mut ends) = workers(3);
        let (mut dog, mut now) = (Watchdog::new(workers), Instant::from_secs(10));
        let mut asked = 0;
        let findings = watch(&mut dog, &mut now, 10, || asked += ends.iter_mut().map(answer).sum::<usize>());
        assert_eq!(findings, []);
        assert!((27..=33).contains(&asked), "once a second each: {asked}");
        let findings = watch(&mut dog, &mut now, 10, || {
            answer(&mut ends[0]);
            answer(&mut ends[2]);
        });
        assert_eq!(findings, [Finding { worker: 1, stalled: true }]);
        let findings = watch(&mut dog, &mut now, 3, || {
            ends.iter_mut().for_each(|end| {
                answer(end);
            });
        });
        assert_eq!(findings, [Finding { worker: 1, stalled: false }]);
    }

    #[test]
    fn a_full_queue_is_a_stall_and_an_ended_worker_is_none() {
        let (workers, mut ends) = workers(2);
        for _ in 0..2 {
            workers.get(0).unwrap().send(Command::Stop).unwrap();
        }
        let (mut dog, mut now) = (Watchdog::new(workers), Instant::from_secs(10));
        let gone = ends.pop();
        let findings = watch(&mut dog, &mut now, 1, || ());
        assert_eq!(findings, []);
        drop(gone);
        let findings = watch(&mut dog, &mut now, 5, || ());
        assert!(findings.contains(&Finding { worker: 0, stalled: true }), "{findings:?}");
    }
}
