//! `weir trace`: what happens to the packets of some flows of a running weir.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use control::client::Next;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Which flows, for how long, and whom to ask.
#[derive(clap::Args)]
pub struct Selection {
    /// Only clients in this network, or with this address
    #[arg(long, value_name = "PREFIX")]
    client: Option<String>,
    /// Only this VIP
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<String>,
    /// Only this port of the VIP
    #[arg(long)]
    port: Option<u16>,
    /// Only this protocol
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Also flows that are open already, not only new ones
    #[arg(long)]
    open: bool,
    /// Only packets that are dropped and flows that are refused
    #[arg(long)]
    drops: bool,
    /// End after so many seconds, at most 3600
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Admin socket of the weir to ask
    #[arg(long, default_value = "/run/weir.sock")]
    pub socket: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

/// The arguments of `weir trace`.
#[derive(clap::Args)]
pub struct Trace {
    #[command(flatten)]
    selection: Selection,
    /// Follow so many flows
    #[arg(long, default_value_t = 10)]
    flows: u32,
    /// Also each line that scripts execute; they run much slower then
    #[arg(long)]
    lines: bool,
    /// One JSON object for each event
    #[arg(long)]
    json: bool,
}

/// Nothing came of a flow that was asked for.
pub const NOTHING: u8 = 1;
/// It did not work as asked.
pub const UNUSABLE: u8 = 2;

impl Selection {
    /// The request that asks for these flows.
    pub fn request(&self, flows: u32) -> String {
        let mut words = format!("trace flows {flows} seconds {}", self.seconds);
        let protocol = self.protocol.map(|protocol| match protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
        });
        let port = self.port.map(|port| port.to_string());
        for (name, value) in
            [("client", &self.client), ("vip", &self.vip), ("port", &port), ("protocol", &protocol)]
        {
            if let Some(value) = value {
                words.push_str(&format!(" {name} {value}"));
            }
        }
        for (name, wanted) in [("open", self.open), ("drops", self.drops)] {
            if wanted {
                words.push_str(&format!(" {name}"));
            }
        }
        words
    }
}

/// Set once the user wants an end.
pub fn interrupted() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the process at once, whatever weir does.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Follows flows until it is over or interrupted.
pub fn run(trace: &Trace) -> ExitCode {
    let stop = match interrupted() {
        Ok(stop) => stop,
        Err(error) => return unusable(&error),
    };
    let mut request = trace.selection.request(trace.flows);
    for (word, wanted) in [(" lines", trace.lines), (" json", trace.json)] {
        request.push_str(if wanted { word } else { "" });
    }
    let mut events = 0u64;
    let streamed = control::client::stream(&trace.selection.socket, &request, |line| {
        let next = if stop.load(Ordering::Relaxed) { Next::End } else { Next::GoOn };
        let Some(line) = line else { return next };
        let about_itself =
            [r#""event":"over""#, r#""event":"armed""#].iter().any(|event| line.contains(event));
        events += u64::from(!(about_itself || line.starts_with("over: ") || line.starts_with("armed: ")));
        // Whoever reads it may have gone.
        if writeln!(std::io::stdout(), "{line}").is_ok() { next } else { Next::Leave }
    });
    match streamed {
        Err(error) => unusable(&error),
        Ok(()) if events == 0 => ExitCode::from(NOTHING),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Says why it did not work.
pub fn unusable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("weir: {error}");
    ExitCode::from(UNUSABLE)
}
