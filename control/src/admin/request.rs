//! What a line on the admin socket means.

use std::net::{IpAddr, SocketAddr};

use dataplane::policy::Event;
use dataplane::snapshot::{PoolId, ScriptSetId, ServerId, ServiceId, Snapshot};

use super::{explain, watch};
use crate::explain::Question;

/// Flows and table entries shown when no limit is given.
const DEFAULT_LIMIT: usize = 100;
/// The most that one request may ask for: the worker copies them between two bursts.
const MAX_LIMIT: usize = 10_000;

/// How long a profile is made, in seconds, when nothing is said, and at most.
const DEFAULT_SECONDS: u64 = 10;
const MAX_SECONDS: u64 = 600;

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Help,
    Explain(Question),
    Profile(Profile, Format),
    Show(Show, Format),
    Reload,
    SetEnabled(ServerId, bool),
    Watch(watch::Watch, Format),
}

/// Of which script to make a profile, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) set: ScriptSetId,
    pub(super) event: Event,
    pub(super) seconds: u64,
}

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Counters,
    Flows { limit: usize, service: Option<ServiceId>, client: Option<IpAddr> },
    Info,
    Latency,
    Metrics,
    Pools,
    Ports,
    Scripts,
    Servers,
    Tables { limit: usize, service: Option<ServiceId> },
    Workers,
}

/// How to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// Answer to `help`, and part of the answer to what is not understood.
pub(super) const HELP: &str = "\
show counters                                    packets received and where they went
show flows [limit N] [service NAME] [client IP]  open flows
show info                                        version, uptime, log and monitors
show latency                                     from rx burst to tx burst
show metrics                                     everything, for Prometheus
show pools                                       pools and how many of their servers are up
show ports                                       ports and their devices' counters
show scripts                                     runs, errors and run times
show servers                                     servers with state and flows
show tables [limit N] [service NAME]             tables of scripts
show workers                                     packets and flows of each worker
enable server POOL ADDRESS:PORT                  let it take new flows
disable server POOL ADDRESS:PORT                 no new flows; open ones go on
profile script SET [event EVENT] [seconds N]     lines of a script where its time goes
reload                                           read the configuration file again and go on by it
explain client ADDRESS:PORT vip ADDRESS:PORT ... what would become of a flow, without sending a packet
trace [client PREFIX] [vip IP] [port N] ...      what happens to packets of the next flows, as it happens
help                                             this list
Every `show` but metrics, `profile`, `explain` and `trace` take `json` as their last word.";

/// Understands one line. The error is the whole answer to the operator.
pub(super) fn parse(line: &str, snapshot: &Snapshot) -> Result<Request, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["help"] => Ok(Request::Help),
        ["reload"] => Ok(Request::Reload),
        ["show", what, rest @ .., "json"] => {
            Ok(Request::Show(parse_show(what, rest, snapshot)?, Format::Json))
        }
        ["show", what, rest @ ..] => Ok(Request::Show(parse_show(what, rest, snapshot)?, Format::Text)),
        ["profile", "script", rest @ .., "json"] => {
            Ok(Request::Profile(parse_profile(rest, snapshot)?, Format::Json))
        }
        ["profile", "script", rest @ ..] => {
            Ok(Request::Profile(parse_profile(rest, snapshot)?, Format::Text))
        }
        ["explain", rest @ ..] => Ok(Request::Explain(explain::parse(rest)?)),
        ["trace", rest @ .., "json"] => Ok(Request::Watch(watch::parse(rest)?, Format::Json)),
        ["trace", rest @ ..] => Ok(Request::Watch(watch::parse(rest)?, Format::Text)),
        ["enable", "server", pool @ .., member] if !pool.is_empty() => {
            Ok(Request::SetEnabled(server(&pool.join(" "), member, snapshot)?, true))
        }
        ["disable", "server", pool @ .., member] if !pool.is_empty() => {
            Ok(Request::SetEnabled(server(&pool.join(" "), member, snapshot)?, false))
        }
        _ => Err(format!("unknown command '{}'; there are:\n{HELP}", line.trim())),
    }
}

