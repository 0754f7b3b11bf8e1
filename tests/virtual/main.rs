//! The whole chain but for DPDK: TOML text, scripts, worker and pipeline over in-memory ports, in virtual time.
#![cfg(test)]

mod host;
mod inside;
mod local;
mod tcp_binding;
mod udp;
mod wire;
mod world;
