//! The datagrams of which fragments are missing.

use arrayvec::ArrayVec;
use smoltcp::time::{Duration, Instant};
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use super::blocks::{BLOCK, Blocks, NONE};
use super::datagram::Datagram;
use super::header::Fragment;
use super::linear::{Linear, ROOM};
use crate::address::FlowKey;
use crate::checksum::Sum;
use crate::counters::{Counters, DropReason};
use crate::flow_table::hash::Hasher;
use crate::header::{ETHERNET_LEN, Ipv4, TAG_LEN};
use crate::io::PacketBuf;

/// Time from the first fragment that came to giving the datagram up (RFC 791, 3.2, and RFC 1122, 3.3.2, allow from
/// 15 s to 2 minutes; hosts use 30 s).
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest datagram, header included: a frame around it, with a tag, is within the reach of 16 bits.
pub const LONGEST: usize = ROOM - ETHERNET_LEN - TAG_LEN;
/// Bytes of memory for each datagram that can be kept: its record, one block, and their places in the lists.
pub const UNIT: usize = BLOCK + size_of::<Datagram>() + 12;
/// Bytes that an ICMP error quotes at most (RFC 1812, 4.3.2.3).
const QUOTED: usize = 548;

/// A datagram of which a fragment did not come in time.
#[derive(Debug)]
pub struct Expired {
    /// As [`Fragment::key`].
    pub key: FlowKey,
    /// The start of its first fragment, for the ICMP error; empty if that did not come.
    pub first: ArrayVec<u8, QUOTED>,
    /// It had been given up before.
    pub refused: bool,
}

/// Fragments of one worker that wait for the rest of their datagrams, in memory that is taken once.
///
/// As many datagrams fit as there are [`UNIT`]s, each with one block of payload on average. At either bound the oldest
/// datagram gives way: what comes in one piece, or nearly so, is complete long before a flood of fragments that are
/// never completed has gone through the table (RFC 4787, 11, REQ-14).
///
/// [`Reassembly::add`] costs a look-up by a keyed hash, a search among at most [`super::MOST_PIECES`] pieces, and a
/// copy; nothing is allocated.
pub struct Reassembly {
    hasher: Hasher,
    datagrams: Vec<Datagram>,
    buckets: Vec<u32>,
    blocks: Blocks,
    /// First of the records that are free.
    free: u32,
    oldest: u32,
    newest: u32,
    in_use: usize,
}

impl Reassembly {
    /// A table in `memory` bytes; with less than one [`UNIT`] it refuses all fragments. `seed` must be secret.
    #[must_use]
    pub fn new(memory: u32, seed: u64) -> Self {
        let count = u32::try_from(memory as usize / UNIT).unwrap_or(0);
        let mut datagrams: Vec<Datagram> = (0..count).map(|_| Datagram::empty()).collect();
        datagrams.iter_mut().zip(1..count).for_each(|(datagram, next)| datagram.next = next);
        Reassembly {
            hasher: Hasher::new(seed),
            datagrams,
            buckets: vec![NONE; count as usize],
            blocks: Blocks::new(count),
            free: if count == 0 { NONE } else { 0 },
            oldest: NONE,
            newest: NONE,
            in_use: 0,
        }
    }

