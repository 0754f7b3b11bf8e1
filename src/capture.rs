//! `weir capture`: packets of flows of a running weir, on both sides, to a pcapng file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;
use control::capture::Limits;
use control::client::Next;

use crate::trace::{NOTHING, Selection, UNUSABLE, interrupted};

/// Flows that a capture takes when nothing else is said.
const FLOWS: u32 = 1000;
/// Bytes of a packet that are kept when nothing else is said: all.
const SNAP: u16 = u16::MAX;

/// The arguments of `weir capture`.
#[derive(clap::Args)]
pub struct Capture {
    #[command(flatten)]
    selection: Selection,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
    /// Take packets of so many flows
    #[arg(long, default_value_t = FLOWS)]
    flows: u32,
    /// End after so many packets, those received and those sent
    #[arg(long)]
    packets: Option<u64>,
    /// End when the file has so many bytes
    #[arg(long)]
    bytes: Option<u64>,
    /// Keep so many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value_t = SNAP, value_parser = clap::value_parser!(u16).range(1..))]
    snap: u16,
    /// Say what was captured as one JSON object
    #[arg(long)]
    json: bool,
}

/// Captures until it is over, a limit is reached, or it is interrupted.
pub fn run(capture: &Capture) -> ExitCode {
    match write(capture) {
        Ok(0) => ExitCode::from(NOTHING),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn write(arguments: &Capture) -> anyhow::Result<u64> {
    let stop = interrupted()?;
    let request = format!("{} frames {} json", arguments.selection.request(arguments.flows), arguments.snap);
    let out = &arguments.out;
    let cannot = || format!("cannot write {}", out.display());
    let limits = Limits { packets: arguments.packets, bytes: arguments.bytes };
    let begin = || -> anyhow::Result<_> {
        let file = BufWriter::new(File::create(out).with_context(cannot)?);
        Ok(control::capture::Capture::new(file, limits)?)
    };
    let (mut begun, mut failed) = (None, None);
    let streamed = control::client::stream(&arguments.selection.socket, &request, |line| {
        let next = if stop.load(Ordering::Relaxed) { Next::End } else { Next::GoOn };
        let Some(line) = line else { return next };
        // Not before weir has agreed: what is in the file stays if it refuses.
        let capture = match &mut begun {
            Some(capture) => Ok(capture),
            None => begin().map(|new| begun.insert(new)),
        };
        match capture.and_then(|capture| Ok(capture.line(line)?)) {
            Ok(true) => next,
            Ok(false) => Next::Leave,
            Err(error) => {
                failed = Some(error);
                Next::Leave
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let Some(capture) = begun else {
        streamed?;
        begin()?.finish()?.flush().with_context(cannot)?;
        return said(arguments, (0, 0, 0));
    };
    let (packets, flows, lost) = (capture.packets(), capture.flows(), capture.lost());
    capture.finish()?.flush().with_context(cannot)?;
    streamed?;
    said(arguments, (packets, flows, lost))
}

/// Says what was captured.
fn said(arguments: &Capture, (packets, flows, lost): (u64, usize, u64)) -> anyhow::Result<u64> {
    if arguments.json {
        println!(r#"{{"packets":{packets},"flows":{flows},"events_lost":{lost}}}"#);
    } else {
        println!("{}: {packets} packets of {flows} flows, {lost} events lost", arguments.out.display());
    }
    Ok(packets)
}
