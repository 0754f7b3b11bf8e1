//! The table of a comparison, from what `weir-load ask` has printed.

use std::fmt::Write as _;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// What is measured. The order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// One request on each connection, closed loop
    Connections,
    /// Requests on kept connections, closed loop
    Requests,
    /// One request on each connection, at a fixed rate
    PacedConnections,
    /// Requests on kept connections, at a fixed rate
    PacedRequests,
    /// Datagrams, at the highest rate at which at most one of 1,000 is lost
    Datagrams,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    pub contender: String,
    pub measure: Measure,
    /// Connections, requests, or datagrams that were answered.
    pub per_second: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
    /// CPU time per connection or request, microseconds: of the whole machine.
    pub machine: f64,
    /// Of the balancer's process, where it has one.
    pub process: Option<f64>,
    /// Of clients and servers.
    pub ends: f64,
    pub errors: u64,
}

/// A line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Measured(Measurement),
    /// A contender that cannot run on this machine, and why.
    Skipped {
        contender: String,
        skipped: String,
    },
}

/// Name in the results, name in the table, and what it decides by.
const CONTENDERS: [(&str, &str, &str); 6] = [
    ("routing", "no balancer, the kernel routes", "-"),
    ("nftables", "nftables DNAT", "nothing, in turn"),
    ("nginx", "nginx stream", "nothing, in turn"),
    ("haproxy", "HAProxy TCP", "the request, in Lua"),
    ("weir-af_packet", "weir, net_af_packet", "the request, in Lua"),
    ("weir-af_xdp", "weir, net_af_xdp", "the request, in Lua"),
];

/// What has no UDP at all.
const WITHOUT_UDP: &str = "haproxy";

/// What is taken from a measurement.
type Figure = fn(&Measurement) -> Option<f64>;
/// A row: its title, what was measured, and which figure of it.
type Row = (String, Measure, Figure);

fn rows([connections, requests]: [u64; 2]) -> [Row; 13] {
    let (connections, requests) = (grouped(connections), grouped(requests));
    let row = |title: &str, measure, value: Figure| (title.to_owned(), measure, value);
    let new = format!("answer on a new connection, at {connections}/s: p50, µs");
    let kept = format!("answer on a kept connection, at {requests}/s: p50, µs");
    let machine = format!("CPU of the machine per connection at {connections}/s, µs");
    [
        row("connections/s", Measure::Connections, |one| Some(one.per_second)),
        row("CPU of the machine per connection then, µs", Measure::Connections, |one| Some(one.machine)),
        row("of it the balancer's process, µs", Measure::Connections, |one| one.process),
        row("of it clients and servers, µs", Measure::Connections, |one| Some(one.ends)),
        row("requests/s on kept connections", Measure::Requests, |one| Some(one.per_second)),
        row(&new, Measure::PacedConnections, |one| Some(one.p50)),
        row("the same: p99, µs", Measure::PacedConnections, |one| Some(one.p99)),
        row(&kept, Measure::PacedRequests, |one| Some(one.p50)),
        row("the same: p99, µs", Measure::PacedRequests, |one| Some(one.p99)),
        row("UDP answers/s, at most 0.1 % lost", Measure::Datagrams, |one| Some(one.per_second)),
        row(&machine, Measure::PacedConnections, |one| Some(one.machine)),
        row("of it the balancer's process, µs", Measure::PacedConnections, |one| one.process),
        row("of it clients and servers, µs", Measure::PacedConnections, |one| Some(one.ends)),
    ]
}

/// The table, a contender in each column; `rates` are those of the paced measures, connections and requests per second.
pub fn table(results: &str, rates: [u64; 2]) -> anyhow::Result<String> {
    let parse = |(number, line)| {
        serde_json::from_str::<Line>(line).with_context(|| format!("line {} of the results", number + 1))
    };
    let lines = results.lines().enumerate().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    let columns: Vec<_> = CONTENDERS
        .into_iter()
        .map(|(name, title, decides)| (name, title, decides, measured(&lines, name)))
        .filter(|(.., measured)| !measured.is_empty())
        .collect();
    let mut table = String::new();
    let mut write = |title: &str, cells: Vec<String>| writeln!(table, "| {title} | {} |", cells.join(" | "));
    if !columns.is_empty() {
        write("", columns.iter().map(|(_, title, ..)| (*title).to_owned()).collect())?;
        write("---", vec!["---".to_owned(); columns.len()])?;
        write("decides by", columns.iter().map(|(_, _, decides, _)| (*decides).to_owned()).collect())?;
        for (title, measure, value) in rows(rates) {
            let cells = columns.iter().map(|(name, .., measured)| cell(name, measured, measure, value));
            write(&title, cells.collect())?;
        }
        let errors = |measured: &[&Measurement]| grouped(measured.iter().map(|one| one.errors).sum());
        write("errors", columns.iter().map(|(.., measured)| errors(measured)).collect())?;
    }
    for line in &lines {
        if let Line::Skipped { contender, skipped } = line {
            let known = CONTENDERS.into_iter().find(|(name, ..)| name == contender);
            writeln!(
                table,
                "\n{} cannot run here: {skipped}",
                known.map_or(contender.as_str(), |(_, title, _)| title)
            )?;
        }
    }
    ensure!(!table.is_empty(), "there are no results");
    Ok(table)
}

