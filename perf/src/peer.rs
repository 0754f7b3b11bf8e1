//! Clients and servers: answer what weir sends, and remember of each flow what its next packets need.
//!
//! They are on the same core as weir in most scenarios, and what they touch takes its place in weir's caches, which packets of a
//! network do not. So they remember as little as they can, 12 bytes of a flow and 32 more of a connection, and on huge pages.

use std::collections::VecDeque;
use std::net::SocketAddr;

use arena::Arena;
use dataplane::address::FlowKey;
use dataplane::arp;
use dataplane::header::Mac;
use dataplane::io::PacketBuf;
use dataplane::parse::{Headers, Packet, parse};
use dataplane::snapshot::Protocol;
use dataplane::steering::{Seat, Steering};
use tcp::{Flags, Options, Segment, SeqNumber, Timestamps};
use zerocopy::FromZeros;

use crate::frame::{self, Family, PEER_MAC, Scratch, endpoint};

/// Clients are `10.0.0.1` and those after it, or `fd00::a00:1`, behind the gateway.
const FIRST_CLIENT: u32 = 0x0a00_0001;
const FIRST_PORT: u16 = 1024;
/// Clients repeat after that many.
const CLIENTS: u32 = 15_000_000;
const CLIENT_CLOCK: u32 = 1_000_000;
const SERVER_CLOCK: u32 = 2_000_000;
/// Bytes of a datagram's payload: a frame of 60 bytes, 64 with its FCS.
const DATAGRAM: usize = 18;
/// Bytes of a segment's payload.
const DATA: usize = 8;

/// How TCP connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// The server acknowledges the request; the connection stays.
    Hold,
    /// The server answers and closes, the client closes.
    Whole,
}

/// SNAT and server address of a flow, as its server saw them; all 0 before that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
struct Side {
    snat: u32,
    server: u32,
    snat_port: u16,
    server_port: u16,
}

/// A connection as its ends know it.
#[derive(Clone, Copy, Debug, Default, FromZeros)]
struct Connection {
    number: u32,
    client: Half,
    server: Half,
    closing: bool,
}

/// Numbers of the next segment of one end.
#[derive(Clone, Copy, Debug, Default, FromZeros)]
struct Half {
    seq: u32,
    ack: u32,
    echo: u32,
}

/// All end hosts.
pub struct Peers {
    weir: Mac,
    vip: SocketAddr,
    talk: Talk,
    /// Of the worker that all flows are to belong to.
    steering: Steering,
    sides: Arena<Side>,
    /// Empty before the first SYN.
    connections: Arena<Connection>,
    scratch: Scratch,
    answers: VecDeque<Vec<u8>>,
    established: usize,
    finished: u64,
    resets: u64,
}

