//! Scripts in packetdrill's notation, `tests/data/pkt/*.pkt`; the README there describes them.

mod notation;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use dataplane::counters::DropReason;
use smoltcp::time::{Duration, Instant};

use self::notation::{Base, Segment};
use crate::inside::*;
use crate::wire;
use crate::world::*;

/// How far from its time a packet may leave.
const TOLERANCE: Duration = Duration::from_millis(60);
const STEP: Duration = Duration::from_millis(5);

/// Client, VIP, servers and SNAT address over IPv4 and over IPv6.
const ADDRESSES: [[&str; 5]; 2] = [
    ["192.0.2.100", "192.0.2.10", "10.0.0.21", "10.0.0.22", "10.0.0.2"],
    ["2001:db8:1::100", "2001:db8:1::10", "2001:db8:2::21", "2001:db8:2::22", "2001:db8:2::2"],
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/pkt")
}

fn scripts() -> BTreeSet<String> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".pkt")).collect()
}

/// The settings before the first timed line.
#[derive(Default)]
struct Settings {
    /// Request script. `None`: no script.
    lua: Option<String>,
    tcp: String,
    pool: String,
    top: String,
    servers: usize,
    /// MTU of the servers' side.
    mtu: String,
    isns: [u32; 2],
    ipv6: bool,
}

impl Settings {
    fn read(lines: &str) -> Result<Settings, String> {
        let lua = Some("avi.l4.collect(1)".to_owned());
        let mut settings = Settings { lua, servers: 1, isns: [1_000_000, 5_000_000], ..Settings::default() };
        for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with("//")) {
            let Some((key, value)) = line.split_once(": ") else {
                if line.starts_with('+') {
                    break;
                }
                return Err(format!("setting {line:?}"));
            };
            let number = || value.parse::<u32>().map_err(|_| format!("setting {line:?}"));
            match key {
                _ if key.starts_with('+') => break,
                "lua" => settings.lua = Some(value.to_owned()).filter(|value| value != "none"),
                "tcp" => settings.tcp += &format!("{value}\n"),
                "pool" => settings.pool += &format!("{value}\n"),
                "inside_mtu" => settings.mtu = format!("mtu = {}\n", number()?),
                "top" => settings.top += &format!("{value}\n"),
                "servers" => settings.servers = number()? as usize,
                "ip" if ["4", "6"].contains(&value) => settings.ipv6 = value == "6",
                "client_isn" => settings.isns[0] = number()?,
                "server_isn" => settings.isns[1] = number()?,
                _ => return Err(format!("setting {line:?}")),
            }
        }
        Ok(settings)
    }

    fn addresses(&self) -> [IpAddr; 5] {
        ADDRESSES[usize::from(self.ipv6)].map(address)
    }

    fn toml(&self) -> String {
        let [_, vip, first, second, _] = self.addresses();
        let servers = [first, second].map(|address| SocketAddr::new(address, 443).to_string());
        let servers = &[&*servers[0], &servers[1]][..self.servers];
        let service = match &self.lua {
            Some(lua) => scripted("tcp/443", "a", &["a"], lua),
            None => plain("tcp/443", "a"),
        };
        let service = service.replace("192.0.2.10", &vip.to_string());
        let pool = format!("{}[pool.tcp]\n{}", pools(&[("a", servers)]), self.pool);
        format!("{}\n{TWO_ARMS}{pool}{service}[virtual_service.tcp]\n{}", self.top, self.tcp)
    }
}

/// One end of one connection.
#[derive(Clone, Copy)]
struct End {
    port: u8,
    address: IpAddr,
    weir: IpAddr,
    /// Own port and weir's.
    ports: (u16, u16),
    own: Base,
    /// Weir's numbers. `None`: no SYN of weir's was seen.
    peer: Option<Base>,
}

/// A script at work.
struct Stage {
    world: World,
    hosts: [HostId; 3],
    /// `c`, `c2`, `c3`, `s`, `s2`.
    ends: [End; 5],
    /// What weir has sent and no line has taken: time, frame, number of fragments.
    seen: [VecDeque<(Instant, Vec<u8>, usize)>; 5],
    /// Identification of what is sent next in fragments.
    identification: u16,
    base: Instant,
    /// Initial sequence numbers that weir has chosen.
    isns: Vec<u32>,
}

const NAMES: [&str; 5] = ["c", "c2", "c3", "s", "s2"];

fn end_named(name: &str) -> Result<usize, String> {
    NAMES.iter().position(|known| *known == name).ok_or(format!("no end is called {name:?}"))
}

