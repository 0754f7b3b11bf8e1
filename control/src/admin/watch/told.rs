//! What a worker tells of a flow, in words and as the fields of a JSON object.

use std::net::SocketAddr;
use std::time::SystemTime;

use dataplane::address::FlowKey;
use dataplane::channel::{ConnectionRecord, FlowState};
use dataplane::counters::DropReason;
use dataplane::flow::Direction;
use dataplane::io::PortId;
use dataplane::pipeline::Verdict;
use dataplane::policy::{Close, Selection};
use dataplane::snapshot::{PoolId, ServerId, ServiceId, Snapshot};
use dataplane::trace::{Left, ScriptEnd, Shape, What, Why};
use serde_json::{Map, Value, json};

use crate::admin::view::{algorithm, state};
use crate::log::connection_line;
use crate::script_steps;

/// One event.
pub(super) struct Told {
    pub(super) event: &'static str,
    pub(super) fields: Map<String, Value>,
    /// In one line.
    pub(super) text: String,
    /// How far that line is indented: stages within a packet.
    depth: usize,
    /// Further lines.
    more: Vec<String>,
}

impl Told {
    fn new(event: &'static str, depth: usize, text: String, fields: Value) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Told { event, fields, text, depth, more: Vec::new() }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// For people.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let first = format!("{}{}", "  ".repeat(self.depth), self.text);
        let more = self.more.iter().map(|line| format!("{}{line}", "  ".repeat(self.depth + 1)));
        std::iter::once(first).chain(more)
    }
}

/// An event that happened at `time`.
pub(super) fn told(snapshot: &Snapshot, what: &What, time: SystemTime) -> Told {
    match what {
        What::Begin { key, open } => begin(key, *open),
        What::Received { port, direction, shape, frame } => {
            received(snapshot, *port, *direction, shape, frame.as_deref())
        }
        What::Found(found) => {
            let name = state(*found);
            Told::new("found", 1, found_text(*found, name), json!({ "state": name }))
        }
        What::New(id) => {
            let name = service(snapshot, *id);
            Told::new("new", 1, format!("new flow of service {name}"), json!({ "service": name }))
        }
        What::Binding { event, client_bytes, server_bytes } => {
            let text = binding(*event, *client_bytes, *server_bytes);
            let fields = json!({ "client_bytes": client_bytes, "server_bytes": server_bytes });
            Told::new("binding", 1, text, fields)
        }
        What::Script { event, resumed, end, error, trace } => {
            let mut told = script(*end, script_steps::event_name(*event));
            told.fields.insert("resumed".to_owned(), (*resumed).into());
            told.fields.insert("error".to_owned(), error.as_deref().into());
            told.fields.insert("steps".to_owned(), script_steps::json(trace));
            told.fields.insert("missed_steps".to_owned(), trace.missed().into());
            told.more = script_steps::text(trace);
            told.more.extend(error.iter().flat_map(|error| error.lines()).map(|line| format!("  {line}")));
            told
        }
        What::Chosen { selection, why, server } => chosen(snapshot, *selection, *why, *server),
        What::Attached { server, to, from } => attached(snapshot, *server, *to, *from),
        What::Refused(reason) => {
            let text = format!("does not get the server: {}", reason_text(*reason));
            Told::new("refused", 1, text, reason_fields(*reason))
        }
        What::Bound => {
            let text = "bound: packets are translated from here on".to_owned();
            Told::new("bound", 1, text, json!({}))
        }
        What::Verdict { verdict, left } => verdict_told(snapshot, *verdict, left.as_ref()),
        What::Sent(left) => {
            let wait = if left.resolved { "" } else { ", once its next hop is known" };
            let text =
                format!("sent by {}: {}{wait}", interface(snapshot, left.port), shape_text(&left.shape));
            left_told(snapshot, "sent", 0, text, left)
        }
        What::Unsent { port, reason } => {
            let text = format!("not taken by {}: {}", interface(snapshot, *port), reason_text(*reason));
            Told::new("unsent", 0, text, reason_fields(*reason)).with("interface", interface(snapshot, *port))
        }
        What::End(record) => end(snapshot, record, time),
    }
}

fn begin(key: &FlowKey, open: bool) -> Told {
    let protocol = protocol(key.protocol);
    let (client, vip) = (key.source_socket(), key.destination_socket());
    let open_text = if open { ", open already" } else { "" };
    let text = format!("{protocol} {client} > {vip}{open_text}");
    Told::new("begin", 0, text, json!({ "protocol": protocol, "client": client, "vip": vip, "open": open }))
}

fn received(
    snapshot: &Snapshot,
    port: PortId,
    direction: Option<Direction>,
    shape: &Shape,
    frame: Option<&[u8]>,
) -> Told {
    let from = direction.map(|direction| match direction {
        Direction::FromClient => "client",
        Direction::FromServer => "server",
    });
    let name = interface(snapshot, port);
    let text = format!("received on {name}: {}", shape_text(shape));
    Told::new("received", 0, text, shape_fields(shape, frame)).with("interface", name).with("from", from)
}

