//! How a worker and the control threads talk: bounded queues without locks, one pair of ends per worker.
//!
//! [`channel`] makes both ends. The worker never waits: it takes [`Command`]s between bursts, and what finds a full
//! queue on the way to control is lost and counted ([`crate::counters::Counters::records_lost`], [`DropReason::Punt`]).
//! Answers to a [`Query`] are owned copies, so that control may take its time with them.
//!
//! Control's own connections (health monitors) cross as raw IP packets, [`PuntedPacket`], both ways. The worker hands
//! over every packet to an address of [`crate::snapshot::Interface::addresses`] that is TCP or UDP to a port of
//! [`monitor_ports`], an ICMP echo reply, or an ICMP error that belongs to no flow of its own.

mod ended;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;
use smoltcp::time::{Duration, Instant};

use crate::balance::Balancer;
use crate::counters::{Counters, DropReason};
use crate::io::PortStats;
use crate::policy::{Event, ScriptReport};
use crate::script_profile::ScriptProfile;
use crate::snapshot::{PoolId, Protocol, ScriptSetId, ServerId, ServiceId, Snapshot};
use crate::table::TableStats;
use crate::trace::Order;
pub use ended::{EndedFlow, Notes};

/// How many items each queue of a [`channel`] holds.
#[derive(Clone, Copy, Debug)]
pub struct Capacities {
    /// Commands to the worker.
    pub commands: usize,
    /// Ended flows on their way to the connection log; about 200 bytes each.
    pub records: usize,
    /// Packets, in each direction; at most one MTU each.
    pub packets: usize,
}

impl Default for Capacities {
    fn default() -> Self {
        Capacities { commands: 256, records: 8192, packets: 256 }
    }
}

/// Makes the two ends. Capacities of 0 are taken as 1.
#[must_use]
pub fn channel(capacities: Capacities) -> (WorkerEnd, ControlEnd) {
    let commands = Arc::new(ArrayQueue::new(capacities.commands.max(1)));
    let records = Arc::new(ArrayQueue::new(capacities.records.max(1)));
    let to_control = Arc::new(ArrayQueue::new(capacities.packets.max(1)));
    let to_worker = Arc::new(ArrayQueue::new(capacities.packets.max(1)));
    let control = ControlEnd {
        commands: CommandSender(Arc::clone(&commands)),
        records: RecordReceiver(Arc::clone(&records)),
        packets: PacketPair { incoming: Arc::clone(&to_control), outgoing: Arc::clone(&to_worker) },
    };
    let worker =
        WorkerEnd { commands, records, packets: PacketPair { incoming: to_worker, outgoing: to_control } };
    (worker, control)
}

/// The TCP and UDP ports that the monitors' own connections start from: those above [`crate::snapshot::SnatPool::last_port`].
/// Empty when the SNAT pool goes up to 65535.
#[must_use]
pub fn monitor_ports(snapshot: &Snapshot) -> RangeInclusive<u16> {
    match snapshot.snat.last_port.checked_add(1) {
        Some(first) => first.max(1024)..=u16::MAX,
        None => RangeInclusive::new(1, 0),
    }
}

/// The worker's side. Every method returns at once.
#[derive(Debug)]
pub struct WorkerEnd {
    commands: Arc<ArrayQueue<Command>>,
    records: Arc<ArrayQueue<EndedFlow>>,
    packets: PacketPair,
}

impl WorkerEnd {
    /// The next command, if any; asked for between bursts.
    #[must_use]
    pub fn command(&mut self) -> Option<Command> {
        self.commands.pop()
    }

    /// Hands over what is to be recorded of an ended flow. `false`: the queue is full and the record is lost; count it.
    #[inline]
    #[must_use]
    pub fn record(&mut self, flow: EndedFlow) -> bool {
        self.records.push(flow).is_ok()
    }

    /// Hands over a copy of an IP packet. `false`: the queue is full; count [`DropReason::Punt`].
    /// Allocates; packets for control are few by nature and bounded by the queue.
    #[must_use]
    pub fn punt(&mut self, ip_packet: &[u8]) -> bool {
        !self.packets.outgoing.is_full() && self.packets.send(PuntedPacket(ip_packet.to_vec()))
    }

    /// The next packet that control wants sent. The worker finds route and neighbour from its destination address.
    #[must_use]
    pub fn packet(&mut self) -> Option<PuntedPacket> {
        self.packets.receive()
    }
}

