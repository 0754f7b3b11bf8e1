//! The DataScript API as data: every call with its arguments, results and events, and the Lua world around it.
//!
//! This is the one description. The functions that scripts call are registered under these names, their refusals in
//! the wrong event come from here, and so do the checks of [`crate::check`], `docs/datascript-reference.md` and the
//! files for editors ([`crate::generate`]). Tests of `scripting` call each function with each kind of argument and
//! compare what happens with this table.

mod flow;
mod meaning;
mod pools;
mod tables;
mod types;
mod world;

pub use flow::*;
pub use meaning::Meaning;
pub use pools::*;
pub use tables::*;
pub use types::{Event, Events, Function, Kind, Kinds, Need, Outcome, Parameter, Release};
pub use world::{
    ABSENT, Absent, BASE, LIBRARIES, Library, MODULES, Module, STRING_EXTRAS, UNSUPPORTED,
    UNSUPPORTED_SPACES, absent, in_library, module,
};

/// All functions of `avi`, in the order of the reference.
pub const FUNCTIONS: &[&Function] = &[
    &READ,
    &COLLECT,
    &L4_DONE,
    &VS_DONE,
    &LOG,
    &DEBUG_LOG,
    &CLOSE_CONN,
    &CLIENT_IP,
    &CLIENT_PORT,
    &VIP_IP,
    &VIP_PORT,
    &SERVICE_NAME,
    &PERSIST,
    &TABLE_INSERT,
    &TABLE_LOOKUP,
    &TABLE_REFRESH,
    &TABLE_REMOVE,
    &SERVER_STATUS,
    &SERVERS,
    &SERVER_IP,
    &GET_SERVER_IP,
    &SERVER_INFO,
    &SELECT_POOL,
    &SELECT_GROUP,
];

/// The namespaces of `avi` that hold functions.
pub const SPACES: &[&str] = &["avi.l4", "avi.vs", "avi.pool", "avi.poolgroup"];

/// `avi.vs.reqvar`, whose fields are the script's own.
pub const VARIABLES: &str = "avi.vs.reqvar";

/// The constant that marks a record as significant.
pub const SIGNIFICANT: &str = "avi.SIG_ENABLE";

/// The function of this name, such as `avi.l4.read`.
#[must_use]
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().copied().find(|function| function.name == name)
}

/// The function of the original's later releases with this name, which weir does not have.
#[must_use]
pub fn unsupported(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    UNSUPPORTED.contains(&name)
        || UNSUPPORTED_SPACES.iter().any(|space| name.strip_prefix(space).is_some_and(|n| n.starts_with('.')))
        || SPACES.iter().any(|space| name.starts_with(space)) && last.contains("ftp")
}
