//! Segments as packetdrill writes them.

use std::fmt::{self, Write};
use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetHeaders, PacketHeaders, TcpHeader, TransportHeader};

use crate::pieces;

/// What sequence and timestamp fields of one direction count from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Base {
    pub isn: u32,
    pub clock: u32,
}

/// A TCP option with relative numbers. `None`: any.
#[derive(Clone, Debug, PartialEq)]
pub enum Opt {
    Mss(u16),
    Scale(u8),
    SackOk,
    Sack(Vec<(u32, u32)>),
    Ts(Option<u32>, Option<u32>),
    Other(u8, Vec<u8>),
}

/// A segment with relative numbers. `None`: any, or the default of what is sent.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub flags: String,
    pub seq: u32,
    pub len: u32,
    pub ack: Option<u32>,
    pub win: Option<u16>,
    pub urg: Option<u16>,
    pub options: Option<Vec<Opt>>,
    pub tos: Option<u8>,
    pub bad_sum: bool,
    pub data: Option<Vec<u8>>,
    /// It may be fragmented.
    pub no_df: bool,
    /// Number of fragments; 0: it is whole.
    pub pieces: usize,
    /// Those that are sent, in their order; none: all.
    pub order: Vec<Part>,
    /// Its fragments have the identification of those before.
    pub again: bool,
}

/// A fragment of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// From 1 on.
    pub number: usize,
    /// It begins 8 bytes too early.
    pub overlaps: bool,
}

impl Part {
    /// `N` or `N+`
    fn parse(text: &str) -> Result<Part, String> {
        let digits = text.strip_suffix('+').unwrap_or(text);
        Ok(Part { number: number(digits)? as usize, overlaps: digits != text })
    }
}

/// `N` or `N:N,N,…`
fn split_pieces(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

/// The byte of a stream at this relative sequence number.
fn pattern(seq: u32) -> u8 {
    b'a' + (seq % 23) as u8
}

pub fn payload(seq: u32, len: u32) -> Vec<u8> {
    (0..len).map(|n| pattern(seq.wrapping_add(n))).collect()
}

fn number(text: &str) -> Result<u32, String> {
    let wide: i64 = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).map_err(|_| format!("number {text:?}"))?,
        None => text.parse().map_err(|_| format!("number {text:?}"))?,
    };
    Ok(wide as u32)
}

fn any(text: &str) -> Result<Option<u32>, String> {
    if text == "." { Ok(None) } else { number(text).map(Some) }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (0..digits.len() / 2)
        .map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).map_err(|_| format!("bytes {text:?}")))
        .collect()
}

/// Text with `\r`, `\n` and `\xNN`.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).map_err(|_| format!("data {text:?}"))?;
                (u8::from_str_radix(digits, 16).map_err(|_| format!("data {text:?}"))?, after)
            }
            (b'\\', _) => return Err(format!("data {text:?}")),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(bytes)
}

