//! What is defined and never used: allowed, but probably not meant.

use dataplane::snapshot::{FailAction, PoolGroupId, PoolId, Snapshot, Target};

use super::script;
use crate::problem::{Problems, Span};
use crate::read::Required;
use crate::value::text::Name;
use crate::written::File;

pub(super) fn check(file: &File, snapshot: &Snapshot, problems: &mut Problems) {
    // A reference that is wrong would make its target look unused.
    if problems.has_errors() {
        return;
    }
    for (set, index) in file.datascript_set.iter().zip(0u16..) {
        if !snapshot.services.iter().any(|s| s.script_sets.iter().any(|id| id.0 == index)) {
            warn(&script::place(set), "DataScript set", "virtual service", problems);
        }
    }
    for (group, index) in file.pool_group.iter().zip(0u16..) {
        if !group_is_used(PoolGroupId(index), snapshot) {
            warn(
                &place(&group.name, &group.span),
                "pool group",
                "virtual service or DataScript set",
                problems,
            );
        }
    }
    for (pool, index) in file.pool.iter().zip(0u16..) {
        if !pool_is_used(PoolId(index), snapshot) {
            let users = "virtual service, pool group, DataScript set or fail_action";
            warn(&place(&pool.name, &pool.span), "pool", users, problems);
        }
    }
    if let Some(span) = file.snat.addresses.span.as_ref().filter(|_| snat_is_idle(snapshot)) {
        let message = "no virtual service uses the SNAT addresses: all preserve their clients' addresses";
        problems.warning(span, message);
    }
    for parser in file.parser.iter() {
        let Some(name) = &parser.name.0 else { continue };
        if !snapshot.script_sets.iter().any(|s| s.parsers.iter().any(|(used, _)| *used == name.value.0)) {
            warn(&name.span, "parser", "DataScript set", problems);
        }
    }
}

fn snat_is_idle(snapshot: &Snapshot) -> bool {
    !snapshot.snat.addresses.is_empty() && snapshot.services.iter().all(|service| service.preserve_client_ip)
}

fn place(name: &Required<Name>, section: &Span) -> Span {
    name.0.as_ref().map_or_else(|| section.clone(), |at| at.span.clone())
}

fn warn(span: &Span, kind: &str, users: &str, problems: &mut Problems) {
    problems.warning(span, format!("no {users} uses this {kind}"));
}

fn group_is_used(group: PoolGroupId, snapshot: &Snapshot) -> bool {
    snapshot.services.iter().any(|s| s.default == Some(Target::PoolGroup(group)))
        || snapshot.script_sets.iter().any(|s| s.pool_groups.contains(&group))
}

fn pool_is_used(pool: PoolId, snapshot: &Snapshot) -> bool {
    snapshot.services.iter().any(|s| s.default == Some(Target::Pool(pool)))
        || snapshot.script_sets.iter().any(|s| s.pools.contains(&pool))
        || snapshot.pool_groups.iter().any(|g| g.members.iter().any(|m| m.pool == pool))
        || snapshot.pools.iter().any(|p| p.fail_action == FailAction::Pool(pool))
}