/// Control's side; its parts go to the threads that need them.
#[derive(Debug)]
pub struct ControlEnd {
    /// Commands to the worker.
    pub commands: CommandSender,
    /// Ended flows from the worker.
    pub records: RecordReceiver,
    /// Packets of the health monitors.
    pub packets: PacketPair,
}

/// Sends commands to one worker; cheap to clone.
#[derive(Clone, Debug)]
pub struct CommandSender(Arc<ArrayQueue<Command>>);

impl CommandSender {
    /// Queues a command; gives it back when the queue is full.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.0.push(command)
    }

    /// Queues a query and returns where its answer will arrive, or `None` when the queue is full. The receiver
    /// reports a disconnect if the worker is gone before it answered.
    #[must_use]
    pub fn query(&self, query: Query) -> Option<Receiver<Answer>> {
        let (reply, receiver) = Reply::pair();
        self.send(Command::Query(query, reply)).ok().map(|()| receiver)
    }
}

/// Takes the records of ended flows of one worker.
#[derive(Debug)]
pub struct RecordReceiver(Arc<ArrayQueue<EndedFlow>>);

impl RecordReceiver {
    /// The next record, if any.
    #[must_use]
    pub fn receive(&self) -> Option<ConnectionRecord> {
        self.0.pop().map(ConnectionRecord::from)
    }
}

/// A queue of IP packets in each direction.
#[derive(Debug)]
pub struct PacketPair {
    incoming: Arc<ArrayQueue<PuntedPacket>>,
    outgoing: Arc<ArrayQueue<PuntedPacket>>,
}

impl PacketPair {
    /// `false`: the queue is full and the packet is lost.
    #[must_use]
    pub fn send(&self, packet: PuntedPacket) -> bool {
        self.outgoing.push(packet).is_ok()
    }

    /// The next packet from the other side, if any.
    #[must_use]
    pub fn receive(&self) -> Option<PuntedPacket> {
        self.incoming.pop()
    }
}

/// A whole IP packet, from its IP header on, without Ethernet header; checksums are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PuntedPacket(pub Vec<u8>);

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// What the monitors found. Sent on changes only.
    ServerHealth {
        /// The server.
        server: ServerId,
        /// All monitors of its pool hold.
        up: bool,
    },
    /// The operator's wish.
    ServerEnabled {
        /// The server.
        server: ServerId,
        /// `false`: no new flows; those that exist go on.
        enabled: bool,
    },
    /// Begin a profile of a script; [`Query::EndProfile`] ends it.
    StartProfile {
        /// The set.
        set: ScriptSetId,
        /// The event.
        event: Event,
    },
    /// Make ready for this configuration, which is laid over the present one ([`Snapshot::overlaid`]);
    /// [`Answer::Prepared`].
    Prepare(Arc<Snapshot>, Reply),
    /// Go on with the configuration that was prepared; [`Answer::Adopted`].
    Adopt(Reply),
    /// Forget what was prepared.
    Abandon,
    /// A question of the operator.
    Query(Query, Reply),
    /// Follow flows; takes the place of an order before.
    Trace(Box<Order>),
    /// Take no new flows, write the records of the ones that exist, return from the worker's loop.
    Stop,
}

/// What an operator may want to know from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// [`Answer::Counters`].
    Counters,
    /// [`Answer::Flows`].
    Flows {
        /// At most that many.
        limit: usize,
        /// Only those of this service.
        service: Option<ServiceId>,
        /// Only those of this client.
        client: Option<IpAddr>,
    },
    /// [`Answer::Pools`].
    Pools,
    /// [`Answer::Tables`].
    Tables {
        /// Only those of this service.
        service: Option<ServiceId>,
        /// At most that many entries.
        limit: usize,
    },
    /// [`Answer::Latency`].
    Latency,
    /// [`Answer::Scripts`].
    Scripts,
    /// [`Answer::Ports`].
    Ports,
    /// [`Answer::Profile`]; ends it.
    EndProfile,
    /// [`Answer::Pong`].
    Ping,
    /// [`Answer::Time`].
    Time,
    /// [`Answer::ServicesInUse`].
    ServicesInUse {
        /// Of flows from this place of the flow table on.
        first: u32,
        /// In so many places.
        count: u32,
    },
    /// [`Answer::Live`].
    Live {
        /// The entries of this service's tables.
        service: ServiceId,
        /// At most that many.
        limit: usize,
    },
}

