//! weir in a process of its own, as an operator runs it, at the other end of a `net_memif` pair; and what stands in its
//! place: a bare device loop of ours, and testpmd's macswap where that is installed. Those whose turn it is not are
//! stopped, so that each has its processor to itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dpdk::{DpdkIo, Eal, EalArguments, EalOptions, Mempool, MempoolConfig, Port, PortConfig};
use serde_json::Value;

use super::Subjects;
use super::generator::Generator;
use super::stops::{self, Gap};
use super::tally::Load;
use crate::scenario::Scenario;

/// weir's link address, which generators must know before they ask.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Attempts, a twentieth of a second apart, until a process is there.
const PATIENCE: usize = 400;
/// What the bare loop says when its port is started.
const READY: &str = "ready";
/// What testpmd says then.
const TESTPMD_READY: &str = "Port statistics";
const PAUSE: Duration = Duration::from_millis(50);

/// DPDK for generators on memif ports.
pub struct Wires {
    eal: Eal,
    pool: Mempool,
}

impl Wires {
    /// Starts DPDK, once per process. `cpu` is the one to run on.
    pub fn open(cpu: Option<u32>) -> anyhow::Result<Wires> {
        let options = EalOptions { cpus: cpu.into_iter().collect(), ..EalOptions::default() };
        let eal = Eal::init(&EalArguments::new(&options))?;
        let pool = Mempool::new(&eal, "frames", &MempoolConfig::default())?;
        Ok(Wires { eal, pool })
    }

    /// The generator's end of a wire; each worker at the other end has a queue.
    pub fn connect(&self, subject: &Subject, workers: u16) -> anyhow::Result<Vec<DpdkIo>> {
        let device = format!("net_memif{}", subject.number);
        self.eal.attach_vdev(&device, &format!("role=client,id=0,socket={}", subject.socket))?;
        let mut port = self.eal.port(&device)?;
        port.configure(&PortConfig { queues: workers, ..PortConfig::default() }, &self.pool)?;
        port.start()?;
        wait(&format!("the link to {}", subject.name), || Ok(port.link()?.up))?;
        Ok(DpdkIo::split(vec![port], self.pool.clone(), workers)?)
    }
}

/// A process at the other end of a wire; ends when it is dropped.
pub struct Subject {
    name: String,
    number: usize,
    socket: String,
    child: Child,
    directory: PathBuf,
}

/// How weir is run.
#[derive(Clone, Debug)]
pub struct WeirProcess {
    /// Its binary.
    pub binary: PathBuf,
    /// Its workers.
    pub workers: u8,
    /// Their CPUs; empty: any.
    pub cpus: Vec<u32>,
    /// The key `idle`.
    pub idle: &'static str,
}

impl Subject {
    /// weir with the scenario's configuration. Files are in `directory`.
    pub fn weir(how: &WeirProcess, scenario: &Scenario, directory: &Path) -> anyhow::Result<Subject> {
        let socket = socket(0);
        let device = format!("net_memif0,role=server,id=0,socket={socket},mac={}", mac_text());
        let cpus = if how.cpus.is_empty() { String::new() } else { format!("cpus = {:?}\n", how.cpus) };
        let process = format!(
            "[dpdk]\nworkers = {}\nidle = \"{}\"\n{cpus}[log]\nconnections = \"none\"\n[admin]\nsocket = \"{}\"\n",
            how.workers,
            how.idle,
            directory.join("weir.sock").display()
        );
        let file = directory.join("weir.toml");
        std::fs::write(&file, scenario.config_on(&device) + &process)?;
        let mut command = Command::new(&how.binary);
        command.args(["run", "--config"]).arg(&file);
        let name = format!("weir, {} worker{}", how.workers, if how.workers == 1 { "" } else { "s" });
        let subject = Subject::start(&name, 0, socket, command, directory)?;
        wait("weir", || Ok(subject.show(&how.binary, "counters").is_ok())).with_context(|| subject.said())?;
        Ok(subject)
    }

    /// A bare loop of receiving and sending, in a process of this program.
    pub fn bare(cpu: Option<u32>, directory: &Path) -> anyhow::Result<Subject> {
        let socket = socket(1);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reflect", &socket]);
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let subject = Subject::start("bare device loop", 1, socket, command, directory)?;
        subject.wait_until_it_says(READY)?;
        Ok(subject)
    }

