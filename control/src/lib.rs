//! Everything of weir that may wait: health monitors, the connection log, the admin socket.
//!
//! [`Control::spawn`] starts its threads on the control ends of the workers' [`dataplane::channel`]s. None of them can
//! make a worker wait, and none waits for another: monitors, log and admin socket share only queues and counters.
#![forbid(unsafe_code)]

mod admin;
pub mod capture;
pub mod client;
mod clock;
mod current;
mod escape;
mod explain;
#[cfg(test)]
#[path = "../tests/control/fixture.rs"]
mod fixture;
pub mod health;
pub mod log;
mod monitor_thread;
mod reload;
pub mod script_steps;
mod source;
mod status;
mod watchdog;
mod workers;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::channel::{ControlEnd, monitor_ports};
use dataplane::snapshot::Snapshot;

use admin::{Admin, AdminServer};
use clock::Clock;
use current::Current;
pub use explain::{Explainer, Question};
use health::Health;
pub use log::LogDestination;
use log::{LogStats, LogThread, Message};
use monitor_thread::MonitorThread;
use reload::{Reloader, SignalThread};
pub use reload::{Reread, Signals};
use status::Status;
use watchdog::Watchdog;
pub use workers::Workers;

/// Lines of the monitors that may wait for the log.
const LOG_MESSAGES: usize = 1024;
/// How long [`Control::shutdown`] waits for its threads, all together.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(800);
/// How often it looks.
const SHUTDOWN_STEP: Duration = Duration::from_millis(5);

/// Why control did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are monitors but no local ports for them.
    #[error("monitors need local ports, but the SNAT pool uses all up to 65535: lower its last port")]
    NoMonitorPorts,
    /// The log cannot be opened.
    #[error("cannot open the log: {0}")]
    Log(#[source] std::io::Error),
    /// The admin socket cannot be made.
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process listens on the admin socket.
    #[error("another process already listens on the admin socket {}", .0.display())]
    SocketInUse(PathBuf),
    /// The path of the admin socket is something else.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// What the operator decides about control.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// Local ports of TCP and UDP probes, and echo identifiers; above [`dataplane::snapshot::SnatPool::last_port`].
    pub monitor_ports: RangeInclusive<u16>,
    /// Decides jitter, ports and sequence numbers of probes. Should differ from start to start.
    pub seed: u64,
    /// Where the log goes.
    pub log: LogDestination,
    /// The admin socket, or `None` for none.
    pub admin_socket: Option<PathBuf>,
    /// Shown by `show info`.
    pub version: String,
    /// Answers `explain`.
    pub explainer: Option<Explainer>,
    /// Reads the configuration again, for `reload`.
    pub reread: Option<Reread>,
    /// What signals ask for.
    pub signals: Signals,
}

impl ControlSettings {
    /// Monitor ports as [`monitor_ports`] says, a random seed, log to standard output, no admin socket.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        use std::hash::{BuildHasher, Hasher};
        ControlSettings {
            monitor_ports: monitor_ports(snapshot),
            seed: std::hash::RandomState::new().build_hasher().finish(),
            log: LogDestination::Stdout,
            admin_socket: None,
            version: String::new(),
            explainer: None,
            reread: None,
            signals: Signals::default(),
        }
    }
}

/// The running control threads of all workers. Dropping it is [`Control::shutdown`].
pub struct Control {
    stop: Arc<AtomicBool>,
    log: SyncSender<Message>,
    workers: Workers,
    threads: Vec<JoinHandle<()>>,
}

impl Control {
    /// Opens the log and the admin socket, then starts the threads. The first probes go out at once. `ends` are those
    /// of all workers, by their numbers.
    pub fn spawn(
        snapshot: Arc<Snapshot>,
        ends: Vec<ControlEnd>,
        settings: ControlSettings,
    ) -> Result<Control, Error> {
        if settings.monitor_ports.is_empty() && needs_ports(&snapshot) {
            return Err(Error::NoMonitorPorts);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (log, messages) = sync_channel(LOG_MESSAGES);
        let log_stats = Arc::new(LogStats::new(ends.len()));
        let status = Arc::new(Status {
            version: settings.version,
            clock: Clock::new(),
            log: Arc::clone(&log_stats),
            probes: AtomicU64::new(0),
            packets_lost: AtomicU64::new(0),
            watching: Arc::new(AtomicBool::new(false)),
        });
        let mut commands = Vec::new();
        let (mut records, mut packets) = (Vec::new(), Vec::new());
        for end in ends {
            commands.push(end.commands);
            records.push(end.records);
            packets.push(end.packets);
        }
        let workers = Workers::new(commands);
        let current = Current::new(Arc::clone(&snapshot));
        let log_thread = LogThread::new(settings.log, current.clone(), records, messages, log_stats)
            .map_err(Error::Log)?;
        let (monitors, orders) = sync_channel(1);
        let reloader = Arc::new(Reloader {
            reread: settings.reread,
            current: current.clone(),
            workers: workers.clone(),
            monitors,
            log: log.clone(),
            monitor_ports: !settings.monitor_ports.is_empty(),
            status: Arc::clone(&status),
            turns: reload::Turns::default(),
        });
        let admin = Admin {
            current: current.clone(),
            workers: workers.clone(),
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
            profiling: AtomicBool::new(false),
            explainer: settings.explainer,
            reloader: Arc::clone(&reloader),
        };
        let server = match &settings.admin_socket {
            Some(path) => Some(AdminServer::bind(path, admin, Arc::clone(&stop))?),
            None => None,
        };
        let now = status.clock.now();
        let monitors = MonitorThread {
            health: Health::new(&snapshot, settings.monitor_ports, settings.seed, now),
            packets,
            pending: workers.iter().map(|way| (way.clone(), VecDeque::new())).collect(),
            watchdog: Watchdog::new(workers.clone()),
            orders,
            coming: None,
            log: log.clone(),
            current,
            status,
            stop: Arc::clone(&stop),
        };
        let signals = SignalThread { signals: settings.signals, reloader, stop: Arc::clone(&stop) };
        let mut control = Control { stop, log, workers, threads: Vec::new() };
        control.start("weir-log", move || log_thread.run())?;
        control.start("weir-monitors", move || monitors.run())?;
        control.start("weir-signals", move || signals.run())?;
        if let Some(server) = server {
            control.start("weir-admin", move || server.run())?;
        }
        Ok(control)
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Error::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// The ways to the workers.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Opens the log file again, after it was moved away.
    pub fn reopen_log(&self) {
        // A full queue means that the log is stuck; the request can be repeated.
        let _ = self.log.try_send(Message::Reopen);
    }

    /// Stops monitors and admin socket, removes the socket's file, writes the records that are queued, and joins the
    /// threads. Call it when the workers have returned. Takes less than a second: a log that does not take its lines
    /// by then is left alone.
    pub fn shutdown(mut self) {
        self.stop_threads();
    }

    fn stop_threads(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = false;
        let mut waited = Duration::ZERO;
        while waited < SHUTDOWN_PATIENCE && self.threads.iter().any(|thread| !thread.is_finished()) {
            told = told || self.log.try_send(Message::Stop).is_ok();
            for thread in &self.threads {
                thread.thread().unpark();
            }
            std::thread::sleep(SHUTDOWN_STEP);
            waited += SHUTDOWN_STEP;
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            // A panic of a thread has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// True if any pool has a monitor; all kinds take their identifiers from the monitor ports.
fn needs_ports(snapshot: &Snapshot) -> bool {
    snapshot.pools.iter().any(|pool| !pool.monitors.is_empty())
}
