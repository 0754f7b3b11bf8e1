//! Names, texts, payloads and places outside of weir.

use std::path::PathBuf;

use toml::de::DeValue;

use super::string;
use crate::process::{Device, LogDestination};
use crate::read::{Fault, Value};
use script_check::nearest;

/// Longest name in characters.
const NAME_LENGTH: usize = 128;
/// Longest path of a Unix socket in bytes: `sun_path` with its terminator (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;
/// Largest payload of a health monitor in bytes: one datagram without fragments.
const PAYLOAD_BYTES: usize = 1232;

/// A name by which something is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub String);

impl Value for Name {
    fn expected() -> String {
        format!("a name of 1 to {NAME_LENGTH} characters")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let name = string(value)?;
        if name.is_empty() {
            return Err(Fault::value("the name is empty"));
        }
        if name.chars().count() > NAME_LENGTH {
            return Err(Fault::value("the name is too long"));
        }
        if name.chars().any(char::is_control) || name.trim() != name {
            return Err(Fault::value("a name holds no control characters and no blanks at its ends"));
        }
        Ok(Name(name.to_owned()))
    }
}

impl Value for String {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        string(value).map(str::to_owned)
    }
}

/// Bytes that a health monitor sends or expects.
#[derive(Clone, Debug)]
pub(crate) struct Payload(pub Vec<u8>);

impl Value for Payload {
    fn expected() -> String {
        format!("a string, or \"hex:\" and pairs of hexadecimal digits, at most {PAYLOAD_BYTES} bytes")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        let bytes = match text.strip_prefix("hex:") {
            Some(digits) => hex(digits)?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() > PAYLOAD_BYTES {
            return Err(Fault::value(format!("{} bytes do not fit one datagram", bytes.len())));
        }
        Ok(Payload(bytes))
    }
}

fn hex(text: &str) -> Result<Vec<u8>, Fault> {
    let mut nibbles = Vec::new();
    for c in text.chars().filter(|c| !c.is_whitespace() && *c != ':') {
        let nibble = c.to_digit(16).and_then(|n| u8::try_from(n).ok());
        nibbles.push(nibble.ok_or_else(|| Fault::value(format!("'{c}' is not a hexadecimal digit")))?);
    }
    let (pairs, odd) = nibbles.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(Fault::value("a hexadecimal digit is missing: bytes are pairs of digits"));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

impl Value for Device {
    fn expected() -> String {
        "a PCI address such as \"0000:3b:00.0\", or a virtual device of DPDK such as \"net_tap0,iface=weir0\""
            .to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        if let Some(address) = pci_address(text) {
            return Ok(Device::Pci(address));
        }
        let (driver, _) = text.split_once(',').unwrap_or((text, ""));
        if driver.starts_with("net_") && !driver.contains(char::is_whitespace) {
            return Ok(Device::Virtual(text.to_owned()));
        }
        Err(Fault::value(format!("\"{text}\" is not a device")))
    }
}

/// `domain:bus:device.function`, the domain 0000 where it is left out.
fn pci_address(text: &str) -> Option<String> {
    let hexadecimal =
        |text: &str, digits: usize| text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
    let (rest, function) = text.rsplit_once('.')?;
    let parts: Vec<&str> = rest.split(':').collect();
    let (domain, bus, device) = match parts.as_slice() {
        [bus, device] => ("0000", *bus, *device),
        [domain, bus, device] => (*domain, *bus, *device),
        _ => return None,
    };
    let function_is_valid = function.len() == 1 && function.chars().all(|c| ('0'..='7').contains(&c));
    let valid = hexadecimal(domain, 4) && hexadecimal(bus, 2) && hexadecimal(device, 2) && function_is_valid;
    valid.then(|| format!("{domain}:{bus}:{device}.{function}").to_lowercase())
}

impl Value for LogDestination {
    fn expected() -> String {
        "\"stdout\", \"stderr\", \"none\", or the path of a file with at least one '/'".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        match text {
            "stdout" => return Ok(LogDestination::Stdout),
            "stderr" => return Ok(LogDestination::Stderr),
            "none" => return Ok(LogDestination::None),
            path if path.contains('/') && !path.ends_with('/') => {
                return Ok(LogDestination::File(PathBuf::from(path)));
            }
            _ => {}
        }
        let what = format!("\"{text}\" is neither a stream nor the path of a file");
        Err(match nearest(text, ["stdout", "stderr", "none"]) {
            Some(near) => Fault::hint(what, format!("did you mean \"{near}\"?")),
            None if text.is_empty() || text.ends_with('/') => Fault::value(what),
            None => Fault::hint(what, format!("a file in the working directory is written \"./{text}\"")),
        })
    }
}

/// Path of a Unix socket; `None` for none.
#[derive(Clone, Debug)]
pub(crate) struct SocketPath(pub Option<PathBuf>);

impl Value for SocketPath {
    fn expected() -> String {
        format!("a path of 1 to {SOCKET_PATH_BYTES} bytes, or \"none\"")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        match text.len() {
            0 => Err(Fault::value("the path is empty")),
            n if n > SOCKET_PATH_BYTES => Err(Fault::value(format!("the path has {n} bytes"))),
            _ if text == "none" => Ok(SocketPath(None)),
            _ => Ok(SocketPath(Some(PathBuf::from(text)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_normalised() {
        assert_eq!(pci_address("0000:3B:00.1").as_deref(), Some("0000:3b:00.1"));
        assert_eq!(pci_address("3b:00.0").as_deref(), Some("0000:3b:00.0"));
        for wrong in ["3b:00", "3b:00.8", "net_tap0", "00000:3b:00.0", "g0:00.0", ":00.0"] {
            assert_eq!(pci_address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn payloads_are_text_or_hexadecimal() {
        let read = |text: &str| Payload::read(&DeValue::String(text.to_owned().into())).ok().map(|p| p.0);
        assert_eq!(read("ping"), Some(b"ping".to_vec()));
        assert_eq!(read("hex:00 fF:0a"), Some(vec![0, 255, 10]));
        assert_eq!(read("hex:"), Some(vec![]));
        assert_eq!(read("hex:0"), None);
        assert_eq!(read("hex:0g"), None);
        assert_eq!(read(&"x".repeat(1233)), None);
    }
}
