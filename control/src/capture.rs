//! What a traced weir streams, as a pcapng file: [`Capture`].
//!
//! It is fed with the lines of `trace ... frames N json`. Each packet that a worker received, and each that it sent, is a
//! packet of the file, on the interface by which it came or left, with the direction as a flag, and a comment: its flow,
//! what weir did with it, what the script chose, and why it was dropped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use serde_json::Value;

/// Why a capture cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be written.
    #[error("cannot write the capture: {0}")]
    Write(#[from] PcapError),
    /// This is not what weir says.
    #[error("weir says something that is not understood: {0}")]
    Line(String),
}

/// When to stop by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Packets in the file.
    pub packets: Option<u64>,
    /// Bytes of the file.
    pub bytes: Option<u64>,
}

/// A pcapng file in the making.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<Counting<W>>,
    limits: Limits,
    interfaces: Vec<String>,
    flows: HashMap<u64, Flow>,
    packets: u64,
    /// Events lost since the last packet, and in all.
    lost: (u64, u64),
}

#[derive(Default)]
struct Flow {
    title: String,
    /// What was chosen for it.
    choice: Option<String>,
    /// Received, and not known yet what becomes of it.
    pending: Option<Packet>,
}

struct Packet {
    interface: u32,
    time: Duration,
    length: u32,
    data: Vec<u8>,
    comments: Vec<String>,
}

/// `epb_flags`: which way.
#[derive(Clone, Copy)]
enum Way {
    In = 1,
    Out = 2,
}

impl<W: Write> Capture<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(writer: W, limits: Limits) -> Result<Self, Error> {
        let writer = PcapNgWriter::new(Counting { writer, bytes: 0 })?;
        Ok(Capture {
            writer,
            limits,
            interfaces: Vec::new(),
            flows: HashMap::new(),
            packets: 0,
            lost: (0, 0),
        })
    }

    /// Packets written.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Flows of which something was said.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Events that weir could not tell in time; most are packets.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.1
    }

    /// Takes in a line. `false`: a limit is reached.
    ///
    /// # Errors
    /// The file cannot be written, or the line is none of a trace.
    pub fn line(&mut self, line: &str) -> Result<bool, Error> {
        let event: Value = serde_json::from_str(line).map_err(|_| Error::Line(line.to_owned()))?;
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        match text("event").unwrap_or_default() {
            "armed" => self.describe_interfaces(&event)?,
            "lost" => {
                let lost = event.get("events").and_then(Value::as_u64).unwrap_or_default();
                self.lost = (self.lost.0 + lost, self.lost.1 + lost);
            }
            "over" => {}
            kind => self.event(kind, &event, text("text").unwrap_or_default())?,
        }
        let bytes = self.writer.get_ref().bytes;
        let room = self.limits.packets.is_none_or(|most| self.packets < most)
            && self.limits.bytes.is_none_or(|most| bytes < most);
        Ok(room)
    }

    /// Writes what is left, and gives the writer back, to be flushed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<W, Error> {
        let mut pending: Vec<Packet> =
            self.flows.values_mut().filter_map(|flow| flow.pending.take()).collect();
        pending.sort_by_key(|packet| packet.time);
        for packet in pending {
            self.write(packet, Way::In)?;
        }
        Ok(self.writer.into_inner().writer)
    }

    fn describe_interfaces(&mut self, event: &Value) -> Result<(), Error> {
        let names = event.get("interfaces").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for name in names.iter().filter_map(Value::as_str) {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                InterfaceDescriptionOption::IfTsResol(9),
            ];
            let linktype = DataLink::ETHERNET;
            self.writer.write_pcapng_block(InterfaceDescriptionBlock { linktype, snaplen: 0, options })?;
            self.interfaces.push(name.to_owned());
        }
        Ok(())
    }

    fn event(&mut self, kind: &str, event: &Value, text: &str) -> Result<(), Error> {
        let Some(number) = event.get("flow").and_then(Value::as_u64) else {
            return Err(Error::Line(event.to_string()));
        };
        let packet = self.packet(event);
        let flow = self.flows.entry(number).or_default();
        let mut done = None;
        match kind {
            "begin" => flow.title = format!("weir flow {number}: {text}"),
            // The end of the one before was lost.
            "received" => done = std::mem::replace(&mut flow.pending, packet),
            "verdict" => return self.verdict(number, event, packet, text),
            "sent" => {
                let comments = vec![flow.title.clone(), format!("weir {}", text_of_sent(text))];
                let comments = comments.into_iter().chain(flow.choice.clone()).collect();
                return packet.map_or(Ok(()), |packet| self.write(Packet { comments, ..packet }, Way::Out));
            }
            _ => {
                if kind == "chosen" {
                    flow.choice = Some(text.to_owned());
                }
                if let Some(pending) = flow.pending.as_mut() {
                    pending.comments.push(text.to_owned());
                }
            }
        }
        if let Some(pending) = flow.pending.as_mut().filter(|_| kind == "received") {
            pending.comments.push(flow.title.clone());
            pending.comments.extend(flow.choice.clone());
        }
        done.map_or(Ok(()), |packet| self.write(packet, Way::In))
    }

    /// The packet received last, with what became of it; and that, if it left.
    fn verdict(&mut self, number: u64, event: &Value, left: Option<Packet>, text: &str) -> Result<(), Error> {
        let Some(flow) = self.flows.get_mut(&number) else { return Ok(()) };
        let comments = [Some(flow.title.clone()), flow.choice.clone()].into_iter().flatten().collect();
        let mut received = flow.pending.take();
        if event.get("verdict").and_then(Value::as_str) == Some("handed_over") {
            // The other worker tells of it.
            return Ok(());
        }
        if let Some(received) = received.as_mut() {
            received.comments.push(text.to_owned());
        }
        if let Some(received) = received {
            self.write(received, Way::In)?;
        }
        left.map_or(Ok(()), |left| self.write(Packet { comments, ..left }, Way::Out))
    }

    /// The frame of an event, if it has one.
    fn packet(&self, event: &Value) -> Option<Packet> {
        let interface = event.get("interface").and_then(Value::as_str)?;
        let interface = self.interfaces.iter().position(|name| name == interface)?;
        let time = humantime::parse_rfc3339(event.get("time").and_then(Value::as_str)?).ok()?;
        Some(Packet {
            interface: u32::try_from(interface).ok()?,
            time: time.duration_since(SystemTime::UNIX_EPOCH).ok()?,
            length: u32::try_from(event.get("length").and_then(Value::as_u64)?).ok()?,
            data: bytes(event.get("frame").and_then(Value::as_str)?)?,
            comments: Vec::new(),
        })
    }

    fn write(&mut self, packet: Packet, way: Way) -> Result<(), Error> {
        let mut options = vec![EnhancedPacketOption::Flags(way as u32)];
        let comment = packet.comments.join("\n");
        if !comment.is_empty() {
            options.push(EnhancedPacketOption::Comment(Cow::Owned(comment)));
        }
        let lost = std::mem::take(&mut self.lost.0);
        if lost > 0 {
            options.push(EnhancedPacketOption::DropCount(lost));
        }
        self.packets += 1;
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: packet.interface,
            timestamp: packet.time,
            original_len: packet.length,
            data: Cow::Owned(packet.data),
            options,
        })?;
        Ok(())
    }
}

/// Without the packet itself, which the file shows.
fn text_of_sent(text: &str) -> &str {
    text.split_once(':').map_or(text, |(head, _)| head)
}

/// Hexadecimal digits as bytes.
pub(crate) fn bytes(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        })
        .collect()
}

/// Counts what is written.
struct Counting<W> {
    writer: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests;
