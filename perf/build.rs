//! Stamps the results with compiler and revision.

use std::env;
use std::path::Path;
use std::process::Command;

/// What the programs are made of, seen from the root of the repository.
const SOURCES: [&str; 14] = [
    "Cargo.toml",
    "Cargo.lock",
    "arena/src",
    "config/src",
    "dataplane/src",
    "dpdk/src",
    "dpdk-sys",
    "engine/src",
    "perf/Cargo.toml",
    "perf/src",
    "scripting/check/src",
    "scripting/parsers",
    "scripting/src",
    "tcp/src",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    watch(&SOURCES.map(|source| format!("../{source}")));
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = first_line(&rustc, &["--version"]);
    println!("cargo::rustc-env=PERF_COMPILER={}", compiler.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=PERF_REVISION={}", revision().as_deref().unwrap_or("unknown"));
}

/// The short revision of the commit that is checked out, and whether a source is another one than there.
fn revision() -> Option<String> {
    // HEAD changes with the branch; its log, the reference that it names and the packed ones change with the commit.
    let mut names = vec!["HEAD".to_owned(), "logs/HEAD".to_owned(), "packed-refs".to_owned()];
    names.extend(git(&["symbolic-ref", "--quiet", "HEAD"]));
    let paths: Option<Vec<String>> =
        names.iter().map(|name| git(&["rev-parse", "--git-path", name])).collect();
    watch(&paths?.iter().map(|path| format!("../{path}").replace("..//", "/")).collect::<Vec<_>>());
    let revision = git(&["rev-parse", "--short", "HEAD"])?;
    let status = [&["status", "--porcelain", "--untracked-files=no", "--"][..], &SOURCES].concat();
    Some(if git(&status).is_some() { revision + "-dirty" } else { revision })
}

/// Cargo would run a build script again and again for a file that is not there.
fn watch(paths: &[String]) {
    for path in paths.iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// The first line that git prints in the root; `None` when there is none. It writes nothing there, whatever else goes on.
fn git(arguments: &[&str]) -> Option<String> {
    first_line("git", &[&["--no-optional-locks", "-C", ".."][..], arguments].concat())
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
}
