//! Answers to an operator's requests: one line in, text out.

mod explain;
mod metrics;
mod profile;
mod request;
mod server;
mod text;
mod view;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;

use dataplane::channel::{
    Answer, Command, FlowView, PoolView, PortView, Query, ServerView, TableEntryView, TableStatsView,
};
use dataplane::counters::Counters;
use dataplane::policy::ScriptReport;
use dataplane::snapshot::{ServerId, Snapshot};

use crate::current::Current;
use crate::explain::Explainer;
use crate::reload::Reloader;
use crate::status::Status;
use crate::workers::Workers;
use metrics::Metrics;
use request::{Format, HELP, Request, Show};
pub(crate) use server::AdminServer;

/// What an answer that is a refusal begins with.
pub(crate) const ERROR_PREFIX: &str = "error: ";

/// What answers need: the names, the ways to the workers, and what control itself counts.
pub(crate) struct Admin {
    pub(crate) current: Current,
    pub(crate) workers: Workers,
    pub(crate) status: Arc<Status>,
    /// weir is to end.
    pub(crate) stop: Arc<AtomicBool>,
    /// A profile is being made.
    pub(crate) profiling: AtomicBool,
    /// Answers `explain`.
    pub(crate) explainer: Option<Explainer>,
    pub(crate) reloader: Arc<Reloader>,
}

/// The configuration, and what workers tell of its servers and pools.
struct Known {
    snapshot: Arc<Snapshot>,
    servers: Vec<ServerView>,
    pools: Vec<PoolView>,
}

/// What a line is answered with.
enum Answered {
    /// All of it.
    Text(String),
    /// What happens from now on.
    Stream(Box<watch::Session>),
}

/// The workers' answer to a query, as the wanted variant; or the text of a refusal.
macro_rules! ask {
    ($admin:expr, $query:expr, $pattern:pat => $value:expr) => {
        match $admin.workers.ask($query)? {
            $pattern => $value,
            _ => return Err("the worker answered something else".to_owned()),
        }
    };
}

impl Admin {
    /// The whole answer to one line; refusals begin with [`ERROR_PREFIX`].
    fn answer(&self, line: &str) -> Answered {
        let answer = request::parse(line, &self.current.snapshot()).and_then(|request| match request {
            Request::Watch(watch, format) => {
                self.begin_watch(watch, format).map(|session| Answered::Stream(Box::new(session)))
            }
            request => self.text(request).map(Answered::Text),
        });
        answer.unwrap_or_else(|refusal| Answered::Text(format!("{ERROR_PREFIX}{refusal}\n")))
    }

    fn text(&self, request: Request) -> Result<String, String> {
        match request {
            Request::Help => Ok(format!("{HELP}\n")),
            Request::Show(show, format) => self.show(show, format),
            Request::Explain(question) => self.explain(&question),
            Request::Profile(profile, format) => self.profile(profile, format),
            Request::Reload => {
                let running = "the configuration is being reloaded already".to_owned();
                self.reloader.reload().unwrap_or(Err(running))
            }
            Request::SetEnabled(server, enabled) => self.set_enabled(server, enabled),
            Request::Watch(..) => Err("a trace has no end that could be waited for".to_owned()),
        }
    }

    fn set_enabled(&self, server: ServerId, enabled: bool) -> Result<String, String> {
        self.reloader.wait()?;
        self.workers.send(|| Command::ServerEnabled { server, enabled })?;
        Ok("ok\n".to_owned())
    }

    fn show(&self, show: Show, format: Format) -> Result<String, String> {
        match show {
            Show::Counters => self.show_counters(format),
            Show::Flows { limit, service, client } => {
                let flows = self.flows(Query::Flows { limit, service, client })?;
                let snapshot = self.current.snapshot();
                let rows: Vec<_> = flows.into_iter().map(|flow| view::flow(&snapshot, flow)).collect();
                Ok(rows_as(format, FLOW_COLUMNS, &rows, "no flows"))
            }
            Show::Info => self.show_info(format),
            Show::Latency => {
                let row = view::latency(&self.latency()?);
                Ok(rows_as(format, LATENCY_COLUMNS, &[row], ""))
            }
            Show::Metrics if format == Format::Json => Err("'show metrics' has no json form".to_owned()),
            Show::Metrics => self.metrics(),
            Show::Pools => {
                let rows = self.pool_rows()?;
                Ok(rows_as(format, POOL_COLUMNS, &rows, "no pools"))
            }
            Show::Ports => {
                let rows: Vec<_> = self.ports()?.into_iter().map(view::port).collect();
                Ok(rows_as(format, PORT_COLUMNS, &rows, "no ports"))
            }
            Show::Scripts => {
                let rows: Vec<_> = self.scripts()?.iter().map(view::script).collect();
                Ok(rows_as(format, SCRIPT_COLUMNS, &rows, "no scripts"))
            }
            Show::Servers => {
                let rows = self.server_rows()?;
                Ok(rows_as(format, SERVER_COLUMNS, &rows, "no servers"))
            }
            Show::Tables { limit, service } => self.show_tables(Query::Tables { service, limit }, format),
            Show::Workers => Ok(rows_as(format, WORKER_COLUMNS, &self.worker_rows(), "no workers")),
        }
    }

