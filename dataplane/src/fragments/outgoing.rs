//! Packets that leave in fragments.

use std::collections::VecDeque;
use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use super::header::MORE;
use super::identification::Identifications;
use crate::checksum::Sum;
use crate::counters::DropReason;
use crate::header::{ETHERNET_LEN, ETHERTYPE_VLAN, IPV4_LEN, Ipv4, TAG_LEN};
use crate::io::{PacketBuf, PortId};
use crate::neighbor::NeighborId;

/// Bytes of packets that wait: many rounds of what one round can bring.
const ROOM: usize = 1 << 20;
/// Packets that wait.
const MOST: usize = 1024;
/// An option that is no option (RFC 791, 3.1), and the end of them.
const NOP: u8 = 1;
const END: u8 = 0;
/// An option with this bit is copied into all fragments.
const COPIED: u8 = 0x80;

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The port.
    pub port: PortId,
    /// The neighbour whose MAC address the frame still lacks.
    pub unresolved: Option<NeighborId>,
}

/// A packet that waits.
#[derive(Debug)]
struct Waiting {
    way: Way,
    /// Where its frame is.
    frame: Range<usize>,
    /// Length of the link header.
    l3: usize,
    mtu: u16,
    identification: u16,
    /// Bytes of payload that have left.
    sent: usize,
}

/// Packets that are to leave in fragments, first come, first served. They are cut as they leave, each fragment as large
/// as the MTU allows, in order (RFC 4787, 10, REQ-13).
///
/// 1 MiB, reserved at the start: packets are put one behind the other, and the room is free again as soon as none waits,
/// which is after each round unless the device has no buffers.
pub struct Outgoing {
    memory: Box<[u8]>,
    filled: usize,
    waiting: VecDeque<Waiting>,
    identifications: Identifications,
}

impl Outgoing {
    /// Nothing waits. `seed` must be secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Outgoing {
            memory: vec![0; ROOM].into_boxed_slice(),
            filled: 0,
            waiting: VecDeque::with_capacity(MOST),
            identifications: Identifications::new(seed),
        }
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a copy of a frame with a whole IPv4 packet that is complete but for its MAC addresses, if they are not
    /// known. The packet gets a new identification, and gives its DF up. True if it will leave in more than one piece.
    ///
    /// # Errors
    /// `NoBuffer`: too much waits already. `TooBig`: not 8 bytes fit behind the header. `Truncated`, `Malformed`: this
    /// is no IPv4 packet.
    pub fn push(&mut self, frame: &[u8], way: Way, mtu: u16) -> Result<bool, DropReason> {
        let tagged = frame.get(12..14) == Some(&ETHERTYPE_VLAN.to_be_bytes());
        let l3 = ETHERNET_LEN + if tagged { TAG_LEN } else { 0 };
        let (ip, _) = Ipv4::ref_from_prefix(frame.get(l3..).ok_or(DropReason::Truncated)?)
            .map_err(|_| DropReason::Truncated)?;
        if ip.version_ihl >> 4 != 4 {
            return Err(DropReason::Malformed);
        }
        let total = ip.total_length.get();
        let frame = frame.get(..l3 + usize::from(total)).ok_or(DropReason::Truncated)?;
        if total > mtu && usize::from(mtu) < header_len(ip) + 8 {
            return Err(DropReason::TooBig);
        }
        let place = self.filled..self.filled + frame.len();
        let room = self.memory.get_mut(place.clone()).filter(|_| self.waiting.len() < MOST);
        room.ok_or(DropReason::NoBuffer)?.copy_from_slice(frame);
        self.filled = place.end;
        let identification = self.identifications.next(ip.source, ip.destination, ip.protocol);
        self.waiting.push_back(Waiting { way, frame: place, l3, mtu, identification, sent: 0 });
        Ok(total > mtu)
    }

    /// Makes `buf` the next fragment and says how it leaves.
    pub fn poll<B: PacketBuf>(&mut self, buf: &mut B) -> Option<Result<Way, DropReason>> {
        let packet = self.waiting.front_mut()?;
        let way = packet.way;
        let cut = self.memory.get(packet.frame.clone()).ok_or(DropReason::Truncated);
        let cut = cut.and_then(|frame| cut_next(packet, frame, buf));
        if cut != Ok(true) {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            self.filled = 0;
        }
        Some(cut.map(|_| way))
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

fn header_len(ip: &Ipv4) -> usize {
    (usize::from(ip.version_ihl & 0x0f) * 4).max(IPV4_LEN)
}

/// Writes the next fragment; true if more follow.
fn cut_next<B: PacketBuf>(packet: &mut Waiting, frame: &[u8], buf: &mut B) -> Result<bool, DropReason> {
    let (ip, _) = Ipv4::ref_from_prefix(frame.get(packet.l3..).ok_or(DropReason::Truncated)?)
        .map_err(|_| DropReason::Truncated)?;
    let l4 = packet.l3 + header_len(ip);
    let (head, payload) = frame.split_at_checked(l4).ok_or(DropReason::Truncated)?;
    let rest = payload.get(packet.sent..).ok_or(DropReason::Truncated)?;
    let room = usize::from(packet.mtu).saturating_sub(header_len(ip));
    let size = if rest.len() <= room { rest.len() } else { room & !7 };
    let piece = rest.get(..size).ok_or(DropReason::Truncated)?;
    if !buf.set_len(l4 + size) {
        return Err(DropReason::NoBuffer);
    }
    let (to_head, to_payload) = buf.bytes_mut().split_at_mut_checked(l4).ok_or(DropReason::NoBuffer)?;
    to_head.copy_from_slice(head);
    to_payload.copy_from_slice(piece);
    let header = to_head.get_mut(packet.l3..).ok_or(DropReason::NoBuffer)?;
    let more = size < rest.len();
    write_header(header, packet, size, more)?;
    packet.sent += size;
    Ok(more)
}

/// What differs in the header of a fragment (RFC 791, 3.2).
fn write_header(header: &mut [u8], packet: &Waiting, size: usize, more: bool) -> Result<(), DropReason> {
    let length = u16::try_from(header.len() + size).map_err(|_| DropReason::TooBig)?;
    if packet.sent > 0 {
        blank_options(header.get_mut(IPV4_LEN..).unwrap_or_default());
    }
    let (ip, _) = Ipv4::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    ip.total_length = U16::new(length);
    ip.identification = U16::new(packet.identification);
    // The payload of a packet is shorter than 65,536 bytes, so its eighth fits in 13 bits.
    let offset = (packet.sent / 8) as u16;
    ip.fragment = U16::new(offset | if more { MORE } else { 0 });
    ip.checksum = U16::ZERO;
    let checksum = Sum::default().bytes(header).checksum();
    let (ip, _) = Ipv4::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    ip.checksum = U16::new(checksum);
    Ok(())
}

/// Options that belong into the first fragment alone become no options; the length of the header stays.
fn blank_options(mut options: &mut [u8]) {
    while let Some(&kind) = options.first() {
        let length = match (kind, options.get(1)) {
            (END, _) => return,
            (NOP, _) => 1,
            (_, Some(length)) => usize::from(*length).max(2),
            (_, None) => return,
        };
        let Some((option, rest)) = std::mem::take(&mut options).split_at_mut_checked(length) else { return };
        if kind & COPIED == 0 {
            option.fill(NOP);
        }
        options = rest;
    }
}