/// Where the answer to a [`Query`] goes.
#[derive(Debug)]
pub struct Reply(SyncSender<Answer>);

impl Reply {
    /// A reply and where it will arrive.
    #[must_use]
    pub fn pair() -> (Reply, Receiver<Answer>) {
        let (sender, receiver) = sync_channel(1);
        (Reply(sender), receiver)
    }

    /// Delivers the answer without waiting; nobody may be listening any more.
    pub fn send(self, answer: Answer) {
        // A full or closed channel means that the asker has given up: nothing is left to do.
        let _ = self.0.try_send(answer);
    }
}

/// A worker's answer: a copy of what it knew at that moment.
#[derive(Debug)]
pub enum Answer {
    /// All counters.
    Counters(Box<Counters>),
    /// Flows, in no particular order.
    Flows(Vec<FlowView>),
    /// Every server of every pool, in the order of [`Snapshot::servers`], and every pool, in the order of
    /// [`Snapshot::pools`].
    Pools(Vec<ServerView>, Vec<PoolView>),
    /// Entries in no particular order, and the statistics of every service asked for.
    Tables(Vec<TableEntryView>, Vec<TableStatsView>),
    /// Nanoseconds from rx burst to tx burst.
    Latency(Histogram<u64>),
    /// One per script.
    Scripts(Vec<ScriptReport>),
    /// One per port, in the order of [`Snapshot::interfaces`].
    Ports(Vec<PortView>),
    /// What was seen of the script since [`Command::StartProfile`].
    Profile(ScriptProfile),
    /// It runs.
    Pong,
    /// The worker's time of this round.
    Time(Instant),
    /// The services of flows.
    ServicesInUse(BTreeSet<ServiceId>),
    /// Whether it is ready; the error is for the operator.
    Prepared(Result<(), String>),
    /// New flows begin by the new configuration; `false`: none was prepared.
    Adopted(bool),
    /// What decisions depend on besides the configuration.
    Live(Box<Live>),
}

/// What decisions about flows of a service depend on besides the configuration, as it is now on one worker.
#[derive(Debug)]
pub struct Live {
    /// A copy to be asked, or [imitated](Balancer::imitate).
    pub balancer: Balancer,
    /// Entries of the service's tables, in no particular order.
    pub entries: Vec<TableEntryView>,
    /// Entries that there are.
    pub held: usize,
}

/// What went one way over a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets, as received by weir.
    pub packets: u64,
    /// TCP or UDP payload in bytes, as received by weir: headers are not counted, retransmissions are.
    pub bytes: u64,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The client's TCP handshake with weir is not complete.
    Handshake,
    /// Waits for payload or for a script's decision.
    Deciding,
    /// weir opens the connection to the server.
    Connecting,
    /// The first bytes are replayed to the server.
    Replaying,
    /// Packets are translated.
    Established,
    /// At least one side has sent FIN.
    Closing,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct FlowView {
    /// Its virtual service.
    pub service: ServiceId,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Client address and port.
    pub client: SocketAddr,
    /// Who sends its packets, where the client is somebody else, named by a PROXY header.
    pub peer: Option<SocketAddr>,
    /// VIP and the VS port that the client used.
    pub vip: SocketAddr,
    /// The server, once chosen.
    pub server: Option<ServerId>,
    /// Where packets to the server go (without port translation, not the server's configured port).
    pub server_address: Option<SocketAddr>,
    /// Source address and port towards the server.
    pub snat: Option<SocketAddr>,
    /// Where it is in its life.
    pub state: FlowState,
    /// From the client.
    pub from_client: Traffic,
    /// From the server.
    pub from_server: Traffic,
    /// Since its first packet.
    pub age: Duration,
    /// Since its last packet.
    pub idle: Duration,
}

/// One server as the balancer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// The server.
    pub server: ServerId,
    /// The monitors' finding.
    pub up: bool,
    /// The operator's wish.
    pub enabled: bool,
    /// Open flows.
    pub flows: u64,
    /// Flows since start.
    pub flows_total: u64,
}

/// What the balancer knows about a pool besides its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// The pool.
    pub pool: PoolId,
    /// Flows that were refused because all its servers that could have taken them were full.
    pub refused: u64,
}

