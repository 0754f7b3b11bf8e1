//! Frames of a replay as a pcapng file.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::Replayed;

/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;

/// Writes all frames to and from weir: an interface for each of the configuration's, the direction as a flag.
///
/// # Errors
/// Whatever `writer` refuses.
pub fn pcapng<W: Write>(replayed: &Replayed, writer: W) -> Result<W, PcapError> {
    let mut file = PcapNgWriter::new(writer)?;
    for name in &replayed.interfaces {
        file.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
    }
    for frame in &replayed.frames {
        let at = replayed.epoch + i128::from(frame.at.total_micros()) * 1000;
        file.write_pcapng_block(EnhancedPacketBlock {
            interface_id: u32::from(frame.port),
            timestamp: Duration::from_nanos(u64::try_from(at.max(0)).unwrap_or(u64::MAX)),
            original_len: u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&frame.bytes),
            options: vec![EnhancedPacketOption::Flags(if frame.inbound { 1 } else { 2 })],
        })?;
    }
    Ok(file.into_inner())
}
