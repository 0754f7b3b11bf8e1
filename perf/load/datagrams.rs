//! UDP: datagrams at a fixed rate on a number of flows; those that come back are counted. The highest rate at which
//! (nearly) all do is searched.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::ensure;
use rustix::event::epoll::EventFlags;
use rustix::net::{self, RecvFlags, SendFlags, SocketType};

use crate::system::{self, Poll};

/// Bytes of payload.
const PAYLOAD: usize = 64;
/// Datagrams are sent in bursts, so often.
const BURST: u64 = 100_000;
/// How long answers may still come after the last datagram of a trial.
const PATIENCE: u64 = 50_000_000;
/// Where the search begins, datagrams per second, by what it goes up or down, and where it ends.
const FIRST: f64 = 20_000.0;
const STEP: f64 = 1.6;
const LEAST: f64 = 500.0;
/// Halvings of the last step: the rate is known to within 3 %.
const HALVINGS: u32 = 4;

/// What became of the datagrams of one trial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trial {
    pub sent: u64,
    pub answered: u64,
    /// Answered per second.
    pub rate: f64,
    /// The client could not send as fast as it should have.
    pub late: bool,
}

impl Trial {
    /// At most one of 1,000 is lost.
    fn is_good(&self) -> bool {
        !self.late && (self.sent - self.answered.min(self.sent)) * 1000 <= self.sent
    }
}

pub struct Datagrams {
    poll: Poll,
    flows: Vec<OwnedFd>,
    /// Nanoseconds of a trial.
    length: u64,
    trials: u32,
}

impl Datagrams {
    pub fn new(to: SocketAddr, flows: usize, length: std::time::Duration) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let connect = |number| {
            let socket = system::connect(SocketType::DGRAM, to)?;
            poll.add(&socket, number, EventFlags::IN)?;
            Ok(socket)
        };
        let flows = (0..flows).map(connect).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Datagrams { poll, flows, length: length.as_nanos() as u64, trials: 0 })
    }

    /// The best trial; none if not even the least rate can be carried.
    pub fn search(&mut self) -> anyhow::Result<Option<Trial>> {
        // All flows come to be; neighbours are asked for.
        self.trial(FIRST / 10.0)?;
        let (mut good, mut low, mut high) = (None, FIRST / STEP, FIRST);
        while let Some(trial) = self.twice(high)? {
            (good, low, high) = (Some(trial), high, high * STEP);
        }
        while good.is_none() && low >= LEAST {
            good = self.twice(low)?;
            if good.is_none() {
                (low, high) = (low / STEP, low);
            }
        }
        for _ in 0..HALVINGS {
            let middle = (low * high).sqrt();
            match self.twice(middle)? {
                Some(trial) => (good, low) = (Some(trial), middle),
                None => high = middle,
            }
        }
        Ok(good)
    }

    /// A rate has a second chance: the machine may have had something else to do in the first.
    fn twice(&mut self, rate: f64) -> anyhow::Result<Option<Trial>> {
        let first = self.trial(rate)?;
        let trial = if first.is_good() { first } else { self.trial(rate)? };
        Ok(trial.is_good().then_some(trial))
    }

    fn trial(&mut self, rate: f64) -> anyhow::Result<Trial> {
        self.trials += 1;
        let total = (rate * self.length as f64 / 1e9) as u64;
        ensure!(total > 0, "the trial is too short");
        let mut trial = Trial::default();
        let begin = system::now();
        let mut next = begin;
        while trial.sent < total {
            let now = system::now();
            let due = (((now - begin) as f64 * rate / 1e9) as u64 + 1).min(total);
            while trial.sent < due {
                self.send(trial.sent);
                trial.sent += 1;
            }
            next = (next + BURST).max(system::now());
            loop {
                self.receive(next.saturating_sub(system::now()), &mut trial)?;
                if system::now() >= next {
                    break;
                }
            }
        }
        let end = system::now();
        while trial.answered < trial.sent && system::now() < end + PATIENCE {
            self.receive(PATIENCE, &mut trial)?;
        }
        let seconds = (end - begin) as f64 / 1e9;
        trial.rate = trial.answered as f64 / seconds;
        trial.late = seconds * 1e9 > self.length as f64 * 1.03;
        Ok(trial)
    }

    /// What the kernel does not take is lost, like what gets lost later.
    fn send(&self, number: u64) {
        let mut payload = [0; PAYLOAD];
        for (byte, of_trial) in payload.iter_mut().zip(self.trials.to_be_bytes()) {
            *byte = of_trial;
        }
        if let Some(socket) = self.flows.get(number as usize % self.flows.len()) {
            let _ = net::send(socket, &payload, SendFlags::empty());
        }
    }

    fn receive(&mut self, pause: u64, trial: &mut Trial) -> anyhow::Result<()> {
        let mut buffer = [0; PAYLOAD * 2];
        for number in self.poll.wait(pause)? {
            let Some(socket) = self.flows.get(number) else { continue };
            while let Ok((count, _)) = net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
                let of_this = buffer.starts_with(&self.trials.to_be_bytes());
                trial.answered += u64::from(count == PAYLOAD && of_this);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_thousand_may_be_lost() {
        let trial = |sent, answered| Trial { sent, answered, rate: 0.0, late: false };
        assert!(trial(1000, 999).is_good() && trial(10, 10).is_good());
        assert!(!trial(1000, 998).is_good() && !trial(999, 998).is_good());
        assert!(!Trial { late: true, ..trial(10, 10) }.is_good());
    }
}
