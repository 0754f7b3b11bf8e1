//! DataScript sets and the texts that they name.

use std::path::Path;

use dataplane::snapshot::{PoolGroupId, PoolId, ScriptSet, Snapshot, Source};

use super::{Names, candidates, name_of, report_twin, twice};
use crate::problem::{Problems, Severity, Span};
use crate::read::{At, Given, List};
use crate::value::text::Name;
use crate::written::{self, File};

/// Parser modules that weir brings along.
const BUILTIN_PARSERS: [&str; 3] = ["Default-TLS", "Default-Radius", "Default-DHCP"];
/// Longest script in bytes.
const MOST_SCRIPT_BYTES: u64 = 1 << 20;

/// A parser module of the file.
struct Module<'a> {
    name: &'a At<Name>,
    source: Option<Source>,
}

pub(super) fn sets(
    file: &File,
    pools: &Names<'_>,
    groups: &Names<'_>,
    directory: &Path,
    problems: &mut Problems,
) -> Vec<ScriptSet> {
    let modules = modules(&file.parser, directory, problems);
    let mut mean = |set: &written::DatascriptSet| {
        let name = name_of(&set.name);
        let request = event(&name, "request", &set.request, &set.request_inline, directory, problems);
        let response = event(&name, "response", &set.response, &set.response_inline, directory, problems);
        if !has_script(set) {
            let help =
                "request = \"file.lua\", or request_inline = \"\"\"…\"\"\", or the same for the response";
            problems.error(&set.span, format!("DataScript set `{name}` has no script")).help(help);
        }
        ScriptSet {
            name,
            request,
            response,
            pools: references(&set.pools, pools, problems).into_iter().map(PoolId).collect(),
            pool_groups: references(&set.pool_groups, groups, problems)
                .into_iter()
                .map(PoolGroupId)
                .collect(),
            parsers: parsers(&set.parsers, &modules, problems),
        }
    };
    file.datascript_set.iter().map(&mut mean).collect()
}

/// Has the scripts compiled and the names in them looked up.
pub(super) fn check(snapshot: &Snapshot, problems: &mut Problems) {
    let sources = || {
        snapshot.script_sets.iter().flat_map(|set| {
            let parsers = set.parsers.iter().map(|(_, source)| source);
            set.request.iter().chain(&set.response).chain(parsers)
        })
    };
    for error in scripting::check(snapshot) {
        let unknown = Source { name: error.source_name.clone(), text: Vec::new() };
        let source = sources().find(|source| source.name == error.source_name).unwrap_or(&unknown);
        let severity = match error.severity {
            scripting::Severity::Error => Severity::Error,
            scripting::Severity::Warning => Severity::Warning,
        };
        let problem = problems.in_script(severity, source, &error.span, error.message);
        if let Some(help) = error.help {
            problem.help(help);
        }
    }
}

/// True if the set has a script for the request event.
pub(super) fn has_request(set: &written::DatascriptSet) -> bool {
    set.request.0.is_some() || set.request_inline.0.is_some()
}

/// True if the set has a script at all.
pub(super) fn has_script(set: &written::DatascriptSet) -> bool {
    has_request(set) || set.response.0.is_some() || set.response_inline.0.is_some()
}

fn event(
    set: &str,
    event: &str,
    file: &Given<String>,
    inline: &Given<String>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<Source> {
    match (&file.0, &inline.0) {
        (Some(file), Some(inline)) => {
            let message = format!("`{event}` and `{event}_inline` are both given");
            problems.error(&inline.span, message).help("keep one of them").also(&file.span, "the file");
            None
        }
        (Some(file), None) => read_file(file, directory, problems),
        (None, Some(text)) => {
            let name = format!("{set}:{event}_inline");
            Some(Source { name, text: text.value.clone().into_bytes() })
        }
        (None, None) => None,
    }
}

fn read_file(at: &At<String>, directory: &Path, problems: &mut Problems) -> Option<Source> {
    let path = directory.join(&at.value);
    let shown = path.display();
    match crate::at_most(&path, MOST_SCRIPT_BYTES) {
        Ok(text) => Some(Source { name: at.value.clone(), text }),
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            let message = format!("the script {shown} is too long");
            problems.error(&at.span, message).help(format!("allowed: at most {MOST_SCRIPT_BYTES} bytes"));
            None
        }
        Err(error) => {
            let message = format!("cannot read the script {shown}: {error}");
            let help = "the path is relative to the directory of the configuration file";
            problems.error(&at.span, message).help(help);
            None
        }
    }
}

fn modules<'a>(written: &'a [written::Parser], directory: &Path, problems: &mut Problems) -> Vec<Module<'a>> {
    let mut modules: Vec<Module<'a>> = Vec::new();
    for parser in written {
        let source = parser.file.0.as_ref().and_then(|file| read_file(file, directory, problems));
        let Some(name) = &parser.name.0 else { continue };
        if let Some(first) = modules.iter().find(|m| m.name.value == name.value) {
            report_twin("parser", name, first.name, problems);
        }
        if BUILTIN_PARSERS.contains(&name.value.0.as_str()) {
            let message = format!("the parser `{}` comes with weir", name.value.0);
            let help = "name your own module differently; a built-in one needs no [[parser]]";
            problems.error(&name.span, message).help(help);
        }
        modules.push(Module { name, source });
    }
    modules
}

fn parsers(list: &List<Name>, modules: &[Module<'_>], problems: &mut Problems) -> Vec<(String, Source)> {
    let mut parsers: Vec<(String, Source)> = Vec::new();
    refuse_twins(list, problems);
    for at in &list.items {
        let name = at.value.0.as_str();
        let builtin = scripting::builtin_parser(name);
        let own = modules.iter().find(|m| m.name.value.0 == name);
        let source = match (builtin, own) {
            (Some(text), _) => Some(Source { name: name.to_owned(), text: text.as_bytes().to_vec() }),
            (None, Some(module)) => module.source.clone(),
            (None, None) => {
                let known: Vec<&str> =
                    modules.iter().map(|m| m.name.value.0.as_str()).chain(BUILTIN_PARSERS).collect();
                let message = format!("there is no parser named `{name}`");
                problems.error(&at.span, message).help(candidates("parser", name, &known));
                None
            }
        };
        parsers.extend(source.map(|source| (name.to_owned(), source)));
    }
    parsers
}

fn refuse_twins(list: &List<Name>, problems: &mut Problems) {
    for (index, at) in list.items.iter().enumerate() {
        if let Some(first) = list.items.iter().take(index).find(|e| e.value == at.value) {
            twice(&at.span, &first.span, format!("`{}` stands twice", at.value.0), problems);
        }
    }
}

/// The indices of the things that a list names.
pub(super) fn references(list: &List<Name>, names: &Names<'_>, problems: &mut Problems) -> Vec<u16> {
    refuse_twins(list, problems);
    list.items.iter().filter_map(|at| names.find(at, problems)).collect()
}

/// The place of a set's name, for problems that concern its scripts.
pub(super) fn place(set: &written::DatascriptSet) -> Span {
    set.name.0.as_ref().map_or_else(|| set.span.clone(), |at| at.span.clone())
}
