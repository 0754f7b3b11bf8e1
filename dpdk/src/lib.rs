//! The part of DPDK that weir uses, safe.
//!
//! Calls come in this order: [`EalArguments`] from the configuration, [`Eal::init`] once in the life of the process,
//! a [`Mempool`], a [`Port`] per device, configured and started, and [`DpdkIo`] around them, which the worker runs on.
//! Each of them keeps alive what it needs of the ones before; when the last is gone, EAL is cleaned up.
//!
//! # Threads
//! The thread that calls [`Eal::init`] becomes EAL's main lcore; [`Eal`] stays on it. Ports are set up there, and
//! [`DpdkIo::split`] gives each worker a queue pair of each of them, to take to the lcore it runs on
//! ([`Eal::run_on_lcores`]). Buffers may go from one lcore to another: pools keep a cache for each.
//!
//! # One EAL
//! DPDK can be initialised once in a process and never again, not even after it was cleaned up. Tests that need it
//! therefore want a process each: run them with `cargo nextest run`. With `cargo test` the first one of each test
//! binary passes and the others report [`Error::AlreadyInitialized`].

mod arguments;
mod eal;
mod io;
mod mbuf;
mod mempool;
mod port;
mod ring;
mod rss;

use std::ffi::{CStr, c_int};

pub use arguments::{Device, EalArguments, EalOptions, HugePages, Machine};
pub use eal::Eal;
pub use io::DpdkIo;
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolConfig};
pub use port::{Link, MulticastReception, Port, PortConfig, Spreading};
pub use ring::ring_pair;

/// What can go wrong before the first packet. On the packet path nothing fails; it counts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text from the configuration that holds a zero byte.
    #[error("{0:?} holds a zero byte")]
    ZeroByte(String),
    /// A device that is neither a virtual one nor a PCI address.
    #[error(
        "{0:?} is not a device: expected a virtual device such as net_tap0,iface=weir0 \
         or a PCI address such as 0000:03:00.0"
    )]
    Device(String),
    /// A second call of [`Eal::init`] in this process.
    #[error("DPDK was already initialised in this process, which it allows once")]
    AlreadyInitialized,
    /// EAL refused to start. What it printed on standard error says more.
    #[error("DPDK did not start: {reason} (arguments: {arguments})")]
    Init {
        /// DPDK's text for the error.
        reason: String,
        /// The arguments that it was started with.
        arguments: String,
    },
    /// No port belongs to this device.
    #[error(
        "no DPDK port for device {0:?}: is the driver installed, and the device not in use by the kernel?"
    )]
    NoPort(String),
    /// [`Eal::port`] was called for a device whose [`Port`] still exists.
    #[error("device {0:?} is in use already")]
    PortTaken(String),
    /// A call that the port's state does not allow.
    #[error("port {port} is {found}, but has to be {wanted}")]
    State {
        /// The port's device.
        port: String,
        /// The state it is in.
        found: &'static str,
        /// The state that the call needs.
        wanted: &'static str,
    },
    /// The MTU cannot be had.
    #[error("port {port}: MTU {requested} is not possible; the largest is {max}")]
    Mtu {
        /// The port's device.
        port: String,
        /// Bytes asked for.
        requested: u16,
        /// The most that the device and the buffers of the pool allow, bytes.
        max: u16,
    },
    /// More jobs than lcores.
    #[error("{wanted} lcores are needed, but EAL was started with {lcores}")]
    Lcores {
        /// Jobs.
        wanted: usize,
        /// Lcores.
        lcores: u32,
    },
    /// A device without enough queues.
    #[error(
        "port {port} has {max} transmit queues, but {wanted} workers need one each; workers = {max} is possible with it"
    )]
    Queues {
        /// The port's device.
        port: String,
        /// Queue pairs asked for.
        wanted: u16,
        /// Transmit queues that the device has.
        max: u16,
    },
    /// Any other call that DPDK refused.
    #[error("{call} failed for {subject}: {reason}")]
    Call {
        /// DPDK's function.
        call: &'static str,
        /// The port, pool or device.
        subject: String,
        /// DPDK's text for the error.
        reason: String,
    },
}

impl Error {
    /// From a return value that is 0 or a negative errno.
    fn check(call: &'static str, subject: &str, result: c_int) -> Result<(), Error> {
        if result < 0 { Err(Self::call(call, subject, -result)) } else { Ok(()) }
    }

    /// From a call that left its reason in `rte_errno`.
    fn last(call: &'static str, subject: &str) -> Error {
        Self::call(call, subject, errno())
    }

    fn call(call: &'static str, subject: &str, errno: c_int) -> Error {
        Error::Call { call, subject: subject.to_owned(), reason: text(errno) }
    }
}

/// `rte_errno` of this thread.
fn errno() -> c_int {
    // SAFETY: reads a thread-local variable.
    unsafe { dpdk_sys::weir_errno() }
}

/// DPDK's text for an errno.
fn text(errno: c_int) -> String {
    // SAFETY: returns a string that lives until the next call on this thread; it is copied at once.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno)) };
    text.to_string_lossy().into_owned()
}

/// EAL's number of the calling thread; the main lcore is 0 with the arguments of [`EalArguments`].
#[must_use]
pub fn lcore() -> u32 {
    // SAFETY: reads a thread-local variable.
    unsafe { dpdk_sys::weir_lcore_id() }
}

/// The release of DPDK that is linked, such as `DPDK 22.11.11`.
#[must_use]
pub fn version() -> &'static str {
    // SAFETY: returns a string with static lifetime, filled at the first call; needs no EAL.
    let version = unsafe { CStr::from_ptr(dpdk_sys::rte_version()) };
    version.to_str().unwrap_or("DPDK")
}
