//! The packet core of weir: parse, flow table, NAT, balancing, tables. No DPDK, no Lua, no clock, no unsafe.
#![forbid(unsafe_code)]

pub mod address;
pub mod api;
pub mod balance;
pub mod counters;
pub mod io;
pub mod policy;
pub mod snapshot;
pub mod table;
