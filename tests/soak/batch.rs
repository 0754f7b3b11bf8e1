//! Some connections side by side in one world, and what has to be true of each.

use std::net::SocketAddr;

use dataplane::channel::ConnectionRecord;
use dataplane::policy::{Event, Policy};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use crate::host::{End, Part, When};
use crate::impair::Rng;
use crate::matrix::{Row, Task};
use crate::weir::OUTSIDE;
use crate::world::World;

/// Connections of a batch.
pub const CONNECTIONS: usize = 20;
const FIRST_PORT: u16 = 40_000;
/// Listeners of each server: SYNs that come late or twice take one as well.
const LISTENERS: usize = 2 * CONNECTIONS;
/// Bytes that a script waits for, at most.
const LONGEST_MESSAGE: usize = 20_000;
/// After this time a batch hangs.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// What became of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub connections: usize,
    /// Milliseconds from the client's SYN to the moment when both ends had everything, of all that came so far.
    pub times: Vec<u64>,
    pub retransmitted: u64,
}

struct Batch {
    row: Row,
    world: World,
    started: Vec<Instant>,
}

/// Runs the batch with this number. Panics if anything is wrong.
pub fn run(row: &Row, seed: u64) -> Outcome {
    let name =
        row.name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut rng = Rng::new(name);
    let world = World::new(row, rng.next());
    let mut batch = Batch { row: *row, world, started: Vec::new() };
    let client_first = rng.below(2) == 0;
    batch.listen(&mut rng, client_first);
    batch.connect(&mut rng, client_first);
    batch.wait();
    batch.world.finish();
    batch.judge()
}

/// Mostly small, seldom up to 1 MiB; where time counts, less than a segment and never nothing.
fn size(rng: &mut Rng, row: &Row) -> usize {
    if row.within.is_some() {
        return 2 + rng.below(1000) as usize;
    }
    if rng.below(1000) == 0 {
        return 1 << 20;
    }
    let u = rng.below(1 << 20) as f64 / f64::from(1 << 20);
    (20.0 * u * u).exp2() as usize - usize::from(rng.below(4) == 0)
}

/// What an end says. A `message` says in its first two bytes how much of it a script is to wait for.
fn bytes(rng: &mut Rng, length: usize, message: bool) -> Vec<u8> {
    let mut bytes = rng.bytes(if message && length == 1 { 2 } else { length });
    if message && length > 0 {
        let wanted = bytes.len().min(LONGEST_MESSAGE) as u16;
        bytes[..2].copy_from_slice(&wanted.to_be_bytes());
    }
    bytes
}

impl Batch {
    fn listen(&mut self, rng: &mut Rng, client_first: bool) {
        let choices = [When::AtOnce, When::AfterFirstByte, When::AfterEnd];
        let choices = &choices[..if client_first { 3 } else { 2 }];
        for server in 1..self.world.hosts.len() {
            for _ in 0..if self.row.refusing && server == 1 { 0 } else { LISTENERS } {
                let length = size(rng, &self.row);
                let speaks = choices[rng.below(choices.len() as u64) as usize];
                let bytes = bytes(rng, length, self.row.task == Task::Hold);
                let part = Part { bytes, speaks, closes: When::AtOnce };
                self.world.hosts[server].listen(443, part);
            }
        }
    }

    /// One client after the other begins, up to 40 ms apart.
    fn connect(&mut self, rng: &mut Rng, client_first: bool) {
        let vip = SocketAddr::new(self.row.address(OUTSIDE, 10), 443);
        let closes = if client_first { When::AtOnce } else { When::AfterEnd };
        for number in 0..CONNECTIONS {
            // A client that neither speaks nor closes would wait for a script that waits for it.
            let length = size(rng, &self.row).max(usize::from(!client_first));
            let bytes = bytes(rng, length, self.row.task == Task::Collect);
            let part = Part { bytes, speaks: When::AtOnce, closes };
            let begins = self.world.now + Duration::from_millis(rng.below(41));
            while self.world.now < begins {
                self.world.step();
            }
            self.started.push(self.world.now);
            self.world.hosts[0].connect(FIRST_PORT + number as u16, vip, part);
            self.world.act();
        }
    }

    fn wait(&mut self) {
        let latest = self.world.now + LONGEST;
        let mut steps = 0_u32;
        while !self.world.is_quiet() {
            self.world.step();
            steps += 1;
            if steps.is_multiple_of(64) {
                self.world.check();
            }
            assert!(self.world.now < latest, "hangs: {:?}", self.states());
        }
    }

