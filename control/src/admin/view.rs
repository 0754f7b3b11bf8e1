//! Rows of the answers, by name instead of index. JSON shows them as they are, text as tables of the same fields.

use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::Serialize;
use smoltcp::time::Duration;

use dataplane::channel::{
    FlowState, FlowView, PoolView, PortView, ServerView, TableEntryView, TableStatsView,
};
use dataplane::counters::{Counters, DropReason};
use dataplane::policy::{Event, ScriptReport};
use dataplane::snapshot::{Algorithm, ServerId, ServiceId, Snapshot};

use crate::escape::escape;
use crate::log::protocol_name;

#[derive(Serialize)]
pub(super) struct FlowRow {
    service: String,
    protocol: &'static str,
    state: &'static str,
    client: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    vip: SocketAddr,
    server: Option<SocketAddr>,
    pool: Option<String>,
    snat: Option<SocketAddr>,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    age_s: f64,
    idle_s: f64,
}

#[derive(Serialize)]
pub(super) struct ServerRow {
    pub(super) pool: String,
    pub(super) server: String,
    pub(super) hostname: Option<String>,
    pub(super) state: &'static str,
    pub(super) up: bool,
    pub(super) enabled: bool,
    pub(super) weight: u16,
    pub(super) max_connections: Option<u32>,
    pub(super) flows: u64,
    pub(super) flows_total: u64,
}

#[derive(Serialize)]
pub(super) struct PoolRow {
    pub(super) pool: String,
    algorithm: &'static str,
    servers: usize,
    up: usize,
    /// Of all servers together, if all have a limit.
    max_connections: Option<u64>,
    flows: u64,
    flows_total: u64,
    pub(super) refused_full: u64,
}

/// All but `worker` and `state` is missing for a worker that does not answer.
#[derive(Serialize)]
pub(super) struct WorkerRow {
    pub(super) worker: usize,
    pub(super) state: &'static str,
    pub(super) received: Option<u64>,
    pub(super) taken_over: Option<u64>,
    pub(super) forwarded: Option<u64>,
    pub(super) consumed: Option<u64>,
    pub(super) dropped: Option<u64>,
    pub(super) handed_over: Option<u64>,
    pub(super) flows: Option<u64>,
    pub(super) flows_created: Option<u64>,
}

pub(super) fn worker(worker: usize, counters: Option<&Counters>) -> WorkerRow {
    let count = |field: fn(&Counters) -> u64| counters.map(field);
    WorkerRow {
        worker,
        state: if counters.is_some() { "running" } else { "no answer" },
        received: count(|c| c.rx),
        taken_over: count(|c| c.taken_over),
        forwarded: count(|c| c.forwarded),
        consumed: count(|c| c.consumed),
        dropped: count(Counters::dropped_total),
        handed_over: count(|c| c.handed_over),
        flows: count(|c| c.flows_created.saturating_sub(c.flows_ended)),
        flows_created: count(|c| c.flows_created),
    }
}

#[derive(Serialize)]
pub(super) struct TableRow {
    service: String,
    table: Option<String>,
    key: String,
    value: String,
    remaining_s: f64,
}

#[derive(Serialize)]
pub(super) struct TableStatsRow {
    service: String,
    entries: usize,
    limit: u32,
    named_tables: usize,
    inserted: u64,
    expired: u64,
    refused_full: u64,
    refused_too_long: u64,
    raised_lifetimes: u64,
    bytes: u64,
    news_sent: u64,
    news_heard: u64,
    news_refused: u64,
    news_no_room: u64,
    resyncs: u64,
    conflicts_lost: u64,
}

