use dpdk::{Eal, EalArguments, EalOptions, Error};

use crate::setup::{init, options};

#[test]
fn starts_once_per_process() {
    let eal = init(&[]);
    assert_eq!(dpdk::lcore(), 0, "this thread is the main lcore");
    let second = Eal::init(&EalArguments::new(&options(&[])));
    assert!(matches!(second, Err(Error::AlreadyInitialized)));
    drop(eal);
    let after_cleanup = Eal::init(&EalArguments::new(&options(&[])));
    assert!(matches!(after_cleanup, Err(Error::AlreadyInitialized)));
}

#[test]
fn refused_arguments_are_an_error_with_the_arguments() {
    let options = EalOptions { extra: vec!["--lcores=nonsense".to_owned()], ..options(&[]) };
    let Err(error) = Eal::init(&EalArguments::new(&options)) else { panic!("EAL took nonsense") };
    assert!(matches!(error, Error::Init { .. }), "{error}");
    assert!(error.to_string().contains("--lcores=nonsense"), "{error}");
}

#[test]
fn unknown_drivers_are_an_error() {
    let Err(error) = Eal::init(&EalArguments::new(&options(&["net_nosuchdriver0"]))) else {
        panic!("it started")
    };
    assert!(matches!(error, Error::Init { .. }), "{error}");
}

#[test]
fn the_affinity_is_left_alone_without_a_cpu() {
    let allowed = || dpdk::Machine::read().allowed_cpus;
    let before = allowed();
    let _eal = init(&[]);
    assert_eq!(allowed(), before);
}

#[test]
fn the_thread_is_pinned_to_the_cpu_of_the_options() {
    let first = dpdk::Machine::read().allowed_cpus;
    let first = first.split(['-', ',']).next().unwrap();
    let options = EalOptions { cpus: vec![first.parse().unwrap()], ..options(&[]) };
    let _eal = Eal::init(&EalArguments::new(&options)).unwrap();
    assert_eq!(dpdk::Machine::read().allowed_cpus, first);
}

#[test]
fn zero_bytes_do_not_reach_c() {
    let options = EalOptions { extra: vec!["a\0b".to_owned()], ..options(&[]) };
    assert!(matches!(Eal::init(&EalArguments::new(&options)), Err(Error::ZeroByte(text)) if text == "a\0b"));
}

#[test]
fn the_release_is_known_without_eal() {
    assert!(dpdk::version().starts_with("DPDK "), "{}", dpdk::version());
}

#[test]
fn ports_are_found_by_device_and_given_out_once() {
    let eal = init(&["net_null0"]);
    let port = eal.port("net_null0").unwrap();
    assert!(matches!(eal.port("net_null0"), Err(Error::PortTaken(_))));
    assert!(matches!(eal.port("net_null1"), Err(Error::NoPort(_))));
    drop(port);
    assert!(matches!(eal.port("net_null0"), Err(Error::NoPort(_))), "closed for good");
}

#[test]
fn devices_can_be_attached_later() {
    let eal = init(&[]);
    assert!(matches!(eal.port("net_null7"), Err(Error::NoPort(_))));
    eal.attach_vdev("net_null7", "size=100").unwrap();
    let port = eal.port("net_null7").unwrap();
    assert_eq!(port.driver().unwrap(), "net_null");
    let twice = eal.attach_vdev("net_null7", "");
    assert!(matches!(twice, Err(Error::PortTaken(_))), "{twice:?}");
    let unknown = eal.attach_vdev("net_nosuchdriver0", "");
    assert!(matches!(unknown, Err(Error::Call { call: "rte_eal_hotplug_add", .. })), "{unknown:?}");
}
