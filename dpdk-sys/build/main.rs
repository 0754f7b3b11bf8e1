//! Finds DPDK through pkg-config, compiles the shim, generates the bindings and says what to link.

mod bindings;
mod link;

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=shim");
    if let Err(sentence) = build() {
        println!("cargo::error={sentence}");
    }
}

/// Where DPDK is and how its headers want to be compiled.
struct Dpdk {
    include_paths: Vec<PathBuf>,
    /// Flags besides include paths. DPDK's inline functions need the instruction set that it was built for.
    other_flags: Vec<String>,
    libdir: PathBuf,
}

fn build() -> Result<(), String> {
    let dpdk = find()?;
    compile_shim(&dpdk)?;
    bindings::generate(&dpdk)?;
    link::print(&dpdk)
}

fn find() -> Result<Dpdk, String> {
    let library = pkg_config::Config::new()
        .atleast_version("22.11")
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
        .map_err(|error| match error {
            pkg_config::Error::Command { .. } => {
                "pkg-config is not installed, and DPDK is found through it: on Debian, install the package pkg-config \
                 (apt-get install pkg-config)"
                    .to_owned()
            }
            _ => "DPDK 22.11 or later was not found by pkg-config: on Debian, install the package libdpdk-dev \
                  (apt-get install libdpdk-dev), or set PKG_CONFIG_PATH to the directory of libdpdk.pc"
                .to_owned(),
        })?;
    println!("cargo::rerun-if-changed={}/libdpdk.pc", ask("--variable=pcfiledir")?.trim());
    // The pkg-config crate has no place for flags such as -march and -include.
    let other_flags = ask("--cflags-only-other")?.split_whitespace().map(str::to_owned).collect();
    let libdir = PathBuf::from(ask("--variable=libdir")?.trim());
    Ok(Dpdk { include_paths: library.include_paths, other_flags, libdir })
}

/// What pkg-config says about libdpdk.
fn ask(question: &str) -> Result<String, String> {
    let program = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program).args([question, "libdpdk"]).output();
    let output = output.map_err(|error| format!("pkg-config {question} libdpdk: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "pkg-config {question} libdpdk failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

fn compile_shim(dpdk: &Dpdk) -> Result<(), String> {
    let mut compiler = cc::Build::new();
    compiler.file("shim/shim.c").flag("-std=gnu11").warnings(true).warnings_into_errors(false);
    for path in &dpdk.include_paths {
        // System headers: their warnings are not ours.
        compiler.flag("-isystem").flag(path);
    }
    for flag in &dpdk.other_flags {
        compiler.flag(flag);
    }
    compiler.try_compile("weir_shim").map_err(|error| format!("cannot compile shim/shim.c: {error}"))
}
