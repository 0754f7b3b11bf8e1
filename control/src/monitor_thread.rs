//! The thread of the health monitors: moves packets between the workers and [`Health`], and its findings to both the
//! workers and the log. It looks after the workers, too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use dataplane::channel::{Command, CommandSender, PacketPair, PuntedPacket, Reply};
use smoltcp::time::Instant;

use crate::clock;
use crate::current::Current;
use crate::health::{Change, Health, Output};
use crate::log::{Message, server_line, worker_line};
use crate::reload::Order;
use crate::status::Status;
use crate::watchdog::{Finding, Watchdog};

/// Packets taken from a worker before the monitors are polled.
const BATCH: usize = 256;
/// Time between looks at the workers' queues while answers are expected.
const BUSY: Duration = Duration::from_millis(1);
/// How long another configuration may wait for the first findings about its servers.
const WARM_UP: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(2);
/// Longest sleep while nothing is expected.
const IDLE: Duration = Duration::from_millis(50);

pub(crate) struct MonitorThread {
    pub(crate) health: Health,
    /// By worker: answers come to any of them.
    pub(crate) packets: Vec<PacketPair>,
    /// By worker: the way to it, and commands that found its queue full.
    pub(crate) pending: Vec<(CommandSender, VecDeque<Command>)>,
    /// Other configurations.
    pub(crate) orders: Receiver<Order>,
    /// The one that the workers are about to go on with.
    pub(crate) coming: Option<Coming>,
    pub(crate) watchdog: Watchdog,
    pub(crate) log: SyncSender<Message>,
    pub(crate) current: Current,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// A configuration whose servers are being looked at for the first time: flows that come the moment when the workers go on
/// with it are to find servers that are up.
pub(crate) struct Coming {
    replies: Vec<Reply>,
    until: Instant,
    /// What was found meanwhile. Workers that do not know the configuration yet pass over what is about its servers, or note it
    /// of one that had the place before, and that no flow gets: they are told again.
    found: Vec<Change>,
}

impl MonitorThread {
    /// Runs until told to stop; unpark it then.
    pub(crate) fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            while let Ok(order) = self.orders.try_recv() {
                self.take_over(order);
            }
            for packets in &self.packets {
                for _ in 0..BATCH {
                    let Some(PuntedPacket(packet)) = packets.receive() else { break };
                    self.health.handle_packet(packet);
                }
            }
            let now = self.status.clock.now();
            let output = self.health.poll(now);
            self.handle_output(output);
            if self.coming.as_ref().is_some_and(|coming| now >= coming.until || self.health.knows_all()) {
                self.go_on();
            }
            self.tell_workers();
            for Finding { worker, stalled } in self.watchdog.poll(now) {
                self.say(worker_line(worker, stalled, clock::wall()));
            }
            std::thread::park_timeout(self.pause());
        }
    }

    /// Monitors the servers of this configuration from now on.
    fn take_over(&mut self, Order { snapshot, replies }: Order) {
        self.go_on();
        let now = self.status.clock.now();
        self.health.lay_over(&snapshot, now);
        self.coming = Some(Coming { replies, until: now + WARM_UP, found: Vec::new() });
    }

    /// Has the workers go on with the configuration that is coming, and tells them then what was found meanwhile.
    fn go_on(&mut self) {
        let Some(Coming { replies, found, .. }) = self.coming.take() else { return };
        for ((_, pending), reply) in self.pending.iter_mut().zip(replies) {
            pending.push_back(Command::Adopt(reply));
            pending.extend(found.iter().copied().map(command));
        }
    }

    fn handle_output(&mut self, output: Output) {
        for packet in output.packets {
            // Any worker sends it.
            if !self.packets.first().is_some_and(|packets| packets.send(PuntedPacket(packet))) {
                self.status.packets_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        for change in output.changes {
            if let Some(line) = server_line(&self.current.snapshot(), change.server, change.up, clock::wall())
            {
                self.say(line);
            }
            if let Some(coming) = &mut self.coming {
                coming.found.push(change);
            }
            self.pending.iter_mut().for_each(|(_, pending)| pending.push_back(command(change)));
        }
        let probes = u64::try_from(self.health.in_flight()).unwrap_or(u64::MAX);
        self.status.probes.store(probes, Ordering::Relaxed);
    }

    fn say(&self, line: String) {
        if self.log.try_send(Message::Line(line)).is_err() {
            self.status.log.add_lost(1);
        }
    }

    /// Commands keep their order; those that find a queue full are sent later.
    fn tell_workers(&mut self) {
        for (way, pending) in &mut self.pending {
            while let Some(command) = pending.pop_front() {
                if let Err(refused) = way.send(command) {
                    pending.push_front(refused);
                    break;
                }
            }
        }
    }

    fn pause(&mut self) -> Duration {
        if self.health.in_flight() > 0 || self.pending.iter().any(|(_, pending)| !pending.is_empty()) {
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

fn command(Change { server, up }: Change) -> Command {
    Command::ServerHealth { server, up }
}
