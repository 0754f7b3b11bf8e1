//! Frames of established flows, ready to be sent with the time at which they were to leave.

use dataplane::header::{PROTOCOL_TCP, PROTOCOL_UDP};

/// The longest frame: a segment with timestamps and eight bytes.
const ROOM: usize = 80;
const IP: usize = 14;
const TRANSPORT: usize = 34;
/// Behind the number of the flow in the payload.
const STAMP: usize = 4;

/// A frame; without a payload it carries no time.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    bytes: [u8; ROOM],
    len: u8,
    checksum: u8,
    stamp: Option<u8>,
    /// The queue into which a network card would put it.
    pub queue: u8,
}

/// Nanoseconds by which a time that was carried may be wrong.
pub const STEP: u64 = 8;

/// A time in nanoseconds as frames carry it: steps of 8 ns, again the same after 34 s.
#[must_use]
pub fn stamp(nanoseconds: u64) -> u32 {
    (nanoseconds >> 3) as u32
}

/// Nanoseconds from a stamp to a time.
#[must_use]
pub fn since(earlier: u32, nanoseconds: u64) -> u64 {
    u64::from(stamp(nanoseconds).wrapping_sub(earlier)) << 3
}

/// What a frame that was received says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// UDP or TCP with a time.
    Stamped(u32),
    /// TCP without a payload.
    Bare,
    /// ARP and the like.
    Other,
}

impl Template {
    /// From a frame of [`crate::peer::Peers`]; `None` if it is neither UDP nor TCP over IPv4, or too long.
    #[must_use]
    pub fn new(frame: &[u8], queue: u8) -> Option<Template> {
        let (checksum, stamp) = match *frame.get(IP + 9)? {
            PROTOCOL_UDP => (TRANSPORT + 6, stamp_place(frame)),
            PROTOCOL_TCP => (TRANSPORT + 16, stamp_place(frame)),
            _ => return None,
        };
        let mut bytes = [0; ROOM];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        let stamp = stamp.map(|place| place as u8);
        Some(Template { bytes, len: frame.len() as u8, checksum: checksum as u8, stamp, queue })
    }

    /// Bytes of the frame.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The frame as it was made.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// Never: a frame has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the frame, with this time in it, into as many bytes; returns whether it carries one.
    pub fn write(&self, to: &mut [u8], stamp: u32) -> bool {
        to.iter_mut().zip(&self.bytes).for_each(|(to, byte)| *to = *byte);
        let Some(place) = self.stamp.map(usize::from) else { return false };
        let checksum = usize::from(self.checksum);
        let Some(field) = to.get_mut(place..).and_then(|rest| rest.first_chunk_mut::<4>()) else {
            return false;
        };
        let old = std::mem::replace(field, stamp.to_be_bytes());
        if let Some(field) = to.get_mut(checksum..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *field = changed(*field, old, stamp.to_be_bytes());
        }
        true
    }
}

/// RFC 1624, section 3, for four bytes at an even place.
fn changed(checksum: [u8; 2], old: [u8; 4], new: [u8; 4]) -> [u8; 2] {
    let halves = |[a, b, c, d]: [u8; 4]| [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    let ([o1, o2], [n1, n2]) = (halves(old), halves(new));
    let sum: u32 = [!u16::from_be_bytes(checksum), !o1, !o2, n1, n2].into_iter().map(u32::from).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    // In UDP a zero would mean that there is none; to TCP both mean the same.
    if checksum == 0 { [0xff; 2] } else { checksum.to_be_bytes() }
}

/// Where the time is in a frame of ours: behind the flow's number, which begins the payload.
fn stamp_place(frame: &[u8]) -> Option<usize> {
    let header = match *frame.get(IP + 9)? {
        PROTOCOL_UDP => 8,
        PROTOCOL_TCP => usize::from(frame.get(TRANSPORT + 12)? >> 4) * 4,
        _ => return None,
    };
    let total = u16::from_be_bytes(*frame.get(IP + 2..)?.first_chunk::<2>()?);
    let place = TRANSPORT + header + STAMP;
    (place + 4 <= IP + usize::from(total) && place + 4 <= frame.len()).then_some(place)
}

/// Reads what [`Template::write`] has written, and weir forwarded.
#[must_use]
pub fn read(frame: &[u8]) -> Read {
    let ip = frame.get(12..14) == Some(&[8, 0]);
    match frame.get(IP + 9) {
        Some(&(PROTOCOL_TCP | PROTOCOL_UDP)) if ip => {}
        _ => return Read::Other,
    }
    let bytes = stamp_place(frame).and_then(|place| frame.get(place..)?.first_chunk::<4>());
    bytes.map_or(Read::Bare, |bytes| Read::Stamped(u32::from_be_bytes(*bytes)))
}

/// The flow's number in a frame that carries a time.
#[must_use]
pub fn flow_of(frame: &[u8]) -> Option<u32> {
    let place = stamp_place(frame)?.checked_sub(STAMP)?;
    frame.get(place..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use dataplane::parse::{Packet, parse};

    use super::*;
    use crate::peer::{Peers, Talk};
    use crate::scenario::Scenario;

    const WEIR: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_time_goes_out_and_comes_back_and_the_checksum_is_right() {
        let vip = Scenario::named("udp-1").unwrap().vip();
        let mut peers = Peers::new(WEIR, vip, Talk::Hold, 8).unwrap();
        for number in 0..8 {
            let frames = [
                peers.datagram(number).unwrap().to_vec(),
                peers.client_segment(number, true).unwrap().to_vec(),
            ];
            for frame in frames {
                let template = Template::new(&frame, 0).unwrap();
                assert_eq!(template.frame(), frame);
                for time in [0, 8, 123_456_789, 0xffff_ffff << 3, 0xffff_fff8, u64::MAX] {
                    let mut written = vec![0; template.len()];
                    assert!(template.write(&mut written, stamp(time)));
                    assert_eq!(read(&written), Read::Stamped(stamp(time)));
                    assert_eq!(flow_of(&written), Some(number));
                    assert!(matches!(parse(&written, None), Ok(Packet::Transport(_))));
                    assert!(is_sound(&written), "{written:02x?}");
                }
            }
            let bare = peers.client_segment(number, false).unwrap().to_vec();
            let mut written = vec![0; bare.len()];
            assert!(!Template::new(&bare, 0).unwrap().write(&mut written, 7));
            assert_eq!((read(&written), written), (Read::Bare, bare));
        }
        assert_eq!((read(&[0xff; 60]), flow_of(&[0xff; 60])), (Read::Other, None));
    }

    #[test]
    fn times_are_told_apart_for_half_a_minute() {
        assert_eq!(since(stamp(1_000_000), 1_004_000), 4000);
        assert_eq!(since(stamp((1 << 35) - 8), (1 << 35) + 8), 16);
    }

    /// The sum over pseudo header, header and payload, written out.
    fn is_sound(frame: &[u8]) -> bool {
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let transport = &frame[TRANSPORT..IP + total];
        let mut bytes = frame[26..34].to_vec();
        bytes.extend([0, frame[23]]);
        bytes.extend((transport.len() as u16).to_be_bytes());
        bytes.extend_from_slice(transport);
        let sum: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
            .sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff || {
            let folded = (sum & 0xffff) + (sum >> 16);
            (folded & 0xffff) + (folded >> 16) == 0xffff
        }
    }
}
