//! Finds the kernel side's object, which `cargo xtask build-ebpf` builds.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=TURNAWAY_BPF_OBJECT");
    let object = env::var_os("TURNAWAY_BPF_OBJECT").map_or_else(
        || {
            let tracer = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
            tracer.join("../target/bpf/turnaway.bpf.o")
        },
        PathBuf::from,
    );
    println!("cargo:rerun-if-changed={}", object.display());
    let Ok(object) = object.canonicalize() else {
        println!(
            "cargo::error=the kernel side is not built: {} is missing; run: cargo xtask build-ebpf",
            object.display()
        );
        return;
    };
    println!("cargo:rustc-env=TURNAWAY_BPF_OBJECT={}", object.display());
}