impl Stage {
    fn new(settings: &Settings) -> Stage {
        let inside = "[[interface]]\nname = \"inside\"\n";
        let toml = settings.toml().replace(inside, &format!("{inside}{}", settings.mtu));
        let mut world = World::with_network(&toml);
        world.tap = Some(Vec::new());
        let [client, vip, first, second, snat] = settings.addresses();
        let hosts = [(OUTSIDE, client), (INSIDE, first), (INSIDE, second)];
        let hosts = hosts.map(|(port, address)| world.silent(port, &address.to_string()));
        let base = |isn| Base { isn, clock: 0 };
        let client = |port| End {
            port: OUTSIDE,
            address: client,
            weir: vip,
            ports: (port, 443),
            own: base(settings.isns[0]),
            peer: None,
        };
        let server = |address| End {
            port: INSIDE,
            address,
            weir: snat,
            ports: (443, 0),
            own: base(settings.isns[1]),
            peer: None,
        };
        let ends = [client(40_000), client(40_001), client(40_002), server(first), server(second)];
        let base = world.now;
        Stage { world, hosts, ends, seen: Default::default(), identification: 0, base, isns: Vec::new() }
    }

    /// Lets time pass until `end`, or until something has come to this end.
    fn run(&mut self, end: Instant, until: Option<usize>) {
        loop {
            self.world.settle();
            for tapped in self.world.tap.replace(Vec::new()).unwrap_or_default() {
                self.sort(tapped);
            }
            let has_come = until.is_some_and(|index| !self.seen[index].is_empty());
            if self.world.now >= end || has_come {
                return;
            }
            self.world.now = (self.world.now + STEP).min(end);
        }
    }

    /// A frame comes to its end; a SYN sets the numbers that weir's other segments are relative to.
    fn sort(&mut self, tapped: Tapped) {
        let Tapped { at, port, frame, pieces } = tapped;
        let raw = Segment::read(&frame, Base::default(), Base::default());
        let (from, to) = wire::ends(&frame);
        let found = |end: &End| end.port == port && end.address == to.ip() && end.ports.0 == to.port();
        let index = self.ends.iter().position(found);
        let index = index.unwrap_or_else(|| panic!("to nobody: {raw}"));
        let end = &mut self.ends[index];
        if raw.flags.contains('S') && (end.peer.is_none() || end.ports.1 != from.port()) {
            let clock = raw.options.iter().flatten().find_map(|option| match option {
                notation::Opt::Ts(value, _) if index < 3 => *value,
                _ => None,
            });
            end.peer = Some(Base { isn: raw.seq, clock: clock.unwrap_or(0) });
            self.isns.extend(Some(raw.seq).filter(|_| index < 3));
            end.ports.1 = from.port();
            end.weir = from.ip();
        }
        self.seen[index].push_back((at, frame, pieces));
    }

    fn read(&self, index: usize, frame: &[u8], pieces: usize) -> Segment {
        let end = &self.ends[index];
        let seen = Segment::read(frame, end.peer.unwrap_or_default(), end.own);
        Segment { pieces: if pieces > 1 { pieces } else { 0 }, ..seen }
    }

