use dataplane::io::PacketBuf;
use dpdk::{Error, Mempool, MempoolConfig};

use crate::setup::{init, pool};

#[test]
fn a_frame_grows_and_shrinks_within_its_buffer() {
    let eal = init(&[]);
    let pool = pool(&eal, 63);
    let mut mbuf = pool.alloc().unwrap();
    assert_eq!((mbuf.bytes().len(), mbuf.tailroom()), (0, 2048));
    assert!(mbuf.set_len(2048));
    mbuf.bytes_mut().fill(0xA5);
    assert_eq!(mbuf.tailroom(), 0);
    for too_long in [2049, 65_535, 65_536, 65_536 + 60, usize::MAX] {
        assert!(!mbuf.set_len(too_long), "{too_long}");
        assert_eq!(mbuf.bytes().len(), 2048);
    }
    assert!(mbuf.set_len(60));
    assert_eq!((mbuf.bytes(), mbuf.tailroom()), (&[0xA5; 60][..], 1988));
    assert!(mbuf.set_len(61), "up again");
    assert!(mbuf.set_len(0));
    assert!(mbuf.bytes().is_empty());
}

#[test]
fn an_empty_pool_gives_nothing_and_recovers() {
    let eal = init(&[]);
    let pool = pool(&eal, 63);
    let mut taken = Vec::new();
    while let Some(mbuf) = pool.alloc() {
        taken.push(mbuf);
    }
    assert_eq!(taken.len(), 63);
    assert_eq!((pool.available(), pool.in_use()), (0, 63));
    assert!(pool.alloc().is_none());
    let mut addresses: Vec<_> = taken.iter_mut().map(|mbuf| mbuf.bytes_mut().as_ptr()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 63, "no buffer was given out twice");
    drop(taken.pop());
    assert!(pool.alloc().is_some());
    drop(taken);
    assert_eq!((pool.available(), pool.in_use()), (63, 0));
}

#[test]
fn a_buffer_outlives_its_pool_and_eal() {
    let eal = init(&[]);
    let pool = pool(&eal, 63);
    let mut mbuf = pool.alloc().unwrap();
    drop(pool);
    drop(eal);
    assert!(mbuf.set_len(1500));
    mbuf.bytes_mut().fill(7);
    assert!(mbuf.bytes().iter().all(|&byte| byte == 7));
}

#[test]
fn a_pool_that_is_all_back_is_freed() {
    let eal = init(&[]);
    let first = pool(&eal, 63);
    let config = MempoolConfig { mbufs: 63, cache: 0, frame: 2048 };
    let same_name = Mempool::new(&eal, "frames", &config);
    assert!(matches!(same_name, Err(Error::Call { call: "rte_pktmbuf_pool_create", .. })));
    let second_handle = first.clone();
    drop(first);
    drop(second_handle.alloc().unwrap());
    drop(second_handle);
    Mempool::new(&eal, "frames", &config).map(|_| ()).unwrap();
}

#[test]
fn pools_that_cannot_be_are_errors() {
    let eal = init(&[]);
    for mbufs in [1 << 24, 0x7FFF_FFFE, 0x7FFF_FFFF, u32::MAX] {
        let config = MempoolConfig { mbufs, cache: 0, frame: 2048 };
        assert!(matches!(Mempool::new(&eal, "large", &config), Err(Error::Call { .. })), "{mbufs}");
    }
    let config = MempoolConfig { mbufs: 63, cache: 0, frame: u16::MAX };
    let Err(error) = Mempool::new(&eal, "wide", &config) else { panic!("no room for the headroom") };
    assert!(error.to_string().contains("frame too large"), "{error}");
}
