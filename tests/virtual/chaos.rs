//! Many flows at once, with everything going wrong around them: nothing may be left when they are gone.

use dataplane::channel::ConnectionRecord;
use dataplane::counters::DropReason;
use dataplane::io::PortId;
use dataplane::snapshot::ServerId;
use smoltcp::time::Duration;

use crate::inside::*;
use crate::preserve::{KEEP, second};
use crate::world::*;

const SEEDS: std::ops::Range<u64> = 1..7;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

const REQUEST: &str = r#"
    local n = avi.l4.collect(3)
    local what = avi.l4.read(1)
    avi.vs.log(what)
    if what == "a" then avi.pool.select("a")
    elseif what == "b" then avi.pool.select("b", "10.0.0.22")
    elseif what == "p" then avi.vs.persist(avi.l4.read(2))
    elseif what == "c" then avi.vs.close_conn()
    elseif what == "r" then avi.vs.close_conn(true)
    elseif what == "e" then error("on purpose")
    elseif what == "w" then avi.l4.collect(5000)
    end
"#;

const RESPONSE: &str = r#"
    if avi.l4.collect(2) and avi.l4.read(1) == "x" then avi.vs.close_conn() end
    if avi.l4.read(1) == "w" then avi.l4.collect(4000) end
"#;

/// As [`toml`], with services on two VIPs that preserve their clients' addresses, and one server less.
fn preserving(every: bool, limited: bool) -> String {
    let toml = toml(every, limited).replace(", { address = \"10.0.0.31\", port = 443 }", "");
    let at = toml.find("[[virtual_service]]").unwrap();
    let service = toml[at..].replacen("datascript_sets", &format!("{KEEP}datascript_sets"), 1);
    format!("{}{service}{}", &toml[..at], second(&service))
}

fn toml(every: bool, limited: bool) -> String {
    let run = if every { "every_payload" } else { "first_payload" };
    let set = with_sets("tcp/443", "a", &["a", "b"], Some(REQUEST), Some(RESPONSE));
    let limit = if limited { "max_connections_per_server = 2\n" } else { "" };
    format!(
        "[limits]\nflows = 128\nembryonic = 64\nwaiting = 64\n{}{limit}[pool.tcp]\nconnect_timeout = \"1s\"\n{}[virtual_service.tcp]\nidle_timeout = \"20s\"\nfirst_payload_timeout = \"3s\"\n[virtual_service.udp]\nbuffer = \"2KiB\"\n[virtual_service.datascript]\nrun = \"{run}\"\n",
        pools(&[("a", &["10.0.0.21:443", "10.0.0.22:443", "10.0.0.31:443"]), ("b", &["10.0.0.22:443"])]),
        set.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\"")
    )
}

struct Chaos {
    world: World,
    random: Random,
    clients: [HostId; 2],
    servers: [HostId; 2],
    talks: Vec<Talk>,
    port: u16,
    vips: &'static [&'static str],
}

const VIPS: [&str; 2] = ["192.0.2.10:443", "192.0.2.11:443"];

impl Chaos {
    fn new(seed: u64) -> Chaos {
        Chaos::of(seed, &toml(seed.is_multiple_of(2), seed.is_multiple_of(3)), &VIPS[..1])
    }

