//! A worker that answers every query with the same made-up facts.

use std::time::Duration as StdDuration;

use dataplane::address::FlowKey;
use dataplane::balance::Balancer;
use dataplane::channel::{
    Answer, Command, FlowState, FlowView, Live, PoolView, PortView, Query, Reply, ServerView, TableEntryView,
    TableStatsView, Traffic, WorkerEnd,
};
use dataplane::counters::{Counters, DropReason};
use dataplane::io::{PortId, PortStats};
use dataplane::overlay::{InUse, Retired};
use dataplane::pipeline::Verdict;
use dataplane::policy::{Event, ScriptReport};
use dataplane::script_profile::ScriptProfile;
use dataplane::snapshot::*;
use dataplane::table::TableStats;
use dataplane::trace::{Shape, TraceEvent, What};
use hdrhistogram::Histogram;
use smoltcp::time::{Duration, Instant};

fn flow() -> FlowView {
    FlowView {
        service: ServiceId(0),
        protocol: Protocol::Tcp,
        client: "192.0.2.10:40000".parse().unwrap(),
        peer: None,
        vip: "198.51.100.1:443".parse().unwrap(),
        server: Some(ServerId(0)),
        server_address: Some("10.0.0.11:8443".parse().unwrap()),
        snat: Some("10.0.0.1:1024".parse().unwrap()),
        state: FlowState::Established,
        from_client: Traffic { packets: 6, bytes: 517 },
        from_server: Traffic { packets: 5, bytes: 4096 },
        age: Duration::from_millis(1500),
        idle: Duration::from_millis(20),
    }
}

fn counters() -> Counters {
    let mut counters = Counters {
        rx: 1012,
        rx_bytes: 120_000,
        forwarded: 900,
        consumed: 100,
        originated: 40,
        tx_bytes: 118_000,
        flows_created: 30,
        flows_ended: 29,
        ..Counters::default()
    };
    counters.dropped[DropReason::NoFlow as usize] = 10;
    counters.dropped[DropReason::Fragment as usize] = 2;
    counters
}

fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    for value in values {
        histogram.record(value).unwrap();
    }
    histogram
}

fn servers() -> Vec<ServerView> {
    vec![
        ServerView { server: ServerId(0), given: 0, up: true, enabled: true, flows: 1, flows_total: 16 },
        ServerView { server: ServerId(1), given: 0, up: true, enabled: false, flows: 0, flows_total: 9 },
        ServerView { server: ServerId(2), given: 0, up: true, enabled: true, flows: 2, flows_total: 5 },
        ServerView { server: ServerId(3), given: 0, up: false, enabled: true, flows: 0, flows_total: 0 },
    ]
}

fn pools() -> Vec<PoolView> {
    vec![
        PoolView { pool: PoolId(0), given: 0, refused: 0 },
        PoolView { pool: PoolId(1), given: 0, refused: 3 },
    ]
}

/// The same of the servers and pools that have their places in a later configuration.
fn views(retired: &Retired) -> Answer {
    let (mut servers, mut pools) = (servers(), pools());
    servers.iter_mut().for_each(|view| view.given = retired.server_given(view.server));
    pools.iter_mut().for_each(|view| view.given = retired.pool_given(view.pool));
    Answer::Pools(servers, pools)
}

/// All that may ever be retired.
fn everything() -> InUse {
    InUse {
        services: (0..8).map(ServiceId).collect(),
        servers: (0..8).map(ServerId).collect(),
        pools: (0..8).map(PoolId).collect(),
        pool_groups: (0..8).map(PoolGroupId).collect(),
        tables: (0..8).map(ServiceId).collect(),
    }
}

