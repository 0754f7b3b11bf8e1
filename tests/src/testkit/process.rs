//! Processes in namespaces.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Result, within};

/// A process that is killed, if it still runs, when the test drops it.
///
/// Standard output goes to one file and standard error to another: nobody has to read pipes while it runs.
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments` in `namespace`, with `directory` as working directory and for its output.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(
        name: &str,
        namespace: &str,
        directory: &Path,
        program: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let output = directory.join(format!("{name}.out"));
        let errors = directory.join(format!("{name}.err"));
        let child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()?;
        Ok(Process { name: name.to_owned(), child, output, errors })
    }

    /// What the test calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number; `ip netns exec` becomes the program.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Its exit status if it has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal by its name: `TERM`, `INT`, `KILL`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: &str) -> Result {
        // `ip netns exec` becomes the program, so the child's number is the program's.
        let status = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("{}: no such process", self.name).into()) }
    }

    /// Waits until it ends by itself and returns its standard output.
    ///
    /// # Errors
    /// When it does not end in time, or ends with a status other than 0; then with what it wrote.
    pub fn finish(mut self, limit: Duration) -> Result<String> {
        let status =
            within(limit, || self.ended()?.ok_or_else(|| format!("{}: still running", self.name).into()))
                .map_err(|error| format!("{error} after {limit:?}: {}{}", self.output(), self.errors()))?;
        if status.success() {
            Ok(self.output())
        } else {
            Err(format!("{}: {status}: {}{}", self.name, self.output(), self.errors()).into())
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // Both fail only when it is gone already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
