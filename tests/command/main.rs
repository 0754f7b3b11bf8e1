//! `weir script check` as it is typed: exit codes, output, and that nobody has to be root.
#![allow(clippy::unwrap_used, reason = "test")]

mod replay;
mod script_test;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use weir_tests::testkit::{Result, repository, weir_binary};

fn check(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(weir_binary()?);
    Ok(command.args(["script", "check"]).args(arguments).current_dir(repository()).output()?)
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const WARNING: &str = "scripting/tests/check/faults/insert_twice.lua";
const ERROR: &str = "scripting/tests/check/faults/undefined_function.lua";

#[test]
fn the_exit_code_tells_what_was_found() -> Result {
    for (arguments, code) in [
        (&["scripting/examples/tls_sni/tls_sni.lua"][..], 0),
        (&[WARNING], 0),
        (&["--deny-warnings", WARNING], 1),
        (&["--deny-warnings", "scripting/examples/tls_sni/tls_sni.lua"], 0),
        (&[ERROR], 1),
        (&["scripting/examples/tls_sni/tls_sni.lua", ERROR], 1),
        (&[], 2),
        (&["scripting/examples/none.lua"], 2),
        (&["scripting/examples"], 2),
        (&["--event", "sometimes", WARNING], 2),
        (&["--config", "none.toml"], 2),
        (&["--config", "config/tests/wrong/pool_without_servers.toml"], 2),
    ] {
        let output = check(arguments)?;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        // What is wrong with the call itself is told on standard error, and nothing else is.
        assert_eq!(output.stderr.is_empty(), code != 2, "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn findings_are_shown_with_line_and_cure() -> Result {
    let (code, out, _) = said(&check(&[ERROR, WARNING])?);
    let warning = std::fs::read_to_string(repository().join(WARNING).with_extension("expected"))?;
    let error = std::fs::read_to_string(repository().join(ERROR).with_extension("expected"))?;
    let expected = format!("{error}{warning}").replace("insert_twice.lua:", &format!("{WARNING}:"));
    let expected = expected.replace("undefined_function.lua:", &format!("{ERROR}:"));
    assert_eq!((code, out), (Some(1), expected + "2 scripts: 1 error, 1 warning\n"));
    Ok(())
}

#[test]
fn json_is_one_object_for_each_finding() -> Result {
    let (code, out, err) = said(&check(&["--json", ERROR, WARNING])?);
    let objects: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rules: Vec<_> =
        objects.iter().map(|object| (&object["file"], &object["rule"], &object["severity"])).collect();
    assert_eq!(
        rules,
        [
            (&ERROR.into(), &"undefined".into(), &"error".into()),
            (&WARNING.into(), &"insert-keeps".into(), &"warning".into()),
        ]
    );
    assert_eq!((code, err.as_str()), (Some(1), ""));
    Ok(())
}

#[test]
fn the_event_comes_from_the_argument_or_the_configuration() -> Result {
    let script = "scripting/tests/check/faults/event_select.response.lua";
    for (event, code) in [("request", 0), ("any", 0), ("response", 1)] {
        assert_eq!(check(&["--event", event, script])?.status.code(), Some(code), "{event}");
    }
    let directory = tempfile::tempdir()?;
    let minimal = std::fs::read_to_string(repository().join("config/examples/minimal.toml"))?;
    let toml = directory.path().join("weir.toml");
    std::fs::write(
        &toml,
        format!(
            "{minimal}datascript_sets = [\"s\"]\n[[datascript_set]]\nname = \"s\"\nresponse = \"both.lua\"\n"
        ),
    )?;
    let lua = directory.path().join("both.lua");
    std::fs::write(&lua, "avi.pool.select(\"wbe\")\n")?;
    let config = toml.to_str().ok_or("path")?;
    let (code, all, _) = said(&check(&["--config", config])?);
    assert_eq!(code, Some(1));
    assert!(all.contains("both.lua:1:1: error[event]: avi.pool.select is not available"), "{all}");
    assert!(all.contains("both.lua:1:17: error[name]: no pool named 'wbe'"), "{all}");
    assert!(all.contains("did you mean 'web'?"), "{all}");
    let (_, one, err) = said(&check(&["--config", config, lua.to_str().ok_or("path")?])?);
    assert_eq!((one, err.as_str()), (all, ""));
    let (code, _, err) = said(&check(&["--config", config, WARNING])?);
    assert_eq!(code, Some(0));
    assert!(err.contains("insert_twice.lua is not used in"), "{err}");
    Ok(())
}

#[test]
fn what_the_repository_configures_is_clean() -> Result {
    for (config, scripts) in [("config/examples/full.toml", "5 scripts"), ("demo/weir.toml", "2 scripts")] {
        let (code, out, err) = said(&check(&["--deny-warnings", "--config", config])?);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert_eq!(out, format!("{scripts}: 0 errors, 0 warnings\n"), "{config}");
    }
    Ok(())
}

/// As the user `nobody`, with an empty environment, where the test is root and can become that.
#[test]
fn nobody_may_check_scripts() -> Result {
    let directory = tempfile::tempdir()?;
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
    open(directory.path())?;
    let (binary, script) = (directory.path().join("weir"), directory.path().join("script.lua"));
    std::fs::copy(weir_binary()?, &binary)?;
    std::fs::copy(repository().join(ERROR), &script)?;
    open(&binary)?;
    open(&script)?;
    let mut command = Command::new(&binary);
    command.args(["script", "check"]).arg(&script).env_clear().current_dir("/");
    let id = Command::new("id").arg("-u").output()?;
    if String::from_utf8_lossy(&id.stdout).trim() == "0" {
        command.uid(65534).gid(65534);
    }
    let (code, out, err) = said(&command.output()?);
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.contains("did you mean avi.pool.select?"), "{out}");
    Ok(())
}

/// The commands of the page about the tools, typed in the root of the repository.
#[test]
fn the_commands_of_the_manual_work() -> Result {
    let manual = std::fs::read_to_string(repository().join("docs/script-tools.md"))?;
    let block = manual.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).ok_or("no block")?;
    let commands: Vec<&str> =
        block.lines().filter_map(|line| line.strip_prefix("weir script check ")).collect();
    assert_eq!(commands.len(), block.lines().count());
    assert!(commands.len() >= 4, "{block}");
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let output = check(&arguments)?;
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    }
    let shown = std::fs::read_to_string(repository().join(WARNING).with_extension("expected"))?;
    assert!(manual.contains(&shown), "the report that the manual shows is another one: {shown}");
    Ok(())
}
