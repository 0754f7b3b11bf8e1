use std::net::SocketAddr;

use smoltcp::time::Instant;

use super::*;
use crate::address::FlowKey;
use crate::balance::fixture::ip;
use crate::balance::{Balancer, Pick};
use crate::policy::{FlowFacts, Selection};
use crate::snapshot::{
    Algorithm, FailAction, PoolGroupId, PoolId, Protocol, ScriptSetId, ServerId, ServiceId, Snapshot, Target,
};
use crate::steering::Seat;
use crate::table::TableStore;

const SET: ScriptSetId = ScriptSetId(0);
const SERVICE: ServiceId = ServiceId(0);

/// Everything that a [`Context`] borrows.
struct World {
    snapshot: Snapshot,
    balancer: Balancer,
    tables: TableStore,
    record: Record,
    now: Instant,
    event: Event,
    client: SocketAddr,
    vip: SocketAddr,
    server: Option<ServerId>,
    client_payload: Vec<u8>,
    server_payload: Vec<u8>,
    can_wait: bool,
}

/// Pools: "web" (default; servers 0, 1, host name "one" on server 0), "api" (attached; 2, 3, 4), "hidden" (5).
/// Groups: "all" (attached; "hidden"), "secret".
fn world() -> World {
    world_with(|_| {})
}

/// The same, in which every server takes one flow.
fn limited_world() -> World {
    world_with(|snapshot| snapshot.limit_servers(1))
}

fn world_with(change: impl FnOnce(&mut Snapshot)) -> World {
    let mut snapshot = Snapshot::default();
    let web = snapshot.add_pool("web", Algorithm::RoundRobin, &["10.0.0.1:80", "10.0.0.2:80"]);
    snapshot.servers[0].hostname = Some("one.example".to_owned());
    let members = &["10.0.1.1:443", "10.0.1.1:8443", "[2001:db8::5]:443"];
    let api = snapshot.add_pool("api", Algorithm::RoundRobin, members);
    let hidden = snapshot.add_pool("hidden", Algorithm::RoundRobin, &["10.0.2.1:80"]);
    let all = snapshot.add_group("all", &[(hidden, 1, 1)]);
    snapshot.add_group("secret", &[(hidden, 1, 1)]);
    snapshot.add_set(&[api], &[all]);
    snapshot.add_service("shop", Some(Target::Pool(web)), 4);
    change(&mut snapshot);
    World {
        balancer: Balancer::new(&snapshot),
        tables: TableStore::new(&snapshot, Seat::ALONE),
        snapshot,
        record: Record::default(),
        now: Instant::from_secs(1000),
        event: Event::Request,
        client: "192.0.2.7:40000".parse().unwrap(),
        vip: "192.0.2.10:1812".parse().unwrap(),
        server: None,
        client_payload: b"hello world".to_vec(),
        server_payload: b"banner".to_vec(),
        can_wait: true,
    }
}

impl World {
    fn context(&mut self) -> Context<'_> {
        Context {
            now: self.now,
            event: self.event,
            snapshot: &self.snapshot,
            facts: FlowFacts {
                service: SERVICE,
                key: FlowKey::new(Protocol::Tcp, self.client, self.vip),
                server: self.server,
            },
            client_payload: &self.client_payload,
            server_payload: &self.server_payload,
            can_wait: self.can_wait,
            balancer: &mut self.balancer,
            tables: &mut self.tables,
            record: &mut self.record,
        }
    }

    /// The value of a default-table entry and its seconds left.
    fn entry(&mut self, key: &[u8]) -> Option<(String, u64)> {
        let (value, left) = self.tables.lookup(self.now, SERVICE, None, key, 0)?;
        Some((String::from_utf8(value.to_vec()).unwrap(), left))
    }

    /// A new flow calls `persist("key")` and is given this.
    fn persisted(&mut self, pool: Option<&str>) -> Option<Selection> {
        self.record = Record::default();
        self.context().persist(SET, b"key", None, pool).unwrap();
        self.record.selection
    }
}

fn text<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().to_string()
}

fn entry(value: &str, left: u64) -> Option<(String, u64)> {
    Some((value.to_owned(), left))
}

