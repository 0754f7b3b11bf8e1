//! `weir run`: DPDK, control on its own threads, then the workers on their lcores, of which this thread is the first,
//! until they are told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use config::{Config, DpdkSettings, Hugepages, Idle, LogDestination, ProcessSettings};
use control::{Control, ControlSettings, Reread, Signals};
use dataplane::channel::{Capacities, ControlEnd, WorkerEnd, channel};
use dataplane::io::PortId;
use dataplane::mesh::Mesh;
use dataplane::pipeline::Pipeline;
use dataplane::snapshot::{Interface, Snapshot};
use dataplane::steering::by_client::Spread;
use dataplane::worker::Round;
use dpdk::{
    Device, DpdkIo, Eal, EalArguments, EalOptions, HugePages, Machine, Mbuf, Mempool, MempoolConfig, Port,
    PortConfig, Spreading,
};
use engine::Worker;
use scripting::LuaPolicy;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::clock;

/// Runs until a signal or an operator says stop.
pub fn run(config: Config, file: PathBuf) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let signals = Signals::default();
    let wishes = [
        (SIGINT, &stop),
        (SIGTERM, &stop),
        (SIGHUP, &signals.reload),
        (SIGHUP, &signals.reopen_log),
        (SIGUSR1, &signals.reopen_log),
    ];
    for (signal, wish) in wishes {
        signal_hook::flag::register(signal, Arc::clone(wish)).context("cannot register a signal handler")?;
    }
    eprintln!("weir {}, {}", env!("WEIR_VERSION"), dpdk::version());
    eprint!("{}", config.summary());
    // Before EAL and before anything else is made: a script that does not compile is an error of the configuration.
    policy(&config.snapshot)?;
    // Threads inherit the affinity of those that start them, and EAL pins this one.
    let (to_spawner, spawner) = spawner();
    let devices = open(&config)?;
    let (ends, controls): (Vec<WorkerEnd>, Vec<ControlEnd>) =
        (0..devices.workers).map(|_| channel(Capacities::default())).unzip();
    let settings =
        ControlSettings { signals, reread: Some(reread(&config, file)), ..control_settings(&config) };
    let _ = to_spawner.send((Arc::clone(&config.snapshot), controls, settings));
    let control = spawner.join().map_err(|_| anyhow!("the thread that starts control panicked"))?;
    let control = control.context("control did not start")??;
    let result = work(devices, ends, &config, &stop);
    control.shutdown();
    result?;
    eprintln!("weir: stopped");
    Ok(())
}

/// What control starts from.
type Request = (Arc<Snapshot>, Vec<ControlEnd>, ControlSettings);
/// Nothing if it was never asked.
type Spawned = Option<Result<Control, control::Error>>;

/// A thread that starts control when it is told how, and leaves its own affinity to it.
fn spawner() -> (Sender<Request>, JoinHandle<Spawned>) {
    let (sender, receiver) = std::sync::mpsc::channel::<Request>();
    let spawn = move || {
        let (snapshot, ends, settings) = receiver.recv().ok()?;
        Some(Control::spawn(snapshot, ends, settings))
    };
    (sender, std::thread::spawn(spawn))
}

/// Runs all workers, each on its lcore, until they are told to stop.
fn work(devices: Devices, ends: Vec<WorkerEnd>, config: &Config, stop: &AtomicBool) -> anyhow::Result<()> {
    let Devices { eal, ios, macs, workers } = devices;
    let meshes = Mesh::new(workers, macs.len());
    let macs = &macs;
    let job = |((io, end), mesh): ((DpdkIo, WorkerEnd), Mesh<Mbuf>)| -> Job<'_> {
        Box::new(move || {
            let first = mesh.seat().number == 0;
            let result = worker(config, macs, io, end, mesh).map(|worker| {
                if first {
                    eprintln!("weir: running; SIGINT or SIGTERM stops it");
                }
                poll(worker, config.process.dpdk.idle, stop);
            });
            // One that cannot work takes the others along.
            stop.store(true, Ordering::Relaxed);
            result
        })
    };
    let jobs = ios.into_iter().zip(ends).zip(meshes).map(job).collect();
    let results = eal.run_on_lcores(jobs).context("workers do not start")?;
    results.into_iter().collect()
}

type Job<'a> = Box<dyn FnOnce() -> anyhow::Result<()> + Send + 'a>;

