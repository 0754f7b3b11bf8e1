use dataplane::io::{Burst, PacketBuf, PacketIo, SHORT_BURST};
use dpdk::{DpdkIo, Error, ring_pair};

use crate::setup::{OTHER, PORT, frame, init, io, pool, receive, started};

#[test]
fn a_pair_is_crossed_and_keeps_order_and_bytes() {
    let eal = init(&[]);
    let pool = pool(&eal, 1023);
    let (a, b) = ring_pair(&eal, "wire", 64).unwrap();
    let mut io = DpdkIo::new(vec![started(a, &pool), started(b, &pool)], pool.clone()).unwrap();
    for (from, to) in [(PORT, OTHER), (OTHER, PORT)] {
        let mut burst = Burst::new();
        for number in 0..20 {
            let mbuf = frame(&mut io, &[number; 60]);
            burst.push(mbuf);
        }
        io.tx_burst(from, &mut burst);
        assert!(burst.is_empty());
        assert!(receive(&mut io, from).is_empty(), "not looped back");
        let received = receive(&mut io, to);
        let numbers: Vec<u8> = received.iter().map(|mbuf| mbuf.bytes()[0]).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<u8>>());
        assert!(received.iter().all(|mbuf| mbuf.bytes().len() == 60 && mbuf.bytes()[59] == mbuf.bytes()[0]));
    }
    for port in [PORT, OTHER] {
        let stats = io.port_stats(port);
        assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_errors, stats.tx_errors), (20, 20, 0, 0));
    }
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_full_ring_leaves_the_rest_in_the_burst() {
    let eal = init(&[]);
    let pool = pool(&eal, 1023);
    let (a, b) = ring_pair(&eal, "wire", 16).unwrap();
    let mut io = DpdkIo::new(vec![started(a, &pool), started(b, &pool)], pool.clone()).unwrap();
    let mut burst = Burst::new();
    for number in 0..SHORT_BURST as u8 {
        let mbuf = frame(&mut io, &[number; 60]);
        burst.push(mbuf);
    }
    io.tx_burst(PORT, &mut burst);
    let left: Vec<u8> = burst.iter().map(|mbuf| mbuf.bytes()[0]).collect();
    assert_eq!(left, (15..SHORT_BURST as u8).collect::<Vec<u8>>(), "15 fit into a ring of 16 slots");
    let received: Vec<u8> = receive(&mut io, OTHER).iter().map(|mbuf| mbuf.bytes()[0]).collect();
    assert_eq!(received, (0..15).collect::<Vec<u8>>());
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn frames_on_the_wire_are_given_back_when_the_pair_is_closed() {
    let eal = init(&[]);
    let pool = pool(&eal, 1023);
    let (a, b) = ring_pair(&eal, "wire", 64).unwrap();
    let mut io = DpdkIo::new(vec![started(a, &pool), started(b, &pool)], pool.clone()).unwrap();
    for port in [PORT, OTHER] {
        let mut burst = Burst::new();
        burst.extend((0..10).map(|_| io.alloc().unwrap()));
        io.tx_burst(port, &mut burst);
    }
    assert_eq!(pool.in_use(), 20);
    drop(io);
    assert_eq!(pool.in_use(), 0);
    ring_pair(&eal, "wire", 64).map(|_| ()).unwrap();
}

#[test]
fn pairs_that_cannot_be_are_errors() {
    let eal = init(&[]);
    let odd = ring_pair(&eal, "odd", 100);
    assert!(matches!(odd, Err(Error::Call { call: "rte_ring_create", .. })), "not a power of two");
    let (_a, _b) = ring_pair(&eal, "wire", 64).unwrap();
    assert!(matches!(ring_pair(&eal, "wire", 64), Err(Error::Call { .. })), "the name is in use");
}

#[test]
fn the_ring_device_loops_back() {
    let eal = init(&["net_ring0"]);
    let pool = pool(&eal, 1023);
    let mut io = io(&eal, &["net_ring0"], &pool);
    let mut burst = Burst::new();
    let mbuf = frame(&mut io, b"over the ring and back");
    burst.push(mbuf);
    io.tx_burst(PORT, &mut burst);
    assert!(burst.is_empty());
    let received = receive(&mut io, PORT);
    assert_eq!(received.iter().map(PacketBuf::bytes).collect::<Vec<_>>(), [b"over the ring and back"]);
}
