//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4).
//!
//! Every server prefers the slots of the table in an order of its own; the servers take turns and each takes the
//! free slot that it likes best. When one goes, its slots are shared out among the others and few other slots
//! change hands. The table depends on the servers' addresses, ports, weights, and on which are up, and on nothing
//! else: all workers and all machines with the same configuration agree.

use std::net::IpAddr;

use crate::address::Address;
use crate::snapshot::{ServerId, Snapshot};

/// Table sizes: primes, so that every step from slot to slot visits the whole table.
const SIZES: [u32; 7] = [1021, 2039, 4093, 8191, 16381, 32749, 65537];
/// Slots that the server with the smallest weight gets, about, unless the largest table is too small for that.
const SLOTS_PER_SERVER: u64 = 100;
/// Neighbouring slots that [`Maglev::find`] tries.
const PROBES: usize = 32;
const EMPTY: u16 = u16::MAX;

/// The order in which one server prefers slots, and how far it is in it.
#[derive(Clone, Debug)]
struct Member {
    server: ServerId,
    weight: u32,
    first: u32,
    step: u32,
    /// During a rebuild: it is up.
    live: bool,
    /// During a rebuild: the next slot in the order.
    slot: u32,
    /// During a rebuild: what it has saved up for its next turn.
    saved: u32,
}

/// The table of the servers of one address family of a pool: 2 bytes per slot, 2 to 128 KiB.
#[derive(Clone, Debug)]
pub(super) struct Maglev {
    members: Vec<Member>,
    /// Places in `members`, or [`EMPTY`] everywhere when no server is up.
    slots: Vec<u16>,
}

impl Maglev {
    /// For those of `servers` that have IPv4 (or IPv6) addresses; `None` when there are none. Empty until
    /// [`Maglev::rebuild`].
    pub(super) fn new(snapshot: &Snapshot, servers: &[ServerId], v4: bool) -> Option<Self> {
        let configured = servers.iter().filter_map(|&id| Some((id, snapshot.servers.get(id.index())?)));
        let family = configured.filter(|(_, s)| s.address.is_ipv4() == v4);
        let weight = |s: &crate::snapshot::Server| u32::from(s.weight.max(1));
        let smallest = family.clone().map(|(_, s)| weight(s)).min()?;
        let sum: u64 = family.clone().map(|(_, s)| u64::from(weight(s))).sum();
        let size = table_size(sum.saturating_mul(SLOTS_PER_SERVER) / u64::from(smallest));
        let members = family.take(usize::from(EMPTY)).map(|(server, s)| Member {
            server,
            weight: weight(s),
            first: remainder(hash(s.address, u64::from(s.port), 1), size),
            step: remainder(hash(s.address, u64::from(s.port), 2), size - 1) + 1,
            live: false,
            slot: 0,
            saved: 0,
        });
        Some(Maglev { members: members.collect(), slots: vec![EMPTY; size as usize] })
    }

    /// Fills the table for the servers that are up. Does not allocate.
    pub(super) fn rebuild(&mut self, up: impl Fn(ServerId) -> bool) {
        self.slots.fill(EMPTY);
        // Also counts servers that are down: a turn then costs the others the same as before.
        let turn = self.members.iter().map(|m| m.weight).max().unwrap_or(1);
        for member in &mut self.members {
            (member.live, member.slot, member.saved) = (up(member.server), member.first, 0);
        }
        let mut free = self.slots.len();
        while free > 0 {
            let live = self.members.iter().filter(|m| m.live);
            let Some(rounds) = live.map(|m| (turn - m.saved).div_ceil(m.weight)).min() else { return };
            for (place, member) in (0u16..).zip(&mut self.members).filter(|(_, m)| m.live) {
                member.saved += rounds * member.weight;
                if member.saved >= turn && free > 0 {
                    member.saved -= turn;
                    take_slot(&mut self.slots, member, place);
                    free -= 1;
                }
            }
        }
    }

    /// The server of `client`, or, where `accept` refuses that one, the server of one of the next slots. `None` when
    /// no server is up or `accept` refused all of some slots in a row.
    pub(super) fn find(&self, client: IpAddr, accept: impl Fn(ServerId) -> bool) -> Option<ServerId> {
        let size = u32::try_from(self.slots.len()).ok()?;
        let start = remainder(hash(client, 0, 0), size) as usize;
        let (before, after) = self.slots.split_at_checked(start)?;
        let slots = after.iter().chain(before).take(PROBES);
        slots.filter_map(|&place| self.members.get(usize::from(place))).map(|m| m.server).find(|&s| accept(s))
    }
}

/// Gives the member its favourite among the free slots; there must be one.
fn take_slot(slots: &mut [u16], member: &mut Member, place: u16) {
    let size = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    for _ in 0..slots.len() {
        let slot = member.slot as usize;
        member.slot = (member.slot + member.step) % size;
        if let Some(owner) = slots.get_mut(slot).filter(|owner| **owner == EMPTY) {
            *owner = place;
            return;
        }
    }
}

/// The smallest size that has `wanted` slots, or the largest there is.
fn table_size(wanted: u64) -> u32 {
    let [.., largest] = SIZES;
    SIZES.into_iter().find(|&size| u64::from(size) >= wanted).unwrap_or(largest)
}

fn remainder(hash: u64, size: u32) -> u32 {
    // Less than `size`, so it fits.
    (hash % u64::from(size.max(1))) as u32
}

/// The same on every machine and in every release: it decides where clients go.
fn hash(address: IpAddr, port: u64, purpose: u64) -> u64 {
    let bits = u128::from_be_bytes(Address::from(address).0);
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let port_and_purpose = port | purpose << 32;
    [high, low, port_and_purpose]
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |state, word| mix(state ^ mix(word)))
}

/// Spreads every bit over the whole word (the finalizer of SplitMix64), made non-zero at 0 by an odd constant.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
