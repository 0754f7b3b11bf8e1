use std::cell::Cell;
use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpPacket,
};
use tcp::{Binding, End, Event, Limits, Promise, Segment, SeqNumber, Side, Splice};

const CLIENT: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
const VIP: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
const CLIENT_PORT: u16 = 40000;
const VIP_PORT: u16 = 80;
/// Virtual time after which a connection hangs.
const PATIENCE: Duration = Duration::from_secs(3600);

thread_local! {
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

fn client_clock() -> u32 {
    CLOCK.get().wrapping_add(0xFFFF_F000)
}

/// A server whose clock is slower and elsewhere.
fn server_clock() -> u32 {
    (CLOCK.get() / 10).wrapping_add(77)
}

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Mostly small, sometimes large.
    fn size(&mut self) -> usize {
        match self.below(10) {
            0 => 0,
            1..=4 => self.below(3000) as usize,
            5..=8 => self.below(30_000) as usize,
            _ => self.below(262_145) as usize,
        }
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Percent of packets lost on each leg.
    pub loss: u64,
    /// As many are also duplicated, and every tenth is late. The hosts then use keep-alive: without it, smoltcp's sockets
    /// hang now and then on such a path, also when nothing is between them, because an old window update may close a
    /// window for good.
    pub disorder: bool,
    pub up: usize,
    pub down: usize,
    /// Client bytes that the decision wants.
    pub need: usize,
    /// Server bytes that a response script wants.
    pub hold: Option<usize>,
    pub buffer: u32,
    pub client_buffer: usize,
    pub server_buffer: usize,
    pub server_mtu: usize,
    pub client_timestamps: bool,
    pub server_timestamps: bool,
    /// The server answers before it has read everything.
    pub eager_server: bool,
    /// Bytes that weir puts ahead of the client's.
    pub prefix: usize,
    /// Bytes at the front of the client's that the server is not to get.
    pub header: usize,
    /// The client closes only after the server; else the server after the client.
    pub patient_client: bool,
}

impl Plan {
    pub fn random(rng: &mut Rng, loss: u64) -> Plan {
        let up = rng.size();
        let patient = up == 0 || rng.chance(30);
        Plan {
            loss,
            disorder: rng.chance(70),
            up,
            down: rng.size(),
            need: rng.below(5000).min(up as u64) as usize,
            hold: None,
            buffer: 8192 + rng.below(60_000) as u32,
            client_buffer: 4096 << rng.below(6),
            server_buffer: 4096 << rng.below(6),
            server_mtu: 1500,
            client_timestamps: rng.chance(60),
            server_timestamps: rng.chance(80),
            eager_server: patient || rng.chance(50),
            prefix: 0,
            header: 0,
            patient_client: patient,
        }
    }

    pub fn small(rng: &mut Rng, loss: u64) -> Plan {
        Plan { up: 1 + rng.below(8000) as usize, down: rng.below(8000) as usize, ..Plan::random(rng, loss) }
    }
}

/// An IP device of which the world is the other end.
struct Port {
    mtu: usize,
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        self.rx.pop_front().map(|packet| (Received(packet), Sending(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// An end host with one socket and what it has to say.
struct Host {
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    outgoing: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    opened: bool,
    saw_end: bool,
    closed: bool,
}

impl Host {
    fn new(address: Ipv4Address, mtu: usize, buffer: usize, outgoing: Vec<u8>, seed: u64) -> Self {
        let mut port = Port { mtu, rx: VecDeque::new(), tx: Vec::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port, Instant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::Ipv4(address), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let mut socket = Socket::new(SocketBuffer::new(vec![0; buffer]), SocketBuffer::new(vec![0; 65536]));
        socket.set_nagle_enabled(false);
        let handle = sockets.add(socket);
        Host {
            port,
            interface,
            sockets,
            handle,
            outgoing,
            sent: 0,
            received: Vec::new(),
            opened: false,
            saw_end: false,
            closed: false,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Reads all there is; writes what is allowed; closes when told so and everything is written.
    /// On a lossy path the FIN goes alone, after everything is acknowledged: smoltcp does not repeat a FIN whose data
    /// was acknowledged without it.
    fn work(&mut self, may_write: bool, may_close: bool, lossy: bool) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let received = &mut self.received;
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        let state = socket.state();
        use smoltcp::socket::tcp::State;
        self.opened |= !matches!(state, State::Listen | State::SynSent | State::SynReceived | State::Closed);
        let opened = self.opened;
        self.saw_end |= opened && !socket.may_recv();
        if may_write && socket.can_send() && self.sent < self.outgoing.len() {
            self.sent += socket.send_slice(&self.outgoing[self.sent..]).unwrap();
        }
        let written = self.sent == self.outgoing.len() && (!lossy || socket.send_queue() == 0);
        if opened && may_close && written && !self.closed {
            socket.close();
            self.closed = true;
        }
    }
}

/// One direction of one leg.
#[derive(Default)]
struct Wire(Vec<(Instant, Vec<u8>)>);

impl Wire {
    fn send(&mut self, rng: &mut Rng, now: Instant, plan: &Plan, packet: &[u8]) {
        let loss = plan.loss;
        if rng.chance(loss) {
            return;
        }
        let copies = 1 + u64::from(plan.disorder && rng.chance(loss));
        for _ in 0..copies {
            let jitter = if plan.disorder && rng.chance(10) { rng.below(50) } else { 0 };
            self.0.push((now + Duration::from_millis(5 + jitter), packet.to_vec()));
        }
    }

    fn arrivals(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let (due, later) =
            std::mem::take(&mut self.0).into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.0 = later;
        due.into_iter().map(|(_, packet)| packet).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(at, _)| *at).min()
    }
}

/// weir reduced to what the tests need: no addresses change.
struct Weir {
    plan: Plan,
    isn: SeqNumber,
    binding: Option<Binding>,
    splice: Option<Splice>,
    connected: bool,
    client_clock: u32,
    ended: Option<Event>,
}

impl Weir {
    fn limits(&self) -> Limits {
        let long = Duration::from_secs(600);
        Limits {
            handshake_timeout: long,
            first_payload_timeout: long,
            connect_timeout: long,
            replay_timeout: long,
            buffer: self.plan.buffer,
        }
    }

    /// A packet of `from`; what is to be sent on at once.
    fn packet(&mut self, now: Instant, from: Side, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        let segment = Segment::parse(&packet[20..]).unwrap();
        if let (Side::Client, Some(timestamps)) = (from, segment.options.timestamps) {
            self.client_clock = timestamps.value;
        }
        if let Some(splice) = self.splice {
            translate(now, &splice, from, self.client_clock, &mut packet);
            return Some(packet);
        }
        if self.binding.is_none() && from == Side::Client && segment.flags.0 == 2 {
            let promise = Promise { mss: 1460, window_scale: Some(3), sack: true, timestamps: true };
            let limits = self.limits();
            self.binding = Some(Binding::accept(now, &segment, &promise, &limits, self.isn, 0xFFFF_FF00));
            return None;
        }
        let event = self.binding.as_mut()?.handle_segment(now, from, &segment);
        let forwarded = (event == Event::Forward).then(|| {
            let splice = self.binding.as_ref().unwrap().splice();
            translate(now, &splice, from, self.client_clock, &mut packet);
            packet
        });
        self.event(now, event);
        forwarded
    }

    fn event(&mut self, now: Instant, event: Event) {
        let Some(binding) = self.binding.as_mut() else { return };
        match event {
            Event::Established | Event::Data(Side::Client) => {
                let header = self.plan.header;
                let available = binding.payload(Side::Client).len();
                let enough = available >= header + self.plan.need;
                if !self.connected && available >= header && (enough || binding.client_finished()) {
                    self.connected = true;
                    binding.skip(header);
                    binding.connect(now, self.plan.hold.is_some(), &prefix(&self.plan));
                }
            }
            Event::Data(Side::Server) => {
                let need = self.plan.hold.unwrap_or(0);
                let full = binding.payload(Side::Server).len() >= need.min(self.plan.buffer as usize / 2);
                if full || binding.finished(Side::Server) {
                    binding.release_response(now);
                }
            }
            Event::Spliced => {
                self.splice = Some(binding.splice());
            }
            Event::Ended(_) | Event::ConnectFailed(_) => self.ended = Some(event),
            Event::Consumed | Event::Rejected | Event::Forward => {}
        }
    }

    fn output(&mut self, now: Instant) -> Vec<(Side, Vec<u8>)> {
        let mut packets = Vec::new();
        if let Some(binding) = self.binding.as_mut()
            && binding.poll_timeout().is_some_and(|at| at <= now)
        {
            let event = binding.handle_timeout(now);
            self.event(now, event);
        }
        if let Some(binding) = self.binding.as_mut() {
            while let Some(transmit) = binding.poll_transmit(now) {
                packets.push((transmit.to, in_ip(transmit.to, &transmit.segment)));
                assert!(packets.len() < 10_000, "endless output");
            }
        }
        if self.splice.is_some() {
            self.binding = None;
        }
        packets
    }
}

/// What weir puts ahead of the client's bytes.
fn prefix(plan: &Plan) -> Vec<u8> {
    (0..plan.prefix).map(|n| n as u8).collect()
}

fn translate(now: Instant, splice: &Splice, from: Side, echo: u32, packet: &mut Vec<u8>) {
    splice.apply(from, &mut packet[20..]).unwrap();
    if splice.timestamps_missing_from(from) {
        let len = packet.len() - 20;
        packet.resize(len + 32, 0);
        let len = splice.insert_timestamps(now, from, echo, &mut packet[20..], len).unwrap();
        packet.truncate(20 + len);
        assert!(packet.len() <= 1500, "a packet of {} bytes", packet.len());
        let mut ip = Ipv4Packet::new_unchecked(packet.as_mut_slice());
        ip.set_total_len(20 + len as u16);
        ip.fill_checksum();
    }
}

fn in_ip(to: Side, segment: &Segment<'_>) -> Vec<u8> {
    let (source, destination, ports) = match to {
        Side::Client => (VIP, CLIENT, (VIP_PORT, CLIENT_PORT)),
        Side::Server => (CLIENT, VIP, (CLIENT_PORT, VIP_PORT)),
    };
    let len = segment.wire_len();
    let mut bytes = vec![0; 20 + len];
    segment.emit(ports.0, ports.1, &mut bytes[20..]).unwrap();
    TcpPacket::new_unchecked(&mut bytes[20..]).fill_checksum(&source.into(), &destination.into());
    let repr = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Tcp,
        payload_len: len,
        hop_limit: 64,
    };
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &Default::default());
    bytes
}

/// Client, weir, server and the four wires between them.
pub struct World {
    now: Instant,
    rng: Rng,
    plan: Plan,
    client: Host,
    server: Host,
    /// What the server is to read.
    expected: Vec<u8>,
    weir: Weir,
    client_to_weir: Wire,
    weir_to_client: Wire,
    server_to_weir: Wire,
    weir_to_server: Wire,
}

impl World {
    pub fn new(plan: Plan, mut rng: Rng) -> World {
        let (up, down) = (rng.bytes(plan.header + plan.up), rng.bytes(plan.down));
        let expected = [prefix(&plan), up[plan.header..].to_vec()].concat();
        let mut client = Host::new(CLIENT, 1500, plan.client_buffer, up, rng.next());
        let mut server = Host::new(VIP, plan.server_mtu, plan.server_buffer, down, rng.next());
        if plan.client_timestamps {
            client.socket().set_tsval_generator(Some(client_clock));
        }
        if plan.server_timestamps {
            server.socket().set_tsval_generator(Some(server_clock));
        }
        if plan.disorder {
            client.socket().set_keep_alive(Some(Duration::from_secs(20)));
            server.socket().set_keep_alive(Some(Duration::from_secs(20)));
        }
        server.socket().listen(VIP_PORT).unwrap();
        let Host { interface, sockets, handle, .. } = &mut client;
        let socket = sockets.get_mut::<Socket<'_>>(*handle);
        socket.connect(interface.context(), (IpAddress::Ipv4(VIP), VIP_PORT), CLIENT_PORT).unwrap();
        // Half of the flows wrap around soon.
        let isn = if rng.chance(50) { u32::MAX - rng.below(3000) as u32 } else { rng.next() as u32 };
        let weir = Weir {
            plan: plan.clone(),
            isn: isn.into(),
            binding: None,
            splice: None,
            connected: false,
            client_clock: 0,
            ended: None,
        };
        World {
            now: Instant::ZERO,
            rng,
            plan,
            client,
            server,
            expected,
            weir,
            client_to_weir: Wire::default(),
            weir_to_client: Wire::default(),
            server_to_weir: Wire::default(),
            weir_to_server: Wire::default(),
        }
    }

    /// Runs to the end of the connection.
    pub fn run(mut self) -> Result<Instant, String> {
        while self.now < Instant::ZERO + PATIENCE {
            CLOCK.set(self.now.total_millis() as u32);
            self.step();
            if let Some(ended) = self.weir.ended {
                // Who has gone after the last exchange resets a FIN that comes again.
                let gone = matches!(ended, Event::Ended(End::ClientReset | End::ServerReset));
                if gone && self.is_delivered() {
                    return Ok(self.now);
                }
                return Err(format!("at {}: {ended:?}", self.now));
            }
            if self.is_done() {
                return Ok(self.now);
            }
            self.now = self.next().max(self.now + Duration::from_micros(1));
        }
        Err(format!(
            "hangs: client ({:?}) has {} of {}, server ({:?}) {} of {}; spliced {}, {:?}",
            self.client.socket().state(),
            self.client.received.len(),
            self.plan.down,
            self.server.socket().state(),
            self.server.received.len(),
            self.expected.len(),
            self.weir.splice.is_some(),
            self.weir.binding,
        ))
    }

    fn is_done(&self) -> bool {
        self.is_delivered() && self.weir.splice.is_some()
    }

    fn is_delivered(&self) -> bool {
        let up = self.server.received == self.expected;
        let down = self.client.received == self.server.outgoing;
        up && down && self.client.saw_end && self.server.saw_end
    }

    fn step(&mut self) {
        for packet in self.client_to_weir.arrivals(self.now) {
            self.arrive(Side::Client, packet);
        }
        for packet in self.server_to_weir.arrivals(self.now) {
            self.arrive(Side::Server, packet);
        }
        for (to, packet) in self.weir.output(self.now) {
            self.wire_to(to, &packet);
        }
        self.client.port.rx.extend(self.weir_to_client.arrivals(self.now));
        self.server.port.rx.extend(self.weir_to_server.arrivals(self.now));
        let answered = self.plan.eager_server || self.server.received.len() == self.expected.len();
        // One side closes first: when both do so at once, smoltcp does not repeat a FIN that was lost.
        let patient = self.plan.patient_client;
        let (client_closes, server_closes) =
            (!patient || self.client.saw_end, patient || self.server.saw_end);
        for (host, may_write, may_close) in
            [(&mut self.client, true, client_closes), (&mut self.server, answered, answered && server_closes)]
        {
            host.interface.poll(self.now, &mut host.port, &mut host.sockets);
            host.work(may_write, may_close, self.plan.loss > 0 || self.plan.disorder);
            host.interface.poll(self.now, &mut host.port, &mut host.sockets);
        }
        let (rng, plan) = (&mut self.rng, &self.plan);
        for packet in self.client.port.tx.drain(..) {
            self.client_to_weir.send(rng, self.now, plan, &packet);
        }
        for packet in self.server.port.tx.drain(..) {
            self.server_to_weir.send(rng, self.now, plan, &packet);
        }
        assert!(self.client.received.len() <= self.plan.down);
        assert!(self.expected.starts_with(&self.server.received), "the server reads something else");
    }

    fn arrive(&mut self, from: Side, packet: Vec<u8>) {
        if let Some(packet) = self.weir.packet(self.now, from, packet) {
            self.wire_to(from.opposite(), &packet);
        }
    }

    fn wire_to(&mut self, to: Side, packet: &[u8]) {
        let wire = match to {
            Side::Client => &mut self.weir_to_client,
            Side::Server => &mut self.weir_to_server,
        };
        wire.send(&mut self.rng, self.now, &self.plan, packet);
    }

    /// The next time at which anything can happen.
    fn next(&mut self) -> Instant {
        let (now, mut times) = (self.now, Vec::new());
        for wire in [&self.client_to_weir, &self.weir_to_client, &self.server_to_weir, &self.weir_to_server] {
            times.extend(wire.next());
        }
        times.extend(self.weir.binding.as_ref().and_then(Binding::poll_timeout));
        for host in [&mut self.client, &mut self.server] {
            times.extend(host.interface.poll_at(now, &host.sockets));
        }
        times.into_iter().min().unwrap_or(now + PATIENCE)
    }
}