    fn show_counters(&self, format: Format) -> Result<String, String> {
        let counters = self.counters()?;
        let drops = view::drops(&counters);
        let dropped = counters.dropped_total();
        let sum = counters.forwarded + counters.consumed + dropped;
        // What one worker has handed over and another not yet taken.
        let between = counters.handed_over.saturating_sub(counters.taken_over);
        let totals = json!({
            "received": counters.rx, "forwarded": counters.forwarded, "consumed": counters.consumed,
            "dropped": dropped, "balanced": counters.balanced(), "received_bytes": counters.rx_bytes,
            "originated": counters.originated, "originate_failed": counters.originate_failed,
            "handed_over": counters.handed_over, "news_lost": counters.news_lost,
            "retransmitted": counters.retransmitted, "sent_bytes": counters.tx_bytes, "flows_created": counters.flows_created,
            "flows_ended": counters.flows_ended, "records_lost": counters.records_lost,
            "syn_cookies_sent": counters.cookies_sent, "syn_cookies_accepted": counters.cookies_accepted,
            "syn_cookies_rejected": counters.cookies_rejected, "syn_cookies_forgotten": counters.cookies_forgotten,
            "embryonic_evicted": counters.embryonic_evicted, "handshakes_incomplete": counters.handshakes_incomplete,
            "reassembled": counters.reassembled,
            "fragments_expired": counters.fragments_expired, "fragments_evicted": counters.fragments_evicted,
            "fragmented": counters.fragmented,
        });
        if format == Format::Json {
            return Ok(json_line(&json!({ "totals": totals, "dropped": drops })));
        }
        let between = if between > 0 { format!(" + {between} between workers") } else { String::new() };
        let equation = format!(
            "{} {} {} + {} + {dropped}{between}",
            counters.rx,
            if counters.balanced() { "=" } else { "!=" },
            counters.forwarded,
            counters.consumed
        );
        let verdict = if counters.balanced() { "adds up" } else { "DOES NOT ADD UP" };
        Ok(format!(
            "{}received = forwarded + consumed + dropped: {equation} ({sum}) {verdict}\n{}",
            text::list(COUNTER_FIELDS, &totals),
            text::table(&["reason", "packets", "meaning"], &drops, "")
        ))
    }

    fn show_info(&self, format: Format) -> Result<String, String> {
        let info = self.status.info(&self.current.snapshot());
        Ok(match format {
            Format::Json => json_line(&info),
            Format::Text => text::list(crate::status::FIELDS, &info),
        })
    }

    fn show_tables(&self, query: Query, format: Format) -> Result<String, String> {
        let (entries, stats) = self.tables(query)?;
        let snapshot = self.current.snapshot();
        let entries: Vec<_> = entries.iter().map(|entry| view::table(&snapshot, entry)).collect();
        let stats: Vec<_> = stats.iter().map(|stats| view::table_stats(&snapshot, stats)).collect();
        if format == Format::Json {
            return Ok(json_line(&json!({ "services": stats, "entries": entries })));
        }
        let replicas = text::table(REPLICA_COLUMNS, &stats, "no services");
        let stats = text::table(TABLE_STATS_COLUMNS, &stats, "no services");
        Ok(stats + &replicas + &text::table(TABLE_COLUMNS, &entries, "no entries"))
    }

    fn metrics(&self) -> Result<String, String> {
        let mut metrics = Metrics::new();
        let counters = self.counters()?;
        metrics.counters(&counters);
        metrics.counter("weir_log_lines_total", "Log lines written.", self.status.log.written());
        let help = "Log lines that the destination did not take.";
        metrics.counter("weir_lost_log_lines_total", help, self.status.log.lost());
        metrics.workers(self.worker_rows());
        metrics.servers(&self.server_rows()?);
        metrics.pools(&self.pool_rows()?);
        metrics.latency(&self.latency()?);
        let reports = self.scripts()?;
        let rows: Vec<_> = reports.iter().map(view::script).collect();
        metrics.scripts(&reports, &rows);
        let ports: Vec<_> = self.ports()?.into_iter().map(view::port).collect();
        metrics.ports(&ports);
        Ok(metrics.finish())
    }

    fn server_rows(&self) -> Result<Vec<view::ServerRow>, String> {
        let Known { snapshot, servers, .. } = self.servers_and_pools()?;
        Ok(servers.into_iter().filter_map(|server| view::server(&snapshot, server)).collect())
    }

    fn pool_rows(&self) -> Result<Vec<view::PoolRow>, String> {
        let Known { snapshot, servers, pools } = self.servers_and_pools()?;
        Ok(view::pools(&snapshot, &servers, &pools))
    }

