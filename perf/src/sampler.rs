//! Tells `perf record --control` when rounds begin and end, so that it takes no samples of what was made ready: `perf/profile.sh`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

/// Looks for an answer, and what lies between two in turns of a loop: together many seconds.
const LOOKS: u32 = 10_000_000;
const TURNS: u32 = 100;

/// Our ends of the FIFOs that perf has opened.
#[derive(Debug)]
pub struct Sampler {
    control: File,
    answers: File,
}

impl Sampler {
    /// `directory` has the FIFOs `control` and `answers`.
    pub fn open(directory: &Path) -> anyhow::Result<Sampler> {
        // Neither open waits: perf has both FIFOs open for both directions before it starts a program.
        let open = |name: &str, write: bool| {
            let path = directory.join(name);
            let mut options = File::options();
            let file = options.read(!write).write(write).custom_flags(libc::O_NONBLOCK).open(&path);
            file.with_context(|| format!("cannot open {}", path.display()))
        };
        Ok(Sampler { control: open("control", true)?, answers: open("answers", false)? })
    }

    /// Samples are taken from now on, or no more.
    #[inline(never)]
    pub fn set(&mut self, on: bool) -> anyhow::Result<()> {
        self.control.write_all(if on { b"enable\n" } else { b"disable\n" })?;
        for _ in 0..LOOKS {
            // A thread that slept would give its processor, and its caches, to somebody else.
            for _ in 0..TURNS {
                std::hint::spin_loop();
            }
            match self.answers.read(&mut [0; 16]) {
                Ok(0) => bail!("perf has ended"),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("perf does not answer")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn perf_is_told_and_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let [control, answers] = ["control", "answers"].map(|name| directory.path().join(name));
        assert!(Sampler::open(directory.path()).is_err(), "there are no FIFOs");
        assert!(Command::new("mkfifo").args([&control, &answers]).status().unwrap().success());
        // As perf opens them.
        let open = |path| File::options().read(true).write(true).open(path).unwrap();
        let (mut control, mut answers) = (open(&control), open(&answers));
        let mut sampler = Sampler::open(directory.path()).unwrap();
        let perf = std::thread::spawn(move || {
            let mut heard = String::new();
            for _ in 0..2 {
                let mut text = [0; 64];
                let length = control.read(&mut text).unwrap();
                heard += std::str::from_utf8(&text[..length]).unwrap();
                answers.write_all(b"ack\n\0").unwrap();
            }
            heard
        });
        sampler.set(true).unwrap();
        sampler.set(false).unwrap();
        assert_eq!(perf.join().unwrap(), "enable\ndisable\n");
        let error = sampler.set(true).unwrap_err();
        assert!(
            error.to_string().contains("Broken pipe") || error.to_string() == "perf has ended",
            "{error}"
        );
    }
}
