//! How a flow ended: who ended it, and in which phase.

use super::FlowState;

/// How a flow ended, in two letters: who, then in which phase. HAProxy users know the idea.
///
/// | first | who ended it |
/// |---|---|
/// | `-` | nobody: a normal end |
/// | `C` | the client (reset, or it closed before a server was chosen) |
/// | `S` | the server (reset, or it refused the connection) |
/// | `W` | weir, because a script called `close_conn` |
/// | `L` | weir, because a script failed |
/// | `c` | weir, because the client was silent for too long |
/// | `s` | weir, because the server was silent for too long |
/// | `R` | weir, for lack of a server, of resources or of a PROXY header (the record's reason says which) |
/// | `K` | weir, because it was shut down |
///
/// | second | in which phase |
/// |---|---|
/// | `-` | after a normal end |
/// | `H` | the client's handshake |
/// | `P` | waiting for payload or for the script |
/// | `C` | connecting to the server |
/// | `R` | replaying the first bytes to the server |
/// | `D` | data |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// The first letter.
    pub by: EndedBy,
    /// The second letter.
    pub phase: Phase,
}

impl Termination {
    /// FIN from both sides, or the idle timeout of UDP: `--`.
    pub const NORMAL: Termination = Termination { by: EndedBy::Nobody, phase: Phase::Complete };

    /// From its two parts.
    #[must_use]
    pub fn new(by: EndedBy, phase: Phase) -> Self {
        Termination { by, phase }
    }
}

impl std::fmt::Display for Termination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.by.letter(), self.phase.letter())
    }
}

macro_rules! lettered {
    ($(#[$doc:meta])* $name:ident { $(#[doc = $text:literal] $variant:ident = $letter:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $(#[doc = $text] $variant),* }

        impl $name {
            /// All of them, in the order of their documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The letter in the log.
            #[must_use]
            pub fn letter(self) -> char {
                match self { $($name::$variant => $letter),* }
            }

            /// What it means.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $($name::$variant => $text.trim_ascii()),* }
            }
        }
    };
}

lettered! {
    /// Who ended a flow.
    EndedBy {
        /// Nobody: a normal end.
        Nobody = '-',
        /// The client: reset, or it closed before a server was chosen.
        Client = 'C',
        /// The server: reset, or it refused the connection.
        Server = 'S',
        /// weir, because a script called `close_conn`.
        Script = 'W',
        /// weir, because a script failed.
        ScriptError = 'L',
        /// weir, because the client was silent for too long.
        ClientTimeout = 'c',
        /// weir, because the server was silent for too long.
        ServerTimeout = 's',
        /// weir, for lack of a server, of resources or of a PROXY header; the field `reason` says which.
        Refused = 'R',
        /// weir, because it was shut down.
        Shutdown = 'K',
    }
}

lettered! {
    /// In which phase a flow ended.
    Phase {
        /// After a normal end.
        Complete = '-',
        /// The client's handshake; such flows have no line.
        Handshake = 'H',
        /// Waiting for payload or for the script.
        Deciding = 'P',
        /// Connecting to the server.
        Connecting = 'C',
        /// Replaying the first bytes to the server.
        Replaying = 'R',
        /// Data.
        Data = 'D',
    }
}

impl From<FlowState> for Phase {
    /// The phase of a flow that ends abnormally in this state.
    fn from(state: FlowState) -> Self {
        match state {
            FlowState::Handshake => Phase::Handshake,
            FlowState::Deciding => Phase::Deciding,
            FlowState::Connecting => Phase::Connecting,
            FlowState::Replaying => Phase::Replaying,
            FlowState::Established | FlowState::Closing => Phase::Data,
        }
    }
}
