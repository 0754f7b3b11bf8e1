//! What scripts can do, without Lua: the methods of [`Context`] carry the semantics of the DataScript API, so that
//! any [`crate::policy::Policy`] has them and tests check them without an interpreter. `scripting` converts
//! arguments and results and nothing else.
//!
//! Errors of these methods become catchable Lua errors; their `Display` is the text, without the function's name.
//! Here are the calls about the flow itself; `pools` has those that read and choose pools, `tables` those of the
//! key-value tables and persistence.

mod pools;
mod tables;

pub use pools::retry_target;
pub use tables::{forget_persistence, record_persistence};

use std::net::SocketAddr;

use crate::policy::{Close, Context, Event, Record, Value};
use crate::snapshot::Service;

/// Most bytes that `read` and `collect` take as their `n`.
pub const READ_BYTES: usize = 65000;

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No such pool, pool group or server.
    #[error("no {kind} named '{name}'{hint}")]
    Unknown {
        /// "pool", "pool group" or "server".
        kind: &'static str,
        /// What the script asked for.
        name: String,
        /// What exists, as a sentence part, or empty.
        hint: String,
    },
    /// It exists, but is not attached to the script's set.
    #[error("{kind} '{name}' is not attached to this DataScript set")]
    NotAttached {
        /// "pool" or "pool group".
        kind: &'static str,
        /// What the script asked for.
        name: String,
    },
    /// The call is not possible in the event that runs.
    #[error("not allowed in {0}")]
    Event(&'static str),
    /// An argument out of its range.
    #[error("{0}")]
    Argument(String),
}

fn argument<T>(text: String) -> Result<T, ApiError> {
    Err(ApiError::Argument(text))
}

impl<'a> Context<'a> {
    /// The virtual service of the flow.
    pub(crate) fn service(&self) -> Option<&'a Service> {
        self.snapshot.services.get(self.facts.service.index())
    }

    /// The error of a call that exists in the request event only.
    pub(crate) fn request_only(&self) -> Result<(), ApiError> {
        match self.event {
            Event::Request => Ok(()),
            Event::Response => Err(ApiError::Event("VS_DATASCRIPT_EVT_L4_RESPONSE")),
        }
    }

    fn payload(&self, side: Option<tcp::Side>) -> &'a [u8] {
        let own = match self.event {
            Event::Request => tcp::Side::Client,
            Event::Response => tcp::Side::Server,
        };
        match side.unwrap_or(own) {
            tcp::Side::Client => self.client_payload,
            tcp::Side::Server => self.server_payload,
        }
    }

    /// `avi.l4.read`: the bytes `[offset, offset + n)` of a side's buffer, or everything from `offset` when n is 0.
    /// The side is the event's own unless given. Nothing is consumed.
    ///
    /// # Errors
    /// `n` above [`READ_BYTES`], or fewer than `offset + n` bytes buffered.
    pub fn read(&self, n: usize, offset: usize, side: Option<tcp::Side>) -> Result<&'a [u8], ApiError> {
        if n > READ_BYTES {
            return argument(format!("{n} bytes asked for, at most {READ_BYTES} are possible"));
        }
        let payload = self.payload(side);
        let bytes = match n {
            0 => payload.get(offset..),
            n => offset.checked_add(n).and_then(|end| payload.get(offset..end)),
        };
        bytes.map_or_else(
            || argument(format!("{n} bytes at offset {offset} asked for, {} are buffered", payload.len())),
            Ok,
        )
    }

    /// Number of bytes buffered now on the event's side: the result of `avi.l4.collect`.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.payload(None).len()
    }

    /// `avi.l4.collect`: true if `n` bytes in all are buffered on the event's side, so that the call returns
    /// [`Context::buffered`]; false if the run must be suspended until they are.
    ///
    /// # Errors
    /// `n` above [`READ_BYTES`], or too few bytes where a flow cannot wait for more.
    pub fn collect_ready(&self, n: usize) -> Result<bool, ApiError> {
        if n > READ_BYTES {
            return argument(format!("{n} bytes asked for, at most {READ_BYTES} are possible"));
        }
        let buffered = self.buffered();
        if buffered < n && !self.can_wait {
            return argument(format!(
                "{n} bytes asked for, {buffered} are buffered, and this flow cannot wait for more"
            ));
        }
        Ok(buffered >= n)
    }

    /// `avi.vs.log`: appends the first [`Record::LOG_CALL_BYTES`] of `text` to the flow's `ds_log`, as far as
    /// [`Record::LOG_BYTES`] allow; `significant` marks the record.
    pub fn log(&mut self, text: &[u8], significant: bool) {
        let text = text.get(..Record::LOG_CALL_BYTES).unwrap_or(text);
        self.record.append_log(text);
        self.record.significant |= significant;
    }

    /// `avi.vs.debuglog`: as [`Context::log`], where the service's debug log is on; else nothing.
    pub fn debug_log(&mut self, text: &[u8]) {
        if self.service().is_some_and(|s| s.datascript.debug_log) {
            self.log(text, false);
        }
    }

    /// `avi.vs.close_conn`: marks the flow for closing when the run ends, whatever is selected before or after.
    /// Once a reset was asked for it stays a reset.
    pub fn close(&mut self, reset: bool) {
        if reset {
            self.record.close = Some(Close::Reset);
        } else {
            self.record.close.get_or_insert(Close::Graceful);
        }
    }

    /// `avi.l4.ds_done`, `avi.vs.ds_done`: no further run of this event for the flow.
    pub fn done(&mut self) {
        match self.event {
            Event::Request => self.record.request_done = true,
            Event::Response => self.record.response_done = true,
        }
    }

    /// `avi.vs.client_ip`, `client_port`: the client.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.facts.client()
    }

    /// `avi.vs.ip`, `port`: the VIP and the port that the client used.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        self.facts.vip()
    }

    /// `avi.vs.name`.
    #[must_use]
    pub fn service_name(&self) -> &'a str {
        self.service().map_or("", |service| &service.name)
    }

    /// `avi.pool.server_ip`, `get_server_ip`, `get_server_info`: the flow's server, `None` while there is none.
    #[must_use]
    pub fn flow_server(&self) -> Option<SocketAddr> {
        self.snapshot.server_address(self.facts.server?)
    }

    /// `avi.vs.reqvar.NAME`: what a script of this flow has set, `None` for nil.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&Value> {
        self.record.variables.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// `avi.vs.reqvar.NAME = value`; `None` (nil) forgets it.
    ///
    /// # Errors
    /// All names and string values of the flow together would be longer than [`Record::VARIABLE_BYTES`]; the old
    /// value is kept.
    pub fn set_variable(&mut self, name: &str, value: Option<Value>) -> Result<(), ApiError> {
        let variables = &mut self.record.variables;
        let place = variables.iter().position(|(n, _)| n == name);
        let Some(value) = value else {
            if let Some(place) = place {
                variables.swap_remove(place);
            }
            return Ok(());
        };
        let others = variables.iter().filter(|(n, _)| n != name);
        let bytes: usize = others.map(|(n, v)| n.len() + value_bytes(v)).sum();
        if bytes + name.len() + value_bytes(&value) > Record::VARIABLE_BYTES {
            let limit = Record::VARIABLE_BYTES;
            return argument(format!("the variables of a flow are limited to {limit} bytes"));
        }
        match place.and_then(|place| variables.get_mut(place)) {
            Some((_, old)) => *old = value,
            None => variables.push((name.to_owned(), value)),
        }
        Ok(())
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(bytes) => bytes.len(),
        Value::Boolean(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests;
