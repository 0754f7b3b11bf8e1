//! The functions of `avi`. What they mean is in [`dataplane::api`], how they are called in [`script_check::api`]; here
//! Lua values become arguments and results become Lua values.

mod tables;

use std::borrow::Cow;
use std::net::IpAddr;

use dataplane::api::{self, ApiError};
use dataplane::policy::{self, Event, Record};
use script_check::api as described;
use tcp::Side;

use crate::arguments::{absent, byte_count, kind, name, optional_name, port};
use crate::call::{Answer, Argument, Quick, Refusal, Reply, Value, count};
use crate::number;
use crate::raw::{Arguments, Entry, Native, Slot};
use crate::text;
use tables::{looked_up, persist, table_insert, table_lookup, table_refresh, table_remove};

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal::Text(error.to_string())
    }
}

/// Declares the functions of the API by their descriptions in [`script_check::api`], and what else scripts reach.
macro_rules! natives {
    (
        described { $( $type:ident = $described:ident => $function:path $(, quick $quick:path)?; )* }
        kept { $( $kept:ident = $kept_described:ident => $kept_function:path, $last:ident for $key:path; )* }
        others { $( $other:ident = $name:literal => $other_function:path; )* }
    ) => {
        $(
            struct $type;
            impl Native for $type {
                const NAME: &'static str = described::$described.name;
                fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
                    if const { !described::$described.events.has(described::Event::Response) } {
                        only_in_request(slot)?;
                    }
                    $function(arguments, slot)
                }
                $(
                    #[inline]
                    fn quick(arguments: Arguments<'_>, slot: &mut Slot) -> Quick {
                        $quick(arguments, slot)
                    }
                )?
            }
        )*
        $(
            struct $kept;
            impl Native for $kept {
                const NAME: &'static str = described::$kept_described.name;
                fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
                    $kept_function(arguments, slot)
                }
                #[inline]
                fn kept(slot: &mut Slot) -> Option<(&mut u64, u64)> {
                    let key = $key(slot)?;
                    Some((&mut slot.$last, key))
                }
            }
        )*
        $(
            struct $other;
            impl Native for $other {
                const NAME: &'static str = $name;
                fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
                    $other_function(arguments, slot)
                }
            }
        )*
        /// All functions of this file.
        pub(crate) fn entries() -> Vec<Entry> {
            vec![$( Entry::of::<$type>(), )* $( Entry::of::<$kept>(), )* $( Entry::of::<$other>(), )*]
        }
    };
}

natives! {
    described {
        Read = READ => read;
        Collect = COLLECT => collect, quick collected;
        L4Done = L4_DONE => done;
        VsDone = VS_DONE => done;
        Log = LOG => log;
        DebugLog = DEBUG_LOG => debug_log;
        CloseConn = CLOSE_CONN => close_conn;
        ClientIp = CLIENT_IP => client_ip, quick client_ip_text;
        ClientPort = CLIENT_PORT => client_port, quick client_port_text;
        ServiceName = SERVICE_NAME => service_name;
        Persist = PERSIST => persist;
        TableInsert = TABLE_INSERT => table_insert;
        TableLookup = TABLE_LOOKUP => table_lookup, quick looked_up;
        TableRefresh = TABLE_REFRESH => table_refresh;
        TableRemove = TABLE_REMOVE => table_remove;
        ServerStatus = SERVER_STATUS => server_status;
        Servers = SERVERS => servers;
        ServerIp = SERVER_IP => server_ip;
        GetServerIp = GET_SERVER_IP => server_ip;
        ServerInfo = SERVER_INFO => server_info;
        SelectPool = SELECT_POOL => select_pool, quick selected_pool;
        SelectGroup = SELECT_GROUP => select_group;
    }
    kept {
        VipIp = VIP_IP => vip_ip, vip_kept for vip_ip_key;
        VipPort = VIP_PORT => vip_port, port_kept for vip_port_key;
    }
    others {
        Variable = "avi.vs.reqvar" => variable;
        SetVariable = "avi.vs.reqvar=" => set_variable;
    }
}

/// The lists that the sandbox begins with, on one line: what is not supported.
pub(crate) fn sandbox_lists() -> String {
    let listed = |names: &[&str]| names.iter().map(|name| format!("{name:?}, ")).collect::<String>();
    format!(
        "local UNSUPPORTED, UNSUPPORTED_SPACES = {{ {}}}, {{ {}}} ",
        listed(described::UNSUPPORTED),
        listed(described::UNSUPPORTED_SPACES),
    )
}