    /// A row for each worker, also for one that does not answer.
    fn worker_rows(&self) -> Vec<view::WorkerRow> {
        let answers = self.workers.ask_each(Query::Counters).into_iter().enumerate();
        let row = |(worker, answer)| match answer {
            Some(Answer::Counters(counters)) => view::worker(worker, Some(&counters)),
            _ => view::worker(worker, None),
        };
        answers.map(row).collect()
    }

    fn counters(&self) -> Result<Box<Counters>, String> {
        Ok(ask!(self, Query::Counters, Answer::Counters(counters) => counters))
    }

    fn flows(&self, query: Query) -> Result<Vec<FlowView>, String> {
        Ok(ask!(self, query, Answer::Flows(flows) => flows))
    }

    fn latency(&self) -> Result<Histogram<u64>, String> {
        Ok(ask!(self, Query::Latency, Answer::Latency(latency) => latency))
    }

    /// A worker that has not taken the configuration yet may tell of others in the same places.
    fn servers_and_pools(&self) -> Result<Known, String> {
        let (mut servers, mut pools) =
            ask!(self, Query::Pools, Answer::Pools(servers, pools) => (servers, pools));
        let snapshot = self.current.snapshot();
        servers.retain(|view| snapshot.retired.server_given(view.server) == view.given);
        pools.retain(|view| snapshot.retired.pool_given(view.pool) == view.given);
        Ok(Known { snapshot, servers, pools })
    }

    fn scripts(&self) -> Result<Vec<ScriptReport>, String> {
        Ok(ask!(self, Query::Scripts, Answer::Scripts(scripts) => scripts))
    }

    fn ports(&self) -> Result<Vec<PortView>, String> {
        Ok(ask!(self, Query::Ports, Answer::Ports(ports) => ports))
    }

    fn tables(&self, query: Query) -> Result<(Vec<TableEntryView>, Vec<TableStatsView>), String> {
        Ok(ask!(self, query, Answer::Tables(entries, stats) => (entries, stats)))
    }
}

const COUNTER_FIELDS: &[&str] = &[
    "received",
    "forwarded",
    "consumed",
    "dropped",
    "originated",
    "originate_failed",
    "handed_over",
    "news_lost",
    "retransmitted",
    "received_bytes",
    "sent_bytes",
    "flows_created",
    "flows_ended",
    "records_lost",
    "syn_cookies_sent",
    "syn_cookies_accepted",
    "syn_cookies_rejected",
    "syn_cookies_forgotten",
    "embryonic_evicted",
    "handshakes_incomplete",
    "reassembled",
    "fragments_expired",
    "fragments_evicted",
    "fragmented",
];
const FLOW_COLUMNS: &[&str] = &[
    "service",
    "protocol",
    "state",
    "client",
    "vip",
    "pool",
    "server",
    "snat",
    "packets_in",
    "packets_out",
    "bytes_in",
    "bytes_out",
    "age_s",
    "idle_s",
];
const LATENCY_COLUMNS: &[&str] = &["bursts", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
const POOL_COLUMNS: &[&str] =
    &["pool", "algorithm", "servers", "up", "max_connections", "flows", "flows_total", "refused_full"];
const SERVER_COLUMNS: &[&str] =
    &["pool", "server", "hostname", "state", "weight", "max_connections", "flows", "flows_total"];
const TABLE_COLUMNS: &[&str] = &["service", "table", "key", "value", "remaining_s"];
const TABLE_STATS_COLUMNS: &[&str] = &[
    "service",
    "entries",
    "limit",
    "bytes",
    "named_tables",
    "inserted",
    "expired",
    "refused_full",
    "refused_too_long",
    "raised_lifetimes",
];
const REPLICA_COLUMNS: &[&str] =
    &["service", "news_sent", "news_heard", "news_refused", "news_no_room", "resyncs", "conflicts_lost"];
const PORT_COLUMNS: &[&str] =
    &["port", "mac", "link", "rx_packets", "tx_packets", "rx_missed", "rx_errors", "tx_errors"];
const WORKER_COLUMNS: &[&str] = &[
    "worker",
    "state",
    "received",
    "taken_over",
    "forwarded",
    "consumed",
    "dropped",
    "handed_over",
    "flows",
    "flows_created",
];
const SCRIPT_COLUMNS: &[&str] = &[
    "set",
    "event",
    "runs",
    "errors",
    "budget_stops",
    "quarantined",
    "p50_us",
    "p99_us",
    "p999_us",
    "max_us",
];

fn rows_as(format: Format, columns: &[&str], rows: &[impl Serialize], nothing: &str) -> String {
    match format {
        Format::Text => text::table(columns, rows, nothing),
        Format::Json => json_line(&rows),
    }
}

fn json_line(value: &impl Serialize) -> String {
    // Structs of strings and numbers always serialize.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}