    /// False if there is no memory for fragments.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.datagrams.is_empty()
    }

    /// Datagrams that are not complete, and blocks that they use.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        (self.in_use, self.datagrams.len() - self.blocks.free())
    }

    /// Takes a fragment in. True if it was the last one that was missing: then `whole` is the frame of the datagram,
    /// with the link header of this fragment, and without DF, because it is cut anew.
    ///
    /// # Errors
    /// Why the fragment was dropped.
    pub fn add(
        &mut self,
        now: Instant,
        fragment: &Fragment<'_>,
        whole: &mut Linear,
        counters: &mut Counters,
    ) -> Result<bool, DropReason> {
        fragment.check(LONGEST)?;
        let slot = self.find(&fragment.key).map_or_else(|| self.begin(now, fragment.key, counters), Ok)?;
        let Reassembly { datagrams, blocks, .. } = self;
        let datagram = datagrams.get_mut(slot as usize).ok_or(DropReason::NoBuffer)?;
        let place = datagram.place(fragment, blocks)?;
        let missing = datagram.missing(fragment);
        self.make_room(slot, missing, counters)?;
        let Reassembly { datagrams, blocks, .. } = self;
        let datagram = datagrams.get_mut(slot as usize).ok_or(DropReason::NoBuffer)?;
        if !datagram.store(place, fragment, blocks) {
            return Ok(false);
        }
        let joined = join(datagram, fragment.link, blocks, whole);
        self.remove(slot);
        joined.map(|()| counters.reassembled += 1)?;
        Ok(true)
    }

    /// The next datagram whose time is over, if there is one; it is forgotten.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Expired> {
        let slot = self.oldest;
        let datagram = self.datagrams.get(slot as usize).filter(|oldest| oldest.since + TIMEOUT <= now)?;
        let (key, refused) = (datagram.key, datagram.is_refused());
        let first = if refused { ArrayVec::new() } else { quote(datagram, &self.blocks) };
        self.remove(slot);
        Some(Expired { key, first, refused })
    }

    fn bucket(&self, key: &FlowKey) -> usize {
        (self.hasher.hash(key) as usize).checked_rem(self.buckets.len()).unwrap_or(0)
    }

    fn find(&self, key: &FlowKey) -> Option<u32> {
        let mut slot = *self.buckets.get(self.bucket(key))?;
        loop {
            let datagram = self.datagrams.get(slot as usize)?;
            if datagram.key == *key {
                return Some(slot);
            }
            slot = datagram.next;
        }
    }

    /// A record for a new datagram, the newest one.
    fn begin(&mut self, now: Instant, key: FlowKey, counters: &mut Counters) -> Result<u32, DropReason> {
        if self.free == NONE && self.oldest != NONE {
            self.remove(self.oldest);
            counters.fragments_evicted += 1;
        }
        let (slot, bucket, newest) = (self.free, self.bucket(&key), self.newest);
        let datagram = self.datagrams.get_mut(slot as usize).ok_or(DropReason::Fragment)?;
        self.free = datagram.next;
        datagram.begin(key, now);
        (datagram.older, datagram.newer) = (newest, NONE);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            datagram.next = std::mem::replace(bucket, slot);
        }
        match self.datagrams.get_mut(newest as usize) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.in_use += 1;
        Ok(slot)
    }

    /// Lets the oldest datagrams give way until so many blocks are free. If the datagram that needs them is the oldest
    /// itself, it goes.
    fn make_room(&mut self, slot: u32, blocks: usize, counters: &mut Counters) -> Result<(), DropReason> {
        while self.blocks.free() < blocks {
            let oldest = self.oldest;
            self.remove(oldest);
            counters.fragments_evicted += 1;
            if oldest == slot {
                return Err(DropReason::NoBuffer);
            }
        }
        Ok(())
    }

    /// Forgets a datagram.
    fn remove(&mut self, slot: u32) {
        let free = self.free;
        let Some(datagram) = self.datagrams.get_mut(slot as usize) else { return };
        datagram.release(&mut self.blocks);
        let (key, next) = (datagram.key, std::mem::replace(&mut datagram.next, free));
        let (older, newer) = (datagram.older, datagram.newer);
        self.free = slot;
        self.in_use = self.in_use.saturating_sub(1);
        match self.datagrams.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.datagrams.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.unlink(slot, &key, next);
    }

    /// Takes a record out of its bucket; `next` is what followed it there.
    fn unlink(&mut self, slot: u32, key: &FlowKey, next: u32) {
        let bucket = self.bucket(key);
        let Some(mut place) = self.buckets.get_mut(bucket) else { return };
        let mut at = *place;
        while at != slot {
            let Some(datagram) = self.datagrams.get_mut(at as usize) else { return };
            place = &mut datagram.next;
            at = *place;
        }
        *place = next;
    }
}

impl std::fmt::Debug for Reassembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reassembly").field("in_use", &self.in_use()).finish_non_exhaustive()
    }
}

/// Makes `whole` the frame of a complete datagram.
fn join(datagram: &Datagram, link: &[u8], blocks: &Blocks, whole: &mut Linear) -> Result<(), DropReason> {
    let packet_len = datagram.header.len() + datagram.len();
    // The fragments' headers may differ in their options.
    if packet_len > LONGEST {
        return Err(DropReason::FragmentInvalid);
    }
    if !whole.set_len(link.len() + packet_len) {
        return Err(DropReason::NoBuffer);
    }
    let (to_link, packet) = whole.bytes_mut().split_at_mut_checked(link.len()).ok_or(DropReason::NoBuffer)?;
    to_link.copy_from_slice(link);
    let (header, payload) = packet.split_at_mut_checked(datagram.header.len()).ok_or(DropReason::NoBuffer)?;
    header.copy_from_slice(&datagram.header);
    datagram.copy_to(payload, blocks);
    let (ip, _) = Ipv4::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    let ecn = datagram.ecn(ip.traffic_class).ok_or(DropReason::FragmentInvalid)?;
    ip.traffic_class = ip.traffic_class & !3 | ecn;
    ip.total_length = U16::new(packet_len as u16);
    ip.fragment = U16::ZERO;
    ip.checksum = U16::ZERO;
    let checksum = Sum::default().bytes(header).checksum();
    let (ip, _) = Ipv4::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    ip.checksum = U16::new(checksum);
    Ok(())
}

/// The first fragment, as far as an ICMP error quotes it.
fn quote(datagram: &Datagram, blocks: &Blocks) -> ArrayVec<u8, QUOTED> {
    let mut quoted: ArrayVec<u8, QUOTED> = datagram.header.iter().copied().collect();
    let mut payload = [0; QUOTED];
    let length = datagram.first_len().min(quoted.remaining_capacity());
    if let Some(payload) = payload.get_mut(..length) {
        datagram.copy_to(payload, blocks);
        let _ = quoted.try_extend_from_slice(payload);
    }
    quoted
}
