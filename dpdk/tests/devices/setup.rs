//! From nothing to started ports.

use dataplane::io::{Burst, PacketBuf, PacketIo, PortId};
use dpdk::{Device, DpdkIo, Eal, EalArguments, EalOptions, Mbuf, Mempool, MempoolConfig, Port, PortConfig};

/// The first and the second port of a [`DpdkIo`].
pub const PORT: PortId = PortId(0);
pub const OTHER: PortId = PortId(1);

pub fn options(devices: &[&str]) -> EalOptions {
    let devices = devices.iter().map(|text| Device::parse(text).unwrap()).collect();
    EalOptions { devices, memory_mib: 32, ..EalOptions::default() }
}

pub fn init(devices: &[&str]) -> Eal {
    Eal::init(&EalArguments::new(&options(devices))).unwrap()
}

pub fn pool(eal: &Eal, mbufs: u32) -> Mempool {
    Mempool::new(eal, "frames", &MempoolConfig { mbufs, cache: 32, frame: 2048 }).unwrap()
}

pub fn started(mut port: Port, pool: &Mempool) -> Port {
    let config = PortConfig { rx_descriptors: 256, tx_descriptors: 512, ..PortConfig::default() };
    port.configure(&config, pool).unwrap();
    port.start().unwrap();
    port
}

pub fn io(eal: &Eal, devices: &[&str], pool: &Mempool) -> DpdkIo {
    let ports = devices.iter().map(|device| started(eal.port(device).unwrap(), pool)).collect();
    DpdkIo::new(ports, pool.clone()).unwrap()
}

/// A frame from the pool with these bytes.
pub fn frame(io: &mut DpdkIo, bytes: &[u8]) -> Mbuf {
    let mut mbuf = io.alloc().unwrap();
    assert!(mbuf.set_len(bytes.len()));
    mbuf.bytes_mut().copy_from_slice(bytes);
    mbuf
}

pub fn receive(io: &mut DpdkIo, port: PortId) -> Burst<Mbuf> {
    let mut burst = Burst::new();
    io.rx_burst(port, &mut burst);
    burst
}
