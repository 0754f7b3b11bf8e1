//! Addresses and ports as scripts read them, written without the formatting machinery of the standard library.

use std::net::{IpAddr, Ipv4Addr};

/// Appends a number in digits.
pub(crate) fn decimal(number: u16, out: &mut Vec<u8>) {
    let (mut digits, mut first, mut rest) = ([b'0'; 5], 5, number);
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
        first = place;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or(&[]));
}

/// Longest dotted address, with a dot behind it.
const DOTTED: usize = 16;

/// Each octet in digits with a dot behind it, and how many bytes that is.
static OCTETS: [([u8; 4], u8); 256] = octets();

#[allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "digits and octets, at compile time"
)]
const fn octets() -> [([u8; 4], u8); 256] {
    let mut all = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        all[octet] = match octet {
            0..=9 => ([digits[2], b'.', b'.', b'.'], 2),
            10..=99 => ([digits[1], digits[2], b'.', b'.'], 3),
            _ => ([digits[0], digits[1], digits[2], b'.'], 4),
        };
        octet += 1;
    }
    all
}

/// Appends a dotted address: all four bytes of each octet are written, those of the next one over what is too many.
fn dotted(address: Ipv4Addr, out: &mut Vec<u8>) {
    let (mut text, mut len) = ([0; DOTTED], 0);
    for octet in address.octets() {
        let place = text.get_mut(len..len + 4).zip(OCTETS.get(usize::from(octet)));
        if let Some((place, (digits, bytes))) = place {
            place.copy_from_slice(digits);
            len += usize::from(*bytes);
        }
    }
    out.extend_from_slice(text.get(..len.saturating_sub(1)).unwrap_or(&[]));
}

/// Appends an address: dotted IPv4, or IPv6 as in RFC 5952.
pub(crate) fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => dotted(address, out),
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"x".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn all_numbers_are_what_the_standard_library_makes_of_them() {
        for number in 0..=u16::MAX {
            assert_eq!(written(|out| decimal(number, out)), format!("x{number}"));
        }
    }

    #[test]
    fn addresses_are_what_the_standard_library_makes_of_them() {
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "192.168.255.99",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "::ffff:1.2.3.4",
        ] {
            assert_eq!(written(|out| address(text.parse().unwrap(), out)), format!("x{text}"));
        }
    }
}
