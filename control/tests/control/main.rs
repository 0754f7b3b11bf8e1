//! `control` from outside: monitors in virtual time, the admin socket and the log with a made-up worker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails its test"
)]

mod admin;
mod explain;
mod fixture;
mod health;
mod log;
mod operations;
mod peer;
mod reload;
mod watch;
mod worker;
