//! What the tests of the whole program share.
//!
//! `e2e/` holds the end-to-end tests: weir as an operator runs it, between a client and servers that are real
//! programs in network namespaces of their own. `documents/` holds the tests of README and docs. `peers/` are the
//! clients and servers, in Python and with its standard library only: they share no code with what they check.
#![forbid(unsafe_code)]

pub mod testkit;
