//! Builds the kernel programs so that the same source and tools give the same bytes, wherever the
//! repository is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::{Toolchain, said};

const TARGET: &str = "bpfel-unknown-none";
/// What is committed.
const OBJECT: &str = "ebpf-redirect/object/portreeve.bpf.o";
/// What it was built with.
const PROVENANCE: &str = "ebpf-redirect/object/built-with.toml";
/// What was built last, also where it is only compared.
const BUILT: &str = "target/ebpf/portreeve.bpf.o";

/// Builds; then puts the object in its place, or compares it with the one that is there.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let root = root()?;
    let tools = Toolchain::find(&root)?;
    let built = build(&root, &tools)?;
    let provenance = provenance(&root, &tools)?;
    let bytes = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    if check {
        return compare(&root, &bytes, &provenance);
    }
    write(&root.join(OBJECT), &bytes)?;
    write(&root.join(PROVENANCE), provenance.as_bytes())?;
    println!("{OBJECT}: {} bytes", bytes.len());
    Ok(())
}

fn root() -> Result<PathBuf, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Path::to_owned).ok_or_else(|| "the repository has no folder".to_owned())
}

fn build(root: &Path, tools: &Toolchain) -> Result<PathBuf, String> {
    let programs = root.join("ebpf-redirect/programs");
    let target = root.join("target/ebpf");
    // The folders of dependencies are to be there before they are named.
    cargo(&programs, tools, &target, "").args(["fetch", "--locked"]).status().map_err(failed)?;
    let flags = flags(root, tools, &target);
    let status = cargo(&programs, tools, &target, &flags)
        .args(["build", "--release", "--locked", "-Zbuild-std=core", "--target", TARGET])
        .status()
        .map_err(failed)?;
    if !status.success() {
        return Err("the kernel programs do not build; see above".to_owned());
    }
    let whole = target.join(TARGET).join("release/portreeve");
    let built = root.join(BUILT);
    let (from, to) = (whole.display().to_string(), built.display().to_string());
    // The kernel reads BTF; DWARF is ten times as much, and for nobody.
    said(&tools.objcopy, &["--strip-debug", &from, &to])?;
    Ok(built)
}

fn cargo(programs: &Path, tools: &Toolchain, target: &Path, flags: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(programs)
        .env("RUSTC", &tools.rustc)
        // `-Zbuild-std` and a tier 3 target, with a compiler that may be a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    cargo
}

fn failed(error: std::io::Error) -> String {
    format!("can't run cargo: {error}")
}

/// Flags that leave no trace of where this was built. BPF v3 has the atomic operations (Linux 5.12).
fn flags(root: &Path, tools: &Toolchain, target: &Path) -> String {
    let linker = tools.linker.display();
    let mut flags = format!("-C linker={linker} -C target-cpu=v3 -C debuginfo=2 -C link-arg=--btf");
    let mut remap = |from: &Path, to: &str| {
        flags.push_str(&format!(" --remap-path-prefix={}={to}", from.display()));
    };
    // The last that fits is taken.
    remap(root, "portreeve");
    remap(target, "target");
    remap(&tools.sysroot.join("lib/rustlib/src/rust"), "rust");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let registries = home.map(|home| home.join("registry/src"));
    for entry in
        registries.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten()
    {
        remap(&entry.path(), "registry");
    }
    flags
}

fn provenance(root: &Path, tools: &Toolchain) -> Result<String, String> {
    let lock = root.join("ebpf-redirect/programs/Cargo.lock").display().to_string();
    let lock = said(Path::new("git"), &["hash-object", &lock])?;
    Ok(format!(
        "# What portreeve.bpf.o was built with; `cargo run -p xtask -- build-ebpf` writes both.\n\
         {}lock = \"{lock}\"\n",
        tools.versions()?
    ))
}

fn compare(root: &Path, bytes: &[u8], provenance: &str) -> Result<(), String> {
    let read = |path: &str| fs::read(root.join(path)).map_err(|error| format!("{path}: {error}"));
    if read(PROVENANCE)? != provenance.as_bytes() {
        println!(
            "{PROVENANCE} names other tools than these, so bytes are not compared:\n{provenance}\
             what was built is {BUILT}"
        );
        return Ok(());
    }
    if read(OBJECT)? != bytes {
        return Err(format!(
            "{OBJECT} is not what its source gives\n  \
             hint: run `cargo run -p xtask -- build-ebpf` and commit what it writes"
        ));
    }
    println!("{OBJECT} is what its source gives");
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .map_err(|error| format!("{}: {error}", path.display()))
}
