//! `weir-perf`: what a packet costs, beside what the bare devices cost. `perf/README.md` says how to read the figures.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use weir_perf::load::far::{Far, Subject, WeirProcess, Wires};
use weir_perf::load::{self, Outcome, Plan, table};
use weir_perf::measure::{Effort, Lab};
use weir_perf::report::Setting;
use weir_perf::sampler::Sampler;
use weir_perf::scenario::{ALL, Scenario};
use weir_perf::{compare, icount, pair, publish, report, tables, tsc};

/// Measures weir's packet path in process, over crossed DPDK rings, on one core
#[derive(Parser)]
#[command(version = env!("PERF_REVISION"))]
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
    /// Tell perf by the FIFOs here when rounds begin and end; see perf/profile.sh
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    sampler: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Latency and loss at parts of the maximum load, from an open-loop generator, beside a bare device loop
    Load(LoadArguments),
    /// Two workers at the same time beside each of them alone
    Pair {
        /// Which packets
        #[arg(long, default_value = "udp-10k", value_parser = named)]
        scenario: Scenario,
        /// Rounds of three slices of a tenth of a second
        #[arg(long, default_value_t = 20)]
        rounds: u64,
        /// CPUs of the workers
        #[arg(long, num_args = 2, default_values_t = [0, 1])]
        cpus: Vec<u32>,
    },
    /// How soon an insert of one worker can be read on another one, under load
    Tables {
        /// Fewer rounds
        #[arg(long)]
        quick: bool,
        /// Rounds of a turn of each load
        #[arg(long)]
        rounds: Option<usize>,
        /// Milliseconds of each turn
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=20))]
        milliseconds: Option<u64>,
        /// CPUs of the workers
        #[arg(long, num_args = 2, default_values_t = [0, 1])]
        cpus: Vec<u32>,
        /// Also write the result here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Which differences between rounds of two revisions are real; see perf/compare.sh
    Compare {
        /// Results of --json of one revision, in their order
        #[arg(long, num_args = 1.., required = true)]
        base: Vec<PathBuf>,
        /// The same of the other one; each followed its partner
        #[arg(long, num_args = 1.., required = true)]
        head: Vec<PathBuf>,
    },
    /// Makes a report with plots of what perf/run.sh has measured
    Publish {
        /// Directory with the results
        results: PathBuf,
        /// The report; the plots are put beside it
        report: PathBuf,
    },
    /// The bare device loop at the end of a memif socket; `load --weir` starts it
    #[command(hide = true)]
    Reflect {
        /// Name of the socket
        socket: String,
        /// Run on this CPU
        #[arg(long)]
        cpu: Option<u32>,
    },
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

#[derive(Args)]
struct LoadArguments {
    /// Which flows: one of the scenarios udp-1 to tcp-1m
    #[arg(long, default_value = "udp-10k", value_parser = named)]
    scenario: Scenario,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
    /// This weir in a process of its own, over memif; without it, weir's worker in this process, over a ring
    #[arg(long, value_name = "BINARY")]
    weir: Option<PathBuf>,
    /// Rounds at each load
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of each run
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    milliseconds: Option<u64>,
    /// Only at this load, per cent of the maximum; may be given several times
    #[arg(long, value_name = "PER CENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    at: Vec<u32>,
    /// This share of the packets opens UDP flows, for which the script runs; up to 10%
    #[arg(long, value_name = "PER CENT", value_parser = share)]
    new_flows: Option<f64>,
    /// Workers of that weir
    #[arg(long, default_value_t = 1)]
    workers: u8,
    /// CPUs of the generator and of what it sends to
    #[arg(long, num_args = 2, default_values_t = [0, 1])]
    cpus: Vec<u32>,
    /// Also write the result here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn named(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| format!("the scenarios are: {}", ALL.map(|s| s.name).join(", ")))
}

fn share(text: &str) -> Result<f64, String> {
    let percent =
        text.trim_end_matches('%').trim().parse().ok().filter(|percent| (0.0..=10.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| "a share is from 0% to 10%, like 0.5%".to_owned())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Icount { scenario, floor, windows }) => icount::run(scenario, floor, windows),
        Some(Command::Load(arguments)) => load(&arguments),
        Some(Command::Pair { scenario, rounds, cpus }) => {
            let result = pair::run(&Lab::open_on(2, cpus)?, scenario, rounds)?;
            print!("{}", pair::table(&result, &scenario));
            println!("\n{}", Setting::read(tsc::hertz()).line());
            Ok(())
        }
        Some(Command::Tables { quick, rounds, milliseconds, cpus, json }) => {
            let usual = tables::Plan::new(quick);
            let nanoseconds = milliseconds.map_or(usual.nanoseconds, |milliseconds| milliseconds * 1_000_000);
            let plan = tables::Plan { rounds: rounds.unwrap_or(usual.rounds), nanoseconds };
            let outcome = tables::run(&Lab::open_on(2, cpus)?, &plan)?;
            print!("{}", tables::table::table(&outcome, &plan)?);
            println!("\n{}", Setting::read(tsc::hertz()).line());
            write_json(json.as_deref(), &tables::table::json(&outcome, &plan)?)
        }
        Some(Command::Compare { base, head }) => {
            print!("{}", compare::table(&compare::read(&base, &head)?));
            Ok(())
        }
        Some(Command::Publish { results, report }) => publish::write(&results, &report),
        Some(Command::Reflect { socket, cpu }) => load::far::reflect(&socket, cpu),
        None => bench(arguments),
    }
}

