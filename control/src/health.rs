//! Health monitors, sans-io: packets and time go in, packets and changes come out.
//!
//! Calls in order: [`Health::handle_packet`] for what the worker punted, then [`Health::poll`], again at
//! [`Health::poll_at`] or when a packet arrives. Owned by the health thread; tests drive it in virtual time.

mod check;
mod overlay;
mod probe;
mod stack;
mod unreachable;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use smoltcp::time::Instant;

use dataplane::proxy_protocol;
use dataplane::snapshot::{Monitor, MonitorKind, ServerId, Snapshot};

use crate::source::{Source, source_for};
use check::Check;
use probe::{Endpoints, Outcome, Probe};
use stack::Stack;

/// Probes in flight at a time; the others wait for their turn. smoltcp looks at every socket for every packet.
pub const MAX_PROBES: usize = 64;
/// Packets taken in between two polls.
const MAX_INCOMING: usize = 1024;
/// Rounds of work within one poll: a handshake, the FIN after it, and the socket's end need three.
const MAX_ROUNDS: usize = 4;

/// A server's state has become known or has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The server.
    pub server: ServerId,
    /// All monitors of its pool hold.
    pub up: bool,
}

/// What [`Health::poll`] wants done.
#[derive(Debug, Default)]
pub struct Output {
    /// IP packets to send.
    pub packets: Vec<Vec<u8>>,
    /// In the order in which they were found.
    pub changes: Vec<Change>,
}

/// A monitor of a pool on a server of that pool.
struct Target {
    check: Check,
    kind: MonitorKind,
    /// Index into [`Health::servers`].
    server: usize,
    remote: SocketAddr,
    /// What a connection begins with.
    header: &'static [u8],
    /// Index of the stack; `None` when no own address leads there.
    stack: Option<usize>,
}

/// A server that has monitors.
struct Monitored {
    id: ServerId,
    targets: Range<usize>,
    up: Option<bool>,
}

/// All monitors of a configuration.
pub struct Health {
    servers: Vec<Monitored>,
    targets: Vec<Target>,
    stacks: Vec<Stack>,
    probes: Vec<Probe>,
    /// When which target is probed next; a target is here unless a probe of it is in flight.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    ports: Ports,
    random: Random,
    incoming: usize,
}

impl Health {
    /// For all servers of pools with monitors. The first probes go out at the first poll. `ports` are the local
    /// ports (and echo identifiers) of probes; `seed` decides the jitter, the first port and sequence numbers.
    #[must_use]
    pub fn new(snapshot: &Arc<Snapshot>, ports: RangeInclusive<u16>, seed: u64, now: Instant) -> Self {
        let mut random = Random(seed);
        let mut health = Health {
            servers: Vec::new(),
            targets: Vec::new(),
            stacks: Vec::new(),
            probes: Vec::new(),
            due: BinaryHeap::new(),
            ports: Ports::new(ports, random.next()),
            random,
            incoming: 0,
        };
        health.add_servers(snapshot, now);
        health
    }

    /// All servers of pools with monitors, but for those that are not in the configuration any more.
    fn add_servers(&mut self, snapshot: &Snapshot, now: Instant) {
        let retired = &snapshot.retired;
        for (server, id) in snapshot.servers.iter().zip(0u16..).map(|(server, id)| (server, ServerId(id))) {
            let gone = retired.servers.contains(&id) || retired.pools.contains(&server.pool);
            let Some(pool) = snapshot.pools.get(server.pool.index()).filter(|_| !gone) else { continue };
            let source = source_for(snapshot, server.address);
            let stack = source.map(|source| self.stack(source, now));
            let first = self.targets.len();
            for monitor in &pool.monitors {
                let remote = SocketAddr::new(server.address, monitor.port.unwrap_or(server.port));
                // Who listens on a port of its own is not the server that wants a header.
                let header =
                    pool.tcp.proxy_protocol.filter(|_| monitor.port.is_none()).map(proxy_protocol::own);
                self.add_target(monitor, remote, header.unwrap_or_default(), stack, now);
            }
            if first < self.targets.len() {
                let targets = first..self.targets.len();
                self.servers.push(Monitored { id, targets, up: None });
            }
        }
    }

