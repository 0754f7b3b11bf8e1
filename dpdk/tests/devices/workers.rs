//! Several lcores with a queue pair each.

use std::ffi::CString;
use std::sync::mpsc::channel;

use dataplane::io::{BURST, Burst, PacketBuf, PacketIo};
use dpdk::{DpdkIo, Eal, EalArguments, EalOptions, Error, Mbuf, Port, PortConfig, Spreading};

use crate::setup::{PORT, options, pool, receive};

fn init(devices: &[&str], lcores: u8) -> Eal {
    Eal::init(&EalArguments::new(&EalOptions { lcores, ..options(devices) })).unwrap()
}

fn configured(eal: &Eal, device: &str, queues: u16, pool: &dpdk::Mempool) -> Result<Port, Error> {
    let mut port = eal.port(device)?;
    let config = PortConfig { rx_descriptors: 256, tx_descriptors: 512, queues, ..PortConfig::default() };
    port.configure(&config, pool)?;
    port.start()?;
    Ok(port)
}

#[test]
fn jobs_run_on_their_lcores_at_the_same_time() {
    let eal = init(&[], 3);
    let (to_second, from_first) = channel();
    let (to_first, from_second) = channel();
    let lcore = || dpdk::lcore();
    let jobs: Vec<Box<dyn FnOnce() -> (u32, u32) + Send>> = vec![
        Box::new(move || {
            to_second.send(7).unwrap();
            (lcore(), from_second.recv().unwrap())
        }),
        Box::new(move || {
            let heard = from_first.recv().unwrap();
            to_first.send(heard + 1).unwrap();
            (lcore(), heard)
        }),
        Box::new(move || (lcore(), 0)),
    ];
    assert_eq!(eal.run_on_lcores(jobs).unwrap(), [(0, 8), (1, 7), (2, 0)]);
    let again: Vec<Box<dyn FnOnce() -> u32 + Send>> = vec![Box::new(lcore), Box::new(lcore)];
    assert_eq!(eal.run_on_lcores(again).unwrap(), [0, 1], "lcores can be used again");
}

#[test]
fn more_jobs_than_lcores_are_refused_and_do_not_run() {
    let eal = init(&[], 2);
    let job = || -> Box<dyn FnOnce() + Send> { Box::new(|| panic!("it ran")) };
    let refused = eal.run_on_lcores(vec![job(), job(), job()]);
    assert!(matches!(refused, Err(Error::Lcores { wanted: 3, lcores: 2 })), "{refused:?}");
}

#[test]
fn a_panic_of_one_job_comes_out_when_the_others_have_ended() {
    let eal = init(&[], 2);
    let (sender, receiver) = channel();
    let jobs: Vec<Box<dyn FnOnce() + Send>> =
        vec![Box::new(move || sender.send(1).unwrap()), Box::new(|| panic!("on purpose"))];
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eal.run_on_lcores(jobs)));
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(receiver.recv(), Ok(1));
}

/// net_null takes key and table, and gives them back, as a card does.
#[test]
fn a_device_with_rss_gets_key_and_table() {
    let eal = init(&["net_null0"], 1);
    let pool = pool(&eal, 1023);
    let port = configured(&eal, "net_null0", 3, &pool).unwrap();
    assert_eq!(port.spreading(), Spreading::Rss);
}

/// Lets a device hash this from now on, as somebody else or a driver's own mind might.
fn hash(device: &str, types: u64) {
    let (mut id, name) = (0, CString::new(device).unwrap());
    // SAFETY: a string that ends with a zero, and one number is written.
    assert_eq!(unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) }, 0);
    // SAFETY: a plain C struct of numbers and a pointer; without a key the device keeps the one that it has.
    let mut conf: dpdk_sys::rte_eth_rss_conf = unsafe { std::mem::zeroed() };
    conf.rss_hf = types;
    // SAFETY: the port exists and is configured; the struct is read.
    assert_eq!(unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(id, &raw mut conf) }, 0);
}

/// net_null keeps what it is told while it is stopped, so that the next start finds it.
#[test]
fn a_device_that_does_not_hash_ports_as_asked_is_taken_for_one_without_rss() {
    let eal = init(&["net_null0"], 1);
    let pool = pool(&eal, 1023);
    let mut port = configured(&eal, "net_null0", 3, &pool).unwrap();
    let ports = dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP
        | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP
        | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP
        | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP;
    for (types, spreading) in [
        (ports, Spreading::Rss),
        (ports & !dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP | dpdk_sys::RTE_ETH_RSS_IPV4, Spreading::Device),
    ] {
        assert_eq!(port.spreading(), Spreading::Rss);
        port.stop().unwrap();
        hash("net_null0", types);
        port.start().unwrap();
        assert_eq!(port.spreading(), spreading, "{types:x}");
    }
}

#[test]
fn a_device_without_rss_or_with_one_queue_says_so() {
    let eal = init(&["net_null0", "net_af_packet0,iface=lo,qpairs=2"], 1);
    let pool = pool(&eal, 4095);
    assert_eq!(configured(&eal, "net_null0", 1, &pool).unwrap().spreading(), Spreading::OneQueue);
    assert_eq!(configured(&eal, "net_af_packet0", 2, &pool).unwrap().spreading(), Spreading::Device);
}

#[test]
fn a_device_with_too_few_queues_is_refused_with_the_way_out() {
    let eal = init(&["net_af_packet0,iface=lo,qpairs=1"], 1);
    let pool = pool(&eal, 1023);
    let Err(error) = configured(&eal, "net_af_packet0", 2, &pool) else { panic!("it has one queue") };
    let expected = "port net_af_packet0 has 1 transmit queues, but 2 workers need one each; workers = 1 is possible with it";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn each_worker_has_its_queues_and_buffers_change_hands() {
    let eal = init(&["net_null0"], 2);
    let pool = pool(&eal, 1023);
    let port = configured(&eal, "net_null0", 2, &pool).unwrap();
    let too_many = DpdkIo::split(vec![port], pool.clone(), 3);
    assert!(matches!(too_many.map(|_| ()), Err(Error::Queues { wanted: 3, max: 2, .. })));
    eal.attach_vdev("net_null1", "").unwrap();
    let port = configured(&eal, "net_null1", 2, &pool).unwrap();
    let mut all = DpdkIo::split(vec![port], pool.clone(), 2).unwrap();
    let (mut second, mut first) = (all.pop().unwrap(), all.pop().unwrap());
    let (sender, receiver) = channel::<Mbuf>();
    let jobs: Vec<Box<dyn FnOnce() -> usize + Send>> = vec![
        Box::new(move || {
            let burst = receive(&mut first, PORT);
            let count = burst.len();
            burst.into_iter().for_each(|mbuf| sender.send(mbuf).unwrap());
            count
        }),
        Box::new(move || {
            let mut burst: Burst<Mbuf> = receiver.iter().collect();
            assert!(burst.iter_mut().all(|mbuf| mbuf.set_len(100)));
            second.tx_burst(PORT, &mut burst);
            BURST - burst.len()
        }),
    ];
    assert_eq!(eal.run_on_lcores(jobs).unwrap(), [BURST, BURST]);
    assert_eq!(pool.in_use(), 0);
}
