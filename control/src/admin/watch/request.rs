//! The words behind `trace`.

use std::net::IpAddr;

use dataplane::snapshot::{Prefix, Protocol};
use dataplane::trace::Filter;

const DEFAULT_FLOWS: u32 = 10;
const MOST_FLOWS: u32 = 100_000;
const DEFAULT_SECONDS: u64 = 60;
const MOST_SECONDS: u64 = 3600;
/// Longest frame.
const MOST_FRAME: usize = 65_535;

/// What to follow, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Watch {
    pub(super) filter: Filter,
    pub(super) flows: u32,
    pub(super) seconds: u64,
    pub(super) open: bool,
    pub(super) drops: bool,
    pub(super) lines: bool,
    pub(super) frames: Option<usize>,
}

/// Understands the words; the error is for the operator.
pub(in crate::admin) fn parse(mut words: &[&str]) -> Result<Watch, String> {
    let mut watch = Watch {
        filter: Filter::default(),
        flows: DEFAULT_FLOWS,
        seconds: DEFAULT_SECONDS,
        open: false,
        drops: false,
        lines: false,
        frames: None,
    };
    loop {
        words = match words {
            [] => return Ok(watch),
            ["open", rest @ ..] => {
                watch.open = true;
                rest
            }
            ["drops", rest @ ..] => {
                watch.drops = true;
                rest
            }
            ["lines", rest @ ..] => {
                watch.lines = true;
                rest
            }
            [name, value, rest @ ..] => {
                set(&mut watch, name, value)?;
                rest
            }
            [name] => return Err(unknown(name)),
        };
    }
}

fn set(watch: &mut Watch, name: &str, value: &str) -> Result<(), String> {
    match name {
        "client" => watch.filter.client = Some(prefix(value)?),
        "vip" => watch.filter.vip = Some(address(value)?),
        "port" => watch.filter.port = Some(number(value, 1, u64::from(u16::MAX))? as u16),
        "protocol" => {
            watch.filter.protocol = Some(match value {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return Err(format!("'{value}' is neither tcp nor udp")),
            });
        }
        "flows" => watch.flows = number(value, 1, u64::from(MOST_FLOWS))? as u32,
        "seconds" => watch.seconds = number(value, 1, MOST_SECONDS)?,
        "frames" => watch.frames = Some(number(value, 1, MOST_FRAME as u64)? as usize),
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn unknown(word: &str) -> String {
    format!(
        "'{word}' is not understood, or has no value behind it; there are 'client PREFIX', 'vip ADDRESS', 'port N', \
         'protocol tcp|udp', 'flows N', 'seconds N', 'frames BYTES', 'open', 'drops', 'lines'"
    )
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("'{text}' is not a number from {least} to {most}"))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is not an IP address"))
}

/// `10.0.0.0/8`, or an address by itself.
fn prefix(text: &str) -> Result<Prefix, String> {
    let (address_text, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = address(address_text)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => number(length, 0, most)?,
        None => most,
    };
    Ok(Prefix { address, length: length as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Watch, String> {
        parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn every_word_is_understood() {
        let all = "client 10.0.0.0/8 vip 192.0.2.10 port 443 protocol udp flows 3 seconds 9 frames 64 open drops lines";
        let watch = words(all).unwrap();
        let filter = Filter {
            client: Some(Prefix { address: "10.0.0.0".parse().unwrap(), length: 8 }),
            vip: "192.0.2.10".parse().ok(),
            port: Some(443),
            protocol: Some(Protocol::Udp),
        };
        let expected =
            Watch { filter, flows: 3, seconds: 9, open: true, drops: true, lines: true, frames: Some(64) };
        assert_eq!(watch, expected);
        let plain = words("").unwrap();
        assert_eq!((plain.flows, plain.seconds, plain.frames, plain.open), (10, 60, None, false));
        let one = words("client 2001:db8::7").unwrap().filter.client.unwrap();
        assert_eq!(one.length, 128);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("client me", "'me' is not an IP address"),
            ("client 10.0.0.0/33", "'33' is not a number from 0 to 32"),
            ("port 0", "'0' is not a number from 1 to 65535"),
            ("protocol icmp", "'icmp' is neither tcp nor udp"),
            ("flows", "'flows' is not understood, or has no value behind it"),
            ("seconds 3601", "'3601' is not a number from 1 to 3600"),
            ("please now", "'please' is not understood"),
        ] {
            let error = words(line).unwrap_err();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }
}
