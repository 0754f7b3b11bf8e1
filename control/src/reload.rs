//! Reload: the configuration is read again and takes the place of the one that runs, or nothing changes.
//!
//! All workers make ready first ([`Command::Prepare`]); when each of them is, the monitors' thread looks at new servers and then
//! tells the workers to go on, because it alone knows which findings about servers go before and which behind.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use dataplane::channel::{Answer, Command, Query, Reply};
use dataplane::snapshot::{ServiceId, Snapshot};

use crate::clock;
use crate::current::Current;
use crate::log::{Message, reload_line};
use crate::workers::Workers;

/// How long all workers together may take to make ready, and then to go on.
const PATIENCE: Duration = Duration::from_secs(4);
/// Places of the flow table that a worker looks at between two bursts.
const PLACES: u32 = 1 << 11;
/// How long who tells the workers something waits for the end of a reload; less than clients wait for an answer.
const LONGEST_WAIT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(3);
/// How often signals, and the end of a reload, are looked for.
const LOOK: Duration = Duration::from_millis(50);

type Read = dyn Fn() -> Result<Arc<Snapshot>, String> + Send + Sync;

/// Reads the configuration again. The error says what is wrong with it, or what of it needs a restart. Cheap to clone.
#[derive(Clone)]
pub struct Reread(Arc<Read>);

impl Reread {
    /// Runs on the threads of control.
    #[must_use]
    pub fn new(read: impl Fn() -> Result<Arc<Snapshot>, String> + Send + Sync + 'static) -> Self {
        Reread(Arc::new(read))
    }
}

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reread")
    }
}

/// What signals ask for; whoever catches them sets these.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Open the log again.
    pub reopen_log: Arc<AtomicBool>,
    /// Reload.
    pub reload: Arc<AtomicBool>,
}

/// What the monitors' thread is told.
pub(crate) struct Order {
    pub(crate) snapshot: Arc<Snapshot>,
    /// By worker.
    pub(crate) replies: Vec<Reply>,
}

/// A worker, and where its answer will arrive.
pub(crate) type Late = (usize, Receiver<Answer>);

/// All that a reload needs.
pub(crate) struct Reloader {
    pub(crate) reread: Option<Reread>,
    pub(crate) current: Current,
    pub(crate) workers: Workers,
    pub(crate) monitors: SyncSender<Order>,
    pub(crate) log: SyncSender<Message>,
    /// There are local ports for monitors.
    pub(crate) monitor_ports: bool,
    /// One at a time; in it workers that have not said yet that they have taken the last one.
    pub(crate) late: Mutex<Vec<Late>>,
}

impl Reloader {
    /// What has changed; the error says why nothing has. Either is written to the log. `None`: another reload is under way.
    pub(crate) fn reload(&self) -> Option<Result<String, String>> {
        let mut late = self.turn()?;
        let result = self.run(&mut late);
        let text = match &result {
            Ok(text) | Err(text) => text,
        };
        let line = reload_line(result.is_ok(), text, clock::wall());
        // A full queue means that the log is stuck; who asked has the answer.
        let _ = self.log.try_send(Message::Line(line));
        Some(result)
    }

