//! The other end of the admin socket, for `weir show`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::ERROR_PREFIX;

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("cannot connect to {}: {reason}; is weir running, and with this admin socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The connection broke.
    #[error("the admin connection broke: {0}")]
    Connection(#[from] std::io::Error),
    /// The connection ended in the middle of the answer.
    #[error("weir closed the admin connection before its answer was complete")]
    Incomplete,
    /// The request must be one line.
    #[error("a request is one line")]
    NotOneLine,
    /// weir did not do what was asked; its explanation.
    #[error("{0}")]
    Refused(String),
}

/// Sends one request (see `help`) and returns the answer, lines with line feeds.
pub fn request(socket_path: &Path, line: &str) -> Result<String, Error> {
    patient_request(socket_path, line, Duration::ZERO)
}

/// As [`request`], for one whose answer takes at least `time`.
pub fn patient_request(socket_path: &Path, line: &str, time: Duration) -> Result<String, Error> {
    if line.contains('\n') {
        return Err(Error::NotOneLine);
    }
    let connect = |reason| Error::Connect { path: socket_path.to_owned(), reason };
    let mut stream = UnixStream::connect(socket_path).map_err(connect)?;
    stream.set_read_timeout(Some(TIMEOUT + time))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // A full house answers and closes before it has read anything: what was received counts, not how it ended.
    let sent =
        stream.write_all(format!("{line}\n").as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received);
    let answer = String::from_utf8_lossy(&received);
    let answer = match answer.strip_suffix('\n') {
        Some(text) if text.is_empty() || text.ends_with('\n') => text.to_owned(),
        _ => {
            sent?;
            ended?;
            return Err(Error::Incomplete);
        }
    };
    match answer.strip_prefix(ERROR_PREFIX) {
        Some(refusal) => Err(Error::Refused(refusal.trim_end().to_owned())),
        None => Ok(answer),
    }
}

/// How often a stream that is silent asks whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// How a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// As it is.
    GoOn,
    /// weir is asked for the end, and what it has still to say is heard.
    End,
    /// Nothing more is wanted.
    Leave,
}

/// Sends a request whose answer goes on for a while, and gives each line of it to `each` as it comes, and `None` whenever
/// nothing has come for a moment.
pub fn stream(
    socket_path: &Path,
    line: &str,
    mut each: impl FnMut(Option<&str>) -> Next,
) -> Result<(), Error> {
    if line.contains('\n') {
        return Err(Error::NotOneLine);
    }
    let connect = |reason| Error::Connect { path: socket_path.to_owned(), reason };
    let mut stream = UnixStream::connect(socket_path).map_err(connect)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let sent = stream.write_all(format!("{line}\n").as_bytes());
    let mut reader = BufReader::new(stream);
    let mut received = Vec::new();
    loop {
        let next = match reader.read_until(b'\n', &mut received) {
            Ok(_) if received == b"\n" => return Ok(()),
            Ok(_) if received.ends_with(b"\n") => {
                let text = String::from_utf8_lossy(&received);
                let text = text.trim_end_matches('\n');
                if let Some(refusal) = text.strip_prefix(ERROR_PREFIX) {
                    return Err(Error::Refused(refusal.to_owned()));
                }
                let next = each(Some(text));
                received.clear();
                next
            }
            Ok(_) => return sent.map_err(Error::Connection).and(Err(Error::Incomplete)),
            // What has come of a line stays in `received`.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => each(None),
            Err(error) => return Err(error.into()),
        };
        match next {
            Next::GoOn => {}
            // Fails if that was done before.
            Next::End => drop(reader.get_ref().shutdown(Shutdown::Write)),
            Next::Leave => return Ok(()),
        }
    }
}
