//! weir's configuration: one TOML file, first read as written, then checked and turned into what the core and the
//! process mean by it.
//!
//! [`load`] reads a file and the scripts that it names; [`parse`] takes the text. Both return either a [`Config`] or
//! all [`Errors`] of the file. Every key is described in `docs/configuration.md`; [`keys`] lists them.
#![forbid(unsafe_code)]

mod meant;
mod memory;
mod problem;
mod process;
mod read;
mod restart;
mod summary;
mod value;
mod written;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use dataplane::snapshot::Snapshot;
use toml::de::DeTable;

pub use memory::Memory;
pub use problem::{Errors, Problem, Severity};
pub use process::{Device, DpdkSettings, Hugepages, Idle, LogDestination, ProcessSettings, Workers};

use problem::Problems;
use read::Section;

/// Longest configuration file in bytes.
const MOST_FILE_BYTES: u64 = 64 << 20;

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the workers and the control thread share.
    pub snapshot: Arc<Snapshot>,
    /// What only the process needs.
    pub process: ProcessSettings,
    /// What is allowed but probably not meant; may be empty.
    pub warnings: Errors,
}

impl Config {
    /// What the configuration comes to, for the operator: several lines, each ended by a line feed.
    #[must_use]
    pub fn summary(&self) -> String {
        summary::summary(self)
    }

    /// The memory that the limits of this configuration stand for.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory::of(&self.snapshot, &self.process)
    }
}

/// Reads and checks the file at `path`; script files are looked for relative to its directory.
///
/// # Errors
/// Everything that is wrong with the file and its scripts.
pub fn load(path: &Path) -> Result<Config, Errors> {
    read(path, Scripts::Checked)
}

/// As [`load`], but the scripts may be wrong: for a tool that reports on them itself. The files must be there.
///
/// # Errors
/// Everything else that is wrong with the file.
pub fn load_with_unchecked_scripts(path: &Path) -> Result<Config, Errors> {
    read(path, Scripts::Unchecked)
}

/// Whether scripts must compile and name what there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scripts {
    Checked,
    Unchecked,
}

fn read(path: &Path, scripts: Scripts) -> Result<Config, Errors> {
    let name = path.display().to_string();
    let bytes = at_most(path, MOST_FILE_BYTES).map_err(|error| {
        unreadable(&name, &error.to_string(), "name a TOML file, such as config/examples/minimal.toml")
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let help = "a TOML file is text in UTF-8; save it in this encoding";
        unreadable(&name, &format!("not UTF-8 from byte {at} on"), help)
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    mean(&text, &name, directory, scripts)
}

fn unreadable(name: &str, why: &str, help: &str) -> Errors {
    let mut problems = Problems::new(name, "");
    problems.error(&(0..0), format!("cannot read the configuration file {name}: {why}")).help(help);
    problems.finish()
}

/// Reads a file, which need not have an end.
fn at_most(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > most) {
        let why = format!("it has more than {most} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// What to write instead, by what the TOML parser says.
fn syntax_help(message: &str) -> &'static str {
    match message {
        m if m.contains("duplicate") => "a key stands once in its table; keep one of them",
        m if m.contains("string") => "a string is written in quotes, \"text\", and ends on its line",
        _ => "a line is key = value, [table] or [[table]]; text is written in quotes, # starts a comment",
    }
}

/// Checks `text`. `file_name` is for messages; script files are looked for relative to `directory`.
///
/// # Errors
/// Everything that is wrong with the text and its scripts.
pub fn parse(text: &str, file_name: &str, directory: &Path) -> Result<Config, Errors> {
    mean(text, file_name, directory, Scripts::Checked)
}

fn mean(text: &str, file_name: &str, directory: &Path, scripts: Scripts) -> Result<Config, Errors> {
    let mut problems = Problems::new(file_name, text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        for error in &syntax {
            let span = error.span().unwrap_or(0..0);
            let is_key = error.message().contains("duplicate");
            let bare = bare_word(text.get(span.clone()).unwrap_or("")).filter(|_| !is_key);
            match bare {
                Some(word) => problems
                    .error(&span, format!("this is not TOML: `{word}` is no value"))
                    .help(format!("a string is written in quotes: \"{word}\"")),
                None => problems
                    .error(&span, format!("this is not TOML: {}", error.message()))
                    .help(syntax_help(error.message())),
            };
        }
        return Err(problems.finish());
    }
    let file = written::File::read(table.get_ref(), &(0..0), &mut problems);
    let (snapshot, process) = meant::mean(&file, directory, scripts, &mut problems);
    if problems.has_errors() {
        return Err(problems.finish());
    }
    Ok(Config { snapshot: Arc::new(snapshot), process, warnings: problems.finish() })
}

/// The text, if it looks like a string whose quotes were forgotten.
fn bare_word(text: &str) -> Option<&str> {
    let starts_so = text.starts_with(|c: char| c.is_ascii_alphabetic());
    starts_so.then_some(text).filter(|text| !text.contains(['"', '\'', '\n', '=']))
}

/// The path of every key of the file, such as `pool.tcp.mss`.
#[must_use]
pub fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    written::File::keys("", &mut keys);
    keys
}
