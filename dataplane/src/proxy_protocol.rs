//! The header that says who opened a connection, sent ahead of its first byte: PROXY protocol, versions 1 and 2
//! (haproxy's `proxy-protocol.txt`, 2.1 and 2.2). Pure functions; nothing here panics, whatever the bytes are.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

/// Longest header of version 1, its CRLF included.
pub const MOST_V1: usize = 107;
/// Longest header of version 2 that is taken, of up to 65,551 that there could be: the smallest buffer of a service.
pub const MOST_V2: usize = 2048;

/// Ends the line of version 1.
const CRLF: &[u8] = b"\r\n";
/// Begins a header of version 1.
const V1: &[u8] = b"PROXY ";
/// Begins a header of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;

/// The version and the command LOCAL: the sender's own connection (a health check).
const LOCAL: u8 = 0x20;
/// The version and the command PROXY: somebody else's connection.
const PROXY: u8 = 0x21;
/// Family and transport: TCP over IPv4.
const TCP4: u8 = 0x11;
/// Family and transport: TCP over IPv6.
const TCP6: u8 = 0x21;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Who opened a connection, and what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The client's address and port.
    pub source: SocketAddr,
    /// The address and port that the client connected to.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header; more bytes are needed.
    Incomplete,
    /// No header, whatever follows; or one longer than is taken.
    Invalid,
    /// A whole header.
    Header {
        /// Its length in bytes; what follows is the client's.
        length: usize,
        /// What it says. `None` (LOCAL, UNKNOWN, UNSPEC, no TCP): the connection's own addresses are the truth.
        endpoints: Option<Endpoints>,
    },
}

/// The header for a connection. If only one of the addresses is IPv6, the other one is written as IPv4-mapped.
#[must_use]
pub fn emit(version: Version, endpoints: &Endpoints) -> ArrayVec<u8, MOST_V1> {
    let mut header = ArrayVec::new();
    // The longest of either version fits: 104 and 52 bytes.
    let _ = match version {
        Version::V1 => write_v1(&mut header, endpoints),
        Version::V2 => write_v2(&mut header, endpoints),
    };
    header
}

/// The header for a connection of the sender's own, a health check: it names nobody.
#[must_use]
pub fn own(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n",
        Version::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

fn write_v1(header: &mut ArrayVec<u8, MOST_V1>, endpoints: &Endpoints) -> std::io::Result<()> {
    let ports = (endpoints.source.port(), endpoints.destination.port());
    match addresses(endpoints) {
        Addresses::V4(source, destination) => write!(header, "PROXY TCP4 {source} {destination}")?,
        Addresses::V6(source, destination) => write!(header, "PROXY TCP6 {source} {destination}")?,
    }
    write!(header, " {} {}\r\n", ports.0, ports.1)
}

fn write_v2(header: &mut ArrayVec<u8, MOST_V1>, endpoints: &Endpoints) -> std::io::Result<()> {
    header.write_all(V2)?;
    match addresses(endpoints) {
        Addresses::V4(source, destination) => {
            header.write_all(&[PROXY, TCP4, 0, 12])?;
            header.write_all(&source.octets())?;
            header.write_all(&destination.octets())?;
        }
        Addresses::V6(source, destination) => {
            header.write_all(&[PROXY, TCP6, 0, 36])?;
            header.write_all(&source.octets())?;
            header.write_all(&destination.octets())?;
        }
    }
    header.write_all(&endpoints.source.port().to_be_bytes())?;
    header.write_all(&endpoints.destination.port().to_be_bytes())
}

/// Two addresses of one family.
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn addresses(endpoints: &Endpoints) -> Addresses {
    let mapped = |address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    match (endpoints.source.ip(), endpoints.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4(source, destination),
        (source, destination) => Addresses::V6(mapped(source), mapped(destination)),
    }
}

/// What the bytes at the front of a connection are. To be asked again with more of them while [`Parsed::Incomplete`].
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, V1) {
        parse_v1(bytes)
    } else if begins(bytes, V2) {
        parse_v2(bytes)
    } else {
        Parsed::Invalid
    }
}

