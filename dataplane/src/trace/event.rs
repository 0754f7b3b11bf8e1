//! What a tracer tells.

use std::net::SocketAddr;

use smoltcp::time::Instant;

use super::Shape;
use crate::address::FlowKey;
use crate::channel::{ConnectionRecord, FlowState};
use crate::counters::DropReason;
use crate::flow::Direction;
use crate::io::PortId;
use crate::pipeline::Verdict;
use crate::policy::{Close, Event, ScriptFailure, Selection};
use crate::script_trace::ScriptTrace;
use crate::snapshot::{ServerId, ServiceId};

/// One thing that happened to a flow that is followed.
#[derive(Debug)]
pub struct TraceEvent {
    /// Time of the burst, or of the round in which weir did it by itself.
    pub at: Instant,
    /// Which of the flows of this worker, from 0.
    pub flow: u32,
    /// What happened.
    pub what: What,
}

/// Why a server was looked for where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The service's default: no script chose anything.
    Default,
    /// A script chose.
    Script,
    /// A script asked for persistence.
    Persistence,
    /// So many servers were tried before and could not be reached.
    Retry(usize),
}

/// A packet as it leaves.
#[derive(Debug)]
pub struct Left {
    /// By this port.
    pub port: PortId,
    /// `false`: as soon as the next hop has answered ARP or ND; the frame has no destination yet.
    pub resolved: bool,
    /// What it looks like.
    pub shape: Shape,
    /// The frame, or its beginning.
    pub frame: Option<Box<[u8]>>,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// The flow is followed from here on.
    Begin {
        /// Of its packets from the client, or of the packet that belongs to no flow.
        key: FlowKey,
        /// The flow existed before.
        open: bool,
    },
    /// A packet came in. What follows up to [`What::Verdict`] happened to it.
    Received {
        /// By this port.
        port: PortId,
        /// Whose it is; `None`: it belongs to no flow yet.
        direction: Option<Direction>,
        /// What it looks like.
        shape: Shape,
        /// The frame, or its beginning.
        frame: Option<Box<[u8]>>,
    },
    /// Its flow was found.
    Found(FlowState),
    /// A new flow of this service.
    New(ServiceId),
    /// What the segment, or a timer, is for the connection that has no server yet or is not delivered to it yet.
    Binding {
        /// The event.
        event: tcp::Event,
        /// Bytes of the client that scripts may read now.
        client_bytes: usize,
        /// Bytes of the server.
        server_bytes: usize,
    },
    /// The scripts of an event ran.
    Script {
        /// Which event.
        event: Event,
        /// They went on where they had waited.
        resumed: bool,
        /// How that ended.
        end: ScriptEnd,
        /// The message and traceback of a failure.
        error: Option<Box<str>>,
        /// What they did.
        trace: Box<ScriptTrace>,
    },
    /// A server was looked for.
    Chosen {
        /// Where.
        selection: Selection,
        /// Why there.
        why: Why,
        /// The server, or how the flow is closed for want of one.
        server: Result<ServerId, Close>,
    },
    /// The flow has its server and its address towards it.
    Attached {
        /// The server.
        server: ServerId,
        /// Where packets to it go.
        to: SocketAddr,
        /// Where they come from.
        from: SocketAddr,
    },
    /// The flow did not get the server.
    Refused(DropReason),
    /// Packets of the flow are translated from here on.
    Bound,
    /// What became of the packet received last.
    Verdict {
        /// That.
        verdict: Verdict,
        /// If it left: how.
        left: Option<Left>,
    },
    /// weir sends a packet of its own, or one that it has held.
    Sent(Left),
    /// The device did not take a packet that was to leave.
    Unsent {
        /// By this port.
        port: PortId,
        /// How it is counted.
        reason: DropReason,
    },
    /// The flow is over.
    End(Box<ConnectionRecord>),
}

/// How the scripts of an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// They ran to their end.
    Done,
    /// They wait for so many bytes in all.
    Waiting(usize),
    /// They failed.
    Failed(ScriptFailure),
}

impl What {
    /// Bytes of packets and of scripts' steps in it.
    pub(super) fn bytes(&self) -> usize {
        let frame = match self {
            What::Received { frame, .. } => frame.as_ref(),
            What::Sent(left) | What::Verdict { left: Some(left), .. } => left.frame.as_ref(),
            What::Script { trace, .. } => return trace.bytes(),
            _ => None,
        };
        frame.map_or(0, |frame| frame.len())
    }

    /// True for what is told of a packet or flow that nothing else is told of when only drops are wanted.
    pub(super) fn is_drop(&self) -> bool {
        match self {
            What::Verdict { verdict, .. } => matches!(verdict, Verdict::Drop(_)),
            What::End(record) => record.reason.is_some(),
            What::Unsent { .. } => true,
            _ => false,
        }
    }
}
