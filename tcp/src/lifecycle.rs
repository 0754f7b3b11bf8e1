//! Where a translated connection stands, as far as idle timeouts care (RFC 5382, 5).

use crate::{Flags, Side};

/// Phase of a connection that weir only translates, read from the flags that pass. One byte in the flow table: `as u8`
/// and [`Lifecycle::from`].
///
/// It chooses idle timeouts. It is not a check of the connection: [`crate::Track`] tells which segments may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Lifecycle {
    /// Data may flow both ways. The start of a spliced flow.
    #[default]
    Established = 0,
    /// The client has sent FIN.
    ClientFin = 1,
    /// The server has sent FIN.
    ServerFin = 2,
    /// Both have sent FIN.
    BothFin = 3,
    /// One of them has sent RST.
    Reset = 4,
    /// A SYN was passed on, no SYN-ACK yet. The start of a flow that is balanced on its SYN.
    SynSent = 5,
}

impl Lifecycle {
    /// The phase after a segment with these flags.
    #[must_use]
    pub fn observe(self, from: Side, flags: impl Into<Flags>) -> Lifecycle {
        let flags = flags.into();
        if self == Lifecycle::Reset || flags.contains(Flags::RST) {
            return Lifecycle::Reset;
        }
        if flags.contains(Flags::FIN) {
            return self.finished(from);
        }
        let answered = from == Side::Server && flags.contains(Flags::SYN | Flags::ACK);
        if self == Lifecycle::SynSent && answered { Lifecycle::Established } else { self }
    }

    fn finished(self, from: Side) -> Lifecycle {
        match (self, from) {
            (Lifecycle::ServerFin | Lifecycle::BothFin, Side::Client)
            | (Lifecycle::ClientFin | Lifecycle::BothFin, Side::Server) => Lifecycle::BothFin,
            (_, Side::Client) => Lifecycle::ClientFin,
            (_, Side::Server) => Lifecycle::ServerFin,
        }
    }
}

impl From<u8> for Lifecycle {
    /// Values that no phase has are [`Lifecycle::Reset`], the one with the shortest life.
    fn from(value: u8) -> Self {
        match value {
            0 => Lifecycle::Established,
            1 => Lifecycle::ClientFin,
            2 => Lifecycle::ServerFin,
            3 => Lifecycle::BothFin,
            5 => Lifecycle::SynSent,
            _ => Lifecycle::Reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(start: Lifecycle, steps: &[(Side, Flags)]) -> Lifecycle {
        steps.iter().fold(start, |state, (from, flags)| Lifecycle::from(state.observe(*from, *flags) as u8))
    }

    #[test]
    fn an_ordinary_life() {
        use Side::{Client, Server};
        let opened = walk(Lifecycle::SynSent, &[(Client, Flags::SYN), (Server, Flags::SYN | Flags::ACK)]);
        assert_eq!(opened, Lifecycle::Established);
        let half = walk(opened, &[(Client, Flags::ACK), (Server, Flags::FIN | Flags::ACK)]);
        assert_eq!(half, Lifecycle::ServerFin);
        assert_eq!(walk(half, &[(Server, Flags::FIN), (Client, Flags::ACK)]), Lifecycle::ServerFin);
        assert_eq!(walk(half, &[(Client, Flags::FIN), (Client, Flags::FIN)]), Lifecycle::BothFin);
        assert_eq!(walk(opened, &[(Client, Flags::FIN), (Server, Flags::FIN)]), Lifecycle::BothFin);
    }

    #[test]
    fn a_reset_is_final() {
        for value in 0..=255u8 {
            let state = Lifecycle::from(value);
            assert_eq!(state.observe(Side::Server, Flags::RST | Flags::ACK), Lifecycle::Reset);
        }
        assert_eq!(Lifecycle::Reset.observe(Side::Client, Flags::FIN), Lifecycle::Reset);
    }
}
