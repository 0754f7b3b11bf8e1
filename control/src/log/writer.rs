//! The thread that writes the log. It takes records straight from the workers' queues: when the destination is slow,
//! those queues fill up and the workers count what they lose; nobody waits.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use dataplane::channel::RecordReceiver;

use super::{LogDestination, LogStats, connection_line};
use crate::clock;
use crate::current::Current;

/// Lines written at a time.
const BATCH: usize = 256;
/// How long a record may wait when nothing happens.
const IDLE: Duration = Duration::from_millis(10);

/// What other threads tell the log.
#[derive(Debug)]
pub(crate) enum Message {
    /// A line to write, without a line feed.
    Line(String),
    /// Open the file again.
    Reopen,
    /// Write what is queued and end.
    Stop,
}

/// The state of the log thread.
pub(crate) struct LogThread {
    destination: LogDestination,
    sink: Option<File>,
    current: Current,
    /// By worker.
    records: Vec<RecordReceiver>,
    /// By worker: its records taken since the last pass.
    taken: Vec<usize>,
    /// The worker whose records are taken next.
    turn: usize,
    messages: Receiver<Message>,
    stats: Arc<LogStats>,
    /// Lines of the batch, each with its line feed.
    batch: Vec<u8>,
    lines: usize,
}

impl LogThread {
    /// Opens the destination.
    pub(crate) fn new(
        destination: LogDestination,
        current: Current,
        records: Vec<RecordReceiver>,
        messages: Receiver<Message>,
        stats: Arc<LogStats>,
    ) -> std::io::Result<Self> {
        let sink = open(&destination)?;
        let batch = Vec::new();
        let taken = vec![0; records.len()];
        Ok(LogThread {
            destination,
            sink,
            current,
            records,
            taken,
            turn: 0,
            messages,
            stats,
            batch,
            lines: 0,
        })
    }

    /// Runs until [`Message::Stop`] or until all senders are gone, then writes what is left.
    pub(crate) fn run(mut self) {
        loop {
            self.take_records();
            let full = self.lines >= BATCH;
            self.write();
            let message = if full {
                self.messages.try_recv().ok()
            } else {
                match self.messages.recv_timeout(IDLE) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
                }
            };
            match message {
                Some(Message::Line(line)) => self.add(&line),
                Some(Message::Reopen) => self.reopen(),
                Some(Message::Stop) => break,
                None => {}
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            if let Message::Line(line) = message {
                self.add(&line);
            }
        }
        loop {
            self.take_records();
            if self.lines == 0 {
                break;
            }
            self.write();
        }
    }

    fn take_records(&mut self) {
        let mut empty = 0;
        while self.lines < BATCH && empty < self.records.len() {
            self.turn = if self.turn + 1 < self.records.len() { self.turn + 1 } else { 0 };
            let Some(record) = self.records.get(self.turn).and_then(RecordReceiver::receive) else {
                empty += 1;
                self.stats.note_pass(self.turn);
                continue;
            };
            empty = 0;
            if self.destination != LogDestination::None {
                // Not taken before the record: it may be of a flow that began by a configuration that was not there then.
                let line = connection_line(&self.current.snapshot(), &record, clock::wall());
                self.add(&line);
            }
            self.note_taken();
        }
    }

    /// The line of a record has been made.
    fn note_taken(&mut self) {
        let most = self.records.get(self.turn).map_or(usize::MAX, RecordReceiver::capacity);
        let Some(taken) = self.taken.get_mut(self.turn) else { return };
        *taken += 1;
        if *taken >= most {
            *taken = 0;
            self.stats.note_pass(self.turn);
        }
    }

    fn add(&mut self, line: &str) {
        self.batch.extend_from_slice(line.as_bytes());
        self.batch.push(b'\n');
        self.lines += 1;
    }

    fn write(&mut self) {
        let lines = u64::try_from(std::mem::take(&mut self.lines)).unwrap_or(u64::MAX);
        if lines == 0 {
            return;
        }
        match self.sink.as_mut().map(|sink| sink.write_all(&self.batch)) {
            Some(Ok(())) => self.stats.add_written(lines),
            Some(Err(_)) => self.stats.add_lost(lines),
            None if self.destination == LogDestination::None => {}
            None => self.stats.add_lost(lines),
        }
        self.batch.clear();
    }

    /// A file that cannot be opened again leaves the old one in use.
    fn reopen(&mut self) {
        if let Ok(sink) = open(&self.destination) {
            self.sink = sink;
        }
    }
}

/// Standard output and error are duplicated, so that a blocked write holds no lock that others need.
fn open(destination: &LogDestination) -> std::io::Result<Option<File>> {
    Ok(match destination {
        LogDestination::Stdout => Some(std::io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogDestination::Stderr => Some(std::io::stderr().as_fd().try_clone_to_owned()?.into()),
        LogDestination::File(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        LogDestination::None => None,
    })
}
