//! MAC addresses of the neighbours (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! Each worker has its own table. Calls, in their order: [`Neighbors::resolve`] when a flow learns its next hop,
//! [`Neighbors::retain`] while it holds the id, [`Neighbors::mac`] per packet; [`Neighbors::learn`] with what
//! [`crate::arp::receive`] and [`crate::nd::receive`] saw; [`Neighbors::poll_transmit`] and then
//! [`Neighbors::poll_failed`] after each burst; [`Neighbors::release`] when the flow ends. Packets that wait for an
//! answer are kept in [`Pending`].

mod door;
mod entry;
pub(crate) mod keyed;
mod message;
mod pending;

use std::collections::{BTreeSet, HashMap, VecDeque};

use smoltcp::time::{Duration, Instant};

pub use self::door::Door;
use self::door::Doors;
pub use self::entry::NeighborId;
use self::entry::{Entry, State, learned};
use self::keyed::Keyed;
pub use self::message::{Evidence, Observation, Solicitation};
pub use self::pending::{PENDING_PER_NEIGHBOR, Pending};
use crate::address::Address;
use crate::header::Mac;
use crate::io::{PortId, PortSettings};

/// Time between two requests for one neighbour (RFC 4861, 10: RETRANS_TIMER; RFC 1122, 2.3.2.1: not more often).
pub const RETRANSMIT: Duration = Duration::from_secs(1);
/// Requests without an answer after which a neighbour is given up (RFC 4861, 10: MAX_MULTICAST_SOLICIT and
/// MAX_UNICAST_SOLICIT).
pub const ATTEMPTS: u8 = 3;
/// Time after which an answer is no longer taken for granted (RFC 4861, 10: REACHABLE_TIME).
pub const REACHABLE: Duration = Duration::from_secs(30);
/// Time from the first use of an unconfirmed address to asking for it (RFC 4861, 10: DELAY_FIRST_PROBE_TIME).
pub const DELAY: Duration = Duration::from_secs(5);

/// The neighbours of one worker, at most as many as the table was made for.
///
/// An entry that flows refer to ([`Neighbors::retain`]) stays; of the others, the one that was not used for the
/// longest time makes room when the table is full. An entry in use is asked for anew each 30 s by unicast, and its
/// MAC address is used until three such questions went unanswered.
///
/// [`Neighbors::mac`] is one array access. The rest is logarithmic in the number of neighbours.
#[derive(Debug)]
pub struct Neighbors {
    capacity: u16,
    entries: Vec<Entry>,
    index: HashMap<(PortId, Address), u16, Keyed>,
    timers: BTreeSet<(Instant, u16)>,
    /// The first of them.
    soonest: Option<Instant>,
    /// Entries without references, by last use.
    idle: BTreeSet<(Instant, u16)>,
    failed: VecDeque<NeighborId>,
    doors: Doors,
    /// Slots in which neighbours were found lately, by their addresses: `index` is asked only if another one is there.
    recent: [u16; RECENT],
}

/// Size of [`Neighbors::recent`].
const RECENT: usize = 64;

/// Where a neighbour is among the recent ones.
#[inline]
fn place((PortId(port), Address([.., low])): &(PortId, Address)) -> usize {
    usize::from(low ^ port.rotate_left(3)) % RECENT
}

