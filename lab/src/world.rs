//! The lab itself: weir, the network around it, and time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::channel::{Capacities, ConnectionRecord, ControlEnd, channel};
use dataplane::io::PortId;
use dataplane::memory::MemoryIo;
use dataplane::mesh::Mesh;
use dataplane::pipeline::Pipeline;
use dataplane::route::Routes;
use dataplane::snapshot::{Protocol, ServerId, Snapshot};
use dataplane::worker::Worker;
use smoltcp::time::{Duration, Instant};

use crate::clients::Client;
use crate::error::LabError;
use crate::network::{self, Content, weir_mac};
use crate::observed::Observed;
use crate::options::{Blueprint, Options};
use crate::packet::{self, Joiner, Packet};
use crate::servers::{Host, Session};

/// Packet buffers of a lab.
const BUFFERS: usize = 256;
/// Frames that reach weir in one round.
const ROUND_FRAMES: usize = 64;
/// Rounds after which a world that does not come to rest is left alone until time passes.
const ROUNDS: usize = 20_000;
/// Room in a buffer beside the IP packet.
const LINK: usize = 64;
/// Steps of time: the first after something happened, and the longest.
const STEP: Duration = Duration::from_millis(5);
const LONGEST_STEP: Duration = Duration::from_millis(640);

/// Somebody with a TCP of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Client(usize),
    Session(usize),
}

/// A frame on a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When.
    pub at: Instant,
    /// The port, by its place in [`Snapshot::interfaces`].
    pub port: u8,
    /// It goes to weir.
    pub inbound: bool,
    /// From the destination MAC address on.
    pub bytes: Vec<u8>,
}

/// weir in a laboratory; see the crate's documentation.
pub struct Lab {
    pub(crate) worker: Worker<MemoryIo, Observed>,
    control: ControlEnd,
    routes: Routes,
    pub(crate) now: Instant,
    pub(crate) clients: Vec<Client>,
    pub(crate) client_at: HashMap<(Protocol, SocketAddr, SocketAddr), usize>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) session_at: HashMap<(Protocol, SocketAddr, SocketAddr), usize>,
    pub(crate) hosts: HashMap<(IpAddr, u16), Host>,
    /// Those who may have something to send.
    pub(crate) active: BTreeSet<End>,
    /// When others have something to do by themselves.
    timers: BTreeSet<(Instant, End)>,
    /// Frames on their way to weir.
    towards: VecDeque<(u8, Vec<u8>)>,
    pub(crate) records: Vec<ConnectionRecord>,
    frames: Option<Vec<Frame>>,
    defrag: Joiner,
    isns: u32,
    pub(crate) identification: u16,
    restless: bool,
    /// Clients that keep their packets and got some since somebody asked.
    pub(crate) heard: BTreeSet<usize>,
}

impl Lab {
    /// A single lab; who needs many makes a [`Blueprint`] once.
    ///
    /// # Errors
    /// As [`Blueprint::lab`].
    pub fn new(snapshot: &Snapshot, options: Options) -> Result<Lab, LabError> {
        Blueprint::new(snapshot, options).lab()
    }

    pub(crate) fn build(snapshot: &Arc<Snapshot>, options: &Options) -> Result<Lab, LabError> {
        let ports = u8::try_from(snapshot.interfaces.len()).unwrap_or(u8::MAX);
        let macs: Vec<[u8; 6]> = (0..ports).map(weir_mac).collect();
        let mtu =
            snapshot.interfaces.iter().map(|interface| usize::from(interface.mtu)).max().unwrap_or(1500);
        let mesh =
            Mesh::new(1, usize::from(ports)).pop().ok_or_else(|| LabError::Worker("no seat".to_owned()))?;
        let policy = Observed::new(snapshot, options)?;
        let pipeline =
            Pipeline::new(Arc::clone(snapshot), mesh.seat(), &macs, policy, options.seed, options.start)?;
        // All flows may end at once.
        let records = snapshot.limits.flows as usize + 256;
        let (end, control) = channel(Capacities { commands: 4, records, packets: 16 });
        let io = MemoryIo::with_pool(usize::from(ports), BUFFERS, mtu + LINK);
        let worker =
            Worker::new(io, pipeline, end, mesh).map_err(|error| LabError::Worker(error.to_string()))?;
        let mut lab = Lab {
            worker,
            control,
            routes: Routes::new(snapshot),
            now: options.start,
            clients: Vec::new(),
            client_at: HashMap::new(),
            sessions: Vec::new(),
            session_at: HashMap::new(),
            hosts: HashMap::new(),
            active: BTreeSet::new(),
            timers: BTreeSet::new(),
            towards: VecDeque::new(),
            records: Vec::new(),
            frames: options.keep_frames.then(Vec::new),
            defrag: Joiner::default(),
            isns: options.seed as u32,
            identification: 0,
            restless: false,
            heard: BTreeSet::new(),
        };
        for server in (0..snapshot.servers.len()).filter_map(|index| u16::try_from(index).ok()) {
            lab.worker.pipeline_mut().balancer_mut().set_health(ServerId(server), true);
        }
        lab.settle();
        Ok(lab)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The configuration, with its limits cut down.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        self.worker.pipeline().snapshot()
    }

    /// Takes every frame so far; no more are kept.
    pub(crate) fn take_frames(&mut self) -> Vec<Frame> {
        self.frames.take().unwrap_or_default()
    }