fn load(arguments: &LoadArguments) -> anyhow::Result<()> {
    let usual = Plan::new(arguments.quick);
    let plan = Plan {
        loads: if arguments.at.is_empty() { usual.loads } else { arguments.at.clone() },
        nanoseconds: arguments
            .milliseconds
            .map_or(usual.nanoseconds, |milliseconds| milliseconds * 1_000_000),
        rounds: arguments.rounds.unwrap_or(usual.rounds),
        new_flows: arguments.new_flows.unwrap_or(0.0),
    };
    let scenario = match arguments.new_flows {
        None => arguments.scenario,
        Some(_) => arguments.scenario.with_new_flows().context("new flows go with udp-1 and udp-10k")?,
    };
    let [generator, other] = *arguments.cpus.as_slice() else { bail!("two CPUs are wanted") };
    let stolen = stolen();
    let outcome = match &arguments.weir {
        None => load::near::run(&Lab::open_on(2, vec![generator, other])?, scenario, &plan)?,
        Some(binary) => far(arguments, binary, scenario, &plan, [generator, other])?,
    };
    print!("{}", table::table(&outcome, &plan));
    if let Some((before, after)) = stolen.zip(self::stolen()) {
        println!(
            "The hypervisor says that it took {} ms of all processors meanwhile.",
            (after - before) * 10
        );
    }
    let setting = Setting::read(tsc::hertz());
    println!("\n{}", setting.line());
    write_json(arguments.json.as_deref(), &table::json(&outcome, &plan))
}

/// Hundredths of a second of all processors that a hypervisor has given to somebody else, as far as it tells.
fn stolen() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}

/// Against processes of their own.
fn far(
    arguments: &LoadArguments,
    binary: &Path,
    scenario: Scenario,
    plan: &Plan,
    [cpu, other]: [u32; 2],
) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let how = WeirProcess {
        binary: binary.to_owned(),
        workers: arguments.workers,
        cpus: vec![other; usize::from(arguments.workers.min(1))],
        idle: "poll",
    };
    // The generator's EAL pins this thread, and those it starts then would inherit that.
    let mut subjects = vec![Subject::weir(&how, &scenario, directory)?];
    subjects.push(Subject::bare(Some(other), directory)?);
    match Subject::testpmd(other, directory)? {
        Some(testpmd) => subjects.push(testpmd),
        None => println!("testpmd is not installed (package dpdk-dev): no macswap beside weir\n"),
    }
    let wires = Wires::open(Some(cpu))?;
    let mut far = Far::new(&wires, subjects, u16::from(arguments.workers), scenario)?;
    far.open_flows(plan.new_flows)?;
    let outcome = load::measure(&mut far, plan)?;
    println!("dropped by weir: {}\n", drops(&far.weir()?.show(binary, "counters")?));
    Ok(outcome)
}

/// The reasons that `weir show counters` counts packets for.
fn drops(counters: &serde_json::Value) -> String {
    let rows =
        counters.get("dropped").and_then(|rows| rows.as_array()).map(Vec::as_slice).unwrap_or_default();
    let reason = |row: &serde_json::Value| {
        let packets = row.get("packets")?.as_u64().filter(|packets| *packets > 0)?;
        Some(format!("{packets} {}", row.get("reason")?.as_str()?))
    };
    let reasons: Vec<String> = rows.iter().filter_map(reason).collect();
    if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(", ") }
}

fn write_json(path: Option<&Path>, value: &serde_json::Value) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

fn bench(arguments: Arguments) -> anyhow::Result<()> {
    let effort = match arguments.quick {
        true => Effort { rounds: 20, windows: 25 },
        false => Effort { rounds: 36, windows: 250 },
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
        let sampler = arguments.sampler.as_deref().map(Sampler::open).transpose()?;
        let row = lab.measure(scenario, effort, sampler)?;
        println!("{}", report::line(&row, hertz));
        rows.push(row);
    }
    let setting = Setting::read(hertz);
    println!("\n{}\n", setting.line());
    for row in &rows {
        println!("- {}: {}", row.scenario.name, row.surroundings);
    }
    write_json(arguments.json.as_deref(), &report::json(&rows, &setting))?;
    ensure!(!rows.is_empty(), "nothing was measured");
    Ok(())
}
