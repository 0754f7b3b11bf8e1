//! Bindings to the part of DPDK that weir uses: unsafe functions and nothing else. The crate `dpdk` makes them safe.
//!
//! * [the generated part](self): functions, types and constants that bindgen reads from the installed headers;
//! * `weir_*`: a C shim for what DPDK has only as inline functions, macros and thread-locals;
//! * [`rx_burst`] and [`tx_burst`]: DPDK's two hot inline functions, in Rust;
//! * [`mbuf`]: the fields of a packet buffer.

mod burst;
pub mod mbuf;

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated from DPDK's headers, in DPDK's own names"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
pub use burst::{rx_burst, tx_burst};
