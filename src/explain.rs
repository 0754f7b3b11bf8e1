//! `weir explain`: what would become of a client, by the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use control::Explainer;
use dataplane::snapshot::Protocol;
use lab::replay::{FlowReport, Question, ReplayError, explain};

use crate::replay::UNUSABLE;

/// The arguments of `weir explain`.
#[derive(clap::Args)]
pub struct Explain {
    /// The TOML file: all its servers are up, its tables are empty
    #[arg(long, short, required_unless_present = "socket")]
    config: Option<PathBuf>,
    /// Admin socket of a running weir: its servers and tables are as they are now, and it stays as it is
    #[arg(long, conflicts_with = "config")]
    socket: Option<PathBuf>,
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
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
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
    let (protocol, name) = match command.proto {
        Proto::Tcp => (Protocol::Tcp, "tcp"),
        Proto::Udp => (Protocol::Udp, "udp"),
    };
    let question = Question { protocol, client: command.client, vip: command.vip, payload };
    let Some(config) = &command.config else { return ask(command, &question, name) };
    let Ok(configured) = crate::load(config) else { bail!("{} must be right", config.display()) };
    let mut replayed = match explain(&configured.snapshot, &question) {
        Err(ReplayError::Unserved(text)) => {
            eprintln!("weir: {text}");
            return Ok(ExitCode::from(UNSERVED));
        }
        answer => answer?,
    };
    if let Some(out) = &command.out {
        crate::replay::write(out, &replayed).with_context(|| format!("cannot write {}", out.display()))?;
    }
    let Some(flow) = replayed.report.flows.pop() else { bail!("no packet reached weir") };
    let flow = shown(flow, command.trace);
    if command.json {
        println!("{}", serde_json::to_string_pretty(&flow)?);
    } else {
        print!("{}", text(&flow));
    }
    Ok(ExitCode::SUCCESS)
}

/// Without the lines that scripts executed, unless they are wanted.
fn shown(mut flow: FlowReport, lines: bool) -> FlowReport {
    if !lines {
        flow.scripts.iter_mut().for_each(|run| run.steps.retain(|step| step.kind != "line"));
    }
    flow
}

fn text(flow: &FlowReport) -> String {
    let mut text = String::new();
    flow.write(&mut text, true);
    text
}

/// Asks a running weir.
fn ask(command: &Explain, question: &Question, protocol: &str) -> anyhow::Result<ExitCode> {
    let Question { client, vip, payload, .. } = question;
    let mut request = format!("explain client {client} vip {vip} protocol {protocol}");
    if let Some(payload) = payload {
        let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        request.push_str(if payload.is_empty() { "" } else { " payload " });
        request.push_str(&digits);
    }
    for (word, wanted) in [(" lines", command.trace), (" json", command.json)] {
        request.push_str(if wanted { word } else { "" });
    }
    let socket = command.socket.as_deref().context("neither --config nor --socket")?;
    match control::client::request(socket, &request) {
        Err(control::client::Error::Refused(text)) if text.starts_with(NOBODY) => {
            eprintln!("weir: {text}");
            Ok(ExitCode::from(UNSERVED))
        }
        Err(error) => Err(error.into()),
        Ok(answer) if command.json => {
            let flow: serde_json::Value = serde_json::from_str(&answer).context("weir answers no JSON")?;
            println!("{}", serde_json::to_string_pretty(&flow)?);
            Ok(ExitCode::SUCCESS)
        }
        Ok(answer) => {
            print!("{answer}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What [`ReplayError::Unserved`] begins with.
const NOBODY: &str = "no virtual service has ";

/// Answers for a weir that runs, in a lab of its own.
pub fn explainer() -> Explainer {
    Explainer::new(|snapshot, asked, live| {
        let control::Question { protocol, client, vip, payload, lines, json } = asked.clone();
        let question = Question { protocol, client, vip, payload };
        let (copied, held) = (live.entries.len(), live.held);
        let flow = lab::replay::explain_live(snapshot, &question, Arc::new(live));
        let mut flow = shown(flow.map_err(|error| error.to_string())?, lines);
        if copied < held {
            flow.notes.push(format!("of {held} table entries {copied} were looked at"));
        }
        if json { serde_json::to_string(&flow).map_err(|error| error.to_string()) } else { Ok(text(&flow)) }
    })
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