/// One entry of a script's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntryView {
    /// The service that owns it.
    pub service: ServiceId,
    /// The name of the table; `None` is the default table.
    pub table: Option<Vec<u8>>,
    /// Any bytes.
    pub key: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
    /// Time until it expires.
    pub remaining: Duration,
}

/// The tables of one service, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStatsView {
    /// The service.
    pub service: ServiceId,
    /// [`crate::table::TableStore::stats`].
    pub stats: TableStats,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// [`crate::snapshot::Interface::name`].
    pub name: String,
    /// Own MAC address.
    pub mac: [u8; 6],
    /// The link is up; `None` where the device does not say.
    pub link: Option<bool>,
    /// The device's own counters.
    pub stats: PortStats,
}

/// What is known about a flow when it has ended. One per flow of a service with
/// [`crate::snapshot::Service::log_connections`], also for flows that were refused.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Its virtual service.
    pub service: ServiceId,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Client address and port.
    pub client: SocketAddr,
    /// Who sent its packets, where the client is somebody else, named by a PROXY header.
    pub peer: Option<SocketAddr>,
    /// VIP and the VS port that the client used.
    pub vip: SocketAddr,
    /// The server, if one was chosen.
    pub server: Option<ServerId>,
    /// Where packets to the server went.
    pub server_address: Option<SocketAddr>,
    /// Source address and port towards the server.
    pub snat: Option<SocketAddr>,
    /// The worker's time at the first packet.
    pub started: Instant,
    /// The worker's time at the end. Control turns both into wall-clock time.
    pub ended: Instant,
    /// From the client's SYN to its completed handshake (TCP that weir terminates).
    pub handshake: Option<Duration>,
    /// From the first payload, or the handshake, to the choice of a server.
    pub decision: Option<Duration>,
    /// From the first SYN to a server to the server's handshake.
    pub connect: Option<Duration>,
    /// From the client.
    pub from_client: Traffic,
    /// From the server.
    pub from_server: Traffic,
    /// Who ended it, and when.
    pub termination: Termination,
    /// Why it was refused, if it was.
    pub reason: Option<DropReason>,
    /// What scripts logged, unescaped, cut mark included.
    pub ds_log: Option<Box<[u8]>>,
    /// A script marked it as significant.
    pub significant: bool,
    /// Message and traceback of a failed script.
    pub error: Option<Box<str>>,
}

/// How a flow ended, in two letters: who, then in which phase. HAProxy users know the idea.
///
/// | first | who ended it |
/// |---|---|
/// | `-` | nobody: a normal end |
/// | `C` | the client (reset, or it closed before a server was chosen) |
/// | `S` | the server (reset, or it refused the connection) |
/// | `W` | weir, because a script called `close_conn` |
/// | `L` | weir, because a script failed |
/// | `c` | weir, because the client was silent for too long |
/// | `s` | weir, because the server was silent for too long |
/// | `R` | weir, for lack of a server, of resources or of a PROXY header (the record's reason says which) |
/// | `K` | weir, because it was shut down |
///
/// | second | in which phase |
/// |---|---|
/// | `-` | after a normal end |
/// | `H` | the client's handshake |
/// | `P` | waiting for payload or for the script |
/// | `C` | connecting to the server |
/// | `R` | replaying the first bytes to the server |
/// | `D` | data |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// The first letter.
    pub by: EndedBy,
    /// The second letter.
    pub phase: Phase,
}

impl Termination {
    /// FIN from both sides, or the idle timeout of UDP: `--`.
    pub const NORMAL: Termination = Termination { by: EndedBy::Nobody, phase: Phase::Complete };

    /// From its two parts.
    #[must_use]
    pub fn new(by: EndedBy, phase: Phase) -> Self {
        Termination { by, phase }
    }
}

impl std::fmt::Display for Termination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.by.letter(), self.phase.letter())
    }
}

macro_rules! lettered {
    ($(#[$doc:meta])* $name:ident { $(#[doc = $text:literal] $variant:ident = $letter:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $(#[doc = $text] $variant),* }

        impl $name {
            /// All of them, in the order of their documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The letter in the log.
            #[must_use]
            pub fn letter(self) -> char {
                match self { $($name::$variant => $letter),* }
            }

            /// What it means.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $($name::$variant => $text.trim_ascii()),* }
            }
        }
    };
}

