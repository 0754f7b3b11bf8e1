//! The namespaces of a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::{Process, Result, Wire, within};

/// Whether clients and servers are on different ports of weir or on the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// `weir0`, with clients and servers.
    One,
    /// `weir0` with the clients, `weir1` with the servers.
    Two,
}

/// A client, weir and servers, each in a namespace of its own, and a directory for their files.
///
/// The client has 192.0.2.100 and 2001:db8:1::100; the servers have 10.0.0.20 to 10.0.0.25 and 2001:db8:2::20 to
/// 2001:db8:2::25. With one arm the servers are where the client is, and have 192.0.2.20 to 192.0.2.25.
pub struct Network {
    arms: Arms,
    stem: String,
    directory: TempDir,
}

/// Why no end-to-end test can run here; `None` when they can.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !root {
        Some("it needs root")
    } else if !Path::new("/dev/net/tun").exists() {
        Some("there is no /dev/net/tun")
    } else {
        None
    }
}

impl Network {
    /// Makes the namespaces; `None`, and a line that says why, where that is impossible.
    ///
    /// # Errors
    /// When `ip` fails although the test runs as root.
    pub fn new(test: &str, arms: Arms) -> Result<Option<Self>> {
        if let Some(obstacle) = obstacle() {
            eprintln!("SKIPPED: {test}: {obstacle}");
            return Ok(None);
        }
        // The run's number lets the script that started the tests find what a killed test left behind.
        let run = std::env::var("WEIR_TEST_RUN").unwrap_or_default();
        let stem = format!("weir-test-{run}-{}", std::process::id());
        let network = Network { arms, stem, directory: TempDir::with_prefix("weir-test-")? };
        for namespace in network.namespaces() {
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(Some(network))
    }

    fn namespaces(&self) -> [String; 3] {
        ["client", "weir", "servers"].map(|side| format!("{}-{side}", self.stem))
    }

    /// Where clients run.
    #[must_use]
    pub fn client(&self) -> String {
        format!("{}-client", self.stem)
    }

    /// Where weir runs.
    #[must_use]
    pub fn balancer(&self) -> String {
        format!("{}-weir", self.stem)
    }

    /// Where servers run; with one arm that is where clients run.
    #[must_use]
    pub fn servers(&self) -> String {
        let side = if self.arms == Arms::One { "client" } else { "servers" };
        format!("{}-{side}", self.stem)
    }

    /// Where the files of the test are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What every configuration of a test has: interfaces, SNAT, log, admin socket.
    #[must_use]
    pub fn config_head(&self, workers: u8) -> String {
        let outside = interface("outside", "net_tap0,iface=weir0", "192.0.2.1/24", "2001:db8:1::1/64");
        let inside = interface("inside", "net_tap1,iface=weir1", "10.0.0.1/24", "2001:db8:2::1/64");
        let (interfaces, snat) = match self.arms {
            Arms::One => (outside, r#""192.0.2.2", "2001:db8:1::2""#),
            Arms::Two => (outside + &inside, r#""10.0.0.2", "2001:db8:2::2""#),
        };
        let directory = self.directory().display();
        format!(
            "{interfaces}[snat]\naddresses = [{snat}]\n\
             [dpdk]\nworkers = {workers}\nhugepages = \"never\"\nidle = \"sleep\"\n\
             [log]\nconnections = \"{directory}/connections.log\"\n\
             [admin]\nsocket = \"{directory}/weir.sock\"\n"
        )
    }

    /// Takes the far ends of weir's ports to the sides, and gives them their addresses. weir has started its ports.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn attach(&self) -> Result {
        self.attach_as(["weir0", "weir1"])
    }

    /// As `attach`, with a bad wire between each port and its side. Without the wires, which are returned, nothing comes
    /// through.
    ///
    /// # Errors
    /// When `ip` or a wire fails.
    pub fn attach_by_wires(&self, wire: &Wire) -> Result<Vec<Process>> {
        let ports: &[&str] = if self.arms == Arms::One { &["weir0"] } else { &["weir0", "weir1"] };
        let start = |(number, port): (usize, &&str)| {
            // Beside weir, where nobody has an address: a kernel at the near end would answer by itself.
            let arguments = wire.arguments(port, &format!("far{number}"), number as u64);
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let process = self.peer(&format!("wire{number}"), &self.balancer(), "lossy.py", &arguments)?;
            wait_until_ready(&process)?;
            Ok(process)
        };
        let wires = ports.iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
        self.attach_as(["far0", "far1"])?;
        Ok(wires)
    }

    fn attach_as(&self, [outer, inner]: [&str; 2]) -> Result {
        let mut outside = vec!["192.0.2.100/24".to_owned(), "2001:db8:1::100/64".to_owned()];
        let inside = (20..26).flat_map(|n| [format!("10.0.0.{n}/24"), format!("2001:db8:2::{n}/64")]);
        match self.arms {
            Arms::One => outside.extend((20..26).map(|n| format!("192.0.2.{n}/24"))),
            Arms::Two => self.move_tap(inner, &self.servers(), "02:00:00:00:02:01", inside)?,
        }
        self.move_tap(outer, &self.client(), "02:00:00:00:01:01", outside)
    }

    /// The kernel's end of a tap has the MAC address of weir's end until it gets its own.
    fn move_tap<I>(&self, device: &str, namespace: &str, mac: &str, addresses: I) -> Result
    where
        I: IntoIterator<Item = String>,
    {
        ip(&["-n", &self.balancer(), "link", "set", device, "netns", namespace])?;
        ip(&["-n", namespace, "link", "set", device, "address", mac])?;
        for address in addresses {
            // Nobody else has these addresses: no duplicate address detection, which would take a second.
            ip(&["-n", namespace, "address", "add", &address, "dev", device, "nodad"])?;
        }
        ip(&["-n", namespace, "link", "set", device, "up"])
    }

    /// Whether the client still has a port of weir.
    #[must_use]
    pub fn has_port(&self) -> bool {
        ip(&["-n", &self.client(), "link", "show", "weir0"]).is_ok()
    }

    /// Starts a program of `peers/` in a namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn peer(&self, name: &str, namespace: &str, script: &str, arguments: &[&str]) -> Result<Process> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers").join(script).display().to_string();
        // -B: nothing is written beside the script. -u: what it says can be read at once.
        let all = [&["-B", "-u", path.as_str()], arguments].concat();
        Process::start(name, namespace, self.directory(), Path::new("/usr/bin/python3"), &all)
    }

    /// Starts a server of `peers/` and waits until it says `ready`.
    ///
    /// # Errors
    /// When it does not become ready within 10 s.
    pub fn server(&self, name: &str, script: &str, arguments: &[&str]) -> Result<Process> {
        let process = self.peer(name, &self.servers(), script, arguments)?;
        wait_until_ready(&process)?;
        Ok(process)
    }

    /// Runs a client of `peers/` to its end and returns what it printed.
    ///
    /// # Errors
    /// When it fails, or takes longer than `limit`.
    pub fn run_client(&self, limit: Duration, script: &str, arguments: &[&str]) -> Result<String> {
        self.peer("client", &self.client(), script, arguments)?.finish(limit)
    }

    /// Runs any program where servers run to its end.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn in_servers(&self, program: &str, arguments: &[&str]) -> Result {
        let servers = self.servers();
        ip(&[&["netns", "exec", servers.as_str(), program], arguments].concat())
    }

    /// Runs any program on the client's side to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn in_client(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let client = self.client();
        let command = [&["netns", "exec", client.as_str(), program], arguments].concat();
        Ok(Command::new("ip").args(command).current_dir(self.directory()).output()?)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            if let Err(error) = ip(&["netns", "delete", &namespace]) {
                eprintln!("{error}");
            }
        }
    }
}

/// Waits until it says `ready`.
fn wait_until_ready(process: &Process) -> Result {
    within(Duration::from_secs(10), || match process.output().contains("ready") {
        true => Ok(()),
        false => Err(format!("{} is not ready: {}", process.name(), process.errors()).into()),
    })
}

fn interface(name: &str, device: &str, v4: &str, v6: &str) -> String {
    format!("[[interface]]\nname = \"{name}\"\ndevice = \"{device}\"\naddresses = [\"{v4}\", \"{v6}\"]\n")
}

/// Runs `ip` with these arguments.
fn ip(arguments: &[&str]) -> Result {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into())
    }
}
