//! `weir run`: control on its own threads first, then DPDK, then the worker on this thread until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use config::{Config, DpdkSettings, Hugepages, Idle, LogDestination, ProcessSettings};
use control::{Control, ControlSettings};
use dataplane::channel::{Capacities, channel};
use dataplane::pipeline::Pipeline;
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Round, Worker};
use dpdk::{Device, DpdkIo, Eal, EalArguments, EalOptions, HugePages, Mempool, MempoolConfig, PortConfig};
use scripting::LuaPolicy;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::clock;

/// Runs until a signal or an operator says stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let reopen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot register a signal handler")?;
    }
    signal_hook::flag::register(SIGHUP, Arc::clone(&reopen)).context("cannot register a signal handler")?;
    let snapshot = Arc::clone(&config.snapshot);
    eprintln!("weir {}, {}", env!("WEIR_VERSION"), dpdk::version());
    eprint!("{}", config.summary());
    let policy = LuaPolicy::new(&snapshot, clock::script_nanoseconds).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow!("scripts do not compile: {}", texts.join("; "))
    })?;
    let (worker_end, control_end) = channel(Capacities::default());
    // Before EAL, which pins the calling thread: threads that start later would inherit that.
    let control = Control::spawn(Arc::clone(&snapshot), control_end, control_settings(&config))?;
    let result = open(&config).and_then(|(eal, io, macs)| {
        let now = clock::instant(clock::nanoseconds());
        let pipeline = Pipeline::new(Arc::clone(&snapshot), &macs, policy, seed(), now)?;
        let worker =
            Worker::new(io, pipeline, worker_end).map_err(|e| anyhow!("latency histogram: {e:?}"))?;
        eprintln!("weir: running; SIGINT or SIGTERM stops it");
        poll(worker, &control, config.process.dpdk.idle, &stop, &reopen);
        drop(eal);
        Ok(())
    });
    control.shutdown();
    result?;
    eprintln!("weir: stopped");
    Ok(())
}

/// 128 unpredictable bits from the standard library's own random keys.
fn seed() -> u128 {
    use std::hash::{BuildHasher, Hasher};
    let random = || std::hash::RandomState::new().build_hasher().finish();
    u128::from(random()) << 64 | u128::from(random())
}

fn control_settings(config: &Config) -> ControlSettings {
    let ProcessSettings { connection_log, admin_socket, monitor_ports, .. } = &config.process;
    ControlSettings {
        log: match connection_log {
            LogDestination::Stdout => control::LogDestination::Stdout,
            LogDestination::Stderr => control::LogDestination::Stderr,
            LogDestination::File(path) => control::LogDestination::File(path.clone()),
            LogDestination::None => control::LogDestination::None,
        },
        admin_socket: admin_socket.clone(),
        monitor_ports: monitor_ports.clone(),
        version: env!("WEIR_VERSION").to_owned(),
        ..ControlSettings::new(&config.snapshot)
    }
}

/// Brings DPDK and its ports up.
fn open(config: &Config) -> anyhow::Result<(Eal, DpdkIo, Vec<[u8; 6]>)> {
    let settings = &config.process.dpdk;
    let pool = pool_size(&config.snapshot, settings);
    let arguments = EalArguments::new(&eal_options(&config.process, &pool)?);
    if let Some(warning) = arguments.warning() {
        eprintln!("weir: warning: {warning}");
    }
    let eal = Eal::init(&arguments).context("DPDK does not start")?;
    let pool = Mempool::new(&eal, "weir", &pool).context("no packet buffers")?;
    let mut ports = Vec::new();
    let mut macs = Vec::new();
    for (interface, device) in config.snapshot.interfaces.iter().zip(&config.process.devices) {
        let name = device.name();
        let opened = || -> Result<_, dpdk::Error> {
            let mut port = eal.port(name)?;
            let (rx_descriptors, tx_descriptors) = (settings.rx_descriptors, settings.tx_descriptors);
            port.configure(
                &PortConfig { rx_descriptors, tx_descriptors, mtu: interface.mtu, ..PortConfig::default() },
                &pool,
            )?;
            port.start()?;
            let mac = port.mac()?;
            Ok((port, mac))
        };
        let (port, mac) =
            opened().with_context(|| format!("interface '{}' (device {name})", interface.name))?;
        eprintln!("weir: interface {} is {name}, MAC {}", interface.name, mac_text(mac));
        ports.push(port);
        macs.push(mac);
    }
    Ok((eal, DpdkIo::new(ports, pool)?, macs))
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Buffers for the largest MTU, with Ethernet header and tags.
fn pool_size(snapshot: &Snapshot, settings: &DpdkSettings) -> MempoolConfig {
    const LINK: u16 = 64;
    let mtu = snapshot.interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(1500);
    let default = MempoolConfig::default();
    MempoolConfig {
        mbufs: settings.mbufs,
        frame: default.frame.max(mtu.saturating_add(LINK)),
        cache: default.cache.min(settings.mbufs / 4),
    }
}

fn eal_options(process: &ProcessSettings, pool: &MempoolConfig) -> anyhow::Result<EalOptions> {
    const MBUF: u64 = 256 + 128;
    let devices: Result<Vec<Device>, dpdk::Error> = process
        .devices
        .iter()
        .map(|device| match device {
            config::Device::Virtual(text) | config::Device::Pci(text) => Device::parse(text),
        })
        .collect();
    let bytes = u64::from(pool.mbufs) * (u64::from(pool.frame) + MBUF);
    Ok(EalOptions {
        devices: devices?,
        cpu: process.dpdk.cpu.map(u32::from),
        memory_mib: EalOptions::default().memory_mib.max((bytes >> 20) as u32 * 2),
        huge_pages: match process.dpdk.hugepages {
            Hugepages::Auto => HugePages::IfFree,
            Hugepages::Never => HugePages::Never,
        },
        extra: process.dpdk.eal_args.clone(),
    })
}

/// Empty rounds before a worker that may sleep does, about a millisecond.
const PATIENCE: u32 = 2000;
/// How long it sleeps.
const NAP: Duration = Duration::from_micros(50);

/// The worker's thread from now on.
fn poll(
    mut worker: Worker<DpdkIo, LuaPolicy>,
    control: &Control,
    idle: Idle,
    stop: &AtomicBool,
    reopen: &AtomicBool,
) {
    let mut empty = 0u32;
    let mut now = clock::nanoseconds();
    while !stop.load(Ordering::Relaxed) && !worker.stopping() {
        let round = worker.run_once(clock::instant(now));
        let done = clock::nanoseconds();
        if round.received > 0 {
            worker.record_latency(done - now, round.received);
        }
        now = done;
        empty = if round.is_idle() { empty.saturating_add(1) } else { 0 };
        rest(idle, round, empty);
        if empty > 0 && empty.is_multiple_of(PATIENCE) && reopen.swap(false, Ordering::Relaxed) {
            control.reopen_log();
        }
        if empty > PATIENCE {
            now = clock::nanoseconds();
        }
    }
    worker.shut_down(clock::instant(now));
}

/// What a worker does after an empty round.
fn rest(idle: Idle, round: Round, empty: u32) {
    match idle {
        _ if !round.is_idle() => {}
        Idle::Poll => {}
        Idle::Sleep if empty > PATIENCE => std::thread::sleep(NAP),
        Idle::Pause | Idle::Sleep => std::hint::spin_loop(),
    }
}
