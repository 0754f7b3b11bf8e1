//! What is different between two configurations, by name.

use std::fmt::{self, Display};

/// What is different, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Virtual services.
    pub services: Differences,
    /// Pools; another set of servers is no change of the pool, another order of them is.
    pub pools: Differences,
    /// `POOL ADDRESS:PORT`.
    pub servers: Differences,
    /// Pool groups.
    pub pool_groups: Differences,
    /// DataScript sets.
    pub script_sets: Differences,
}

/// What is different in one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Not there before.
    pub added: Vec<String>,
    /// There before, otherwise.
    pub changed: Vec<String>,
    /// There before.
    pub removed: Vec<String>,
}

impl Changes {
    /// Nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|(_, differences)| **differences == Differences::default())
    }

    /// All lists with the words for what is in them.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, &Differences); 5] {
        [
            ("services", &self.services),
            ("pools", &self.pools),
            ("servers", &self.servers),
            ("pool groups", &self.pool_groups),
            ("DataScript sets", &self.script_sets),
        ]
    }
}

impl Display for Changes {
    /// A line for each list in which something is different.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, Differences { added, changed, removed }) in self.kinds() {
            let lists = [("added", added), ("changed", changed), ("removed", removed)];
            let parts = lists.iter().filter(|(_, names)| !names.is_empty());
            let parts: Vec<String> =
                parts.map(|(what, names)| format!("{what} {}", names.join(", "))).collect();
            if !parts.is_empty() {
                writeln!(f, "{kind}: {}", parts.join("; "))?;
            }
        }
        Ok(())
    }
}

impl Differences {
    /// `same` is `None` for what was not there.
    pub(super) fn note(&mut self, same: Option<bool>, name: impl FnOnce() -> String) {
        match same {
            None => self.added.push(name()),
            Some(false) => self.changed.push(name()),
            Some(true) => {}
        }
    }
}
