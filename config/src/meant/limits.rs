//! Limits, the tables of a service included.

use dataplane::snapshot::{Limits, TableLimits};

use crate::memory::{FLOW_BYTES, IPV6_BYTES, longest_entries, size_text, table_bytes};
use crate::problem::Problems;
use crate::read::{At, Part};
use crate::value::quantity::{Int, MS, Size, Time};
use crate::written;

/// Most memory of one kind that one worker may be configured for, in bytes.
const MOST_MEMORY: u64 = 64 << 30;

pub(super) fn limits(written: &Part<written::Limits>, problems: &mut Problems) -> Limits {
    let default = Limits::default();
    let number = |given: &crate::read::Given<written::Flows>, default: u32| {
        given.0.as_ref().map_or(default, |at| at.value.into_type::<u32>())
    };
    let flows = number(&written.flows, default.flows);
    // A part of the flows cannot be more than all of them; a default shrinks with them.
    let part = |given: &crate::read::Given<written::Flows>, default: u32| number(given, default.min(flows));
    let parts =
        [("embryonic", &written.embryonic), ("waiting", &written.waiting), ("spliced", &written.spliced)];
    for (key, given) in parts {
        if let Some(at) = given.0.as_ref().filter(|at| at.value.into_type::<u32>() > flows) {
            within_flows(key, at, flows, problems);
        }
    }
    check_flow_memory(written, flows, problems);
    let embryonic = part(&written.embryonic, default.embryonic);
    Limits {
        flows,
        embryonic,
        syn_cookies_above: syn_cookies_above(written, embryonic, problems),
        waiting: part(&written.waiting, default.waiting),
        spliced: number(&written.spliced, flows),
        neighbors: written.neighbors.or(Int::new(i64::from(default.neighbors))).into_type(),
        fragment_memory: written.fragment_memory.or(Size::new(u64::from(default.fragment_memory))).bytes(),
        script_budget: written.script_budget.or(Time::new(MS)).duration(),
        script_memory: written.script_memory.or(Size::new(u64::from(default.script_memory))).bytes(),
    }
}

/// Cookies begin before there is no room for handshakes that are kept: above a number that can be exceeded.
fn syn_cookies_above(written: &written::Limits, embryonic: u32, problems: &mut Problems) -> u32 {
    let Some(at) = &written.syn_cookies_above.0 else { return embryonic / 2 };
    let above = at.value.into_type::<u32>();
    if above >= embryonic {
        let message = format!("`syn_cookies_above` is not less than `embryonic`, which is {embryonic}");
        let help = format!(
            "allowed: at most {}; there are never more incomplete handshakes",
            embryonic.saturating_sub(1)
        );
        problems.error(&at.span, message).help(help);
    }
    above
}

fn within_flows(key: &str, at: &At<written::Flows>, flows: u32, problems: &mut Problems) {
    let message = format!("`{key}` is more than `flows`, which is {flows}");
    problems
        .error(&at.span, message)
        .help(format!("allowed: at most {flows}; each such flow is one of `flows`"));
}

fn check_flow_memory(written: &written::Limits, flows: u32, problems: &mut Problems) {
    // With IPv6, so that a VIP of it can be added without changing anything else.
    let each = FLOW_BYTES + IPV6_BYTES;
    let bytes = u64::from(flows) * each;
    let Some(at) = written.flows.0.as_ref().filter(|_| bytes > MOST_MEMORY) else { return };
    let message = format!("{flows} flows take {}", size_text(bytes));
    let most = MOST_MEMORY.checked_div(each).unwrap_or(0);
    let help = format!("a flow may take {each} bytes; at most {most} flows ({})", size_text(MOST_MEMORY));
    problems.error(&at.span, message).help(help);
}

pub(super) fn tables(written: &Part<written::TableSizes>, problems: &mut Problems) -> TableLimits {
    let mut limits = TableLimits {
        entries: written.entries.or(Int::new(16384)).into_type(),
        key_bytes: written.key_bytes.or(Size::new(256)).bytes(),
        value_bytes: written.value_bytes.or(Size::new(256)).bytes(),
        bytes: 0,
    };
    limits.bytes = match &written.bytes.0 {
        None => longest_entries(&limits),
        Some(at) => {
            let bytes = at.value.many_bytes();
            let longest = u64::from(limits.key_bytes) + u64::from(limits.value_bytes);
            if bytes < longest.min(longest_entries(&limits)) {
                let message = "`bytes` has no room for one entry as long as it may be";
                let help = format!("allowed: at least `key_bytes` + `value_bytes`, {longest}");
                problems.error(&at.span, message).help(help);
            }
            bytes
        }
    };
    let bytes = table_bytes(&limits);
    if let Some(span) = written.span().filter(|_| bytes > MOST_MEMORY) {
        let message = format!("full tables of this service take {} per worker", size_text(bytes));
        let help = format!(
            "`bytes`, by default entries × (key_bytes + value_bytes), and {} for each entry must stay below {}",
            crate::memory::TABLE_ENTRY_BYTES,
            size_text(MOST_MEMORY)
        );
        problems.error(span, message).help(help);
    }
    limits
}
