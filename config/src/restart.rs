//! What a running weir cannot change.

use dataplane::io::PortId;
use dataplane::snapshot::{Interface, Limits, Snapshot, SnatPool};
use dataplane::steering::by_client::Spread;

use crate::Config;
use crate::process::{DpdkSettings, ProcessSettings, Workers};

/// The keys of a struct that are different. A field that is not listed does not compile.
macro_rules! different {
    ($path:literal, $type:ident { $($field:ident $(as $key:literal)?),* $(, _: $($passed:ident),*)? }, $one:expr, $other:expr) => {{
        let $type { $($field,)* $($($passed: _,)*)? } = $one;
        let mut keys: Vec<String> = Vec::new();
        $( if *$field != $other.$field {
            let key = [$($key,)? stringify!($field)][0];
            keys.push(format!(concat!($path, "{}"), key));
        } )*
        keys
    }};
}

impl Config {
    /// The keys of `next` that are different and need a restart, because memory, devices and threads were made by them when
    /// weir started: `[[interface]]`, `[[route]]`, `[snat]`, `[limits]`, `[dpdk]`, `[log]`, `[admin]`. Empty: all that is
    /// different can be changed while weir runs.
    #[must_use]
    pub fn needs_restart(&self, next: &Config) -> Vec<String> {
        let (one, other) = (&*self.snapshot, &*next.snapshot);
        let mut keys = interfaces(self, next);
        if one.routes != other.routes {
            keys.push("route".to_owned());
        }
        keys.extend(different!(
            "snat.",
            SnatPool { addresses, first_port as "ports", last_port as "ports" },
            &one.snat,
            other.snat
        ));
        keys.extend(different!(
            "limits.",
            Limits {
                flows,
                embryonic,
                syn_cookies_above,
                waiting,
                spliced,
                neighbors,
                fragment_memory,
                script_budget,
                script_memory
            },
            &one.limits,
            other.limits
        ));
        keys.extend(process(&self.process, &next.process));
        if self.process.dpdk.workers != Workers::Count(1) && is_spread_differently(one, other) {
            keys.push(
                "virtual_service.preserve_client_ip (the workers' packets are spread by it)".to_owned(),
            );
        }
        keys.dedup();
        keys
    }
}

/// True if devices would have to spread packets over the workers by something else.
fn is_spread_differently(one: &Snapshot, other: &Snapshot) -> bool {
    let spread = |snapshot: &Snapshot| -> Vec<Spread> {
        (0..).map(PortId).zip(&snapshot.interfaces).map(|(port, _)| Spread::of(snapshot, port)).collect()
    };
    spread(one) != spread(other)
}

fn interfaces(one: &Config, other: &Config) -> Vec<String> {
    let (before, after) = (&one.snapshot.interfaces, &other.snapshot.interfaces);
    let names = |interfaces: &[Interface]| interfaces.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
    if names(before) != names(after) {
        return vec!["interface".to_owned()];
    }
    let mut keys = Vec::new();
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        let found = different!("interface.", Interface { addresses, vlan, mtu, _: name }, before, after);
        keys.extend(found.into_iter().map(|key| format!("{key} of '{}'", before.name)));
        if one.process.devices.get(index) != other.process.devices.get(index) {
            keys.push(format!("interface.device of '{}'", before.name));
        }
    }
    keys
}

fn process(one: &ProcessSettings, other: &ProcessSettings) -> Vec<String> {
    let mut keys = different!(
        "",
        ProcessSettings {
            monitor_ports as "snat.monitor_ports",
            admin_socket as "admin.socket",
            connection_log as "log.connections",
            _: devices, dpdk
        },
        one,
        other
    );
    keys.extend(different!(
        "dpdk.",
        DpdkSettings { eal_args, rx_descriptors, tx_descriptors, mbufs, hugepages, workers, cpus, idle },
        &one.dpdk,
        other.dpdk
    ));
    keys
}