fn found_text(found: FlowState, name: &str) -> String {
    match found {
        FlowState::Established => "flow found: established".to_owned(),
        _ => format!("flow found: {name}"),
    }
}

fn binding(event: tcp::Event, client: usize, server: usize) -> String {
    use tcp::{ConnectFailure, End, Event, Side};
    let text = match event {
        Event::Consumed => "taken in",
        Event::Rejected => "not acceptable to its connection",
        Event::Established => "the client's handshake is complete",
        Event::Data(Side::Client) => {
            return format!("{client} bytes of the client can be read");
        }
        Event::Data(Side::Server) => {
            return format!("{server} bytes of the server can be read");
        }
        Event::Forward => "to be translated and sent on",
        Event::ConnectFailed(ConnectFailure::Refused) => "the server has refused the connection",
        Event::ConnectFailed(ConnectFailure::Silent) => "the server has not answered in time",
        Event::Spliced => "the server has all that the client had sent",
        Event::Ended(End::HandshakeTimeout) => "the client has not completed its handshake in time",
        Event::Ended(End::FirstPayloadTimeout) => "no decision in the time for the first payload",
        Event::Ended(End::ClientReset) => "the client has reset the connection",
        Event::Ended(End::ClientClosed) => "the client has closed without a byte",
        Event::Ended(End::ServerReset) => "the server has reset the connection",
        Event::Ended(End::ReplayTimeout) => "the server has not acknowledged the client's bytes in time",
        Event::Ended(End::Closed) => "weir has closed the connection",
    };
    text.to_owned()
}

fn script(end: ScriptEnd, on: &str) -> Told {
    let (name, need, failure, text) = match end {
        ScriptEnd::Done => ("done", None, None, format!("{on} scripts have run")),
        ScriptEnd::Waiting(need) => {
            ("waiting", Some(need), None, format!("{on} script waits for {need} bytes in all"))
        }
        ScriptEnd::Failed(failure) => {
            let failure = script_steps::failure_name(failure);
            ("failed", None, Some(failure), format!("{on} script has failed: {failure}"))
        }
    };
    let fields = json!({ "on": on, "end": name, "need": need, "failure": failure });
    Told::new("script", 1, text, fields)
}

fn chosen(snapshot: &Snapshot, selection: Selection, why: Why, server: Result<ServerId, Close>) -> Told {
    let (by, cause) = match why {
        Why::Default => ("default", "by default".to_owned()),
        Why::Script => ("script", "a script chose".to_owned()),
        Why::Persistence => ("persistence", "persistence leads to".to_owned()),
        Why::Retry(tried) => ("retry", format!("after {tried} servers that could not be reached:")),
    };
    let (pool, group) = match selection {
        Selection::Pool(pool) => (Some(pool), None),
        Selection::PoolGroup(group) => (None, snapshot.pool_groups.get(group.index())),
        Selection::Server(server) => (snapshot.servers.get(server.index()).map(|s| s.pool), None),
    };
    let target = match (group, selection) {
        (Some(group), _) => format!("pool group {}", group.name),
        (None, Selection::Server(server)) => format!("server {}", server_text(snapshot, server)),
        (None, _) => format!("pool {}", pool_name(snapshot, pool)),
    };
    let found = server.ok().and_then(|id| snapshot.servers.get(id.index()).map(|server| server.pool));
    let result = match server {
        Ok(id) => {
            let how = found.and_then(|pool| snapshot.pools.get(pool.index()));
            let how = how.map_or("", |pool| algorithm(pool.algorithm));
            let how = if matches!(selection, Selection::Server(_)) { "as named" } else { how };
            let elsewhere = match pool {
                Some(pool) if found != Some(pool) => "its fail_action leads to ",
                _ => "",
            };
            format!("{elsewhere}{} of pool {} ({how})", server_text(snapshot, id), pool_name(snapshot, found))
        }
        Err(Close::Reset) => "no server can take it: reset".to_owned(),
        Err(Close::Graceful) => "no server can take it: closed".to_owned(),
    };
    let fields = json!({
        "by": by,
        "chosen_pool": pool.map(|pool| pool_name(snapshot, Some(pool))),
        "chosen_group": group.map(|group| group.name.as_str()),
        "pool": found.map(|pool| pool_name(snapshot, Some(pool))),
        "server": server.ok().map(|id| server_text(snapshot, id)),
    });
    Told::new("chosen", 1, format!("{cause} {target}: {result}"), fields)
}

fn attached(snapshot: &Snapshot, server: ServerId, to: SocketAddr, from: SocketAddr) -> Told {
    let fields = json!({ "server": server_text(snapshot, server), "to": to, "snat": from });
    Told::new("attached", 1, format!("packets to the server go from {from} to {to}"), fields)
}

