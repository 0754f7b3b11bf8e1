//! Addresses, subnets and ports.

use std::net::IpAddr;

use dataplane::snapshot::{PortRange, Prefix, Protocol};
use toml::de::DeValue;

use super::string;
use crate::read::{Fault, Value};
use script_check::nearest;

impl Value for IpAddr {
    fn expected() -> String {
        "an IPv4 or IPv6 address, such as \"192.0.2.10\" or \"2001:db8::10\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        let address = text.parse::<IpAddr>().map_err(|_| not_an_address(text))?;
        match unusable(address) {
            Some(why) => Err(Fault::hint(format!("{address} is {why}"), "a unicast address is needed here")),
            None => Ok(address),
        }
    }
}

fn not_an_address(text: &str) -> Fault {
    let what = format!("\"{text}\" is not an IP address");
    if let Some((address, _)) = text.split_once('/').filter(|(a, _)| a.parse::<IpAddr>().is_ok()) {
        return Fault::hint(what, format!("without a prefix length here: \"{address}\""));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Fault::hint(what, format!("without a port here: \"{}\"", socket.ip()));
    }
    Fault::value(what)
}

/// Why no host can have the address.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    match () {
        () if address.is_unspecified() => Some("the unspecified address"),
        () if address.is_loopback() => Some("a loopback address"),
        () if address.is_multicast() => Some("a multicast address"),
        () if broadcast => Some("the broadcast address"),
        () if link_local => Some("a link-local address, which weir makes itself"),
        () if mapped => Some("an IPv4 address written as IPv6"),
        () => None,
    }
}

/// The first and, for IPv4, the last address of a subnet.
pub(crate) fn ends(prefix: Prefix) -> (IpAddr, Option<IpAddr>) {
    match prefix.address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0);
            let last = v4.to_bits() | mask;
            (IpAddr::V4((v4.to_bits() & !mask).into()), Some(IpAddr::V4(last.into())))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0);
            (IpAddr::V6((v6.to_bits() & !mask).into()), None)
        }
    }
}

fn prefix(text: &str) -> Result<Prefix, Fault> {
    let Some((address, length)) = text.split_once('/') else {
        let what = format!("\"{text}\" has no prefix length");
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => Fault::hint(what, format!("for example \"{text}/24\"")),
            Ok(IpAddr::V6(_)) => Fault::hint(what, format!("for example \"{text}/64\"")),
            Err(_) => Fault::value(what),
        });
    };
    let address: IpAddr =
        address.parse().map_err(|_| Fault::value(format!("\"{address}\" is not an IP address")))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let wrong = |what: String| Fault::hint(what, format!("allowed: 0 to {most}"));
    match length.parse::<u32>().ok().map(u8::try_from) {
        Some(Ok(length)) if length <= most => Ok(Prefix { address, length }),
        Some(_) => Err(wrong(format!("prefix length {length} is too long"))),
        None => Err(wrong(format!("prefix length \"{length}\" is not a number"))),
    }
}

/// An address of our own with its subnet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnAddress(pub Prefix);

impl Value for OwnAddress {
    fn expected() -> String {
        "an address with the prefix length of its subnet, such as \"192.0.2.1/24\" or \"2001:db8::1/64\""
            .to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let prefix = prefix(string(value)?)?;
        if let Some(why) = unusable(prefix.address) {
            return Err(Fault::value(format!("{} is {why}", prefix.address)));
        }
        let (first, last) = ends(prefix);
        let pointless = prefix.length == 0;
        let edge = prefix.address.is_ipv4() && prefix.length < 31;
        match prefix.address {
            _ if pointless => Err(Fault::value("a subnet of length 0 holds every address")),
            a if edge && a == first => Err(Fault::value(format!("{a} is the address of the network itself"))),
            a if edge && Some(a) == last => {
                Err(Fault::value(format!("{a} is the broadcast address of its network")))
            }
            _ => Ok(OwnAddress(prefix)),
        }
    }
}

/// A network: no bit is set beyond the prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(pub Prefix);

impl Value for Network {
    fn expected() -> String {
        "a network with its prefix length, such as \"0.0.0.0/0\" or \"2001:db8:1::/48\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        let prefix = prefix(text)?;
        let (first, _) = ends(prefix);
        if first == prefix.address {
            return Ok(Network(prefix));
        }
        let what = format!("\"{text}\" has address bits beyond its prefix length");
        Err(Fault::hint(what, format!("did you mean \"{first}/{}\"?", prefix.length)))
    }
}

/// Ports from a first to a last one, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Ports {
    pub(crate) fn overlaps(self, other: Ports) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