    fn of(seed: u64, toml: &str, vips: &'static [&'static str]) -> Chaos {
        let mut world = World::new(toml);
        let clients = [world.host(OUTSIDE, "192.0.2.100"), world.host(OUTSIDE, "192.0.2.101")];
        let servers = [world.host(INSIDE, "10.0.0.21"), world.host(INSIDE, "10.0.0.22")];
        world.silent(INSIDE, "10.0.0.31");
        Chaos { world, random: Random(seed), clients, servers, talks: Vec::new(), port: 20_000, vips }
    }

    /// One of the VIPs.
    fn vip(&mut self) -> &'static str {
        match self.vips {
            [vip] => vip,
            vips => vips[self.random.below(vips.len() as u64) as usize],
        }
    }

    fn word(&mut self) -> Vec<u8> {
        let first = b"abpcrewx"[self.random.below(8) as usize];
        let length = [1, 2, 5, 300, 4000][self.random.below(5) as usize];
        vec![first; length]
    }

    fn act(&mut self) {
        let word = self.word();
        let (client, server) =
            (self.clients[self.random.below(2) as usize], self.servers[self.random.below(2) as usize]);
        let io = self.world.worker.io_mut();
        match self.random.below(14) {
            0..=2 => {
                // With a second VIP some ports are used for both.
                let vip = self.vip();
                self.port += u16::from(vip == VIPS[0]);
                let here = self.world.connect(client, self.port, vip);
                self.world.talk(here).say(&word);
                self.talks.push(here);
            }
            3 | 4 => {
                let there = self.world.listen(server, 443);
                self.world.talk(there).say(&word);
                self.talks.push(there);
            }
            5 | 6 => {
                let payload = &word[..word.len().min(1400)];
                let port = 4000 + self.random.below(20) as u16;
                let vip = self.vip();
                self.world.datagram(client, port, vip, payload);
            }
            7 => {
                for packet in self.world.inbox(server) {
                    let payload = &word[..word.len().min(1400)];
                    self.world.datagram(server, 443, packet.source.to_string(), payload);
                }
            }
            8 | 9 => {
                if let Some(talk) = self.some_talk() {
                    self.world.talk(talk).say(&word);
                    self.world.talk(talk).finish = self.random.below(2) == 0;
                }
            }
            10 => {
                if let Some(talk) = self.some_talk() {
                    self.world.abort(talk);
                }
            }
            11 => io.set_alloc_room([None, Some(0), Some(3)][self.random.below(3) as usize]),
            12 => {
                let room = [None, None, Some(0), Some(4)][self.random.below(4) as usize];
                io.set_tx_room(PortId(self.random.below(2) as u8), room);
            }
            _ => {
                let (id, up) = (ServerId(self.random.below(4) as u16), self.random.below(3) > 0);
                self.world.worker.pipeline_mut().balancer_mut().set_health(id, up);
                self.world.loss = [None, None, Some(10), Some(50)][self.random.below(4) as usize];
            }
        }
    }

    fn some_talk(&mut self) -> Option<Talk> {
        let count = self.talks.len() as u64;
        (count > 0).then(|| self.talks[self.random.below(count) as usize])
    }
}

impl Chaos {
    /// A long time of it, and then the end of everything.
    fn run(mut self) -> World {
        for _ in 0..1500 {
            self.act();
            let pause = [0, 0, 1, 20, 300][self.random.below(5) as usize];
            self.world.advance(Duration::from_millis(pause));
            if pause == 0 {
                self.world.settle();
            }
        }
        let mut world = self.world;
        let io = world.worker.io_mut();
        io.set_alloc_room(None);
        io.set_tx_room(PortId(0), None);
        io.set_tx_room(PortId(1), None);
        world.loss = None;
        for talk in self.talks {
            world.abort(talk);
        }
        world.seconds(200);
        world.assert_empty();
        let mut letters = world.terminations();
        letters.sort();
        letters.dedup();
        println!("{letters:?}");
        assert!(world.records.len() > 150, "{}", world.records.len());
        world
    }
}

#[test]
fn nothing_is_left_when_everything_went_wrong() {
    for seed in SEEDS {
        println!("seed {seed}");
        Chaos::new(seed).run();
    }
}

/// A client port is used for two VIPs at a time, and their flows want the same servers.
#[test]
fn nothing_is_left_where_clients_are_preserved() {
    let mut in_use = 0;
    for seed in [7, 8, 9, 10] {
        println!("seed {seed}");
        let toml = preserving(seed % 2 == 0, seed % 3 == 0);
        let world = Chaos::of(seed, &toml, &VIPS).run();
        let refused = |record: &&ConnectionRecord| record.reason == Some(DropReason::ClientInUse);
        in_use += world.records.iter().filter(refused).count();
        let own = |record: &ConnectionRecord| record.snat.is_none_or(|snat| snat == record.client);
        assert!(world.records.iter().all(own));
    }
    assert!(in_use >= 5, "{in_use}");
}