    /// Every frame so far, if [`Options::keep_frames`] asks for it.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.frames.as_deref().unwrap_or_default()
    }

    /// True if the world once did not come to rest by itself: two sides that answer each other for ever.
    #[must_use]
    pub fn restless(&self) -> bool {
        self.restless
    }

    /// Lets time pass, in small steps while something happens, then in larger ones. Where no flow exists and nobody
    /// waits it passes at once.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        let mut step = STEP;
        while self.now < end {
            let idle = self.worker.pipeline().flows().is_empty() && self.timers.is_empty();
            let next = if idle { end } else { (self.now + step).min(end) };
            let timer =
                self.timers.first().map_or(next, |(at, _)| (*at).max(self.now + Duration::from_micros(1)));
            self.now = next.min(timer);
            step = if self.settle() { STEP } else { (step * 2).min(LONGEST_STEP) };
        }
    }

    /// Ends all flows as `weir run` does when it stops: their records are written. Runs that wait stay as they are.
    pub fn shut_down(&mut self) {
        self.worker.pipeline_mut().policy_mut().over = true;
        self.worker.shut_down(self.now);
        self.take_records();
        self.deliver();
    }

    /// Lets everybody act until nothing moves at this moment; `true` if something did.
    pub fn settle(&mut self) -> bool {
        let mut moved = false;
        for _ in 0..ROUNDS {
            let mut busy = self.poll_ends();
            busy |= self.feed();
            busy |= !self.worker.run_once(self.now).is_idle();
            self.take_records();
            busy |= self.deliver();
            if !busy {
                return moved;
            }
            moved = true;
        }
        self.restless = true;
        moved
    }

    fn take_records(&mut self) {
        self.records.extend(std::iter::from_fn(|| self.control.records.receive()));
    }

    /// Frames on their way reach weir.
    fn feed(&mut self) -> bool {
        let count = self.towards.len().min(ROUND_FRAMES);
        for (port, frame) in self.towards.drain(..count) {
            if let Some(frames) = &mut self.frames {
                frames.push(Frame { at: self.now, port, inbound: true, bytes: frame.clone() });
            }
            self.worker.io_mut().inject(PortId(port), &frame);
        }
        count > 0
    }

    /// What weir has sent reaches those it is for.
    fn deliver(&mut self) -> bool {
        let mut any = false;
        let ports = self.snapshot().interfaces.len();
        for port in (0..ports).filter_map(|port| u8::try_from(port).ok()) {
            for frame in self.worker.io_mut().take_sent(PortId(port)) {
                any = true;
                self.arrive(port, &frame);
                if let Some(frames) = &mut self.frames {
                    frames.push(Frame { at: self.now, port, inbound: false, bytes: frame });
                }
            }
        }
        any
    }

    fn arrive(&mut self, port: u8, frame: &[u8]) {
        match network::content(port, self.vlan(port), frame) {
            Content::Nothing => {}
            Content::Answer(answer) => self.towards.push_back((port, answer)),
            Content::Packet(bytes) => {
                let whole = Packet::read(bytes).or_else(|| self.defrag.join(port, bytes));
                if let Some(packet) = whole
                    && !self.deliver_to_client(&packet)
                {
                    self.deliver_to_server(&packet);
                }
            }
        }
    }

    /// Those with a TCP of their own send what they have.
    fn poll_ends(&mut self) -> bool {
        while let Some((at, end)) = self.timers.first().copied().filter(|(at, _)| *at <= self.now) {
            self.timers.remove(&(at, end));
            self.active.insert(end);
        }
        let mut any = false;
        while let Some(end) = self.active.pop_first() {
            let now = self.now;
            while let Some((from, packet)) =
                self.endpoint(end).and_then(|(from, tcp)| Some((from, tcp.poll(now)?)))
            {
                any = true;
                self.towards_weir(from, &packet);
            }
            if let Some(at) = self.endpoint(end).and_then(|(_, tcp)| tcp.deadline()) {
                self.timers.insert((at, end));
            }
        }
        any
    }

    fn endpoint(&mut self, end: End) -> Option<(IpAddr, &mut crate::Endpoint)> {
        match end {
            End::Client(index) => {
                let client = self.clients.get_mut(index)?;
                Some((client.address.ip(), client.tcp.as_mut()?))
            }
            End::Session(index) => {
                let session = self.sessions.get_mut(index)?;
                Some((session.address.ip(), session.tcp.as_mut()?))
            }
        }
    }

    /// Puts a packet on the wire on which `from` lies.
    pub(crate) fn towards_weir(&mut self, from: IpAddr, packet: &[u8]) {
        let port = self.port_towards(from);
        let mac = network::neighbor_mac(port, self.neighbor(from));
        let frame = packet::frame(weir_mac(port), mac, self.vlan(port), packet);
        self.towards.push_back((port, frame));
    }

    /// The port on whose side an address lies; the first if no route leads there.
    pub(crate) fn port_towards(&self, address: IpAddr) -> u8 {
        self.routes.lookup(address.into()).map_or(0, |hop| hop.port.0)
    }

    fn neighbor(&self, address: IpAddr) -> IpAddr {
        self.routes.lookup(address.into()).map_or(address, |hop| hop.address.ip())
    }

    /// True if weir has a route to an address.
    #[must_use]
    pub fn has_route(&self, address: IpAddr) -> bool {
        self.routes.lookup(address.into()).is_some()
    }

    fn vlan(&self, port: u8) -> Option<u16> {
        self.snapshot().interfaces.get(usize::from(port)).and_then(|interface| interface.vlan)
    }

    pub(crate) fn mtu(&self, port: u8) -> usize {
        let interface = self.snapshot().interfaces.get(usize::from(port));
        interface.map_or(1500, |interface| usize::from(interface.mtu))
    }

    pub(crate) fn next_isn(&mut self) -> u32 {
        self.isns = self.isns.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        self.isns
    }
}