#[test]
fn read_lends_any_part_of_either_side() {
    let mut world = world();
    let context = world.context();
    assert_eq!(context.read(0, 0, None), Ok(&b"hello world"[..]));
    assert_eq!(context.read(0, 6, None), Ok(&b"world"[..]));
    assert_eq!(context.read(0, 11, None), Ok(&b""[..]));
    assert_eq!(context.read(5, 0, None), Ok(&b"hello"[..]));
    assert_eq!(context.read(5, 6, None), Ok(&b"world"[..]));
    assert_eq!(context.read(0, 0, Some(tcp::Side::Server)), Ok(&b"banner"[..]));
    assert_eq!(text(context.read(6, 6, None)), "6 bytes at offset 6 asked for, 11 are buffered");
    assert!(context.read(0, 12, None).is_err());
    assert!(context.read(2, usize::MAX, None).is_err());
    assert_eq!(text(context.read(65001, 0, None)), "65001 bytes asked for, at most 65000 are possible");
    world.event = Event::Response;
    let context = world.context();
    assert_eq!(context.read(3, 0, None), Ok(&b"ban"[..]));
    assert_eq!(context.read(5, 0, Some(tcp::Side::Client)), Ok(&b"hello"[..]));
    assert_eq!(context.buffered(), 6);
}

#[test]
fn collect_waits_only_where_a_flow_can() {
    let mut world = world();
    let context = world.context();
    assert_eq!(context.buffered(), 11);
    assert_eq!(context.collect_ready(0), Ok(true));
    assert_eq!(context.collect_ready(11), Ok(true));
    assert_eq!(context.collect_ready(12), Ok(false));
    assert_eq!(context.collect_ready(65000), Ok(false));
    assert_eq!(text(context.collect_ready(65001)), "65001 bytes asked for, at most 65000 are possible");
    world.can_wait = false;
    assert_eq!(world.context().collect_ready(11), Ok(true));
    let refused = "12 bytes asked for, 11 are buffered, and this flow cannot wait for more";
    assert_eq!(text(world.context().collect_ready(12)), refused);
}

#[test]
fn on_the_fast_path_there_is_nothing_to_read() {
    let mut world = world();
    (world.client_payload, world.can_wait) = (Vec::new(), false);
    let context = world.context();
    assert_eq!(context.read(0, 0, None), Ok(&b""[..]));
    assert_eq!(context.collect_ready(0), Ok(true));
    assert!(context.collect_ready(1).is_err());
}

#[test]
fn log_texts_are_joined_and_bounded() {
    let mut world = world();
    world.context().log(b"a\0", false);
    world.context().log(b"b", true);
    world.context().log(b"c", false);
    assert_eq!(world.record.log, b"a\0bc");
    assert!(world.record.significant && !world.record.log_cut);
    world.context().log(&[b'x'; 300], false);
    assert_eq!(world.record.log.len(), 4 + 256);
    assert!(!world.record.log_cut);
    for _ in 0..20 {
        world.context().log(&[b'y'; 256], false);
    }
    assert_eq!(world.record.log.len(), Record::LOG_BYTES);
    assert!(world.record.log_cut);
}

#[test]
fn a_full_log_that_fits_exactly_is_not_cut() {
    let mut world = world();
    for _ in 0..16 {
        world.context().log(&[b'x'; 256], false);
    }
    assert_eq!((world.record.log.len(), world.record.log_cut), (4096, false));
    world.context().log(b"", false);
    assert!(!world.record.log_cut);
    world.context().log(b"x", false);
    assert_eq!((world.record.log.len(), world.record.log_cut), (4096, true));
}

#[test]
fn debug_log_writes_where_it_is_on() {
    let mut world = world();
    world.context().debug_log(b"text");
    assert_eq!(world.record.log, b"");
    world.snapshot.services[0].datascript.debug_log = true;
    world.context().debug_log(b"text");
    assert_eq!(world.record.log, b"text");
    assert!(!world.record.significant);
}

#[test]
fn closing_is_never_taken_back() {
    let mut world = world();
    world.context().close(false);
    assert_eq!(world.record.close, Some(Close::Graceful));
    world.context().close(true);
    world.context().close(false);
    world.context().select_pool(SET, "api", None, None).unwrap();
    assert_eq!(world.record.close, Some(Close::Reset));
}

#[test]
fn done_is_per_event() {
    let mut world = world();
    world.context().done();
    assert_eq!((world.record.request_done, world.record.response_done), (true, false));
    world.event = Event::Response;
    world.context().done();
    assert_eq!((world.record.request_done, world.record.response_done), (true, true));
}

