//! A small configuration and one flow in it, to drive scripts through the `Policy` trait.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test support")]

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::address::FlowKey;
use dataplane::balance::Balancer;
use dataplane::policy::{Context, Event, FlowFacts, Outcome, Policy, Record, RunId, ScriptFailure};
use dataplane::snapshot::{
    Algorithm, FailAction, Fallback, Limits, Pool, PoolGroup, PoolGroupId, PoolGroupMember, PoolId, PoolTcp,
    PortRange, Protocol, ScriptSet, ScriptSetId, Server, ServerId, Service, ServiceDatascript, ServiceId,
    ServiceTcp, ServiceUdp, Snapshot, Source, SynCookies, TableLimits, Target, TcpProfile,
};
use dataplane::steering::Seat;
use dataplane::table::TableStore;
use scripting::LuaPolicy;
use smoltcp::time::{Duration, Instant};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// A clock that goes on by a microsecond each time it is read: a run of n thousand instructions takes about n
/// microseconds, on every machine.
pub fn clock() -> u64 {
    NOW.with(|now| {
        now.set(now.get() + 1000);
        now.get()
    })
}

pub fn source(name: &str, text: impl AsRef<[u8]>) -> Source {
    Source { name: name.to_owned(), text: text.as_ref().to_vec() }
}

/// A set named `set` with a request script, to which all pools and groups of [`snapshot`] but "unattached" belong.
pub fn set(request: impl AsRef<[u8]>) -> ScriptSet {
    ScriptSet {
        name: "set".to_owned(),
        request: Some(source("request.lua", request)),
        response: None,
        pools: vec![PoolId(0), PoolId(1)],
        pool_groups: vec![PoolGroupId(0)],
        parsers: ["Default-TLS", "Default-Radius", "Default-DHCP"]
            .iter()
            .filter_map(|name| {
                let text = scripting::builtin_parser(name)?;
                Some(((*name).to_owned(), source(&format!("{name}.lua"), text)))
            })
            .collect(),
    }
}

fn pool(name: &str, servers: &[u16]) -> Pool {
    Pool {
        name: name.to_owned(),
        algorithm: Algorithm::RoundRobin,
        servers: servers.iter().map(|s| ServerId(*s)).collect(),
        monitors: Vec::new(),
        port_translation: true,
        fail_action: FailAction::Reset,
        tcp: PoolTcp {
            promise: tcp::Promise { mss: 1460, window_scale: None, sack: false, timestamps: false },
            connect_timeout: Duration::from_secs(3),
            connect_retries: 2,
            proxy_protocol: None,
        },
    }
}

fn server(pool: u16, address: &str, port: u16, enabled: bool) -> Server {
    Server {
        pool: PoolId(pool),
        address: address.parse().unwrap(),
        hostname: None,
        port,
        weight: 1,
        enabled,
        max_connections: None,
    }
}

/// Service "vs" on 192.0.2.10 with default pool "main" (10.0.0.1:80, 10.0.0.2:80), pool "other" (10.0.0.1:8080,
/// host "web.example"; 10.0.0.3:8080 disabled), pool "unattached" (10.0.0.9:80), group "group" of the first two.
pub fn snapshot(sets: Vec<ScriptSet>) -> Snapshot {
    let mut named = server(1, "10.0.0.1", 8080, true);
    named.hostname = Some("web.example".to_owned());
    let ids = (0..u16::try_from(sets.len()).unwrap()).map(ScriptSetId).collect();
    Snapshot {
        pools: vec![pool("main", &[0, 1]), pool("other", &[2, 3]), pool("unattached", &[4])],
        servers: vec![
            server(0, "10.0.0.1", 80, true),
            server(0, "10.0.0.2", 80, true),
            named,
            server(1, "10.0.0.3", 8080, false),
            server(2, "10.0.0.9", 80, true),
        ],
        pool_groups: vec![PoolGroup {
            name: "group".to_owned(),
            members: vec![
                PoolGroupMember { pool: PoolId(0), priority: 10, ratio: 1 },
                PoolGroupMember { pool: PoolId(1), priority: 5, ratio: 1 },
            ],
        }],
        services: vec![service(ids)],
        script_sets: sets,
        limits: Limits::default(),
        ..Snapshot::default()
    }
}

