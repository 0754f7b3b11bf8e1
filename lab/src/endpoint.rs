//! TCP as an end host does it, as far as a lab needs it: handshake, a stream both ways, acknowledgements,
//! retransmission, FIN and RST. Segments and time go in, segments come out.
//!
//! Everything that was said and heard is kept, and a caller may send any piece of its stream at any moment
//! ([`Endpoint::segment`]).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use etherparse::{TcpHeader, TcpOptionElement};
use smoltcp::time::{Duration, Instant};

use crate::packet;

/// First time after which what was not acknowledged is sent again.
const RETRANSMIT: Duration = Duration::from_secs(1);
/// Attempts before an endpoint gives up.
const ATTEMPTS: u8 = 8;
/// MSS of a peer that names none (RFC 9293, 3.7.1).
const DEFAULT_MSS: u16 = 536;
/// Own window in bytes, before scaling.
const WINDOW: u16 = u16::MAX;

/// What an endpoint offers in its SYN.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Largest segment that it takes, and sends.
    pub mss: u16,
    /// Window shift; `None`: no scaling.
    pub window_scale: Option<u8>,
    /// SACK is permitted; no block is ever sent.
    pub sack: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { mss: 1460, window_scale: Some(7), sack: true }
    }
}

/// Where an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was sent or received.
    Idle,
    /// SYN is sent.
    SynSent,
    /// SYN came, SYN-ACK is sent.
    SynReceived,
    /// The handshake is complete.
    Open,
    /// The peer has reset it.
    Reset,
    /// It has reset itself.
    Aborted,
    /// Nobody answers.
    TimedOut,
}

/// One end of a TCP connection.
#[derive(Clone, Debug)]
pub struct Endpoint {
    local: SocketAddr,
    remote: SocketAddr,
    settings: Settings,
    phase: Phase,
    isn: u32,
    irs: u32,
    /// What it has said and will say.
    stream: Vec<u8>,
    /// The parts of `stream` that are known, sorted and apart from each other: (first, past the last).
    known: Vec<(usize, usize)>,
    acknowledged: usize,
    next: usize,
    finish: bool,
    fin_sent: bool,
    fin_acknowledged: bool,
    received: Vec<u8>,
    ahead: BTreeMap<usize, Vec<u8>>,
    peer_fin: Option<usize>,
    peer_mss: u16,
    peer_shift: u8,
    own_shift: u8,
    window: usize,
    must_answer: bool,
    must_syn: bool,
    deadline: Option<Instant>,
    attempts: u8,
    raw: VecDeque<(TcpHeader, Vec<u8>)>,
}

