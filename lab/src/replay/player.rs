//! Plays a capture, packet by packet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use dataplane::policy::Selection;
use dataplane::snapshot::Protocol;
use etherparse::TcpHeader;
use smoltcp::time::{Duration, Instant};

use super::capture::{Capture, Captured};
use super::client::ClientSide;
use super::flow::{Flow, Key};
use super::link::{self, Content, Seen};
use super::server::ServerSide;
use super::sources::Sources;
use super::{ReplayError, Replayed, Settings};
use crate::explain::{By, Choice};
use crate::packet::{self, Joiner, Transport};
use crate::servers::SessionId;
use crate::world::Lab;

/// Rounds of sending again what weir has not acknowledged at the end of the capture.
const ROUNDS: usize = 10;
/// Time for what goes on by itself after the last packet.
const AFTER: Duration = Duration::from_secs(15);
/// Addresses that a message names.
const NAMED: usize = 5;

pub(super) struct Player<'a> {
    pub(super) lab: Lab,
    settings: &'a Settings,
    pub(super) flows: Vec<Flow>,
    open: HashMap<Key, usize>,
    /// By place in the lab's clients.
    by_client: HashMap<usize, usize>,
    pub(super) notes: Vec<String>,
    /// Packets that were not played, by why.
    pub(super) ignored: BTreeMap<&'static str, u64>,
    /// Who was talked to that no service is.
    others: BTreeMap<(Protocol, SocketAddr), u64>,
    links: BTreeSet<i32>,
    pub(super) played: u64,
    epoch: i128,
    start: Instant,
    pub(super) sources: Sources,
    /// It is only about the times of scripts.
    pub(super) timed: bool,
}