    fn add_target(
        &mut self,
        monitor: &Monitor,
        remote: SocketAddr,
        header: &'static [u8],
        stack: Option<usize>,
        now: Instant,
    ) {
        self.due.push(Reverse((now, self.targets.len())));
        self.targets.push(Target {
            check: Check::new(monitor),
            kind: monitor.kind.clone(),
            server: self.servers.len(),
            remote,
            header,
            stack,
        });
    }

    fn stack(&mut self, source: Source, now: Instant) -> usize {
        if let Some(index) = self.stacks.iter().position(|stack| stack.source == source) {
            return index;
        }
        self.stacks.push(Stack::new(source, self.random.next(), now));
        self.stacks.len() - 1
    }

    /// Takes in an IP packet. Packets that are for none of the own addresses are ignored.
    pub fn handle_packet(&mut self, packet: Vec<u8>) {
        if let Some(error) = unreachable::parse(&packet) {
            for probe in &mut self.probes {
                let own = self.stacks.get(probe.stack).map(|stack| stack.source.address);
                probe.unreachable |= own.is_some_and(|own| probe.concerns(&error, own));
            }
            return;
        }
        let destination = destination(&packet);
        let stack = self.stacks.iter_mut().find(|stack| Some(stack.source.address) == destination);
        if let Some(stack) = stack
            && self.incoming < MAX_INCOMING
        {
            self.incoming += 1;
            stack.handle_packet(packet);
        }
    }

    /// Does everything that is due at `now`.
    pub fn poll(&mut self, now: Instant) -> Output {
        let mut output = Output::default();
        self.incoming = 0;
        for _ in 0..MAX_ROUNDS {
            for stack in &mut self.stacks {
                stack.poll(now, &mut output.packets);
            }
            let ended = self.judge_probes(now, &mut output.changes);
            let started = self.start_probes(now, &mut output.changes);
            if !ended && !started {
                break;
            }
        }
        output
    }

