use super::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

fn seeded() -> Config {
    Config {
        cases: 512,
        rng_seed: RngSeed::Fixed(0x7072_6f78),
        failure_persistence: None,
        ..Config::default()
    }
}

fn between(source: &str, destination: &str) -> Endpoints {
    Endpoints { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn header(length: usize, source: &str, destination: &str) -> Parsed {
    Parsed::Header { length, endpoints: Some(between(source, destination)) }
}

/// The specification's own examples of the longest lines.
#[test]
fn lines_as_the_specification_gives_them() {
    let ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let largest = format!("[{ones}]:65535");
    let (v4, v6) = ("255.255.255.255 255.255.255.255 65535 65535", format!("{ones} {ones} 65535 65535"));
    for (line, length, expected) in [
        (format!("PROXY TCP4 {v4}\r\n"), 56, header(56, "255.255.255.255:65535", "255.255.255.255:65535")),
        (format!("PROXY TCP6 {v6}\r\n"), 104, header(104, &largest, &largest)),
        ("PROXY UNKNOWN\r\n".to_owned(), 15, Parsed::Header { length: 15, endpoints: None }),
        (format!("PROXY UNKNOWN {v6}\r\n"), 107, Parsed::Header { length: 107, endpoints: None }),
    ] {
        assert_eq!((line.len(), parse(line.as_bytes())), (length, expected), "{line}");
    }
    let example = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
    assert_eq!(parse(example), header(47, "192.168.0.1:56324", "192.168.0.11:443"));
}

#[test]
fn lines_as_they_are_written() {
    let v4 = between("192.0.2.1:1", "198.51.100.2:65535");
    assert_eq!(emit(Version::V1, &v4).as_slice(), b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65535\r\n");
    let v6 = between("[2001:db8::1]:4000", "[2001:db8:1::10]:443");
    assert_eq!(emit(Version::V1, &v6).as_slice(), b"PROXY TCP6 2001:db8::1 2001:db8:1::10 4000 443\r\n");
    let mixed = between("[2001:db8::1]:4000", "192.0.2.10:443");
    let line = b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.10 4000 443\r\n";
    assert_eq!(emit(Version::V1, &mixed).as_slice(), line);
}

#[test]
fn health_checks_name_nobody() {
    assert_eq!(own(Version::V1), b"PROXY UNKNOWN\r\n");
    let v2 = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x20, 0, 0, 0];
    assert_eq!(own(Version::V2), v2);
    for version in [Version::V1, Version::V2] {
        let length = own(version).len();
        assert_eq!(parse(own(version)), Parsed::Header { length, endpoints: None });
    }
}

#[test]
fn version_2_as_it_is_written() {
    let v4 = emit(Version::V2, &between("192.0.2.1:258", "198.51.100.2:443"));
    let signature = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
    let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 1, 0xbb];
    assert_eq!(v4.as_slice(), [&signature[..], &rest].concat());
    let v6 = emit(Version::V2, &between("[2001:db8::1]:258", "[2001:db8::2]:443"));
    let address = |last| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let rest = [&[0x21, 0x21, 0, 36][..], &address(1), &address(2), &[1, 2, 1, 0xbb]].concat();
    assert_eq!(v6.as_slice(), [&signature[..], &rest].concat());
}

#[test]
fn what_is_no_header_is_known_at_its_first_wrong_byte() {
    assert_eq!(parse(b""), Parsed::Incomplete);
    for wrong in [
        &b"G"[..],
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXIES",
        b"PROXY\r\n",
        b"proxy ",
        b"\r\n\r\nQ",
        b"PROXY TCP4\n",
        b"PROXY TCP4 \xff",
        b"PROXY UNKNOWN\rx",
        b"PROXY \r\n",
        b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
        b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2  2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%1 ::2 1 2\r\n",
        b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
    ] {
        assert_eq!(parse(wrong), Parsed::Invalid, "{}", wrong.escape_ascii());
    }
}

#[test]
fn a_line_has_to_end_within_107_bytes() {
    let mut line = b"PROXY UNKNOWN ".to_vec();
    line.resize(105, b'x');
    assert_eq!(parse(&line), Parsed::Incomplete);
    assert_eq!(parse(&[&line, &b"\r"[..]].concat()), Parsed::Incomplete);
    assert_eq!(parse(&[&line, &b"\r\n"[..]].concat()), Parsed::Header { length: 107, endpoints: None });
    for longer in [&b"x"[..], b"x\r", b"x\r\n", b"xxxxxxxxxxx"] {
        assert_eq!(parse(&[&line, longer].concat()), Parsed::Invalid);
    }
}

/// A header of version 2 with these fields, put together by hand.
fn v2(command: u8, family: u8, announced: u16, block: &[u8]) -> Vec<u8> {
    let mut bytes =
        vec![0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, command, family];
    bytes.push((announced / 256) as u8);
    bytes.push((announced % 256) as u8);
    bytes.extend_from_slice(block);
    bytes
}

#[test]
fn commands_and_families_of_version_2() {
    let block = [7u8; 216];
    for family in 0..=255u8 {
        // The sender's own connection, whatever it writes there.
        let own = Parsed::Header { length: 26, endpoints: None };
        assert_eq!(parse(&v2(0x20, family, 10, &block)), own);
        let expected = match family {
            0x11 => header(232, "7.7.7.7:1799", "7.7.7.7:1799"),
            0x21 => {
                let socket = "[707:707:707:707:707:707:707:707]:1799";
                header(232, socket, socket)
            }
            // UNSPEC, datagrams, Unix sockets, and pairs that mean nothing.
            0x00 | 0x01 | 0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30 | 0x31 | 0x32 => {
                Parsed::Header { length: 232, endpoints: None }
            }
            _ => Parsed::Invalid,
        };
        assert_eq!(parse(&v2(0x21, family, 216, &block)), expected, "{family:x}");
    }
    for command in (0..=255u8).filter(|command| !matches!(command, 0x20 | 0x21)) {
        assert_eq!(parse(&v2(command, 0x11, 12, &block)), Parsed::Invalid, "{command:x}");
        // Known before the rest has come.
        assert_eq!(parse(&v2(command, 0x11, 12, &[])[..13]), Parsed::Invalid);
    }
}

#[test]
fn lengths_of_version_2() {
    for (family, least) in [(0x11, 12), (0x21, 36), (0x00, 0), (0x31, 0)] {
        if least > 0 {
            assert_eq!(parse(&v2(0x21, family, least - 1, &[1; 100])), Parsed::Invalid);
        }
        let announced = 2048 - 16;
        let whole = v2(0x21, family, announced, &[1; 2048 - 16]);
        assert!(matches!(parse(&whole), Parsed::Header { length: 2048, .. }));
        assert_eq!(parse(&whole[..2047]), Parsed::Incomplete);
        assert_eq!(parse(&v2(0x21, family, announced + 1, &[])), Parsed::Invalid);
        assert_eq!(parse(&v2(0x21, family, 65535, &[])), Parsed::Invalid);
    }
}

#[test]
fn ipv4_addresses_in_the_form_of_ipv6_are_ipv4_addresses() {
    let line = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:20a 4000 443\r\n";
    assert_eq!(parse(line), header(line.len(), "192.0.2.1:4000", "192.0.2.10:443"));
}

prop_compose! {
    fn any_endpoints()(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> Endpoints {
        super::between((source, ports.0), (destination, ports.1))
    }
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

/// What a header means, read as the specification words it, without regard to cost.
fn model(bytes: &[u8]) -> Parsed {
    let signature: Vec<u8> = vec![13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10];
    let shared = |start: &[u8]| bytes.len().min(start.len());
    if bytes[..shared(&signature)] == signature[..shared(&signature)] && bytes.first() == Some(&13) {
        return model_v2(bytes);
    }
    if bytes[..shared(b"PROXY ")] != b"PROXY "[..shared(b"PROXY ")] {
        return Parsed::Invalid;
    }
    let Some(end) = bytes.windows(2).take(106).position(|two| two == b"\r\n") else {
        let body = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let open = body.len() <= 105 && body.iter().all(|byte| *byte >= 32 && *byte < 127);
        return if open { Parsed::Incomplete } else { Parsed::Invalid };
    };
    if bytes[..end].iter().any(|byte| *byte < 32 || *byte > 126) {
        return Parsed::Invalid;
    }
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let socket = |family: &str, address: &str, port: &str| -> Option<SocketAddr> {
        let number: u16 = port.parse().ok()?;
        let ip: IpAddr = address.parse().ok()?;
        let right = number.to_string() == port && ip.is_ipv4() == (family == "TCP4");
        right.then(|| SocketAddr::new(ip.to_canonical(), number))
    };
    let endpoints = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            match (socket(family, from, from_port), socket(family, to, to_port)) {
                (Some(source), Some(destination)) => Some(Endpoints { source, destination }),
                _ => return Parsed::Invalid,
            }
        }
        _ => return Parsed::Invalid,
    };
    Parsed::Header { length: end + 2, endpoints }
}

fn model_v2(bytes: &[u8]) -> Parsed {
    let at = |index: usize| bytes.get(index).map(|byte| u32::from(*byte));
    let version_and_command = at(12).map(|byte| (byte / 16, byte % 16));
    match version_and_command {
        None => return Parsed::Incomplete,
        Some((2, 0 | 1)) => {}
        Some(_) => return Parsed::Invalid,
    }
    let (Some(family), Some(high), Some(low)) = (at(13), at(14), at(15)) else { return Parsed::Incomplete };
    let announced = high * 256 + low;
    let proxied = version_and_command == Some((2, 1));
    let size = match (family / 16, family % 16) {
        _ if !proxied => 0,
        (1, 1) => 4,
        (2, 1) => 16,
        (0..=3, 0..=2) => 0,
        _ => return Parsed::Invalid,
    };
    let least = if size == 0 { 0 } else { 2 * size + 4 };
    if announced < least as u32 || announced > 2032 {
        return Parsed::Invalid;
    }
    if bytes.len() < 16 + announced as usize {
        return Parsed::Incomplete;
    }
    let address = |from: usize| -> IpAddr {
        let text = &bytes[from..from + size];
        match size {
            4 => text.iter().map(u8::to_string).collect::<Vec<_>>().join(".").parse().unwrap(),
            _ => {
                let groups: Vec<String> =
                    text.chunks(2).map(|two| format!("{:02x}{:02x}", two[0], two[1])).collect();
                groups.join(":").parse().unwrap()
            }
        }
    };
    let port = |from: usize| u16::from(bytes[from]) * 256 + u16::from(bytes[from + 1]);
    let ports = 16 + 2 * size;
    let endpoints = (size > 0).then(|| Endpoints {
        source: SocketAddr::new(address(16).to_canonical(), port(ports)),
        destination: SocketAddr::new(address(16 + size).to_canonical(), port(ports + 2)),
    });
    Parsed::Header { length: 16 + announced as usize, endpoints }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn what_is_written_is_read_back_at_whatever_byte_it_is_cut(
        endpoints in any_endpoints(), version in any_version(), payload: Vec<u8>,
    ) {
        let header = emit(version, &endpoints);
        for cut in 0..header.len() {
            prop_assert_eq!(parse(&header[..cut]), Parsed::Incomplete);
        }
        let expected = Parsed::Header { length: header.len(), endpoints: Some(endpoints) };
        prop_assert_eq!(parse(&header), expected);
        prop_assert_eq!(parse(&[&header, payload.as_slice()].concat()), expected);
    }

    #[test]
    fn tlvs_belong_to_the_header_and_are_passed_over(
        endpoints in any_endpoints(), tlvs in proptest::collection::vec(any::<u8>(), 0..600), payload: Vec<u8>,
    ) {
        let mut header = emit(Version::V2, &endpoints).to_vec();
        let announced = header.len() - 16 + tlvs.len();
        header[14] = (announced / 256) as u8;
        header[15] = (announced % 256) as u8;
        header.extend_from_slice(&tlvs);
        for cut in 0..header.len() {
            prop_assert_eq!(parse(&header[..cut]), Parsed::Incomplete);
        }
        let expected = Parsed::Header { length: header.len(), endpoints: Some(endpoints) };
        prop_assert_eq!(parse(&[header, payload].concat()), expected);
    }

    #[test]
    fn garbage_is_what_the_model_says(bytes: Vec<u8>, start in 0usize..3) {
        let start = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][start];
        let bytes = [start, &bytes].concat();
        prop_assert_eq!(parse(&bytes), model(&bytes));
    }

    #[test]
    fn a_header_with_mistakes_is_what_the_model_says(
        endpoints in any_endpoints(), version in any_version(), payload: Vec<u8>,
        edits in proptest::collection::vec((0usize..120, 0u8..4, any::<u8>(), any::<bool>()), 0..4), cut in 0usize..200,
    ) {
        let mut bytes = [emit(version, &endpoints).as_slice(), &payload].concat();
        for (at, kind, value, likely) in edits {
            let value = if likely { b" 0:.\r\nTCPU46"[usize::from(value) % 12] } else { value };
            let at = at.min(bytes.len().saturating_sub(1));
            match kind {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                2 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 1 << (value % 8),
            }
        }
        bytes.truncate(if cut < 150 { cut } else { bytes.len() });
        prop_assert_eq!(parse(&bytes), model(&bytes));
    }

    #[test]
    fn fields_of_version_2_are_what_the_model_says(
        command in prop_oneof![3 => Just(0x21u8), 1 => Just(0x20), 1 => any::<u8>()],
        family in prop_oneof![2 => Just(0x11u8), 2 => Just(0x21), 1 => 0u8..0x44, 1 => any::<u8>()],
        announced in prop_oneof![4 => 0u16..80, 1 => 2000u16..2100, 1 => any::<u16>()],
        block in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let bytes = v2(command, family, announced, &block);
        prop_assert_eq!(parse(&bytes), model(&bytes));
    }

    /// Once invalid, no further bytes make it a header; a header stays the same header.
    #[test]
    fn more_bytes_do_not_change_what_is_settled(bytes: Vec<u8>, more: Vec<u8>, start in 0usize..3) {
        let start = [&b""[..], b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n\x21"][start];
        let bytes = [start, &bytes].concat();
        let (before, after) = (parse(&bytes), parse(&[bytes.as_slice(), &more].concat()));
        prop_assert!(before == Parsed::Incomplete || before == after, "{:?} then {:?}", before, after);
    }
}
