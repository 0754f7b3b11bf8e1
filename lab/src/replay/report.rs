//! What a replay found, for JSON and for comparing; `text.rs` writes it for people.

use std::collections::HashMap;

use std::net::SocketAddr;

use dataplane::channel::{ConnectionRecord, EndedBy, Termination};
use dataplane::policy::{Close, Event, ScriptFailure};
use dataplane::script_trace::{ScriptStep, ScriptTrace};
use dataplane::snapshot::Protocol;
use serde::Serialize;
use smoltcp::time::Instant;

use super::capture::Capture;
use super::flow::Flow;
use super::player::Player;
use super::sources::Sources;
use crate::explain::{By, Choice};
use crate::observed::{Run, RunState};

/// Everything about a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Packets of the capture.
    pub packets: usize,
    /// Packets of clients that were played.
    pub played: u64,
    /// Others, by why they were not.
    pub ignored: std::collections::BTreeMap<&'static str, u64>,
    /// What there is to say about the whole.
    pub notes: Vec<String>,
    /// Flows in the order of their first packets.
    pub flows: Vec<FlowReport>,
}

/// What happened to a flow.
#[derive(Clone, Debug, Serialize)]
pub struct FlowReport {
    /// From 1 on.
    pub number: usize,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Client address and port.
    pub client: String,
    /// The VIP of the configuration.
    pub vip: String,
    /// The virtual service.
    pub service: String,
    /// First and last packet of the client's in the capture.
    pub numbers: (usize, usize),
    /// Packets of the client's.
    pub packets: u64,
    /// Seconds since the first packet of the capture.
    pub began: f64,
    /// Something that the client or the server said is not in the capture.
    pub incomplete: bool,
    /// What is missing, and what else there is to say.
    pub notes: Vec<String>,
    /// What the scripts did.
    pub scripts: Vec<ScriptReport>,
    /// Where the flow was sent and why.
    pub choice: Option<Choice>,
    /// The servers that the flow had, in order: `address:port of 'pool'`.
    pub servers: Vec<String>,
    /// weir's own addresses towards them.
    pub snat: Vec<String>,
    /// Payload that the servers got, and that the client got, in bytes, as weir counts it.
    pub to_server: u64,
    /// See `to_server`.
    pub to_client: u64,
    /// How it ended: the two letters of the connection log, or `open`.
    pub end: String,
    /// What they mean.
    pub meaning: String,
    /// Why it was refused, if it was.
    pub reason: Option<&'static str>,
    /// What scripts logged.
    pub log: Option<String>,
    /// Message and traceback of a failed script.
    pub error: Option<String>,
    /// Seconds from its first packet to its end.
    pub seconds: Option<f64>,
}

/// One run of the scripts of an event.
#[derive(Clone, Debug, Serialize)]
pub struct ScriptReport {
    /// `request` or `response`.
    pub event: &'static str,
    /// The scripts, by the names of their sources.
    pub scripts: Vec<String>,
    /// `done`, `waiting`, `cancelled`, or why it failed.
    pub result: &'static str,
    /// For which numbers of bytes it had to wait.
    pub waits: Vec<usize>,
    /// Instructions of the virtual machine.
    pub instructions: u64,
    /// Time in Lua in nanoseconds, without a trace; 0 if it was not measured.
    pub nanoseconds: u64,
    /// How the flow is to be closed.
    pub close: Option<&'static str>,
    /// What it did, step by step.
    pub steps: Vec<Step>,
    /// Steps that were too many.
    pub missed: u64,
}

/// A step of a script, with its line if it has one.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Step {
    /// `begin`, `line`, `call`, `wait`, `resume` or `end`.
    pub kind: &'static str,
    /// `source:line`.
    pub place: Option<String>,
    /// What.
    pub text: String,
}

/// The protocol's name.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

impl Report {
    /// Leaves out what scripts did step by step.
    pub fn drop_steps(&mut self) {
        self.flows.iter_mut().flat_map(|flow| &mut flow.scripts).for_each(|run| run.steps.clear());
    }

    /// Takes the times of scripts from another replay of the same.
    pub(super) fn take_times(&mut self, timed: &Report) {
        for (flow, other) in self.flows.iter_mut().zip(&timed.flows) {
            for (run, other) in flow.scripts.iter_mut().zip(&other.scripts) {
                run.nanoseconds = other.nanoseconds;
            }
        }
    }
}

