//! Words that stand for one of a few things.

use dataplane::proxy_protocol::Version;
use dataplane::snapshot::{Algorithm, Fallback, SynCookies, TcpProfile};
use toml::de::DeValue;

use super::string;
use super::text::Name;
use crate::process::{Hugepages, Idle};
use crate::read::{At, Fault, Field, Place, Required, Section, Value};
use script_check::nearest;

/// One of a few words.
trait Choice: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl<C: Choice> Value for C {
    fn expected() -> String {
        let words: Vec<String> = C::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = string(value)?;
        if let Some((_, choice)) = C::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*choice);
        }
        let what = format!("there is no \"{text}\"");
        let expected = C::expected();
        Err(match nearest(text, C::WORDS.iter().map(|(word, _)| *word)) {
            Some(near) => Fault::hint(what, format!("did you mean \"{near}\"? Allowed: {expected}")),
            None => Fault::value(what),
        })
    }
}

/// The kind of a health monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MonitorType {
    Icmp,
    Tcp,
    Udp,
    None,
}

/// When the scripts of a service run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    FirstPayload,
    EveryPayload,
}

/// The PROXY header that servers expect, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProxyHeader(pub Option<Version>);

impl Choice for ProxyHeader {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", ProxyHeader(None)),
        ("v1", ProxyHeader(Some(Version::V1))),
        ("v2", ProxyHeader(Some(Version::V2))),
    ];
}

impl Choice for Algorithm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round_robin", Algorithm::RoundRobin),
        ("least_connections", Algorithm::LeastConnections),
        ("source_ip_hash", Algorithm::SourceIpHash),
    ];
}

impl Choice for Fallback {
    const WORDS: &'static [(&'static str, Self)] =
        &[("close", Fallback::Close), ("default_pool", Fallback::DefaultPool)];
}

impl Choice for TcpProfile {
    const WORDS: &'static [(&'static str, Self)] =
        &[("proxy", TcpProfile::Proxy), ("fast_path", TcpProfile::FastPath)];
}

impl Choice for SynCookies {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", SynCookies::Auto), ("always", SynCookies::Always), ("never", SynCookies::Never)];
}

impl Choice for MonitorType {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("icmp", MonitorType::Icmp),
        ("tcp", MonitorType::Tcp),
        ("udp", MonitorType::Udp),
        ("none", MonitorType::None),
    ];
}

impl Choice for Run {
    const WORDS: &'static [(&'static str, Self)] =
        &[("first_payload", Run::FirstPayload), ("every_payload", Run::EveryPayload)];
}

impl Choice for Hugepages {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Hugepages::Auto), ("never", Hugepages::Never)];
}

impl Choice for Idle {
    const WORDS: &'static [(&'static str, Self)] =
        &[("poll", Idle::Poll), ("pause", Idle::Pause), ("sleep", Idle::Sleep)];
}

/// A window scale, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowScale(pub Option<u8>);

impl Value for WindowScale {
    fn expected() -> String {
        "an integer from 0 to 14 (RFC 7323, 2.3), or false for none".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        if value.as_bool() == Some(false) {
            return Ok(WindowScale(None));
        }
        match super::integer(value)? {
            Some(n @ 0..=14) => Ok(WindowScale(u8::try_from(n).ok())),
            _ => Err(Fault::value("there is no such window scale")),
        }
    }
}

/// What a flow meets in a pool without a server that is up.
#[derive(Clone, Debug, Default)]
pub(crate) enum FailActionWritten {
    #[default]
    Reset,
    Close,
    /// `{ pool = "…" }`
    Pool(At<Name>),
    /// Reported as wrong.
    Unknown,
}

#[derive(Clone, Copy)]
enum FailWord {
    Reset,
    Close,
}

impl Choice for FailWord {
    const WORDS: &'static [(&'static str, Self)] = &[("reset", FailWord::Reset), ("close", FailWord::Close)];
}

crate::read::section! {
    /// `fail_action = { pool = "…" }`
    FailPool, "`fail_action`" {
        pool: Required<Name>,
    }
}

impl Field for FailActionWritten {
    fn read(place: &Place<'_, '_>, problems: &mut crate::problem::Problems) -> Self {
        let Some(value) = place.table.get(place.key) else { return FailActionWritten::Reset };
        let span = value.span();
        if let DeValue::Table(table) = value.get_ref() {
            let pool = FailPool::read(table, &span, problems).pool;
            return pool.0.map_or(FailActionWritten::Unknown, FailActionWritten::Pool);
        }
        let expected = "\"reset\", \"close\" or { pool = \"another pool\" }";
        match FailWord::read(value.get_ref()) {
            Ok(FailWord::Reset) => FailActionWritten::Reset,
            Ok(FailWord::Close) => FailActionWritten::Close,
            Err(fault) => {
                let (what, near) = match fault {
                    Fault::Type => (format!("`fail_action` must be {expected}"), None),
                    Fault::Value { what, .. } => (format!("`fail_action`: {what}"), value.get_ref().as_str()),
                };
                let near = near.and_then(|near| nearest(near, ["reset", "close"]));
                let near = near.map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
                problems.error(&span, what).help(format!("{near}Allowed: {expected}"));
                FailActionWritten::Unknown
            }
        }
    }
}
