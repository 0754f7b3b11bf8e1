//! The payload and the flow: `avi.l4`, and of `avi.vs` what is about the flow itself.

use super::meaning::Meaning;
use super::types::{Function, Kind, Outcome, Parameter, Release};

const PORT: Outcome = Outcome::new("port", &[Kind::String], "string", "digits, a string");

/// `avi.l4.read`
pub const READ: Function = Function {
    name: "avi.l4.read",
    forms: &[&[
        Parameter::optional("n", Meaning::Bytes, "how many bytes; all that are buffered if left out or 0"),
        Parameter::optional("offset", Meaning::Offset, "bytes to skip before them, 0 if left out"),
        Parameter::optional("side", Meaning::Side, "whose bytes; those of the event's own side if left out"),
    ]],
    results: &[Outcome::new("payload", &[Kind::String], "string", "the bytes")],
    text: "Gives bytes of the payload that is buffered. They stay there: they still go to the server, and a second \
           call gives the same.",
    errors: "Fewer than `offset + n` bytes are buffered; `n` is above 65000.",
    ..Function::NONE
};

/// `avi.l4.collect`
pub const COLLECT: Function = Function {
    name: "avi.l4.collect",
    forms: &[&[Parameter::required("n", Meaning::Bytes, "how many bytes in all, not how many more")]],
    results: &[Outcome::new(
        "buffered",
        &[Kind::Number],
        "integer",
        "how many bytes are buffered now, `n` or more",
    )],
    text: "Waits until at least `n` bytes are buffered; only this flow waits. A string that was read before it is as \
           short as it was: read again.",
    errors: "`n` is above 65000; the flow cannot wait for more (`profile = \"fast_path\"`).",
    ..Function::NONE
};

/// `avi.l4.ds_done`
pub const L4_DONE: Function = Function {
    name: "avi.l4.ds_done",
    since: Release::Later,
    text: "No further run of this event's script for the flow. The current run goes on.",
    ..Function::NONE
};

/// `avi.vs.ds_done`
pub const VS_DONE: Function =
    Function { name: "avi.vs.ds_done", text: "The same as `avi.l4.ds_done()`.", ..L4_DONE };

/// `avi.vs.log`
pub const LOG: Function = Function {
    name: "avi.vs.log",
    rest: Some(Parameter::optional("value", Meaning::Loggable, "what is appended, as text")),
    text: "Appends its arguments to the `ds_log` of the connection record, without anything between them. A call is \
           cut at 256 bytes, all of a flow at 4096. `avi.SIG_ENABLE` as the last argument marks the record as \
           significant.",
    errors: "An argument is a table or a function.",
    ..Function::NONE
};

/// `avi.vs.debuglog`
pub const DEBUG_LOG: Function = Function {
    name: "avi.vs.debuglog",
    since: Release::Later,
    text: "As `avi.vs.log`, where the virtual service has its debug log on; nothing elsewhere.",
    ..LOG
};

/// `avi.vs.close_conn`
pub const CLOSE_CONN: Function = Function {
    name: "avi.vs.close_conn",
    forms: &[&[Parameter::optional("reset", Meaning::Flag, "true: with RST; else with FIN")]],
    text: "Closes the flow when the run ends. The run goes on, and a later `select` does not take it back. Over UDP \
           the datagram is dropped and the flow forgotten.",
    ..Function::NONE
};

/// `avi.vs.client_ip`
pub const CLIENT_IP: Function = Function {
    name: "avi.vs.client_ip",
    results: &[Outcome::new("address", &[Kind::String], "string", "dotted IPv4, or IPv6 as in RFC 5952")],
    text: "The address of the client.",
    ..Function::NONE
};

/// `avi.vs.client_port`
pub const CLIENT_PORT: Function = Function {
    name: "avi.vs.client_port",
    results: &[PORT],
    text: "The port of the client.",
    ..Function::NONE
};

/// `avi.vs.ip`
pub const VIP_IP: Function = Function {
    name: "avi.vs.ip",
    since: Release::Later,
    text: "The address of the virtual service that the client used.",
    ..CLIENT_IP
};

/// `avi.vs.port`
pub const VIP_PORT: Function = Function {
    name: "avi.vs.port",
    since: Release::Later,
    text: "The port that the client used. Compare it with a string: `avi.vs.port() == \"443\"`.",
    ..CLIENT_PORT
};

/// `avi.vs.name`
pub const SERVICE_NAME: Function = Function {
    name: "avi.vs.name",
    results: &[Outcome::new("name", &[Kind::String], "string", "as in the configuration")],
    since: Release::Later,
    text: "The name of the virtual service.",
    ..Function::NONE
};
