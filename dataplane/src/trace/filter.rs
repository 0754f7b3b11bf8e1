//! Which flows are of interest.

use std::net::IpAddr;

use crate::address::FlowKey;
use crate::snapshot::{Prefix, Protocol};

/// Conditions on the client's side of a flow; one that is not given holds always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The client's network, or its address. That of the packets: what a PROXY header says comes later.
    pub client: Option<Prefix>,
    /// The VIP.
    pub vip: Option<IpAddr>,
    /// The port on the VIP.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Option<Protocol>,
}

impl Filter {
    /// True if a flow whose client sends packets with this key is meant.
    #[must_use]
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.client.is_none_or(|prefix| prefix.contains(key.source.ip()))
            && self.vip.is_none_or(|vip| vip == key.destination.ip())
            && self.port.is_none_or(|port| port == key.destination_port)
            && self.protocol.is_none_or(|protocol| protocol as u8 == key.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: &str, vip: &str) -> FlowKey {
        FlowKey::new(Protocol::Tcp, client.parse().unwrap(), vip.parse().unwrap())
    }

    #[test]
    fn every_condition_that_is_given_has_to_hold() {
        let network = Prefix { address: "10.1.0.0".parse().unwrap(), length: 16 };
        let whole = Filter {
            client: Some(network),
            vip: "192.0.2.10".parse().ok(),
            port: Some(443),
            protocol: Some(Protocol::Tcp),
        };
        let right = key("10.1.7.8:4000", "192.0.2.10:443");
        assert!(whole.matches(&right) && Filter::default().matches(&right));
        for wrong in [
            key("10.2.7.8:4000", "192.0.2.10:443"),
            key("[2001:db8::1]:4000", "[2001:db8::2]:443"),
            key("10.1.7.8:4000", "192.0.2.11:443"),
            key("10.1.7.8:4000", "192.0.2.10:80"),
            FlowKey { protocol: Protocol::Udp as u8, ..right },
        ] {
            assert!(!whole.matches(&wrong), "{wrong:?}");
            assert!(Filter::default().matches(&wrong));
        }
    }
}
