//! Compiles what the library embeds: the reaper (`src/workload/reaper/program.rs`) and the library that CRIU is run with
//! where its C library has to answer otherwise (`src/criu/preload/library.rs`).

use std::env::var;
use std::path::Path;
use std::process::{Command, exit};

const REAPER: &str = "src/workload/reaper";
const PRELOAD: &str = "src/criu/preload";

fn main() {
    for file in ["program.rs", "x86_64.rs", "aarch64.rs"] {
        println!("cargo::rerun-if-changed={REAPER}/{file}");
    }
    for file in ["library.rs", "limits.rs", "system_call.rs", "userfaultfd.rs"] {
        println!("cargo::rerun-if-changed={PRELOAD}/{file}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    // No build ID and one small page alignment keep the reaper to a few KiB.
    compile(
        REAPER,
        "program.rs",
        "reaper",
        &["--crate-type=bin", "-Crelocation-model=static", "-Ctarget-feature=+crt-static"],
        &["-static", "-no-pie", "-Wl,-z,noseparate-code"],
    );
    compile(PRELOAD, "library.rs", "criu-preload.so", &["--crate-type=cdylib", "-Ctarget-feature=-crt-static"], &[]);
}

/// Without start files and libc.
fn compile(folder: &str, source: &str, product: &str, kind: &[&str], link: &[&str]) {
    let out = var("OUT_DIR").unwrap_or_default();
    let target = var("TARGET").unwrap_or_default();
    let mut compiler = Command::new(var("RUSTC").unwrap_or_else(|_| "rustc".into()));
    compiler
        .arg(Path::new(folder).join(source))
        .args(["--crate-name", &product.replace(['-', '.'], "_"), "--edition", "2024", "--target", &target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "codegen-units=1", "-C", "strip=symbols"])
        .args(kind)
        .args(["-nostartfiles", "-nostdlib", "-Wl,--build-id=none"].map(|argument| format!("-Clink-arg={argument}")))
        .args(link.iter().map(|argument| format!("-Clink-arg={argument}")))
        // The same bytes wherever it is built.
        .arg("--remap-path-prefix")
        .arg(format!("{folder}="))
        .arg("-o")
        .arg(Path::new(&out).join(product));
    if let Ok(linker) = var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    match compiler.status() {
        Ok(status) if status.success() => {}
        outcome => {
            println!("cargo::error={folder}/{source} does not compile for {target}: {outcome:?}");
            exit(1);
        }
    }
}
