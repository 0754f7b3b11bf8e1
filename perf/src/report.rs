//! The result as a table for people and as JSON for programs.

use serde_json::{Value, json};

use crate::measure::Row;

/// Where and of what.
pub struct Setting {
    /// Ticks per second of the time stamp counter.
    pub hertz: f64,
    /// Model of the processor.
    pub processor: String,
    /// Processes that wanted to run at the end, over one minute.
    pub load: String,
}

impl Setting {
    /// Of this machine now.
    pub fn read(hertz: f64) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let model =
            |line: &str| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model.to_owned());
        Setting {
            hertz,
            processor: read("/proc/cpuinfo").lines().find_map(model).unwrap_or_default(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// Everything in a line.
    pub fn line(&self) -> String {
        format!(
            "weir {}, {}, {}; {}, TSC {:.1} MHz, load {}",
            env!("PERF_REVISION"),
            dpdk::version(),
            env!("PERF_COMPILER"),
            self.processor,
            self.hertz / 1e6,
            self.load
        )
    }
}

/// Head of the table.
pub const HEAD: &str = "\
| scenario | unit | M/s | cycles per unit | (lowest-highest round) | floor: cycles per packet | times the floor \
| cycles in quiet rounds (best quarter) | quiet rounds (their floor) | p50 / p99 / p99.9 µs |
|---|---|---|---|---|---|---|---|---|---|";

/// One line of it.
pub fn line(row: &Row, hertz: f64) -> String {
    let [ticks, lowest, highest] = row.ticks;
    let latency = match row.latency.is_empty() {
        true => "-".to_owned(),
        false => {
            let micros = |quantile| row.latency.value_at_quantile(quantile) as f64 / 1000.0;
            format!("{:.2} / {:.2} / {:.2}", micros(0.5), micros(0.99), micros(0.999))
        }
    };
    format!(
        "| {} | {} | {:.2} | {ticks:.0} | {lowest:.0}-{highest:.0} | {:.1} | {:.1} | {:.0} ({:.0}) | {} of {} ({:.1}) | {latency} |",
        row.scenario.text,
        row.scenario.unit(),
        hertz / ticks / 1e6,
        row.floor,
        row.ratio,
        row.quiet.ticks,
        row.quiet.best_quarter,
        row.quiet.rounds,
        row.rounds,
        row.quiet.floor,
    )
}

/// Everything, with the setting.
pub fn json(rows: &[Row], setting: &Setting) -> Value {
    let quantile = |row: &Row, q| (!row.latency.is_empty()).then(|| row.latency.value_at_quantile(q));
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let [ticks, lowest, highest] = row.ticks;
            json!({
                "scenario": row.scenario.name,
                "unit": row.scenario.unit(),
                "flows": row.scenario.flows,
                "cycles_per_unit": ticks,
                "cycles_per_unit_lowest_round": lowest,
                "cycles_per_unit_highest_round": highest,
                "million_units_per_second": setting.hertz / ticks / 1e6,
                "packets_per_unit": row.packets,
                "floor_cycles_per_packet": row.floor,
                "times_the_floor": row.ratio,
                "rounds": row.rounds,
                "quiet": {
                    "rounds": row.quiet.rounds, "floor_cycles_per_packet": row.quiet.floor,
                    "cycles_per_unit": row.quiet.ticks, "cycles_per_unit_best_quarter": row.quiet.best_quarter,
                },
                "surroundings": row.surroundings.json(),
                "latency_nanoseconds": {
                    "p50": quantile(row, 0.5), "p90": quantile(row, 0.9), "p99": quantile(row, 0.99),
                    "p99.9": quantile(row, 0.999), "max": quantile(row, 1.0),
                },
            })
        })
        .collect();
    json!({
        "revision": env!("PERF_REVISION"),
        "compiler": env!("PERF_COMPILER"),
        "dpdk": dpdk::version(),
        "processor": setting.processor,
        "tsc_hertz": setting.hertz,
        "load": setting.load,
        "rows": rows,
    })
}
