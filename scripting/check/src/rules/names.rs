//! Pools, pool groups, servers and modules of the configuration.

use super::{Report, Script, finding, listed};
use crate::api::{Function, Meaning};
use crate::finding::{Rule, Severity};
use crate::names::{Names, Pool, Server};
use crate::nearest::nearest;
use crate::rules::calls::arguments;
use crate::tree::Span;
use crate::value::{Value, What};
use crate::walk::Event;

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    let Some(names) = script.settings.names else { return };
    for fact in script.facts {
        let Event::Call(call) = &fact.what else { continue };
        let arguments = arguments(script, call);
        let mut checked = Checked { names, arguments: &arguments, report };
        match &call.callee.what {
            What::Function(function) => checked.function(function),
            What::Base(name) if name == "require" => checked.module(),
            _ => {}
        }
    }
}

struct Checked<'a> {
    names: &'a Names,
    arguments: &'a [(Value, Span)],
    report: &'a mut Report,
}

impl<'a> Checked<'a> {
    /// The string at a position.
    fn text(&self, index: usize) -> Option<(&'a str, &'a Value, &'a Span)> {
        let (value, span) = self.arguments.get(index)?;
        Some((value.text.as_deref()?, value, span))
    }

    fn add(&mut self, severity: Severity, value: &Value, span: &Span, message: String, cure: String) {
        let mut found = finding(severity, Rule::Name, span, message, cure);
        found.literal = value.direct;
        self.report.add(found);
    }

    fn function(&mut self, function: &Function) {
        // Only one form names pools: none of the functions of tables does.
        let form = function.forms.first().copied().unwrap_or_default();
        let mut pool = None;
        for (index, parameter) in form.iter().enumerate() {
            match parameter.meaning {
                Meaning::Pool => pool = self.pool(index),
                Meaning::Group => self.group(index),
                Meaning::Server => {
                    let severity = match function.name {
                        "avi.pool.get_server_status" => Severity::Warning,
                        _ => Severity::Error,
                    };
                    pool.into_iter().for_each(|pool| self.server(pool, index, severity));
                }
                _ => {}
            }
        }
    }

    fn module(&mut self) {
        let Some((name, value, span)) = self.text(0) else { return };
        let modules = &self.names.modules;
        if modules.iter().any(|module| module == name) {
            return;
        }
        let message = format!("module '{name}' is not attached to DataScript set '{}'", self.names.set);
        let cure = listed("attached modules", modules.iter());
        self.add(Severity::Error, value, span, message, cure);
    }

    fn pool(&mut self, index: usize) -> Option<&'a Pool> {
        let (name, value, span) = self.text(index)?;
        let names = self.names;
        let pool = names.pools.iter().find(|pool| pool.name == name);
        if let Some(pool) = pool.filter(|pool| pool.attached) {
            return Some(pool);
        }
        let attached = names.pools.iter().filter(|pool| pool.attached).map(|pool| pool.name.as_str());
        self.missing("pool", (name, value, span), pool.is_some(), attached.collect());
        None
    }

    fn group(&mut self, index: usize) {
        let Some((name, value, span)) = self.text(index) else { return };
        let names = self.names;
        let group = names.groups.iter().find(|group| group.name == name);
        if group.is_some_and(|group| group.attached) {
            return;
        }
        let attached = names.groups.iter().filter(|group| group.attached).map(|group| group.name.as_str());
        self.missing("pool group", (name, value, span), group.is_some(), attached.collect());
    }

    fn missing(&mut self, kind: &str, found: (&str, &Value, &Span), exists: bool, attached: Vec<&str>) {
        let (name, value, span) = found;
        let message = if exists {
            format!("{kind} '{name}' is not attached to DataScript set '{}'", self.names.set)
        } else {
            format!("no {kind} named '{name}'")
        };
        let all = listed(&format!("attached {kind}s"), attached.iter());
        let cure = match nearest(name, attached.iter().copied()).filter(|_| !exists) {
            Some(near) => format!("did you mean '{near}'? {all}"),
            None => all,
        };
        self.add(Severity::Error, value, span, message, cure);
    }

    /// The server and the port after the pool.
    fn server(&mut self, pool: &Pool, index: usize, severity: Severity) {
        let Some((name, value, span)) = self.text(index) else { return };
        let shown = |server: &Server| format!("{}:{}", server.address, server.port);
        let zero = if severity == Severity::Warning { ": this call always gives 0" } else { "" };
        let named: Vec<&Server> = pool.servers.iter().filter(|server| server.is_named(name)).collect();
        if named.is_empty() {
            let message = format!("pool '{}' has no server '{name}'{zero}", pool.name);
            let cure = listed("its servers", pool.servers.iter().map(shown));
            self.add(severity, value, span, message, cure);
            return;
        }
        let Some((port_value, port_span)) = self.arguments.get(index + 1) else { return };
        let written = port_value.number.map(|n| n.to_string()).or_else(|| port_value.text.clone());
        // What is no port at all is the business of the checks of arguments.
        let Some(port) = written.and_then(|port| port.parse::<u16>().ok()) else { return };
        if !named.iter().any(|server| server.port == port) {
            let message = format!("pool '{}' has no server '{name}' on port {port}{zero}", pool.name);
            let cure = listed("there is", named.iter().map(|server| shown(server)));
            self.add(severity, port_value, port_span, message, cure);
        }
    }
}
