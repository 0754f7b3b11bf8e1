use super::*;

/// What is in a file: by a reader that was written for these tests alone, from draft-ietf-opsawg-pcapng.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Section,
    Interface {
        name: String,
        resolution: u8,
        link: u16,
    },
    Packet {
        interface: u32,
        nanos: u64,
        length: u32,
        data: Vec<u8>,
        flags: u32,
        comment: String,
        lost: Option<u64>,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Code and value of each option, which must end with the one that says so.
fn options(mut bytes: &[u8]) -> HashMap<u16, Vec<u8>> {
    let mut found = HashMap::new();
    while !bytes.is_empty() {
        let (code, length) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 4));
            return found;
        }
        assert!(found.insert(code, bytes[4..4 + length].to_vec()).is_none(), "option {code} twice");
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    assert!(found.is_empty(), "options without an end");
    found
}

fn blocks(mut file: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let (kind, length) = (u32_at(file, 0), u32_at(file, 4) as usize);
        assert_eq!((length % 4, u32_at(file, length - 4) as usize), (0, length));
        let body = &file[8..length - 4];
        blocks.push(match kind {
            0x0a0d_0d0a => {
                assert_eq!((u32_at(body, 0), u16_at(body, 4)), (0x1a2b_3c4d, 1));
                Block::Section
            }
            1 => {
                let options = options(&body[8..]);
                let name = String::from_utf8(options[&2].clone()).unwrap();
                Block::Interface { name, resolution: options[&9][0], link: u16_at(body, 0) }
            }
            6 => {
                let captured = u32_at(body, 12) as usize;
                let options = options(&body[20 + captured.next_multiple_of(4)..]);
                Block::Packet {
                    interface: u32_at(body, 0),
                    nanos: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                    length: u32_at(body, 16),
                    data: body[20..20 + captured].to_vec(),
                    flags: u32_at(&options[&2], 0),
                    comment: options
                        .get(&1)
                        .map_or(String::new(), |text| String::from_utf8(text.clone()).unwrap()),
                    lost: options.get(&4).map(|lost| u64::from_le_bytes(lost.as_slice().try_into().unwrap())),
                }
            }
            other => panic!("a block of type {other}"),
        });
        file = &file[length..];
    }
    blocks
}

const STREAM: &str = r#"
{"event":"armed","interfaces":["outside","inside"]}
{"event":"begin","flow":1,"time":"2026-11-26T10:00:00.000001000Z","text":"udp 192.0.2.7:4000 > 192.0.2.10:53"}
{"event":"received","flow":1,"time":"2026-11-26T10:00:00.000001000Z","text":"received","interface":"outside","length":70,"frame":"0102030405"}
{"event":"new","flow":1,"time":"2026-11-26T10:00:00.000001000Z","text":"new flow of service dns"}
{"event":"chosen","flow":1,"time":"2026-11-26T10:00:00.000001000Z","text":"a script chose pool a: 10.0.0.21:53 of pool a"}
{"event":"verdict","flow":1,"time":"2026-11-26T10:00:00.000001000Z","text":"forwarded by inside","verdict":"forwarded","interface":"inside","length":70,"frame":"a102"}
{"event":"lost","events":3}
{"event":"begin","flow":2,"time":"2026-11-26T10:00:01.000000000Z","text":"tcp 192.0.2.7:4001 > 192.0.2.10:81"}
{"event":"received","flow":2,"time":"2026-11-26T10:00:01.000000000Z","text":"received","interface":"outside","length":60,"frame":"ff"}
{"event":"verdict","flow":2,"time":"2026-11-26T10:00:01.000000000Z","text":"DROPPED: no_service","verdict":"dropped","reason":"no_service"}
{"event":"sent","flow":2,"time":"2026-11-26T10:00:01.000002000Z","text":"sent by outside: tcp","interface":"outside","length":54,"frame":"fe"}
{"event":"received","flow":1,"time":"2026-11-26T10:00:02.000000000Z","text":"received","interface":"inside","length":9,"frame":"00"}
{"event":"verdict","flow":1,"time":"2026-11-26T10:00:02.000000000Z","text":"handed over to worker 1","verdict":"handed_over"}
{"event":"received","flow":1,"time":"2026-11-26T10:00:02.000000000Z","text":"received","interface":"inside","length":9,"frame":"11"}
{"event":"over","why":"the time is over","flows":2,"events":12,"lost":3}
"#;

fn written(limits: Limits) -> (Vec<Block>, u64) {
    let mut capture = Capture::new(Vec::new(), limits).unwrap();
    for line in STREAM.trim().lines() {
        if !capture.line(line).unwrap() {
            break;
        }
    }
    let packets = capture.packets();
    (blocks(&capture.finish().unwrap()), packets)
}

/// 2026-11-26T10:00:00Z.
const TEN: u64 = 1_795_687_200_000_000_000;

fn packet(interface: u32, nanos: u64, length: u32, data: &[u8], flags: u32, comment: &str) -> Block {
    let (nanos, comment) = (TEN + nanos, comment.to_owned());
    Block::Packet { interface, nanos, length, data: data.to_vec(), flags, comment, lost: None }
}

#[test]
fn packets_as_received_and_as_sent_with_what_happened_to_them() {
    let interface = |name: &str| Block::Interface { name: name.to_owned(), resolution: 9, link: 1 };
    let one = "weir flow 1: udp 192.0.2.7:4000 > 192.0.2.10:53";
    let two = "weir flow 2: tcp 192.0.2.7:4001 > 192.0.2.10:81";
    let choice = "a script chose pool a: 10.0.0.21:53 of pool a";
    let mut dropped = packet(0, 1_000_000_000, 60, &[0xff], 1, &format!("{two}\nDROPPED: no_service"));
    if let Block::Packet { lost, .. } = &mut dropped {
        *lost = Some(3);
    }
    let expected = [
        Block::Section,
        interface("outside"),
        interface("inside"),
        packet(
            0,
            1000,
            70,
            &[1, 2, 3, 4, 5],
            1,
            &format!("{one}\nnew flow of service dns\n{choice}\nforwarded by inside"),
        ),
        packet(1, 1000, 70, &[0xa1, 2], 2, &format!("{one}\n{choice}")),
        dropped,
        packet(0, 1_000_002_000, 54, &[0xfe], 2, &format!("{two}\nweir sent by outside")),
        // Nobody said what became of it, and what was handed over is not there twice.
        packet(1, 2_000_000_000, 9, &[0x11], 1, &format!("{one}\n{choice}")),
    ];
    assert_eq!(written(Limits::default()), (expected.into(), 4));
}

#[test]
fn it_stops_at_its_limits() {
    let (blocks, packets) = written(Limits { packets: Some(1), bytes: None });
    assert_eq!((blocks.len(), packets), (5, 2), "a packet leaves with the one that it was");
    let (blocks, _) = written(Limits { packets: None, bytes: Some(100) });
    assert_eq!(blocks.len(), 3);
}

#[test]
fn what_is_no_trace_is_refused() {
    let mut capture = Capture::new(Vec::new(), Limits::default()).unwrap();
    assert!(matches!(capture.line("flows"), Err(Error::Line(_))));
    assert!(matches!(capture.line(r#"{"event":"new"}"#), Err(Error::Line(_))));
}
