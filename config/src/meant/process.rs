//! Settings of the process.

use std::path::PathBuf;

use crate::problem::Problems;
use crate::process::{
    Device, DpdkSettings, Hugepages, Idle, LogDestination, ProcessSettings, SPARE_MBUFS, Workers,
};
use crate::read::{At, Given, Part};
use crate::value::network::Ports;
use crate::value::quantity::Int;
use crate::value::text::SocketPath;
use crate::written::{Descriptors, Dpdk, File};

pub(super) fn settings(file: &File, monitor_ports: Ports, problems: &mut Problems) -> ProcessSettings {
    let unknown = Device::Virtual(String::new());
    let device = |d: &Option<At<Device>>| d.as_ref().map_or_else(|| unknown.clone(), |at| at.value.clone());
    let socket = file.admin.socket.or(SocketPath(Some(PathBuf::from("/run/weir.sock")))).0;
    let devices: Vec<Device> = file.interface.iter().map(|i| device(&i.device.0)).collect();
    ProcessSettings {
        dpdk: dpdk(&file.dpdk, &devices, problems),
        devices,
        admin_socket: socket,
        connection_log: file.log.connections.or(LogDestination::Stdout),
        monitor_ports: monitor_ports.first..=monitor_ports.last,
    }
}

fn dpdk(written: &Part<Dpdk>, devices: &[Device], problems: &mut Problems) -> DpdkSettings {
    for argument in &written.eal_args.items {
        refuse_own_argument(argument, problems);
    }
    let rx_descriptors = descriptors("rx_descriptors", &written.rx_descriptors, problems);
    let tx_descriptors = descriptors("tx_descriptors", &written.tx_descriptors, problems);
    // Cards are worth a CPU of their own; who tries weir out on virtual devices has something else to do on it.
    let card = devices.iter().any(|device| matches!(device, Device::Pci(_)));
    let settings = DpdkSettings {
        eal_args: written.eal_args.values().cloned().collect(),
        rx_descriptors,
        tx_descriptors,
        mbufs: written.mbufs.0.as_ref().map(|at| at.value.into_type()),
        hugepages: written.hugepages.or(Hugepages::Auto),
        workers: written.workers.or(Workers::Count(1)),
        cpus: written.cpus.values().map(|cpu| cpu.into_type()).collect(),
        idle: written.idle.or(if card { Idle::Poll } else { Idle::Sleep }),
    };
    check_mbufs(written, &settings, devices.len(), problems);
    settings
}

fn check_mbufs(written: &Part<Dpdk>, settings: &DpdkSettings, ports: usize, problems: &mut Problems) {
    let Some(at) = &written.mbufs.0 else { return };
    // How many CPUs there are is known at the start only.
    let workers = settings.workers.on(settings.cpus.len());
    let (mbufs, needed) = (settings.mbufs_for(workers, ports), settings.mbufs_needed(workers, ports));
    if mbufs < needed {
        let message = format!("{mbufs} packet buffers do not fill the descriptors of all ports");
        let help = format!(
            "mbufs = {needed} or more: for each worker the descriptors of all ports and {SPARE_MBUFS} in flight"
        );
        problems.error(&at.span, message).help(help);
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
        "--lcores" | "--main-lcore" => "the CPUs are chosen by `workers` and `cpus` in [dpdk]",
        "--no-huge" => "write hugepages = \"never\" in [dpdk]",
        _ if short("-a") => "devices are named by `device` in [[interface]]",
        _ if short("-l") || short("-c") => "the CPUs are chosen by `workers` and `cpus` in [dpdk]",
        _ => return,
    };
    problems.error(&argument.span, format!("weir sets the EAL argument `{name}` itself")).help(help);
}
