//! What can be said about scripts before they run: what LuaJIT compiles, then what [`script_check`] finds.

use dataplane::snapshot::{ScriptSet, ScriptSetId, Snapshot, Source, Target};
use script_check::{Finding, Group, Names, Pool, Role, Rule, Server, Settings};

use crate::compile::{compile_error, syntax_finding};
use crate::policy::machine;
use crate::raw::Machine;
use crate::source::{ScriptError, Severity};

/// Everything that keeps a configuration from being loaded, and what is worth telling then, each finding once.
///
/// Errors: what LuaJIT does not compile; `require` of a module that is not attached to the set; a literal name of a
/// pool, pool group or server that does not exist or is not attached. Warnings: names that come through a local
/// variable, calls of functions that weir does not have, and servers of `get_server_status` that the pool does not
/// have (the call gives 0). [`check_script`] finds more.
#[must_use]
pub fn check(snapshot: &Snapshot) -> Vec<ScriptError> {
    let machine = match machine(|| 0) {
        Ok(machine) => machine,
        Err(error) => return vec![no_lua(&error)],
    };
    let mut found: Vec<ScriptError> = Vec::new();
    for (set, id) in snapshot.script_sets.iter().zip(0u16..) {
        let names = names(snapshot, set, ScriptSetId(id));
        for (source, role) in sources(set) {
            for error in load_errors(&machine, &names, source, role) {
                if !found.contains(&error) {
                    found.push(error);
                }
            }
        }
    }
    found
}

fn no_lua(error: &mlua::Error) -> ScriptError {
    let nowhere = Source { name: "LuaJIT".to_owned(), text: Vec::new() };
    ScriptError::whole(&nowhere, error.to_string())
}

/// All texts of a set with what they are for.
pub fn sources(set: &ScriptSet) -> impl Iterator<Item = (&Source, Role)> {
    use script_check::api::Event;
    let request = set.request.iter().map(|source| (source, Role::Script(Event::Request)));
    let response = set.response.iter().map(|source| (source, Role::Script(Event::Response)));
    let parsers = set.parsers.iter().map(|(_, source)| (source, Role::Module));
    request.chain(response).chain(parsers)
}

fn load_errors(machine: &Machine, names: &Names, source: &Source, role: Role) -> Vec<ScriptError> {
    if let Some(error) = compile_error(machine, source) {
        return vec![error];
    }
    let settings = Settings { role, names: Some(names) };
    let findings = script_check::check_names(&source.text, &settings).into_iter();
    findings.filter_map(|finding| load_error(source, finding)).collect()
}

/// What a finding is to the loading of a configuration.
fn load_error(source: &Source, finding: Finding) -> Option<ScriptError> {
    let severity = match (finding.rule, finding.severity) {
        (Rule::Name, script_check::Severity::Error) if finding.literal => Severity::Error,
        (Rule::Name | Rule::Unsupported, _) => Severity::Warning,
        (Rule::Undefined, script_check::Severity::Error) => Severity::Warning,
        _ => return None,
    };
    let error = ScriptError::at(source, finding.span, finding.message).with_help(finding.cure);
    Some(ScriptError { severity, ..error })
}

/// Everything that is found in one text: LuaJIT's syntax error, or all findings of [`script_check::check`].
#[must_use]
pub fn check_script(source: &Source, settings: &Settings<'_>) -> Vec<Finding> {
    let syntax = match machine(|| 0) {
        Ok(machine) => compile_error(&machine, source),
        Err(error) => Some(no_lua(&error)),
    };
    match syntax {
        Some(error) => vec![syntax_finding(source, &error)],
        None => script_check::check(&source.text, settings).into_iter().map(beyond_lua).collect(),
    }
}

/// LuaJIT has more syntax than Lua 5.1. What only LuaJIT understands runs, and is not checked.
fn beyond_lua(finding: Finding) -> Finding {
    if finding.rule != Rule::Syntax {
        return finding;
    }
    let message =
        format!("LuaJIT runs this, but it is no Lua 5.1, and the script is not checked: {}", finding.message);
    Finding { severity: script_check::Severity::Warning, message, ..finding }
}

/// What the scripts of one set may name: what is attached, and the defaults of the services that use the set.
#[must_use]
pub fn names(snapshot: &Snapshot, set: &ScriptSet, id: ScriptSetId) -> Names {
    let services = snapshot.services.iter().filter(|service| service.script_sets.contains(&id));
    let defaults: Vec<Target> = services.filter_map(|service| service.default).collect();
    let pools = snapshot.pools.iter().enumerate().map(|(index, pool)| Pool {
        name: pool.name.clone(),
        attached: set.pools.iter().any(|pool| pool.index() == index)
            || defaults.iter().any(|t| matches!(t, Target::Pool(pool) if pool.index() == index)),
        servers: pool
            .servers
            .iter()
            .filter_map(|server| snapshot.servers.get(server.index()))
            .map(|s| Server { address: s.address, hostname: s.hostname.clone(), port: s.port })
            .collect(),
    });
    let groups = snapshot.pool_groups.iter().enumerate().map(|(index, group)| Group {
        name: group.name.clone(),
        attached: set.pool_groups.iter().any(|group| group.index() == index)
            || defaults.iter().any(|t| matches!(t, Target::PoolGroup(group) if group.index() == index)),
    });
    Names {
        set: set.name.clone(),
        pools: pools.collect(),
        groups: groups.collect(),
        modules: set.parsers.iter().map(|(name, _)| name.clone()).collect(),
    }
}