lettered! {
    /// Who ended a flow.
    EndedBy {
        /// Nobody: a normal end.
        Nobody = '-',
        /// The client: reset, or it closed before a server was chosen.
        Client = 'C',
        /// The server: reset, or it refused the connection.
        Server = 'S',
        /// weir, because a script called `close_conn`.
        Script = 'W',
        /// weir, because a script failed.
        ScriptError = 'L',
        /// weir, because the client was silent for too long.
        ClientTimeout = 'c',
        /// weir, because the server was silent for too long.
        ServerTimeout = 's',
        /// weir, for lack of a server, of resources or of a PROXY header; the field `reason` says which.
        Refused = 'R',
        /// weir, because it was shut down.
        Shutdown = 'K',
    }
}

lettered! {
    /// In which phase a flow ended.
    Phase {
        /// After a normal end.
        Complete = '-',
        /// The client's handshake; such flows have no line.
        Handshake = 'H',
        /// Waiting for payload or for the script.
        Deciding = 'P',
        /// Connecting to the server.
        Connecting = 'C',
        /// Replaying the first bytes to the server.
        Replaying = 'R',
        /// Data.
        Data = 'D',
    }
}

impl From<FlowState> for Phase {
    /// The phase of a flow that ends abnormally in this state.
    fn from(state: FlowState) -> Self {
        match state {
            FlowState::Handshake => Phase::Handshake,
            FlowState::Deciding => Phase::Deciding,
            FlowState::Connecting => Phase::Connecting,
            FlowState::Replaying => Phase::Replaying,
            FlowState::Established | FlowState::Closing => Phase::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_reach_the_worker_and_answers_come_back() {
        let (mut worker, control) = channel(Capacities { commands: 2, records: 1, packets: 1 });
        let answer = control.commands.query(Query::Counters).unwrap();
        control.commands.send(Command::Stop).unwrap();
        assert!(control.commands.query(Query::Ports).is_none(), "the queue holds two");
        match worker.command() {
            Some(Command::Query(Query::Counters, reply)) => {
                reply.send(Answer::Counters(Box::new(Counters { rx: 7, ..Counters::default() })));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(worker.command(), Some(Command::Stop)));
        assert!(worker.command().is_none());
        match answer.try_recv() {
            Ok(Answer::Counters(counters)) => assert_eq!(counters.rx, 7),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_dropped_quietly() {
        let (mut worker, control) = channel(Capacities::default());
        drop(control.commands.query(Query::Pools).unwrap());
        match worker.command() {
            Some(Command::Query(Query::Pools, reply)) => reply.send(Answer::Pools(Vec::new(), Vec::new())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn packets_cross_in_both_directions_and_full_queues_refuse() {
        let (mut worker, control) = channel(Capacities { commands: 1, records: 1, packets: 1 });
        assert!(worker.punt(&[1, 2, 3]));
        assert!(!worker.punt(&[4]), "the queue holds one packet");
        assert_eq!(control.packets.receive(), Some(PuntedPacket(vec![1, 2, 3])));
        assert!(control.packets.send(PuntedPacket(vec![9])));
        assert!(!control.packets.send(PuntedPacket(vec![8])));
        assert_eq!(worker.packet(), Some(PuntedPacket(vec![9])));
        assert_eq!(worker.packet(), None);
    }

    #[test]
    fn terminations_are_two_letters() {
        assert_eq!(Termination::NORMAL.to_string(), "--");
        assert_eq!(Termination::new(EndedBy::Refused, Phase::Deciding).to_string(), "RP");
        assert_eq!(
            Termination::new(EndedBy::ServerTimeout, Phase::from(FlowState::Closing)).to_string(),
            "sD"
        );
        let mut letters: Vec<char> = EndedBy::ALL.iter().map(|by| by.letter()).collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), EndedBy::ALL.len(), "each letter means one thing");
    }

    #[test]
    fn monitor_ports_are_above_the_snat_ports() {
        let mut snapshot = Snapshot::default();
        snapshot.snat.last_port = 60999;
        assert_eq!(monitor_ports(&snapshot), 61000..=65535);
        snapshot.snat.last_port = 65535;
        assert!(monitor_ports(&snapshot).is_empty());
    }
}
