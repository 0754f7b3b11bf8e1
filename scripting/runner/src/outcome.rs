//! What a case came to, and how two runs of it differ.

use crate::show::{bytes, difference};

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`.
    pub place: String,
    /// What was expected, or what went wrong.
    pub text: String,
    /// The expected value, if there is one to show.
    pub wanted: Option<String>,
    /// What was there instead.
    pub got: Option<String>,
}

/// What is known of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The client, as the case wrote it.
    pub client: String,
    /// Name of the pool it went to.
    pub pool: Option<String>,
    /// Its server.
    pub server: Option<String>,
    /// `ds_log`.
    pub log: Vec<u8>,
    /// `avi.SIG_ENABLE` was given.
    pub significant: bool,
    /// Error of a script.
    pub error: Option<String>,
    /// `reset`, `fin` or `dropped`, if weir closed it.
    pub closed: Option<&'static str>,
    /// The script waits in `collect`.
    pub waiting: bool,
    /// How often the request and the response script were started.
    pub runs: [u64; 2],
    /// What the server got.
    pub server_received: Vec<u8>,
    /// What the client got.
    pub client_received: Vec<u8>,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name of the service.
    pub service: String,
    /// Name of the table; none for the default one.
    pub table: Option<Vec<u8>>,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// What one run of a case came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why it failed.
    pub problem: Option<Problem>,
    /// Its flows, in order.
    pub flows: Vec<Facts>,
    /// What the tables hold at its end, sorted.
    pub tables: Vec<Entry>,
}

impl Facts {
    /// Lines that both runs have with other values: name, here, there.
    fn differences(&self, other: &Facts) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        let mut compare = |name, here: String, there: String| {
            if here != there {
                found.push((name, here, there));
            }
        };
        let choice = |facts: &Facts| match (&facts.pool, &facts.server) {
            (Some(pool), Some(server)) => format!("{pool} ({server})"),
            (Some(pool), None) => pool.clone(),
            _ => "none".to_owned(),
        };
        compare("pool and server", choice(self), choice(other));
        compare("log", bytes(&self.log), bytes(&other.log));
        compare("significant", self.significant.to_string(), other.significant.to_string());
        let error = |facts: &Facts| facts.error.clone().unwrap_or_else(|| "none".to_owned());
        compare("error of the script", error(self), error(other));
        compare("closed", self.closed.unwrap_or("no").to_owned(), other.closed.unwrap_or("no").to_owned());
        compare("waits for bytes", self.waiting.to_string(), other.waiting.to_string());
        let runs = |facts: &Facts| format!("request {}, response {}", facts.runs[0], facts.runs[1]);
        compare("scripts started", runs(self), runs(other));
        if self.server_received != other.server_received {
            let there = difference(&self.server_received, &other.server_received);
            compare("bytes at the server", bytes(&self.server_received), there);
        }
        if self.client_received != other.client_received {
            let there = difference(&self.client_received, &other.client_received);
            compare("bytes at the client", bytes(&self.client_received), there);
        }
        found
    }
}

impl Outcome {
    /// How `other` differs, one line for each thing; nothing if it is the same.
    #[must_use]
    pub fn differences(&self, other: &Outcome) -> Vec<Difference> {
        let mut found = Vec::new();
        for (here, there) in self.flows.iter().zip(&other.flows) {
            for (name, whole, cut) in here.differences(there) {
                found.push(Difference { what: format!("{name} of {}", here.client), whole, cut });
            }
        }
        if self.flows.len() != other.flows.len() {
            let count = |outcome: &Outcome| outcome.flows.len().to_string();
            found.push(Difference {
                what: "number of flows".to_owned(),
                whole: count(self),
                cut: count(other),
            });
        }
        if self.tables != other.tables {
            let (whole, cut) = (tables(&self.tables), tables(&other.tables));
            found.push(Difference { what: "tables".to_owned(), whole, cut });
        }
        found
    }
}

/// One thing that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub what: String,
    /// Its value with payloads in one piece.
    pub whole: String,
    /// Its value in the other run.
    pub cut: String,
}

fn tables(entries: &[Entry]) -> String {
    let one = |entry: &Entry| {
        let table = entry.table.as_ref().map(|table| format!("{} ", bytes(table))).unwrap_or_default();
        format!("{table}{} = {}", bytes(&entry.key), bytes(&entry.value))
    };
    let all: Vec<_> = entries.iter().map(one).collect();
    if all.is_empty() { "empty".to_owned() } else { all.join(", ") }
}
