//! The examples load, show every key, and every key is documented.

#![cfg(test)]

use std::path::{Path, PathBuf};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

fn load(path: &str) -> config::Config {
    let config = config::load(&root(path)).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    assert!(config.warnings.problems().is_empty(), "{}", config.warnings.render(false));
    config
}

/// The paths of all keys that a file uses: `pool.tcp.mss`.
fn used_keys(table: &toml::Table, path: &str, used: &mut Vec<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        used_key(value, &path, used);
    }
}

fn used_key(value: &toml::Value, path: &str, used: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => used_keys(table, path, used),
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            items.iter().for_each(|item| used_key(item, path, used));
        }
        _ => used.push(path.to_owned()),
    }
}

#[test]
fn the_minimal_example_loads() {
    let config = load("examples/minimal.toml");
    assert_eq!(config.snapshot.services.len(), 1);
    assert_eq!(config.snapshot.servers.len(), 2);
}

#[test]
fn the_full_example_loads_and_uses_every_key() {
    load("examples/full.toml");
    let mut used = Vec::new();
    used_keys(&text("examples/full.toml").parse().unwrap(), "", &mut used);
    // `fail_action` has two forms: a word, and a table with a pool.
    let known = config::keys();
    assert!(known.len() > 60, "only {} keys", known.len());
    let missing: Vec<&String> = known.iter().filter(|key| !used.contains(key)).collect();
    assert!(missing.is_empty(), "not in full.toml: {missing:?}");
}

#[test]
fn every_key_is_documented_under_its_table() {
    let guide = text("../docs/configuration.md");
    let mut section = String::new();
    let mut documented = Vec::new();
    for line in guide.lines() {
        if let Some(heading) = line.strip_prefix("### `") {
            let end = heading.find('`').unwrap();
            section = heading[..end].trim_matches(['[', ']']).to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            documented.push(format!("{section}.{}", &row[..row.find('`').unwrap()]));
        }
    }
    let known = config::keys();
    let missing: Vec<&String> = known.iter().filter(|key| !documented.contains(key)).collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
    let unknown: Vec<&String> = documented.iter().filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "in docs/configuration.md, but no key: {unknown:?}");
}

#[test]
fn the_toml_blocks_of_the_guide_are_taken() {
    let guide = text("../docs/configuration.md");
    let blocks: Vec<&str> =
        guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let result = config::parse(block, "docs/configuration.md", &root("examples"));
        assert!(result.is_ok(), "{block}\n{}", result.unwrap_err().render(false));
    }
}
