use dataplane::proxy_protocol::{MOST_V2, Parsed, Version, emit, parse};

/// The front of a connection: what is settled at one byte stays so with more of them, a header is as long as it says and
/// within bounds, and what it names is read back after writing it in either version.
pub fn proxy_protocol(data: &[u8]) {
    let whole = parse(data);
    let settled = (0..=data.len()).find(|end| parse(&data[..*end]) != Parsed::Incomplete);
    if let Some(end) = settled {
        assert_eq!(parse(&data[..end]), whole, "changed after {end} bytes");
    } else {
        assert!(data.len() < MOST_V2, "a header that never ends");
    }
    let Parsed::Header { length, endpoints } = whole else { return };
    assert_eq!(settled, Some(length), "it ends with its last byte");
    assert!((15..=MOST_V2).contains(&length));
    for version in [Version::V1, Version::V2] {
        let Some(named) = endpoints else { continue };
        let written = emit(version, &named);
        assert_eq!(parse(&written), Parsed::Header { length: written.len(), endpoints });
    }
}
