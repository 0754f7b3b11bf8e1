//! `weir script test` as it is typed, and the recipe book: every recipe passes it with all cuts.

#![allow(clippy::indexing_slicing, reason = "test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use weir_tests::testkit::{Result, repository, weir_binary};

const EXAMPLES: &str = "scripting/examples";

fn test(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(weir_binary()?);
    Ok(command.args(["script", "test"]).args(arguments).current_dir(repository()).output()?)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything about one recipe but that it is in the index.
fn recipe(name: &str) -> Result {
    let directory = format!("{EXAMPLES}/{name}");
    let config = format!("{directory}/weir.toml");
    let weir = |arguments: &[&str]| -> Result<Output> {
        Ok(Command::new(weir_binary()?).args(arguments).current_dir(repository()).output()?)
    };
    let checked = weir(&["script", "check", "--deny-warnings", "--config", &config])?;
    assert!(checked.status.success() && out(&checked).starts_with("1 script: 0 errors"), "{checked:?}");
    let checked = weir(&["check", &config])?;
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    let tested = test(&["--json", &directory])?;
    assert!(tested.status.success(), "{}", out(&tested));
    let mut cases = 0;
    for line in out(&tested).lines() {
        let case: serde_json::Value = serde_json::from_str(line)?;
        assert_eq!((&case["passed"], &case["cuts"]), (&true.into(), &case["all_cuts"]), "{case}");
        cases += 1;
    }
    assert!(cases >= 3, "{name} has {cases} cases");
    let readme = std::fs::read_to_string(repository().join(&directory).join("README.md"))?;
    let lines = readme.lines().count();
    assert!((8..=12).contains(&lines), "{name}/README.md explains it in {lines} lines");
    Ok(())
}

macro_rules! recipes {
    ($($name:ident),* $(,)?) => {
        const RECIPES: &[&str] = &[$(stringify!($name)),*];
        mod passes {
            $(#[test]
            fn $name() -> weir_tests::testkit::Result {
                super::recipe(stringify!($name))
            })*
        }
    };
}

recipes!(dhcp, diameter, dns, http_host, mqtt, penalty_box, postgresql, radius, rdp, sip, ssh, tls_sni);

/// The directories, those that are tested here, and those that the index names are the same.
#[test]
fn the_index_names_every_recipe() -> Result {
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(repository().join(EXAMPLES))? {
        there.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let index = std::fs::read_to_string(repository().join("docs/recipes.md"))?;
    let named = index.split("](../scripting/examples/").skip(1);
    let named: BTreeSet<_> =
        named.filter_map(|rest| rest.split_once("/README.md)")).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(named, there);
    assert_eq!(RECIPES.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), there);
    Ok(())
}

/// A directory with a copy of a recipe.
fn copy(name: &str) -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    for entry in std::fs::read_dir(repository().join(EXAMPLES).join(name))? {
        let path = entry?.path();
        let target = directory.path().join(path.file_name().ok_or("no name")?);
        std::fs::copy(&path, target)?;
    }
    Ok(directory)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "path".into())
}

/// Replaces a part of a file.
fn change(file: &Path, from: &str, to: &str) -> Result {
    let old = std::fs::read_to_string(file)?;
    assert!(old.contains(from), "{} has no {from}", file.display());
    Ok(std::fs::write(file, old.replacen(from, to, 1))?)
}