    /// When [`Health::poll`] is to be called if no packet arrives before; `None`: never, there are no monitors.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let room = self.probes.len() < MAX_PROBES;
        let due = self.due.peek().filter(|_| room).map(|Reverse((at, _))| *at);
        let deadlines = self.probes.iter().map(|probe| probe.deadline).min();
        let sockets = if self.probes.is_empty() {
            None
        } else {
            self.stacks.iter_mut().filter_map(|stack| stack.poll_at(now)).min()
        };
        [due, deadlines, sockets].into_iter().flatten().min()
    }

    /// Probes in flight now, closing connections included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.probes.len()
    }

    /// Looks at every probe. True if something happened that lets sockets send or probes start.
    fn judge_probes(&mut self, now: Instant, changes: &mut Vec<Change>) -> bool {
        let mut worked = false;
        for mut probe in std::mem::take(&mut self.probes) {
            let before = probe.check;
            let stays = match before {
                Some(check) => self.judge(&mut probe, check, now, changes),
                None => self.finish_closing(&probe, now),
            };
            worked |= !stays || before != probe.check || now >= probe.deadline;
            if stays {
                self.probes.push(probe);
            } else if let Some(stack) = self.stacks.get_mut(probe.stack) {
                stack.sockets.remove(probe.socket);
            }
        }
        worked
    }

    /// True if the probe stays.
    fn judge(&mut self, probe: &mut Probe, index: usize, now: Instant, changes: &mut Vec<Change>) -> bool {
        let (Some(target), Some(stack)) = (self.targets.get(index), self.stacks.get_mut(probe.stack)) else {
            return false;
        };
        let good = match probe.outcome(stack, &target.kind) {
            Outcome::Waiting if now < probe.deadline => return true,
            Outcome::Good => true,
            Outcome::Waiting | Outcome::Failed => false,
        };
        let closing = good && probe.close(stack, target.header);
        probe.check = None;
        self.handle_result(index, good, probe.started, now, changes);
        closing
    }

    /// True if the connection still has to be waited for.
    fn finish_closing(&mut self, probe: &Probe, now: Instant) -> bool {
        let Some(stack) = self.stacks.get_mut(probe.stack) else { return false };
        if probe.closed(stack) {
            return false;
        }
        // An aborted socket is found closed in the next round, when its RST has left.
        if now >= probe.deadline {
            probe.abort(stack);
        }
        true
    }

    fn handle_result(
        &mut self,
        index: usize,
        good: bool,
        started: Instant,
        now: Instant,
        changes: &mut Vec<Change>,
    ) {
        let Some(target) = self.targets.get_mut(index) else { return };
        let first = target.check.up().is_none();
        let changed = target.check.handle_result(good);
        let mut next = target.check.next_start(started, now);
        if first && changed {
            // From the second probe on, the checks of many servers are spread over their interval.
            let half = target.check.interval() / 2;
            let jitter = self.random.below(half.total_micros());
            next = now.max(started + half + smoltcp::time::Duration::from_micros(jitter));
        }
        self.due.push(Reverse((next, index)));
        let server = target.server;
        if changed {
            self.combine(server, changes);
        }
    }

    /// A server is up when all its checks are; down as soon as one is.
    fn combine(&mut self, server: usize, changes: &mut Vec<Change>) {
        let Some(server) = self.servers.get_mut(server) else { return };
        let checks = self.targets.get(server.targets.clone()).unwrap_or_default();
        let up = if checks.iter().any(|target| target.check.up() == Some(false)) {
            Some(false)
        } else {
            checks.iter().all(|target| target.check.up() == Some(true)).then_some(true)
        };
        if let Some(up) = up
            && server.up != Some(up)
        {
            server.up = Some(up);
            changes.push(Change { server: server.id, up });
        }
    }

    /// Starts what is due, as far as there is room. True if a probe was started.
    fn start_probes(&mut self, now: Instant, changes: &mut Vec<Change>) -> bool {
        let mut started = false;
        while self.probes.len() < MAX_PROBES {
            match self.due.peek() {
                Some(&Reverse((at, index))) if at <= now => {
                    self.due.pop();
                    started |= self.start(index, now, changes);
                }
                _ => break,
            }
        }
        started
    }

    fn start(&mut self, index: usize, now: Instant, changes: &mut Vec<Change>) -> bool {
        if let Some(probe) = self.open(index, now) {
            self.probes.push(probe);
            return true;
        }
        self.handle_result(index, false, now, now, changes);
        false
    }

    /// `None`: there is no way to the server, or no free port.
    fn open(&mut self, index: usize, now: Instant) -> Option<Probe> {
        let target = self.targets.get(index)?;
        let stack_index = target.stack?;
        let stack = self.stacks.get_mut(stack_index)?;
        let probes = &self.probes;
        let local = self.ports.next(|port| probes.iter().any(|probe| probe.endpoints.local == port))?;
        let endpoints = Endpoints { remote: target.remote, local };
        let (socket, protocol) = probe::open(stack, &target.kind, endpoints, target.header)?;
        Some(Probe {
            check: Some(index),
            stack: stack_index,
            endpoints,
            protocol,
            socket,
            started: now,
            deadline: now + target.check.timeout(),
            unreachable: false,
        })
    }
}

/// The destination address of an IP packet.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?)),
        6 => Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?)),
        _ => None,
    }
}

/// Local ports in turn, so that one is used again as late as possible.
struct Ports {
    range: RangeInclusive<u16>,
    next: u16,
}

impl Ports {
    fn new(range: RangeInclusive<u16>, random: u64) -> Self {
        let size = u64::from(range.end().saturating_sub(*range.start())) + 1;
        let next = range.start().saturating_add(u16::try_from(random % size).unwrap_or(0));
        Ports { range, next }
    }

    fn next(&mut self, in_use: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..=MAX_PROBES {
            let port = self.next;
            self.next = if port >= *self.range.end() { *self.range.start() } else { port + 1 };
            if self.range.contains(&port) && !in_use(port) {
                return Some(port);
            }
        }
        None
    }
}

/// SplitMix64: enough for jitter.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
