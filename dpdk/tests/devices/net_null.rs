use dataplane::io::{BURST, Burst, PacketBuf, PacketIo, PortId, PortStats};
use dpdk::{DpdkIo, Error, PortConfig};

use crate::setup::{OTHER, PORT, frame, init, io, pool, receive, started};

#[test]
fn bursts_are_full_and_counted() {
    let eal = init(&["net_null0,size=96"]);
    let pool = pool(&eal, 1023);
    let mut io = io(&eal, &["net_null0"], &pool);
    assert_eq!(io.ports(), 1);
    let mut burst = receive(&mut io, PORT);
    assert_eq!(burst.len(), BURST);
    assert!(burst.iter().all(|mbuf| mbuf.bytes().len() == 96));
    io.tx_burst(PORT, &mut burst);
    assert!(burst.is_empty());
    assert_eq!(pool.in_use(), 0, "the device frees what it sends");
    let expected = PortStats { rx_packets: BURST as u64, tx_packets: BURST as u64, ..PortStats::default() };
    assert_eq!(io.port_stats(PORT), expected);
}

#[test]
fn receiving_appends_and_stops_at_a_full_burst() {
    let eal = init(&["net_null0"]);
    let pool = pool(&eal, 1023);
    let mut io = io(&eal, &["net_null0"], &pool);
    let mut burst = Burst::new();
    let held = (BURST - 2) as u8;
    for number in 0..held {
        let mbuf = frame(&mut io, &[number; 20]);
        burst.push(mbuf);
    }
    io.rx_burst(PORT, &mut burst);
    assert_eq!(burst.len(), BURST);
    assert!(
        burst.iter().zip(0..held).all(|(mbuf, number)| mbuf.bytes() == [number; 20]),
        "the first ones stay"
    );
    assert_eq!(io.port_stats(PORT).rx_packets, 2);
    io.rx_burst(PORT, &mut burst);
    assert_eq!((burst.len(), io.port_stats(PORT).rx_packets), (BURST, 2));
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

/// All of a burst may have to leave by one port, at once.
#[test]
fn a_burst_takes_half_of_the_descriptors_of_a_port_at_most() {
    let eal = init(&["net_null0", "net_null1"]);
    let pool = pool(&eal, 1023);
    let mut port = eal.port("net_null0").unwrap();
    let config = PortConfig { tx_descriptors: 96, ..PortConfig::default() };
    port.configure(&config, &pool).unwrap();
    port.start().unwrap();
    let other = started(eal.port("net_null1").unwrap(), &pool);
    let mut io = DpdkIo::new(vec![port, other], pool.clone()).unwrap();
    assert_eq!(receive(&mut io, PORT).len(), 48);
    let mut burst = receive(&mut io, OTHER);
    assert_eq!(burst.len(), 48);
    io.rx_burst(OTHER, &mut burst);
    assert_eq!(burst.len(), 48);
    burst.truncate(40);
    io.rx_up_to(44, OTHER, &mut burst);
    io.rx_up_to(44, OTHER, &mut burst);
    io.rx_up_to(20, OTHER, &mut burst);
    assert_eq!(burst.len(), 44);
}

#[test]
fn an_empty_pool_receives_nothing() {
    let eal = init(&["net_null0"]);
    let pool = pool(&eal, 511);
    let mut io = io(&eal, &["net_null0"], &pool);
    let held: Vec<_> = std::iter::from_fn(|| io.alloc()).collect();
    assert_eq!(held.len(), 511);
    assert!(receive(&mut io, PORT).is_empty());
    drop(held);
    assert_eq!(receive(&mut io, PORT).len(), BURST);
}

#[test]
fn ports_that_do_not_exist_do_nothing() {
    let eal = init(&["net_null0"]);
    let pool = pool(&eal, 63);
    let mut io = io(&eal, &["net_null0"], &pool);
    assert!(receive(&mut io, OTHER).is_empty());
    let mut burst = Burst::new();
    burst.push(io.alloc().unwrap());
    io.tx_burst(PortId(255), &mut burst);
    assert_eq!(burst.len(), 1);
    assert_eq!(io.port_stats(OTHER), PortStats::default());
    assert!(io.port(OTHER).is_none());
}

#[test]
fn a_port_has_states() {
    let eal = init(&["net_null0"]);
    let pool = pool(&eal, 511);
    let mut port = eal.port("net_null0").unwrap();
    assert!(matches!(port.start(), Err(Error::State { found: "not configured", .. })));
    port.configure(&PortConfig::default(), &pool).unwrap();
    let Err(error) = DpdkIo::new(vec![port], pool.clone()) else { panic!("a stopped port was taken") };
    assert_eq!(error.to_string(), "port net_null0 is stopped, but has to be started");

    eal.attach_vdev("net_null1", "").unwrap();
    let mut port = started(eal.port("net_null1").unwrap(), &pool);
    assert!(port.link().unwrap().up);
    assert!(matches!(
        port.configure(&PortConfig::default(), &pool),
        Err(Error::State { found: "started", .. })
    ));
    assert!(matches!(port.start(), Err(Error::State { .. })));
    port.stop().unwrap();
    port.stop().unwrap();
    port.configure(&PortConfig::default(), &pool).unwrap();
    let mut io = DpdkIo::new(vec![started(port, &pool)], pool.clone()).unwrap();
    assert_eq!(receive(&mut io, PORT).len(), BURST);
    for port in io.into_ports() {
        port.close().unwrap();
    }
    assert!(matches!(eal.port("net_null1"), Err(Error::NoPort(_))));
}

#[test]
fn a_port_says_what_it_is() {
    let eal = init(&["net_null0"]);
    let pool = pool(&eal, 63);
    let mut port = eal.port("net_null0").unwrap();
    let config = PortConfig { promiscuous: true, ..PortConfig::default() };
    port.configure(&config, &pool).unwrap();
    assert_eq!((port.device(), port.driver().unwrap().as_str()), ("net_null0", "net_null"));
    assert_eq!(port.mtu().unwrap(), 1500);
    let mac = port.mac().unwrap();
    assert_eq!(mac[0] & 3, 2, "a locally administered unicast address: {mac:x?}");
}

#[test]
fn an_mtu_beyond_the_buffers_names_the_largest() {
    let eal = init(&["net_null0"]);
    let pool = pool(&eal, 63);
    let mut port = eal.port("net_null0").unwrap();
    let config = PortConfig { mtu: 9000, ..PortConfig::default() };
    // 2048 less the Ethernet header, the FCS and a VLAN tag.
    let error = port.configure(&config, &pool).unwrap_err();
    assert_eq!(error.to_string(), "port net_null0: MTU 9000 is not possible; the largest is 2026");
}

#[test]
fn an_mtu_can_be_lowered_and_raised_again() {
    let eal = init(&["net_null0", "net_ring0"]);
    let pool = pool(&eal, 63);
    for device in ["net_null0", "net_ring0"] {
        let mut port = eal.port(device).unwrap();
        for mtu in [1500, 1400, 1280, 1500] {
            port.configure(&PortConfig { mtu, ..PortConfig::default() }, &pool).unwrap();
            assert_eq!(port.mtu().unwrap(), mtu, "{device}");
        }
    }
}
