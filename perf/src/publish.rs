//! A dated report of what `perf/run.sh` has measured: the tables as they were printed, and plots of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::plot::{self, Axes, Line};

/// Parts of a report: the file of the results that has its text, its heading, and what is said below that.
const PARTS: [(&str, &str, &str); 11] = [
    (
        "bench.md",
        "Cycles per packet, flow and connection",
        "`weir-perf`: one worker and its end hosts on one core, over a ring; the floor is the bare device loop in windows in \
         between; quiet rounds are those whose floor is at most a tenth above the lowest. Latency is from rx burst to tx burst with full bursts.",
    ),
    (
        "large.md",
        "Cycles with ten million flows",
        "`weir-perf --quick --scenario udp-10m`: the same in fewer rounds. It takes 5 GB.",
    ),
    (
        "near.md",
        "Latency and loss at a given load, in process",
        "`weir-perf load`: the generator on one core, weir's worker or the bare loop on the other, in short runs in turn. Latency \
         counts from the moment at which a packet was to leave. Loads are parts of what generator and weir carried together right before. The generator sends 32 packets at a time: who then \
         takes some 32 waits for it, and who is the limit takes up to 256, or 64 where many open flows. So half of that load is at most half of what weir carries. What weir adds is the difference within a round.",
    ),
    (
        "costly.md",
        "The same with a million connections, at half of what both cores carry",
        "`weir-perf load --scenario tcp-1m --at 50`: packets that cost weir most.",
    ),
    (
        "far.md",
        "The same with a weir process over memif",
        "`weir-perf load --weir`: weir as an operator runs it, on one core; the bare loop and testpmd's macswap took its \
         place in turn, with the same frames.",
    ),
    (
        "mixed.md",
        "Latency beside flows that begin",
        "`weir-perf load --at 50 --new-flows`: in process, at half of what both cores carry, without and with packets that open UDP flows \
         and for which a script runs. What established packets wait behind scripts is the difference of their rows in both \
         tables.",
    ),
    (
        "pair.md",
        "Two workers",
        "`weir-perf pair`: two workers of one weir on two cores, each with its own end hosts, against each of them alone in \
         slices of time in between.",
    ),
    (
        "tables.md",
        "How soon an insert can be read on the other worker",
        "`weir-perf tables`: two workers of one weir on two cores, whose end hosts keep their wires full. Scripts of flows that begin \
         insert; it counts from the beginning of the script to the end of the round in which the other worker heard of it.",
    ),
    (
        "icounts.md",
        "Instructions",
        "`perf/icounts.sh --check`: under callgrind, with memory in place of the devices.",
    ),
    (
        "profile.md",
        "Where the time goes",
        "`perf/profile.sh`: samples of weir's work with a million and ten million flows, and of new ones.",
    ),
    (
        "stages.md",
        "Stages",
        "`cargo bench -p weir-perf`: each stage for itself, everything warm, nanoseconds per packet or call.",
    ),
];

/// Writes the report and, beside it, its plots.
pub fn write(results: &Path, report: &Path) -> anyhow::Result<()> {
    let date = report.file_stem().and_then(|stem| stem.to_str()).context("the report needs a name")?;
    let stages = stages(&results.join("criterion"))?;
    std::fs::write(results.join("stages.md"), stage_table(&stages))?;
    let plots = plots(results, report, &stages)?;
    let machine = std::fs::read_to_string(results.join("machine.md")).unwrap_or_default();
    let mut text = format!("# {date}\n\n{machine}\n");
    let mut parts = 0;
    for (file, heading, about) in PARTS {
        let Ok(part) = std::fs::read_to_string(results.join(file)) else { continue };
        parts += 1;
        let _ = write!(text, "## {heading}\n\n{about}\n\n{}\n\n", part.trim_end());
        for (of, plot) in &plots {
            let name = plot.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if *of == file {
                let _ = write!(text, "![{heading}]({name})\n\n");
            }
        }
    }
    ensure!(parts > 0, "no results in {}", results.display());
    std::fs::write(report, text.trim_end().to_owned() + "\n")?;
    println!("{}", report.display());
    Ok(())
}

