//! weir itself, as an operator runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use super::{Network, Process, Result, Wire, within};

/// The binary under test: `WEIR_BIN`, or what cargo built beside this test.
///
/// # Errors
/// When there is none.
pub fn weir_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN").map(PathBuf::from).filter(|path| path.is_file()) {
        return Ok(path);
    }
    // target/debug/deps/e2e-0123 -> target/debug/weir
    let test = std::env::current_exe()?;
    let beside = test.parent().and_then(Path::parent).map(|directory| directory.join("weir"));
    beside
        .filter(|path| path.is_file())
        .ok_or_else(|| "no weir binary: run `cargo build -p weir` first".into())
}

/// A running weir and the socket on which it answers.
pub struct Weir {
    process: Process,
    binary: PathBuf,
    directory: PathBuf,
}

impl Weir {
    /// Starts weir with `config` and connects its ports.
    ///
    /// Interfaces, SNAT addresses, log and admin socket are those of the test network and are put in front of
    /// `config`, which therefore begins with `[[pool]]` or the like.
    ///
    /// # Errors
    /// When weir does not come up; then with what it said.
    pub fn start(network: &Network, config: &str) -> Result<Self> {
        Self::start_on_workers(network, config, 1)
    }

    /// As `start`, with so many workers.
    ///
    /// # Errors
    /// When weir does not come up.
    pub fn start_on_workers(network: &Network, config: &str, workers: u8) -> Result<Self> {
        Self::start_with(network, config, workers, || network.attach()).map(|(weir, ())| weir)
    }

    /// As `start`, with a bad wire on each side of weir.
    ///
    /// # Errors
    /// When weir or a wire does not come up.
    pub fn start_on_wires(network: &Network, config: &str, wire: &Wire) -> Result<(Self, Vec<Process>)> {
        Self::start_with(network, config, 1, || network.attach_by_wires(wire))
    }

    fn start_with<T>(
        network: &Network,
        config: &str,
        workers: u8,
        attach: impl FnOnce() -> Result<T>,
    ) -> Result<(Self, T)> {
        let directory = network.directory().to_owned();
        let file = directory.join("weir.toml");
        std::fs::write(&file, format!("{}{config}", network.config_head(workers)))?;
        let binary = weir_binary()?;
        let arguments = ["run", "--config", &file.display().to_string()];
        let process = Process::start("weir", &network.balancer(), &directory, &binary, &arguments)?;
        let weir = Weir { process, binary, directory };
        // The worker answers this, so its ports are ready; a port that is moved earlier does not start.
        let attached = within(Duration::from_secs(30), || weir.show("counters"))
            .and_then(|_| attach())
            .map_err(|error| format!("weir did not start: {error}\n{}", weir.said()))?;
        Ok((weir, attached))
    }

    /// What it wrote to standard output and standard error.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{}{}", self.process.output(), self.process.errors())
    }

    /// `weir` with these words and then the admin socket of this one.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--socket").arg(self.directory.join("weir.sock"));
        command
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The JSON answer of `weir show`.
    ///
    /// # Errors
    /// When weir does not answer, or not with JSON.
    pub fn show(&self, what: &str) -> Result<Value> {
        let socket = self.directory.join("weir.sock");
        let output = Command::new(&self.binary)
            .arg("show")
            .args(what.split(' '))
            .args(["--json", "--socket"])
            .arg(socket)
            .output()?;
        if !output.status.success() {
            return Err(format!("weir show {what}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until `servers` servers are up, for at most `limit`.
    ///
    /// # Errors
    /// With the servers as they are, when the time is over.
    pub fn wait_for_servers(&self, servers: usize, limit: Duration) -> Result {
        within(limit, || {
            let shown = self.show("servers")?;
            let all = shown.as_array().ok_or("`show servers` is no array")?;
            let up = all.iter().filter(|server| server.get("up") == Some(&Value::Bool(true))).count();
            if up == servers {
                Ok(())
            } else {
                Err(format!("{up} servers are up, not {servers}: {shown}").into())
            }
        })
    }

    /// A counter of `show counters`: one of its totals, or the packets of a reason for drops.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.show("counters")?;
        let drops = counters.get("dropped").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let of_reason = drops.iter().find(|row| row.get("reason") == Some(&Value::from(name)));
        let value = match counters.get("totals").and_then(|totals| totals.get(name)) {
            Some(total) => Some(total),
            None => of_reason.and_then(|row| row.get("packets")),
        };
        value.and_then(Value::as_u64).ok_or_else(|| format!("no counter {name} in {counters}").into())
    }

    /// Fails unless received = forwarded + consumed + dropped, and dropped is the sum of its reasons.
    ///
    /// # Errors
    /// With the counters, when they do not add up.
    pub fn check_balance(&self) -> Result {
        let counters = self.show("counters")?;
        let drops = counters.get("dropped").and_then(Value::as_array).ok_or("no list of drops")?;
        let sum: u64 = drops.iter().filter_map(|row| row.get("packets")).filter_map(Value::as_u64).sum();
        let total = |name: &str| {
            let value = counters.get("totals").and_then(|totals| totals.get(name)).and_then(Value::as_u64);
            value.ok_or(format!("no counter {name}"))
        };
        let dropped = total("dropped")?;
        if dropped == sum && total("received")? == total("forwarded")? + total("consumed")? + dropped {
            Ok(())
        } else {
            Err(format!("the counters do not add up: {counters}").into())
        }
    }

    /// The connection records that were written so far.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn records(&self) -> Result<Vec<Value>> {
        self.events("connection")
    }

    /// The lines of the log about events of this kind.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let log = std::fs::read_to_string(self.directory.join("connections.log")).unwrap_or_default();
        let lines = log.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>()?;
        Ok(lines.into_iter().filter(|line| line.get("event") == Some(&Value::from(kind))).collect())
    }

    /// The records of connections that did not end normally, for messages.
    #[must_use]
    pub fn odd_records(&self) -> String {
        let records = self.records().unwrap_or_default();
        let odd = records.iter().filter(|record| record.get("termination") != Some(&Value::from("--")));
        odd.map(|record| format!("{record}\n")).collect()
    }

    /// Waits for `count` connection records, for at most five seconds.
    ///
    /// # Errors
    /// With the records that are there, when the time is over.
    pub fn wait_for_records(&self, count: usize) -> Result<Vec<Value>> {
        within(Duration::from_secs(5), || {
            let records = self.records()?;
            if records.len() >= count { Ok(records) } else { Err(format!("only {records:?}").into()) }
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When weir is gone.
    pub fn signal(&self, signal: &str) -> Result {
        self.process.signal(signal)
    }

    /// Writes another configuration for the next reload, as `start` would.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&self, network: &Network, config: &str, workers: u8) -> Result {
        std::fs::write(
            self.directory.join("weir.toml"),
            format!("{}{config}", network.config_head(workers)),
        )?;
        Ok(())
    }

    /// Sends a signal and returns how weir ended, if it did so within `limit`.
    ///
    /// # Errors
    /// When it did not end in time.
    pub fn stop(&mut self, signal: &str, limit: Duration) -> Result<ExitStatus> {
        self.process.signal(signal)?;
        within(limit, || self.process.ended()?.ok_or_else(|| format!("still running after {limit:?}").into()))
    }

    /// Bytes of memory that it uses.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes = line.trim().strip_suffix("kB").ok_or("VmRSS is not in kB")?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }
}
