//! What is around `avi`: the functions that weir does not have, the parser modules, and the Lua that a script sees.

use super::meaning::Meaning;
use super::types::{Function, Kind, Outcome, Parameter};

/// The functions of later releases of the original that weir does not have, in the namespaces that it has; those with
/// `ftp` in their names are more. A call raises "not supported".
pub const UNSUPPORTED: &[&str] =
    &["avi.l4.modify", "avi.l4.discard", "avi.l4.send", "avi.l4.pause", "avi.l4.resume"];

/// Namespaces in which every function is of that sort.
pub const UNSUPPORTED_SPACES: &[&str] = &["avi.ssl", "avi.ftp"];

/// A parser module that comes with weir.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// The name that `require` takes.
    pub name: &'static str,
    /// What it reads.
    pub text: &'static str,
    /// Its functions.
    pub functions: &'static [Function],
    /// Whether its functions look into the buffer themselves where the string they are given is older than that.
    pub reads_again: bool,
}

const PAYLOAD: Parameter = Parameter::required("payload", Meaning::Payload, "what `avi.l4.read()` gave");

const MODULE: Function = Function { never_raises: true, ..Function::NONE };

/// The parser modules that come with weir.
pub const MODULES: &[Module] = &[
    Module {
        name: "Default-TLS",
        text: "The server name in a TLS ClientHello.",
        reads_again: true,
        functions: &[
            Function {
                name: "get_req_buffer_size",
                forms: &[&[PAYLOAD]],
                results: &[Outcome::new(
                    "bytes",
                    &[Kind::Number],
                    "integer",
                    "5 when it is no TLS handshake",
                )],
                text: "The bytes that the first record needs.",
                ..MODULE
            },
            Function {
                name: "sanity_check",
                forms: &[&[PAYLOAD]],
                results: &[Outcome::new("hello", &[Kind::Boolean], "boolean", "true for a ClientHello")],
                text: "Tells whether the payload begins a ClientHello.",
                ..MODULE
            },
            Function {
                name: "parse_record",
                forms: &[&[PAYLOAD]],
                results: &[Outcome::new("handle", &[Kind::Table, Kind::Nil], "table?", "for `get_sni`")],
                text: "Takes the ClientHello apart. Waits for the rest of one that goes on in another record.",
                ..MODULE
            },
            Function {
                name: "get_sni",
                forms: &[&[Parameter::required("handle", Meaning::Handle, "what `parse_record` gave")]],
                results: &[Outcome::new("name", &[Kind::String, Kind::Nil], "string?", "nil: there is none")],
                text: "The server name.",
                ..MODULE
            },
        ],
    },
    Module {
        name: "Default-Radius",
        text: "The attributes of a RADIUS packet.",
        reads_again: false,
        functions: &[
            Function {
                name: "parsepacket",
                forms: &[&[PAYLOAD]],
                results: &[Outcome::new(
                    "attributes",
                    &[Kind::Table, Kind::Nil],
                    "{ [string]: string|number|nil }?",
                    "by number, written as a string: `[\"31\"]`; nil if malformed",
                )],
                text: "Takes a packet apart: integers are numbers, addresses text, all else strings.",
                ..MODULE
            },
            Function {
                name: "split",
                forms: &[&[
                    Parameter::required("text", Meaning::Payload, "a string"),
                    Parameter::required("separator", Meaning::Payload, "plain text"),
                ]],
                results: &[Outcome::new("parts", &[Kind::Table], "string[]", "in their order")],
                text: "The parts of a string.",
                ..MODULE
            },
        ],
    },
    Module {
        name: "Default-DHCP",
        text: "Header and options of a DHCP message.",
        reads_again: false,
        functions: &[
            Function {
                name: "getDHCPParamsAndOptions",
                forms: &[&[PAYLOAD]],
                results: &[
                    Outcome::new(
                        "header",
                        &[Kind::Table, Kind::Nil],
                        "{ [string]: string|number|nil }?",
                        "`op htype hlen hops xid secs flags ciaddr yiaddr siaddr giaddr chaddr sname file`; nil if \
                         malformed",
                    ),
                    Outcome::new(
                        "options",
                        &[Kind::Table, Kind::Nil],
                        "{ [integer]: string|nil }?",
                        "by number",
                    ),
                ],
                text: "Takes a message apart.",
                ..MODULE
            },
            Function {
                name: "getOption61",
                forms: &[&[Parameter::required(
                    "options",
                    Meaning::Handle,
                    "as `getDHCPParamsAndOptions` gave them",
                )]],
                results: &[
                    Outcome::new("kind", &[Kind::Number, Kind::Nil], "integer?", "the hardware type"),
                    Outcome::new("mac", &[Kind::String, Kind::Nil], "string?", "the client's, as text"),
                ],
                text: "The client identifier.",
                ..MODULE
            },
        ],
    },
];

