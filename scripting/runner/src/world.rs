//! The network of one run of a case: a fresh lab, its clients, and how their payloads are cut.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dataplane::address::FlowKey;
use dataplane::policy::{Event, Selection};
use dataplane::script_trace::ScriptStep;
use dataplane::snapshot::{PoolId, Protocol, ServerId, ServiceId};
use lab::{Blueprint, ClientId, Lab, Run, RunState, ServerState, SessionId, TcpPhase};
use smoltcp::time::Duration;

use crate::cuts::{Pieces, Plan, in_one_piece};
use crate::names::{listener, no_such, server_name};
use crate::outcome::{Entry, Facts};

/// Longest segment of a piece.
const SEGMENT: usize = 1400;
/// Flows that all worlds of a process together can have before their numbers repeat.
const FLOWS_OF_A_WORLD: usize = 1 << 16;

/// A payload that can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// `file:line` of what sends it.
    pub place: String,
    /// The client of its flow.
    pub client: String,
    /// The server sends it.
    pub from_server: bool,
    /// Bytes.
    pub length: usize,
}

struct Flow {
    name: String,
    id: ClientId,
    address: SocketAddr,
    vip: SocketAddr,
    protocol: Protocol,
    /// Bytes of the client's stream so far.
    sent: usize,
    /// Who got the last datagram (UDP).
    last: Option<SessionId>,
}

/// A network around weir, made for one run.
pub struct World {
    lab: Lab,
    plan: Plan,
    flows: Vec<Flow>,
    payloads: Vec<Payload>,
    place: String,
    first_flow: usize,
}

impl World {
    /// A fresh one. `number` tells worlds apart.
    ///
    /// # Errors
    /// No lab can be made.
    pub fn new(blueprint: &Blueprint, plan: Plan, number: usize) -> Result<World, String> {
        let lab = blueprint.lab().map_err(|error| error.to_string())?;
        let first_flow = number.wrapping_mul(FLOWS_OF_A_WORLD);
        Ok(World { lab, plan, flows: Vec::new(), payloads: Vec::new(), place: String::new(), first_flow })
    }

    /// What is called next stands at `place` of the test file.
    pub fn at(&mut self, place: String) {
        self.place = place;
    }

    /// The payloads so far, in order.
    #[must_use]
    pub fn payloads(&self) -> &[Payload] {
        &self.payloads
    }