impl Peers {
    /// End hosts that remember `flows` flows (at least 1); flow numbers are taken modulo that.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(weir: Mac, vip: SocketAddr, talk: Talk, flows: usize) -> anyhow::Result<Self> {
        Ok(Peers {
            weir,
            vip,
            talk,
            steering: Steering::new(Seat::ALONE),
            sides: Arena::zeroed(flows.max(1))?,
            connections: Arena::zeroed(0)?,
            scratch: Scratch::default(),
            answers: VecDeque::new(),
            established: 0,
            finished: 0,
            resets: 0,
        })
    }

    /// The same with flows that a network card gives to the worker on this seat: their clients choose such ports.
    pub fn on_seat(self, seat: Seat) -> Self {
        Peers { steering: Steering::new(seat), ..self }
    }

    /// Client address and port of a flow. The port is the first one from the usual one on that comes to the worker.
    fn client(&self, number: u32, protocol: Protocol) -> SocketAddr {
        let usual = client(self.family(), number);
        let ports = (usual.port()..).chain(FIRST_PORT..usual.port());
        let mut sockets = ports.map(|port| SocketAddr::new(usual.ip(), port));
        let here = |socket: &SocketAddr| self.steering.is_here(&FlowKey::new(protocol, *socket, self.vip));
        sockets.find(here).unwrap_or(usual)
    }

    /// The next frame that an end host sends because of what it received.
    pub fn next_answer(&mut self) -> Option<Vec<u8>> {
        self.answers.pop_front()
    }

    /// Connections that both ends have closed.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// RST segments received.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Flows whose server has heard of them.
    pub fn established(&self) -> usize {
        self.established
    }

    /// Whether the server of this flow has heard of it.
    pub fn is_established(&self, number: u32) -> bool {
        self.side(number) != Side::default()
    }

    /// The first datagram of a flow, or another one from its client.
    pub fn datagram(&mut self, number: u32) -> anyhow::Result<&[u8]> {
        let payload = payload::<DATAGRAM>(number);
        let client = self.client(number, Protocol::Udp);
        frame::udp(&mut self.scratch, self.weir, client, self.vip, &payload)?;
        Ok(self.scratch.bytes())
    }

    /// A datagram of the server of an established flow.
    pub fn server_datagram(&mut self, number: u32) -> anyhow::Result<&[u8]> {
        let (snat, server) = self.server_side(number)?;
        frame::udp(&mut self.scratch, self.weir, server, snat, &payload::<DATAGRAM>(number))?;
        Ok(self.scratch.bytes())
    }

    /// The SYN of a flow.
    pub fn syn(&mut self, number: u32) -> anyhow::Result<&[u8]> {
        if self.connections.is_empty() {
            self.connections = Arena::zeroed(self.sides.len())?;
        }
        let slot = self.slot(number);
        self.established -= usize::from(self.is_established(number));
        if let Some((side, connection)) = self.sides.get_mut(slot).zip(self.connections.get_mut(slot)) {
            (*side, *connection) = (Side::default(), Connection { number, ..Connection::default() });
        }
        let segment =
            Segment { seq: SeqNumber::new(isn(number)), flags: Flags::SYN, ..opening(CLIENT_CLOCK, 0) };
        let client = self.client(number, Protocol::Tcp);
        frame::tcp(&mut self.scratch, self.weir, client, self.vip, &segment)?;
        Ok(self.scratch.bytes())
    }

    /// A segment of the client of a spliced connection: data or a pure acknowledgement.
    pub fn client_segment(&mut self, number: u32, data: bool) -> anyhow::Result<&[u8]> {
        let payload = payload::<DATA>(number);
        let payload = if data { &payload[..] } else { &[] };
        let segment = segment(self.connection(number).client, CLIENT_CLOCK, Flags::ACK, payload);
        let client = self.client(number, Protocol::Tcp);
        frame::tcp(&mut self.scratch, self.weir, client, self.vip, &segment)?;
        Ok(self.scratch.bytes())
    }

    /// A segment of the server of a spliced connection.
    pub fn server_segment(&mut self, number: u32, data: bool) -> anyhow::Result<&[u8]> {
        let (snat, server) = self.server_side(number)?;
        let payload = payload::<DATA>(number);
        let payload = if data { &payload[..] } else { &[] };
        let segment = segment(self.connection(number).server, SERVER_CLOCK, Flags::ACK, payload);
        frame::tcp(&mut self.scratch, self.weir, server, snat, &segment)?;
        Ok(self.scratch.bytes())
    }

    /// Takes in a frame of weir's.
    pub fn receive(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        match parse(frame, None) {
            Ok(Packet::Arp { offset }) => self.answer_arp(frame, offset),
            Ok(Packet::Transport(headers)) if headers.tcp_flags == 0 => self.note_datagram(frame, &headers),
            Ok(Packet::Transport(headers)) => return self.receive_segment(frame, &headers),
            Ok(Packet::Icmp(headers)) => self.answers.extend(frame::advertisement(frame, &headers)),
            Err(reason) => anyhow::bail!("weir sent a frame that is wrong: {}", reason.label()),
        }
        Ok(())
    }

    /// Everybody's MAC address is the same.
    fn answer_arp(&mut self, frame: &[u8], offset: u16) {
        let sender_and_target =
            frame.get(usize::from(offset) + 14..).and_then(|rest| rest.first_chunk::<14>());
        let announces =
            sender_and_target.is_none_or(|[a, b, c, d, .., w, x, y, z]| [a, b, c, d] == [w, x, y, z]);
        let mut reply = frame.to_vec();
        if !announces && arp::reply(&mut reply, offset, PEER_MAC).is_ok() {
            self.answers.push_back(reply);
        }
    }

    fn note_datagram(&mut self, frame: &[u8], headers: &Headers) {
        if let (false, Some(number)) = (is_to_client(headers), number(frame, headers)) {
            self.note_server_side(number, headers);
        }
    }

    fn note_server_side(&mut self, number: u32, headers: &Headers) {
        let (snat, server) = (headers.key.source_socket(), headers.key.destination_socket());
        let seen = Side {
            snat: frame::bits(snat.ip()),
            server: frame::bits(server.ip()),
            snat_port: snat.port(),
            server_port: server.port(),
        };
        let slot = self.slot(number);
        if let Some(side) = self.sides.get_mut(slot).filter(|side| **side != seen) {
            self.established += usize::from(*side == Side::default());
            *side = seen;
        }
    }

    fn receive_segment(&mut self, frame: &[u8], headers: &Headers) -> anyhow::Result<()> {
        let bytes = frame.get(headers.l4_range()).unwrap_or_default();
        let received = Segment::parse(bytes)?;
        if received.flags.contains(Flags::RST) {
            self.resets += 1;
            return Ok(());
        }
        if is_to_client(headers) {
            self.client_receives(&received, headers)
        } else {
            self.server_receives(&received, frame, headers)
        }
    }

    fn client_receives(&mut self, received: &Segment<'_>, headers: &Headers) -> anyhow::Result<()> {
        let (to, from) = (headers.key.source_socket(), headers.key.destination_socket());
        let number = client_number(from);
        let (slot, talk) = (self.slot(number), self.talk);
        let Some(flow) = self.connections.get_mut(slot).filter(|flow| flow.number == number) else {
            return Ok(());
        };
        let mut send: Vec<(Half, Flags, bool)> = Vec::new();
        if received.flags.contains(Flags::SYN) {
            flow.client = after(received);
            send.push((flow.client, Flags::ACK, false));
            send.push((flow.client, Flags::ACK | Flags::PSH, true));
            flow.client.seq = flow.client.seq.wrapping_add(DATA as u32);
        } else if received.flags.contains(Flags::FIN) && talk == Talk::Whole && !flow.closing {
            flow.client = Half { seq: flow.client.seq, ..after(received) };
            send.push((flow.client, Flags::ACK | Flags::FIN, false));
            flow.client.seq = flow.client.seq.wrapping_add(1);
            flow.closing = true;
        } else if flow.closing && received.ack.value() == flow.client.seq {
            flow.closing = false;
            self.finished += 1;
        }
        for (half, flags, data) in send {
            let payload = payload::<DATA>(number);
            let payload = if data { &payload[..] } else { &[] };
            self.say(from, to, &segment(half, CLIENT_CLOCK, flags, payload))?;
        }
        Ok(())
    }

    fn server_receives(
        &mut self,
        received: &Segment<'_>,
        frame: &[u8],
        headers: &Headers,
    ) -> anyhow::Result<()> {
        let (to, from) = (headers.key.source_socket(), headers.key.destination_socket());
        if received.flags.contains(Flags::SYN) {
            let echo = received.options.timestamps.map_or(0, |timestamps| timestamps.value);
            let segment = Segment {
                seq: SeqNumber::new(isn(u32::from(to.port()) << 8)),
                ack: received.seq.advanced(1),
                flags: Flags::SYN | Flags::ACK,
                ..opening(SERVER_CLOCK, echo)
            };
            return self.say(from, to, &segment);
        }
        let half = after(received);
        match number(frame, headers) {
            Some(number) if !received.payload.is_empty() => {
                self.note_server_side(number, headers);
                let slot = self.slot(number);
                if let Some(flow) = self.connections.get_mut(slot) {
                    flow.server = half;
                }
                self.say(from, to, &segment(half, SERVER_CLOCK, Flags::ACK, &[]))?;
                if self.talk == Talk::Whole {
                    let flags = Flags::ACK | Flags::PSH | Flags::FIN;
                    self.say(from, to, &segment(half, SERVER_CLOCK, flags, &payload::<DATA>(number)))?;
                }
                Ok(())
            }
            _ if received.flags.contains(Flags::FIN) => {
                self.say(from, to, &segment(half, SERVER_CLOCK, Flags::ACK, &[]))
            }
            _ => Ok(()),
        }
    }

    fn say(&mut self, from: SocketAddr, to: SocketAddr, segment: &Segment<'_>) -> anyhow::Result<()> {
        frame::tcp(&mut self.scratch, self.weir, from, to, segment)?;
        self.answers.push_back(self.scratch.bytes().to_vec());
        Ok(())
    }

    fn slot(&self, number: u32) -> usize {
        number as usize % self.sides.len()
    }

    fn side(&self, number: u32) -> Side {
        self.sides.get(self.slot(number)).copied().unwrap_or_default()
    }

    fn connection(&self, number: u32) -> Connection {
        self.connections.get(self.slot(number)).copied().unwrap_or_default()
    }

    /// SNAT and server address of a flow.
    fn server_side(&self, number: u32) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let (side, family) = (self.side(number), self.family());
        anyhow::ensure!(side != Side::default(), "flow {number} has no server");
        Ok((endpoint(family, side.snat, side.snat_port), endpoint(family, side.server, side.server_port)))
    }

    fn family(&self) -> Family {
        if self.vip.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Client address and port of a flow, before it was looked for a port that comes to the worker.
pub fn client(family: Family, number: u32) -> SocketAddr {
    let number = number % CLIENTS;
    endpoint(family, FIRST_CLIENT + number, FIRST_PORT + (number % 60_000) as u16)
}

/// The flow of a client address.
fn client_number(client: SocketAddr) -> u32 {
    frame::bits(client.ip()).wrapping_sub(FIRST_CLIENT)
}

fn is_to_client(headers: &Headers) -> bool {
    frame::is_client(headers.key.destination_socket().ip())
}

/// The flow's number comes first, so that the server knows whom it serves.
fn payload<const LEN: usize>(number: u32) -> [u8; LEN] {
    let mut bytes = [b'.'; LEN];
    bytes.iter_mut().zip((number % CLIENTS).to_be_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn number(frame: &[u8], headers: &Headers) -> Option<u32> {
    let payload = frame.get(headers.payload_range())?;
    payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Any sequence number that differs from flow to flow.
fn isn(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9)
}

/// What the receiver of a segment says next.
fn after(received: &Segment<'_>) -> Half {
    Half {
        seq: received.ack.value(),
        ack: received.seq.advanced(received.len()).value(),
        echo: received.options.timestamps.map_or(0, |timestamps| timestamps.value),
    }
}

fn segment(half: Half, clock: u32, flags: Flags, payload: &[u8]) -> Segment<'_> {
    Segment {
        seq: SeqNumber::new(half.seq),
        ack: SeqNumber::new(half.ack),
        flags,
        window: 8192,
        urgent: 0,
        options: Options {
            timestamps: Some(Timestamps { value: clock, echo: half.echo }),
            ..Options::default()
        },
        payload,
    }
}

/// SYN or SYN-ACK as Linux would send it.
fn opening(clock: u32, echo: u32) -> Segment<'static> {
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: clock, echo }),
        ..Options::default()
    };
    Segment { options, window: 65535, ..segment(Half::default(), clock, Flags::NONE, &[]) }
}
