//! A worker of weir's over ports in memory, with a real configuration and its scripts.

use std::cell::Cell;
use std::path::Path;

use dataplane::channel::{Capacities, ControlEnd, channel};
use dataplane::memory::{MemoryIo, VecBuf};
use dataplane::mesh::Mesh;
use dataplane::pipeline::Pipeline;
use dataplane::worker::Worker;
use scripting::LuaPolicy;
use smoltcp::time::Instant;

thread_local! {
    static SCRIPT_CLOCK: Cell<u64> = const { Cell::new(0) };
}

/// Goes on by a microsecond each time it is read: a run of n thousand instructions takes about n microseconds.
fn script_clock() -> u64 {
    SCRIPT_CLOCK.with(|now| {
        now.set(now.get() + 1000);
        now.get()
    })
}

/// Own MAC address of a port of weir's.
pub fn weir_mac(port: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, port]
}

pub const OUTSIDE: u8 = 0;
pub const INSIDE: u8 = 1;

/// Interfaces and SNAT pool of most tests: clients outside, servers inside.
pub const TWO_ARMS: &str = r#"
[[interface]]
name = "outside"
device = "net_null0"
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]
[[interface]]
name = "inside"
device = "net_null1"
addresses = ["10.0.0.1/24", "2001:db8:2::1/64"]
[snat]
addresses = ["10.0.0.2", "2001:db8:2::2"]
ports = "20000-29999"
"#;

/// A worker and control's end of it.
pub type Seated = (Worker<MemoryIo, LuaPolicy>, ControlEnd);

/// weir as this text configures it, on so many workers.
pub fn build_all(toml: &str, workers: u8, now: Instant) -> Vec<Seated> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripting/examples");
    let config = match config::parse(toml, "test.toml", &examples) {
        Ok(config) => config,
        Err(errors) => panic!("{}", errors.render(false)),
    };
    let snapshot = config.snapshot;
    SCRIPT_CLOCK.set(0);
    let ports = u8::try_from(snapshot.interfaces.len()).unwrap();
    let macs: Vec<[u8; 6]> = (0..ports).map(weir_mac).collect();
    let seated = |mesh: Mesh<VecBuf>| {
        let policy = LuaPolicy::new(&snapshot, script_clock).unwrap_or_else(|errors| panic!("{errors:?}"));
        let seed = 0x5eed + u128::from(mesh.seat().number);
        let pipeline = Pipeline::new(snapshot.clone(), mesh.seat(), &macs, policy, seed, now).unwrap();
        let (end, control) = channel(Capacities::default());
        (Worker::new(MemoryIo::new(usize::from(ports)), pipeline, end, mesh).unwrap(), control)
    };
    Mesh::new(workers, usize::from(ports)).into_iter().map(seated).collect()
}