/// A worker, made on the lcore that runs it: so is its memory, and its Lua state never leaves it.
fn worker(
    config: &Config,
    macs: &[[u8; 6]],
    io: DpdkIo,
    end: WorkerEnd,
    mesh: Mesh<Mbuf>,
) -> anyhow::Result<Worker> {
    let now = clock::instant(clock::nanoseconds());
    let policy = policy(&config.snapshot)?;
    let snapshot = Arc::clone(&config.snapshot);
    let pipeline = Pipeline::new(snapshot, mesh.seat(), macs, policy, seed(), now)?;
    Worker::new(io, pipeline, end, mesh).map_err(|e| anyhow!("latency histogram: {e:?}"))
}

fn policy(snapshot: &Arc<Snapshot>) -> anyhow::Result<LuaPolicy> {
    LuaPolicy::new(snapshot, clock::script_nanoseconds).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow!("scripts do not compile: {}", texts.join("; "))
    })
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
        explainer: Some(crate::explain::explainer()),
        ..ControlSettings::new(&config.snapshot)
    }
}

/// Reads the file again, for a weir that runs `config`.
fn reread(config: &Config, file: PathBuf) -> Reread {
    let running = config.clone();
    Reread::new(move || {
        let next = config::load(&file).map_err(|errors| errors.render(false))?;
        if !next.warnings.problems().is_empty() {
            eprint!("{}", next.warnings.render(false));
        }
        match running.needs_restart(&next).as_slice() {
            [] => Ok(next.snapshot),
            keys => Err(format!("{}: changed, which needs a restart: {}", file.display(), keys.join(", "))),
        }
    })
}

/// DPDK, and what each worker has of it.
struct Devices {
    eal: Eal,
    /// By worker.
    ios: Vec<DpdkIo>,
    /// By port.
    macs: Vec<[u8; 6]>,
    workers: u8,
}

/// Brings DPDK and its ports up.
fn open(config: &Config) -> anyhow::Result<Devices> {
    let settings = &config.process.dpdk;
    let cpus = if settings.cpus.is_empty() { Machine::read().cpus().len() } else { settings.cpus.len() };
    let lcores = settings.workers.on(cpus);
    let pool = pool_size(&config.snapshot, settings, lcores);
    let arguments = EalArguments::new(&eal_options(&config.process, &pool, lcores)?);
    if let Some(warning) = arguments.warning() {
        eprintln!("weir: warning: {warning}");
    }
    let eal = Eal::init(&arguments).context("DPDK does not start")?;
    let pool = Mempool::new(&eal, "weir", &pool).context("no packet buffers")?;
    let interfaces: Vec<(&Interface, &str)> = {
        let names = config.process.devices.iter().map(config::Device::name);
        config.snapshot.interfaces.iter().zip(names).collect()
    };
    let (mut ports, mut queues) = (Vec::new(), Vec::new());
    for (interface, name) in &interfaces {
        let port = eal.port(name).with_context(|| place(interface, name))?;
        queues.push(port.queues().with_context(|| place(interface, name))?);
        ports.push(port);
    }
    let workers = settings.workers.within(lcores, queues);
    let mut macs = Vec::new();
    for ((number, (interface, name)), port) in (0..).zip(&interfaces).zip(&mut ports) {
        let spread = Spread::of(&config.snapshot, PortId(number));
        let started = start(port, interface, settings, (workers, spread), &pool);
        macs.push(started.with_context(|| place(interface, name))?);
    }
    let ios = DpdkIo::split(ports, pool, u16::from(workers))?;
    Ok(Devices { eal, ios, macs, workers })
}

fn place(interface: &Interface, device: &str) -> String {
    format!("interface '{}' (device {device})", interface.name)
}