/// Refuses a call in the response event.
fn only_in_request(slot: &Slot) -> Result<(), Refusal> {
    match slot.context()?.event {
        Event::Request => Ok(()),
        Event::Response => Err(Refusal::Text(format!(
            "not allowed in {}, only in {}",
            described::Event::Response.name(),
            described::Event::Request.name(),
        ))),
    }
}

fn flag<'s>(value: bool) -> Answer<'s> {
    Ok(Reply::One(Value::Boolean(value)))
}

/// What `write` appends to nothing, as the only result.
fn written<'s>(slot: &'s mut Slot, write: impl FnOnce(&mut Vec<u8>)) -> Answer<'s> {
    slot.scratch.clear();
    write(&mut slot.scratch);
    Ok(Reply::One(Value::Bytes(&slot.scratch)))
}

/// An address as the only result.
fn address<'s>(slot: &'s mut Slot, address: IpAddr) -> Answer<'s> {
    written(slot, |out| text::address(address, out))
}

fn read<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let n = byte_count(arguments, 1)?.unwrap_or(0);
    let offset = byte_count(arguments, 2)?.unwrap_or(0);
    let side = match arguments.at(3) {
        Argument::Missing | Argument::Nil => None,
        Argument::String(b"client") => Some(Side::Client),
        Argument::String(b"server") => Some(Side::Server),
        _ => return Err(Refusal::text("bad argument #3 (\"client\" or \"server\" expected)")),
    };
    Ok(Reply::One(Value::Bytes(slot.context()?.read(n, offset, side)?)))
}

fn collect<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let Some(n) = byte_count(arguments, 1)? else {
        return Err(Refusal::Text(format!(
            "bad argument #1 (number expected, got {})",
            kind(arguments.at(1))
        )));
    };
    let context = slot.context()?;
    if context.collect_ready(n)? {
        return Ok(Reply::One(Value::Number(count(context.buffered()))));
    }
    slot.wait_for(n);
    Ok(Reply::Wait)
}

/// What is buffered, where that is as much as is asked for.
fn collected(arguments: Arguments<'_>, slot: &mut Slot) -> Quick {
    let Argument::Number(n) = arguments.at(1) else { return Quick::Other };
    let buffered = slot.in_run(|context, _| count(context.buffered()));
    match buffered {
        Some(buffered) if n >= 0.0 && n <= buffered && n <= count(api::READ_BYTES) => Quick::Number(buffered),
        _ => Quick::Other,
    }
}

fn done<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    slot.with_context(|context| context.done())?;
    Ok(Reply::Nothing)
}

/// Appends to the text of a log call as much as is kept of it.
fn append_logged(text: &mut Vec<u8>, more: &[u8]) {
    let room = Record::LOG_CALL_BYTES.saturating_sub(text.len());
    text.extend_from_slice(more.get(..room).unwrap_or(more));
}

/// What is kept of all arguments but a last `avi.SIG_ENABLE`, as one text; and whether it was there.
fn joined(arguments: Arguments<'_>) -> Result<(Vec<u8>, bool), Refusal> {
    let given = arguments.count();
    let significant = arguments.at(given) == Argument::Significant;
    let mut text = Vec::new();
    for position in 1..=given - usize::from(significant) {
        match arguments.at(position) {
            Argument::Missing | Argument::Nil => append_logged(&mut text, b"nil"),
            Argument::Boolean(b) => append_logged(&mut text, if b { b"true" } else { b"false" }),
            Argument::Number(n) => append_logged(&mut text, number::text(n).as_bytes()),
            Argument::String(bytes) => append_logged(&mut text, bytes),
            Argument::Significant => {}
            Argument::Other(kind) => {
                return Err(Refusal::Text(format!(
                    "bad argument #{position} (string, number, boolean or nil expected, got {kind})"
                )));
            }
        }
    }
    Ok((text, significant))
}

fn log<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let (text, significant) = joined(arguments)?;
    slot.with_context(|context| context.log(&text, significant))?;
    Ok(Reply::Nothing)
}

fn debug_log<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let (text, _) = joined(arguments)?;
    slot.with_context(|context| context.debug_log(&text))?;
    Ok(Reply::Nothing)
}

fn close_conn<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let reset = !matches!(arguments.at(1), Argument::Missing | Argument::Nil | Argument::Boolean(false));
    slot.with_context(|context| context.close(reset))?;
    Ok(Reply::Nothing)
}

fn client_ip<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let client = slot.context()?.client();
    address(slot, client.ip())
}

fn client_port<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let client = slot.context()?.client();
    written(slot, |out| text::decimal(client.port(), out))
}

fn client_ip_text(_: Arguments<'_>, slot: &mut Slot) -> Quick {
    let text = slot.in_run(|context, out| text::address(context.client().ip(), out));
    text.map_or(Quick::Other, |()| Quick::Text)
}