impl Player<'_> {
    pub(super) fn report(mut self, capture: &Capture) -> Report {
        self.note_directions();
        let records = self.records();
        let flows = self.flows.iter().zip(&records).enumerate();
        let flows: Vec<FlowReport> =
            flows.map(|(index, (flow, records))| self.flow_report(index, flow, records)).collect();
        drop(records);
        Report {
            packets: capture.packets.len(),
            played: self.played,
            ignored: self.ignored,
            notes: self.notes,
            flows,
        }
    }

    fn note_directions(&mut self) {
        if self.flows.iter().all(|flow| flow.server.packets == 0) {
            self.notes.push(
                "the capture has the clients' packets only: the simulated servers take everything and say nothing"
                    .to_owned(),
            );
        }
        if self.lab.restless() {
            self.notes.push("weir and a client or server answered each other without end".to_owned());
        }
    }

    /// The records of each flow: those of its addresses between its beginning and that of the next one.
    fn records(&self) -> Vec<Vec<&ConnectionRecord>> {
        let mut by_ends: HashMap<_, Vec<&ConnectionRecord>> = HashMap::new();
        for record in self.lab.records() {
            let ends = (record.protocol, record.peer.unwrap_or(record.client), record.vip);
            by_ends.entry(ends).or_default().push(record);
        }
        // From the last flow on: what is left of the records of its addresses began with it or before it.
        let mut records: Vec<_> = self
            .flows
            .iter()
            .rev()
            .map(|flow| {
                let Some(left) = by_ends.get_mut(&flow.key) else { return Vec::new() };
                let (its, before) = left.drain(..).partition(|record| record.started >= flow.began);
                *left = before;
                its
            })
            .collect();
        records.reverse();
        records
    }

    fn flow_report(&self, index: usize, flow: &Flow, records: &[&ConnectionRecord]) -> FlowReport {
        let (protocol, client, vip) = flow.key;
        let last = records.last().copied();
        let runs: Vec<&Run> = flow.runs.iter().filter_map(|run| self.lab.runs().get(*run)).collect();
        let snapshot = self.lab.snapshot();
        let sums = records.iter().fold((0, 0), |sums, record| {
            (sums.0 + record.from_client.bytes, sums.1 + record.from_server.bytes)
        });
        let (end, meaning) = end(last);
        FlowReport {
            number: index + 1,
            protocol: name(protocol),
            client: client.to_string(),
            vip: vip.to_string(),
            service: snapshot.services.get(flow.service.index()).map(|s| s.name.clone()).unwrap_or_default(),
            numbers: (flow.first, flow.last),
            packets: flow.packets,
            began: seconds(flow.began, Instant::from_secs(1000)),
            incomplete: flow.incomplete || !flow.client.gaps().is_empty(),
            notes: notes(flow),
            scripts: runs.iter().map(|run| script(run, &self.sources)).collect(),
            choice: choice(flow, &runs, last),
            servers: self.servers(records, flow),
            snat: records.iter().filter_map(|record| record.snat).map(|snat| snat.to_string()).collect(),
            to_server: sums.0,
            to_client: sums.1,
            end,
            meaning,
            reason: last.and_then(|record| record.reason).map(dataplane::counters::DropReason::label),
            log: text(records.iter().filter_map(|record| record.ds_log.as_deref())),
            error: last.and_then(|record| record.error.as_deref()).map(str::to_owned),
            seconds: last.map(|record| seconds(record.ended, record.started)),
        }
    }

    fn servers(&self, records: &[&ConnectionRecord], flow: &Flow) -> Vec<String> {
        let snapshot = self.lab.snapshot();
        let (protocol, client, vip) = flow.key;
        let of_sessions = self.lab.sessions().iter().filter(|session| {
            let ends = (session.protocol, session.client, session.vip);
            ends == (protocol, Some(client), Some(vip)) && session.began >= flow.began
        });
        let of_sessions = of_sessions.filter_map(|session| Some((session.server?, session.address)));
        let of_records = records.iter().filter_map(|record| Some((record.server?, record.server_address?)));
        let all: Vec<(dataplane::snapshot::ServerId, SocketAddr)> = match flow.key.0 {
            Protocol::Udp => of_sessions.collect(),
            Protocol::Tcp => of_records.collect(),
        };
        let named = all.into_iter().map(|(server, address)| {
            let pool = snapshot.servers.get(server.index()).and_then(|s| snapshot.pools.get(s.pool.index()));
            format!("{address} of '{}'", pool.map(|pool| pool.name.as_str()).unwrap_or_default())
        });
        named.collect()
    }
}

fn seconds(at: Instant, since: Instant) -> f64 {
    (at.total_micros() - since.total_micros()) as f64 / 1e6
}

fn end(record: Option<&ConnectionRecord>) -> (String, String) {
    let Some(record) = record else {
        return ("none".to_owned(), "the handshake was not completed, or nothing came".to_owned());
    };
    if record.termination.by == EndedBy::Shutdown {
        return ("open".to_owned(), "still open at the end of the capture".to_owned());
    }
    let termination = record.termination;
    if termination == Termination::NORMAL {
        return (termination.to_string(), "a normal end".to_owned());
    }
    let [by, phase] = [termination.by.description(), termination.phase.description()]
        .map(|text| text.trim_end_matches('.').to_owned());
    (termination.to_string(), format!("ended by {}; during: {}", lowered(&by), lowered(&phase)))
}

/// A sentence as a part of one; names that are in lower case anyway stay.
fn lowered(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_lowercase().chain(characters).collect())
}

fn notes(flow: &Flow) -> Vec<String> {
    let mut notes = flow.notes.clone();
    for (first, past) in flow.client.gaps() {
        notes.push(format!("bytes {first} to {past} of what the client said are not in the capture"));
    }
    if flow.client.again > 0 {
        notes.push(format!(
            "{} segments had to be sent again at the end, as weir had not taken them in",
            flow.client.again
        ));
    }
    notes
}

