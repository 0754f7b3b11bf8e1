//! What can be said about scripts before they run: syntax, modules, literal names, functions that do not exist.

use std::net::IpAddr;

use dataplane::snapshot::{
    Pool, PoolGroupId, PoolId, ScriptSet, ScriptSetId, Server, Snapshot, Source, Target,
};

use crate::calls::{Literal, NamedCall, named_calls};
use crate::compile::compile_error;
use crate::policy::machine;
use crate::raw::Machine;
use crate::source::{ScriptError, bom_bytes, parseable};

/// The functions of `avi`.
const FUNCTIONS: &[&str] = &[
    "avi.l4.read",
    "avi.l4.collect",
    "avi.l4.ds_done",
    "avi.vs.ds_done",
    "avi.vs.log",
    "avi.vs.debuglog",
    "avi.vs.close_conn",
    "avi.vs.client_ip",
    "avi.vs.client_port",
    "avi.vs.ip",
    "avi.vs.port",
    "avi.vs.name",
    "avi.vs.persist",
    "avi.vs.table_insert",
    "avi.vs.table_lookup",
    "avi.vs.table_refresh",
    "avi.vs.table_remove",
    "avi.pool.get_server_status",
    "avi.pool.get_servers",
    "avi.pool.get_server_info",
    "avi.pool.get_server_ip",
    "avi.pool.server_ip",
    "avi.pool.select",
    "avi.poolgroup.select",
];

/// Functions of later releases of the original that weir does not have.
const UNSUPPORTED: &[&str] =
    &["avi.l4.modify", "avi.l4.discard", "avi.l4.send", "avi.l4.pause", "avi.l4.resume"];

/// Everything that is wrong with the scripts and modules of a configuration, each error once.
///
/// Errors: what LuaJIT does not compile; `require` of a module that is not attached to the set; a literal name of a
/// pool, pool group or server that does not exist or is not attached. Warnings: calls of functions that weir does
/// not have, and servers of `get_server_status` that the pool does not have (the call gives 0).
///
/// A name is looked at where the call is written out, as `avi.pool.select("name")`; what a script computes or calls
/// by another name is left to the run.
#[must_use]
pub fn check(snapshot: &Snapshot) -> Vec<ScriptError> {
    let machine = match machine(|| 0) {
        Ok(machine) => machine,
        Err(error) => {
            let nowhere = Source { name: "LuaJIT".to_owned(), text: Vec::new() };
            return vec![ScriptError::whole(&nowhere, error.to_string())];
        }
    };
    let mut found: Vec<ScriptError> = Vec::new();
    for (set, id) in snapshot.script_sets.iter().zip(0u16..) {
        let names = Names::of(snapshot, set, ScriptSetId(id));
        let parsers = set.parsers.iter().map(|(_, source)| source);
        for source in set.request.iter().chain(&set.response).chain(parsers) {
            for error in check_source(&machine, &names, source) {
                if !found.contains(&error) {
                    found.push(error);
                }
            }
        }
    }
    found
}

fn check_source(machine: &Machine, names: &Names<'_>, source: &Source) -> Vec<ScriptError> {
    if let Some(error) = compile_error(machine, source) {
        return vec![error];
    }
    let calls = named_calls(&parseable(&source.text)).unwrap_or_default();
    let mut errors = Vec::new();
    for call in &calls {
        let mut report = Report { source, offset: bom_bytes(&source.text), errors: &mut errors };
        names.check(call, &mut report);
    }
    errors
}

/// Where the errors of a source go.
struct Report<'a> {
    source: &'a Source,
    /// From places in the checked text to places in the source.
    offset: usize,
    errors: &'a mut Vec<ScriptError>,
}

impl Report<'_> {
    fn error(&mut self, at: &std::ops::Range<usize>, message: String, help: String) {
        let span = at.start + self.offset..at.end + self.offset;
        self.errors.push(ScriptError::at(self.source, span, message).with_help(help));
    }

    fn warning(&mut self, at: &std::ops::Range<usize>, message: String, help: String) {
        self.error(at, message, help);
        if let Some(error) = self.errors.pop() {
            self.errors.push(error.warning());
        }
    }
}

/// What the scripts of one set may name.
struct Names<'a> {
    snapshot: &'a Snapshot,
    set: &'a ScriptSet,
    pools: Vec<PoolId>,
    groups: Vec<PoolGroupId>,
}

impl<'a> Names<'a> {
    /// What is attached, and the defaults of the services that use the set.
    fn of(snapshot: &'a Snapshot, set: &'a ScriptSet, id: ScriptSetId) -> Self {
        let (mut pools, mut groups) = (set.pools.clone(), set.pool_groups.clone());
        let services = snapshot.services.iter().filter(|s| s.script_sets.contains(&id));
        for target in services.filter_map(|s| s.default) {
            match target {
                Target::Pool(pool) if !pools.contains(&pool) => pools.push(pool),
                Target::PoolGroup(group) if !groups.contains(&group) => groups.push(group),
                _ => {}
            }
        }
        Names { snapshot, set, pools, groups }
    }

