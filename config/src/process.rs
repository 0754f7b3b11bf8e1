//! What the process needs to know and the core does not: devices, DPDK, where logs go.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use dataplane::io::PortId;

/// Everything of a configuration that is not the core's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The device of each interface, by [`PortId`].
    pub devices: Vec<Device>,
    /// How DPDK is set up.
    pub dpdk: DpdkSettings,
    /// Path of the admin socket, if there is to be one.
    pub admin_socket: Option<PathBuf>,
    /// Where connection records go.
    pub connection_log: LogDestination,
    /// Source ports of the health monitors' own connections; above the SNAT ports.
    pub monitor_ports: RangeInclusive<u16>,
}

impl ProcessSettings {
    /// The device of a port.
    #[must_use]
    pub fn device(&self, port: PortId) -> Option<&Device> {
        self.devices.get(port.index())
    }
}

/// A device that DPDK drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Driver name and arguments as for EAL's `--vdev`: `net_tap0,iface=weir0`.
    Virtual(String),
    /// Address as for EAL's `--allow`, with its domain: `0000:3b:00.0`.
    Pci(String),
}

impl Device {
    /// The EAL argument that brings the device up.
    #[must_use]
    pub fn eal_argument(&self) -> String {
        match self {
            Device::Virtual(device) => format!("--vdev={device}"),
            Device::Pci(address) => format!("--allow={address}"),
        }
    }

    /// The name under which DPDK finds the port: the driver's instance, or the PCI address.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Device::Virtual(device) => device.split(',').next().unwrap_or(device),
            Device::Pci(address) => address,
        }
    }
}

/// How DPDK is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkSettings {
    /// EAL arguments besides those that weir makes itself.
    pub eal_args: Vec<String>,
    /// Receive descriptors per port.
    pub rx_descriptors: u16,
    /// Transmit descriptors per port.
    pub tx_descriptors: u16,
    /// Packet buffers, for all ports and workers together; `None`: [`DpdkSettings::mbufs_for`].
    pub mbufs: Option<u32>,
    /// Use of huge pages.
    pub hugepages: Hugepages,
    /// How many workers there are.
    pub workers: Workers,
    /// The CPUs of the workers, in turn; empty: those that the process may use.
    pub cpus: Vec<u16>,
    /// What the worker does when there is nothing to do.
    pub idle: Idle,
}

impl DpdkSettings {
    /// Packet buffers with which no descriptor stays empty: those of all queues, and some in flight for each worker.
    #[must_use]
    pub fn mbufs_needed(&self, workers: u8, ports: usize) -> u32 {
        let ports = u32::try_from(ports).unwrap_or(u32::MAX);
        let queues = ports.saturating_mul(u32::from(self.rx_descriptors) + u32::from(self.tx_descriptors));
        queues.saturating_add(SPARE_MBUFS).saturating_mul(u32::from(workers.max(1)))
    }

    /// Packet buffers for so many workers and ports: as configured, or what is needed, 16,383 at least.
    #[must_use]
    pub fn mbufs_for(&self, workers: u8, ports: usize) -> u32 {
        // One less than a power of two is what pools like best.
        let enough = || self.mbufs_needed(workers, ports).saturating_add(1).next_power_of_two() - 1;
        self.mbufs.unwrap_or_else(|| enough().max(16_383))
    }
}

/// Packet buffers of a worker besides those in descriptors: one burst at a time, the pool's cache, what waits for neighbours.
pub(crate) const SPARE_MBUFS: u32 = 1024;

/// How many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU that the process may use, or that is listed; as many as each device has queues at most.
    Auto,
    /// So many.
    Count(u8),
}

impl Workers {
    /// Their number, on so many CPUs.
    #[must_use]
    pub fn on(self, cpus: usize) -> u8 {
        match self {
            Workers::Count(count) => count,
            Workers::Auto => {
                u8::try_from(cpus).unwrap_or(u8::MAX).clamp(1, dataplane::steering::MOST_WORKERS)
            }
        }
    }

    /// How many of `workers` there can be on devices that have so many queue pairs. A number that was written stays: a
    /// device that has too few for it refuses.
    #[must_use]
    pub fn within(self, workers: u8, queues: impl IntoIterator<Item = u16>) -> u8 {
        match self {
            Workers::Count(_) => workers,
            Workers::Auto => {
                let fewest = queues.into_iter().min().and_then(|queues| u8::try_from(queues).ok());
                workers.min(fewest.unwrap_or(u8::MAX)).max(1)
            }
        }
    }
}

/// Use of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// If there are any, else one warning and `--no-huge`.
    Auto,
    /// Never: `--no-huge`.
    Never,
}

/// What a worker does when a round brought no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: the lowest latency, a whole CPU.
    Poll,
    /// The CPU's pause instruction: kind to the other hardware thread, still a whole CPU.
    Pause,
    /// Sleeps for some tens of microseconds after many empty rounds.
    Sleep,
}

/// Where connection records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file; relative to the working directory.
    File(PathBuf),
    /// Nowhere.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_become_eal_arguments() {
        let tap = Device::Virtual("net_tap0,iface=weir0".into());
        assert_eq!(tap.eal_argument(), "--vdev=net_tap0,iface=weir0");
        assert_eq!(tap.name(), "net_tap0");
        let nic = Device::Pci("0000:3b:00.0".into());
        assert_eq!(nic.eal_argument(), "--allow=0000:3b:00.0");
        assert_eq!(nic.name(), "0000:3b:00.0");
    }

    #[test]
    fn automatic_workers_are_as_many_as_cpus_64_at_most() {
        let on = |cpus| Workers::Auto.on(cpus);
        assert_eq!([0, 1, 2, 7, 64, 65, 255, 256, 1000].map(on), [1, 1, 2, 7, 64, 64, 64, 64, 64]);
        assert_eq!([0, 1, 1000].map(|cpus| Workers::Count(5).on(cpus)), [5; 3], "as written");
    }

    #[test]
    fn automatic_workers_are_no_more_than_the_queues_of_any_device() {
        let auto = |queues: &[u16]| Workers::Auto.within(8, queues.iter().copied());
        assert_eq!((auto(&[]), auto(&[16]), auto(&[8, 9])), (8, 8, 8), "there are enough");
        assert_eq!((auto(&[4, 16]), auto(&[16, 4]), auto(&[16, 3, 4])), (4, 4, 3), "the fewest");
        assert_eq!((auto(&[1024]), auto(&[256, 257])), (8, 8), "more than there may be workers");
        assert_eq!((auto(&[1, 16]), auto(&[0])), (1, 1));
        assert_eq!(
            Workers::Count(8).within(8, [4, 16]),
            8,
            "the device refuses it, with the number that is possible"
        );
    }
}
