//! Pools, pool groups and servers.

use super::meaning::Meaning;
use super::types::{Events, Function, Kind, Outcome, Parameter, Release};

const POOL: Parameter =
    Parameter::required("pool", Meaning::Pool, "a pool that is attached to the set, or the default");

/// `avi.pool.get_server_status`
pub const SERVER_STATUS: Function = Function {
    name: "avi.pool.get_server_status",
    forms: &[&[
        POOL,
        Parameter::required("server", Meaning::Server, "address or host name, as configured"),
        Parameter::required("port", Meaning::Port, "number or digits"),
    ]],
    results: &[Outcome::new(
        "status",
        &[Kind::Number],
        "0|1",
        "1: up and enabled. 0: not, or the pool has no such server",
    )],
    text: "Tells whether a server is up.",
    errors: "The pool does not exist or is not attached.",
    ..Function::NONE
};

/// `avi.pool.get_servers`
pub const SERVERS: Function = Function {
    name: "avi.pool.get_servers",
    forms: &[&[Parameter::optional("pool", Meaning::Pool, "the default pool or pool group if left out")]],
    results: &[
        Outcome::new("up", &[Kind::Number], "integer", "how many servers are up"),
        Outcome::new("total", &[Kind::Number], "integer", "how many there are"),
    ],
    since: Release::Later,
    text: "Counts the servers of a pool.",
    errors: "The pool does not exist or is not attached; none is given and the virtual service has no default.",
    ..Function::NONE
};

/// `avi.pool.server_ip`
pub const SERVER_IP: Function = Function {
    name: "avi.pool.server_ip",
    results: &[Outcome::new(
        "address",
        &[Kind::String, Kind::Nil],
        "string?",
        "nil while there is no server",
    )],
    since: Release::Later,
    text: "The address of the flow's server.",
    ..Function::NONE
};

/// `avi.pool.get_server_ip`
pub const GET_SERVER_IP: Function =
    Function { name: "avi.pool.get_server_ip", text: "The same as `avi.pool.server_ip()`.", ..SERVER_IP };

/// `avi.pool.get_server_info`
pub const SERVER_INFO: Function = Function {
    name: "avi.pool.get_server_info",
    results: &[
        Outcome::new("address", &[Kind::String, Kind::Nil], "string?", "nil while there is no server"),
        Outcome::new("port", &[Kind::Number, Kind::Nil], "integer?", "a number"),
    ],
    since: Release::Later,
    text: "Address and port of the flow's server.",
    ..Function::NONE
};

/// `avi.pool.select`
pub const SELECT_POOL: Function = Function {
    name: "avi.pool.select",
    forms: &[&[
        POOL,
        Parameter::optional(
            "server",
            Meaning::Server,
            "exactly this server of the pool, by address or host name",
        ),
        Parameter::optional(
            "port",
            Meaning::Port,
            "which of several members on that address, the first if left out",
        ),
    ]],
    events: Events::Request,
    text: "Sends the flow to a pool, or to one server of it. The last successful call of the run counts. A server that \
           is down is not replaced by another one.",
    errors: "The pool does not exist or is not attached; it has no such server; a port without a server.",
    ..Function::NONE
};

/// `avi.poolgroup.select`
pub const SELECT_GROUP: Function = Function {
    name: "avi.poolgroup.select",
    forms: &[&[Parameter::required(
        "group",
        Meaning::Group,
        "a pool group that is attached to the set, or the default",
    )]],
    events: Events::Request,
    since: Release::Later,
    text: "Sends the flow to a pool group, by priority and ratio.",
    errors: "The group does not exist or is not attached.",
    ..Function::NONE
};
