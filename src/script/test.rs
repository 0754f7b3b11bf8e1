//! `weir script test`: the tests that stand beside scripts, against the configuration that runs in production.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use dataplane::snapshot::Snapshot;
use script_runner::report::{self, Tap};
use script_runner::{CaseReport, Effort, FileReport, Lines, Settings};

/// The arguments of `weir script test`.
#[derive(clap::Args)]
pub struct Test {
    /// Directories with files *_test.lua, which are looked for below them too; or such files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The configuration; weir.toml beside each test file if left out
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Only cases whose names contain this
    #[arg(long)]
    filter: Option<String>,
    /// Show the lines of the scripts that no case reached
    #[arg(long)]
    coverage: bool,
    /// One JSON object for each case
    #[arg(long, conflicts_with = "tap")]
    json: bool,
    /// Report in the Test Anything Protocol
    #[arg(long)]
    tap: bool,
    /// Write a report in JUnit's XML to this file, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The random cuts follow from this number
    #[arg(long, default_value_t = Effort::default().seed)]
    seed: u64,
    /// How many random cuts are tried of each case
    #[arg(long, default_value_t = Effort::default().random)]
    random: usize,
    /// Single cuts of a case that are tried; of more, so many that are spread evenly
    #[arg(long, default_value_t = Effort::default().cuts)]
    cuts: usize,
}

/// The end of the name of a test file.
const SUFFIX: &str = "_test.lua";
/// Longest test file in bytes.
const MOST_BYTES: usize = 1 << 20;
/// Directories inside of each other that are looked into.
const DEEPEST: usize = 16;

/// Runs the tests: 0 if all passed, 1 if one failed.
///
/// # Errors
/// There are none, a configuration is wrong, or a file cannot be read.
pub fn run(test: &Test) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(test);
    let groups = groups(test)?;
    session.begin();
    for (config, files) in groups {
        session.group(&config, &files)?;
    }
    session.end()
}

/// Test files by their configurations.
fn groups(test: &Test) -> anyhow::Result<Vec<(PathBuf, Vec<PathBuf>)>> {
    let mut files = Vec::new();
    for path in &test.paths {
        let before = files.len();
        if path.is_dir() {
            find(path, DEEPEST, &mut files)?;
        } else {
            std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push(path.clone());
        }
        if files.len() == before {
            bail!("there is no test in {}: the names of test files end in {SUFFIX}", path.display());
        }
    }
    files.sort();
    files.dedup();
    let mut groups: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    for file in files {
        let beside = || file.parent().unwrap_or(Path::new("")).join("weir.toml");
        let config = test.config.clone().unwrap_or_else(beside);
        if !config.exists() {
            let (file, config) = (file.display(), config.display());
            bail!("{file} needs a configuration: write {config}, or name one with --config");
        }
        match groups.iter_mut().find(|(known, _)| *known == config) {
            Some((_, files)) => files.push(file),
            None => groups.push((config, vec![file])),
        }
    }
    Ok(groups)
}

fn find(directory: &Path, deeper: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() && !path.is_symlink() && deeper > 0 {
            find(&path, deeper - 1, files)?;
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX)) {
            files.push(path);
        }
    }
    Ok(())
}

/// One call of the command.
struct Session<'a> {
    test: &'a Test,
    tap: Tap,
    reports: Vec<FileReport>,
}

impl<'a> Session<'a> {
    fn new(test: &'a Test) -> Self {
        Session { test, tap: Tap::default(), reports: Vec::new() }
    }

    fn begin(&self) {
        if self.test.tap {
            print!("{}", Tap::version());
        }
    }

    /// The files of one configuration.
    fn group(&mut self, config: &Path, files: &[PathBuf]) -> anyhow::Result<()> {
        let snapshot = load(config)?;
        let mut lines = Lines::new();
        for file in files {
            self.file(&snapshot, file, &mut lines)?;
        }
        if self.test.coverage {
            let covered = script_runner::coverage(&snapshot, &lines).map_err(anyhow::Error::msg)?;
            let directory = config.parent().unwrap_or(Path::new("")).display().to_string();
            let text = if self.test.json {
                covered.iter().map(|script| report::coverage_json(&directory, script) + "\n").collect()
            } else {
                report::coverage_text(&covered)
            };
            let comment = |text: &str| text.lines().map(|line| format!("# {line}\n")).collect::<String>();
            print!("{}", if self.test.tap { comment(&text) } else { text });
        }
        Ok(())
    }

    fn file(&mut self, snapshot: &Arc<Snapshot>, file: &Path, lines: &mut Lines) -> anyhow::Result<()> {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        if text.len() > MOST_BYTES {
            bail!("{} is too long: a test file has at most {MOST_BYTES} bytes", file.display());
        }
        let test = self.test;
        let settings = Settings {
            effort: Effort { cuts: test.cuts, random: test.random, seed: test.seed },
            filter: test.filter.as_deref(),
            coverage: test.coverage,
        };
        let name = file.display().to_string();
        if !test.json && !test.tap {
            println!("{name}");
        }
        let tap = &mut self.tap;
        let found = script_runner::test_file(snapshot, file, &text, &settings, lines, |case| {
            print!("{}", Self::case(test, tap, &name, case));
        });
        if let Some(problem) = &found.broken {
            if test.json {
                println!("{}", report::file_json(&name, problem));
            } else if test.tap {
                print!("{}", self.tap.broken(&found, problem));
            } else {
                println!("FAIL {}", report::problem_lines(problem).join("\n     "));
            }
        }
        self.reports.push(found);
        Ok(())
    }

    fn case(test: &Test, tap: &mut Tap, file: &str, case: &CaseReport) -> String {
        if test.json {
            report::case_json(file, case) + "\n"
        } else if test.tap {
            tap.case(file, case)
        } else {
            report::case_text(case)
        }
    }

    /// Says what it came to.
    fn end(self) -> anyhow::Result<ExitCode> {
        let cases = || self.reports.iter().flat_map(|file| &file.cases);
        let broken = self.reports.iter().filter(|file| file.broken.is_some()).count();
        let failed = cases().filter(|case| case.failure.is_some()).count();
        let runs: usize = cases().map(|case| case.runs).sum();
        if cases().count() == 0 && broken == 0 {
            match &self.test.filter {
                Some(filter) => bail!("no case has \"{filter}\" in its name"),
                None => bail!("the test files have no case: it(\"name\", function() ... end) makes one"),
            }
        }
        if let Some(file) = &self.test.junit {
            let written = std::fs::write(file, report::junit(&self.reports));
            written.with_context(|| format!("cannot write {}", file.display()))?;
        }
        if self.test.tap {
            print!("{}", self.tap.plan());
        } else if !self.test.json {
            let passed = cases().count() - failed;
            let unreadable =
                if broken > 0 { format!(", {broken} files that cannot be loaded") } else { String::new() };
            println!(
                "{passed} passed, {failed} failed{unreadable}; {runs} runs, random cuts from seed {}",
                self.test.seed
            );
        }
        Ok(ExitCode::from(u8::from(failed + broken > 0)))
    }
}

fn load(config: &Path) -> anyhow::Result<Arc<Snapshot>> {
    config::load(config).map(|config| config.snapshot).map_err(|errors| {
        let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
        eprint!("{}", errors.render(color));
        anyhow::anyhow!("{} must be right before its scripts can be tested", config.display())
    })
}
