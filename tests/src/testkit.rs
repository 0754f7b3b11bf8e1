//! Namespaces, processes and weir itself, for one test; everything is gone when the test drops it.

mod network;
mod process;
mod weir;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use network::{Arms, Network, obstacle};
pub use process::Process;
pub use weir::{Weir, weir_binary};
pub use wire::{Tally, Wire};

/// Why a test could not be carried out. A failed expectation is a panic of the test itself.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map_or(tests.clone(), PathBuf::from)
}

/// Tries every 50 ms until `attempt` succeeds; after `limit` the last error is the result.
///
/// # Errors
/// That of the last attempt.
pub fn within<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    let attempts = limit.as_millis() / PAUSE.as_millis();
    for _ in 0..attempts {
        if let Ok(value) = attempt() {
            return Ok(value);
        }
        std::thread::sleep(PAUSE);
    }
    attempt()
}