/// As far as there are bytes, they are those of `start`.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let start = bytes.get(..MOST_V1).unwrap_or(bytes);
    let end = start.iter().position(|byte| *byte == b'\r').unwrap_or(start.len());
    let (line, rest) = start.split_at_checked(end).unwrap_or((start, &[]));
    let readable = line.iter().all(|byte| (b' '..=b'~').contains(byte));
    let fits = end + CRLF.len() <= MOST_V1;
    if !readable || !fits || !begins(rest, CRLF) {
        return Parsed::Invalid;
    }
    if rest.len() < CRLF.len() {
        return Parsed::Incomplete;
    }
    let length = end + CRLF.len();
    match std::str::from_utf8(line).ok().and_then(read_line) {
        Some(endpoints) => Parsed::Header { length, endpoints },
        None => Parsed::Invalid,
    }
}

/// The line of version 1 without its end. `Some(None)`: it names no addresses.
fn read_line(line: &str) -> Option<Option<Endpoints>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(None);
    }
    let mut next = || words.next();
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (source.parse::<Ipv4Addr>().ok()?.into(), destination.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (source.parse::<Ipv6Addr>().ok()?.into(), destination.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    if words.next().is_some() {
        return None;
    }
    Some(Some(between((source, source_port), (destination, destination_port))))
}

/// A decimal number without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let command = bytes.get(V2.len()).copied();
    if command.is_some_and(|command| !matches!(command, LOCAL | PROXY)) {
        return Parsed::Invalid;
    }
    let Some(&[_, family, high, low]) = bytes.get(V2.len()..V2_FIXED).and_then(|fixed| fixed.as_array())
    else {
        return Parsed::Incomplete;
    };
    let local = command == Some(LOCAL);
    // A family of 4 and more, or a transport of 3 and more, was never given a meaning.
    if !local && (family >> 4 > 3 || family & 15 > 2) {
        return Parsed::Invalid;
    }
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    let needed = V2_FIXED
        + match family {
            TCP4 if !local => 12,
            TCP6 if !local => 36,
            _ => 0,
        };
    if length < needed || length > MOST_V2 {
        return Parsed::Invalid;
    }
    if bytes.len() < length {
        return Parsed::Incomplete;
    }
    // What follows the addresses (TLVs) is not for weir.
    let block = bytes.get(V2_FIXED..needed).unwrap_or_default();
    Parsed::Header { length, endpoints: read_v4(block).or_else(|| read_v6(block)) }
}

/// The address block of TCP over IPv4.
fn read_v4(block: &[u8]) -> Option<Endpoints> {
    let [s0, s1, s2, s3, d0, d1, d2, d3, p0, p1, q0, q1] = *block.as_array::<12>()?;
    let (source, destination) = (IpAddr::from([s0, s1, s2, s3]), IpAddr::from([d0, d1, d2, d3]));
    Some(between((source, u16::from_be_bytes([p0, p1])), (destination, u16::from_be_bytes([q0, q1]))))
}

/// The address block of TCP over IPv6.
fn read_v6(block: &[u8]) -> Option<Endpoints> {
    let block = block.as_array::<36>()?;
    let address = |at: usize| block.get(at..at + 16)?.as_array::<16>().copied().map(IpAddr::from);
    let port = |at: usize| block.get(at..at + 2)?.as_array::<2>().copied().map(u16::from_be_bytes);
    Some(between((address(0)?, port(32)?), (address(16)?, port(34)?)))
}

/// IPv4 addresses that are written as IPv6 are IPv4 addresses.
fn between(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Endpoints {
    let socket = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Endpoints { source: socket(source), destination: socket(destination) }
}

#[cfg(test)]
mod tests;