#[test]
fn facts_are_those_of_the_flow() {
    let mut world = world();
    (world.server, world.vip) = (Some(ServerId(4)), "[2001:0db8:0:0:0:0:0:1]:1812".parse().unwrap());
    let context = world.context();
    assert_eq!(context.client(), "192.0.2.7:40000".parse().unwrap());
    assert_eq!(context.vip(), "[2001:db8::1]:1812".parse().unwrap());
    assert_eq!(context.service_name(), "shop");
    assert_eq!(context.flow_server(), Some("[2001:db8::5]:443".parse().unwrap()));
    world.server = None;
    assert_eq!(world.context().flow_server(), None);
}

#[test]
fn variables_are_kept_and_bounded() {
    let mut world = world();
    let string = |len| Some(Value::String(vec![b'x'; len]));
    let mut context = world.context();
    assert_eq!(context.variable("a"), None);
    context.set_variable("a", Some(Value::Number(1.5))).unwrap();
    context.set_variable("b", Some(Value::Boolean(true))).unwrap();
    context.set_variable("a", Some(Value::String(b"\xff".to_vec()))).unwrap();
    assert_eq!(context.variable("a"), Some(&Value::String(b"\xff".to_vec())));
    assert_eq!(context.variable("b"), Some(&Value::Boolean(true)));
    context.set_variable("b", None).unwrap();
    context.set_variable("never there", None).unwrap();
    assert_eq!(context.variable("b"), None);
    let limit = "the variables of a flow are limited to 16384 bytes";
    context.set_variable("a", string(16383)).unwrap();
    assert_eq!(text(context.set_variable("a", string(16384))), limit);
    assert_eq!(context.variable("a"), string(16383).as_ref(), "the old value stays");
    assert_eq!(text(context.set_variable("b", Some(Value::Number(0.0)))), limit);
    context.set_variable("a", None).unwrap();
    context.set_variable("b", Some(Value::Number(0.0))).unwrap();
}

#[test]
fn a_server_status_is_true_only_if_the_server_takes_flows() {
    let mut world = world();
    let status =
        |world: &mut World, pool, server, port| world.context().server_status(SET, pool, server, port);
    assert_eq!(status(&mut world, "api", "10.0.1.1", 8443), Ok(true));
    assert_eq!(status(&mut world, "api", "10.0.1.1", 80), Ok(false));
    assert_eq!(status(&mut world, "api", "10.9.9.9", 443), Ok(false));
    assert_eq!(status(&mut world, "api", "2001:DB8:0:0::0005", 443), Ok(true));
    assert_eq!(status(&mut world, "web", "ONE.example", 80), Ok(true), "default pool, host name");
    world.balancer.set_health(ServerId(3), false);
    assert_eq!(status(&mut world, "api", "10.0.1.1", 8443), Ok(false));
    world.balancer.set_health(ServerId(3), true);
    world.balancer.set_enabled(ServerId(3), false);
    assert_eq!(status(&mut world, "api", "10.0.1.1", 8443), Ok(false));
    world.event = Event::Response;
    assert_eq!(status(&mut world, "api", "10.0.1.1", 443), Ok(true));
    let unknown = "no pool named 'apj' (attached: api)";
    assert_eq!(text(status(&mut world, "apj", "10.0.1.1", 443)), unknown);
    let unattached = "pool 'hidden' is not attached to this DataScript set";
    assert_eq!(text(status(&mut world, "hidden", "10.0.2.1", 80)), unattached);
}

#[test]
fn servers_are_counted_per_pool_or_for_the_default() {
    let mut world = world();
    world.balancer.set_health(ServerId(1), false);
    assert_eq!(world.context().servers(SET, Some("api")), Ok((3, 3)));
    assert_eq!(world.context().servers(SET, None), Ok((1, 2)));
    assert!(world.context().servers(SET, Some("hidden")).is_err());
    let both = [(PoolId(0), 1, 1), (PoolId(1), 1, 1)];
    let group = world.snapshot.add_group("both", &both);
    world.snapshot.services[0].default = Some(Target::PoolGroup(group));
    assert_eq!(world.context().servers(SET, None), Ok((4, 5)));
    world.snapshot.services[0].default = None;
    assert_eq!(text(world.context().servers(SET, None)), "the virtual service has no default pool: name one");
}

