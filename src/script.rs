//! `weir script check`: what is wrong with scripts, without running them, DPDK or root.

mod test;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use dataplane::snapshot::{ScriptSetId, Snapshot, Source};
use script_check::{Finding, Names, Role, Settings, Severity, Shown, api};

/// What can be done with scripts.
#[derive(Subcommand)]
pub enum Command {
    /// Find faults in scripts without running them: exit code 0 without errors, 1 with some, 2 if a file cannot be read
    Check(Check),
    /// Where a script of a running weir spends its time, line by line
    Profile(Profile),
    /// Run the tests beside scripts, with every TCP payload cut at every byte: exit code 0 if all passed, 1 if not, 2 if
    /// there is nothing to run
    Test(test::Test),
}

/// The arguments of `weir script check`.
#[derive(clap::Args)]
pub struct Check {
    /// Lua files; all that the configuration names if left out
    #[arg(required_unless_present = "config")]
    files: Vec<PathBuf>,
    /// A configuration: tells the event of each script, and the pools, servers and modules that there are
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// The event of files that the configuration does not name
    #[arg(long, value_enum, default_value_t = Event::Request)]
    event: Event,
    /// One JSON object for each finding
    #[arg(long)]
    json: bool,
    /// Exit with 1 for warnings, too
    #[arg(long)]
    deny_warnings: bool,
}

/// The arguments of `weir script profile`.
#[derive(clap::Args)]
pub struct Profile {
    /// The DataScript set
    name: String,
    /// Which of its scripts; the request script if left out, where there is one
    #[arg(long, value_enum)]
    event: Option<Profiled>,
    /// How long to watch
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Admin socket of the weir to ask
    #[arg(long, default_value = "/run/weir.sock")]
    socket: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Profiled {
    /// Before a server is chosen
    Request,
    /// On the first payload of the server
    Response,
}

#[derive(Clone, Copy, ValueEnum)]
enum Event {
    /// Before a server is chosen
    Request,
    /// On the first payload of the server
    Response,
    /// Either: a parser module
    Any,
}

/// Longest script in bytes, as in a configuration.
const MOST_BYTES: usize = 1 << 20;

/// A file cannot be read, or the arguments are wrong.
const UNUSABLE: u8 = 2;

/// A text with what it is for; `None`: no configuration names it.
struct Target {
    name: String,
    text: Vec<u8>,
    uses: Vec<(Role, Option<Names>)>,
}

/// Runs a command about scripts.
pub fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::Check(check) => targets(check).map(|targets| report(check, &targets)),
        Command::Profile(wanted) => profile(wanted).map(|()| ExitCode::SUCCESS),
        Command::Test(wanted) => test::run(wanted),
    };
    done.unwrap_or_else(|error| {
        eprintln!("weir: {error:#}");
        ExitCode::from(UNUSABLE)
    })
}

fn profile(wanted: &Profile) -> anyhow::Result<()> {
    let event = match wanted.event {
        None => "",
        Some(Profiled::Request) => " event request",
        Some(Profiled::Response) => " event response",
    };
    let json = if wanted.json { " json" } else { "" };
    let line = format!("profile script {}{event} seconds {}{json}", wanted.name, wanted.seconds);
    let time = std::time::Duration::from_secs(wanted.seconds);
    print!("{}", control::client::patient_request(&wanted.socket, &line, time)?);
    Ok(())
}

fn report(check: &Check, targets: &[Target]) -> ExitCode {
    let (mut errors, mut warnings) = (0usize, 0usize);
    for target in targets {
        for finding in findings(target) {
            match finding.severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
            let shown = Shown::new(&target.name, &target.text, &finding);
            if check.json {
                println!("{}", shown.json());
            } else {
                print!("{}", shown.text());
            }
        }
    }
    if !check.json {
        println!(
            "{}: {}, {}",
            many(targets.len(), "script"),
            many(errors, "error"),
            many(warnings, "warning")
        );
    }
    ExitCode::from(u8::from(errors > 0 || check.deny_warnings && warnings > 0))
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What is found in a text in any of its uses, each finding once.
fn findings(target: &Target) -> Vec<Finding> {
    let source = Source { name: target.name.clone(), text: target.text.clone() };
    let mut all: Vec<Finding> = Vec::new();
    for (role, names) in &target.uses {
        let settings = Settings { role: *role, names: names.as_ref() };
        for finding in scripting::check_script(&source, &settings) {
            if !all.contains(&finding) {
                all.push(finding);
            }
        }
    }
    all.sort_by_key(|finding| (finding.span.start, finding.span.end));
    all
}

fn targets(check: &Check) -> anyhow::Result<Vec<Target>> {
    let configured = match &check.config {
        Some(path) => configured(path)?,
        None => Vec::new(),
    };
    if check.files.is_empty() {
        return Ok(configured.into_iter().map(|(_, target)| target).collect());
    }
    check.files.iter().map(|file| target(check, file, &configured)).collect()
}

/// One file of the command line.
fn target(check: &Check, file: &Path, configured: &[(PathBuf, Target)]) -> anyhow::Result<Target> {
    let name = file.display().to_string();
    let text = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
    if text.len() > MOST_BYTES {
        bail!("{name} is too long: a script has at most {MOST_BYTES} bytes");
    }
    let path = file.canonicalize().with_context(|| format!("cannot read {name}"))?;
    if let Some((_, known)) = configured.iter().find(|(known, _)| *known == path) {
        return Ok(Target { name, text, uses: known.uses.clone() });
    }
    if let Some(config) = &check.config {
        let config = config.display();
        eprintln!("weir: {name} is not used in {config}: the names in it are not checked");
    }
    let role = match check.event {
        Event::Request => Role::Script(api::Event::Request),
        Event::Response => Role::Script(api::Event::Response),
        Event::Any => Role::Module,
    };
    Ok(Target { name, text, uses: vec![(role, None)] })
}

/// The scripts and parsers that a configuration names, but not those that come with weir. Of one inside of the
/// configuration the path is its name.
fn configured(path: &Path) -> anyhow::Result<Vec<(PathBuf, Target)>> {
    let config = match config::load_with_unchecked_scripts(path) {
        Ok(config) => config,
        Err(errors) => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
            eprint!("{}", errors.render(color));
            bail!("{} must be right before names can be looked up in it", path.display());
        }
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    Ok(sources(&config.snapshot, directory).into_iter().collect())
}

fn sources(snapshot: &Snapshot, directory: &Path) -> BTreeMap<PathBuf, Target> {
    let mut found: BTreeMap<PathBuf, Target> = BTreeMap::new();
    for (set, id) in snapshot.script_sets.iter().zip(0u16..) {
        let names = scripting::names(snapshot, set, ScriptSetId(id));
        for (source, role) in scripting::sources(set) {
            if scripting::builtin_parser(&source.name).is_some() {
                continue;
            }
            let file = directory.join(&source.name);
            let (path, name) = match file.canonicalize() {
                Ok(path) => (path, file.display().to_string()),
                Err(_) => (PathBuf::from(&source.name), source.name.clone()),
            };
            let new = || Target { name, text: source.text.clone(), uses: Vec::new() };
            found.entry(path).or_insert_with(new).uses.push((role, Some(names.clone())));
        }
    }
    found
}
