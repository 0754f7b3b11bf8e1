//! A capture file in, a capture file out.

use std::fs;
use std::path::PathBuf;

use dataplane::io::PacketIo;

use crate::setup::{PORT, init, io, pool, receive};

const SEED: u64 = 0x5EED_0001;

/// A stream of numbers that looks random: xorshift64*.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn frames() -> Vec<Vec<u8>> {
    let mut numbers = Numbers(SEED);
    let length = |index: usize| [14, 60, 64, 590, 1514][index % 5] + index / 20;
    (0..100).map(|index| (0..length(index).min(1514)).map(|_| numbers.next() as u8).collect()).collect()
}

/// A capture file of libpcap's classic format: little endian, microseconds, Ethernet.
fn write_capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xA1B2_C3D4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (index, frame) in frames.iter().enumerate() {
        for word in [1_700_000_000, index as u32, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn read_capture(file: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(word(20), 1, "Ethernet");
    let mut frames = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let (captured, original) = (word(at + 8), word(at + 12));
        assert_eq!(captured, original);
        frames.push(file[at + 16..at + 16 + captured].to_vec());
        at += 16 + captured;
    }
    frames
}

#[test]
fn what_is_received_from_a_file_and_sent_to_a_file_is_the_same() {
    println!("seed {SEED:#x}");
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("net_pcap-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (input, output) = (directory.join("in.pcap"), directory.join("out.pcap"));
    let frames = frames();
    fs::write(&input, write_capture(&frames)).unwrap();

    let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let eal = init(&[&device]);
    let pool = pool(&eal, 1023);
    let mut io = io(&eal, &["net_pcap0"], &pool);
    let mut moved = 0;
    loop {
        let mut burst = receive(&mut io, PORT);
        if burst.is_empty() {
            break;
        }
        moved += burst.len();
        io.tx_burst(PORT, &mut burst);
        assert!(burst.is_empty());
    }
    assert_eq!(moved, 100);
    let stats = io.port_stats(PORT);
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_errors, stats.tx_errors), (100, 100, 0, 0));
    assert_eq!(pool.in_use(), 0);
    drop(io);

    assert!(read_capture(&fs::read(&output).unwrap()) == frames, "seed {SEED:#x}: frames differ");
    fs::remove_dir_all(&directory).unwrap();
}
