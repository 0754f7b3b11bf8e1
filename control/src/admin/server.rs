//! The Unix socket: who may connect, how requests and answers are framed.
//!
//! A request is one line. An answer is text that ends with an empty line; there are no empty lines within. A client
//! may send further requests on the same connection.

use std::fs::{DirBuilder, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Admin, Answered, ERROR_PREFIX};
use crate::Error;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 8;
/// Longest request in bytes: a payload to explain, in hexadecimal digits.
const MAX_REQUEST: u64 = 1 << 17;
/// How often the listener looks for a new connection, or whether it has to stop.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(20);
/// How often a connection that waits for a request looks whether it has to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(200);
/// Rounds of [`READ_TIMEOUT`] after which a silent connection is closed: one minute.
const MAX_SILENT_ROUNDS: u32 = 300;
/// How long a client may refuse to take its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A bound socket; removes its file when dropped.
pub(crate) struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
    admin: Arc<Admin>,
    stop: Arc<AtomicBool>,
}

impl AdminServer {
    /// Binds `path` with mode 0600. The file of a process that is gone is replaced; one that somebody listens on, or
    /// that is no socket, is refused.
    pub(crate) fn bind(path: &Path, admin: Admin, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        let failed = |source| Error::Socket { path: path.to_owned(), source };
        check_free(path)?;
        let listener = bind_privately(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(AdminServer { listener, path: path.to_owned(), admin: Arc::new(admin), stop })
    }

    /// Serves until told to stop. Each connection has a thread of its own.
    pub(crate) fn run(self) {
        let connections = Arc::new(AtomicUsize::new(0));
        while !self.stop.load(Ordering::Relaxed) {
            match self.listener.accept() {
                Ok((stream, _)) => self.serve(stream, &connections),
                Err(_) => std::thread::sleep(ACCEPT_INTERVAL),
            }
        }
    }

    fn serve(&self, stream: UnixStream, connections: &Arc<AtomicUsize>) {
        if configure(&stream).is_err() {
            return;
        }
        let place = Place::take(connections);
        if connections.load(Ordering::Relaxed) > MAX_CONNECTIONS {
            let refusal = format!("{ERROR_PREFIX}there are {MAX_CONNECTIONS} admin connections already\n");
            let _ = send(&stream, &refusal);
            return;
        }
        let connection =
            Connection { admin: Arc::clone(&self.admin), stop: Arc::clone(&self.stop), _place: place };
        // Without a thread the connection is closed, which the client sees.
        let _ =
            std::thread::Builder::new().name("weir-admin".to_owned()).spawn(move || connection.run(&stream));
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // It may be gone already; nothing is left to do then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Counts a connection for as long as it exists.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(connections))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connection {
    admin: Arc<Admin>,
    stop: Arc<AtomicBool>,
    /// Given back when the connection ends.
    _place: Place,
}

impl Connection {
    /// Answers until the client goes, is silent for too long, or does not take an answer.
    fn run(&self, stream: &UnixStream) {
        let mut reader = BufReader::new(stream);
        while let Some(line) = self.read_line(&mut reader) {
            match self.admin.answer(&String::from_utf8_lossy(&line)) {
                Answered::Text(answer) if send(stream, &answer).is_ok() => {}
                Answered::Text(_) => return,
                // Whoever listened to it has nothing more to ask.
                Answered::Stream(session) => return session.run(stream, &mut reader),
            }
        }
    }

    fn read_line(&self, reader: &mut BufReader<&UnixStream>) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        for _ in 0..MAX_SILENT_ROUNDS {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let room = MAX_REQUEST.saturating_sub(u64::try_from(line.len()).unwrap_or(MAX_REQUEST));
            match reader.by_ref().take(room).read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => return Some(line),
                // The client has gone, or its line is too long.
                Ok(_) => return None,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

fn configure(stream: &UnixStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))
}

fn send(mut stream: &UnixStream, answer: &str) -> std::io::Result<()> {
    let mut framed = String::with_capacity(answer.len() + 1);
    for line in answer.lines().filter(|line| !line.is_empty()) {
        framed.push_str(line);
        framed.push('\n');
    }
    framed.push('\n');
    stream.write_all(framed.as_bytes())
}

fn check_free(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::SocketInUse(path.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Binds in a directory that only we may enter, and moves the socket to its place when its mode is right: nobody
/// else can connect in between, and a stale file is replaced in one step.
fn bind_privately(path: &Path) -> std::io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = parent.join(format!(".{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory)?;
    let temporary = directory.join("s");
    let bound = UnixListener::bind(&temporary).and_then(|listener| {
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        std::fs::rename(&temporary, path)?;
        Ok(listener)
    });
    // Best effort: after a success it is empty, after a failure it may hold the socket.
    let _ = std::fs::remove_file(&temporary);
    let _ = std::fs::remove_dir(&directory);
    bound
}
