//! weir in a laboratory: the worker, pipeline and scripts that run in production, over ports in memory and in virtual
//! time, with a network around them that is made from the configuration itself.
//!
//! No device, no clock, no root. A [`Blueprint`] holds what all labs of a configuration have in common; making a
//! [`Lab`] of it costs about a millisecond, so that each case of a test may have a fresh one.
//!
//! ```text
//! let blueprint = Blueprint::new(&config.snapshot, Options::default());
//! let mut lab = blueprint.lab()?;
//! lab.tables_insert(ServiceId(0), None, b"10.0.0.7", b"banned", 300);
//! let client = lab.client("198.51.100.7:4242".parse()?, "192.0.2.10:443".parse()?, Protocol::Tcp)?;
//! lab.connect(client);                    // the handshake
//! lab.send(client, b"hello");             // or `segment(client, offset, bytes)`, in any order, more than once
//! lab.finish(client);
//! lab.advance(Duration::from_secs(1));
//! lab.runs();                             // what the scripts did, with their traces
//! lab.sessions();                         // what came to which server
//! lab.client_view(client).received();     // what came back
//! lab.records();                          // the connection log
//! ```
//!
//! # The network
//! Whatever neighbour weir asks for by ARP or ND is there: next hops, servers, clients. Every server of the
//! configuration has a [`Host`] that takes connections, keeps what it gets and says nothing; [`Lab::set_server`] and
//! [`Lab::set_host`] change that. Nothing is lost, repeated or reordered that the caller does not lose, repeat or
//! reorder. Calls that make somebody send let everybody act until nothing moves at this moment; only
//! [`Lab::advance`] lets time pass.
//!
//! # What differs from production
//! There is one worker. Tables and limits are cut down ([`Options::flows`]); memory for fragments likewise. The budget of scripts is counted in
//! instructions, a microsecond for 500, instead of time, so that every run ends alike. Nothing probes servers: all
//! are up until told otherwise.
#![forbid(unsafe_code)]

mod clients;
mod endpoint;
mod error;
mod explain;
mod network;
mod observed;
mod options;
mod packet;
pub mod replay;
mod servers;
mod state;
mod world;

pub use clients::{Client, ClientId};
pub use endpoint::{Endpoint, Phase as TcpPhase, Settings as TcpSettings};
pub use error::LabError;
pub use explain::{By, Candidate, Choice};
pub use observed::{Observed, Run, RunState};
pub use options::{Blueprint, Options, Tracing};
pub use packet::{Packet, Transport};
pub use servers::{Behaviour, Host, Reply, Session, SessionId};
pub use state::ServerState;
pub use world::{Frame, Lab};