/// The plots for which there are results, with the part that they belong to.
fn plots(
    results: &Path,
    report: &Path,
    stages: &[(String, f64)],
) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let beside = |what: &str| report.with_extension("").display().to_string() + "-" + what + ".svg";
    let read = |name: &str| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(results.join(name)).ok()?).ok()
    };
    let mut plots = Vec::new();
    let benches: Vec<Value> = ["bench.json", "large.json"].into_iter().filter_map(read).collect();
    if !benches.is_empty() {
        let path = PathBuf::from(beside("flows"));
        plot_flows(&path, &benches)?;
        plots.push(("bench.md", path));
    }
    for (file, part, what) in [("near.json", "near.md", "latency"), ("far.json", "far.md", "latency-memif")] {
        if let Some(curves) = read(file) {
            let path = PathBuf::from(beside(what));
            plot_latency(&path, &curves)?;
            plots.push((part, path));
        }
    }
    if let Some(tables) = read("tables.json") {
        let path = PathBuf::from(beside("tables"));
        plot_tables(&path, &tables)?;
        plots.push(("tables.md", path));
    }
    if !stages.is_empty() {
        let path = PathBuf::from(beside("stages"));
        plot::bars(&path, "Cost per stage", "nanoseconds", stages)?;
        plots.push(("stages.md", path));
    }
    Ok(plots)
}

fn plot_flows(path: &Path, benches: &[Value]) -> anyhow::Result<()> {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for row in benches.iter().filter_map(|bench| bench.get("rows")?.as_array()).flatten() {
        let number = |name: &str| row.get(name).and_then(Value::as_f64);
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        let point = number("flows").zip(number("million_units_per_second"));
        let kind = match (text("unit"), text("scenario")) {
            (Some("packet"), Some(name)) if name.starts_with("udp-") => "established UDP",
            (Some("packet"), Some(name)) if name.starts_with("tcp-") => "established TCP",
            _ => continue,
        };
        lines.entry(kind).or_default().extend(point);
    }
    let lines: Vec<Line> =
        lines.into_iter().map(|(name, points)| Line { name: name.to_owned(), points }).collect();
    let axes = Axes {
        title: "One core: packets per second against flows",
        x: "flows",
        y: "Mpps",
        logarithmic_x: true,
        logarithmic_y: false,
    };
    plot::lines(path, axes, &lines)
}

fn plot_latency(path: &Path, load: &Value) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for curve in array(load.get("curves")) {
        let name = curve.get("name").and_then(Value::as_str).unwrap_or("?");
        for (rounds, quantile, about) in
            [("all", "p50", ""), ("all", "p99.9", ""), ("without_stop", "p99.9", ", rounds without a stop")]
        {
            let point = |point: &Value| {
                let micros = point.pointer(&format!("/{rounds}/latency/microseconds/{quantile}/middle"))?;
                Some((point.pointer("/offered/middle")?.as_f64()? / 1e6, micros.as_f64()?))
            };
            let points: Vec<_> = array(curve.get("points")).iter().filter_map(point).collect();
            if !points.is_empty() {
                lines.push(Line { name: format!("{name}, {quantile}{about}"), points });
            }
        }
    }
    let axes = Axes {
        title: "Latency against load, from the intended time of sending: median of the rounds",
        x: "Mpps offered",
        y: "µs",
        logarithmic_x: false,
        logarithmic_y: true,
    };
    plot::lines(path, axes, &lines)
}

/// The elements of an array; none where there is none.
fn array(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn plot_tables(path: &Path, tables: &Value) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for load in array(tables.get("loads")) {
        let name = load.get("load").and_then(Value::as_str).unwrap_or("?");
        for (turns, about) in [("all", ""), ("without_stop", ", turns without a stop")] {
            let point = |point: &Value| Some((point.get(0)?.as_f64()?, point.get(1)?.as_f64()? * 100.0));
            let points: Vec<_> =
                array(load.pointer(&format!("/{turns}/within"))).iter().filter_map(point).collect();
            if !points.is_empty() {
                lines.push(Line { name: format!("{name}{about}"), points });
            }
        }
    }
    let axes = Axes {
        title: "Inserts that can be read on the other worker within a time",
        x: "µs",
        y: "per cent",
        logarithmic_x: true,
        logarithmic_y: false,
    };
    plot::lines(path, axes, &lines)
}

/// Median nanoseconds per element of all benches that criterion has run.
fn stages(directory: &Path) -> anyhow::Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    collect(directory, &mut found)?;
    found.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    Ok(found)
}

fn collect(directory: &Path, found: &mut Vec<(String, f64)>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name == "new") {
            found.push(estimate(&path).with_context(|| path.display().to_string())?);
        } else if path.is_dir() {
            collect(&path, found)?;
        }
    }
    Ok(())
}

