//! The packet core of weir: parse, flow table, NAT, balancing, tables. No DPDK, no Lua, no clock, no unsafe.
#![forbid(unsafe_code)]

pub mod address;
pub mod api;
pub mod arp;
pub mod balance;
pub mod channel;
pub mod checksum;
pub mod counters;
pub mod flow;
pub mod flow_table;
pub mod fragments;
pub mod frame;
pub mod glance;
pub mod header;
pub mod icmp;
pub mod io;
pub mod memory;
pub mod mesh;
pub mod nd;
pub mod neighbor;
pub mod parse;
pub mod pipeline;
pub mod policy;
pub mod proxy_protocol;
pub mod report;
pub mod rewrite;
pub mod route;
pub mod rss;
pub mod script_profile;
pub mod script_trace;
pub mod snapshot;
pub mod snat;
pub mod steering;
pub mod table;
pub mod wheel;
pub mod worker;
