//! The binary: the only place where packet core, scripts, configuration, DPDK and control meet.
#![deny(unsafe_code)]

mod capture;
mod clock;
mod explain;
mod replay;
mod run;
mod script;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Layer 4 load balancer on DPDK whose decisions are made by Lua DataScripts.
#[derive(Parser)]
#[command(name = "weir", version = env!("WEIR_VERSION"), about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a configuration and its scripts; says everything that is wrong with them
    Check {
        /// The TOML file
        file: PathBuf,
    },
    /// Check DataScripts by themselves: more than `weir check` does, and without a configuration if need be
    #[command(subcommand)]
    Script(script::Command),
    /// Play the client packets of a capture against a configuration, with simulated servers, in virtual time
    Replay(replay::Replay),
    /// Say what would become of a client: service, scripts, servers in order of preference, SNAT address
    Explain(explain::Explain),
    /// Balance until SIGINT or SIGTERM; SIGHUP reads the file again and opens the connection log again, SIGUSR1 only the log
    Run {
        /// The TOML file
        #[arg(long, short)]
        config: PathBuf,
    },
    /// Ask a running weir: counters, flows, pools, servers, tables, latency, scripts, ports, info, metrics
    Show(Request),
    /// Have a running weir read its configuration file again and go on by it; connections go on
    Reload {
        /// Admin socket of the weir
        #[arg(long, default_value = "/run/weir.sock")]
        socket: PathBuf,
    },
    /// Let a server take new flows again: server POOL ADDRESS:PORT
    Enable(Request),
    /// Let a server finish its flows and take no new ones: server POOL ADDRESS:PORT
    Disable(Request),
    /// Follow the next flows through a running weir: what happens to each of their packets, and why
    Trace(trace::Trace),
    /// Write packets of a running weir's flows to a pcapng file, as received and as sent, with comments
    Capture(capture::Capture),
    /// Print weir's and DPDK's versions
    Version,
}

#[derive(clap::Args)]
struct Request {
    /// What, with its filters; `weir show help` lists them
    #[arg(required = true)]
    words: Vec<String>,
    /// Admin socket of the weir to ask
    #[arg(long, default_value = "/run/weir.sock")]
    socket: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Exit code when the configuration is wrong; 1 is any other failure.
const WRONG_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Check { file } => return check(&file),
        Command::Script(command) => return script::run(&command),
        Command::Replay(command) => return replay::run(&command),
        Command::Explain(command) => return explain::run(&command),
        Command::Run { config } => match load(&config) {
            Err(code) => return code,
            Ok(settings) => run::run(settings, config),
        },
        Command::Reload { socket } => return reload(&socket),
        Command::Show(request) => ask("show", &request),
        Command::Enable(request) => ask("enable", &request),
        Command::Disable(request) => ask("disable", &request),
        Command::Trace(trace) => return trace::run(&trace),
        Command::Capture(capture) => return capture::run(&capture),
        Command::Version => {
            println!("weir {}, {}", env!("WEIR_VERSION"), dpdk::version());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> ExitCode {
    match load(file) {
        Err(code) => code,
        Ok(config) => {
            print!("{}", config.summary());
            println!("{}: the configuration is good", file.display());
            ExitCode::SUCCESS
        }
    }
}

/// Reads the configuration; what is wrong, or only doubtful, goes to standard error.
fn load(file: &Path) -> Result<config::Config, ExitCode> {
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match config::load(file) {
        Err(errors) => {
            eprint!("{}", errors.render(color));
            Err(ExitCode::from(WRONG_CONFIGURATION))
        }
        Ok(config) => {
            if !config.warnings.problems().is_empty() {
                eprint!("{}", config.warnings.render(color));
            }
            Ok(config)
        }
    }
}

/// How long a reload may take.
const RELOAD: std::time::Duration = std::time::Duration::from_secs(15);

fn reload(socket: &Path) -> ExitCode {
    match control::client::patient_request(socket, "reload", RELOAD) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(control::client::Error::Refused(text)) => {
            eprintln!("weir: not reloaded, the configuration that runs goes on: {text}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Err(error) => {
            eprintln!("weir: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(verb: &str, request: &Request) -> anyhow::Result<()> {
    let asks_help = verb == "show" && request.words.first().is_some_and(|word| word == "help");
    let mut line = if asks_help { "help".to_owned() } else { format!("{verb} {}", request.words.join(" ")) };
    if request.json {
        line.push_str(" json");
    }
    print!("{}", control::client::request(&request.socket, &line)?);
    Ok(())
}
