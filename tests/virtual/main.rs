//! The whole chain but for DPDK: TOML text, scripts, worker and pipeline over in-memory ports, in virtual time.
#![cfg(test)]

mod blind;
mod bursts;
mod chaos;
mod connection_limits;
mod cookies;
mod device;
mod endings;
mod fragments;
mod hello;
mod host;
mod hostile;
mod icmp;
mod inside;
mod invariants;
mod limits;
mod local;
mod pieces;
mod pkt;
mod preserve;
mod preserve_workers;
mod proxied;
mod reload;
mod reload_places;
mod scripts;
mod splice;
mod spliced;
mod tcp_binding;
mod traced;
mod udp;
mod weir;
mod wire;
mod workers;
mod workers_errors;
mod workers_snat;
mod world;
