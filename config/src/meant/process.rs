//! Settings of the process.

use std::path::PathBuf;

use crate::problem::Problems;
use crate::process::{Device, DpdkSettings, Hugepages, Idle, LogDestination, ProcessSettings};
use crate::read::{At, Given, Part};
use crate::value::network::Ports;
use crate::value::quantity::Int;
use crate::value::text::SocketPath;
use crate::written::{Descriptors, Dpdk, File};

/// Packet buffers besides those in descriptors: a burst per port, the pool's cache, what is held for scripts.
const SPARE_MBUFS: u32 = 512;

pub(super) fn settings(file: &File, monitor_ports: Ports, problems: &mut Problems) -> ProcessSettings {
    let unknown = Device::Virtual(String::new());
    let device = |d: &Option<At<Device>>| d.as_ref().map_or_else(|| unknown.clone(), |at| at.value.clone());
    let socket = file.admin.socket.or(SocketPath(Some(PathBuf::from("/run/weir.sock")))).0;
    ProcessSettings {
        devices: file.interface.iter().map(|i| device(&i.device.0)).collect(),
        dpdk: dpdk(&file.dpdk, file.interface.len(), problems),
        admin_socket: socket,
        connection_log: file.log.connections.or(LogDestination::Stdout),
        monitor_ports: monitor_ports.first..=monitor_ports.last,
    }
}

fn dpdk(written: &Part<Dpdk>, ports: usize, problems: &mut Problems) -> DpdkSettings {
    for argument in &written.eal_args.items {
        refuse_own_argument(argument, problems);
    }
    let rx_descriptors = descriptors("rx_descriptors", &written.rx_descriptors, problems);
    let tx_descriptors = descriptors("tx_descriptors", &written.tx_descriptors, problems);
    let mbufs = written.mbufs.or(Int::new(16383)).into_type::<u32>();
    let ports = u32::try_from(ports).unwrap_or(u32::MAX);
    let needed = ports.saturating_mul(u32::from(rx_descriptors) + u32::from(tx_descriptors)) + SPARE_MBUFS;
    if mbufs < needed {
        let span = written.mbufs.0.as_ref().map(|at| &at.span).or(written.span());
        let message = format!("{mbufs} packet buffers do not fill the descriptors of all ports");
        let help = format!("mbufs = {needed} or more: descriptors of all ports and {SPARE_MBUFS} in flight");
        problems.error(span.unwrap_or(&(0..0)), message).help(help);
    }
    DpdkSettings {
        eal_args: written.eal_args.values().cloned().collect(),
        rx_descriptors,
        tx_descriptors,
        mbufs,
        hugepages: written.hugepages.or(Hugepages::Auto),
        cpu: written.cpu.0.as_ref().map(|at| at.value.into_type()),
        idle: written.idle.or(Idle::Poll),
    }
}

fn descriptors(key: &str, given: &Given<Descriptors>, problems: &mut Problems) -> u16 {
    let count = given.or(Int::new(1024)).into_type::<u16>();
    if let Some(at) = given.0.as_ref().filter(|_| !count.is_multiple_of(32)) {
        let down = count - count % 32;
        let message = format!("`{key}`: {count} is not a multiple of 32");
        let help = format!("network cards want that: {down} or {}", u32::from(down) + 32);
        problems.error(&at.span, message).help(help);
    }
    count
}

/// EAL arguments that weir makes from other keys.
fn refuse_own_argument(argument: &At<String>, problems: &mut Problems) {
    let text = argument.value.as_str();
    let (name, _) = text.split_once('=').unwrap_or((text, ""));
    let short = |flag: &str| name.starts_with(flag) && !name.starts_with("--");
    let help = match name {
        "--vdev" | "--allow" => "devices are named by `device` in [[interface]]",
        "--lcores" | "--main-lcore" => "the CPU is chosen by `cpu` in [dpdk]",
        "--no-huge" => "write hugepages = \"never\" in [dpdk]",
        _ if short("-a") => "devices are named by `device` in [[interface]]",
        _ if short("-l") || short("-c") => "the CPU is chosen by `cpu` in [dpdk]",
        _ => return,
    };
    problems.error(&argument.span, format!("weir sets the EAL argument `{name}` itself")).help(help);
}