/// Starts a port and returns its MAC address.
fn start(
    port: &mut Port,
    interface: &Interface,
    settings: &DpdkSettings,
    (workers, spread): (u8, Spread),
    pool: &Mempool,
) -> Result<[u8; 6], dpdk::Error> {
    let config = PortConfig {
        rx_descriptors: settings.rx_descriptors,
        tx_descriptors: settings.tx_descriptors,
        mtu: interface.mtu,
        queues: u16::from(workers),
        spread,
        ..PortConfig::default()
    };
    port.configure(&config, pool)?;
    port.start()?;
    let mac = port.mac()?;
    let spreading = match port.spreading() {
        _ if workers == 1 => "",
        Spreading::Rss => match spread {
            Spread::Flow | Spread::Both => ", flows spread by RSS",
            Spread::Source | Spread::Destination => ", clients spread by RSS",
        },
        Spreading::OneQueue => ", one receive queue: workers hand packets over",
        Spreading::Device if spread != Spread::Flow => ", no RSS by client: workers hand packets over",
        Spreading::Device => ", no RSS that weir could set: workers hand packets over",
    };
    eprintln!("weir: interface {} is {}, MAC {}{spreading}", interface.name, port.device(), mac_text(mac));
    Ok(mac)
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Buffers for the largest MTU, with Ethernet header and tags.
fn pool_size(snapshot: &Snapshot, settings: &DpdkSettings, workers: u8) -> MempoolConfig {
    const LINK: u16 = 64;
    let mtu = snapshot.interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(1500);
    let default = MempoolConfig::default();
    let mbufs = settings.mbufs_for(workers, snapshot.interfaces.len());
    MempoolConfig {
        mbufs,
        frame: default.frame.max(mtu.saturating_add(LINK)),
        cache: default.cache.min(mbufs / 4),
    }
}

fn eal_options(process: &ProcessSettings, pool: &MempoolConfig, workers: u8) -> anyhow::Result<EalOptions> {
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
        lcores: workers,
        cpus: process.dpdk.cpus.iter().copied().map(u32::from).collect(),
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
fn poll(mut worker: Worker, idle: Idle, stop: &AtomicBool) {
    let mut rests = Rests { idle, empty: 0 };
    let mut now = clock::nanoseconds();
    while !stop.load(Ordering::Relaxed) && !worker.stopping() {
        let round = engine::run_once(&mut worker, clock::instant(now));
        let done = clock::nanoseconds();
        if round.received > 0 {
            worker.record_latency(done - now, round.received);
        }
        now = done;
        match rests.after(round) {
            Rest::None => {}
            Rest::Pause => std::hint::spin_loop(),
            Rest::Nap => {
                std::thread::sleep(NAP);
                now = clock::nanoseconds();
            }
        }
    }
    worker.shut_down(clock::instant(now));
}

/// What a worker does between two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    None,
    /// The CPU's pause instruction.
    Pause,
    /// Sleeps for [`NAP`].
    Nap,
}

/// How a worker rests when there is nothing to do.
struct Rests {
    idle: Idle,
    /// Rounds since the last one that did something.
    empty: u32,
}

impl Rests {
    /// What comes after this round.
    fn after(&mut self, round: Round) -> Rest {
        self.empty = if round.is_idle() { self.empty.saturating_add(1) } else { 0 };
        match self.idle {
            _ if self.empty == 0 => Rest::None,
            Idle::Poll => Rest::None,
            Idle::Sleep if self.empty > PATIENCE => Rest::Nap,
            Idle::Pause | Idle::Sleep => Rest::Pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Round = Round { received: 0, originated: 0 };
    const BUSY: [Round; 2] = [Round { received: 1, originated: 0 }, Round { received: 0, originated: 1 }];

    /// What a worker does after so many rounds without anything to do; the same in a row once.
    fn empty_rounds(rests: &mut Rests, rounds: u32) -> Vec<Rest> {
        let mut all: Vec<Rest> = (0..rounds).map(|_| rests.after(NOTHING)).collect();
        all.dedup();
        all
    }

    #[test]
    fn a_worker_that_polls_or_pauses_never_sleeps() {
        for (idle, rest) in [(Idle::Poll, Rest::None), (Idle::Pause, Rest::Pause)] {
            let mut rests = Rests { idle, empty: 0 };
            assert_eq!(empty_rounds(&mut rests, 3 * PATIENCE), [rest], "{idle:?}");
            rests.empty = u32::MAX;
            assert_eq!(rests.after(NOTHING), rest, "{idle:?}, after hours");
            assert_eq!(BUSY.map(|round| rests.after(round)), [Rest::None; 2], "{idle:?}");
        }
    }

    #[test]
    fn a_worker_that_may_sleep_does_so_after_many_empty_rounds_in_a_row() {
        for busy in BUSY {
            let mut rests = Rests { idle: Idle::Sleep, empty: 0 };
            assert_eq!(empty_rounds(&mut rests, PATIENCE), [Rest::Pause]);
            assert_eq!(empty_rounds(&mut rests, PATIENCE), [Rest::Nap]);
            assert_eq!(rests.after(busy), Rest::None);
            assert_eq!(empty_rounds(&mut rests, PATIENCE), [Rest::Pause], "anew");
            assert_eq!(rests.after(NOTHING), Rest::Nap);
            rests.empty = u32::MAX;
            assert_eq!(rests.after(NOTHING), Rest::Nap, "after hours");
        }
    }
}
