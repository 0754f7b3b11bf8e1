//! The server's side of a flow: what the server of the capture said, to be said here.

use std::collections::BTreeMap;

use etherparse::TcpHeader;

/// What is known of a server's stream; for UDP only `datagrams`.
#[derive(Default)]
pub(super) struct ServerSide {
    /// The sequence number of the next byte that is not known yet; `None`: nothing was seen.
    next: Option<u32>,
    ahead: BTreeMap<u32, Vec<u8>>,
    first: u32,
    /// Packets of the server's in the capture.
    pub(super) packets: u64,
    /// To be said as soon as there is a connection.
    pub(super) waiting: Vec<u8>,
    /// To be sent as soon as there is a peer.
    pub(super) datagrams: Vec<Vec<u8>>,
    fin: Option<u32>,
    pub(super) finished: bool,
    pub(super) reset: bool,
    /// A packet was not whole: nothing behind it is said.
    pub(super) cut: bool,
}

impl ServerSide {
    /// A segment of the capture's server.
    pub(super) fn hear(&mut self, header: &TcpHeader, payload: &[u8], length: usize) {
        self.reset |= header.rst;
        if header.syn {
            self.begin(header.sequence_number.wrapping_add(1));
            return;
        }
        if header.rst || self.cut {
            return;
        }
        if self.next.is_none() {
            self.begin(header.sequence_number);
        }
        let offset = header.sequence_number.wrapping_sub(self.first);
        if offset > u32::MAX / 2 {
            return;
        }
        if payload.len() < length {
            self.cut = true;
        }
        if header.fin && !self.cut {
            self.fin = Some(offset.wrapping_add(length as u32));
        }
        if !payload.is_empty() {
            self.ahead.insert(offset, payload.to_vec());
        }
        self.put_in_order();
    }

    fn begin(&mut self, seq: u32) {
        if self.next.is_none() {
            (self.next, self.first) = (Some(0), seq);
        }
    }

    fn put_in_order(&mut self) {
        let mut next = self.next.unwrap_or(0);
        while let Some((offset, bytes)) = self.ahead.pop_first() {
            let Some(skip) = next.checked_sub(offset) else {
                self.ahead.insert(offset, bytes);
                break;
            };
            let new = bytes.get(skip as usize..).unwrap_or_default();
            self.waiting.extend_from_slice(new);
            next = next.wrapping_add(new.len() as u32);
        }
        self.next = Some(next);
        self.finished |= self.fin == Some(next);
    }
}
