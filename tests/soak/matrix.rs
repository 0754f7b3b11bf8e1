//! What is tried: each row is a configuration of the path, of the end hosts and of weir.

use std::fmt::Write;
use std::net::IpAddr;

use crate::impair::{Burst, Impairment};
use crate::weir::{INSIDE, OUTSIDE, TWO_ARMS};

/// What weir has to do with the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The profile `fast_path`, no script.
    Pass,
    /// A request script that wants one byte.
    FirstByte,
    /// A request script that wants two bytes, then as many as these say.
    Collect,
    /// As `FirstByte`, and a response script that holds the response for as many bytes as its first two say.
    Hold,
}

/// A packet of weir's, the first of its kind in each connection, that is lost. It comes again only by a timer of weir's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The SYN to the server.
    Syn,
    /// Bytes for the server.
    Replay,
    /// Bytes for the client.
    Response,
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub impairment: Impairment,
    /// RFC 7323 timestamps of client and server.
    pub timestamps: (bool, bool),
    /// Send and receive buffers of the end hosts in bytes.
    pub buffer: usize,
    pub task: Task,
    /// The first of the two servers refuses connections.
    pub refusing: bool,
    /// Each connection must complete: nothing is lost, and no acknowledgement comes twice. (After three of these
    /// smoltcp sends a full segment even where the window is smaller, and may never come back for what was beyond.)
    pub sure: bool,
    /// Each connection must complete within so many milliseconds; both ends have less than a segment to say.
    pub within: Option<u64>,
    pub lost: Option<Lost>,
    pub ipv6: bool,
}

const PATH: Impairment =
    Impairment { loss: 0, burst: None, reorder: 0, duplicate: 0, corrupt: 0, delay: 5, jitter: 2 };

const EVERYTHING: Impairment = Impairment {
    loss: 20,
    burst: Some(Burst { enter: 2, leave: 200, loss: 500 }),
    reorder: 50,
    duplicate: 20,
    corrupt: 5,
    delay: 20,
    jitter: 20,
};

const LOSS_2: Impairment = Impairment { loss: 20, ..PATH };

const ROW: Row = Row {
    name: "clean",
    impairment: PATH,
    timestamps: (false, false),
    buffer: 65_535,
    task: Task::FirstByte,
    refusing: false,
    sure: false,
    within: None,
    lost: None,
    ipv6: false,
};

/// Nothing is lost but what the row says. The ends get no duplicate acknowledgements and have no reason to repeat anything.
const SHORT: Row = Row { sure: true, within: Some(2500), ..ROW };

const LOSS_2_IN_DISORDER: Impairment = Impairment { reorder: 50, duplicate: 20, ..LOSS_2 };

pub const MATRIX: &[Row] = &[
    Row { sure: true, ..ROW },
    Row { name: "loss-1", impairment: Impairment { loss: 10, ..PATH }, ..ROW },
    Row { name: "loss-5", impairment: Impairment { loss: 50, ..PATH }, ..ROW },
    Row { name: "loss-15", impairment: Impairment { loss: 150, ..PATH }, ..ROW },
    Row { name: "loss-30", impairment: Impairment { loss: 300, ..PATH }, ..ROW },
    Row {
        name: "burst-loss",
        impairment: Impairment { burst: Some(Burst { enter: 5, leave: 200, loss: 800 }), ..PATH },
        ..ROW
    },
    Row { name: "reordering", impairment: Impairment { reorder: 100, ..PATH }, ..ROW },
    Row { name: "duplication", impairment: Impairment { duplicate: 100, ..PATH }, ..ROW },
    Row { name: "corruption", impairment: Impairment { corrupt: 10, ..PATH }, ..ROW },
    Row { name: "long-delay", impairment: Impairment { delay: 200, jitter: 20, ..PATH }, sure: true, ..ROW },
    Row { name: "everything", impairment: EVERYTHING, timestamps: (true, true), ..ROW },
    Row { name: "timestamps-both", impairment: LOSS_2, timestamps: (true, true), ..ROW },
    Row { name: "timestamps-client", impairment: LOSS_2, timestamps: (true, false), ..ROW },
    Row { name: "timestamps-server", impairment: LOSS_2, timestamps: (false, true), ..ROW },
    Row { name: "small-buffers", impairment: LOSS_2, buffer: 2048, ..ROW },
    Row { name: "collect", impairment: LOSS_2, task: Task::Collect, ..ROW },
    Row { name: "held-response", impairment: LOSS_2, task: Task::Hold, ..ROW },
    Row { name: "refusing-server", impairment: LOSS_2, refusing: true, ..ROW },
    Row { name: "fast-path", impairment: LOSS_2, task: Task::Pass, ..ROW },
    Row { name: "lost-syn", lost: Some(Lost::Syn), ..SHORT },
    Row { name: "lost-replay", lost: Some(Lost::Replay), ..SHORT },
    Row { name: "lost-response", lost: Some(Lost::Response), task: Task::Hold, ..SHORT },
    Row { name: "ipv6", impairment: LOSS_2_IN_DISORDER, timestamps: (true, true), ipv6: true, ..ROW },
    Row { name: "ipv6-collect", impairment: LOSS_2, task: Task::Collect, ipv6: true, ..ROW },
];

/// Waits for a message that says how long it is.
const MESSAGE: &str = "avi.l4.collect(2)
local high, low = string.byte(avi.l4.read(2), 1, 2)
avi.l4.collect(high * 256 + low)";

impl Row {
    /// What the addresses at a port of weir's begin with.
    pub fn network(&self, port: u8) -> &'static str {
        match (port, self.ipv6) {
            (OUTSIDE, false) => "192.0.2.",
            (OUTSIDE, true) => "2001:db8:1::",
            (_, false) => "10.0.0.",
            (_, true) => "2001:db8:2::",
        }
    }

    pub fn address(&self, port: u8, number: u8) -> IpAddr {
        format!("{}{number}", self.network(port)).parse().unwrap()
    }

    /// The configuration of weir.
    pub fn toml(&self) -> String {
        let mut toml = format!(
            "{TWO_ARMS}[limits]\nflows = 128\nembryonic = 64\nwaiting = 64\n[[pool]]\nname = \"a\"\nservers = \
             [{{ address = \"{net}21\", port = 443 }}, {{ address = \"{net}22\", port = 443 }}]\n",
            net = self.network(INSIDE),
        );
        let request = match self.task {
            Task::Pass => None,
            Task::FirstByte | Task::Hold => Some("avi.l4.collect(1)"),
            Task::Collect => Some(MESSAGE),
        };
        let mut set = "";
        if let Some(request) = request {
            set = "datascript_sets = [\"set\"]\n";
            writeln!(toml, "[[datascript_set]]\nname = \"set\"\npools = [\"a\"]").unwrap();
            writeln!(toml, "request_inline = '''\navi.vs.log(\"q\")\n{request}\n'''").unwrap();
        }
        if self.task == Task::Hold {
            writeln!(toml, "response_inline = '''\navi.vs.log(\"r\")\n{MESSAGE}\n'''").unwrap();
        }
        let service = "[[virtual_service]]\nname = \"vs\"\nports = [\"tcp/443\"]\npool = \"a\"\n";
        toml + service + &format!("addresses = [\"{}10\"]\n", self.network(OUTSIDE)) + set
    }
}
