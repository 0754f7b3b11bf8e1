//! Why there is no lab, or not this client.

use std::net::SocketAddr;

use scripting::ScriptError;

/// Why a lab cannot be made or used like that.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A script does not compile.
    #[error("scripts do not compile: {}", texts(.0))]
    Scripts(Vec<ScriptError>),
    /// No pipeline for this configuration.
    #[error(transparent)]
    Setup(#[from] dataplane::pipeline::SetupError),
    /// The latency histogram of the worker.
    #[error("no worker: {0}")]
    Worker(String),
    /// Client and VIP are of different families.
    #[error("{client} cannot talk to {vip}: one is IPv4, the other IPv6")]
    Families {
        /// The client.
        client: SocketAddr,
        /// The VIP.
        vip: SocketAddr,
    },
}

fn texts(errors: &[ScriptError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
