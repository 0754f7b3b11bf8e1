//! `weir-load`: clients and servers for `perf/compare`, which measures balancers beside each other. The same for all of
//! them, and one thread each.

mod client;
mod datagrams;
mod server;
mod system;
mod table;
mod talk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use client::{Errors, Order, Outcome};
use datagrams::Datagrams;
use system::Processes;
use table::{Line, Measure, Measurement};

/// Clients and servers for perf/compare
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be the servers until ended
    Serve {
        /// The pools and where they are: NAME=ADDRESS:PORT
        #[arg(value_parser = pool, required = true)]
        pools: Vec<(String, SocketAddr)>,
    },
    /// Wait until both pools answer
    Probe {
        /// The balancer
        to: SocketAddr,
        /// The balancer decides by the request
        #[arg(long)]
        decides: bool,
        /// Give up after so many seconds
        #[arg(long, default_value_t = 10)]
        limit: u64,
    },
    /// Be the clients for a while, and print a line of results
    Ask(Ask),
    /// Print the table of lines of results
    Table {
        /// Them
        results: PathBuf,
        /// Rates of the paced measures: connections and requests per second
        #[arg(long, num_args = 2, required = true)]
        rates: Vec<u64>,
    },
}

#[derive(Args)]
struct Ask {
    /// What to measure
    measure: Measure,
    /// The balancer
    to: SocketAddr,
    /// Its name in the results
    #[arg(long)]
    contender: String,
    /// It decides by the request
    #[arg(long)]
    decides: bool,
    /// Its process, if it has one
    #[arg(long)]
    process: Option<u32>,
    /// That of the servers
    #[arg(long, default_value_t = 0)]
    servers: u32,
    /// Clients, or flows of datagrams
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Requests per second of the paced measures
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Milliseconds before what counts
    #[arg(long, default_value_t = 300)]
    warm_up: u64,
    /// Milliseconds that count; with datagrams those of a trial
    #[arg(long)]
    window: u64,
}

fn pool(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("NAME=ADDRESS:PORT is wanted")?;
    Ok((name.to_owned(), address.parse().map_err(|error| format!("{address}: {error}"))?))
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve { pools } => server::serve(&pools),
        Command::Probe { to, decides, limit } => probe(to, decides, limit),
        Command::Ask(ask) => {
            println!("{}", serde_json::to_string(&Line::Measured(ask.measurement()?))?);
            Ok(())
        }
        Command::Table { results, rates } => {
            let text = std::fs::read_to_string(&results)
                .with_context(|| format!("cannot read {}", results.display()))?;
            let rates = *rates.first_chunk::<2>().context("two rates are wanted")?;
            print!("{}", table::table(&text, rates)?);
            Ok(())
        }
    }
}

/// Some requests by two clients, one of each pool, until no answer is missing.
fn probe(to: SocketAddr, decides: bool, limit: u64) -> anyhow::Result<()> {
    let window = Duration::from_millis(50);
    let order = Order {
        to,
        clients: 2,
        kept: false,
        rate: Some(100),
        warm_up: Duration::ZERO,
        window,
        decides,
        processes: Processes::default(),
    };
    let end = system::now() + limit * 1_000_000_000;
    loop {
        let Outcome { answers, errors, .. } = client::run(order)?;
        if answers >= 2 && errors.total() == 0 {
            return Ok(());
        }
        ensure!(system::now() < end, "{to} does not answer: {answers} answers, {errors:?}");
        std::thread::sleep(window);
    }
}

impl Ask {
    fn measurement(&self) -> anyhow::Result<Measurement> {
        match self.measure {
            Measure::Datagrams => self.datagrams(),
            Measure::Connections => self.streams(false, None),
            Measure::Requests => self.streams(true, None),
            Measure::PacedConnections => self.streams(false, Some(self.rate)),
            Measure::PacedRequests => self.streams(true, Some(self.rate)),
        }
    }

    fn streams(&self, kept: bool, rate: Option<u64>) -> anyhow::Result<Measurement> {
        let Outcome { answers, seconds, latency, errors, used } = client::run(Order {
            to: self.to,
            clients: self.clients,
            kept,
            rate,
            warm_up: Duration::from_millis(self.warm_up),
            window: Duration::from_millis(self.window),
            decides: self.decides,
            processes: Processes { balancer: self.process.unwrap_or_default(), servers: self.servers },
        })?;
        if answers == 0 {
            bail!("no answer at all: {errors:?}");
        }
        self.remark(errors, used.stolen / seconds);
        let per_answer = |seconds: f64| seconds * 1e6 / answers as f64;
        Ok(Measurement {
            per_second: answers as f64 / seconds,
            p50: latency.value_at_quantile(0.5) as f64 / 1e3,
            p99: latency.value_at_quantile(0.99) as f64 / 1e3,
            machine: per_answer(used.machine),
            process: self.process.map(|_| per_answer(used.balancer)),
            ends: per_answer(used.ends),
            errors: errors.total(),
            ..self.nothing()
        })
    }

    fn datagrams(&self) -> anyhow::Result<Measurement> {
        let window = Duration::from_millis(self.window);
        let best = Datagrams::new(self.to, self.clients, window)?.search()?;
        Ok(Measurement { per_second: best.map_or(0.0, |trial| trial.rate), ..self.nothing() })
    }

    fn nothing(&self) -> Measurement {
        Measurement {
            contender: self.contender.clone(),
            measure: self.measure,
            per_second: 0.0,
            p50: 0.0,
            p99: 0.0,
            machine: 0.0,
            process: None,
            ends: 0.0,
            errors: 0,
        }
    }

    /// What one should know of a run and the table does not show.
    fn remark(&self, errors: Errors, stolen: f64) {
        if errors.total() > 0 {
            eprintln!("{}, {:?}: {errors:?}", self.contender, self.measure);
        }
        if stolen > 0.1 {
            eprintln!(
                "{}, {:?}: the host took {:.0} % of a CPU",
                self.contender,
                self.measure,
                stolen * 100.0
            );
        }
    }
}
