//! `weir explain`: what would become of a client, by the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use dataplane::snapshot::Protocol;
use lab::replay::{Question, ReplayError, explain};

use crate::replay::UNUSABLE;

/// The arguments of `weir explain`.
#[derive(clap::Args)]
pub struct Explain {
    /// The TOML file
    #[arg(long, short)]
    config: PathBuf,
    /// Who comes
    #[arg(long, value_name = "ADDRESS:PORT")]
    client: SocketAddr,
    /// Where to
    #[arg(long, value_name = "ADDRESS:PORT")]
    vip: SocketAddr,
    /// How
    #[arg(long, value_enum, default_value_t = Proto::Tcp)]
    proto: Proto,
    /// Its first bytes, or its datagram
    #[arg(long, value_name = "FILE", conflicts_with = "hex")]
    payload: Option<PathBuf>,
    /// The same as hexadecimal digits; blanks are passed over
    #[arg(long)]
    hex: Option<String>,
    /// Show each line that scripts execute, not only their calls
    #[arg(long)]
    trace: bool,
    /// Write the packets that this would mean to a pcapng file, which `weir replay` plays
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
}

/// No service has this VIP and port.
const UNSERVED: u8 = 1;

/// Runs the command.
pub fn run(command: &Explain) -> ExitCode {
    match explained(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn explained(command: &Explain) -> anyhow::Result<ExitCode> {
    let payload = payload(command)?;
    let Ok(config) = crate::load(&command.config) else {
        bail!("{} must be right", command.config.display())
    };
    let protocol = match command.proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    };
    let question = Question { protocol, client: command.client, vip: command.vip, payload };
    let mut replayed = match explain(&config.snapshot, &question) {
        Err(ReplayError::Unserved(text)) => {
            eprintln!("weir: {text}");
            return Ok(ExitCode::from(UNSERVED));
        }
        answer => answer?,
    };
    if let Some(out) = &command.out {
        crate::replay::write(out, &replayed).with_context(|| format!("cannot write {}", out.display()))?;
    }
    let Some(mut flow) = replayed.report.flows.pop() else { bail!("no packet reached weir") };
    if !command.trace {
        flow.scripts.iter_mut().for_each(|run| run.steps.retain(|step| step.kind != "line"));
    }
    if command.json {
        println!("{}", serde_json::to_string_pretty(&flow)?);
    } else {
        let mut text = String::new();
        flow.write(&mut text, true);
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

fn payload(command: &Explain) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(path) = &command.payload {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(Some(bytes));
    }
    command.hex.as_deref().map(hex).transpose()
}

fn hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let Some(digits) = digits.filter(|digits| digits.len().is_multiple_of(2)) else {
        bail!("--hex takes pairs of hexadecimal digits");
    };
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}