    fn states(&self) -> Vec<Vec<State>> {
        let hosts = self.world.hosts.iter();
        hosts.map(|host| (0..host.ends.len()).map(|end| host.state(end)).collect()).collect()
    }

    fn judge(&self) -> Outcome {
        let mut outcome = Outcome { connections: CONNECTIONS, ..Outcome::default() };
        let mut met = Vec::new();
        for number in 0..CONNECTIONS {
            let time = self.judge_one(number, &mut met);
            assert!(time.is_some() || !self.row.sure, "connection {number} is not complete");
            let in_time = self.row.within.is_none_or(|most| time.is_some_and(|time| time <= most));
            assert!(in_time, "connection {number} took {time:?} ms");
            outcome.times.extend(time);
        }
        for (server, end) in self.server_ends() {
            let known = met.contains(&(server, end.peer));
            assert!(known || end.received.is_empty(), "a server has heard bytes of no connection");
        }
        assert_eq!(self.scripts_run(Event::Request), self.logged("q"), "request scripts");
        assert_eq!(self.scripts_run(Event::Response), self.logged("r"), "response scripts");
        outcome.retransmitted = self.world.worker.pipeline().counters().retransmitted;
        outcome
    }

    /// How long it took, if it is complete.
    fn judge_one(&self, number: usize, met: &mut Vec<(SocketAddr, Option<SocketAddr>)>) -> Option<u64> {
        let client = &self.world.hosts[0].ends[number];
        let port = FIRST_PORT + number as u16;
        // Handshakes that weir gave up while a client goes on with its SYN have none.
        let records = self.world.records.iter().filter(|record| record.client.port() == port);
        let records: Vec<&ConnectionRecord> = records.collect();
        assert!(records.len() <= 1, "{number} has more than one record: {records:?}");
        let Some(record) = records.first() else {
            assert!(client.received.is_empty() && client.complete.is_none(), "{number} has no record");
            return None;
        };
        let Some((address, server)) = self.server_of(record) else {
            assert!(client.received.is_empty(), "{number} has heard bytes of no server");
            let silent = self.row.task != Task::Pass && client.part.bytes.is_empty();
            return client.complete.filter(|_| silent).map(|at| self.took(number, at));
        };
        met.push((address, server.peer));
        let (request, response) = (&client.part.bytes, &server.part.bytes);
        assert!(request.starts_with(&server.received), "{number}: the server has heard something else");
        assert!(response.starts_with(&client.received), "{number}: the client has heard something else");
        let log = record.ds_log.as_deref().unwrap_or_default();
        if self.row.task != Task::Pass && !server.received.is_empty() {
            assert!(log.starts_with(b"q"), "{number}: no script has seen the bytes that a server has heard");
        }
        assert!(matches!(log, b"" | b"q" | b"qr"), "{number}: {:?}", String::from_utf8_lossy(log));
        let (Some(at_client), Some(at_server)) = (client.complete, server.complete) else { return None };
        assert_eq!((&client.received, &server.received), (response, request), "{number}: FIN before the end");
        Some(self.took(number, at_client.max(at_server)))
    }

    fn took(&self, number: usize, until: Instant) -> u64 {
        (until - self.started[number]).total_millis()
    }

    /// The end that a record tells of.
    fn server_of(&self, record: &ConnectionRecord) -> Option<(SocketAddr, &End)> {
        let (address, snat) = (record.server_address?, record.snat?);
        let met = |(server, end): &(SocketAddr, &End)| *server == address && end.peer == Some(snat);
        self.server_ends().find(met)
    }

    fn server_ends(&self) -> impl Iterator<Item = (SocketAddr, &End)> {
        let servers = self.world.hosts[1..].iter();
        servers.flat_map(|host| host.ends.iter().map(|end| (SocketAddr::from((host.address, 443)), end)))
    }

    fn scripts_run(&self, event: Event) -> usize {
        let reports = self.world.worker.pipeline().policy().report();
        reports.iter().filter(|report| report.event == event).map(|report| report.runs as usize).sum()
    }

    /// How often a letter was logged.
    fn logged(&self, letter: &str) -> usize {
        let logs = self.world.records.iter().filter_map(|record| record.ds_log.as_deref());
        logs.map(|log| log.iter().filter(|byte| **byte == letter.as_bytes()[0]).count()).sum()
    }
}