fn parse_show(what: &str, rest: &[&str], snapshot: &Snapshot) -> Result<Show, String> {
    let plain = match what {
        "counters" => Show::Counters,
        "flows" => {
            let Options { limit, service, client } = options(rest, true, snapshot)?;
            return Ok(Show::Flows { limit, service, client });
        }
        "info" => Show::Info,
        "latency" => Show::Latency,
        "metrics" => Show::Metrics,
        "pools" => Show::Pools,
        "ports" => Show::Ports,
        "scripts" => Show::Scripts,
        "servers" => Show::Servers,
        "workers" => Show::Workers,
        "tables" => {
            let Options { limit, service, .. } = options(rest, false, snapshot)?;
            return Ok(Show::Tables { limit, service });
        }
        other => return Err(format!("unknown command 'show {other}'; there are:\n{HELP}")),
    };
    match rest.first() {
        None => Ok(plain),
        Some(word) => Err(format!("'show {what}' takes no '{word}'; only 'json' may follow")),
    }
}

/// `SET [event EVENT] [seconds N]`, the options in any order; the name of the set may have blanks.
fn parse_profile(words: &[&str], snapshot: &Snapshot) -> Result<Profile, String> {
    let (mut name, mut event, mut seconds) = (words, None, DEFAULT_SECONDS);
    loop {
        name = match name {
            [name @ .., "event", word] => {
                event = Some(match *word {
                    "request" => Event::Request,
                    "response" => Event::Response,
                    _ => return Err(format!("'{word}' is no event; there are: request, response")),
                });
                name
            }
            [name @ .., "seconds", number] => {
                let given = number.parse().ok().filter(|given| (1..=MAX_SECONDS).contains(given));
                seconds = given.ok_or(format!("'{number}' is not a number from 1 to {MAX_SECONDS}"))?;
                name
            }
            _ => break,
        };
    }
    let name = name.join(" ");
    let retired = &snapshot.retired.script_sets;
    let sets =
        || (0u16..).map(ScriptSetId).zip(&snapshot.script_sets).filter(|(id, _)| !retired.contains(id));
    let (set, scripts) = sets()
        .find(|(_, set)| set.name == name)
        .ok_or_else(|| no_such("DataScript set", &name, sets().map(|(_, set)| set.name.clone())))?;
    let event = event.unwrap_or(if scripts.request.is_some() { Event::Request } else { Event::Response });
    let (there, word) = match event {
        Event::Request => (scripts.request.is_some(), "request"),
        Event::Response => (scripts.response.is_some(), "response"),
    };
    if !there {
        return Err(format!("the DataScript set '{name}' has no {word} script"));
    }
    Ok(Profile { set, event, seconds })
}

struct Options {
    limit: usize,
    service: Option<ServiceId>,
    client: Option<IpAddr>,
}

fn options(mut rest: &[&str], with_client: bool, snapshot: &Snapshot) -> Result<Options, String> {
    let mut options = Options { limit: DEFAULT_LIMIT, service: None, client: None };
    loop {
        rest = match rest {
            [] => return Ok(options),
            ["limit", number, rest @ ..] => {
                options.limit = limit(number)?;
                rest
            }
            ["service", name, ..] => {
                // A name may have blanks: the most words that are one.
                let words = rest.get(1..).unwrap_or(&[]);
                let named = (1..=words.len()).rev().find_map(|count| {
                    let (name, rest) = words.split_at_checked(count)?;
                    Some((service(&name.join(" "), snapshot).ok()?, rest))
                });
                let (id, after) = match named {
                    Some(named) => named,
                    None => (service(name, snapshot)?, words),
                };
                options.service = Some(id);
                after
            }
            ["client", address, rest @ ..] if with_client => {
                options.client =
                    Some(address.parse().map_err(|_| format!("'{address}' is not an IP address"))?);
                rest
            }
            [word, ..] => {
                let client = if with_client { ", 'client IP'" } else { "" };
                return Err(format!(
                    "'{word}' is not understood; there are 'limit N', 'service NAME'{client}"
                ));
            }
        };
    }
}

fn limit(number: &str) -> Result<usize, String> {
    match number.parse() {
        Ok(limit) if limit <= MAX_LIMIT => Ok(limit),
        _ => Err(format!("'{number}' is not a number from 0 to {MAX_LIMIT}")),
    }
}

fn service(name: &str, snapshot: &Snapshot) -> Result<ServiceId, String> {
    let retired = &snapshot.retired.services;
    let services = || (0u16..).map(ServiceId).zip(&snapshot.services).filter(|(id, _)| !retired.contains(id));
    services()
        .find(|(_, service)| service.name == name)
        .map(|(id, _)| id)
        .ok_or_else(|| no_such("service", name, services().map(|(_, service)| service.name.clone())))
}

