//! A lab is weir between clients and servers: what goes in comes out where the scripts say.
#![cfg(test)]

use std::net::SocketAddr;
use std::path::Path;

use dataplane::channel::EndedBy;
use dataplane::script_trace::{Detail, ScriptStep};
use dataplane::snapshot::{PoolId, Protocol, ServerId, ServiceId};
use lab::{Blueprint, Host, Lab, Options, Reply, RunState, ServerState, SessionId, TcpPhase, Tracing};
use smoltcp::time::Duration;

const CONFIG: &str = r#"
[[interface]]
name = "outside"
device = "net_null0"
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]
[[interface]]
name = "inside"
device = "net_null1"
vlan = 20
addresses = ["10.0.0.1/24", "2001:db8:2::1/64"]
[[route]]
to = "0.0.0.0/0"
via = "192.0.2.254"
[snat]
addresses = ["10.0.0.2", "2001:db8:2::2"]
ports = "20000-29999"
[[pool]]
name = "a"
servers = [{ address = "10.0.0.20", port = 80 }, { address = "10.0.0.21", port = 80 }, { address = "2001:db8:2::20", port = 80 }]
  [[pool.health_monitor]]
  type = "tcp"
[[pool]]
name = "b"
servers = [{ address = "10.0.0.30", port = 80 }]
[[datascript_set]]
name = "by-word"
pools = ["a", "b"]
request_inline = '''
local n = avi.l4.collect(5)
local word = avi.l4.read(5)
avi.vs.log(word, " ", n >= 5)
if avi.vs.table_lookup(avi.vs.client_ip(), 0) then
  avi.vs.close_conn()
elseif word == "bread" then
  avi.pool.select("b")
end
avi.vs.table_insert("seen", word, "x", 600)
'''
[[virtual_service]]
name = "vs"
addresses = ["192.0.2.10", "2001:db8:1::10"]
ports = ["tcp/80", "udp/80"]
pool = "a"
datascript_sets = ["by-word"]
"#;

const A: ServerId = ServerId(0);
const B: ServerId = ServerId(3);

fn blueprint(options: Options) -> Blueprint {
    match config::parse(CONFIG, "lab.toml", Path::new(".")) {
        Ok(config) => Blueprint::new(&config.snapshot, options),
        Err(errors) => panic!("{}", errors.render(false)),
    }
}

