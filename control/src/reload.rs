//! Reload: the configuration is read again and takes the place of the one that runs, or nothing changes.
//!
//! All workers make ready first ([`Command::Prepare`]); when each of them is, the monitors' thread looks at new servers and then
//! tells the workers to go on, because it alone knows which findings about servers go before and which behind.

mod rest;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use dataplane::channel::{Answer, Command, Query, Reply};
use dataplane::overlay::InUse;
use dataplane::snapshot::Snapshot;

use crate::clock;
use crate::current::Current;
use crate::log::{Message, reload_line};
use crate::status::Status;
use crate::workers::Workers;
use rest::Rest;
pub(crate) use turns::Turns;

/// How long the workers are left in peace after something was let go, unless VIPs are not needed any more: they pay for it as for
/// a reload.
const PEACE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(5);
/// How long all workers together may take to make ready, and then to go on.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often it is looked whether retired things can be let go.
const TIDY: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);
/// How long is waited for whoever gives the workers another configuration: by those who tell the workers something for the end
/// of it, by a reload for the end of one that only lets something go. Clients wait longer for their answers.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Behind all connections of a worker: asks for nothing but what is counted.
const COUNTED: u32 = u32::MAX;
/// How often signals are looked for.
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
    pub(crate) status: Arc<Status>,
    /// One at a time.
    pub(crate) turns: Turns,
}

/// What one reload leaves to the next.
#[derive(Default)]
pub(crate) struct Turn {
    /// Workers that have not said yet that they have taken the last configuration.
    late: Vec<Late>,
    rest: Rest,
    /// When something was let go.
    let_go: Option<smoltcp::time::Instant>,
}

impl Reloader {
    /// What has changed; the error says why nothing has. Either is written to the log. `None`: another reload is under way, or what
    /// lets something go has not ended in time.
    pub(crate) fn reload(&self) -> Option<Result<String, String>> {
        let mut held = self.turns.reload(LONGEST_WAIT)?;
        let result = self.run(&mut held.turn);
        let text = match &result {
            Ok(text) | Err(text) => text,
        };
        let line = reload_line(result.is_ok(), text, clock::wall());
        // A full queue means that the log is stuck; who asked has the answer.
        let _ = self.log.try_send(Message::Line(line));
        Some(result)
    }

    /// Lets go what nobody names any more, and notes what nobody has read of any more. What cannot be done now is done when this
    /// is called again.
    fn tidy(&self) {
        let Some(mut held) = self.turns.tidy() else { return };
        let Turn { late, rest, let_go } = &mut held.turn;
        let old = self.current.snapshot();
        self.rested(rest, &old);
        if old.holds_retired() && self.nobody_is_late(late).is_ok() {
            let in_use = self.in_use(&old).ok().flatten();
            let now = self.status.clock.now();
            let peace = let_go.is_some_and(|at| now < at + PEACE);
            let tidied = in_use.and_then(|in_use| old.tidied(&in_use));
            if let Some(tidied) = tidied.filter(|tidied| !peace || !tidied.departing().eq(old.departing())) {
                *let_go = Some(now);
                // An error says that a worker does not answer.
                let _ = self.give_out(Arc::new(tidied), late);
            }
        }
        // Not earlier: a worker that is the last one to let go of it would have to free it.
        drop(old);
    }

    fn rested(&self, rest: &mut Rest, current: &Snapshot) -> u32 {
        let Status { clock, log, watching, .. } = &*self.status;
        rest.look(clock.now(), current.retired.generation, log, watching.load(Ordering::Acquire))
    }

    /// The next configuration must not meet the word to go on with the last one.
    fn nobody_is_late(&self, late: &mut Vec<Late>) -> Result<(), String> {
        late.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        match late.first() {
            Some((worker, _)) => {
                Err(format!("{} has not taken the last configuration yet", self.workers.name(*worker)))
            }
            None => Ok(()),
        }
    }

    /// Waits until no reload is under way, and nothing is being let go, at most [`LONGEST_WAIT`]: a worker that has not gone on
    /// passes over what it is told of new things. When this returns the next one may begin, and a worker that was late may
    /// still be.
    pub(crate) fn wait(&self) -> Result<(), String> {
        let refusal = || "the configuration is being reloaded; repeat this".to_owned();
        self.turns.are_over(LONGEST_WAIT).then_some(()).ok_or_else(refusal)
    }

    fn run(&self, Turn { late, rest, .. }: &mut Turn) -> Result<String, String> {
        self.nobody_is_late(late)?;
        let reread = self.reread.as_ref().ok_or("this weir cannot reload")?;
        let next = (reread.0)()?;
        if !self.monitor_ports && crate::needs_ports(&next) {
            return Err(crate::Error::NoMonitorPorts.to_string());
        }
        let old = self.current.snapshot();
        let in_use = self.in_use(&old)?.unwrap_or_else(|| InUse::everything(&old));
        let rested = self.rested(rest, &old);
        let (laid, changes) = old.overlaid(&next, &in_use, rested).map_err(|error| error.to_string())?;
        let let_go = laid.retired.spare != old.retired.spare || !laid.departing().eq(old.departing());
        if changes.is_empty() && !let_go {
            return Ok("nothing has changed\n".to_owned());
        }
        let taken = self.give_out(Arc::new(laid), late)?;
        // Not earlier: a worker that is the last one to let go of it would have to free it.
        drop(old);
        let changes =
            if changes.is_empty() { "nothing has changed\n".to_owned() } else { changes.to_string() };
        Ok(format!("{changes}{taken}"))
    }

    /// All workers go on with this configuration, or none does. Says who has not done so yet.
    fn give_out(&self, laid: Arc<Snapshot>, late: &mut Vec<Late>) -> Result<String, String> {
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
        Ok(self.missing(answers, late))
    }

    /// What of the retired things workers name; `None` if nothing can be let go for what they count alone. Only if something
    /// could are their connections looked at, of which there may be many.
    fn in_use(&self, snapshot: &Snapshot) -> Result<Option<InUse>, String> {
        let mut all = InUse::default();
        if !snapshot.holds_retired() {
            return Ok(Some(all));
        }
        self.add_named(&mut all, COUNTED)?;
        if snapshot.tidied(&all).is_none() {
            return Ok(None);
        }
        self.add_named(&mut all, 0)?;
        Ok(Some(all))
    }

    /// Adds what all workers name, by their connections from this place on.
    fn add_named(&self, all: &mut InUse, first: u32) -> Result<(), String> {
        for worker in 0..self.workers.len() {
            let mut next = Some(first);
            while let Some(first) = next {
                let Answer::InUse(in_use, go_on) = self.workers.ask_one(worker, Query::InUse { first })?
                else {
                    return Err("the worker answered something else".to_owned());
                };
                all.add(*in_use);
                next = go_on;
            }
        }
        Ok(())
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
        let clock = clock::Clock::new();
        let mut tidied = clock.now();
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
            if clock.now() >= tidied + TIDY {
                self.reloader.tidy();
                tidied = clock.now();
            }
            std::thread::park_timeout(LOOK);
        }
    }
}
