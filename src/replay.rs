//! `weir replay`: a capture played against a configuration, without DPDK or root.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use lab::replay::{Difference, Mapping, Replayed, Settings, compare, pcapng, replay};

use crate::clock;

/// The arguments of `weir replay`.
#[derive(clap::Args)]
pub struct Replay {
    /// A pcap or pcapng file
    capture: PathBuf,
    /// The TOML file
    #[arg(long, short)]
    config: PathBuf,
    /// ADDRESS of the capture that stands for a VIP of the configuration, with ports or without; may be repeated
    #[arg(long, value_name = "ADDRESS[:PORT]=VIP[:PORT]")]
    vip: Vec<Mapping>,
    /// Show what scripts did, line by line
    #[arg(long)]
    trace: bool,
    /// Write all packets to and from weir, on both sides, to a pcapng file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compare with the JSON of an earlier replay: exit code 1 if weir decided otherwise
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// One JSON object for all
    #[arg(long)]
    json: bool,
}

/// Largest capture in bytes.
const MOST_BYTES: u64 = 1 << 30;
/// weir decided otherwise than expected.
const DIFFERENT: u8 = 1;
/// A file cannot be read or played.
pub const UNUSABLE: u8 = 2;

/// Runs the command.
pub fn run(command: &Replay) -> ExitCode {
    match played(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn played(command: &Replay) -> anyhow::Result<ExitCode> {
    let Ok(config) = crate::load(&command.config) else {
        bail!("{} must be right", command.config.display())
    };
    let file = read(&command.capture)?;
    let expected = command.expect.as_deref().map(expected).transpose()?;
    let settings = Settings {
        vips: command.vip.clone(),
        stopwatch: Some(clock::script_nanoseconds),
        ..Settings::default()
    };
    let mut replayed = replay(&config.snapshot, &file, &settings)
        .with_context(|| format!("cannot play {}", command.capture.display()))?;
    if let Some(out) = &command.out {
        write(out, &replayed).with_context(|| format!("cannot write {}", out.display()))?;
    }
    if !command.trace {
        replayed.report.drop_steps();
    }
    let json = serde_json::to_value(&replayed.report)?;
    if command.json {
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print!("{}", replayed.report.text(command.trace));
    }
    let Some(expected) = expected else { return Ok(ExitCode::SUCCESS) };
    let name = command.expect.as_deref().unwrap_or(Path::new("")).display();
    let differences = compare(&expected, &json)
        .map_err(|error| anyhow::anyhow!("{name} is not what `weir replay --json` writes: {error}"))?;
    Ok(verdict(&differences))
}

fn verdict(differences: &[Difference]) -> ExitCode {
    for difference in differences {
        eprintln!("{difference}");
    }
    eprintln!("weir: {} differences from what was expected", differences.len());
    if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    // What is no file has no length of its own.
    let file = std::fs::File::open(path).with_context(cannot)?;
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(cannot)?;
    if read as u64 > MOST_BYTES {
        bail!(
            "{} has more than {MOST_BYTES} bytes, which is what can be played: cut it, by client for instance",
            path.display()
        );
    }
    Ok(bytes)
}

fn expected(path: &Path) -> anyhow::Result<serde_json::Value> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// Writes all packets of a replay.
pub fn write(path: &Path, replayed: &Replayed) -> anyhow::Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    std::io::Write::flush(&mut pcapng(replayed, file)?)?;
    Ok(())
}
