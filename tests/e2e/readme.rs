//! What README and docs tell people to type, typed.
//!
//! A block after `<!-- run: NAME -->` is run; blocks of the same name are one script, in a network namespace of its own
//! and an empty directory. What a block after `<!-- prints -->` says must be in its output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use weir_tests::testkit::{Result, obstacle, repository, weir_binary, within};

#[derive(Default)]
struct Session {
    script: String,
    prints: Vec<String>,
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut found = vec![repository().join("README.md")];
    for entry in std::fs::read_dir(repository().join("docs"))? {
        found.push(entry?.path());
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    Ok(found)
}

/// Inside of the code block that follows.
fn block(text: &str) -> Result<&str> {
    let body = text.trim_start().strip_prefix("```").and_then(|rest| rest.split_once('\n'));
    let (_, body) = body.ok_or("a marker without a block after it")?;
    body.split_once("\n```").map(|(body, _)| body).ok_or_else(|| "a block without an end".into())
}

/// The marked blocks of a document, by name.
fn sessions(text: &str) -> Result<BTreeMap<String, Session>> {
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    let mut name = "";
    for part in text.split("<!-- ").skip(1) {
        let (marker, rest) = part.split_once(" -->").ok_or("a comment without an end")?;
        if let Some(new) = marker.strip_prefix("run: ") {
            name = new;
            let session = sessions.entry(name.to_owned()).or_default();
            session.script += block(rest)?;
            session.script.push('\n');
        } else if marker == "prints" {
            sessions.entry(name.to_owned()).or_default().prints.push(block(rest)?.to_owned());
        }
    }
    Ok(sessions)
}

/// Runs a script as root would type it; returns what it prints.
fn run(script: &str) -> Result<String> {
    let directory = tempfile::TempDir::with_prefix("weir-readme-")?;
    let weir = weir_binary()?;
    let path = std::env::var("PATH")?;
    let binaries = weir.parent().map(Path::display).ok_or("weir has no directory")?;
    let output = directory.path().join("output");
    // A process namespace: whatever the script leaves running ends with it.
    let mut child = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "bash", "-euo", "pipefail", "-c", script])
        .env("PATH", format!("{binaries}:{path}"))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&output)?)
        .stderr(std::fs::File::create(directory.path().join("errors"))?)
        .spawn()?;
    let ended = within(Duration::from_secs(60), || child.try_wait()?.ok_or_else(|| "still running".into()));
    // Fails only if it has ended, as it should have.
    drop(child.kill());
    child.wait()?;
    let printed = std::fs::read_to_string(&output)?;
    let errors = std::fs::read_to_string(directory.path().join("errors"))?;
    match ended {
        Ok(status) if status.success() => Ok(printed),
        Ok(status) => Err(format!("{status}\n{printed}{errors}").into()),
        Err(error) => Err(format!("{error}\n{printed}{errors}").into()),
    }
}

#[test]
fn commands_of_the_documents_work() -> Result {
    if let Some(obstacle) = obstacle() {
        eprintln!("SKIPPED: commands of the documents: {obstacle}");
        return Ok(());
    }
    let mut ran = 0;
    for document in documents()? {
        for (name, session) in sessions(&std::fs::read_to_string(&document)?)? {
            let printed =
                run(&session.script).map_err(|error| format!("{}: {name}: {error}", document.display()))?;
            for wanted in &session.prints {
                assert!(printed.contains(wanted), "{}: {name}: {wanted}\n{printed}", document.display());
            }
            ran += 1;
        }
    }
    assert!(ran > 0, "README has commands that are tested");
    Ok(())
}