    fn nothing_else(&self) -> Result<(), String> {
        for (index, seen) in self.seen.iter().enumerate() {
            if let Some((at, frame, pieces)) = seen.front() {
                let after = (at.total_millis() - self.base.total_millis()) as f64 / 1000.0;
                let seen = self.read(index, frame, *pieces);
                return Err(format!("expected: nothing\n    seen: {after:+} {}> {seen}", NAMES[index]));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (time, rest) = line.split_once(' ').ok_or("a time and nothing else")?;
        let time = time.strip_prefix('+').and_then(|time| time.parse::<f64>().ok()).ok_or("no time")?;
        let time = Duration::from_micros((time * 1e6) as u64);
        let (what, rest) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
        if let Some(name) = what.strip_suffix('>') {
            return self.expect(time, end_named(name)?, &Segment::parse(rest)?);
        }
        self.run(self.base + time, None);
        self.nothing_else()?;
        self.base += time;
        self.base = self.base.max(self.world.now);
        match what.strip_suffix('<') {
            Some(name) => self.send(end_named(name)?, &Segment::parse(rest)?),
            None => self.state(what, rest),
        }
    }

    fn send(&mut self, index: usize, segment: &Segment) -> Result<(), String> {
        let end = self.ends[index];
        if end.ports.1 == 0 {
            return Err("weir has not spoken to this server".to_owned());
        }
        let packet =
            segment.packet((end.address, end.weir), end.ports, end.own, end.peer.unwrap_or_default());
        let host = self.hosts[index.saturating_sub(2)];
        self.identification += u16::from(segment.pieces > 0 && !segment.again);
        for packet in segment.parts(&packet, self.identification) {
            let frame = self.world.framed(host, &packet);
            self.world.inject(end.port, &frame);
        }
        self.run(self.world.now, None);
        Ok(())
    }

    fn expect(&mut self, time: Duration, index: usize, wanted: &Segment) -> Result<(), String> {
        let due = self.base + time;
        self.run(due + TOLERANCE, Some(index));
        let Some((at, frame, pieces)) = self.seen[index].pop_front() else {
            self.nothing_else()?;
            return Err(format!("expected: {}> {wanted}\n    seen: nothing", NAMES[index]));
        };
        let seen = self.read(index, &frame, pieces);
        let early = at + TOLERANCE < due;
        if early || at > due + TOLERANCE || !wanted.agrees(&seen) {
            let after = (at.total_millis() - self.base.total_millis()) as f64 / 1000.0;
            let name = NAMES[index];
            let wanted = format!("+{} {name}> {wanted}", time.total_millis() as f64 / 1000.0);
            return Err(format!("expected: {wanted}\n    seen: {after:+} {name}> {seen}"));
        }
        self.base = self.base.max(at);
        Ok(())
    }

    /// Everything that is not a packet.
    fn state(&mut self, what: &str, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (wanted, seen) = match (what, &words[..]) {
            ("counter", [name, "==", count]) => {
                let reason = DropReason::ALL.iter().find(|reason| reason.label() == *name);
                let counters = self.world.worker.pipeline().counters();
                let seen = match (reason, *name) {
                    (Some(reason), _) => counters.dropped_for(*reason),
                    (_, "syn_cookies_sent") => counters.cookies_sent,
                    (_, "syn_cookies_accepted") => counters.cookies_accepted,
                    (_, "handshakes_incomplete") => counters.handshakes_incomplete,
                    _ => return Err(format!("no counter is called {name:?}")),
                };
                ((*count).to_owned(), seen.to_string())
            }
            ("flows", ["==", count]) => {
                ((*count).to_owned(), self.world.worker.pipeline().flows().len().to_string())
            }
            ("log", letters) => (letters.join(" "), self.world.terminations().join(" ")),
            ("isns", ["differ"]) => {
                let distinct: BTreeSet<&u32> = self.isns.iter().collect();
                (self.isns.len().to_string(), distinct.len().to_string())
            }
            // A new connection of this end: other numbers on both sides.
            ("new", [name, isn]) => {
                let end = &mut self.ends[end_named(name)?];
                end.own.isn = isn.parse().map_err(|_| format!("number {isn:?}"))?;
                end.peer = None;
                return Ok(());
            }
            ("quiet", []) => return Ok(()),
            _ => return Err(format!("{what:?}?")),
        };
        if wanted == seen { Ok(()) } else { Err(format!("expected: {what} {rest}\n    seen: {seen}")) }
    }
}

/// Plays a script; an error names its line.
fn play(name: &str, text: &str) -> Result<(), String> {
    if !text.starts_with("// ") {
        return Err(format!("{name}:1: says nothing about itself"));
    }
    let mut stage = Stage::new(&Settings::read(text).map_err(|error| format!("{name}: {error}"))?);
    let mut lines = 0;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('+')) {
        lines += 1;
        stage.line(line).map_err(|error| format!("{name}:{}: {line}\n{error}", number + 1))?;
    }
    stage.run(stage.base + TOLERANCE, None);
    stage.nothing_else().map_err(|error| format!("{name}: at the end\n{error}"))?;
    if lines == 0 { Err(format!("{name}: no line has a time")) } else { Ok(()) }
}

#[test]
fn every_script_runs_as_it_says() {
    let wanted = std::env::var("PKT").unwrap_or_default();
    let failures: Vec<String> = scripts()
        .iter()
        .filter(|name| name.contains(&wanted))
        .filter_map(|name| {
            let text = fs::read_to_string(directory().join(name)).unwrap();
            std::panic::catch_unwind(|| play(name, &text))
                .unwrap_or_else(|_| Err(format!("{name}: panicked")))
                .err()
        })
        .collect();
    assert!(failures.is_empty(), "{} scripts failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_wrong_expectation_fails_and_names_its_line() {
    let syn = "// A sentence.\n+0 c< S 0:0(0) win 65535 <mss 1460>\n";
    let error = |rest: &str| play("x.pkt", &format!("{syn}{rest}")).unwrap_err();
    assert!(error("").contains("at the end") && error("").contains("S."));
    assert!(error("+0 c> S. 0:0(0) ack 2\n").starts_with("x.pkt:3: "));
    assert!(error("+0 c> S. 0:0(0) ack 1\n+0.5 c> S. 0:0(0)\n").contains("seen: nothing"));
    assert!(error("+0 c> S. 0:0(0) ack 1\n+1.5 quiet\n").contains("expected: nothing"));
    assert!(error("+0 c> S. 0:0(0) ack 1 <mss 1>\n").contains("<mss 1460>"));
    assert!(error("+0 c> S. 0:0(0) ack 1\n+0 flows == 2\n").contains("seen: 1"));
}

#[test]
fn the_checklist_names_every_script_and_no_other() {
    let readme = fs::read_to_string(directory().join("README.md")).unwrap();
    let mut named = BTreeSet::new();
    for row in readme.lines().filter(|line| line.starts_with("| RFC ") || line.starts_with("| PROXY ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[2].trim_matches('`');
        let section = cells[1].replace("RFC ", "rfc").replace("PROXY protocol", "proxy").replace(", ", "-");
        assert!(name.starts_with(&format!("{section}-")), "{row}");
        let text = fs::read_to_string(directory().join(name)).unwrap();
        assert_eq!(text.lines().next(), Some(&*format!("// {}", cells[3])), "{name}");
        assert!(named.insert(name.to_owned()), "{name} twice");
    }
    assert_eq!(named, scripts());
    assert!(named.len() >= 80, "{}", named.len());
}
