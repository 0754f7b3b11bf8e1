//! What a configuration lets a script name.

use std::net::IpAddr;

/// The names for the scripts of one DataScript set.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The name of the set.
    pub set: String,
    /// All pools of the configuration.
    pub pools: Vec<Pool>,
    /// All pool groups of the configuration.
    pub groups: Vec<Group>,
    /// The parser modules that are attached to the set.
    pub modules: Vec<String>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Whether scripts of the set may name it.
    pub attached: bool,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// A pool group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Whether scripts of the set may name it.
    pub attached: bool,
}

/// A server of a pool.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its host name, if it is configured by one.
    pub hostname: Option<String>,
    /// Its port.
    pub port: u16,
}

impl Server {
    /// Whether a script means this server by `name`.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let address = name.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        address == Some(self.address.to_canonical())
            || self.hostname.as_deref().is_some_and(|hostname| hostname.eq_ignore_ascii_case(name))
    }
}