#[test]
fn the_last_selection_that_succeeds_wins() {
    let mut world = world();
    let select = |world: &mut World, pool, server, port| world.context().select_pool(SET, pool, server, port);
    let (api, web) = (PoolId(1), PoolId(0));
    select(&mut world, "api", None, None).unwrap();
    assert_eq!(world.record.selection, Some(Selection::Pool(api)));
    select(&mut world, "web", None, None).unwrap();
    assert_eq!(world.record.selection, Some(Selection::Pool(web)), "the default pool needs no attachment");
    select(&mut world, "api", Some("10.0.1.1"), None).unwrap();
    assert_eq!(world.record.selection, Some(Selection::Server(ServerId(2))), "first in order");
    world.balancer.set_health(ServerId(3), false);
    select(&mut world, "api", Some("10.0.1.1"), Some(8443)).unwrap();
    assert_eq!(world.record.selection, Some(Selection::Server(ServerId(3))), "though it is down");
    let errors = [
        (
            text(select(&mut world, "api", Some("10.0.1.1"), Some(1))),
            "no server named '10.0.1.1 port 1' (servers of pool 'api': 10.0.1.1:443, 10.0.1.1:8443, [2001:db8::5]:443)",
        ),
        (
            text(select(&mut world, "hidden", None, None)),
            "pool 'hidden' is not attached to this DataScript set",
        ),
        (text(select(&mut world, "nope", None, None)), "no pool named 'nope' (attached: api)"),
        (text(select(&mut world, "api", None, Some(443))), "port 443 is given without a server"),
        (
            text(world.context().select_pool_group(SET, "secret")),
            "pool group 'secret' is not attached to this DataScript set",
        ),
        (text(world.context().select_pool_group(SET, "web")), "no pool group named 'web' (attached: all)"),
    ];
    for (got, want) in errors {
        assert_eq!(got, want);
    }
    assert_eq!(world.record.selection, Some(Selection::Server(ServerId(3))), "errors select nothing");
    world.context().select_pool_group(SET, "all").unwrap();
    assert_eq!(world.record.selection, Some(Selection::PoolGroup(PoolGroupId(0))));
}

#[test]
fn selecting_is_over_in_the_response_event() {
    let mut world = world();
    world.event = Event::Response;
    let refused = "not allowed in VS_DATASCRIPT_EVT_L4_RESPONSE";
    assert_eq!(text(world.context().select_pool(SET, "api", None, None)), refused);
    assert_eq!(text(world.context().select_pool_group(SET, "all")), refused);
    assert_eq!(text(world.context().persist(SET, b"key", None, None)), refused);
    assert_eq!(world.record.selection, None);
    assert_eq!(world.record.persist, None);
    assert_eq!(world.entry(b"key"), None);
}

#[test]
fn table_lifetimes_follow_the_contract() {
    let mut world = world();
    let mut context = world.context();
    assert_eq!(context.table_insert(None, b"k", b"v", None), Ok(true));
    assert_eq!(context.table_lookup(None, b"k", Some(0.0)), Ok(Some((&b"v"[..], 300))));
    assert_eq!(context.table_lookup(None, b"k", None), Ok(Some((&b"v"[..], 600))));
    assert_eq!(context.table_lookup(None, b"k", Some(10.9)), Ok(Some((&b"v"[..], 610))));
    assert_eq!(context.table_insert(None, b"k", b"other", Some(700.0)), Ok(true));
    assert_eq!(context.table_lookup(None, b"k", Some(0.0)), Ok(Some((&b"v"[..], 700))));
    assert_eq!(context.table_refresh(None, b"k", None), Ok(true));
    assert_eq!(context.table_refresh(None, b"k", Some(-5.0)), Ok(true));
    assert_eq!(context.table_refresh(None, b"k", Some(f64::NAN)), Ok(true));
    assert_eq!(context.table_lookup(None, b"k", Some(0.0)), Ok(Some((&b"v"[..], 700))));
    assert_eq!(context.table_refresh(None, b"k", Some(800.0)), Ok(true));
    assert_eq!(context.table_lookup(None, b"k", Some(0.0)), Ok(Some((&b"v"[..], 800))));
    context.table_remove(None, b"k");
    context.table_remove(None, b"k");
    assert_eq!(context.table_refresh(None, b"k", None), Ok(false));
    assert_eq!(context.table_lookup(None, b"k", None), Ok(None));
    assert_eq!(context.table_insert(Some(b"t"), b"k", b"v", Some(0.5)), Ok(true));
    assert_eq!(context.table_lookup(Some(b"t"), b"k", Some(0.0)), Ok(Some((&b"v"[..], 300))));
    assert_eq!(context.table_lookup(None, b"k", Some(0.0)), Ok(None));
    assert_eq!(world.tables.stats(SERVICE).raised_lifetimes, 1);
}

