//! weir as an operator runs it, between real clients and servers.
//!
//! Each test has namespaces of its own (see `weir_tests::testkit`). Where that is impossible it says so and ends.

mod compare;
mod connection_limits;
mod flood;
mod hostile;
mod http;
mod lifecycle;
mod lossy;
mod preserve;
mod proxied;
mod readme;
mod reload;
mod tcp;
mod tls;
mod trace;
mod udp;
mod workers;
