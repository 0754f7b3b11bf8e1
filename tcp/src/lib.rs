//! Delayed TCP binding, sans-io.
//!
//! weir completes a client's handshake itself, collects the first bytes, opens the connection to the server that was
//! chosen, replays the bytes, and then only translates headers: [`Binding`] is the first part, [`Splice`] the second.
//! Nothing here knows addresses, ports, devices or clocks: segments and time go in, segments and events come out.
#![forbid(unsafe_code)]
// The API sketch below is replaced by one file per phase; the names and signatures stay.

use smoltcp::time::{Duration, Instant};

/// Which end host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened the connection to the VIP.
    Client,
    /// The one that weir chose.
    Server,
}

/// What weir promises a client in its SYN-ACK before the server is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Largest segment that the servers accept, in bytes of payload and options (RFC 9293, 3.7.1).
    pub mss: u16,
    /// Window scale of the servers (RFC 7323), `None`: none is promised.
    pub window_scale: Option<u8>,
    /// SACK permitted (RFC 2018).
    pub sack: bool,
    /// Timestamps (RFC 7323).
    pub timestamps: bool,
}

/// Times and sizes of one binding.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time a client has for its handshake.
    pub handshake_timeout: Duration,
    /// Time from the handshake to [`Binding::connect`].
    pub first_payload_timeout: Duration,
    /// Time from the first SYN to a server to [`ConnectFailure::Silent`].
    pub connect_timeout: Duration,
    /// Time without an acknowledgement after which a replay is given up.
    pub replay_timeout: Duration,
    /// Bytes buffered per direction; also the largest window advertised.
    pub buffer: u32,
}

/// Why a server could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// It answered with RST.
    Refused,
    /// It did not answer within the connect timeout.
    Silent,
}

/// How a binding ended without becoming a [`Splice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client did not complete its handshake.
    HandshakeTimeout,
    /// No decision within the first payload timeout.
    FirstPayloadTimeout,
    /// RST from the client.
    ClientReset,
    /// FIN from the client before the decision.
    ClientClosed,
    /// RST from the server after its SYN-ACK, while weir still replayed.
    ServerReset,
    /// The replay was not acknowledged in time.
    ReplayTimeout,
    /// [`Binding::close`] has done its work.
    Closed,
}

/// What a segment or a timeout meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Taken in; nothing for the caller to do but poll for output.
    Consumed,
    /// Not acceptable (RFC 9293, 3.10.7.4): ignored, perhaps answered by an acknowledgement.
    Rejected,
    /// The client's handshake is complete.
    Established,
    /// More contiguous bytes from this side (`payload`); the handshake may have been completed by the same segment.
    Data(Side),
    /// This very packet is to be translated by [`Binding::splice`] and sent on.
    Forward,
    /// The server could not be reached: `connect` again, or `close`.
    ConnectFailed(ConnectFailure),
    /// All is delivered: the flow is translated from now on and the binding can be dropped.
    Spliced,
    /// It is over: poll for the last segments, then drop the binding.
    Ended(End),
}

/// The time type of all arguments, so that dependents need not name smoltcp.
pub type Time = Instant;