fn service(script_sets: Vec<ScriptSetId>) -> Service {
    Service {
        name: "vs".to_owned(),
        addresses: vec!["192.0.2.10".parse().unwrap()],
        ports: vec![PortRange { protocol: Protocol::Tcp, first: 443, last: 443 }],
        default: Some(Target::Pool(PoolId(0))),
        script_sets,
        tcp: ServiceTcp {
            profile: TcpProfile::Proxy,
            idle_timeout: Duration::from_secs(600),
            handshake_timeout: Duration::from_secs(10),
            first_payload_timeout: Duration::from_secs(10),
            on_first_payload_timeout: Fallback::Close,
            reset_on_idle: true,
            mss: None,
            syn_cookies: SynCookies::Auto,
            accept_proxy_from: Vec::new(),
            buffer: 65536,
        },
        udp: ServiceUdp {
            per_packet: false,
            idle_timeout: Duration::from_secs(30),
            first_payload_timeout: Duration::from_secs(5),
            on_first_payload_timeout: Fallback::Close,
            buffer: 65536,
        },
        datascript: ServiceDatascript { every_payload: false, on_error: Fallback::Close, debug_log: false },
        tables: TableLimits { entries: 1000, key_bytes: 256, value_bytes: 1024, bytes: 1 << 20 },
        log_connections: true,
        preserve_client_ip: false,
    }
}

/// A worker with its scripts and one flow.
pub struct World {
    pub snapshot: Arc<Snapshot>,
    pub policy: LuaPolicy,
    pub balancer: Balancer,
    pub tables: TableStore,
    pub record: Record,
    pub now: Instant,
    pub event: Event,
    pub facts: FlowFacts,
    pub client: Vec<u8>,
    pub server: Vec<u8>,
    pub can_wait: bool,
}

impl World {
    pub fn of(snapshot: Snapshot) -> World {
        let snapshot = Arc::new(snapshot);
        let policy = match LuaPolicy::new(&snapshot, clock) {
            Ok(policy) => policy,
            Err(errors) => panic!("{errors:#?}"),
        };
        World {
            balancer: Balancer::new(&snapshot),
            tables: TableStore::new(&snapshot, Seat::ALONE),
            snapshot,
            policy,
            record: Record::default(),
            now: Instant::from_secs(1000),
            event: Event::Request,
            facts: FlowFacts {
                service: ServiceId(0),
                key: FlowKey::new(
                    Protocol::Tcp,
                    SocketAddr::new(IpAddr::from([198, 51, 100, 7]), 50001),
                    SocketAddr::new(IpAddr::from([192, 0, 2, 10]), 1812),
                ),
                server: None,
            },
            client: Vec::new(),
            server: Vec::new(),
            can_wait: true,
        }
    }

    /// One set with this request script.
    pub fn new(request: impl AsRef<[u8]>) -> World {
        World::of(snapshot(vec![set(request)]))
    }

    pub fn with(mut self, client: impl AsRef<[u8]>) -> World {
        self.client = client.as_ref().to_vec();
        self
    }

    /// Forgets the flow: the next run is that of another one.
    pub fn next_flow(&mut self) -> &mut World {
        self.record = Record::default();
        self
    }

    fn call(&mut self, f: impl FnOnce(&mut LuaPolicy, &mut Context<'_>) -> Outcome) -> Outcome {
        let mut context = Context {
            now: self.now,
            event: self.event,
            snapshot: &self.snapshot,
            facts: self.facts,
            client_payload: &self.client,
            server_payload: &self.server,
            can_wait: self.can_wait,
            balancer: &mut self.balancer,
            tables: &mut self.tables,
            record: &mut self.record,
        };
        f(&mut self.policy, &mut context)
    }

    pub fn start(&mut self) -> Outcome {
        self.call(|policy, context| policy.start(context))
    }

    pub fn resume(&mut self, run: RunId) -> Outcome {
        self.call(|policy, context| policy.resume(run, context))
    }

    /// Runs to the end and gives what was logged.
    pub fn logged(&mut self) -> String {
        match self.start() {
            Outcome::Done => self.log(),
            other => panic!("{other:?}: {:?}", self.record.error),
        }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.record.log).into_owned()
    }

