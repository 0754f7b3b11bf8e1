//! Addresses and ports as scripts read them, written without the formatting machinery of the standard library.

use std::net::IpAddr;

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

/// Appends an address: dotted IPv4, or IPv6 as in RFC 5952.
pub(crate) fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                decimal(u16::from(octet), out);
            }
        }
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
