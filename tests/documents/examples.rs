//! Every configuration that the repository shows passes `weir check`, scripts included.

use std::process::Command;

use weir_tests::testkit::{Result, repository, weir_binary};

#[test]
fn configurations_are_good() -> Result {
    let mut files = vec![repository().join("demo/weir.toml")];
    for directory in ["config/examples", "perf/compare"] {
        for entry in std::fs::read_dir(repository().join(directory))? {
            files.push(entry?.path());
        }
    }
    for recipe in std::fs::read_dir(repository().join("scripting/examples"))? {
        files.push(recipe?.path().join("weir.toml"));
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(files.len() >= 17, "{files:?}");
    for file in files {
        let output = Command::new(weir_binary()?).arg("check").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
        assert_eq!(said, "", "{} has warnings", file.display());
    }
    Ok(())
}