/// The module of this name.
#[must_use]
pub fn module(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.name == name)
}

/// A library of Lua, as far as a script has it.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    /// The name of its table.
    pub name: &'static str,
    /// What is in it.
    pub members: &'static [&'static str],
}

/// The base functions and values that a script has, `avi` and the libraries not counted.
pub const BASE: &[&str] = &[
    "_G",
    "_VERSION",
    "assert",
    "error",
    "getmetatable",
    "ipairs",
    "next",
    "pairs",
    "pcall",
    "print",
    "rawequal",
    "rawget",
    "rawset",
    "require",
    "select",
    "setmetatable",
    "tonumber",
    "tostring",
    "type",
    "unpack",
    "xpcall",
];

/// The libraries that a script has.
pub const LIBRARIES: &[Library] = &[
    Library {
        name: "string",
        members: &[
            "beginswith",
            "byte",
            "char",
            "contains",
            "endswith",
            "find",
            "format",
            "gmatch",
            "gsub",
            "len",
            "lower",
            "match",
            "rep",
            "reverse",
            "sub",
            "upper",
        ],
    },
    Library {
        name: "table",
        members: &["concat", "foreach", "foreachi", "getn", "insert", "maxn", "remove", "sort"],
    },
    Library {
        name: "math",
        members: &[
            "abs",
            "acos",
            "asin",
            "atan",
            "atan2",
            "ceil",
            "cos",
            "cosh",
            "deg",
            "exp",
            "floor",
            "fmod",
            "frexp",
            "huge",
            "ldexp",
            "log",
            "log10",
            "max",
            "min",
            "modf",
            "pi",
            "pow",
            "rad",
            "random",
            "randomseed",
            "sin",
            "sinh",
            "sqrt",
            "tan",
            "tanh",
        ],
    },
    Library {
        name: "bit",
        members: &[
            "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit",
            "tohex",
        ],
    },
    Library { name: "os", members: &["clock", "date", "time"] },
];

/// The functions that `string` has beyond Lua's own.
pub const STRING_EXTRAS: &[(&str, &str)] = &[
    ("beginswith", "Whether `s` begins with `t`; plain text, case-sensitive."),
    ("endswith", "Whether `s` ends with `t`; plain text, case-sensitive."),
    ("contains", "Whether `t` is in `s`; plain text, case-sensitive."),
];

/// Something that Lua has elsewhere and that a script does not.
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    /// Its name.
    pub name: &'static str,
    /// What to do instead.
    pub cure: &'static str,
}

const NO_TEXT: &str = "a script runs no text as code; put shared code into a parser module and `require` it";
const NO_LIBRARY: &str = "a script has string, table, math, bit and os.time, os.date, os.clock";

/// What is not there.
pub const ABSENT: &[Absent] = &[
    Absent { name: "io", cure: "there are no files; write to the connection log with avi.vs.log" },
    Absent { name: "debug", cure: "an error's traceback is in the connection record" },
    Absent { name: "ffi", cure: NO_LIBRARY },
    Absent { name: "jit", cure: NO_LIBRARY },
    Absent { name: "package", cure: "attach a parser to the set and `require` it" },
    Absent { name: "module", cure: "return a table at the end of the parser module" },
    Absent { name: "coroutine", cure: "avi.l4.collect waits by itself" },
    Absent { name: "load", cure: NO_TEXT },
    Absent { name: "loadstring", cure: NO_TEXT },
    Absent { name: "loadfile", cure: NO_TEXT },
    Absent { name: "dofile", cure: NO_TEXT },
    Absent { name: "setfenv", cure: "each run has an environment of its own" },
    Absent { name: "getfenv", cure: "each run has an environment of its own; its globals are in _G" },
    Absent {
        name: "collectgarbage",
        cure: "weir collects between bursts; limit `script_memory` bounds a run",
    },
    Absent { name: "gcinfo", cure: "weir collects between bursts; limit `script_memory` bounds a run" },
    Absent { name: "newproxy", cure: "use a table with setmetatable" },
];

/// What a script does not have, by its name.
#[must_use]
pub fn absent(name: &str) -> Option<&'static Absent> {
    ABSENT.iter().find(|absent| absent.name == name)
}

/// Whether the library has this member; `None` where there is no such library.
#[must_use]
pub fn in_library(library: &str, member: &str) -> Option<bool> {
    let library = LIBRARIES.iter().find(|known| known.name == library)?;
    Some(library.members.contains(&member))
}
