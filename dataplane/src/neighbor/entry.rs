//! One neighbour: its name, and what is known of it.

use smoltcp::time::Instant;

use super::{Evidence, Observation, REACHABLE};
use crate::address::Address;
use crate::header::Mac;
use crate::io::PortId;

/// A neighbour in its table. An id that outlives its entry names nothing: it never names another neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NeighborId(pub(super) u32);

impl NeighborId {
    pub(super) fn new(slot: u16, generation: u16) -> Self {
        NeighborId(u32::from(generation) << 16 | u32::from(slot))
    }

    /// As flows store it.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// What [`NeighborId::bits`] gave; any other number is an id that names nothing.
    #[inline]
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        NeighborId(bits)
    }

    pub(super) fn slot(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    pub(super) fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Asked for `sent` times.
    Incomplete { sent: u8 },
    /// In use; `probes` unicast questions are open. Not reachable is STALE, DELAY or PROBE of RFC 4861, 7.3.2.
    Known { mac: Mac, reachable: bool, probes: u8 },
    /// Did not answer.
    Failed,
}

impl State {
    pub(super) fn mac(&self) -> Option<Mac> {
        match self {
            State::Known { mac, .. } => Some(*mac),
            State::Incomplete { .. } | State::Failed => None,
        }
    }
}

/// A neighbour in its table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) port: PortId,
    pub(super) address: Address,
    pub(super) generation: u16,
    pub(super) references: u32,
    pub(super) state: State,
    pub(super) last_used: Instant,
    /// Its time in `Neighbors::timers`.
    pub(super) due: Option<Instant>,
}

impl Entry {
    /// Somebody sends to it, or did lately.
    pub(super) fn wanted(&self, now: Instant) -> bool {
        self.references > 0 || self.last_used + REACHABLE > now
    }
}

/// MAC address and reachability after an observation, or `None` if it changes nothing.
pub(super) fn learned(state: State, seen: &Observation) -> Option<(Mac, bool)> {
    match (state, seen.evidence, seen.mac) {
        (State::Known { mac, .. }, Evidence::Request, Some(new)) => (new != mac).then_some((new, false)),
        (_, Evidence::Request, new) => new.map(|new| (new, false)),
        (State::Known { mac, reachable, .. }, Evidence::Advertisement { solicited, overrides }, new) => {
            let new = new.unwrap_or(mac);
            match (new == mac, overrides) {
                (false, false) => reachable.then_some((mac, false)),
                (false, true) => Some((new, solicited)),
                (true, _) => solicited.then_some((mac, true)),
            }
        }
        (_, Evidence::Advertisement { solicited, .. }, new) => new.map(|new| (new, solicited)),
    }
}