    /// Runs into a failure and gives its text.
    pub fn failed(&mut self, wanted: ScriptFailure) -> String {
        match self.start() {
            Outcome::Failed(failure) if failure == wanted => self.record.error.clone().unwrap(),
            other => panic!("{other:?}: {:?}; log {:?}", self.record.error, self.log()),
        }
    }

    /// Runs into a wait.
    pub fn waits(&mut self) -> (RunId, usize) {
        match self.start() {
            Outcome::Suspended { run, need } => (run, need),
            other => panic!("{other:?}: {:?}", self.record.error),
        }
    }
}

/// What a script logs with `client` as its payload.
pub fn run(script: &str, client: impl AsRef<[u8]>) -> String {
    World::new(script).with(client).logged()
}

/// Small, seeded, good enough for tests: xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// Bytes of protocols, written from the RFCs.
pub mod wire {
    fn with_length(bytes: &[u8], size: usize) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[4 - size..], bytes].concat()
    }

    /// The handshake message of a ClientHello (RFC 8446 4.1.2) with a server name, if any (RFC 6066 3), between two
    /// other extensions, the last of `padding` bytes.
    pub fn client_hello(name: Option<&str>, padding: usize) -> Vec<u8> {
        let mut extensions = [&[0x00, 0x2b][..], &with_length(&[2, 3, 4], 2)].concat();
        if let Some(name) = name {
            let entry = [&[0][..], &with_length(name.as_bytes(), 2)].concat();
            let list = with_length(&entry, 2);
            extensions = [extensions, vec![0, 0], with_length(&list, 2)].concat();
        }
        extensions = [extensions, vec![0, 21], with_length(&vec![0; padding], 2)].concat();
        let body = [
            vec![3, 3],
            (0..32).collect(),
            with_length(&[7; 32], 1),
            with_length(&[0x13, 0x01, 0x13, 0x02], 2),
            with_length(&[0], 1),
            with_length(&extensions, 2),
        ]
        .concat();
        [vec![1], with_length(&body, 3)].concat()
    }

    /// A message in records of at most `size` bytes (RFC 8446 5.1).
    pub fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &with_length(part, 2)].concat()).collect()
    }

    /// An Access-Request with these attributes (RFC 2865 3).
    pub fn radius(attributes: &[(u8, &[u8])]) -> Vec<u8> {
        let attributes: Vec<u8> = attributes
            .iter()
            .flat_map(|(number, value)| {
                [&[*number, u8::try_from(value.len() + 2).unwrap()][..], value].concat()
            })
            .collect();
        let length = u16::try_from(20 + attributes.len()).unwrap().to_be_bytes();
        [vec![1, 42], length.to_vec(), vec![9; 16], attributes].concat()
    }

    /// A DHCPDISCOVER from this MAC address with these options (RFC 2131 2).
    pub fn dhcp(mac: [u8; 6], options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 236];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        message[24..28].copy_from_slice(&[10, 1, 2, 3]);
        message[28..34].copy_from_slice(&mac);
        [message, vec![99, 130, 83, 99], options.to_vec()].concat()
    }
}

/// Resumes with all of `payload` cut into pieces of `piece` bytes until the run ends.
pub fn feed(world: &mut World, payload: &[u8], piece: usize) -> Outcome {
    world.client = payload.iter().take(piece).copied().collect();
    let mut outcome = world.start();
    while let Outcome::Suspended { run, need } = outcome {
        if world.client.len() >= payload.len() {
            return Outcome::Suspended { run, need };
        }
        while world.client.len() < need.min(payload.len()) {
            let len = (world.client.len() + piece).min(payload.len());
            world.client = payload[..len].to_vec();
        }
        outcome = world.resume(run);
    }
    outcome
}
