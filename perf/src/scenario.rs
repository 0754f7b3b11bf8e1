//! What is measured.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::frame::{Family, endpoint};
use crate::peer::Talk;

/// The host part of every service's address.
const VIP: u32 = 10;
/// What the addresses of weir's network begin with: 192.0.2.0, or the last bits of fd01::.
const HERE: u32 = 0xc000_0200;
const UDP_PORT: u16 = 53;
const SERVERS: u32 = 4;

/// What the packets of a scenario are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Headers are read, nothing else.
    Parse,
    /// Datagrams of established flows, from clients and servers in turn.
    Datagrams,
    /// Segments of spliced connections: data and pure acknowledgements, from clients and servers in turn.
    Segments,
    /// Datagrams that begin a flow.
    NewFlows,
    /// Connections from SYN to the last acknowledgement.
    Connections,
}

/// One row of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What its packets are.
    pub kind: Kind,
    /// Flows at the same time.
    pub flows: u32,
    /// What it is, for the table.
    pub text: &'static str,
    /// Flows of others begin and end meanwhile, with the script of [`Kind::NewFlows`].
    pub mixed: bool,
    /// That script inserts the client's address into the default table, also as the value.
    pub inserts: bool,
    /// Of all addresses.
    pub family: Family,
}

/// Flows that have expired are replaced by new ones: about that many at the same time.
const STEADY: u32 = 65_536;
/// The most flows beside which others may begin: each has to be heard of before it expires.
const MIXED: u32 = 100_000;
/// Flows for which there is room then.
const MIXED_ROOM: u32 = 2_000_000;
/// The same, and room for as many entries of tables, where scripts insert.
const INSERTS_ROOM: u32 = 1 << 18;
/// Connections that are opened together.
pub const BATCH: u32 = 64;

const fn row(name: &'static str, kind: Kind, flows: u32, text: &'static str) -> Scenario {
    Scenario { name, kind, flows, text, mixed: false, inserts: false, family: Family::V4 }
}

const fn row6(name: &'static str, kind: Kind, flows: u32, text: &'static str) -> Scenario {
    Scenario { family: Family::V6, ..row(name, kind, flows, text) }
}

