//! The Dockerfile, as far as it can be checked without building it: its files and its packages exist.

use std::collections::BTreeSet;
use std::process::Command;

use weir_tests::testkit::{Result, repository, weir_binary};

fn instructions() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(repository().join("Dockerfile"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    Ok(lines.replace("\\\n", " ").lines().map(str::to_owned).collect())
}

#[test]
fn copied_files_exist() -> Result {
    let mut copied = 0;
    for instruction in instructions()? {
        let Some(arguments) = instruction.strip_prefix("COPY ").filter(|text| !text.starts_with("--from"))
        else {
            continue;
        };
        let mut paths: Vec<_> = arguments.split_whitespace().collect();
        paths.pop();
        for path in paths {
            assert!(repository().join(path).exists(), "{instruction}: {path} does not exist");
            copied += 1;
        }
    }
    assert!(copied > 0, "the Dockerfile copies nothing");
    Ok(())
}

fn packages() -> Result<BTreeSet<String>> {
    let mut packages = BTreeSet::new();
    for instruction in instructions()? {
        for install in instruction.split("&&").filter_map(|part| part.split_once("apt-get install")) {
            let words = install.1.split_whitespace().filter(|word| !word.starts_with('-'));
            packages.extend(words.map(str::to_owned));
        }
    }
    Ok(packages)
}

#[test]
fn packages_exist() -> Result {
    let packages = packages()?;
    for needed in ["librte-mempool-ring23", "librte-bus-vdev23", "librte-bus-pci23", "librte-net-tap23"] {
        assert!(packages.contains(needed), "{needed} is only loaded at run time and must be installed");
    }
    // Elsewhere than on Debian, and before `apt-get update`, there is nothing to compare with.
    let known = Command::new("apt-cache").args(["--names-only", "search", "^librte-eal23$"]).output();
    if !known.is_ok_and(|output| !output.stdout.is_empty()) {
        eprintln!("SKIPPED: packages of the Dockerfile: this machine does not know Debian 12's packages");
        return Ok(());
    }
    let shown = Command::new("apt-cache").args(["show", "--no-all-versions"]).args(&packages).output()?;
    let shown = String::from_utf8(shown.stdout)?;
    let found: BTreeSet<_> = shown.lines().filter_map(|line| line.strip_prefix("Package: ")).collect();
    for package in &packages {
        assert!(found.contains(package.as_str()), "Debian has no package {package}");
    }
    Ok(())
}

/// What the binary is linked with has a package: libNAME.so.23 is in libNAME23, with hyphens.
#[test]
fn linked_libraries_are_installed() -> Result {
    let packages = packages()?;
    let output = Command::new("objdump").arg("-p").arg(weir_binary()?).output()?;
    let headers = String::from_utf8(output.stdout)?;
    let libraries = headers.lines().filter_map(|line| line.trim().strip_prefix("NEEDED"));
    let dpdk: Vec<_> = libraries.map(str::trim).filter(|library| library.starts_with("librte_")).collect();
    for library in &dpdk {
        let package = library.replace(".so.", "").replace('_', "-");
        assert!(
            packages.contains(&package),
            "{library} is in {package}, which the Dockerfile does not install"
        );
    }
    assert!(!dpdk.is_empty(), "the binary is linked with no DPDK library: {headers}");
    Ok(())
}
