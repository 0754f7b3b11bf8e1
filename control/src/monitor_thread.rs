//! The thread of the health monitors: moves packets between the worker and [`Health`], and its findings to both the
//! worker and the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use dataplane::channel::{Command, CommandSender, PacketPair, PuntedPacket};
use dataplane::snapshot::Snapshot;

use crate::clock;
use crate::health::{Change, Health, Output};
use crate::log::{Message, server_line};
use crate::status::Status;

/// Packets taken from the worker before the monitors are polled.
const BATCH: usize = 256;
/// Time between looks at the worker's queue while answers are expected.
const BUSY: Duration = Duration::from_millis(1);
/// Longest sleep while nothing is expected.
const IDLE: Duration = Duration::from_millis(50);

pub(crate) struct MonitorThread {
    pub(crate) health: Health,
    pub(crate) packets: PacketPair,
    pub(crate) commands: CommandSender,
    pub(crate) log: SyncSender<Message>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: Arc<AtomicBool>,
    /// Changes that found the command queue full.
    pub(crate) pending: VecDeque<Change>,
}

impl MonitorThread {
    /// Runs until told to stop; unpark it then.
    pub(crate) fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                let Some(PuntedPacket(packet)) = self.packets.receive() else { break };
                self.health.handle_packet(packet);
            }
            let output = self.health.poll(self.status.clock.now());
            self.handle_output(output);
            self.tell_worker();
            std::thread::park_timeout(self.pause());
        }
    }

    fn handle_output(&mut self, output: Output) {
        for packet in output.packets {
            if !self.packets.send(PuntedPacket(packet)) {
                self.status.packets_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        for change in output.changes {
            let line = server_line(&self.snapshot, change.server, change.up, clock::wall());
            if line.is_some_and(|line| self.log.try_send(Message::Line(line)).is_err()) {
                self.status.log.add_lost(1);
            }
            self.pending.push_back(change);
        }
        let probes = u64::try_from(self.health.in_flight()).unwrap_or(u64::MAX);
        self.status.probes.store(probes, Ordering::Relaxed);
    }

    /// Changes keep their order; those that find the queue full are sent later.
    fn tell_worker(&mut self) {
        while let Some(change) = self.pending.front() {
            let command = Command::ServerHealth { server: change.server, up: change.up };
            if self.commands.send(command).is_err() {
                break;
            }
            self.pending.pop_front();
        }
    }

    fn pause(&mut self) -> Duration {
        if self.health.in_flight() > 0 || !self.pending.is_empty() {
            return BUSY;
        }
        let now = self.status.clock.now();
        match self.health.poll_at(now) {
            Some(at) if at > now => Duration::from((at - now).min(IDLE.into())),
            Some(_) => BUSY,
            None => IDLE,
        }
    }
}