#[derive(Serialize)]
pub(super) struct LatencyRow {
    pub(super) bursts: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

#[derive(Serialize)]
pub(super) struct ScriptRow {
    pub(super) set: String,
    pub(super) event: &'static str,
    pub(super) runs: u64,
    pub(super) errors: u64,
    pub(super) budget_stops: u64,
    pub(super) quarantined: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

#[derive(Serialize)]
pub(super) struct PortRow {
    pub(super) port: String,
    mac: String,
    link: &'static str,
    pub(super) rx_packets: u64,
    pub(super) tx_packets: u64,
    pub(super) rx_missed: u64,
    pub(super) rx_errors: u64,
    pub(super) tx_errors: u64,
}

#[derive(Serialize)]
pub(super) struct DropRow {
    pub(super) reason: &'static str,
    pub(super) packets: u64,
    pub(super) meaning: &'static str,
}

pub(super) fn flow(snapshot: &Snapshot, view: FlowView) -> FlowRow {
    let server = view.server.and_then(|id| snapshot.servers.get(id.index()));
    let pool = server.and_then(|server| snapshot.pools.get(server.pool.index()));
    FlowRow {
        service: service(snapshot, view.service),
        protocol: protocol_name(view.protocol),
        state: state(view.state),
        client: view.client,
        peer: view.peer,
        vip: view.vip,
        server: view.server_address,
        pool: pool.map(|pool| pool.name.clone()),
        snat: view.snat,
        packets_in: view.from_client.packets,
        packets_out: view.from_server.packets,
        bytes_in: view.from_client.bytes,
        bytes_out: view.from_server.bytes,
        age_s: seconds(view.age),
        idle_s: seconds(view.idle),
    }
}

/// `None` for one that was removed and has no flows.
pub(super) fn server(snapshot: &Snapshot, view: ServerView) -> Option<ServerRow> {
    let member = snapshot.servers.get(view.server.index())?;
    let removed = snapshot.retired.servers.contains(&view.server);
    if removed && view.flows == 0 {
        return None;
    }
    let full = member.max_connections.is_some_and(|most| view.flows >= u64::from(most));
    let state = match (view.enabled, view.up) {
        _ if removed => "removed",
        (false, _) => "disabled",
        (true, false) => "down",
        (true, true) if full => "full",
        (true, true) => "up",
    };
    Some(ServerRow {
        pool: snapshot.pools.get(member.pool.index())?.name.clone(),
        server: SocketAddr::new(member.address, member.port).to_string(),
        hostname: member.hostname.clone(),
        state,
        up: view.up,
        enabled: view.enabled,
        weight: member.weight,
        max_connections: member.max_connections,
        flows: view.flows,
        flows_total: view.flows_total,
    })
}

/// Those of the configuration. Flows of servers that a pool had are counted, too, as long as these have their places.
pub(super) fn pools(snapshot: &Snapshot, views: &[ServerView], pools: &[PoolView]) -> Vec<PoolRow> {
    let members = |ids: &[ServerId]| -> Vec<ServerView> {
        views.iter().filter(|view| ids.contains(&view.server)).copied().collect()
    };
    let is_of = |view: &&ServerView, pool| {
        let server = snapshot.servers.get(view.server.index()).filter(|server| server.pool == pool);
        server.is_some_and(|server| !snapshot.retired.is_of_earlier_pool(view.server, server))
    };
    pools
        .iter()
        .filter(|view| !snapshot.retired.pools.contains(&view.pool))
        .filter_map(|view| snapshot.pools.get(view.pool.index()).zip(Some(view)))
        .map(|(pool, view)| {
            let ever = || views.iter().filter(|server| is_of(server, view.pool));
            let members = members(&pool.servers);
            let limits = pool.servers.iter().filter_map(|id| snapshot.servers.get(id.index()));
            PoolRow {
                pool: pool.name.clone(),
                algorithm: algorithm(pool.algorithm),
                servers: members.len(),
                up: members.iter().filter(|view| view.up && view.enabled).count(),
                max_connections: limits.map(|server| server.max_connections.map(u64::from)).sum(),
                flows: ever().map(|view| view.flows).sum(),
                flows_total: ever().map(|view| view.flows_total).sum(),
                refused_full: view.refused,
            }
        })
        .collect()
}

pub(super) fn table(snapshot: &Snapshot, view: &TableEntryView) -> TableRow {
    TableRow {
        service: service(snapshot, view.service),
        table: view.table.as_deref().map(escape),
        key: escape(&view.key),
        value: escape(&view.value),
        remaining_s: seconds(view.remaining),
    }
}

pub(super) fn table_stats(snapshot: &Snapshot, view: &TableStatsView) -> TableStatsRow {
    let limits = snapshot.services.get(view.service.index()).map(|service| service.tables);
    TableStatsRow {
        service: service(snapshot, view.service),
        entries: view.stats.entries,
        limit: limits.map_or(0, |limits| limits.entries),
        named_tables: view.stats.named_tables,
        inserted: view.stats.inserted,
        expired: view.stats.expired,
        refused_full: view.stats.refused_full,
        refused_too_long: view.stats.refused_too_long,
        raised_lifetimes: view.stats.raised_lifetimes,
        bytes: view.stats.bytes,
        news_sent: view.stats.news_sent,
        news_heard: view.stats.news_heard,
        news_refused: view.stats.news_refused,
        news_no_room: view.stats.news_no_room,
        resyncs: view.stats.resyncs,
        conflicts_lost: view.stats.conflicts_lost,
    }
}

pub(super) fn latency(nanoseconds: &Histogram<u64>) -> LatencyRow {
    LatencyRow {
        bursts: nanoseconds.len(),
        p50_us: quantile(nanoseconds, 0.5),
        p90_us: quantile(nanoseconds, 0.9),
        p99_us: quantile(nanoseconds, 0.99),
        p999_us: quantile(nanoseconds, 0.999),
        max_us: micros(nanoseconds.max()),
    }
}

pub(super) fn script(report: &ScriptReport) -> ScriptRow {
    ScriptRow {
        set: report.set.clone(),
        event: match report.event {
            Event::Request => "request",
            Event::Response => "response",
        },
        runs: report.runs,
        errors: report.errors,
        budget_stops: report.budget_stops,
        quarantined: report.quarantined,
        p50_us: quantile(&report.run_time, 0.5),
        p99_us: quantile(&report.run_time, 0.99),
        p999_us: quantile(&report.run_time, 0.999),
        max_us: micros(report.run_time.max()),
    }
}

pub(super) fn port(view: PortView) -> PortRow {
    let mac: Vec<String> = view.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    PortRow {
        port: view.name,
        mac: mac.join(":"),
        link: match view.link {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        },
        rx_packets: view.stats.rx_packets,
        tx_packets: view.stats.tx_packets,
        rx_missed: view.stats.rx_missed,
        rx_errors: view.stats.rx_errors,
        tx_errors: view.stats.tx_errors,
    }
}

/// Every reason, those that happened first and the most frequent at the top.
pub(super) fn drops(counters: &Counters) -> Vec<DropRow> {
    let mut rows: Vec<DropRow> = DropReason::ALL
        .iter()
        .map(|reason| DropRow {
            reason: reason.label(),
            packets: counters.dropped_for(*reason),
            meaning: reason.description(),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.packets));
    rows
}

fn service(snapshot: &Snapshot, id: ServiceId) -> String {
    snapshot.services.get(id.index()).map_or_else(String::new, |service| service.name.clone())
}

pub(super) fn state(state: FlowState) -> &'static str {
    match state {
        FlowState::Handshake => "handshake",
        FlowState::Deciding => "deciding",
        FlowState::Connecting => "connecting",
        FlowState::Replaying => "replaying",
        FlowState::Established => "established",
        FlowState::Closing => "closing",
    }
}

pub(super) fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "round_robin",
        Algorithm::LeastConnections => "least_connections",
        Algorithm::SourceIpHash => "source_ip_hash",
    }
}

/// Seconds with milliseconds as decimals.
fn seconds(duration: Duration) -> f64 {
    duration.total_millis() as f64 / 1000.0
}

/// A quantile of nanoseconds, in microseconds.
fn quantile(nanoseconds: &Histogram<u64>, quantile: f64) -> f64 {
    micros(nanoseconds.value_at_quantile(quantile))
}

/// Nanoseconds as microseconds with one decimal.
fn micros(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 100.0).round() / 10.0
}
