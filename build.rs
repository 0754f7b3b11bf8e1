//! Stamps the binary with its version: `WEIR_VERSION` is cargo's version and, in a git checkout, the revision.
//!
//! Nothing has to be said here about linking: `dpdk-sys` names DPDK's libraries (shared ones, or with the feature
//! `static` whole archives) in a way that reaches the final binary.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let stamp = revision().map_or(version.clone(), |revision| format!("{version}+{revision}"));
    println!("cargo::rustc-env=WEIR_VERSION={stamp}");
}

/// The short revision of the commit that is checked out; `None` outside of weir's own repository and without git.
fn revision() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).canonicalize().ok()?;
    let top = PathBuf::from(git(&root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != root {
        return None;
    }
    // HEAD changes with the branch; its log and the packed references change with the commit.
    for name in ["HEAD", "logs/HEAD", "packed-refs"] {
        let path = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        // Cargo would run a build script again and again for a file that is not there.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&root, &["rev-parse", "--short", "HEAD"])
}

/// The first line that git prints, or `None` when it fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().filter(|_| output.status.success())?;
    Some(line.to_owned())
}
