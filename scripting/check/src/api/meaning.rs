//! What arguments stand for.

use super::types::{Kind, Kinds};

/// What an argument stands for: this says which kinds and which literals are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A number of bytes, at most 65000.
    Bytes,
    /// Bytes before the first one that is wanted.
    Offset,
    /// `"client"` or `"server"`.
    Side,
    /// What a record or variable holds.
    Loggable,
    /// True or not.
    Flag,
    /// A key of a table.
    Key,
    /// A value of a table.
    Stored,
    /// The name of a table.
    Table,
    /// Seconds that an entry lives.
    Lifetime,
    /// Seconds that a lookup adds.
    Extension,
    /// Seconds from now that a refresh asks for.
    Renewal,
    /// The name of a pool.
    Pool,
    /// The name of a pool group.
    Group,
    /// Address or host name of a server.
    Server,
    /// A port.
    Port,
    /// A string of bytes.
    Payload,
    /// What a parser module gave.
    Handle,
}

impl Meaning {
    /// Most bytes that `read` and `collect` take.
    pub const MOST_BYTES: f64 = 65000.0;
    /// Shortest lifetime of an entry in seconds; what is smaller is raised to this.
    pub const LEAST_LIFETIME: f64 = 300.0;

    /// The kinds that raise no error where the argument is given and not nil.
    #[must_use]
    pub const fn kinds(self) -> Kinds {
        match self {
            // The text of a number will do.
            Meaning::Bytes | Meaning::Offset | Meaning::Port => Kinds::of(&[Kind::Number, Kind::String]),
            Meaning::Side => Kinds::of(&[Kind::String]),
            Meaning::Loggable => Kinds::PLAIN.and(Kind::Nil).and(Kind::Significant),
            Meaning::Key | Meaning::Stored | Meaning::Table => Kinds::PLAIN.and(Kind::Nil),
            Meaning::Lifetime | Meaning::Extension | Meaning::Renewal => Kinds::of(&[Kind::Number]),
            Meaning::Pool | Meaning::Group | Meaning::Server => Kinds::of(&[Kind::String, Kind::Number]),
            Meaning::Flag | Meaning::Payload | Meaning::Handle => Kinds::ANY,
        }
    }

    /// What is allowed, as in "must be …".
    #[must_use]
    pub const fn allowed(self) -> &'static str {
        match self {
            Meaning::Bytes => "a number of bytes, 0 to 65000",
            Meaning::Offset => "a number of bytes, 0 or more",
            Meaning::Side => "\"client\" or \"server\"",
            Meaning::Loggable => "a string, number, boolean or nil",
            Meaning::Flag => "true or false",
            Meaning::Key | Meaning::Stored | Meaning::Table => "a string, number or boolean",
            Meaning::Lifetime => "a number of seconds, 300 or more",
            Meaning::Extension => "a number of seconds, 0 or more",
            Meaning::Renewal => "a number of seconds",
            Meaning::Pool => "the name of a pool, a string",
            Meaning::Group => "the name of a pool group, a string",
            Meaning::Server => "an address or host name, a string",
            Meaning::Port => "a port, 0 to 65535, as a number or a string of digits",
            Meaning::Payload => "a string",
            Meaning::Handle => "what the module gave",
        }
    }

    /// The type for a language server.
    #[must_use]
    pub const fn luals(self) -> &'static str {
        match self {
            Meaning::Bytes | Meaning::Offset | Meaning::Lifetime | Meaning::Extension | Meaning::Renewal => {
                "integer"
            }
            Meaning::Side => "\"client\"|\"server\"",
            Meaning::Loggable => "string|number|boolean|avi.SIG_ENABLE|nil",
            Meaning::Flag => "boolean",
            Meaning::Key | Meaning::Stored => "string|number|boolean|nil",
            Meaning::Table => "string|number|boolean",
            Meaning::Pool | Meaning::Group | Meaning::Server => "string",
            Meaning::Port => "integer|string",
            Meaning::Payload => "string",
            Meaning::Handle => "table?",
        }
    }
}
