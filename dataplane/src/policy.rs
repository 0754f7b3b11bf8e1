//! What decides a flow: [`Policy`]. `scripting` implements it with Lua; tests implement it in a few lines.
//!
//! A run goes: [`Policy::start`] → [`Outcome::Done`], [`Outcome::Failed`], or [`Outcome::Suspended`] until as many
//! bytes are buffered as the script asked for, then [`Policy::resume`] with the same [`RunId`], or
//! [`Policy::cancel`] when the flow ends first. All that a run reads and decides goes through its [`Context`]; the
//! decision is in [`Record`] when the run is over.

use std::net::SocketAddr;
use std::sync::Arc;

use smoltcp::time::Instant;

use crate::address::FlowKey;
use crate::balance::Balancer;
use crate::script_profile::ScriptProfile;
use crate::script_trace::ScriptTrace;
use crate::snapshot::{PoolGroupId, PoolId, ScriptSetId, ServerId, ServiceId, Snapshot};
use crate::table::TableStore;

/// Which script of the sets runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `VS_DATASCRIPT_EVT_L4_REQUEST`: client payload, before a server is chosen.
    Request,
    /// `VS_DATASCRIPT_EVT_L4_RESPONSE`: server payload.
    Response,
}

/// A suspended run, unique while it is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u32);

/// How a run left the script.
#[derive(Debug)]
pub enum Outcome {
    /// All sets ran to their end.
    Done,
    /// The script waits in `collect` for `need` bytes in all on the event's side.
    Suspended {
        /// Give this to [`Policy::resume`] or [`Policy::cancel`].
        run: RunId,
        /// Total number of bytes wanted.
        need: usize,
    },
    /// The run was ended by an error; the text (message and traceback) is in [`Record::error`].
    Failed(ScriptFailure),
}

/// Why a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptFailure {
    /// A Lua error.
    Error,
    /// The time budget ran out.
    Budget,
    /// The memory limit was reached.
    Memory,
    /// Too many runs are suspended on this worker.
    TooManySuspended,
    /// The script is quarantined after repeated overruns and was not run.
    Quarantined,
}

/// What a flow's script chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// This pool, by its algorithm.
    Pool(PoolId),
    /// This group.
    PoolGroup(PoolGroupId),
    /// Exactly this server.
    Server(ServerId),
}

impl From<crate::snapshot::Target> for Selection {
    fn from(target: crate::snapshot::Target) -> Self {
        match target {
            crate::snapshot::Target::Pool(pool) => Selection::Pool(pool),
            crate::snapshot::Target::PoolGroup(group) => Selection::PoolGroup(group),
        }
    }
}

/// How a flow is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// FIN after what was acknowledged.
    Graceful,
    /// RST.
    Reset,
}

/// A value in `avi.vs.reqvar`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A Lua boolean.
    Boolean(bool),
    /// A Lua number.
    Number(f64),
    /// A Lua string: any bytes.
    String(Vec<u8>),
}

/// A persistence entry that must record the server finally used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Key in the default table.
    pub key: Vec<u8>,
    /// Lifetime in seconds.
    pub lifetime: u32,
    /// The server that `persist` chose or found, if it did. While it is the [`Record::selection`] the script has not
    /// pinned it: others may be tried when it does not answer ([`crate::api::retry_target`]).
    pub server: Option<ServerId>,
}

/// What the runs of one flow have decided and said so far; lives as long as the flow.
#[derive(Debug, Default)]
pub struct Record {
    /// The last successful `select`, or the server that `persist` found.
    pub selection: Option<Selection>,
    /// Set by `close_conn`; never unset.
    pub close: Option<Close>,
    /// Entry to write when the server is known.
    pub persist: Option<Persist>,
    /// `ds_done` in the request event: no further run of that event.
    pub request_done: bool,
    /// `ds_done` in the response event.
    pub response_done: bool,
    /// `ds_log`, unescaped, at most [`Record::LOG_BYTES`] long.
    pub log: Vec<u8>,
    /// `ds_log` was cut.
    pub log_cut: bool,
    /// `avi.SIG_ENABLE` was given.
    pub significant: bool,
    /// Message and traceback of a failed run.
    pub error: Option<String>,
    /// `avi.vs.reqvar`.
    pub variables: Vec<(String, Value)>,
    /// What the scripts do, where somebody wants to see it.
    pub trace: Option<Box<ScriptTrace>>,
}

impl Record {
    /// Longest `ds_log` of a flow, in bytes.
    pub const LOG_BYTES: usize = 4096;
    /// Longest text of one `log` call, in bytes.
    pub const LOG_CALL_BYTES: usize = 256;
    /// Bytes of all `reqvar` names and string values of a flow.
    pub const VARIABLE_BYTES: usize = 16384;

