//! All workers, as control sees them: what one command or one question does to each, and one answer out of all.

mod merge;

use std::sync::mpsc::Receiver;
use std::time::Duration;

use dataplane::channel::{Answer, Command, CommandSender, Query};

use crate::clock::Clock;

/// How long all workers together may take to answer; each does between two bursts.
const PATIENCE: Duration = Duration::from_millis(500);

/// The ways to all workers, by their numbers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Workers(Vec<CommandSender>);

impl Workers {
    /// At least one.
    pub(crate) fn new(senders: Vec<CommandSender>) -> Self {
        Workers(senders)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ways to all of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CommandSender> {
        self.0.iter()
    }

    /// The way to one worker.
    #[must_use]
    pub fn get(&self, worker: usize) -> Option<&CommandSender> {
        self.0.get(worker)
    }

    /// Tells all workers to end. A worker whose queue is full is told when it has room again: call it until it is true.
    #[must_use]
    pub fn stop(&self) -> bool {
        let untold = self.0.iter().filter(|worker| worker.send(Command::Stop).is_err());
        untold.count() == 0
    }

    /// Sends a command to each worker; the error says which one's queue is full.
    pub(crate) fn send(&self, command: impl Fn() -> Command) -> Result<(), String> {
        for (number, worker) in self.0.iter().enumerate() {
            worker.send(command()).map_err(|_| self.full(number))?;
        }
        Ok(())
    }

    /// Sends a command to one worker.
    pub(crate) fn send_to(&self, number: usize, command: Command) -> Result<(), String> {
        let worker = self.0.get(number).ok_or("there is no such worker")?;
        worker.send(command).map_err(|_| format!("the command queue of {} is full", self.name(number)))
    }

    /// What one worker answers.
    pub(crate) fn ask_one(&self, number: usize, query: Query) -> Result<Answer, String> {
        let asked = self.0.get(number).and_then(|worker| worker.query(query));
        let answer = asked.and_then(|receiver| receiver.recv_timeout(PATIENCE).ok());
        answer.ok_or_else(|| format!("{} does not answer", self.name(number)))
    }

    /// What each worker answers; `None` for one that does not, in time.
    pub(crate) fn ask_each(&self, query: Query) -> Vec<Option<Answer>> {
        let asked: Vec<Option<Receiver<Answer>>> = self.0.iter().map(|worker| worker.query(query)).collect();
        let clock = Clock::new();
        let answer = |receiver: Receiver<Answer>| {
            let waited = clock.now() - smoltcp::time::Instant::ZERO;
            receiver.recv_timeout(PATIENCE.saturating_sub(waited.into())).ok()
        };
        asked.into_iter().map(|receiver| receiver.and_then(answer)).collect()
    }

    /// One answer out of those of all workers; the error says which one did not give one.
    pub(crate) fn ask(&self, query: Query) -> Result<Answer, String> {
        let mut merged: Option<Answer> = None;
        for (number, answer) in self.ask_each(query).into_iter().enumerate() {
            let answer = answer.ok_or_else(|| format!("{} does not answer", self.name(number)))?;
            match &mut merged {
                None => merged = Some(answer),
                Some(sum) => merge::add(sum, answer),
            }
        }
        let mut answer = merged.ok_or("there is no worker")?;
        merge::cut(&mut answer, query);
        Ok(answer)
    }

    /// For messages.
    pub(crate) fn name(&self, number: usize) -> String {
        if self.0.len() == 1 { "the worker".to_owned() } else { format!("worker {number}") }
    }

    fn full(&self, number: usize) -> String {
        let partly = if self.0.len() == 1 { "" } else { "; others have taken the command, repeat it" };
        format!("the command queue of {} is full{partly}", self.name(number))
    }
}