    /// A client, connected if it speaks TCP.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn client(
        &mut self,
        address: &str,
        to: Option<&str>,
        protocol: Option<&str>,
    ) -> Result<usize, String> {
        let client: SocketAddr = address
            .parse()
            .map_err(|_| format!("\"{address}\" is no address with a port: write \"198.51.100.7:4242\" or \"[2001:db8::7]:4242\""))?;
        let (vip, protocol) = listener(self.lab.snapshot(), client.ip(), to, protocol)?;
        if !self.lab.has_route(client.ip()) {
            return Err(format!(
                "weir has no route to {}: add a [[route]] to the configuration, or take an address of one of its subnets",
                client.ip()
            ));
        }
        let known = |flow: &&Flow| (flow.address, flow.vip, flow.protocol) == (client, vip, protocol);
        if self.flows.iter().any(|flow| known(&flow)) {
            return Err(format!("{client} is a client of {vip} already: take another port"));
        }
        let id = self.lab.client(client, vip, protocol).map_err(|error| error.to_string())?;
        self.lab.connect(id);
        self.flows.push(Flow {
            name: address.to_owned(),
            id,
            address: client,
            vip,
            protocol,
            sent: 0,
            last: None,
        });
        Ok(self.first_flow + self.flows.len() - 1)
    }

    fn place_of(&self, flow: usize) -> Result<usize, String> {
        let place = flow.checked_sub(self.first_flow).filter(|place| *place < self.flows.len());
        place.ok_or_else(|| {
            "this flow is one of another case: make it in this `it`, or in `before_each`".to_owned()
        })
    }

    fn flow(&self, flow: usize) -> Result<&Flow, String> {
        let place = self.place_of(flow)?;
        self.flows.get(place).ok_or_else(|| "no such flow".to_owned())
    }

    /// Sends bytes of the client's.
    ///
    /// # Errors
    /// The connection is not open.
    pub fn send(&mut self, flow: usize, bytes: &[u8], whole: bool) -> Result<(), String> {
        let place = self.place_of(flow)?;
        let Flow { id, protocol, sent, .. } = *self.flow(flow)?;
        if protocol == Protocol::Udp {
            return self.send_datagram(place, id, bytes);
        }
        if !self.is_open(id) {
            return Err(
                "the connection is not open: weir has closed it, or has not answered the SYN".to_owned()
            );
        }
        let pieces = if whole { in_one_piece(bytes.len()) } else { self.note(place, bytes.len(), false) };
        if let [_] = pieces.as_slice() {
            self.lab.send(id, bytes);
        } else {
            for piece in pieces {
                let part = bytes.get(piece.clone()).unwrap_or_default();
                for (number, segment) in part.chunks(SEGMENT).enumerate() {
                    // Whom weir has closed its connection to sends nothing more.
                    if self.is_open(id) {
                        self.lab.segment(id, sent + piece.start + number * SEGMENT, segment);
                    }
                }
            }
        }
        if let Some(flow) = self.flows.get_mut(place) {
            flow.sent += bytes.len();
        }
        Ok(())
    }

    fn is_open(&self, id: ClientId) -> bool {
        let tcp = self.lab.client_view(id).and_then(|client| client.tcp());
        tcp.is_some_and(|tcp| tcp.phase() == TcpPhase::Open && !tcp.peer_finished())
    }

    fn send_datagram(&mut self, place: usize, id: ClientId, bytes: &[u8]) -> Result<(), String> {
        let counts =
            |lab: &Lab| lab.sessions().iter().map(|session| session.datagrams().len()).collect::<Vec<_>>();
        let before = counts(&self.lab);
        self.lab.send(id, bytes);
        let after = counts(&self.lab);
        let more =
            after.iter().enumerate().position(|(at, count)| before.get(at).is_none_or(|old| old < count));
        if let Some(flow) = self.flows.get_mut(place) {
            flow.last = more.map(SessionId);
        }
        Ok(())
    }

    /// Sends bytes of the server that the flow went to.
    ///
    /// # Errors
    /// It went to none.
    pub fn reply(&mut self, flow: usize, bytes: &[u8], whole: bool) -> Result<(), String> {
        let place = self.place_of(flow)?;
        let flow = self.flow(flow)?;
        let session = self.session(flow).ok_or("no server can reply: the flow has not reached one")?;
        let cuttable = flow.protocol == Protocol::Tcp && !whole;
        let mut pieces =
            if cuttable { self.note(place, bytes.len(), true) } else { in_one_piece(bytes.len()) };
        // A server's stream is sent in order.
        pieces.sort_by_key(|piece| piece.start);
        pieces.dedup();
        for piece in pieces {
            self.lab.server_send(session, bytes.get(piece).unwrap_or_default());
        }
        Ok(())
    }

    /// Notes a payload that can be cut, and gives its pieces in this run.
    fn note(&mut self, flow: usize, length: usize, from_server: bool) -> Pieces {
        let number = self.payloads.len();
        let client = self.flows.get(flow).map(|flow| flow.name.clone()).unwrap_or_default();
        self.payloads.push(Payload { place: self.place.clone(), client, from_server, length });
        self.plan.pieces(number, length)
    }

    /// FIN of the client.
    ///
    /// # Errors
    /// UDP has no end.
    pub fn finish(&mut self, flow: usize) -> Result<(), String> {
        let id = self.tcp_flow(flow, "flow:finish()")?;
        self.lab.finish(id);
        Ok(())
    }

    /// RST of the client.
    ///
    /// # Errors
    /// UDP has no end.
    pub fn reset(&mut self, flow: usize) -> Result<(), String> {
        let id = self.tcp_flow(flow, "flow:reset()")?;
        self.lab.reset(id);
        Ok(())
    }

    fn tcp_flow(&self, flow: usize, call: &str) -> Result<ClientId, String> {
        let flow = self.flow(flow)?;
        match flow.protocol {
            Protocol::Tcp => Ok(flow.id),
            Protocol::Udp => {
                Err(format!("{call} is for TCP: UDP has no end; wait(seconds) lets its idle time pass"))
            }
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, seconds: f64) {
        // The prelude lets a million seconds through at most.
        self.lab.advance(Duration::from_micros((seconds * 1e6) as u64));
    }

    /// A server by the name of its pool and, where given, its address and port.
    ///
    /// # Errors
    /// There is none.
    pub fn find_server(&self, pool: &str, address: Option<&str>) -> Result<Option<ServerId>, String> {
        let snapshot = self.lab.snapshot();
        let found = snapshot.pools.iter().find(|known| known.name == pool).ok_or_else(|| {
            let names: Vec<_> = snapshot.pools.iter().map(|pool| pool.name.as_str()).collect();
            no_such("pool", pool, &names)
        })?;
        let Some(address) = address else { return Ok(None) };
        let server = found.servers.iter().find(|id| server_name(snapshot, **id).as_deref() == Some(address));
        server.copied().map(Some).ok_or_else(|| {
            let names: Vec<_> = found.servers.iter().filter_map(|id| server_name(snapshot, *id)).collect();
            format!("pool \"{pool}\" has no server \"{address}\": there are {}", names.join(", "))
        })
    }

    /// Sets how a server is.
    ///
    /// # Errors
    /// There is none.
    pub fn set_server(&mut self, pool: &str, address: &str, state: &str) -> Result<(), String> {
        let server = self.find_server(pool, Some(address))?.ok_or("no server is named")?;
        let state = match state {
            "down" => ServerState::Down,
            "disable" => ServerState::Disabled,
            _ => ServerState::Up,
        };
        self.lab.set_server(server, state);
        Ok(())
    }

    fn service(&self, name: Option<&str>) -> Result<ServiceId, String> {
        let services = &self.lab.snapshot().services;
        let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        match name {
            None if names.len() == 1 => Ok(ServiceId(0)),
            None => Err(format!(
                "the configuration has several services, each with tables of its own: tables_of(\"{}\") is one; there are {}",
                names.first().copied().unwrap_or_default(),
                names.join(", ")
            )),
            Some(name) => {
                let found = (0u16..).zip(&names).find(|(_, known)| **known == name);
                found.map(|(id, _)| ServiceId(id)).ok_or_else(|| no_such("service", name, &names))
            }
        }
    }

    /// Puts an entry into a table.
    ///
    /// # Errors
    /// There is no room, or no such service.
    pub fn insert(
        &mut self,
        service: Option<&str>,
        table: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        lifetime: f64,
    ) -> Result<(), String> {
        let service = self.service(service)?;
        if !(1.0..=1e9).contains(&lifetime) {
            return Err("a lifetime is a number of seconds, at least 1".to_owned());
        }
        let inserted = self.lab.tables_insert(service, table, key, value, lifetime as u32);
        if inserted.stored() {
            Ok(())
        } else {
            Err(format!("the table does not take the entry: {inserted:?}"))
        }
    }

    /// Looks an entry up, without prolonging its life.
    ///
    /// # Errors
    /// There is no such service.
    pub fn lookup(
        &mut self,
        service: Option<&str>,
        table: Option<&[u8]>,
        key: &[u8],
    ) -> Result<Option<(Vec<u8>, u64)>, String> {
        let service = self.service(service)?;
        Ok(self.lab.tables_lookup(service, table, key))
    }

    /// The server's side of a flow.
    fn session(&self, flow: &Flow) -> Option<SessionId> {
        if flow.protocol == Protocol::Udp {
            return flow.last;
        }
        let ours = |session: &lab::Session| {
            (session.client, session.vip, session.protocol)
                == (Some(flow.address), Some(flow.vip), flow.protocol)
        };
        self.lab.sessions().iter().rposition(ours).map(SessionId)
    }

    /// What is known of a flow now.
    ///
    /// # Errors
    /// It is one of another world.
    pub fn facts(&self, flow: usize) -> Result<Facts, String> {
        self.flow(flow).map(|flow| self.facts_of(flow))
    }

    fn facts_of(&self, flow: &Flow) -> Facts {
        let runs: Vec<&Run> = self.runs(flow).collect();
        let session = self.session(flow).and_then(|id| self.lab.sessions().get(id.0));
        let server = session.and_then(|session| session.server);
        let snapshot = self.lab.snapshot();
        let pool = match server.and_then(|server| snapshot.servers.get(server.index())) {
            Some(server) => Some(server.pool),
            None => selected_pool(&runs),
        };
        let count = |event| runs.iter().filter(|run| run.event == event).count() as u64;
        let waiting = runs.iter().any(|run| matches!(run.state, RunState::Waiting { .. }));
        let error = runs.iter().rev().find_map(|run| run.error.as_deref());
        let view = self.lab.client_view(flow.id);
        Facts {
            client: flow.name.clone(),
            pool: pool.and_then(|pool| snapshot.pools.get(pool.index())).map(|pool| pool.name.clone()),
            server: server.and_then(|server| server_name(snapshot, server)),
            log: runs.iter().flat_map(|run| run.log.iter().copied()).collect(),
            significant: false,
            error: error.map(|text| text.lines().next().unwrap_or_default().to_owned()),
            closed: self.closed(flow, waiting),
            waiting,
            runs: [count(Event::Request), count(Event::Response)],
            server_received: session.map(lab::Session::received).unwrap_or_default(),
            client_received: view.map_or_else(Vec::new, |client| match flow.protocol {
                Protocol::Tcp => client.received().to_vec(),
                Protocol::Udp => client.datagrams().concat(),
            }),
        }
    }

    fn runs(&self, flow: &Flow) -> impl Iterator<Item = &Run> {
        let key = FlowKey::new(flow.protocol, flow.address, flow.vip);
        self.lab.runs().iter().filter(move |run| run.facts.key == key)
    }

    fn closed(&self, flow: &Flow, waiting: bool) -> Option<&'static str> {
        let client = self.lab.client_view(flow.id)?;
        match client.tcp() {
            Some(tcp) if tcp.phase() == TcpPhase::Reset => Some("reset"),
            Some(tcp) if tcp.peer_finished() => Some("fin"),
            Some(_) => None,
            None => {
                let sent = self.runs(flow).next().is_some();
                (sent && flow.last.is_none() && !waiting).then_some("dropped")
            }
        }
    }

    /// What all flows came to, and what the tables hold. The last call: weir is shut down for it.
    pub fn end(mut self) -> (Vec<Facts>, Vec<Entry>) {
        let mut flows: Vec<Facts> = self.flows.iter().map(|flow| self.facts_of(flow)).collect();
        let mut tables: Vec<Entry> =
            self.lab.tables(None).into_iter().map(|entry| self.entry(entry)).collect();
        tables.sort();
        self.lab.shut_down();
        for (flow, facts) in self.flows.iter().zip(&mut flows) {
            let key = (flow.address, flow.vip, flow.protocol);
            let records = self.lab.records().iter();
            let mut ours = records.filter(|record| (record.client, record.vip, record.protocol) == key);
            facts.significant = ours.any(|record| record.significant);
        }
        (flows, tables)
    }

    fn entry(&self, entry: dataplane::channel::TableEntryView) -> Entry {
        let service = self.lab.snapshot().services.get(entry.service.index());
        let service = service.map(|service| service.name.clone()).unwrap_or_default();
        Entry { service, table: entry.table, key: entry.key, value: entry.value }
    }

    /// Lines of scripts and modules that were executed, if the blueprint has them traced.
    #[must_use]
    pub fn lines(&self) -> BTreeSet<(String, u32)> {
        let traces = self.lab.runs().iter().filter_map(|run| run.trace.as_deref());
        let lines = traces.flat_map(|trace| {
            trace.steps().iter().filter_map(|step| match step {
                ScriptStep::Line(place) => Some((trace.source(*place).to_owned(), place.line)),
                _ => None,
            })
        });
        lines.collect()
    }
}

/// The pool that a script chose for a flow that has no server.
fn selected_pool(runs: &[&Run]) -> Option<PoolId> {
    let run = runs.iter().rev().find(|run| run.event == Event::Request)?;
    match run.selection {
        Some(Selection::Pool(pool)) if run.close.is_none() => Some(pool),
        _ => None,
    }
}
