//! `weir-perf`: what a packet costs, beside what the bare devices cost. `perf/README.md` says how to read the figures.

mod bench;
mod frame;
mod icount;
mod measure;
mod peer;
mod report;
mod scenario;
mod tsc;
mod wire;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use measure::{Effort, Lab};
use report::Setting;
use scenario::{ALL, Scenario};

/// Measures weir's packet path in process, over crossed DPDK rings, on one core
#[derive(Parser)]
struct Arguments {
    /// Fewer rounds: seconds instead of minutes, and more noise
    #[arg(long)]
    quick: bool,
    /// Only this scenario; may be given several times
    #[arg(long, value_name = "NAME", value_parser = named)]
    scenario: Vec<Scenario>,
    /// Also write the result here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run on this CPU
    #[arg(long)]
    cpu: Option<u32>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario on memory, under valgrind; see perf/icounts.sh
    Icount {
        /// Which
        #[arg(value_parser = named)]
        scenario: Scenario,
        /// The bare loop instead
        #[arg(long)]
        floor: bool,
        /// Windows after the preparation
        #[arg(long, default_value_t = 40)]
        windows: u32,
    },
}

fn named(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| format!("the scenarios are: {}", ALL.map(|s| s.name).join(", ")))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Icount { scenario, floor, windows }) = arguments.command {
        return icount::run(scenario, floor, windows);
    }
    let effort = match arguments.quick {
        true => Effort { rounds: 5, windows: 100 },
        false => Effort { rounds: 9, windows: 1000 },
    };
    let chosen = match arguments.scenario.is_empty() {
        true => ALL.into_iter().filter(|scenario| !scenario.is_large()).collect(),
        false => arguments.scenario,
    };
    let lab = Lab::open(arguments.cpu)?;
    let hertz = tsc::hertz();
    println!("{}", report::HEAD);
    let mut rows = Vec::new();
    for scenario in chosen {
        let row = lab.measure(scenario, effort)?;
        println!("{}", report::line(&row, hertz));
        rows.push(row);
    }
    let setting = Setting::read(hertz);
    println!(
        "\nweir {}, {}, {}; {}, TSC {:.1} MHz, load {}",
        env!("PERF_REVISION"),
        dpdk::version(),
        env!("PERF_COMPILER"),
        setting.processor,
        hertz / 1e6,
        setting.load
    );
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&report::json(&rows, &setting))?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(!rows.is_empty(), "nothing was measured");
    Ok(())
}