    fn check(&self, call: &NamedCall, report: &mut Report<'_>) {
        let argument = |n: usize| call.arguments.get(n).and_then(Option::as_ref).filter(|l| l.quoted);
        match call.name.as_str() {
            "require" => self.check_module(argument(0), report),
            "avi.pool.select" => {
                let pool = self.check_pool(argument(0), report);
                self.check_server(pool, call, report, false);
            }
            "avi.pool.get_server_status" => {
                let pool = self.check_pool(argument(0), report);
                self.check_server(pool, call, report, true);
            }
            "avi.pool.get_servers" => {
                self.check_pool(argument(0), report);
            }
            "avi.vs.persist" => {
                self.check_pool(argument(2), report);
            }
            "avi.poolgroup.select" => self.check_group(argument(0), report),
            name if FUNCTIONS.contains(&name) => {}
            name => unknown_function(name, call, report),
        }
    }

    fn check_module(&self, module: Option<&Literal>, report: &mut Report<'_>) {
        let Some(module) = module else { return };
        if self.set.parsers.iter().any(|(name, _)| *name == module.text) {
            return;
        }
        let message =
            format!("module '{}' is not attached to DataScript set '{}'", module.text, self.set.name);
        report.error(
            &module.span,
            message,
            listed("attached modules", self.set.parsers.iter().map(|p| &p.0)),
        );
    }

    fn check_pool(&self, pool: Option<&Literal>, report: &mut Report<'_>) -> Option<&'a Pool> {
        let literal = pool?;
        let id = self.snapshot.pool_named(&literal.text);
        let pool = id.and_then(|id| self.snapshot.pools.get(id.index()));
        if id.is_some_and(|id| self.pools.contains(&id)) {
            return pool;
        }
        let attached = self.pools.iter().filter_map(|p| self.snapshot.pools.get(p.index())).map(|p| &p.name);
        self.missing("pool", literal, pool.is_some(), listed("attached pools", attached), report);
        None
    }

    fn check_group(&self, group: Option<&Literal>, report: &mut Report<'_>) {
        let Some(literal) = group else { return };
        let id = self.snapshot.pool_group_named(&literal.text);
        if id.is_some_and(|id| self.groups.contains(&id)) {
            return;
        }
        let attached = self.groups.iter().filter_map(|g| self.snapshot.pool_groups.get(g.index()));
        let help = listed("attached pool groups", attached.map(|g| &g.name));
        self.missing("pool group", literal, id.is_some(), help, report);
    }

    fn missing(&self, kind: &str, name: &Literal, exists: bool, help: String, report: &mut Report<'_>) {
        let message = if exists {
            format!("{kind} '{}' is not attached to DataScript set '{}'", name.text, self.set.name)
        } else {
            format!("no {kind} named '{}'", name.text)
        };
        report.error(&name.span, message, help);
    }

    /// The server and the port after the pool.
    fn check_server(&self, pool: Option<&Pool>, call: &NamedCall, report: &mut Report<'_>, only_warn: bool) {
        let Some(pool) = pool else { return };
        let Some(server) = call.arguments.get(1).and_then(Option::as_ref).filter(|l| l.quoted) else {
            return;
        };
        let port = call.arguments.get(2).and_then(Option::as_ref);
        let members: Vec<&Server> =
            pool.servers.iter().filter_map(|id| self.snapshot.servers.get(id.index())).collect();
        let named: Vec<&&Server> = members.iter().filter(|s| is_named(s, &server.text)).collect();
        let there = named.iter().map(|s| format!("{}:{}", s.address, s.port));
        let (span, message, help) = if named.is_empty() {
            let all = members.iter().map(|s| format!("{}:{}", s.address, s.port));
            (
                &server.span,
                format!("pool '{}' has no server '{}'", pool.name, server.text),
                listed("its servers", all),
            )
        } else if let Some(port) = port.filter(|p| !named.iter().any(|s| p.text == s.port.to_string())) {
            let message =
                format!("pool '{}' has no server '{}' on port {}", pool.name, server.text, port.text);
            (&port.span, message, listed("there is", there))
        } else {
            return;
        };
        if only_warn {
            report.warning(span, message + ": this call always gives 0", help);
        } else {
            report.error(span, message, help);
        }
    }
}

fn is_named(server: &Server, name: &str) -> bool {
    let address = name.parse::<IpAddr>().ok().map(|a| a.to_canonical());
    address == Some(server.address.to_canonical())
        || server.hostname.as_deref().is_some_and(|hostname| hostname.eq_ignore_ascii_case(name))
}

fn unknown_function(name: &str, call: &NamedCall, report: &mut Report<'_>) {
    let last = name.rsplit('.').next().unwrap_or_default();
    let unsupported = UNSUPPORTED.contains(&name)
        || name.starts_with("avi.ssl.")
        || name.starts_with("avi.ftp.")
        || last.to_ascii_lowercase().contains("ftp");
    if unsupported {
        let help = "the script is run, and this call raises an error".to_owned();
        report.warning(&call.span, format!("{name} is not supported"), help);
        return;
    }
    let space = name.rsplit_once('.').map_or("", |(space, _)| space);
    let near = || FUNCTIONS.iter().filter(|f| f.rsplit_once('.').is_some_and(|(s, _)| s == space));
    if near().next().is_none() {
        let help = "the functions of weir are in avi.l4, avi.vs, avi.pool and avi.poolgroup".to_owned();
        report.warning(&call.span, format!("there is no function {name}"), help);
        return;
    }
    report.warning(&call.span, format!("there is no function {name}"), listed("there is", near()));
}

fn listed<T: AsRef<str>>(what: &str, names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|n| n.as_ref().to_owned()).collect();
    if names.is_empty() { format!("{what}: none") } else { format!("{what}: {}", names.join(", ")) }
}