fn estimate(new: &Path) -> anyhow::Result<(String, f64)> {
    let read = |name: &str| -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(new.join(name))?)?)
    };
    let (bench, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let name = bench.get("full_id").and_then(Value::as_str).context("no name")?.replace('/', ": ");
    let median = estimates.pointer("/median/point_estimate").and_then(Value::as_f64).context("no median")?;
    let elements = bench.pointer("/throughput/Elements").and_then(Value::as_f64).unwrap_or(1.0);
    Ok((name, median / elements))
}

fn stage_table(stages: &[(String, f64)]) -> String {
    let rows = stages.iter().map(|(name, nanoseconds)| format!("| {name} | {nanoseconds:.1} |\n"));
    std::iter::once("| stage | ns |\n|---|---|\n".to_owned()).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_part_that_was_measured_and_its_plots() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let row = |name: &str, flows: u32, rate: f64| serde_json::json!({ "scenario": name, "unit": "packet", "flows": flows, "million_units_per_second": rate });
        let rows = [row("udp-1", 1, 20.0), row("udp-10k", 10_000, 15.0), row("tcp-1", 1, 18.0)];
        put("bench.md", "| a table |\n");
        put("near.md", "| latencies |\n");
        let spread = |middle: f64| serde_json::json!({ "middle": middle });
        let rounds = |p50: f64, p999: f64| serde_json::json!({ "latency": { "microseconds": { "p50": spread(p50), "p99.9": spread(p999) } } });
        let none = serde_json::json!({ "latency": { "microseconds": null } });
        let points = [
            serde_json::json!({ "offered": spread(1e6), "all": rounds(1.0, 900.0), "without_stop": rounds(1.0, 9.0) }),
            serde_json::json!({ "offered": spread(2e6), "all": rounds(2.0, 800.0), "without_stop": none }),
        ];
        let curves = [serde_json::json!({ "name": "weir", "points": points })];
        put("near.json", &serde_json::json!({ "curves": curves }).to_string());
        let loads = [
            serde_json::json!({ "load": "bursts", "all": { "within": [[1.0, 0.0], [10.0, 0.8], [100.0, 1.0]] } }),
        ];
        put("tables.md", "| inserts |\n");
        put("tables.json", &serde_json::json!({ "loads": loads }).to_string());
        put("bench.json", &serde_json::json!({ "rows": rows }).to_string());
        let large = [row("udp-10m", 10_000_000, 6.0)];
        put("large.json", &serde_json::json!({ "rows": large }).to_string());
        put(
            "criterion/recognise/glance/new/benchmark.json",
            r#"{"full_id":"recognise/glance","throughput":{"Elements":32}}"#,
        );
        put("criterion/recognise/glance/new/estimates.json", r#"{"median":{"point_estimate":64.0}}"#);
        let report = directory.path().join("2026-01-02.md");
        write(directory.path(), &report).unwrap();
        let text = std::fs::read_to_string(&report).unwrap();
        assert!(text.starts_with("# 2026-01-02\n"));
        assert!(text.contains("| a table |") && text.contains("](2026-01-02-flows.svg)"), "{text}");
        assert!(text.contains("| recognise: glance | 2.0 |"), "{text}");
        assert!(!text.contains("memif"), "it was not measured: {text}");
        assert!(text.contains("| inserts |") && text.contains("](2026-01-02-tables.svg)"), "{text}");
        for plot in ["2026-01-02-flows.svg", "2026-01-02-stages.svg", "2026-01-02-tables.svg"] {
            let svg = std::fs::read_to_string(directory.path().join(plot)).unwrap();
            assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        }
        let latency = std::fs::read_to_string(directory.path().join("2026-01-02-latency.svg")).unwrap();
        assert!(latency.contains("weir, p99.9, rounds without a stop"), "{latency}");
        // A mark for each figure that is there, five of six.
        assert_eq!(latency.matches("<circle").count(), 5, "{latency}");
        let flows = std::fs::read_to_string(directory.path().join("2026-01-02-flows.svg")).unwrap();
        assert!(flows.contains("established TCP") && flows.contains("established UDP"));
        assert_eq!(flows.matches("<circle").count(), 4, "{flows}");
        assert!(write(&directory.path().join("nothing"), &report).is_err());
    }
}