/// The scripts' last choice, or the service's default; nothing where no server was to be chosen.
fn choice(flow: &Flow, runs: &[&Run], record: Option<&ConnectionRecord>) -> Option<Choice> {
    let requests = runs.iter().filter(|run| run.event == Event::Request);
    let mut choices = requests.filter_map(|run| run.choice.clone());
    // Later runs of the same flow (`every_payload`) come after the server was chosen.
    let first = match flow.key.0 {
        Protocol::Tcp => choices.next(),
        Protocol::Udp => choices.next_back(),
    };
    let wanted = |choice: &Choice| choice.by == By::Default;
    first
        .or_else(|| flow.choice.clone().filter(wanted).filter(|_| record.is_some_and(|r| r.server.is_some())))
}

fn text<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let all: Vec<u8> = parts.flatten().copied().collect();
    (!all.is_empty()).then(|| all.escape_ascii().to_string())
}

fn script(run: &Run, sources: &Sources) -> ScriptReport {
    let empty = ScriptTrace::new(0, dataplane::script_trace::Detail::Calls);
    let trace = run.trace.as_deref().unwrap_or(&empty);
    let steps = trace.steps();
    let scripts = steps.iter().filter_map(|step| match step {
        ScriptStep::Begin { script, .. } => Some(script.clone()),
        _ => None,
    });
    let waits = steps.iter().filter_map(|step| match step {
        ScriptStep::Wait { need } => Some(*need),
        _ => None,
    });
    let instructions = steps.iter().filter_map(|step| match step {
        ScriptStep::End { instructions, .. } => *instructions,
        _ => None,
    });
    ScriptReport {
        event: event(run.event),
        scripts: scripts.collect(),
        result: result(run.state),
        waits: waits.collect(),
        instructions: instructions.sum(),
        nanoseconds: run.nanoseconds,
        close: run.close.map(|close| match close {
            Close::Graceful => "fin",
            Close::Reset => "reset",
        }),
        steps: all_shown(trace, sources),
        missed: trace.missed(),
    }
}

fn event(event: Event) -> &'static str {
    match event {
        Event::Request => "request",
        Event::Response => "response",
    }
}

fn result(state: RunState) -> &'static str {
    match state {
        RunState::Done => "done",
        RunState::Waiting { .. } => "waiting",
        RunState::Cancelled => "cancelled",
        RunState::Failed(ScriptFailure::Error) => "error",
        RunState::Failed(ScriptFailure::Budget) => "budget",
        RunState::Failed(ScriptFailure::Memory) => "memory",
        RunState::Failed(ScriptFailure::TooManySuspended) => "too many waiting",
        RunState::Failed(ScriptFailure::Quarantined) => "quarantined",
    }
}

/// All steps, a line that goes on only once.
fn all_shown(trace: &ScriptTrace, sources: &Sources) -> Vec<Step> {
    let mut shown_steps: Vec<Step> = Vec::new();
    for step in trace.steps() {
        let step = shown(trace, step, sources);
        if step.kind != "line" || shown_steps.last() != Some(&step) {
            shown_steps.push(step);
        }
    }
    shown_steps
}

fn shown(trace: &ScriptTrace, step: &ScriptStep, sources: &Sources) -> Step {
    let at = |place: &dataplane::script_trace::Place| format!("{}:{}", trace.source(*place), place.line);
    let (kind, place, text) = match step {
        ScriptStep::Begin { script, event: of } => ("begin", None, format!("{script} ({})", event(*of))),
        ScriptStep::Line(place) => {
            ("line", Some(at(place)), sources.line(trace.source(*place), place.line).to_owned())
        }
        ScriptStep::Call { place, function, arguments, results } => {
            ("call", place.as_ref().map(at), call(function, arguments, results))
        }
        ScriptStep::Wait { need } => ("wait", None, format!("waits for {need} bytes")),
        ScriptStep::Resume { buffered } => ("resume", None, format!("goes on with {buffered} bytes")),
        ScriptStep::End { failure, instructions, .. } => {
            let how = failure.map_or("ends", |failure| result(RunState::Failed(failure)));
            let count = instructions.map(|count| format!(" after {count} instructions"));
            ("end", None, format!("{how}{}", count.unwrap_or_default()))
        }
    };
    Step { kind, place, text }
}

fn call(
    function: &str,
    arguments: &[dataplane::script_trace::TraceValue],
    results: &Result<Vec<dataplane::script_trace::TraceValue>, String>,
) -> String {
    let list = |values: &[dataplane::script_trace::TraceValue]| {
        values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let call = format!("{function}({})", list(arguments));
    match results {
        Ok(results) if results.is_empty() => call,
        Ok(results) => format!("{call} -> {}", list(results)),
        // It may quote what a client has sent.
        Err(error) => format!("{call} fails: {}", error.replace(|c: char| c.is_control(), "?")),
    }
}