impl Opt {
    fn parse(text: &str) -> Result<Option<Opt>, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let range = |word: &&str| {
            let (from, to) = word.split_once(':').ok_or(format!("block {word:?}"))?;
            Ok::<_, String>((number(from)?, number(to)?))
        };
        Ok(Some(match words[..] {
            ["nop"] => return Ok(None),
            ["mss", n] => Opt::Mss(number(n)? as u16),
            ["wscale", n] => Opt::Scale(number(n)? as u8),
            ["sackOK"] => Opt::SackOk,
            ["sack", ..] => Opt::Sack(words[1..].iter().map(range).collect::<Result<_, _>>()?),
            ["TS", "val", v, "ecr", e] => Opt::Ts(any(v)?, any(e)?),
            ["opt", kind, bytes] => Opt::Other(number(kind)? as u8, hex(bytes)?),
            _ => return Err(format!("option {text:?}")),
        }))
    }

    fn bytes(&self, own: Base, peer: Base) -> Vec<u8> {
        match self {
            Opt::Mss(n) => [&[2, 4][..], &n.to_be_bytes()].concat(),
            Opt::Scale(n) => vec![1, 3, 3, *n],
            Opt::SackOk => vec![1, 1, 4, 2],
            Opt::Sack(blocks) => {
                let mut bytes = vec![1, 1, 5, (2 + 8 * blocks.len()) as u8];
                for edge in blocks.iter().flat_map(|block| [block.0, block.1]) {
                    bytes.extend(edge.wrapping_add(peer.isn).to_be_bytes());
                }
                bytes
            }
            Opt::Ts(value, echo) => {
                let value = value.unwrap_or(0).wrapping_add(own.clock).to_be_bytes();
                let echo = echo.map_or(0, |echo| echo.wrapping_add(peer.clock)).to_be_bytes();
                [&[1, 1, 8, 10][..], &value, &echo].concat()
            }
            Opt::Other(kind, body) => [&[*kind, body.len() as u8 + 2][..], body].concat(),
        }
    }

    /// Of the bytes in a header.
    fn read_all(mut bytes: &[u8], own: Base, peer: Base) -> Vec<Opt> {
        let mut options = Vec::new();
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
        while let [kind, rest @ ..] = bytes {
            if *kind == 0 {
                break;
            }
            if *kind == 1 {
                bytes = rest;
                continue;
            }
            let (body, after) = bytes.split_at(usize::from(bytes[1]));
            let body = &body[2..];
            bytes = after;
            options.push(match (*kind, body.len()) {
                (2, 2) => Opt::Mss(u16::from_be_bytes([body[0], body[1]])),
                (3, 1) => Opt::Scale(body[0]),
                (4, 0) => Opt::SackOk,
                (5, _) => Opt::Sack(
                    body.chunks(8)
                        .map(|b| (word(b).wrapping_sub(peer.isn), word(&b[4..]).wrapping_sub(peer.isn)))
                        .collect(),
                ),
                (8, 8) => Opt::Ts(
                    Some(word(body).wrapping_sub(own.clock)),
                    Some(if word(&body[4..]) == 0 { 0 } else { word(&body[4..]).wrapping_sub(peer.clock) }),
                ),
                _ => Opt::Other(*kind, body.to_vec()),
            });
        }
        options
    }

    fn agrees(&self, seen: &Opt) -> bool {
        let same = |wanted: &Option<u32>, seen: &Option<u32>| wanted.is_none() || wanted == seen;
        match (self, seen) {
            (Opt::Ts(v, e), Opt::Ts(sv, se)) => same(v, sv) && same(e, se),
            _ => self == seen,
        }
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_any = |n: &Option<u32>| n.map_or(".".to_owned(), |n| n.to_string());
        match self {
            Opt::Mss(n) => write!(f, "mss {n}"),
            Opt::Scale(n) => write!(f, "wscale {n}"),
            Opt::SackOk => write!(f, "sackOK"),
            Opt::Sack(blocks) => {
                write!(f, "sack")?;
                blocks.iter().try_for_each(|(from, to)| write!(f, " {from}:{to}"))
            }
            Opt::Ts(v, e) => write!(f, "TS val {} ecr {}", or_any(v), or_any(e)),
            Opt::Other(kind, body) => {
                write!(f, "opt {kind} 0x")?;
                body.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl Segment {
    /// `FLAGS seq:end(len) [ack N] [win N] [urg N] [<options>] [tos N] [badsum] [data "text"] [nodf] [pieces N[:LIST]] [again]`
    pub fn parse(text: &str) -> Result<Segment, String> {
        let mut segment = Segment::default();
        let mut text = text.to_owned();
        if let Some((from, rest)) = text.find(" data \"").map(|at| (at, &text[at + 7..])) {
            let end = rest.rfind('"').ok_or("data without an end")?;
            segment.data = Some(unescaped(&rest[..end])?);
            text.replace_range(from..=from + 7 + end, " ");
        }
        if let (Some(from), Some(to)) = (text.find('<'), text.rfind('>')) {
            let inner = text[from + 1..to].to_owned();
            let options: Result<Vec<_>, _> =
                inner.split(',').map(str::trim).filter(|o| !o.is_empty()).map(Opt::parse).collect();
            segment.options = Some(options?.into_iter().flatten().collect());
            text.replace_range(from..=to, " ");
        }
        let mut words = text.split_whitespace();
        segment.flags = words.next().ok_or("no flags")?.chars().filter(|flag| *flag != '-').collect();
        if let Some(flag) = segment.flags.chars().find(|flag| !"SFRP.UEW".contains(*flag)) {
            return Err(format!("flag {flag:?}"));
        }
        let range = words.next().ok_or("no sequence numbers")?;
        let parts: Vec<&str> = range.split([':', '(', ')']).collect();
        let [from, to, len, ""] = parts[..] else { return Err(format!("range {range:?}")) };
        (segment.seq, segment.len) = (number(from)?, number(len)?);
        if segment.seq.wrapping_add(segment.len) != number(to)? {
            return Err(format!("range {range:?} does not add up"));
        }
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} what?"));
            match word {
                "ack" => segment.ack = Some(number(value()?)?),
                "win" => segment.win = Some(number(value()?)? as u16),
                "urg" => segment.urg = Some(number(value()?)? as u16),
                "tos" => segment.tos = Some(number(value()?)? as u8),
                "badsum" => segment.bad_sum = true,
                "nodf" => segment.no_df = true,
                "again" => segment.again = true,
                "pieces" => {
                    let (count, order) = split_pieces(value()?);
                    segment.pieces = number(count)? as usize;
                    let order = order.split(',').filter(|part| !part.is_empty()).map(Part::parse);
                    segment.order = order.collect::<Result<_, _>>()?;
                }
                _ => return Err(format!("word {word:?}")),
            }
        }
        if segment.data.as_ref().is_some_and(|data| data.len() != segment.len as usize) {
            return Err("data has another length".to_owned());
        }
        Ok(segment)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.data.clone().unwrap_or_else(|| payload(self.seq, self.len))
    }

    /// As an IP packet.
    pub fn packet(&self, addresses: (IpAddr, IpAddr), ports: (u16, u16), own: Base, peer: Base) -> Vec<u8> {
        let mut tcp =
            TcpHeader::new(ports.0, ports.1, self.seq.wrapping_add(own.isn), self.win.unwrap_or(65535));
        let has = |flag| self.flags.contains(flag);
        (tcp.syn, tcp.fin, tcp.rst, tcp.psh) = (has('S'), has('F'), has('R'), has('P'));
        (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (has('.'), has('U'), has('E'), has('W'));
        tcp.acknowledgment_number = self.ack.map_or(0, |ack| ack.wrapping_add(peer.isn));
        tcp.urgent_pointer = self.urg.unwrap_or(0);
        let options: Vec<u8> = self.options.iter().flatten().flat_map(|o| o.bytes(own, peer)).collect();
        tcp.set_options_raw(&options).unwrap();
        let payload = self.bytes();
        let length = (tcp.header_len() + payload.len()) as u16;
        let (ip, sum) = match addresses {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = self.ipv4(length, (from.octets(), to.octets()));
                (ip.to_bytes().to_vec(), tcp.calc_checksum_ipv4(&ip, &payload).unwrap())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = self.ipv6(length, (from.octets(), to.octets()));
                (ip.to_bytes().to_vec(), tcp.calc_checksum_ipv6(&ip, &payload).unwrap())
            }
            other => panic!("{other:?}"),
        };
        tcp.checksum = if self.bad_sum { sum ^ 0x5555 } else { sum };
        [&ip[..], &tcp.to_bytes(), &payload].concat()
    }

    fn ipv4(&self, length: u16, addresses: ([u8; 4], [u8; 4])) -> Ipv4Header {
        let mut ip = Ipv4Header::new(length, 64, IpNumber::TCP, addresses.0, addresses.1).unwrap();
        let tos = self.tos.unwrap_or(0);
        ip.dscp = (tos >> 2).try_into().unwrap();
        ip.ecn = (tos & 3).try_into().unwrap();
        ip.dont_fragment = !self.no_df;
        ip.header_checksum = ip.calc_header_checksum();
        ip
    }

    fn ipv6(&self, length: u16, addresses: ([u8; 16], [u8; 16])) -> Ipv6Header {
        Ipv6Header {
            traffic_class: self.tos.unwrap_or(0),
            payload_length: length,
            next_header: IpNumber::TCP,
            hop_limit: 64,
            source: addresses.0,
            destination: addresses.1,
            ..Ipv6Header::default()
        }
    }

    /// The IP packets that it is sent as.
    pub fn parts(&self, packet: &[u8], identification: u16) -> Vec<Vec<u8>> {
        if self.pieces == 0 {
            return vec![packet.to_vec()];
        }
        let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
        let size = payload.len().div_ceil(self.pieces).next_multiple_of(8);
        let all = (1..=self.pieces).map(|number| Part { number, overlaps: false }).collect();
        let order = if self.order.is_empty() { all } else { self.order.clone() };
        let fragment = |part: Part| {
            let (start, end) = ((part.number - 1) * size, (part.number * size).min(payload.len()));
            let start = start - if part.overlaps { 8 } else { 0 };
            pieces::part(&header, start, end < payload.len(), &payload[start..end], identification)
        };
        order.into_iter().map(fragment).collect()
    }

    /// What is in a frame, with numbers relative to these.
    pub fn read(frame: &[u8], own: Base, peer: Base) -> Segment {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let payload = headers.payload.slice();
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else { panic!("not TCP") };
        let (tos, sum) = match headers.net {
            Some(NetHeaders::Ipv4(ip, _)) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header of {frame:02x?}");
                (ip.dscp.value() << 2 | ip.ecn.value(), tcp.calc_checksum_ipv4(&ip, payload))
            }
            Some(NetHeaders::Ipv6(ip, _)) => (ip.traffic_class, tcp.calc_checksum_ipv6(&ip, payload)),
            other => panic!("{other:?}"),
        };
        let flags = [
            (tcp.syn, 'S'),
            (tcp.fin, 'F'),
            (tcp.rst, 'R'),
            (tcp.psh, 'P'),
            (tcp.urg, 'U'),
            (tcp.ece, 'E'),
            (tcp.cwr, 'W'),
            (tcp.ack, '.'),
        ];
        Segment {
            flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect(),
            seq: tcp.sequence_number.wrapping_sub(own.isn),
            len: payload.len() as u32,
            ack: tcp.ack.then(|| tcp.acknowledgment_number.wrapping_sub(peer.isn)),
            win: Some(tcp.window_size),
            urg: Some(tcp.urgent_pointer),
            options: Some(Opt::read_all(tcp.options.as_slice(), own, peer)),
            tos: Some(tos),
            bad_sum: sum != Ok(tcp.checksum),
            data: Some(payload.to_vec()),
            ..Segment::default()
        }
    }

    /// True if this expectation is met by `seen`. PSH is compared only if it is expected.
    pub fn agrees(&self, seen: &Segment) -> bool {
        let flags = |segment: &Segment| {
            let mut flags: Vec<char> = segment.flags.chars().collect();
            flags.retain(|flag| *flag != 'P' || self.flags.contains('P'));
            flags.sort_unstable();
            flags
        };
        let options = self.options.as_ref().is_none_or(|wanted| {
            let seen = seen.options.as_deref().unwrap_or_default();
            wanted.len() == seen.len() && wanted.iter().zip(seen).all(|(wanted, seen)| wanted.agrees(seen))
        });
        flags(self) == flags(seen)
            && (self.seq, self.len, self.bad_sum) == (seen.seq, seen.len, seen.bad_sum)
            && (self.ack.is_none() || self.ack == seen.ack)
            && (self.win.is_none() || self.win == seen.win)
            && self.urg.unwrap_or(0) == seen.urg.unwrap_or(0)
            && self.tos.is_none_or(|tos| Some(tos) == seen.tos)
            && self.bytes() == seen.bytes()
            && self.pieces == seen.pieces
            && options
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}({})", self.flags, self.seq, self.seq.wrapping_add(self.len), self.len)?;
        for (name, value) in [("ack", self.ack), ("win", self.win.map(u32::from))] {
            value.iter().try_for_each(|value| write!(f, " {name} {value}"))?;
        }
        self.urg.filter(|urg| *urg != 0).iter().try_for_each(|urg| write!(f, " urg {urg}"))?;
        if let Some(options) = &self.options {
            let options: Vec<String> = options.iter().map(Opt::to_string).collect();
            write!(f, " <{}>", options.join(","))?;
        }
        self.tos.filter(|tos| *tos != 0).iter().try_for_each(|tos| write!(f, " tos {tos}"))?;
        f.write_str(if self.bad_sum { " badsum" } else { "" })?;
        if self.pieces > 0 {
            write!(f, " pieces {}", self.pieces)?;
        }
        if self.data.as_ref().is_some_and(|data| *data != payload(self.seq, self.len)) {
            f.write_char(' ')?;
            write!(f, "data \"{}\"", self.data.as_deref().unwrap_or_default().escape_ascii())?;
        }
        Ok(())
    }
}