    /// True if nothing of it is to be reported when the flow ends.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.log.is_empty() & !self.log_cut & !self.significant & self.error.is_none()
    }

    /// Back to the empty state, in place; keeps allocations.
    pub fn clear(&mut self) {
        let Record {
            selection,
            close,
            persist,
            request_done,
            response_done,
            log,
            log_cut,
            significant,
            error,
            variables,
            trace,
        } = self;
        log.clear();
        variables.clear();
        (*selection, *close, *persist, *error, *trace) = (None, None, None, None, None);
        (*request_done, *response_done, *log_cut, *significant) = (false, false, false, false);
    }

    /// Appends to `ds_log`, as far as there is room.
    pub fn append_log(&mut self, text: &[u8]) {
        let room = Self::LOG_BYTES.saturating_sub(self.log.len());
        self.log.extend_from_slice(text.get(..room).unwrap_or(text));
        self.log_cut |= text.len() > room;
    }

    /// Takes over what the run of another datagram of the same flow has said: its log, its error, its trace.
    pub fn absorb(&mut self, other: &mut Record) {
        self.append_log(&other.log);
        self.log_cut |= other.log_cut;
        self.significant |= other.significant;
        self.error = other.error.take().or(self.error.take());
        match (&mut self.trace, other.trace.take()) {
            (Some(trace), Some(more)) => trace.append(*more),
            (trace, more) => *trace = trace.take().or(more),
        }
    }
}

/// Who talks to whom; does not change during a flow, but for `server`.
#[derive(Clone, Copy, Debug)]
pub struct FlowFacts {
    /// The virtual service.
    pub service: ServiceId,
    /// The key of packets of the client, as they arrive; with the client that a PROXY header names, where there was one. Its
    /// family may be another one than that of the packets, which the VIP has.
    pub key: FlowKey,
    /// The flow's server, once chosen.
    pub server: Option<ServerId>,
}

impl FlowFacts {
    /// Client address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.key.source_socket()
    }

    /// VIP and the VS port that the client used.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        self.key.destination_socket()
    }

    /// It is somebody else who is served.
    pub fn name_client(&mut self, client: SocketAddr) {
        (self.key.source, self.key.source_port) = (client.ip().into(), client.port());
    }
}

/// Everything a run may read and change. Built by the pipeline for each `start` and `resume`.
pub struct Context<'a> {
    /// The time of the burst.
    pub now: Instant,
    /// The event that runs.
    pub event: Event,
    /// The configuration of the flow.
    pub snapshot: &'a Snapshot,
    /// Who talks to whom.
    pub facts: FlowFacts,
    /// Client bytes buffered now.
    pub client_payload: &'a [u8],
    /// Server bytes buffered now.
    pub server_payload: &'a [u8],
    /// `false` where waiting for more bytes is impossible (fast path, or a bound flow under `every_payload`).
    pub can_wait: bool,
    /// Server states and choice.
    pub balancer: &'a mut Balancer,
    /// The tables.
    pub tables: &'a mut TableStore,
    /// The decision so far.
    pub record: &'a mut Record,
}

/// Decides flows. One per worker; called between rx and tx of the burst that carries the payload.
pub trait Policy {
    /// True if a script of `service` is attached to `event`.
    fn handles(&self, service: ServiceId, event: Event) -> bool;
    /// Runs the sets of the flow's service in order.
    fn start(&mut self, context: &mut Context<'_>) -> Outcome;
    /// Goes on after the `collect` of `run`.
    fn resume(&mut self, run: RunId, context: &mut Context<'_>) -> Outcome;
    /// Forgets `run`; the script never goes on.
    fn cancel(&mut self, run: RunId);
    /// Called between bursts, also when idle: a bounded step of housekeeping (garbage collection).
    fn idle(&mut self);
    /// Begins a profile of the script that `set` has for `event`; one that was made before is lost. Runs of that script are
    /// slower by some per cent until the end.
    fn start_profile(&mut self, set: ScriptSetId, event: Event);
    /// Ends the profile and gives it; empty if there is none.
    fn end_profile(&mut self) -> ScriptProfile;
    /// Makes all that a configuration needs that is laid over the present one ([`Snapshot::overlaid`]), and changes nothing
    /// yet; what was prepared before is forgotten. The error is for the operator. May take some milliseconds where there
    /// are new scripts.
    fn prepare(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String>;
    /// Goes on with the configuration that was prepared. Runs that wait go on in their script as it was.
    fn adopt(&mut self);
    /// Forgets what was prepared.
    fn abandon(&mut self);
    /// What the scripts did so far, for the operator.
    fn report(&self) -> Vec<ScriptReport>;
}

/// Statistics of one script.
#[derive(Clone, Debug)]
pub struct ScriptReport {
    /// Name of the DataScript set.
    pub set: String,
    /// The event.
    pub event: Event,
    /// Runs started.
    pub runs: u64,
    /// Runs ended by an error, budget and memory included.
    pub errors: u64,
    /// Runs ended by the time budget.
    pub budget_stops: u64,
    /// Runs refused because the script is quarantined.
    pub quarantined: u64,
    /// Time in Lua per run, from start to end without the suspended time, in nanoseconds.
    pub run_time: hdrhistogram::Histogram<u64>,
}