/// In the order in which they are run.
pub const ALL: [Scenario; 14] = [
    row("parse", Kind::Parse, 1, "parse only"),
    row("udp-1", Kind::Datagrams, 1, "established UDP full NAT, 1 flow"),
    row("udp-10k", Kind::Datagrams, 10_000, "established UDP full NAT, 10,000 flows"),
    row("udp-1m", Kind::Datagrams, 1_000_000, "established UDP full NAT, 1,000,000 flows"),
    row("udp-10m", Kind::Datagrams, 10_000_000, "established UDP full NAT, 10,000,000 flows"),
    row("tcp-1", Kind::Segments, 1, "established TCP splice, 1 flow"),
    row("tcp-10k", Kind::Segments, 10_000, "established TCP splice, 10,000 flows"),
    row("tcp-1m", Kind::Segments, 1_000_000, "established TCP splice, 1,000,000 flows"),
    row("udp-new", Kind::NewFlows, STEADY, "new UDP flows, script selects by port"),
    row("tcp-life", Kind::Connections, BATCH, "TCP connections, whole life, script collects and selects"),
    row6("udp6-10k", Kind::Datagrams, 10_000, "established UDP full NAT over IPv6, 10,000 flows"),
    row6("tcp6-10k", Kind::Segments, 10_000, "established TCP splice over IPv6, 10,000 flows"),
    row6("udp6-new", Kind::NewFlows, STEADY, "new UDP flows over IPv6, script selects by port"),
    row6(
        "tcp6-life",
        Kind::Connections,
        BATCH,
        "TCP connections over IPv6, whole life, script collects and selects",
    ),
];

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Scenario> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }

    /// The same while other flows begin and end; `None` where that is not to be had.
    pub fn with_new_flows(self) -> Option<Scenario> {
        let fits = self.kind == Kind::Datagrams && self.flows <= MIXED;
        fits.then_some(Scenario { mixed: true, ..self })
    }

    /// The same where the script of those also inserts.
    pub fn with_inserts(self) -> Option<Scenario> {
        self.with_new_flows().map(|scenario| Scenario { inserts: true, ..scenario })
    }

    /// Where clients send to.
    pub fn vip(&self) -> SocketAddr {
        endpoint(self.family, HERE + VIP, UDP_PORT)
    }

    /// How its connections go.
    pub fn talk(&self) -> Talk {
        if self.kind == Kind::Connections { Talk::Whole } else { Talk::Hold }
    }

    /// Takes gigabytes and minutes: run only when it is asked for.
    pub fn is_large(&self) -> bool {
        self.flows > 1 << 22
    }

    /// What one unit of the result is.
    pub fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Parse | Kind::Datagrams | Kind::Segments => "packet",
            Kind::NewFlows => "flow",
            Kind::Connections => "connection",
        }
    }

    /// By how much the time goes on after a window, in microseconds, so that as many flows end as begin.
    pub fn pause(&self, window: usize) -> i64 {
        match self.kind {
            Kind::NewFlows => 1_000_000 * window as i64 / i64::from(STEADY),
            // Closed connections linger for 10 seconds.
            Kind::Connections => 10_000_000 * i64::from(BATCH) / i64::from(STEADY),
            _ => 0,
        }
    }

    /// Windows until as many flows end as begin.
    pub fn warm_up(&self, window: usize) -> u32 {
        match self.kind {
            Kind::NewFlows => STEADY / window as u32 * 5 / 4,
            Kind::Connections => STEADY / BATCH * 5 / 4,
            _ => 64,
        }
    }

    /// The configuration, as an operator would write it.
    pub fn config(&self) -> String {
        self.config_on("net_ring0")
    }

    /// The same on another device.
    pub fn config_on(&self, device: &str) -> String {
        let (length, clients) = match self.family {
            Family::V4 => (24, "10.0.0.0/8"),
            Family::V6 => (64, "fd00::/16"),
        };
        let here = |host: u32| endpoint(self.family, HERE + host, 0).ip();
        let mut text = format!(
            "[[interface]]\nname = \"lan\"\ndevice = \"{device}\"\naddresses = [\"{}/{length}\"]\n\
             [[route]]\nto = \"{clients}\"\nvia = \"{}\"\n",
            here(1),
            here(254),
        );
        // Each address has 62,976 ports per server.
        let addresses = if self.is_large() { 64 } else { 32 };
        let snat: Vec<String> = (100..100 + addresses).map(|last| format!("\"{}\"", here(last))).collect();
        let _ = writeln!(text, "[snat]\naddresses = [{}]", snat.join(", "));
        for pool in ["other", "main"] {
            let server = |n: u32| format!("{{ address = \"{}\", port = 8080 }}", here(20 + n));
            let servers: Vec<String> = (0..SERVERS).map(server).collect();
            let _ = writeln!(text, "[[pool]]\nname = \"{pool}\"\nservers = [{}]", servers.join(", "));
            let _ = writeln!(text, "[[pool.health_monitor]]\ntype = \"none\"");
        }
        if let Some(script) = self.script() {
            let _ = writeln!(text, "[[datascript_set]]\nname = \"s\"\nrequest_inline = '''\n{script}'''");
            let _ = writeln!(text, "pools = [\"main\", \"other\"]");
        }
        text.push_str(&self.service());
        let flows = match self.mixed {
            true if self.inserts => INSERTS_ROOM,
            true => MIXED_ROOM,
            false if self.is_large() => self.flows / 4 * 5,
            false => self.flows.max(STEADY) * 2,
        };
        let _ = writeln!(text, "[limits]\nflows = {flows}\nembryonic = 8192\nwaiting = 8192");
        text
    }

    fn service(&self) -> String {
        let sets = if self.script().is_some() { "datascript_sets = [\"s\"]\n" } else { "" };
        let tables = match self.inserts {
            true => format!("[virtual_service.tables]\nentries = {INSERTS_ROOM}\n"),
            false => String::new(),
        };
        let idle = match self.kind {
            Kind::NewFlows => "1s",
            // As long as the entries live.
            _ if self.inserts => "5m",
            _ if self.mixed => "10s",
            _ => "1h",
        };
        format!(
            "[[virtual_service]]\nname = \"vs\"\naddresses = [\"{}\"]\n\
             ports = [\"udp/{UDP_PORT}\", \"tcp/{UDP_PORT}\"]\npool = \"other\"\n{sets}\
             [virtual_service.tcp]\nprofile = \"proxy\"\nidle_timeout = \"1h\"\n\
             [virtual_service.udp]\nidle_timeout = \"{idle}\"\n{tables}",
            self.vip().ip()
        )
    }

    /// The script that chooses the pool.
    fn script(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Datagrams if !self.mixed => None,
            Kind::Datagrams if self.inserts => Some(
                "avi.vs.table_insert(avi.vs.client_ip(), avi.vs.client_ip())\navi.pool.select(\"main\")\n",
            ),
            Kind::NewFlows | Kind::Datagrams => Some(
                "if avi.vs.port() == \"53\" then\n  avi.pool.select(\"main\")\nelse\n  avi.pool.select(\"other\")\nend\n",
            ),
            Kind::Connections => Some(
                "avi.l4.collect(5)\nif avi.vs.table_lookup(avi.vs.client_ip()) then\n  avi.pool.select(\"other\")\n\
                 else\n  avi.pool.select(\"main\")\nend\n",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_flows_go_with_few_datagrams_and_come_with_a_script() {
        let named = |name| Scenario::named(name).unwrap().with_new_flows();
        for name in ["tcp-10k", "udp-1m", "udp-new"] {
            assert_eq!(named(name), None, "{name}");
        }
        let (alone, mixed) = (Scenario::named("udp-10k").unwrap(), named("udp-10k").unwrap());
        assert!(alone.script().is_none() && mixed.script() == Scenario::named("udp-new").unwrap().script());
        let inserts = alone.with_inserts().unwrap();
        assert!(inserts.script().unwrap().contains("table_insert"));
        for scenario in [alone, mixed, inserts] {
            let config = config::parse(&scenario.config(), "scenario", std::path::Path::new("."));
            assert!(config.is_ok(), "{}", config.unwrap_err().render(false));
        }
    }
}
