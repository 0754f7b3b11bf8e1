//! What the other crates say to a binding and hear from it.

use smoltcp::time::{Duration, Instant};

/// Which end host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened the connection to the VIP.
    Client,
    /// The one that weir chose.
    Server,
}

impl Side {
    /// The other end host.
    #[must_use]
    pub fn opposite(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
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
    /// Time from the handshake to [`Binding::connect`](crate::Binding::connect).
    pub first_payload_timeout: Duration,
    /// Time from the first SYN to a server to [`ConnectFailure::Silent`].
    pub connect_timeout: Duration,
    /// Time without an acknowledgement after which a replay is given up.
    pub replay_timeout: Duration,
    /// Bytes buffered per direction; also the largest window advertised. The window field counts in units of the
    /// window scale, so that up to one unit more may be offered and is then also taken.
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

/// How a binding ended without becoming a [`Splice`](crate::Splice).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client did not complete its handshake. Nothing is sent.
    HandshakeTimeout,
    /// No decision within the first payload timeout. The client is reset, unless
    /// [`Binding::connect`](crate::Binding::connect) or [`Binding::close`](crate::Binding::close) is called before the
    /// next poll: then the binding goes on.
    FirstPayloadTimeout,
    /// RST from the client.
    ClientReset,
    /// FIN from the client before the decision, and not one byte before it; reported when the client has acknowledged
    /// the FIN with which weir answers, or the replay timeout has passed.
    ClientClosed,
    /// RST from the server after its SYN-ACK, while weir still replayed.
    ServerReset,
    /// The replay was not acknowledged in time. Both sides are reset.
    ReplayTimeout,
    /// [`Binding::close`](crate::Binding::close) has done its work.
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
    /// More contiguous bytes from this side ([`Binding::payload`](crate::Binding::payload)), or its FIN after bytes
    /// ([`Binding::finished`](crate::Binding::finished)); the client's handshake may have been completed by the same
    /// segment. Reported only while somebody can still decide on them: for the client until
    /// [`Binding::connect`](crate::Binding::connect), for the server while its response is held.
    Data(Side),
    /// This very packet is to be translated by what [`Binding::splice`](crate::Binding::splice) returns now, and sent
    /// on. It may also have been the one that ended the replay: [`Binding::is_spliced`](crate::Binding::is_spliced).
    Forward,
    /// The server could not be reached: `connect` again, or `close`.
    ConnectFailed(ConnectFailure),
    /// All is delivered: poll for the last segments, take [`Binding::splice`](crate::Binding::splice), and drop the
    /// binding; the flow is translated from the next packet on. The packet that brought this event is consumed.
    Spliced,
    /// It is over: poll for the last segments, then drop the binding.
    Ended(End),
}

/// The time type of all arguments, so that dependents need not name smoltcp.
pub type Time = Instant;