    fn turn(&self) -> Option<MutexGuard<'_, Vec<Late>>> {
        match self.late.try_lock() {
            Ok(late) => Some(late),
            Err(TryLockError::Poisoned(late)) => Some(late.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits until no reload is under way: a worker that has not gone on passes over what it is told of new things.
    pub(crate) fn wait(&self) -> Result<(), String> {
        let clock = clock::Clock::new();
        while self.turn().is_none() {
            if clock.now() - smoltcp::time::Instant::ZERO > LONGEST_WAIT {
                return Err("the configuration is being reloaded; repeat this".to_owned());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn run(&self, late: &mut Vec<Late>) -> Result<String, String> {
        // It must not meet the word to go on with the last one when it is ready for the next.
        late.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        if let Some((worker, _)) = late.first() {
            return Err(format!("{} has not taken the last configuration yet", self.workers.name(*worker)));
        }
        let reread = self.reread.as_ref().ok_or("this weir cannot reload")?;
        let next = (reread.0)()?;
        if !self.monitor_ports && crate::needs_ports(&next) {
            return Err(crate::Error::NoMonitorPorts.to_string());
        }
        let old = self.current.snapshot();
        let used = self.in_use(&old)?;
        let (laid, changes) = old.overlaid(&next, &used).map_err(|error| error.to_string())?;
        if changes.is_empty() && old.departing().count() == laid.departing().count() {
            return Ok("nothing has changed\n".to_owned());
        }
        let laid = Arc::new(laid);
        if let Err(error) = self.prepare(&laid) {
            // One whose queue is full forgets it when it is told of the next one.
            let _ = self.workers.send(|| Command::Abandon);
            return Err(error);
        }
        // Before any worker uses it: the log has to know the names.
        self.current.replace(Arc::clone(&laid));
        let (replies, answers) = (0..self.workers.len()).map(|_| Reply::pair()).unzip();
        if self.monitors.send(Order { snapshot: laid, replies }).is_err() {
            return Err("weir is about to stop".to_owned());
        }
        let missing = self.missing(answers, late);
        // Not earlier: a worker that is the last one to let go of it would have to free it.
        drop(old);
        let changes =
            if changes.is_empty() { "nothing has changed\n".to_owned() } else { changes.to_string() };
        Ok(format!("{changes}{missing}"))
    }

    /// Retired services that have flows.
    fn in_use(&self, snapshot: &Snapshot) -> Result<BTreeSet<ServiceId>, String> {
        let mut used = BTreeSet::new();
        if snapshot.departing().next().is_none() {
            return Ok(used);
        }
        let places = (0..snapshot.limits.flows).step_by(PLACES as usize);
        for query in places.map(|first| Query::ServicesInUse { first, count: PLACES }) {
            for (worker, answer) in self.workers.ask_each(query).into_iter().enumerate() {
                match answer {
                    Some(Answer::ServicesInUse(services)) => used.extend(services),
                    _ => return Err(format!("{} does not answer", self.workers.name(worker))),
                }
            }
        }
        Ok(used)
    }

    /// Each worker makes ready.
    fn prepare(&self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        let mut answers = Vec::new();
        for worker in 0..self.workers.len() {
            let (reply, answer) = Reply::pair();
            self.workers.send_to(worker, Command::Prepare(Arc::clone(snapshot), reply))?;
            answers.push(answer);
        }
        for (worker, (answer, _)) in in_time(answers).into_iter().enumerate() {
            match answer {
                Some(Answer::Prepared(prepared)) => prepared?,
                _ => return Err(format!("{} does not answer", self.workers.name(worker))),
            }
        }
        Ok(())
    }

    /// Says which workers have not said yet that they have gone on.
    fn missing(&self, answers: Vec<Receiver<Answer>>, late: &mut Vec<Late>) -> String {
        let (count, mut missing) = (answers.len(), Vec::new());
        for (worker, (answer, receiver)) in in_time(answers).into_iter().enumerate() {
            if !matches!(answer, Some(Answer::Adopted(true))) {
                missing.push(self.workers.name(worker));
                late.push((worker, receiver));
            }
        }
        match (count, missing.is_empty()) {
            (1, true) => "the worker has taken it\n".to_owned(),
            (_, true) => format!("all {count} workers have taken it\n"),
            _ => format!("not taken yet by {}; it will be as soon as it answers\n", missing.join(", ")),
        }
    }
}

/// What arrives while there is patience, and where it would arrive later.
fn in_time(answers: Vec<Receiver<Answer>>) -> Vec<(Option<Answer>, Receiver<Answer>)> {
    let clock = clock::Clock::new();
    let left = || PATIENCE.saturating_sub((clock.now() - smoltcp::time::Instant::ZERO).into());
    answers.into_iter().map(|answer| (answer.recv_timeout(left()).ok(), answer)).collect()
}

/// The thread that does what signals ask for.
pub(crate) struct SignalThread {
    pub(crate) signals: Signals,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl SignalThread {
    /// Runs until told to stop.
    pub(crate) fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.signals.reopen_log.swap(false, Ordering::Relaxed) {
                // A full queue means that the log is stuck; the signal can be repeated.
                let _ = self.reloader.log.try_send(Message::Reopen);
            }
            if self.signals.reload.swap(false, Ordering::Relaxed) {
                match self.reloader.reload() {
                    Some(Ok(text)) => eprint!("weir: reloaded: {text}"),
                    Some(Err(text)) => {
                        eprintln!("weir: not reloaded, the configuration that runs goes on: {text}");
                    }
                    // It may have read the file before it was changed.
                    None => self.signals.reload.store(true, Ordering::Relaxed),
                }
            }
            std::thread::park_timeout(LOOK);
        }
    }
}
