//! Everything for Prometheus, in its text format 0.0.4.

use std::fmt::Write;

use hdrhistogram::Histogram;

use dataplane::counters::{Counters, DropReason};
use dataplane::policy::ScriptReport;

use super::view::{PoolRow, PortRow, ScriptRow, ServerRow, WorkerRow};

/// Collects lines; each metric is announced once, before its samples.
pub(super) struct Metrics(String);

impl Metrics {
    pub(super) fn new() -> Self {
        Metrics(String::new())
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn announce(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}"));
        self.push(format_args!("# TYPE {name} {kind}"));
    }

    fn push(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.announce(name, "counter", help);
        self.push(format_args!("{name} {value}"));
    }

    /// One metric with a sample per row.
    fn rows<T>(&mut self, metric: (&str, &str, &str), rows: &[T], sample: impl Fn(&T) -> (Labels, u64)) {
        let (name, kind, help) = metric;
        self.announce(name, kind, help);
        for row in rows {
            let (labels, value) = sample(row);
            self.push(format_args!("{name}{labels} {value}"));
        }
    }

    /// Quantiles of nanoseconds, in seconds.
    fn summary(&mut self, name: &str, labels: &Labels, nanoseconds: &Histogram<u64>) {
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            let labels = labels.clone().with("quantile", &quantile.to_string());
            let value = nanoseconds.value_at_quantile(quantile) as f64 / 1e9;
            self.push(format_args!("{name}{labels} {value}"));
        }
        let count = nanoseconds.len();
        let sum = if count == 0 { 0.0 } else { nanoseconds.mean() * count as f64 / 1e9 };
        self.push(format_args!("{name}_sum{labels} {sum}"));
        self.push(format_args!("{name}_count{labels} {count}"));
    }

    pub(super) fn counters(&mut self, counters: &Counters) {
        let plain: [(&str, &str, u64); 19] = [
            ("weir_received_packets_total", "Frames received.", counters.rx),
            ("weir_received_bytes_total", "Bytes received.", counters.rx_bytes),
            ("weir_forwarded_packets_total", "Received frames that left translated.", counters.forwarded),
            ("weir_consumed_packets_total", "Received frames that weir took in itself.", counters.consumed),
            ("weir_originated_packets_total", "Frames that weir made and sent.", counters.originated),
            (
                "weir_unsent_packets_total",
                "Frames that weir made and could not send.",
                counters.originate_failed,
            ),
            (
                "weir_retransmitted_segments_total",
                "Segments of weir's own that went out more than once.",
                counters.retransmitted,
            ),
            (
                "weir_handed_over_packets_total",
                "Frames handed over to the worker of their flow.",
                counters.handed_over,
            ),
            ("weir_lost_news_total", "News for other workers that found a full queue.", counters.news_lost),
            ("weir_sent_bytes_total", "Bytes sent.", counters.tx_bytes),
            ("weir_created_flows_total", "Flows created.", counters.flows_created),
            ("weir_ended_flows_total", "Flows ended.", counters.flows_ended),
            (
                "weir_lost_records_total",
                "Connection records lost on the way to the log.",
                counters.records_lost,
            ),
            ("weir_sent_syn_cookies_total", "SYNs answered by a cookie.", counters.cookies_sent),
            (
                "weir_accepted_syn_cookies_total",
                "Connections that began with a cookie.",
                counters.cookies_accepted,
            ),
            (
                "weir_rejected_syn_cookies_total",
                "Segments of no flow that acknowledged no cookie, or a used one, while cookies were in use.",
                counters.cookies_rejected,
            ),
            (
                "weir_forgotten_syn_cookies_total",
                "Used cookies that were forgotten for lack of room while they could still be believed.",
                counters.cookies_forgotten,
            ),
            (
                "weir_evicted_handshakes_total",
                "Incomplete handshakes that gave way to new ones.",
                counters.embryonic_evicted,
            ),
            (
                "weir_incomplete_handshakes_total",
                "Flows that ended before the client's handshake was complete.",
                counters.handshakes_incomplete,
            ),
        ];
        for (name, help, value) in plain.into_iter().chain(fragments(counters)) {
            self.counter(name, help, value);
        }
        let dropped = ("weir_dropped_packets_total", "counter", "Received frames dropped, by reason.");
        self.rows(dropped, DropReason::ALL, |reason| {
            (Labels::new("reason", reason.label()), counters.dropped_for(*reason))
        });
    }

    pub(super) fn workers(&mut self, workers: Vec<WorkerRow>) {
        let labels = |row: &WorkerRow| Labels::new("worker", &row.worker.to_string());
        let answers = ("weir_worker_answers", "gauge", "0: the worker does not answer.");
        self.rows(answers, &workers, |row| (labels(row), u64::from(row.received.is_some())));
        // No sample is better than one that says 0.
        let counted: Vec<WorkerRow> = workers.into_iter().filter(|row| row.received.is_some()).collect();
        let received = ("weir_worker_received_packets_total", "counter", "Frames received by the worker.");
        self.rows(received, &counted, |row| (labels(row), row.received.unwrap_or(0)));
        let taken =
            ("weir_worker_taken_over_packets_total", "counter", "Frames that others handed to the worker.");
        self.rows(taken, &counted, |row| (labels(row), row.taken_over.unwrap_or(0)));
        let flows = ("weir_worker_flows", "gauge", "Open flows of the worker.");
        self.rows(flows, &counted, |row| (labels(row), row.flows.unwrap_or(0)));
    }

    pub(super) fn servers(&mut self, servers: &[ServerRow]) {
        let labels = |row: &ServerRow| Labels::new("pool", &row.pool).with("server", &row.server);
        let up = ("weir_server_up", "gauge", "1: the server's monitors hold.");
        self.rows(up, servers, |row| (labels(row), u64::from(row.up)));
        let enabled = ("weir_server_enabled", "gauge", "1: the server may take new flows.");
        self.rows(enabled, servers, |row| (labels(row), u64::from(row.enabled)));
        let open = ("weir_server_flows", "gauge", "Open flows of the server.");
        self.rows(open, servers, |row| (labels(row), row.flows));
        let total = ("weir_server_flows_total", "counter", "Flows of the server since start.");
        self.rows(total, servers, |row| (labels(row), row.flows_total));
        let limited: Vec<&ServerRow> = servers.iter().filter(|row| row.max_connections.is_some()).collect();
        let most = ("weir_server_max_connections", "gauge", "Most flows that the server may have at a time.");
        self.rows(most, &limited, |row| (labels(row), row.max_connections.map_or(0, u64::from)));
    }

    pub(super) fn pools(&mut self, pools: &[PoolRow]) {
        let help = "Flows refused because the pool's servers had max_connections.";
        let refused = ("weir_pool_refused_full_flows_total", "counter", help);
        self.rows(refused, pools, |row| (Labels::new("pool", &row.pool), row.refused_full));
    }

    pub(super) fn latency(&mut self, nanoseconds: &Histogram<u64>) {
        let name = "weir_burst_latency_seconds";
        self.announce(name, "summary", "Time from rx burst to tx burst.");
        self.summary(name, &Labels::default(), nanoseconds);
    }

    pub(super) fn scripts(&mut self, reports: &[ScriptReport], rows: &[ScriptRow]) {
        let labels = |row: &ScriptRow| Labels::new("set", &row.set).with("event", row.event);
        let runs = ("weir_script_runs_total", "counter", "Runs started.");
        self.rows(runs, rows, |row| (labels(row), row.runs));
        let errors = ("weir_script_errors_total", "counter", "Runs ended by an error.");
        self.rows(errors, rows, |row| (labels(row), row.errors));
        let stops = ("weir_script_budget_stops_total", "counter", "Runs ended by the time budget.");
        self.rows(stops, rows, |row| (labels(row), row.budget_stops));
        let quarantined = ("weir_script_quarantined_runs_total", "counter", "Runs refused in quarantine.");
        self.rows(quarantined, rows, |row| (labels(row), row.quarantined));
        let name = "weir_script_run_seconds";
        self.announce(name, "summary", "Time in Lua per run.");
        for (report, row) in reports.iter().zip(rows) {
            self.summary(name, &labels(row), &report.run_time);
        }
    }

    pub(super) fn ports(&mut self, ports: &[PortRow]) {
        let labels = |row: &PortRow| Labels::new("port", &row.port);
        let received = ("weir_port_received_packets_total", "counter", "Frames the device handed over.");
        self.rows(received, ports, |row| (labels(row), row.rx_packets));
        let sent = ("weir_port_sent_packets_total", "counter", "Frames the device took.");
        self.rows(sent, ports, |row| (labels(row), row.tx_packets));
        let missed = ("weir_port_missed_packets_total", "counter", "Frames the device had no room for.");
        self.rows(missed, ports, |row| (labels(row), row.rx_missed));
        let errors = ("weir_port_receive_errors_total", "counter", "Frames the device could not receive.");
        self.rows(errors, ports, |row| (labels(row), row.rx_errors));
        let errors = ("weir_port_send_errors_total", "counter", "Frames the device could not send.");
        self.rows(errors, ports, |row| (labels(row), row.tx_errors));
    }
}

/// What became of packets in pieces.
fn fragments(counters: &Counters) -> [(&'static str, &'static str, u64); 4] {
    [
        (
            "weir_reassembled_datagrams_total",
            "Datagrams put together of their fragments.",
            counters.reassembled,
        ),
        (
            "weir_expired_fragments_total",
            "Datagrams of which a fragment did not come in time.",
            counters.fragments_expired,
        ),
        (
            "weir_evicted_fragments_total",
            "Datagrams without all their fragments that gave way to newer ones.",
            counters.fragments_evicted,
        ),
        (
            "weir_fragmented_packets_total",
            "Packets that were cut into fragments to leave.",
            counters.fragmented,
        ),
    ]
}

/// `{name="value",...}`, values escaped.
#[derive(Clone, Default)]
struct Labels(String);

impl Labels {
    fn new(name: &str, value: &str) -> Self {
        Labels::default().with(name, value)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(self.0, "{name}=\"{value}\"");
        self
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}
