//! IPv4 packets in pieces (RFC 791, 3.2): put together on the way in, cut on the way out.
//!
//! Only the first fragment of a datagram has ports, and a script wants all bytes, so [`Reassembly`] collects the
//! fragments and the pipeline sees the whole, in a [`Linear`] buffer. What is larger than the MTU of the port it leaves
//! by goes to [`Outgoing`], which cuts it as it is sent. Both have all their memory from the start.
//!
//! Nothing here is on the way of a packet that is whole and fits.

mod blocks;
mod datagram;
mod header;
mod identification;
mod linear;
mod outgoing;
mod reassembly;

pub use datagram::MOST_PIECES;
pub use header::Fragment;
pub use linear::{Linear, ROOM};
pub use outgoing::{Outgoing, Way};
pub use reassembly::{Expired, LONGEST, Reassembly, TIMEOUT, UNIT};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