impl Endpoint {
    /// Not yet connected.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr, isn: u32, settings: Settings) -> Endpoint {
        Endpoint {
            local,
            remote,
            settings,
            phase: Phase::Idle,
            isn,
            irs: 0,
            stream: Vec::new(),
            known: Vec::new(),
            acknowledged: 0,
            next: 0,
            finish: false,
            fin_sent: false,
            fin_acknowledged: false,
            received: Vec::new(),
            ahead: BTreeMap::new(),
            peer_fin: None,
            peer_mss: DEFAULT_MSS,
            peer_shift: 0,
            own_shift: 0,
            window: 0,
            must_answer: false,
            must_syn: false,
            deadline: None,
            attempts: 0,
            raw: VecDeque::new(),
        }
    }

    /// Sends SYN.
    pub fn connect(&mut self) {
        if self.phase == Phase::Idle {
            self.phase = Phase::SynSent;
            self.must_syn = true;
        }
    }

    /// Adds to the stream.
    pub fn send(&mut self, bytes: &[u8]) {
        self.write(self.stream.len(), bytes);
    }

    /// Sends these bytes of the stream now, in one segment, whatever was sent before. If they are new they become part of
    /// the stream.
    pub fn segment(&mut self, offset: usize, bytes: &[u8]) {
        self.write(offset, bytes);
        self.next = self.next.max(offset + bytes.len());
        let mut header = self.header(offset);
        header.psh = !bytes.is_empty();
        self.raw.push_back((header, bytes.to_vec()));
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.stream.len() < end {
            self.stream.resize(end, 0);
        }
        if let Some(place) = self.stream.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
        let mut merged = (offset, end);
        self.known.retain(|(first, past)| {
            let apart = *past < merged.0 || merged.1 < *first;
            if !apart {
                merged = (merged.0.min(*first), merged.1.max(*past));
            }
            apart
        });
        self.known.push(merged);
        self.known.sort_unstable();
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        self.finish = true;
    }

    /// Sends RST and is gone.
    pub fn reset(&mut self) {
        let mut header = self.header(self.next + usize::from(self.fin_sent));
        header.rst = true;
        self.raw.push_back((header, Vec::new()));
        self.phase = Phase::Aborted;
        self.deadline = None;
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the peer has said, in order.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The peer has said that nothing more comes, and all of it is here.
    #[must_use]
    pub fn peer_finished(&self) -> bool {
        self.peer_fin == Some(self.received.len())
    }

    /// Both sides have finished and know it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.fin_acknowledged && self.peer_finished()
    }

    /// Bytes of its stream that the peer has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// When [`Endpoint::poll`] has something to do by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes in a segment of the peer's.
    pub fn handle(&mut self, header: &TcpHeader, payload: &[u8]) {
        if header.rst {
            if !matches!(self.phase, Phase::Idle | Phase::Aborted) {
                self.phase = Phase::Reset;
                self.deadline = None;
            }
            return;
        }
        match self.phase {
            Phase::Idle if header.syn && !header.ack => {
                self.phase = Phase::SynReceived;
                self.take_syn(header);
                self.must_syn = true;
            }
            Phase::SynReceived if header.syn => self.must_syn = true,
            Phase::SynSent if header.syn && header.ack && header.acknowledgment_number == self.seq(0) => {
                self.phase = Phase::Open;
                self.take_syn(header);
                self.window = usize::from(header.window_size);
                self.progress();
                self.must_answer = true;
            }
            Phase::SynReceived if header.ack && header.acknowledgment_number == self.seq(0) => {
                self.phase = Phase::Open;
                self.progress();
                self.take_in(header, payload);
            }
            Phase::Open if header.syn => self.must_answer = true,
            Phase::Open => self.take_in(header, payload),
            _ => {}
        }
    }

    fn take_syn(&mut self, header: &TcpHeader) {
        self.irs = header.sequence_number;
        let mut scale = None;
        for option in header.options_iterator().flatten() {
            match option {
                TcpOptionElement::MaximumSegmentSize(mss) => self.peer_mss = mss.max(1),
                TcpOptionElement::WindowScale(shift) => scale = Some(shift.min(14)),
                _ => {}
            }
        }
        if let (Some(theirs), Some(own)) = (scale, self.settings.window_scale) {
            (self.peer_shift, self.own_shift) = (theirs, own);
        }
        self.window = usize::from(header.window_size);
    }

    fn take_in(&mut self, header: &TcpHeader, payload: &[u8]) {
        if header.ack {
            self.take_acknowledgement(header);
        }
        let offset = header.sequence_number.wrapping_sub(self.irs.wrapping_add(1));
        // What lies before the stream's beginning wraps around.
        let offset = if offset > u32::MAX / 2 { None } else { Some(offset as usize) };
        if !payload.is_empty() || header.fin {
            self.must_answer = true;
        }
        let Some(offset) = offset else { return };
        if header.fin {
            self.peer_fin = Some(offset + payload.len());
        }
        if !payload.is_empty() {
            self.ahead.insert(offset, payload.to_vec());
        }
        while let Some((first, bytes)) = self.ahead.pop_first() {
            let Some(skip) = self.received.len().checked_sub(first) else {
                self.ahead.insert(first, bytes);
                break;
            };
            self.received.extend_from_slice(bytes.get(skip..).unwrap_or_default());
        }
    }

    fn take_acknowledgement(&mut self, header: &TcpHeader) {
        self.window = usize::from(header.window_size) << self.peer_shift;
        let ack = header.acknowledgment_number.wrapping_sub(self.seq(0)) as usize;
        let end = self.stream.len();
        let whole = ack == end + 1 && self.fin_sent;
        if whole && !self.fin_acknowledged {
            self.fin_acknowledged = true;
            self.progress();
        }
        let ack = if whole { end } else { ack };
        if ack <= end && ack > self.acknowledged {
            self.acknowledged = ack;
            self.next = self.next.max(ack);
            self.progress();
        }
    }

    /// Something went forward.
    fn progress(&mut self) {
        self.attempts = 0;
        self.deadline = None;
    }

    /// The sequence number of a byte of the stream.
    fn seq(&self, offset: usize) -> u32 {
        self.isn.wrapping_add(1).wrapping_add(offset as u32)
    }

    fn header(&self, offset: usize) -> TcpHeader {
        let mut header = TcpHeader::new(0, 0, self.seq(offset), WINDOW);
        if matches!(self.phase, Phase::SynReceived | Phase::Open) {
            let fin = u32::from(self.peer_finished());
            let ack = self.irs.wrapping_add(1).wrapping_add(self.received.len() as u32).wrapping_add(fin);
            header.ack = true;
            header.acknowledgment_number = ack;
        }
        header
    }

    /// The next IP packet to send, if any.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.time_out(now);
        let (header, payload) = self.next_segment(now)?;
        packet::tcp(self.local, self.remote, header, &payload)
    }

    fn time_out(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        if !self.is_owed() {
            return;
        }
        self.attempts += 1;
        if self.attempts >= ATTEMPTS {
            self.phase = Phase::TimedOut;
            return;
        }
        self.next = self.acknowledged;
        self.fin_sent &= self.fin_acknowledged;
        self.must_syn |= matches!(self.phase, Phase::SynSent | Phase::SynReceived);
        if self.window == 0 && self.acknowledged < self.stream.len() {
            self.window = 1;
        }
    }

    /// Something that was sent is not acknowledged.
    fn is_owed(&self) -> bool {
        let shaking = matches!(self.phase, Phase::SynSent | Phase::SynReceived);
        shaking || self.acknowledged < self.next || self.fin_sent && !self.fin_acknowledged
    }

    fn next_segment(&mut self, now: Instant) -> Option<(TcpHeader, Vec<u8>)> {
        if let Some(raw) = self.raw.pop_front() {
            self.arm(now);
            return Some(raw);
        }
        if std::mem::take(&mut self.must_syn) {
            self.arm(now);
            return Some((self.syn(), Vec::new()));
        }
        if self.phase != Phase::Open {
            return None;
        }
        if let Some(segment) = self.next_data() {
            self.arm(now);
            return Some(segment);
        }
        std::mem::take(&mut self.must_answer)
            .then(|| (self.header(self.next + usize::from(self.fin_sent)), Vec::new()))
    }

    /// New data, or FIN, as far as the window allows.
    fn next_data(&mut self) -> Option<(TcpHeader, Vec<u8>)> {
        let mss = usize::from(self.peer_mss.min(self.settings.mss));
        let room = (self.acknowledged + self.window).saturating_sub(self.next);
        let known = self.known.iter().find(|(first, past)| (*first..*past).contains(&self.next));
        let length = known.map_or(0, |(_, past)| past - self.next).min(mss).min(room);
        let bytes = self.stream.get(self.next..self.next + length)?.to_vec();
        let last = self.next + length == self.stream.len();
        let fin = self.finish && last && !self.fin_sent;
        if bytes.is_empty() && !fin {
            return None;
        }
        let mut header = self.header(self.next);
        header.psh = !bytes.is_empty();
        header.fin = fin;
        self.fin_sent |= fin;
        self.next += length;
        self.must_answer = false;
        Some((header, bytes))
    }

    fn arm(&mut self, now: Instant) {
        let open = matches!(self.phase, Phase::SynSent | Phase::SynReceived | Phase::Open);
        self.deadline = self.deadline.or(open.then(|| now + RETRANSMIT * (1 << self.attempts)));
    }

    fn syn(&self) -> TcpHeader {
        let mut header = self.header(0);
        header.sequence_number = self.isn;
        header.syn = true;
        let mut options = vec![TcpOptionElement::MaximumSegmentSize(self.settings.mss)];
        if self.settings.sack {
            options.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
        }
        let scales = self.phase == Phase::SynSent || self.own_shift > 0 || self.peer_shift > 0;
        if let Some(shift) = self.settings.window_scale.filter(|_| scales) {
            options.extend([TcpOptionElement::Noop, TcpOptionElement::WindowScale(shift)]);
        }
        // At most 10 of 40 bytes.
        let _ = header.set_options(&options);
        header
    }
}