fn server(pool_name: &str, member: &str, snapshot: &Snapshot) -> Result<ServerId, String> {
    let retired = &snapshot.retired.pools;
    let pools = || (0u16..).map(PoolId).zip(&snapshot.pools).filter(|(id, _)| !retired.contains(id));
    let (_, pool) = pools()
        .find(|(_, pool)| pool.name == pool_name)
        .ok_or_else(|| no_such("pool", pool_name, pools().map(|(_, pool)| pool.name.clone())))?;
    let address: SocketAddr = member
        .parse()
        .map_err(|_| format!("'{member}' is not ADDRESS:PORT (an IPv6 address stands in brackets)"))?;
    let members = || {
        pool.servers.iter().filter_map(|id| {
            let server = snapshot.servers.get(id.index())?;
            Some((*id, SocketAddr::new(server.address, server.port)))
        })
    };
    members()
        .find(|(_, member)| *member == address)
        .map(|(id, _)| id)
        .ok_or_else(|| no_such("server", member, members().map(|(_, member)| member.to_string())))
}

fn no_such(kind: &str, name: &str, existing: impl Iterator<Item = String>) -> String {
    let existing = existing.collect::<Vec<_>>().join(", ");
    format!("there is no {kind} '{name}'; there are: {existing}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn names_may_have_blanks() {
        let mut snapshot = fixture::snapshot();
        snapshot.pools[0].name = "my web servers".to_owned();
        snapshot.services[1].name = "dns limit".to_owned();
        let enabled = Request::SetEnabled(ServerId(1), true);
        assert_eq!(parse("enable server my web servers 10.0.0.12:8443", &snapshot), Ok(enabled));
        let service = Some(ServiceId(1));
        let flows = Show::Flows { limit: 7, service, client: None };
        let understood = parse("show flows service dns limit limit 7", &snapshot);
        assert_eq!(understood, Ok(Request::Show(flows, Format::Text)));
        assert!(parse("enable server 10.0.0.12:8443", &snapshot).is_err());
    }

    #[test]
    fn every_command_is_understood() {
        let flows = |limit, service, client| Show::Flows { limit, service, client };
        let text = |show| Request::Show(show, Format::Text);
        let cases = [
            ("help", Request::Help),
            ("show counters", text(Show::Counters)),
            ("  show   info  ", text(Show::Info)),
            ("show pools json", Request::Show(Show::Pools, Format::Json)),
            ("show flows", text(flows(100, None, None))),
            ("show flows limit 5 json", Request::Show(flows(5, None, None), Format::Json)),
            (
                "show flows client 2001:db8::10 service dns limit 7",
                text(flows(7, Some(ServiceId(1)), Some("2001:db8::10".parse().unwrap()))),
            ),
            ("show tables service tls", text(Show::Tables { limit: 100, service: Some(ServiceId(0)) })),
            ("enable server web 10.0.0.12:8443", Request::SetEnabled(ServerId(1), true)),
            ("disable server dns [2001:db8:1::53]:53", Request::SetEnabled(ServerId(3), false)),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line, &fixture::snapshot()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_answered_with_what_there_is() {
        let cases = [
            ("", "unknown command ''; there are:\nshow counters"),
            ("shutdown now", "unknown command 'shutdown now'; there are:"),
            ("show everything", "unknown command 'show everything'; there are:"),
            ("show pools limit 3", "'show pools' takes no 'limit'; only 'json' may follow"),
            ("show flows limit many", "'many' is not a number from 0 to 10000"),
            ("show tables limit 10001", "'10001' is not a number from 0 to 10000"),
            ("show flows service www", "there is no service 'www'; there are: tls, dns"),
            ("show flows client me", "'me' is not an IP address"),
            (
                "show tables client 10.0.0.1",
                "'client' is not understood; there are 'limit N', 'service NAME'",
            ),
            ("enable server www 10.0.0.11:80", "there is no pool 'www'; there are: web, dns"),
            ("enable server web 10.0.0.11", "'10.0.0.11' is not ADDRESS:PORT"),
            (
                "enable server web 10.0.0.11:80",
                "there is no server '10.0.0.11:80'; there are: 10.0.0.11:8443, 10.0.0.12:8443",
            ),
        ];
        for (line, expected) in cases {
            let error = parse(line, &fixture::snapshot()).unwrap_err();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }
}