fn client_port_text(_: Arguments<'_>, slot: &mut Slot) -> Quick {
    let text = slot.in_run(|context, out| text::decimal(context.client().port(), out));
    text.map_or(Quick::Other, |()| Quick::Text)
}

fn vip_ip<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let vip = slot.context()?.vip();
    address(slot, vip.ip())
}

fn vip_port<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let vip = slot.context()?.vip();
    written(slot, |out| text::decimal(vip.port(), out))
}

/// What the text of an IPv4 VIP depends on. Those of one service are few.
fn vip_ip_key(slot: &Slot) -> Option<u64> {
    let octets = slot.context().ok()?.facts.key.destination.v4()?;
    Some(u64::from(u32::from_be_bytes(octets)) + 1)
}

/// What the text of a port depends on.
fn vip_port_key(slot: &Slot) -> Option<u64> {
    Some(u64::from(slot.context().ok()?.facts.key.destination_port) + 1)
}

fn service_name<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    Ok(Reply::One(Value::Bytes(slot.context()?.service_name().as_bytes())))
}

/// The name of a variable: what follows `avi.vs.reqvar.`
fn variable_name(arguments: Arguments<'_>) -> Result<Cow<'_, str>, Refusal> {
    name(arguments, 2)
}

fn variable<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let name = variable_name(arguments)?;
    Ok(Reply::One(match slot.context()?.variable(&name) {
        None => Value::Nil,
        Some(policy::Value::Boolean(b)) => Value::Boolean(*b),
        Some(policy::Value::Number(n)) => Value::Number(*n),
        Some(policy::Value::String(bytes)) => Value::Bytes(bytes),
    }))
}

fn set_variable<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let name = variable_name(arguments)?;
    let value = match arguments.at(3) {
        Argument::Missing | Argument::Nil => None,
        Argument::Boolean(b) => Some(policy::Value::Boolean(b)),
        Argument::Number(n) => Some(policy::Value::Number(n)),
        Argument::String(bytes) => Some(policy::Value::String(bytes.to_vec())),
        other => {
            let kind = kind(other);
            return Err(Refusal::Text(format!("holds strings, numbers and booleans, no {kind}")));
        }
    };
    slot.with_context(|context| context.set_variable(&name, value))??;
    Ok(Reply::Nothing)
}

fn server_status<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let pool = name(arguments, 1)?;
    let server = name(arguments, 2)?;
    let Some(port) = port(arguments, 3)? else {
        return Err(Refusal::Text(format!(
            "bad argument #3 (port number expected, got {})",
            kind(arguments.at(3))
        )));
    };
    let up = slot.context()?.server_status(slot.set(), &pool, &server, port)?;
    Ok(Reply::One(Value::Number(if up { 1.0 } else { 0.0 })))
}

fn servers<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let pool = optional_name(arguments, 1)?;
    let (up, total) = slot.context()?.servers(slot.set(), pool.as_deref())?;
    Ok(Reply::Two(Value::Number(count(up)), Value::Number(count(total))))
}

fn server_ip<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    match slot.context()?.flow_server() {
        None => Ok(Reply::One(Value::Nil)),
        Some(server) => address(slot, server.ip()),
    }
}

fn server_info<'s>(_: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let Some(server) = slot.context()?.flow_server() else {
        return Ok(Reply::Two(Value::Nil, Value::Nil));
    };
    slot.scratch.clear();
    text::address(server.ip(), &mut slot.scratch);
    Ok(Reply::Two(Value::Bytes(&slot.scratch), Value::Number(f64::from(server.port()))))
}

fn select_pool<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let set = slot.set();
    let pool = name(arguments, 1)?;
    let server = optional_name(arguments, 2)?;
    let port = port(arguments, 3)?;
    if server.is_none() && !absent(arguments.at(3)) {
        return Err(Refusal::text("bad argument #2 (a port needs a server before it)"));
    }
    slot.with_context(|context| context.select_pool(set, &pool, server.as_deref(), port))??;
    Ok(Reply::Nothing)
}

/// A pool that is attached to the set, by its name.
fn selected_pool(arguments: Arguments<'_>, slot: &mut Slot) -> Quick {
    let Argument::String(pool) = arguments.only() else { return Quick::Other };
    let set = slot.set();
    match slot.in_run(|context, _| context.select_attached_pool(set, pool)) {
        Some(true) => Quick::Nothing,
        _ => Quick::Other,
    }
}

fn select_group<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let set = slot.set();
    let group = name(arguments, 1)?;
    slot.with_context(|context| context.select_pool_group(set, &group))??;
    Ok(Reply::Nothing)
}