    /// testpmd that swaps the link addresses of each frame; `None` where it is not installed.
    pub fn testpmd(cpu: u32, directory: &Path) -> anyhow::Result<Option<Subject>> {
        let path = Path::new("/usr/bin/dpdk-testpmd");
        if !path.exists() {
            return Ok(None);
        }
        let socket = socket(2);
        let mut command = Command::new(path);
        command.arg(format!("--lcores=0@{cpu},1@{cpu}"));
        command.args(["--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry"]);
        command.arg(format!("--vdev=net_memif0,role=server,id=0,socket={socket}"));
        command.args([
            "--",
            "--nb-cores=1",
            "--forward-mode=macswap",
            "--total-num-mbufs=16384",
            "--no-flush-rx",
        ]);
        command.args(["--stats-period=3600"]);
        let subject = Subject::start("testpmd macswap", 2, socket, command, directory)?;
        subject.wait_until_it_says(TESTPMD_READY)?;
        Ok(Some(subject))
    }

    /// A memif client that comes before the other port is started has no link, ever.
    fn wait_until_it_says(&self, text: &str) -> anyhow::Result<()> {
        wait(&self.name, || Ok(self.said().contains(text))).with_context(|| self.said())
    }

    fn start(
        name: &str,
        number: usize,
        socket: String,
        mut command: Command,
        directory: &Path,
    ) -> anyhow::Result<Subject> {
        let log = File::create(directory.join(format!("{number}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        Ok(Subject { name: name.to_owned(), number, socket, child, directory: directory.to_owned() })
    }

    /// What it has written.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.directory.join(format!("{}.log", self.number))).unwrap_or_default()
    }

    /// What `weir show` answers, as JSON.
    pub fn show(&self, weir: &Path, what: &str) -> anyhow::Result<Value> {
        let socket = self.directory.join("weir.sock");
        let output = Command::new(weir).args(["show", what, "--json", "--socket"]).arg(socket).output()?;
        ensure!(output.status.success(), "weir show {what}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn signal(&self, signal: i32) -> anyhow::Result<()> {
        // SAFETY: a system call with two numbers; the child is ours and has not been waited for, so the number is its own.
        let result = unsafe { libc::kill(self.child.id() as i32, signal) };
        ensure!(result == 0, "{} has ended: {}", self.name, self.said());
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Generators and what they send to.
pub struct Far {
    subjects: Vec<(Subject, Generator)>,
}

impl Far {
    /// weir first. All of them are stopped until it is their turn.
    pub fn new(wires: &Wires, all: Vec<Subject>, workers: u16, scenario: Scenario) -> anyhow::Result<Far> {
        let mut subjects: Vec<(Subject, Generator)> = Vec::new();
        for subject in all {
            let queues = wires.connect(&subject, if subject.number == 0 { workers } else { 1 });
            let queues = queues.with_context(|| subject.said())?;
            let mut generator = Generator::new(queues, MAC, scenario)?;
            match subjects.first() {
                None => generator.establish().with_context(|| subject.said())?,
                Some((_, weir)) => generator.imitate(weir),
            }
            subject.signal(libc::SIGSTOP)?;
            subjects.push((subject, generator));
        }
        Ok(Far { subjects })
    }

    /// From now on every packet to weir goes into the queue after the one that it belongs to.
    pub fn misdirect(&mut self) {
        if let Some((_, generator)) = self.subjects.first_mut() {
            generator.misdirect();
        }
    }

    /// From now on this share of the packets to each subject opens a flow.
    pub fn open_flows(&mut self, share: f64) -> anyhow::Result<()> {
        self.subjects.iter_mut().try_for_each(|(_, generator)| generator.open_flows(share))
    }

    /// weir.
    pub fn weir(&self) -> anyhow::Result<&Subject> {
        let (weir, _) = self.subjects.first().context("no subjects")?;
        weir.signal(libc::SIGCONT)?;
        Ok(weir)
    }
}

impl Subjects for Far {
    fn names(&self) -> Vec<String> {
        self.subjects.iter().map(|(subject, _)| subject.name.clone()).collect()
    }

    /// Of the other process there is one gap: the sum of what its threads waited for the processor.
    fn run(
        &mut self,
        subject: usize,
        rate: Option<f64>,
        nanoseconds: u64,
    ) -> anyhow::Result<(Load, Vec<Gap>)> {
        let Some((process, generator)) = self.subjects.get_mut(subject) else {
            bail!("no subject {subject}")
        };
        process.signal(libc::SIGCONT)?;
        let before = Schedule::of(process.child.id())?;
        let load = generator.run(rate, nanoseconds);
        let waited = Schedule::of(process.child.id())?.waited_since(&before);
        process.signal(libc::SIGSTOP)?;
        let load = load?;
        let gap = Gap { begin: load.begin, nanoseconds: waited, idle: waited };
        Ok((load, vec![gap]))
    }

    /// Of the generator's processor: on the other one all are stopped.
    fn idle(&mut self, nanoseconds: u64) -> anyhow::Result<Vec<Gap>> {
        Ok(stops::idle(nanoseconds))
    }
}

/// How long each thread of a process has run, and waited for a processor while it wanted to run, in nanoseconds.
#[derive(Clone, Debug, Default)]
struct Schedule(BTreeMap<String, (u64, u64)>);

impl Schedule {
    fn of(process: u32) -> anyhow::Result<Schedule> {
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let entry = entry?;
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            threads.extend(Schedule::read(&text).map(|times| (name, times)));
        }
        Ok(Schedule(threads))
    }

    fn read(text: &str) -> Option<(u64, u64)> {
        let mut fields = text.split_whitespace().map_while(|field| field.parse().ok());
        Some((fields.next()?, fields.next()?))
    }

    /// What those waited that had most to do: a thread that sleeps between its work holds up no packet.
    fn waited_since(&self, earlier: &Schedule) -> u64 {
        let since = self.0.iter().map(|(thread, (run, waited))| {
            let (ran, had_waited) = earlier.0.get(thread).copied().unwrap_or_default();
            (run.saturating_sub(ran), waited.saturating_sub(had_waited))
        });
        let since: Vec<(u64, u64)> = since.collect();
        let busiest = since.iter().map(|(run, waited)| run + waited).max().unwrap_or(0);
        since.iter().filter(|(run, waited)| (run + waited) * 2 > busiest).map(|(_, waited)| waited).sum()
    }
}

/// The bare loop of `weir-perf reflect`, until somebody ends the process.
pub fn reflect(socket: &str, cpu: Option<u32>) -> anyhow::Result<()> {
    let Wires { eal, pool } = Wires::open(cpu)?;
    eal.attach_vdev("net_memif0", &format!("role=server,id=0,socket={socket}"))?;
    let mut port: Port = eal.port("net_memif0")?;
    port.configure(&PortConfig::default(), &pool)?;
    port.start()?;
    let mut io = DpdkIo::new(vec![port], pool)?;
    println!("{READY}");
    loop {
        super::near::reflect(&mut io);
    }
}

/// In the abstract namespace, which a process that is killed leaves clean.
fn socket(number: usize) -> String {
    format!("weir-perf-{}-{number}", std::process::id())
}

fn mac_text() -> String {
    MAC.map(|byte| format!("{byte:02x}")).join(":")
}

fn wait(whom: &str, mut there: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for _ in 0..PATIENCE {
        if there()? {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    bail!("{whom} does not come up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_counts_of_the_threads_that_work() {
        let schedule = |threads: &[(&str, &str)]| {
            let read = |(name, text): &(&str, &str)| Some(((*name).to_owned(), Schedule::read(text)?));
            Schedule(threads.iter().filter_map(read).collect())
        };
        let before = schedule(&[("1", "100 5000000 7\n"), ("2", "1000 2000 3\n"), ("4", "")]);
        assert_eq!(before.0.len(), 2, "a thread that has ended says nothing");
        let after = schedule(&[
            // Sleeps, and waited long once.
            ("1", "200 5400000 8\n"),
            ("2", "90001000 302000 9\n"),
            ("3", "80000000 50000 1\n"),
        ]);
        assert_eq!(after.waited_since(&before), 350_000);
        assert_eq!(before.waited_since(&before), 0);
    }
}