#[test]
fn lifetimes_that_are_none_are_errors() {
    let mut world = world();
    let mut context = world.context();
    for lifetime in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = format!("lifetime {lifetime} is not a positive number of seconds");
        assert_eq!(text(context.table_insert(None, b"k", b"v", Some(lifetime))), refused);
        assert_eq!(text(context.persist(SET, b"k", Some(lifetime), None)), refused);
    }
    for exten in [-1.0, f64::NAN, f64::INFINITY] {
        let refused = format!("lifetime extension {exten} is not 0 or a number of seconds");
        assert_eq!(text(context.table_lookup(None, b"k", Some(exten))), refused);
    }
    assert_eq!(context.table_lookup(None, b"k", None), Ok(None));
}

#[test]
fn a_full_table_says_false() {
    let mut world = world();
    let mut context = world.context();
    let inserted: Vec<bool> =
        (0..6u8).map(|key| context.table_insert(None, &[key], b"v", None).unwrap()).collect();
    assert_eq!(inserted, [true, true, true, true, false, false]);
    assert_eq!(context.table_insert(None, &[b'x'; 65], b"v", None), Ok(false));
    let stats = world.tables.stats(SERVICE);
    assert_eq!((stats.refused_full, stats.refused_too_long), (2, 1));
}

#[test]
fn persist_balances_once_and_then_stays() {
    let mut world = world();
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(0))));
    assert_eq!(world.entry(b"key"), entry("10.0.0.1-80", 300));
    world.now = Instant::from_secs(1100);
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(0))));
    assert_eq!(world.entry(b"key"), entry("10.0.0.1-80", 300), "renewed");
    world.context().persist(SET, b"key", Some(900.0), None).unwrap();
    assert_eq!(world.entry(b"key"), entry("10.0.0.1-80", 900));
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(0))));
    assert_eq!(world.entry(b"key"), entry("10.0.0.1-80", 900));
}

#[test]
fn persist_leaves_a_server_that_is_down() {
    let mut world = world();
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(0))));
    world.balancer.set_health(ServerId(0), false);
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(1))));
    assert_eq!(world.entry(b"key"), entry("10.0.0.2-80", 300));
    world.balancer.set_health(ServerId(0), true);
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(1))), "and does not go back");
}

#[test]
fn persist_leaves_a_server_that_is_full_unless_all_are() {
    let mut world = limited_world();
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(0))));
    assert!(world.balancer.take(ServerId(0)));
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(1))));
    assert_eq!(world.entry(b"key"), entry("10.0.0.2-80", 300));
    assert!(world.balancer.take(ServerId(1)));
    assert_eq!(
        world.persisted(None),
        Some(Selection::Pool(PoolId(0))),
        "so that the flow fails as any other"
    );
    assert_eq!(world.entry(b"key"), entry("10.0.0.2-80", 300));
    let status = world.context().server_status(SET, "web", "10.0.0.2", 80);
    assert_eq!(status, Ok(true), "full is not down");
    assert_eq!(world.context().servers(SET, None), Ok((2, 2)));
    world.balancer.closed(ServerId(0));
    world.balancer.closed(ServerId(1));
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(1))));
}

#[test]
fn persist_without_a_server_makes_no_entry() {
    let mut world = world();
    world.balancer.set_health(ServerId(0), false);
    world.balancer.set_health(ServerId(1), false);
    let selection = world.persisted(None).unwrap();
    assert_eq!(selection, Selection::Pool(PoolId(0)));
    assert_eq!(world.entry(b"key"), None);
    let client = ip("192.0.2.7");
    let pick = world.balancer.pick_selection(&world.snapshot, selection, client, &[]);
    assert_eq!(pick, Pick::Failed(FailAction::Reset));
}

#[test]
fn persist_uses_the_pool_that_it_is_given() {
    let mut world = world();
    assert_eq!(world.persisted(Some("api")), Some(Selection::Server(ServerId(2))));
    assert_eq!(world.entry(b"key"), entry("10.0.1.1-443", 300));
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(2))), "found in an attached pool");
    assert_eq!(world.persisted(Some("web")), Some(Selection::Server(ServerId(0))), "not a member");
    assert_eq!(world.entry(b"key"), entry("10.0.0.1-80", 300));
    let unattached = "pool 'hidden' is not attached to this DataScript set";
    assert_eq!(text(world.context().persist(SET, b"key", None, Some("hidden"))), unattached);
}

