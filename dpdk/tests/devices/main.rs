//! The wrapper on DPDK's virtual devices. One EAL per process: run with `cargo nextest run`.
//!
//! Needs neither root nor huge pages, and takes huge pages where they are free.

#[cfg(test)]
mod eal;
#[cfg(test)]
mod net_null;
#[cfg(test)]
mod net_pcap;
#[cfg(test)]
mod net_ring;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod workers;