fn answer(query: Query) -> Answer {
    match query {
        Query::Counters => Answer::Counters(Box::new(counters())),
        Query::Flows { limit, service, client } => {
            let flow = flow();
            let matches =
                service.is_none_or(|id| id == flow.service) && client.is_none_or(|ip| ip == flow.client.ip());
            Answer::Flows(std::iter::once(flow).filter(|_| matches).take(limit).collect())
        }
        Query::Pools => Answer::Pools(servers(), pools()),
        Query::Tables { .. } => Answer::Tables(
            vec![TableEntryView {
                service: ServiceId(0),
                table: None,
                key: b"user\x00\x01".to_vec(),
                value: b"10.0.0.11-8443".to_vec(),
                remaining: Duration::from_millis(299_500),
            }],
            vec![TableStatsView {
                service: ServiceId(0),
                stats: TableStats {
                    entries: 1,
                    named_tables: 0,
                    inserted: 4,
                    refused_full: 0,
                    refused_too_long: 2,
                    raised_lifetimes: 1,
                    expired: 3,
                    bytes: 20,
                    news_sent: 9,
                    news_heard: 7,
                    news_refused: 0,
                    news_no_room: 0,
                    resyncs: 0,
                    conflicts_lost: 1,
                },
            }],
        ),
        Query::Ping => Answer::Pong,
        Query::InUse { .. } => Answer::InUse(Box::new(everything()), None),
        Query::Time => Answer::Time(Instant::from_secs(77)),
        Query::Live { service, .. } => {
            let balancer = Balancer::new(&crate::fixture::snapshot());
            let Answer::Tables(entries, _) = answer(Query::Tables { service: Some(service), limit: 9 })
            else {
                panic!("no tables")
            };
            Answer::Live(Box::new(Live { balancer, entries, held: 7, generation: 0 }))
        }
        Query::EndProfile => {
            let mut profile = ScriptProfile { runs: 30, nanoseconds: 120_000, ..ScriptProfile::default() };
            profile.line("sni.lua", 2, 1, 9_700);
            profile.line("Default-TLS.lua", 40, 2, 20_250);
            Answer::Profile(profile)
        }
        Query::Latency => Answer::Latency(histogram((1..=1000).map(|n| n * 100))),
        Query::Scripts => Answer::Scripts(vec![ScriptReport {
            set: "by-sni".into(),
            event: Event::Request,
            runs: 30,
            errors: 2,
            budget_stops: 1,
            quarantined: 0,
            run_time: histogram([3_000, 4_000, 5_000]),
        }]),
        Query::Ports => Answer::Ports(vec![PortView {
            name: "lan".into(),
            mac: [2, 0, 0, 0, 0, 1],
            link: Some(true),
            stats: PortStats { rx_packets: 1012, tx_packets: 940, ..PortStats::default() },
        }]),
    }
}

/// What is told of a packet for a port without a service.
fn dropped_packet() -> Vec<TraceEvent> {
    let [client, vip] = ["192.0.2.10:40000", "198.51.100.1:81"].map(|text| text.parse().unwrap());
    let key = FlowKey::new(Protocol::Tcp, client, vip);
    let shape = Shape { frame: 3, key, payload: 0, segment: None };
    let frame = Some([1, 2, 3].into());
    let verdict = Verdict::Drop(DropReason::NoService);
    let told = [
        What::Begin { key, open: false },
        What::Received { port: PortId(0), direction: None, shape, frame },
        What::Verdict { verdict, left: None },
    ];
    told.into_iter().map(|what| TraceEvent { at: Instant::from_secs(77), flow: 0, what }).collect()
}

/// Answers queries until it is told to stop; returns all other commands, and the questions about retired things.
pub fn run_worker(mut end: WorkerEnd) -> Vec<Command> {
    let mut commands = Vec::new();
    // A configuration with a service of the name "slow" is taken when a server is enabled.
    let (mut slow, mut held) = (false, Vec::<Reply>::new());
    // In one with a service of the name "passing" nothing retired is named from the second question on.
    let (mut passing, mut asked) = (false, 0);
    let (mut prepared, mut adopted) = (Retired::default(), Retired::default());
    loop {
        match end.command() {
            Some(Command::Query(query @ Query::InUse { .. }, reply)) => {
                let gone = passing && asked > 0;
                asked += 1;
                reply.send(if gone { Answer::InUse(Box::default(), None) } else { answer(query) });
                commands.push(Command::Query(query, Reply::pair().0));
            }
            Some(Command::Query(query @ Query::Live { .. }, reply)) => {
                let Answer::Live(live) = answer(query) else { panic!("something else") };
                reply.send(Answer::Live(Box::new(Live { generation: adopted.generation, ..*live })));
            }
            Some(Command::Query(Query::Pools, reply)) => reply.send(views(&adopted)),
            Some(Command::Query(query, reply)) => reply.send(answer(query)),
            Some(Command::Prepare(snapshot, reply)) => {
                let bad = snapshot.services.iter().any(|service| service.name == "too much");
                let live = (0..).map(ServiceId).zip(&snapshot.services);
                let retired = &snapshot.retired.services;
                let names = |name: &str| {
                    live.clone().any(|(id, service)| service.name == name && !retired.contains(&id))
                };
                (slow, passing, asked) = (names("slow"), names("passing"), 0);
                prepared = snapshot.retired.clone();
                let refusal = "set.lua:1: not enough memory".to_owned();
                reply.send(Answer::Prepared(if bad { Err(refusal) } else { Ok(()) }));
                let (unheard, _) = Reply::pair();
                commands.push(Command::Prepare(snapshot, unheard));
            }
            Some(Command::Adopt(reply)) if slow => held.push(reply),
            Some(enable @ Command::ServerEnabled { .. }) => {
                adopted = prepared.clone();
                held.drain(..).for_each(|reply| reply.send(Answer::Adopted(true)));
                commands.push(enable);
            }
            Some(Command::Adopt(reply)) => {
                adopted = prepared.clone();
                reply.send(Answer::Adopted(true));
                commands.push(Command::Adopt(Reply::pair().0));
            }
            Some(Command::Stop) => return commands,
            Some(Command::Trace(mut order)) => {
                dropped_packet().into_iter().for_each(|event| order.sink.send(event));
                commands.push(Command::Trace(order));
            }
            Some(other) => commands.push(other),
            None => std::thread::sleep(StdDuration::from_millis(1)),
        }
    }
}
