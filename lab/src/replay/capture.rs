//! Capture files: pcap and pcapng, whatever their byte order and resolution of time.

use std::io::Cursor;

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its number in the file, from 1 on, as Wireshark shows it.
    pub number: usize,
    /// Nanoseconds since 1970.
    pub nanoseconds: i128,
    /// What its bytes begin with: a LINKTYPE number.
    pub link: i32,
    /// The bytes that were kept.
    pub data: Vec<u8>,
    /// How many there were.
    pub original: usize,
}

/// What could be read of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// All packets, in the order of the file.
    pub packets: Vec<Captured>,
    /// What is wrong with the file.
    pub notes: Vec<String>,
}

/// Why a file is no capture.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CaptureError {
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// It begins with something else.
    #[error("this is neither a pcap nor a pcapng file; a packed one must be unpacked first")]
    Unknown,
    /// It begins right and then makes no sense.
    #[error("the file is damaged before its first packet")]
    Damaged,
}

/// An interface of a pcapng section.
struct Interface {
    link: i32,
    /// Units of time in a second.
    resolution: u64,
    /// Seconds to add.
    offset: i64,
}

/// Reads a file. One that ends in the middle of a packet, or is damaged from some packet on, is read as far as it goes.
///
/// # Errors
/// [`CaptureError`].
pub fn read(bytes: &[u8]) -> Result<Capture, CaptureError> {
    if bytes.is_empty() {
        return Err(CaptureError::Empty);
    }
    let mut reader =
        create_reader(bytes.len().max(1 << 16), Cursor::new(bytes)).map_err(|error| match error {
            PcapError::HeaderNotRecognized => CaptureError::Unknown,
            _ => CaptureError::Damaged,
        })?;
    let mut reading = Reading::default();
    let mut starved = false;
    loop {
        match reader.next() {
            Ok((length, block)) => {
                reading.take(&block);
                reader.consume(length);
                starved = false;
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) if !starved => {
                starved = true;
                if reader.refill().is_err() {
                    reading.cut();
                    break;
                }
            }
            Err(PcapError::Incomplete(_) | PcapError::UnexpectedEof) => {
                reading.cut();
                break;
            }
            Err(_) if reading.number == 0 => return Err(CaptureError::Damaged),
            Err(_) => {
                let last = reading.number;
                reading
                    .capture
                    .notes
                    .push(format!("the file is damaged behind packet {last}: what follows is not read"));
                break;
            }
        }
    }
    Ok(reading.capture)
}

/// Packets without an interface of which there is a note each.
const NAMELESS: usize = 100;

#[derive(Default)]
struct Reading {
    capture: Capture,
    number: usize,
    /// Packets without an interface.
    nameless: usize,
    /// Of the section.
    interfaces: Vec<Interface>,
    /// Of a pcap file: link type and nanoseconds of a unit below the second.
    legacy: (i32, i128),
}

impl Reading {
    fn cut(&mut self) {
        let last = self.number;
        self.capture.notes.push(format!("the file ends in the middle of what comes behind packet {last}"));
    }

    fn take(&mut self, block: &PcapBlockOwned<'_>) {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let unit = if header.is_nanosecond_precision() { 1 } else { 1000 };
                // The upper bits say whether frames end with an FCS.
                self.legacy = (header.network.0 & 0x0fff_ffff, unit);
            }
            PcapBlockOwned::Legacy(packet) => {
                let time = i128::from(packet.ts_sec) * SECOND + i128::from(packet.ts_usec) * self.legacy.1;
                let kept = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                self.push(time, self.legacy.0, kept, packet.origlen);
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => self.interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => self.interfaces.push(Interface {
                link: interface.linktype.0,
                resolution: resolution(interface.if_tsresol),
                offset: interface.ts_offset(),
            }),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let Some(interface) = self.interfaces.get(packet.if_id as usize) else {
                    return self.nameless();
                };
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let fraction = i128::from(units) * SECOND / i128::from(interface.resolution);
                let time = fraction + i128::from(interface.offset) * SECOND;
                self.push(time, interface.link, packet.packet_data(), packet.origlen);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let Some(interface) = self.interfaces.first() else { return self.nameless() };
                // It has no time: that of the packet before it.
                let time = self.capture.packets.last().map_or(0, |packet| packet.nanoseconds);
                self.push(time, interface.link, packet.packet_data(), packet.origlen);
            }
            PcapBlockOwned::NG(_) => {}
        }
    }

    fn nameless(&mut self) {
        self.number += 1;
        self.nameless += 1;
        if self.nameless <= NAMELESS {
            let number = self.number;
            self.capture
                .notes
                .push(format!("packet {number} names an interface that the file does not describe"));
        }
    }

    fn push(&mut self, nanoseconds: i128, link: i32, data: &[u8], original: u32) {
        self.number += 1;
        let original = (original as usize).max(data.len());
        let packet = Captured { number: self.number, nanoseconds, link, data: data.to_vec(), original };
        self.capture.packets.push(packet);
    }
}

/// Units of a second, as `if_tsresol` says it: a power of ten, or with its highest bit set of two.
fn resolution(of: u8) -> u64 {
    let power = u32::from(of & 0x7f);
    let units = if of & 0x80 == 0 { 10u64.checked_pow(power) } else { 1u64.checked_shl(power) };
    units.unwrap_or(1_000_000)
}

/// The link types that are understood, by their LINKTYPE numbers.
pub(super) const NULL: i32 = 0;
pub(super) const ETHERNET: i32 = Linktype::ETHERNET.0;
pub(super) const RAW: [i32; 5] = [12, 14, Linktype::RAW.0, Linktype::IPV4.0, Linktype::IPV6.0];
pub(super) const LOOP: i32 = 108;
pub(super) const SLL: i32 = Linktype::LINUX_SLL.0;
pub(super) const SLL2: i32 = Linktype::LINUX_SLL2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_are_powers_of_ten_or_of_two() {
        for (of, units) in [(6, 1_000_000), (9, 1_000_000_000), (0, 1), (0xa0, 1 << 32), (0x8a, 1024)] {
            assert_eq!(resolution(of), units, "{of}");
        }
        assert_eq!(
            (resolution(0x7f), resolution(0xff)),
            (1_000_000, 1_000_000),
            "more than there is room for"
        );
    }
}