impl Neighbors {
    /// A table for `capacity` neighbours, 1 to 65,535; about 150 bytes each.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let capacity = u16::try_from(capacity).unwrap_or(u16::MAX).max(1);
        Neighbors {
            capacity,
            entries: Vec::with_capacity(usize::from(capacity)),
            index: HashMap::with_capacity_and_hasher(usize::from(capacity), Keyed::default()),
            timers: BTreeSet::new(),
            soonest: None,
            idle: BTreeSet::new(),
            failed: VecDeque::new(),
            doors: Doors::new(capacity),
            recent: [0; RECENT],
        }
    }

    /// The same for these ports: a table that does not know its ports has no [`Door`]s.
    #[must_use]
    pub fn with_ports(self, ports: &[PortSettings]) -> Self {
        Neighbors { doors: self.doors.with_ports(ports), ..self }
    }

    /// Number of neighbours in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True for a table without neighbours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of neighbours that are retained.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.entries.iter().filter(|entry| entry.references > 0).count()
    }

    /// All neighbours with their MAC addresses, for the operator.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, Address, Option<Mac>)> + '_ {
        self.entries.iter().map(|entry| (entry.port, entry.address, entry.state.mac()))
    }

    /// The entry of a next hop; a new one is asked for by the following [`Neighbors::poll_transmit`], one that failed
    /// is tried again. `None`: the table is full of entries that flows refer to.
    pub fn resolve(&mut self, now: Instant, next_hop: (PortId, Address)) -> Option<NeighborId> {
        let slot = match self.slot_of(next_hop) {
            Some(slot) => slot,
            None => {
                let slot = self.insert(now, next_hop)?;
                self.set_due(slot, Some(now));
                slot
            }
        };
        self.want_slot(now, slot);
        self.id(slot)
    }

    /// Where the neighbour has its entry.
    #[inline]
    fn slot_of(&mut self, next_hop: (PortId, Address)) -> Option<u16> {
        let recent = self.recent.get_mut(place(&next_hop))?;
        let there = self.entries.get(usize::from(*recent));
        if there.is_none_or(|entry| (entry.port, entry.address) != next_hop) {
            *recent = *self.index.get(&next_hop)?;
        }
        Some(*recent)
    }

    /// Says that a packet for a neighbour is there. Where [`Neighbors::mac`] gave `None`, this makes
    /// [`Neighbors::poll_transmit`] ask again. `false`: the id is out of date, [`Neighbors::resolve`] anew.
    pub fn want(&mut self, now: Instant, id: NeighborId) -> bool {
        let current = self.entry(id).is_some();
        if current {
            self.want_slot(now, id.slot());
        }
        current
    }

    /// The MAC address, or `None` while the neighbour has not answered.
    #[must_use]
    pub fn mac(&self, id: NeighborId) -> Option<Mac> {
        self.entry(id)?.state.mac()
    }

    /// Port of a neighbour, and its MAC address once it has answered: what a packet needs.
    #[inline]
    #[must_use]
    pub fn way(&self, id: NeighborId) -> Option<(PortId, Option<Mac>)> {
        self.entry(id).map(|entry| (entry.port, entry.state.mac()))
    }

    /// The way to a neighbour for a flow that [retains](Neighbors::retain) it, if its address is known and will be asked for
    /// again in time: then [`Neighbors::want`] has nothing to do. `bits` are those of a [`NeighborId`].
    #[inline]
    #[must_use]
    pub fn door(&self, bits: u32) -> Option<&Door> {
        self.doors.find(NeighborId(bits))
    }

    /// Brings the door of an entry up to date.
    fn hang(&mut self, slot: u16) {
        let (Some(entry), Some(id)) = (self.entries.get(usize::from(slot)), self.id(slot)) else { return };
        match (entry.state, entry.due, entry.references) {
            (State::Known { mac, .. }, Some(_), 1..) => self.doors.open(id, entry.port, mac),
            _ => self.doors.close(slot),
        }
    }

    /// Port and address of a neighbour.
    #[must_use]
    pub fn next_hop(&self, id: NeighborId) -> Option<(PortId, Address)> {
        self.entry(id).map(|entry| (entry.port, entry.address))
    }

    /// [`Neighbors::resolve`] and [`Neighbors::retain`] in one.
    #[inline]
    pub fn hold(&mut self, now: Instant, next_hop: (PortId, Address)) -> Option<NeighborId> {
        let slot = *self.recent.get(place(&next_hop))?;
        if let Some(entry) = self.entries.get_mut(usize::from(slot))
            && (entry.port, entry.address) == next_hop
            && let (State::Known { .. }, Some(_), 1..) = (entry.state, entry.due, entry.references)
        {
            // As most are: found lately, in use, known, and asked for again in time.
            entry.last_used = now;
            entry.references = entry.references.saturating_add(1);
            return Some(NeighborId::new(slot, entry.generation));
        }
        self.resolve_and_retain(now, next_hop)
    }

    #[inline(never)]
    fn resolve_and_retain(&mut self, now: Instant, next_hop: (PortId, Address)) -> Option<NeighborId> {
        let id = self.resolve(now, next_hop)?;
        self.retain(id);
        Some(id)
    }

    /// Keeps an entry in the table until as many [`Neighbors::release`]. `false`: the id is out of date.
    pub fn retain(&mut self, id: NeighborId) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        entry.references = entry.references.saturating_add(1);
        if entry.references == 1 {
            let key = (entry.last_used, id.slot());
            self.idle.remove(&key);
            self.hang(id.slot());
        }
        true
    }

    /// Gives back one [`Neighbors::retain`].
    #[inline]
    pub fn release(&mut self, now: Instant, id: NeighborId) {
        let Some(entry) = self.entry_mut(id) else { return };
        match entry.references {
            0 => {}
            1 => self.release_last(now, id),
            more => entry.references = more - 1,
        }
    }

    fn release_last(&mut self, now: Instant, id: NeighborId) {
        let Some(entry) = self.entry_mut(id) else { return };
        entry.references = 0;
        entry.last_used = now;
        self.idle.insert((now, id.slot()));
        self.hang(id.slot());
    }

    /// Takes in what a message says (RFC 4861, 7.2.3 and 7.2.5; RFC 826). A request makes an entry, an advertisement
    /// only changes one. The id is given when the neighbour's MAC address has just become known: its packets in
    /// [`Pending`] can go.
    pub fn learn(&mut self, now: Instant, seen: &Observation) -> Option<NeighborId> {
        let next_hop = (seen.port, seen.address);
        let slot = match (self.index.get(&next_hop), seen.evidence, seen.mac) {
            (Some(slot), ..) => *slot,
            (None, Evidence::Request, Some(_)) => self.insert(now, next_hop)?,
            _ => return None,
        };
        let entry = self.entries.get_mut(usize::from(slot))?;
        let (mac, reachable) = learned(entry.state, seen)?;
        let was_unknown = entry.state.mac().is_none();
        let used = entry.references > 0 || entry.due.is_some();
        entry.state = State::Known { mac, reachable, probes: 0 };
        let due = match (reachable, used) {
            (true, _) => Some(now + REACHABLE),
            (false, true) => Some(now + DELAY),
            (false, false) => None,
        };
        self.set_due(slot, due);
        self.id(slot).filter(|_| was_unknown)
    }

    /// The next question to send, until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Solicitation> {
        while self.soonest.is_some_and(|at| at <= now)
            && let Some((_, slot)) = self.timers.first().copied()
        {
            let solicitation = self.fire(now, slot);
            if solicitation.is_some() {
                return solicitation;
            }
        }
        None
    }

    /// The next neighbour that was given up or evicted, until `None`: drop what waits for it in [`Pending`].
    pub fn poll_failed(&mut self) -> Option<NeighborId> {
        self.failed.pop_front()
    }

    /// When [`Neighbors::poll_transmit`] is due.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.soonest
    }

    fn entry(&self, id: NeighborId) -> Option<&Entry> {
        self.entries.get(usize::from(id.slot())).filter(|entry| entry.generation == id.generation())
    }

    fn entry_mut(&mut self, id: NeighborId) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(id.slot())).filter(|entry| entry.generation == id.generation())
    }

    fn id(&self, slot: u16) -> Option<NeighborId> {
        self.entries.get(usize::from(slot)).map(|entry| NeighborId::new(slot, entry.generation))
    }

    /// A new entry without a timer, in a free slot or in that of the longest unused entry.
    fn insert(&mut self, now: Instant, (port, address): (PortId, Address)) -> Option<u16> {
        let fresh = |generation| Entry {
            port,
            address,
            generation,
            references: 0,
            state: State::Incomplete { sent: 0 },
            last_used: now,
            due: None,
        };
        let slot = match u16::try_from(self.entries.len()) {
            Ok(free) if free < self.capacity => {
                self.entries.push(fresh(0));
                free
            }
            _ => {
                let (_, slot) = self.idle.pop_first()?;
                self.set_due(slot, None);
                self.fail(slot);
                let entry = self.entries.get_mut(usize::from(slot))?;
                self.index.remove(&(entry.port, entry.address));
                *entry = fresh(entry.generation.wrapping_add(1));
                slot
            }
        };
        self.index.insert((port, address), slot);
        self.idle.insert((now, slot));
        self.hang(slot);
        Some(slot)
    }

    /// Marks an entry as used and makes sure that somebody asks for it in time.
    fn want_slot(&mut self, now: Instant, slot: u16) {
        let Some(entry) = self.entries.get_mut(usize::from(slot)) else { return };
        let before = std::mem::replace(&mut entry.last_used, now);
        if entry.references == 0 && before != now {
            self.idle.remove(&(before, slot));
            self.idle.insert((now, slot));
        }
        match (entry.state, entry.due) {
            (State::Failed, _) => {
                entry.state = State::Incomplete { sent: 0 };
                self.set_due(slot, Some(now));
            }
            (State::Known { .. }, None) => self.set_due(slot, Some(now + DELAY)),
            _ => {}
        }
    }

    fn set_due(&mut self, slot: u16, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(usize::from(slot)) else { return };
        if let Some(before) = std::mem::replace(&mut entry.due, due) {
            self.timers.remove(&(before, slot));
        }
        if let Some(due) = due {
            self.timers.insert((due, slot));
        }
        self.soonest = self.timers.first().map(|(at, _)| *at);
        self.hang(slot);
    }

    /// What a timer that has run out means for its entry.
    fn fire(&mut self, now: Instant, slot: u16) -> Option<Solicitation> {
        let entry = self.entries.get_mut(usize::from(slot))?;
        let wanted = entry.wanted(now);
        let ask = |mac| Some(Solicitation { port: entry.port, target: entry.address, mac });
        let again = Some(now + RETRANSMIT);
        let (state, due, solicitation) = match entry.state {
            State::Incomplete { sent } if sent < ATTEMPTS && wanted => {
                (State::Incomplete { sent: sent + 1 }, again, ask(None))
            }
            State::Incomplete { .. } | State::Failed => (State::Failed, None, None),
            State::Known { mac, probes: 0, .. } if !wanted => {
                (State::Known { mac, reachable: false, probes: 0 }, None, None)
            }
            State::Known { mac, probes, .. } if probes < ATTEMPTS => {
                (State::Known { mac, reachable: false, probes: probes + 1 }, again, ask(Some(mac)))
            }
            State::Known { .. } => (State::Incomplete { sent: 0 }, Some(now), None),
        };
        entry.state = state;
        self.set_due(slot, due);
        if matches!(state, State::Failed) {
            self.fail(slot);
        }
        solicitation
    }

    /// Reports an entry to [`Neighbors::poll_failed`]; whoever does not poll loses the oldest reports.
    fn fail(&mut self, slot: u16) {
        if self.failed.len() >= usize::from(self.capacity) {
            self.failed.pop_front();
        }
        self.failed.extend(self.id(slot));
    }
}

#[cfg(test)]
mod tests;