#[test]
fn a_script_that_forgets_to_wait_is_caught() -> Result {
    let directory = copy("postgresql")?;
    change(
        &directory.path().join("postgresql.lua"),
        "  avi.l4.collect(length)\n  return code, avi.l4.read(length):sub(9)",
        "  return code, avi.l4.read():sub(9)",
    )?;
    let junit = directory.path().join("junit.xml");
    let path = text(directory.path())?;
    let output = test(&["--filter", "to its pool", "--junit", text(&junit)?, path])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = out(&output);
    // Length and version are eight bytes, which it waits for.
    assert!(
        said.contains(
            "postgresql_test.lua:11: the bytes of 198.51.100.7:4242 (59 bytes), cut after byte 8\n"
        ),
        "{said}"
    );
    assert!(
        said.contains("expected  sales\n") && said.contains("found     others (10.0.0.93:5432)\n"),
        "{said}"
    );
    assert!(said.ends_with("0 passed, 1 failed; 11 runs, random cuts from seed 1\n"), "{said}");
    let junit = std::fs::read_to_string(&junit)?;
    assert!(junit.contains("failures=\"1\"") && junit.contains("cut after byte 8"), "{junit}");
    Ok(())
}

#[test]
fn the_exit_code_tells_what_came_of_it() -> Result {
    let directory = copy("radius")?;
    let path = text(directory.path())?;
    let failing = directory.path().join("failing_test.lua");
    for (arguments, code, wanted) in [
        (&[path][..], 0, "4 passed, 0 failed"),
        (&["--filter", "moves", path], 0, "1 passed, 0 failed"),
        (&["--tap", path], 0, "1..4\n"),
        (&["--filter", "nothing", path], 2, ""),
        (&["docs"], 2, ""),
        (&["none"], 2, ""),
        (&[], 2, ""),
        (&["--config", "none.toml", path], 2, ""),
        (&["--config", "config/tests/wrong/pool_without_servers.toml", path], 2, ""),
    ] {
        let output = test(arguments)?;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(out(&output).contains(wanted), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr.is_empty(), code == 0, "{arguments:?}: {output:?}");
    }
    std::fs::write(&failing, "it('fails', function()\n  expect(1):equals(2)\nend)\n")?;
    let output = test(&[path])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        out(&output)
            .contains("failing_test.lua:2: the value should be:\n       expected  2\n       found     1\n"),
        "{output:?}"
    );
    std::fs::write(&failing, "it('fails', function(\n")?;
    let output = test(&[path])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(out(&output).contains("FAIL failing_test.lua:"), "{output:?}");
    assert!(out(&output).contains("1 files that cannot be loaded"), "{output:?}");
    Ok(())
}

#[test]
fn coverage_shows_lines_that_no_case_reached() -> Result {
    let directory = copy("radius")?;
    let path = text(directory.path())?;
    let all = out(&test(&["--coverage", path])?);
    assert!(all.contains("radius.lua: 11 of 11 lines (100 %)\n"), "{all}");
    let part = out(&test(&["--coverage", "--filter", "drops", path])?);
    assert!(part.contains("    14 |     avi.vs.persist(station, LIFETIME)\n"), "{part}");
    let json = out(&test(&["--coverage", "--json", path])?);
    let last: serde_json::Value = serde_json::from_str(json.lines().last().ok_or("nothing")?)?;
    assert_eq!((&last["lines"], &last["missed"]), (&last["reached"], &serde_json::json!([])), "{last}");
    Ok(())
}

/// The commands and the output in the page about the tools are those that the recipes give.
#[test]
fn the_manual_shows_what_the_command_says() -> Result {
    let manual = std::fs::read_to_string(repository().join("docs/script-tools.md"))?;
    let section = manual.split("\n## Testing scripts\n").nth(1).ok_or("no section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let commands = section.lines().filter_map(|line| line.strip_prefix("weir script test "));
    let mut ran = 0;
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let output = test(&arguments)?;
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        ran += 1;
    }
    assert!(ran >= 2, "{section}");
    let lua: PathBuf = repository().join(EXAMPLES).join("radius/radius_test.lua");
    let shown = section.split("```lua\n").nth(1).and_then(|rest| rest.split("```").next()).ok_or("no Lua")?;
    let (first, _) = shown.split_once("\n\n").ok_or("no case")?;
    assert!(std::fs::read_to_string(lua)?.contains(first), "the case that the manual shows is another one");
    Ok(())
}