fn ports(text: &str) -> Result<Ports, Fault> {
    let port = |text: &str| match text.trim().parse::<u32>().map(u16::try_from) {
        Ok(Ok(0)) => Err(Fault::hint("there is no port 0", "allowed: 1 to 65535")),
        Ok(Ok(port)) => Ok(port),
        Ok(Err(_)) => Err(Fault::hint(format!("port {} is too large", text.trim()), "allowed: 1 to 65535")),
        Err(_) => {
            Err(Fault::hint(format!("\"{text}\" is not a port"), "a port from 1 to 65535, or first-last"))
        }
    };
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok(Ports { first: port, last: port });
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        let what = format!("the range {first}-{last} is reversed");
        return Err(Fault::hint(what, format!("did you mean \"{last}-{first}\"?")));
    }
    Ok(Ports { first, last })
}

impl Value for Ports {
    fn expected() -> String {
        "a range of ports, such as \"1024-63999\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        ports(string(value)?)
    }
}

/// Ports of a virtual service with their protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServicePorts(pub PortRange);

impl ServicePorts {
    pub(crate) fn ports(self) -> Ports {
        Ports { first: self.0.first, last: self.0.last }
    }

    pub(crate) fn overlaps(self, other: ServicePorts) -> bool {
        self.0.protocol == other.0.protocol && self.ports().overlaps(other.ports())
    }
}

impl std::fmt::Display for ServicePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.0.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}/{}", self.ports())
    }
}

impl Value for ServicePorts {
    fn expected() -> String {
        "a string with protocol and port or ports, such as \"tcp/443\" or \"udp/5000-5010\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        let Some((protocol, rest)) = text.split_once('/') else {
            let what = format!("\"{text}\" names no protocol");
            let help = match ports(text) {
                Ok(_) => format!("did you mean \"tcp/{text}\" or \"udp/{text}\"?"),
                Err(_) => format!("must be {}", Self::expected()),
            };
            return Err(Fault::hint(what, help));
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                let what = format!("\"{other}\" is not a protocol");
                let near =
                    nearest(other, ["tcp", "udp"]).map(|near| format!("did you mean \"{near}/{rest}\"?"));
                return Err(Fault::hint(what, near.unwrap_or_else(|| "allowed: tcp and udp".to_owned())));
            }
        };
        let Ports { first, last } = ports(rest)?;
        Ok(ServicePorts(PortRange { protocol, first, last }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<V: Value>(text: &str) -> Result<V, String> {
        V::read(&DeValue::String(text.into())).map_err(|fault| match fault {
            Fault::Type => "type".to_owned(),
            Fault::Value { what, .. } => what,
        })
    }

    #[test]
    fn subnets_have_ends() {
        let of = |text| read::<Network>(text).map(|n| ends(n.0)).unwrap();
        assert_eq!(of("10.1.0.0/16"), ("10.1.0.0".parse().unwrap(), "10.1.255.255".parse().ok()));
        assert_eq!(of("0.0.0.0/0"), ("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().ok()));
        assert_eq!(of("10.1.2.3/32"), ("10.1.2.3".parse().unwrap(), "10.1.2.3".parse().ok()));
        assert_eq!(of("2001:db8::/32"), ("2001:db8::".parse().unwrap(), None));
        assert_eq!(of("::/0"), ("::".parse().unwrap(), None));
    }

    #[test]
    fn own_addresses_are_host_addresses() {
        assert!(read::<OwnAddress>("192.0.2.0/31").is_ok());
        assert!(read::<OwnAddress>("192.0.2.255/32").is_ok());
        assert!(read::<OwnAddress>("2001:db8::/64").is_ok());
        for wrong in
            ["192.0.2.0/24", "192.0.2.255/24", "127.0.0.1/8", "::1/128", "fe80::1/64", "0.0.0.0/0", "x/8"]
        {
            assert!(read::<OwnAddress>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_ranges() {
        assert_eq!(read::<Ports>("1-65535"), Ok(Ports { first: 1, last: 65535 }));
        assert_eq!(read::<Ports>("53"), Ok(Ports { first: 53, last: 53 }));
        for wrong in ["", "-", "0", "1-", "-1", "65536", "5-4", "1-2-3", "http"] {
            assert!(read::<Ports>(wrong).is_err(), "{wrong}");
        }
        let udp = read::<ServicePorts>("udp/5000-5010").unwrap();
        assert_eq!(udp.to_string(), "udp/5000-5010");
        assert!(udp.overlaps(read::<ServicePorts>("udp/5010").unwrap()));
        assert!(!udp.overlaps(read::<ServicePorts>("tcp/5010").unwrap()));
        assert!(!udp.overlaps(read::<ServicePorts>("udp/5011-6000").unwrap()));
    }
}