fn fresh() -> Lab {
    blueprint(Options::default()).lab().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client(lab: &mut Lab, protocol: Protocol) -> lab::ClientId {
    lab.client(socket("198.51.100.7:4242"), socket("192.0.2.10:80"), protocol).unwrap()
}

#[test]
fn a_connection_goes_where_the_script_says_and_back() {
    let mut lab = fresh();
    lab.set_host(B, Host { reply: Reply::Bytes(b"butter".to_vec()), ..Host::default() });
    let c = client(&mut lab, Protocol::Tcp);
    lab.connect(c);
    lab.send(c, b"bread, please");
    lab.finish(c);
    lab.advance(Duration::from_secs(1));
    let view = lab.client_view(c).unwrap();
    assert_eq!(view.received(), b"butter");
    assert!(view.tcp().unwrap().is_finished());
    let [session] = lab.sessions() else { panic!("{:?}", lab.sessions()) };
    assert_eq!((session.server, session.received()), (Some(B), b"bread, please".to_vec()));
    assert_eq!(session.client, Some(socket("198.51.100.7:4242")));
    assert_eq!(session.vip, Some(socket("192.0.2.10:80")));
    let [record] = lab.records() else { panic!("{:?}", lab.records()) };
    assert_eq!(record.termination.to_string(), "--");
    assert_eq!(record.ds_log.as_deref(), Some(&b"bread true"[..]));
    let [run] = lab.runs() else { panic!("{:?}", lab.runs()) };
    assert_eq!((run.state, run.resumes, &run.log[..]), (RunState::Done, 0, &b"bread true"[..]));
    assert_eq!(lab.tables_lookup(ServiceId(0), Some(b"seen"), b"bread"), Some((b"x".to_vec(), 600 - 1)));
    lab.advance(Duration::from_secs(120));
    assert_eq!(lab.flows().len(), 0);
    assert!(!lab.restless());
}

#[test]
fn every_cut_of_a_payload_comes_to_the_same() {
    let blueprint = blueprint(Options::default());
    let payload = b"bread, please";
    for cut in 1..payload.len() {
        for backwards in [false, true] {
            let mut lab = blueprint.lab().unwrap();
            let c = client(&mut lab, Protocol::Tcp);
            lab.connect(c);
            let (head, tail) = ((0, &payload[..cut]), (cut, &payload[cut..]));
            let pieces = if backwards { [tail, tail, head] } else { [head, head, tail] };
            for (offset, bytes) in pieces {
                lab.segment(c, offset, bytes);
            }
            lab.finish(c);
            lab.advance(Duration::from_secs(2));
            assert_eq!(lab.sessions()[0].received(), payload, "cut at {cut}, backwards: {backwards}");
            assert_eq!(lab.sessions()[0].server, Some(B));
            let waits = u32::from(cut < 5 && !backwards);
            assert_eq!((lab.runs().len(), lab.runs()[0].resumes), (1, waits), "cut at {cut}");
            assert!(lab.client_view(c).unwrap().tcp().unwrap().is_finished());
        }
    }
}

#[test]
fn a_stream_longer_than_all_windows_arrives() {
    let mut lab = fresh();
    lab.set_host(A, Host { reply: Reply::Echo, ..Host::default() });
    let c = client(&mut lab, Protocol::Tcp);
    lab.connect(c);
    let stream: Vec<u8> = (0..600_000u32).map(|byte| (byte % 251) as u8).collect();
    lab.send(c, &stream);
    lab.finish(c);
    lab.advance(Duration::from_secs(5));
    assert_eq!(lab.sessions()[0].received(), stream);
    assert_eq!(lab.client_view(c).unwrap().received(), stream);
}

#[test]
fn servers_are_as_they_are_set() {
    for (state, server, refused) in [
        (ServerState::Up, Some(A), 0),
        (ServerState::Down, Some(ServerId(1)), 0),
        (ServerState::Disabled, Some(ServerId(1)), 0),
        (ServerState::Refusing, Some(ServerId(1)), 0),
        (ServerState::Silent, Some(ServerId(1)), 6),
    ] {
        let mut lab = fresh();
        lab.set_server(A, state);
        let c = client(&mut lab, Protocol::Tcp);
        lab.connect(c);
        lab.send(c, b"water");
        lab.advance(Duration::from_secs(refused + 1));
        let servers: Vec<_> = lab.sessions().iter().map(|session| session.server).collect();
        assert_eq!(servers, [server], "{state:?}");
        assert_eq!(lab.sessions()[0].received(), b"water", "{state:?}");
    }
    let mut lab = fresh();
    lab.set_pool(PoolId(0), ServerState::Down);
    let c = client(&mut lab, Protocol::Tcp);
    lab.connect(c);
    lab.send(c, b"water");
    assert_eq!(lab.client_view(c).unwrap().tcp().unwrap().phase(), TcpPhase::Reset);
    assert_eq!(lab.records()[0].termination.to_string(), "RP");
}

#[test]
fn servers_may_begin_reset_and_end() {
    let mut lab = fresh();
    lab.set_host(A, Host { greeting: b"220 ready".to_vec(), ..Host::default() });
    let c = client(&mut lab, Protocol::Tcp);
    lab.connect(c);
    lab.send(c, b"water");
    lab.server_send(SessionId(0), b", sir");
    assert_eq!(lab.client_view(c).unwrap().received(), b"220 ready, sir");
    lab.server_finish(SessionId(0));
    assert!(lab.client_view(c).unwrap().tcp().unwrap().peer_finished());
    lab.server_reset(SessionId(0));
    assert_eq!(lab.client_view(c).unwrap().tcp().unwrap().phase(), TcpPhase::Reset);
}

#[test]
fn tables_are_read_and_written_and_age() {
    let mut lab = fresh();
    let _ = lab.tables_insert(ServiceId(0), None, b"198.51.100.7", b"banned", 300);
    let c = client(&mut lab, Protocol::Tcp);
    lab.connect(c);
    lab.send(c, b"bread");
    lab.advance(Duration::from_secs(1));
    assert!(lab.sessions().is_empty());
    assert!(lab.client_view(c).unwrap().tcp().unwrap().peer_finished(), "closed by FIN");
    assert_eq!(lab.tables(Some(ServiceId(0))).len(), 2);
    lab.advance(Duration::from_secs(300));
    assert_eq!(lab.tables_lookup(ServiceId(0), None, b"198.51.100.7"), None);
    assert_eq!(lab.records()[0].termination.to_string(), "WP");
}

#[test]
fn datagrams_go_and_come_back_whole() {
    let mut lab = fresh();
    lab.set_host(B, Host { reply: Reply::Echo, ..Host::default() });
    let c = client(&mut lab, Protocol::Udp);
    let long: Vec<u8> = b"bread".iter().copied().cycle().take(4000).collect();
    lab.send(c, &long);
    assert_eq!(lab.sessions()[0].datagrams(), std::slice::from_ref(&long));
    assert_eq!(lab.sessions()[0].server, Some(B));
    lab.server_send(SessionId(0), b"more");
    assert_eq!(lab.client_view(c).unwrap().datagrams().last().unwrap(), b"more");
    lab.advance(Duration::from_secs(60));
    assert_eq!(lab.records().len(), 1);
}

/// However many there are: nobody reads the queue of their records while they end.
#[test]
fn all_flows_that_are_open_at_the_end_are_recorded() {
    let mut lab = fresh();
    let flows = 700u16;
    for n in 0..flows {
        let address = SocketAddr::new([198, 51, 100, 7].into(), 10_000 + n);
        let id = lab.client(address, socket("192.0.2.10:80"), Protocol::Udp).unwrap();
        lab.send(id, b"a: 1");
        lab.settle();
    }
    lab.shut_down();
    assert_eq!(lab.records().len(), usize::from(flows));
    assert!(lab.records().iter().all(|record| record.termination.by == EndedBy::Shutdown));
}

#[test]
fn ipv6_works_alike() {
    let mut lab = fresh();
    let c = lab.client(socket("[2001:db8:1::7]:4242"), socket("[2001:db8:1::10]:80"), Protocol::Tcp).unwrap();
    lab.connect(c);
    lab.send(c, b"water");
    assert_eq!(lab.sessions()[0].address, socket("[2001:db8:2::20]:80"));
    assert_eq!(lab.sessions()[0].received(), b"water");
    assert!(lab.client(socket("[2001:db8:1::7]:4242"), socket("192.0.2.10:80"), Protocol::Tcp).is_err());
}

#[test]
fn what_scripts_do_is_traced_and_frames_are_kept() {
    let trace = Some(Tracing { detail: Detail::Calls, steps: 100 });
    let mut lab = blueprint(Options { trace, keep_frames: true, ..Options::default() }).lab().unwrap();
    let c = client(&mut lab, Protocol::Tcp);
    lab.connect(c);
    lab.send(c, b"br");
    assert_eq!(lab.runs()[0].state, RunState::Waiting { need: 5 });
    lab.send(c, b"ead");
    let trace = lab.runs()[0].trace.as_ref().unwrap();
    let calls = trace.steps().iter().filter_map(|step| match step {
        ScriptStep::Call { function, .. } => Some(*function),
        _ => None,
    });
    let expected = ["avi.l4.collect", "avi.l4.read", "avi.vs.log", "avi.vs.client_ip", "avi.vs.table_lookup"];
    assert_eq!(calls.take(5).collect::<Vec<_>>(), expected);
    assert!(trace.steps().contains(&ScriptStep::Resume { buffered: 5 }));
    assert!(lab.frames().iter().any(|frame| frame.inbound && frame.bytes.ends_with(b"ead")));
    assert!(
        lab.frames().iter().any(|frame| !frame.inbound && frame.port == 1 && frame.bytes.ends_with(b"bread"))
    );
}

#[test]
fn the_same_calls_give_the_same_frames() {
    let blueprint = blueprint(Options { keep_frames: true, ..Options::default() });
    let run = || {
        let mut lab = blueprint.lab().unwrap();
        let c = client(&mut lab, Protocol::Tcp);
        lab.connect(c);
        lab.send(c, b"bread");
        lab.advance(Duration::from_secs(400));
        lab.frames().to_vec()
    };
    assert_eq!(run(), run());
}