fn verdict_told(snapshot: &Snapshot, verdict: Verdict, left: Option<&Left>) -> Told {
    let (name, text) = match verdict {
        Verdict::Forward(port) => ("forwarded", leaves(snapshot, "forwarded", port, left)),
        Verdict::ForwardWhenResolved(port, _) => {
            let text = leaves(snapshot, "to be forwarded when its next hop is known", port, left);
            ("forwarded", text)
        }
        Verdict::Reply(port) => ("answered", leaves(snapshot, "answered", port, left)),
        Verdict::HandOver(worker) => ("handed_over", format!("handed over to worker {worker}")),
        Verdict::Consumed => ("consumed", "consumed".to_owned()),
        Verdict::Drop(reason) => ("dropped", format!("DROPPED: {}", reason_text(reason))),
    };
    let told = match left {
        Some(left) => left_told(snapshot, "verdict", 1, text, left),
        None => Told::new("verdict", 1, text, json!({})),
    };
    let told = told.with("verdict", name);
    match verdict {
        Verdict::Drop(reason) => told.with("reason", reason.label()).with("meaning", reason.description()),
        _ => told,
    }
}

fn leaves(snapshot: &Snapshot, how: &str, port: PortId, left: Option<&Left>) -> String {
    let packet = left.map(|left| format!(" as {}", shape_text(&left.shape))).unwrap_or_default();
    format!("{how} by {}{packet}", interface(snapshot, port))
}

fn end(snapshot: &Snapshot, record: &ConnectionRecord, time: SystemTime) -> Told {
    let line = connection_line(snapshot, record, time);
    let mut fields: Map<String, Value> = serde_json::from_str(&line).unwrap_or_default();
    let started = fields.remove("time");
    let reason = record.reason.map(|reason| format!(", {}", reason_text(reason))).unwrap_or_default();
    let text = format!(
        "flow ends: {} ({}){reason}; {} packets with {} bytes in, {} with {} out",
        record.termination,
        record.termination.by.description().trim_end_matches('.'),
        record.from_client.packets,
        record.from_client.bytes,
        record.from_server.packets,
        record.from_server.bytes,
    );
    let mut told = Told::new("end", 0, text, Value::Object(fields)).with("started", started);
    let log = told.fields.get("ds_log").and_then(Value::as_str);
    told.more = log.map(|log| format!("log: {log}")).into_iter().collect();
    told
}

fn reason_text(reason: DropReason) -> String {
    format!("{} ({})", reason.label(), reason.description())
}

fn reason_fields(reason: DropReason) -> Value {
    json!({ "reason": reason.label(), "meaning": reason.description() })
}

/// An event with a packet that leaves.
fn left_told(snapshot: &Snapshot, event: &'static str, depth: usize, text: String, left: &Left) -> Told {
    Told::new(event, depth, text, shape_fields(&left.shape, left.frame.as_deref()))
        .with("interface", interface(snapshot, left.port))
        .with("resolved", left.resolved)
}

/// `192.0.2.7:4000 > 192.0.2.10:443 [SA] seq 1 ack 2 win 3, 0 bytes`.
fn shape_text(shape: &Shape) -> String {
    let Shape { key, payload, .. } = shape;
    let segment = shape.segment.map_or(String::new(), |segment| {
        format!(" [{}] seq {} ack {} win {},", flags(segment.flags), segment.seq, segment.ack, segment.window)
    });
    let (source, destination) = (key.source_socket(), key.destination_socket());
    format!("{} {source} > {destination}{segment} {payload} bytes", protocol(key.protocol))
}

fn shape_fields(shape: &Shape, frame: Option<&[u8]>) -> Value {
    json!({
        "protocol": protocol(shape.key.protocol),
        "source": shape.key.source_socket(),
        "destination": shape.key.destination_socket(),
        "length": shape.frame,
        "payload": shape.payload,
        "flags": shape.segment.map(|segment| flags(segment.flags)),
        "seq": shape.segment.map(|segment| segment.seq),
        "ack": shape.segment.map(|segment| segment.ack),
        "window": shape.segment.map(|segment| segment.window),
        "frame": frame.map(hex),
    })
}

/// A letter for each flag: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
fn flags(flags: u8) -> String {
    let letters = "FSRPAUEC".chars().zip(0..8).filter(|(_, bit)| flags & 1 << bit != 0);
    letters.map(|(letter, _)| letter).collect()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn protocol(number: u8) -> String {
    match number {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn interface(snapshot: &Snapshot, port: PortId) -> &str {
    snapshot.interfaces.get(port.index()).map_or("?", |interface| &interface.name)
}

fn service(snapshot: &Snapshot, id: ServiceId) -> &str {
    snapshot.services.get(id.index()).map_or("?", |service| &service.name)
}

fn pool_name(snapshot: &Snapshot, pool: Option<PoolId>) -> &str {
    pool.and_then(|pool| snapshot.pools.get(pool.index())).map_or("?", |pool| &pool.name)
}

fn server_text(snapshot: &Snapshot, id: ServerId) -> String {
    snapshot.server_address(id).map_or_else(|| "?".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests;