fn measured<'a>(lines: &'a [Line], contender: &str) -> Vec<&'a Measurement> {
    let all = lines.iter().filter_map(|line| match line {
        Line::Measured(one) => Some(one),
        Line::Skipped { .. } => None,
    });
    all.filter(|one| one.contender == contender).collect()
}

fn cell(contender: &str, measured: &[&Measurement], measure: Measure, value: Figure) -> String {
    if contender == WITHOUT_UDP && measure == Measure::Datagrams {
        return "no UDP".to_owned();
    }
    let chosen = measured.iter().filter(|one| one.measure == measure);
    Spread::of(chosen.filter_map(|one| value(one)).collect())
        .map_or_else(|| "-".to_owned(), |spread| spread.cell())
}

/// Several rounds of one thing.
struct Spread(Vec<f64>);

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Spread(values))
    }

    fn at(&self, place: usize) -> String {
        grouped(self.0.get(place).copied().unwrap_or(f64::NAN).round() as u64)
    }

    /// The median, the lowest and the highest.
    fn cell(&self) -> String {
        let (middle, low, high) = (self.at(self.0.len() / 2), self.at(0), self.at(self.0.len() - 1));
        if self.0.len() == 1 { middle } else { format!("{middle} ({low}-{high})") }
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(contender: &str, measure: Measure, per_second: f64) -> String {
        let measurement = Measurement {
            contender: contender.to_owned(),
            measure,
            per_second,
            p50: 10.4,
            p99: per_second / 10.0,
            machine: 50.0,
            process: (contender == "haproxy").then_some(20.0),
            ends: 25.0,
            errors: 1,
        };
        serde_json::to_string(&Line::Measured(measurement)).unwrap() + "\n"
    }

    #[test]
    fn medians_and_spread_a_contender_in_each_column() {
        let mut results = r#"{"contender":"weir-af_xdp","skipped":"no such driver"}"#.to_owned() + "\n";
        for rate in [3000.0, 1000.0, 2000.0] {
            results += &line("haproxy", Measure::Connections, rate);
            results += &line("haproxy", Measure::PacedConnections, rate);
        }
        results += &line("nginx", Measure::Datagrams, 1_234_567.0);
        let table = table(&results, [1000, 20_000]).unwrap();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(
            rows,
            [
                "|  | nginx stream | HAProxy TCP |",
                "| --- | --- | --- |",
                "| decides by | nothing, in turn | the request, in Lua |",
                "| connections/s | - | 2,000 (1,000-3,000) |",
                "| CPU of the machine per connection then, µs | - | 50 (50-50) |",
                "| of it the balancer's process, µs | - | 20 (20-20) |",
                "| of it clients and servers, µs | - | 25 (25-25) |",
                "| requests/s on kept connections | - | - |",
                "| answer on a new connection, at 1,000/s: p50, µs | - | 10 (10-10) |",
                "| the same: p99, µs | - | 200 (100-300) |",
                "| answer on a kept connection, at 20,000/s: p50, µs | - | - |",
                "| the same: p99, µs | - | - |",
                "| UDP answers/s, at most 0.1 % lost | 1,234,567 | no UDP |",
                "| CPU of the machine per connection at 1,000/s, µs | - | 50 (50-50) |",
                "| of it the balancer's process, µs | - | 20 (20-20) |",
                "| of it clients and servers, µs | - | 25 (25-25) |",
                "| errors | 1 | 6 |",
                "",
                "weir, net_af_xdp cannot run here: no such driver",
            ]
        );
    }

    #[test]
    fn results_that_are_none() {
        assert!(table("", [1, 1]).is_err());
        assert!(table("{}", [1, 1]).unwrap_err().to_string().contains("line 1"));
    }
}