impl<'a> Player<'a> {
    pub(super) fn new(lab: Lab, capture: &Capture, settings: &'a Settings) -> Player<'a> {
        let start = lab.now();
        let sources = Sources::of(lab.snapshot());
        Player {
            lab,
            settings,
            flows: Vec::new(),
            open: HashMap::new(),
            by_client: HashMap::new(),
            notes: capture.notes.clone(),
            ignored: BTreeMap::new(),
            others: BTreeMap::new(),
            links: BTreeSet::new(),
            played: 0,
            epoch: capture.packets.iter().map(|packet| packet.nanoseconds).next().unwrap_or(0),
            start,
            sources,
            timed: false,
        }
    }

    pub(super) fn play(mut self, capture: &Capture) -> Result<Replayed, ReplayError> {
        let mut joiner = Joiner::default();
        let mut backwards = 0u64;
        for packet in &capture.packets {
            backwards += u64::from(!self.wait_for(packet));
            match link::content(packet, &mut joiner) {
                Content::Seen(seen) => self.packet(packet, &seen),
                Content::Fragment => self.ignore("fragments, put together where all are there"),
                Content::Not(why) => self.ignore(why),
                Content::Link(link) => {
                    self.links.insert(link);
                    self.ignore("of a link type that is not understood");
                }
            }
        }
        if self.flows.is_empty() {
            return Err(self.nobody());
        }
        if backwards > 0 {
            self.notes.push(format!(
                "{backwards} packets are older than those before them: they are played at once"
            ));
        }
        Ok(self.finish(capture))
    }

    fn ignore(&mut self, why: &'static str) {
        *self.ignored.entry(why).or_default() += 1;
    }

    /// Lets time pass until a packet of the capture was there; `false` if that is past.
    fn wait_for(&mut self, packet: &Captured) -> bool {
        let micros = i64::try_from((packet.nanoseconds - self.epoch) / 1000).unwrap_or(0).max(0);
        let at = self.start + Duration::from_micros(micros.unsigned_abs());
        if at < self.lab.now() {
            return false;
        }
        let time = at - self.lab.now();
        self.pass(time);
        true
    }

    fn pass(&mut self, time: Duration) {
        if time > Duration::ZERO {
            self.lab.advance(time);
            self.pump();
        }
    }

    fn packet(&mut self, captured: &Captured, seen: &Seen) {
        let protocol = super::protocol(seen);
        let snapshot = self.lab.snapshot();
        let to = super::mapped(seen.destination, self.settings);
        if let Some(service) = super::service(snapshot, protocol, to) {
            let key = (protocol, seen.source, to);
            self.played += 1;
            return match &seen.tcp {
                Some(header) => self.segment(captured, seen, header, key, service),
                None => self.datagram(captured, seen, key, service),
            };
        }
        let from = super::mapped(seen.source, self.settings);
        if super::service(snapshot, protocol, from).is_some() {
            return self.server_packet(captured, seen, (protocol, seen.destination, from));
        }
        *self.others.entry((protocol, seen.destination)).or_default() += 1;
        self.ignore("neither to nor from a VIP");
    }

    /// A client's segment.
    fn segment(
        &mut self,
        captured: &Captured,
        seen: &Seen,
        header: &TcpHeader,
        key: Key,
        service: dataplane::snapshot::ServiceId,
    ) {
        let known = self.open.get(&key).copied().filter(|index| self.goes_on(*index, header));
        let Some(index) = known.or_else(|| self.begin(captured, key, service)) else { return };
        if known.is_none() && !header.syn {
            if header.rst || header.fin && seen.length == 0 {
                if let Some(flow) = self.flows.get_mut(index) {
                    flow.note(format!(
                        "only the end of the connection is in the capture, from packet {} on",
                        captured.number
                    ));
                    flow.incomplete = true;
                }
                return;
            }
            self.make_handshake_up(index, captured, header);
        }
        let Some(flow) = self.flows.get_mut(index) else { return };
        (flow.last, flow.packets) = (captured.number, flow.packets + 1);
        if header.syn {
            let syn = flow.client.syn(header);
            return self.send(index, syn, &seen.payload);
        }
        if !flow.client.is_open() {
            let number = captured.number;
            return flow.note(format!("packet {number} is not played: weir has not answered the SYN"));
        }
        let unknown = flow.client.unknown;
        let segments = flow.client.segments(header, &seen.payload, seen.length);
        if unknown.is_none() && flow.client.unknown.is_some() {
            flow.cut(captured.number, seen.payload.len(), seen.length, "payload unknown from here");
        }
        for (header, payload) in segments {
            self.send(index, header, &payload);
        }
        self.end_where_unknown(index, header);
    }

    /// A segment of this header belongs to the flow.
    fn goes_on(&self, index: usize, header: &TcpHeader) -> bool {
        let same = |flow: &Flow| flow.client.isn == header.sequence_number;
        !header.syn || self.flows.get(index).is_some_and(same)
    }

    /// Where what a client said is unknown, its FIN comes where the known part ends.
    fn end_where_unknown(&mut self, index: usize, header: &TcpHeader) {
        let Some(flow) = self.flows.get_mut(index) else { return };
        if header.fin && flow.client.unknown.is_some() && !flow.client.finished {
            let fin = flow.client.fin();
            self.send(index, fin, &[]);
        }
    }

    fn make_handshake_up(&mut self, index: usize, captured: &Captured, header: &TcpHeader) {
        let Some(flow) = self.flows.get_mut(index) else { return };
        flow.incomplete = true;
        flow.note(format!(
            "packet {} is the first of the connection in the capture: its handshake is made up, and scripts see what comes from here as the beginning",
            captured.number
        ));
        let syn = flow.client.made_up_syn(header);
        self.send(index, syn, &[]);
    }

    fn begin(
        &mut self,
        captured: &Captured,
        key: Key,
        service: dataplane::snapshot::ServiceId,
    ) -> Option<usize> {
        let (protocol, client, vip) = key;
        let id = self.lab.raw_client(client, vip, protocol).ok()?;
        self.flows.push(Flow {
            key,
            service,
            id,
            began: self.lab.now(),
            first: captured.number,
            last: captured.number,
            packets: 0,
            notes: Vec::new(),
            incomplete: false,
            choice: self.default_choice(service, client, vip),
            runs: Vec::new(),
            heard: 0,
            client: ClientSide::default(),
            server: ServerSide::default(),
        });
        let index = self.flows.len() - 1;
        self.open.insert(key, index);
        self.by_client.insert(id.0, index);
        Some(index)
    }

    /// Where a flow goes if no script chooses.
    fn default_choice(
        &self,
        service: dataplane::snapshot::ServiceId,
        client: SocketAddr,
        vip: SocketAddr,
    ) -> Option<Choice> {
        let snapshot = self.lab.snapshot();
        let default = snapshot.services.get(service.index())?.default?;
        let ends = (client.ip(), vip.ip());
        Some(Choice::of(snapshot, self.lab.balancer(), Selection::from(default), ends, By::Default))
    }

    /// Sends a segment of a flow, and whatever follows at once.
    fn send(&mut self, index: usize, header: TcpHeader, payload: &[u8]) {
        let Some((_, client, vip)) = self.flows.get(index).map(|flow| flow.key) else { return };
        let Some(packet) = packet::tcp(client, vip, header, payload) else { return };
        let runs = self.lab.runs().len();
        self.lab.packet(client.ip(), &packet);
        self.note_runs(index, runs);
        self.pump();
    }

    fn note_runs(&mut self, index: usize, before: usize) {
        let after = self.lab.runs().len();
        if let Some(flow) = self.flows.get_mut(index) {
            flow.runs.extend(before..after);
        }
    }

    fn datagram(
        &mut self,
        captured: &Captured,
        seen: &Seen,
        key: Key,
        service: dataplane::snapshot::ServiceId,
    ) {
        let known = self.open.get(&key).copied();
        let Some(index) = known.or_else(|| self.begin(captured, key, service)) else { return };
        let Some(flow) = self.flows.get_mut(index) else { return };
        (flow.last, flow.packets) = (captured.number, flow.packets + 1);
        if seen.payload.len() < seen.length {
            return flow.cut(captured.number, seen.payload.len(), seen.length, "the datagram is not played");
        }
        let (id, runs) = (flow.id, self.lab.runs().len());
        self.lab.send(id, &seen.payload);
        self.note_runs(index, runs);
        self.pump();
    }

    /// A packet of the capture's server.
    fn server_packet(&mut self, captured: &Captured, seen: &Seen, key: Key) {
        let Some(flow) = self.open.get(&key).copied().and_then(|index| self.flows.get_mut(index)) else {
            return self.ignore("of servers whose clients are not in the capture");
        };
        flow.server.packets += 1;
        let was_cut = flow.server.cut;
        match &seen.tcp {
            Some(header) => flow.server.hear(header, &seen.payload, seen.length),
            None if seen.payload.len() < seen.length => flow.server.cut = true,
            None => flow.server.datagrams.push(seen.payload.clone()),
        }
        if flow.server.cut && !was_cut {
            let then = "the server says nothing from here on";
            flow.cut(captured.number, seen.payload.len(), seen.length, then);
        }
        if let Some(index) = self.open.get(&key).copied() {
            self.let_server_speak(index);
            self.pump();
        }
    }

    /// The session of a flow with a server.
    pub(super) fn session(&self, flow: &Flow) -> Option<SessionId> {
        let (protocol, client, vip) = flow.key;
        let place = self.lab.sessions().iter().rposition(|session| {
            let ends = (session.protocol, session.client, session.vip);
            ends == (protocol, Some(client), Some(vip)) && session.began >= flow.began
        });
        place.map(SessionId)
    }

    fn let_server_speak(&mut self, index: usize) {
        let flow = self.flows.get(index).filter(|flow| flow.server.has_more());
        let Some(id) = flow.and_then(|flow| self.session(flow)) else { return };
        let Some(flow) = self.flows.get_mut(index) else { return };
        let datagrams = std::mem::take(&mut flow.server.datagrams);
        let bytes = std::mem::take(&mut flow.server.waiting);
        let finished = std::mem::take(&mut flow.server.finished);
        let reset = std::mem::take(&mut flow.server.reset);
        let runs = self.lab.runs().len();
        for datagram in datagrams {
            self.lab.server_send(id, &datagram);
        }
        if !bytes.is_empty() {
            self.lab.server_send(id, &bytes);
        }
        if finished {
            self.lab.server_finish(id);
        }
        if reset {
            self.lab.server_reset(id);
        }
        self.note_runs(index, runs);
    }

    /// Takes in what weir has said to clients, and lets them acknowledge it, until nothing more comes.
    fn pump(&mut self) {
        while let Some(client) = self.lab.heard.pop_first() {
            let Some(index) = self.by_client.get(&client).copied() else { continue };
            let runs = self.lab.runs().len();
            let Some(answer) = self.hear(index) else { continue };
            let Some((_, client, vip)) = self.flows.get(index).map(|flow| flow.key) else { continue };
            if let Some(packet) = packet::tcp(client, vip, answer, &[]) {
                self.lab.packet(client.ip(), &packet);
            }
            self.note_runs(index, runs);
            self.let_server_speak(index);
        }
    }

    /// What weir has said to a client since the last time; the acknowledgement to send.
    fn hear(&mut self, index: usize) -> Option<TcpHeader> {
        let flow = self.flows.get_mut(index)?;
        let packets = self.lab.client_view(flow.id)?.packets();
        for (_, packet) in packets.get(flow.heard..).unwrap_or_default() {
            if let Transport::Tcp(header) = &packet.transport {
                flow.client.hear(header, &packet.payload);
            }
        }
        flow.heard = packets.len();
        flow.client.answer()
    }

    /// After the last packet: what is owed is sent, then time passes, then weir ends.
    fn finish(mut self, capture: &Capture) -> Replayed {
        let ids: Vec<usize> = (0..self.flows.len()).collect();
        for index in &ids {
            self.let_server_speak(*index);
        }
        self.pump();
        let rounds = if self.settings.stop_at_once { 0 } else { ROUNDS };
        for _ in 0..rounds {
            let mut any = false;
            for index in &ids {
                let segment = self.flows.get_mut(*index).and_then(|flow| flow.client.resend());
                if let Some((header, payload)) = segment {
                    any = true;
                    self.send(*index, header, &payload);
                    self.let_server_speak(*index);
                }
            }
            if !any {
                break;
            }
            self.pass(Duration::from_secs(1));
        }
        if !self.settings.stop_at_once {
            self.pass(AFTER);
        }
        let frames = if self.timed { Vec::new() } else { self.lab.take_frames() };
        self.lab.shut_down();
        let epoch = self.epoch - i128::from(self.start.total_micros()) * 1000;
        let interfaces = super::interface_names(self.lab.snapshot());
        Replayed { report: self.report(capture), frames, epoch, interfaces }
    }

    /// Why there is no flow.
    fn nobody(&self) -> ReplayError {
        if let (Some(link), true) = (self.links.first(), self.others.is_empty()) {
            return ReplayError::Link(*link);
        }
        let mut others: Vec<_> = self.others.iter().collect();
        others.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
        let named: Vec<String> = others
            .iter()
            .take(NAMED)
            .map(|((protocol, address), packets)| {
                format!("{} {address} ({packets})", super::report::name(*protocol))
            })
            .collect();
        let vip = self.lab.snapshot().services.first().and_then(|service| service.addresses.first());
        let way = match (others.first(), vip) {
            (Some(((_, address), _)), Some(vip)) => {
                format!(
                    "; packets go to {}; if one of them stands for a VIP, say so: --vip {}={vip}",
                    named.join(", "),
                    address.ip()
                )
            }
            _ => "; it has no TCP segment and no UDP datagram that could be read".to_owned(),
        };
        ReplayError::Nobody(way)
    }
}