#[test]
fn persist_reads_what_scripts_and_groups_left_in_the_table() {
    let mut world = world();
    world.context().table_insert(None, b"key", b"10.0.2.1-80", None).unwrap();
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(5))), "in an attached group");
    for odd in
        [&b"nonsense"[..], b"10.0.1.1-", b"10.9.9.9-80", b"10.0.1.1-443-1", b"\xff-80", b"2001:db8::5-443"]
    {
        world.context().table_remove(None, b"key");
        world.context().table_insert(None, b"key", odd, None).unwrap();
        let selection = world.persisted(Some("web"));
        assert!(matches!(selection, Some(Selection::Server(ServerId(0 | 1)))), "{odd:?}: {selection:?}");
        assert!(world.entry(b"key").unwrap().0.starts_with("10.0.0."), "rewritten");
    }
}

#[test]
fn persist_keeps_to_the_address_family_of_the_packets() {
    let mut world = world();
    world.client = "[2001:db8:7::1]:4000".parse().unwrap();
    world.vip = "[2001:db8::1]:1812".parse().unwrap();
    assert_eq!(world.persisted(Some("api")), Some(Selection::Server(ServerId(4))));
    assert_eq!(world.entry(b"key"), entry("2001:db8::5-443", 300));
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(4))));
    world.client = "192.0.2.7:4000".parse().unwrap();
    assert_eq!(
        world.persisted(None),
        Some(Selection::Server(ServerId(4))),
        "a PROXY header named the client"
    );
    world.vip = "192.0.2.10:1812".parse().unwrap();
    assert_eq!(world.persisted(Some("api")), Some(Selection::Server(ServerId(2))));
}

#[test]
fn the_entry_records_the_server_finally_used() {
    let mut world = world();
    world.persisted(None);
    world.context().select_pool(SET, "api", None, None).unwrap();
    assert_eq!(world.record.selection, Some(Selection::Pool(PoolId(1))));
    record_persistence(world.now, &world.snapshot, &mut world.tables, SERVICE, &world.record, ServerId(3));
    assert_eq!(world.entry(b"key"), entry("10.0.1.1-8443", 300));
    record_persistence(world.now, &world.snapshot, &mut world.tables, SERVICE, &world.record, ServerId(3));
    assert_eq!(world.entry(b"key"), entry("10.0.1.1-8443", 300));
    forget_persistence(world.now, &mut world.tables, SERVICE, &world.record);
    assert_eq!(world.entry(b"key"), None);
    let silent = Record::default();
    record_persistence(world.now, &world.snapshot, &mut world.tables, SERVICE, &silent, ServerId(3));
    assert_eq!(world.tables.stats(SERVICE).entries, 0, "no persist, no entry");
}

#[test]
fn without_a_default_pool_persist_leaves_the_decision_to_select() {
    let mut world = world();
    world.snapshot.services[0].default = None;
    assert_eq!(world.persisted(None), None);
    assert_eq!(world.entry(b"key"), None);
    world.context().select_pool(SET, "api", None, None).unwrap();
    record_persistence(world.now, &world.snapshot, &mut world.tables, SERVICE, &world.record, ServerId(2));
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(2))));
}

#[test]
fn on_a_bound_flow_persist_records_its_server() {
    let mut world = world();
    world.server = Some(ServerId(1));
    assert_eq!(world.persisted(None), None);
    assert_eq!(world.entry(b"key"), entry("10.0.0.2-80", 300));
}

#[test]
fn a_full_table_does_not_stop_persist_from_balancing() {
    let mut world = world();
    for key in 0..4u8 {
        world.context().table_insert(None, &[key], b"v", None).unwrap();
    }
    assert_eq!(world.persisted(None), Some(Selection::Server(ServerId(0))));
    assert_eq!(world.entry(b"key"), None);
    assert_eq!(world.tables.stats(SERVICE).refused_full, 1);
}

#[test]
fn retries_stay_within_what_was_chosen() {
    let mut world = world();
    let (web, api) = (Target::Pool(PoolId(0)), Target::Pool(PoolId(1)));
    let target = |world: &World| retry_target(&world.snapshot, SERVICE, &world.record);
    assert_eq!(target(&world), Some(web), "nothing chosen: the default");
    world.persisted(Some("api"));
    assert_eq!(target(&world), Some(api), "persist does not pin");
    world.context().select_pool(SET, "api", Some("10.0.1.1"), Some(8443)).unwrap();
    assert_eq!(target(&world), None, "a named server does");
    world.context().select_pool(SET, "api", None, None).unwrap();
    assert_eq!(target(&world), Some(api));
    world.context().select_pool_group(SET, "all").unwrap();
    assert_eq!(target(&world), Some(Target::PoolGroup(PoolGroupId(0))));
}
