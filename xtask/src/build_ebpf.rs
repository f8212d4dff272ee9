//! Builds the kernel programs so that the same source and tools give the same bytes, wherever the
//! repository is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::{Toolchain, said};

const TARGET: &str = "bpfel-unknown-none";
/// The programs that become objects: the sidecar's, and the node's.
const PROGRAMS: [&str; 2] = ["portreeve", "portreeve-node"];
/// Where they are committed.
const OBJECTS: &str = "ebpf-redirect/object";
/// What it was built with.
const PROVENANCE: &str = "ebpf-redirect/object/built-with.toml";
/// Where those are that were built last, also where they are only compared.
const BUILT: &str = "target/ebpf";

/// Builds; then puts the objects in their place, or compares them with those that are there.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let root = root()?;
    let tools = Toolchain::find(&root)?;
    build(&root, &tools)?;
    let provenance = provenance(&root, &tools)?;
    if check {
        return compare(&root, &provenance);
    }
    for program in PROGRAMS {
        let (object, bytes) = (object(program), read(&root, &built(program))?);
        write(&root.join(&object), &bytes)?;
        println!("{object}: {} bytes", bytes.len());
    }
    write(&root.join(PROVENANCE), provenance.as_bytes())
}

fn object(program: &str) -> String {
    format!("{OBJECTS}/{program}.bpf.o")
}

fn built(program: &str) -> String {
    format!("{BUILT}/{program}.bpf.o")
}

fn root() -> Result<PathBuf, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Path::to_owned).ok_or_else(|| "the repository has no folder".to_owned())
}

fn build(root: &Path, tools: &Toolchain) -> Result<(), String> {
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
    for program in PROGRAMS {
        let whole = target.join(TARGET).join("release").join(program);
        let (from, to) = (whole.display().to_string(), root.join(built(program)));
        // The kernel reads BTF; DWARF is ten times as much, and for nobody.
        said(&tools.objcopy, &["--strip-debug", &from, &to.display().to_string()])?;
    }
    Ok(())
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

/// Flags that leave no trace of where this was built. BPF v3 has the atomic operations (Linux 5.12). Memory is
/// copied in place: the linker would have it done by functions that go byte by byte, and the verifier with
/// them.
fn flags(root: &Path, tools: &Toolchain, target: &Path) -> String {
    let linker = tools.linker.display();
    let mut flags = format!(
        "-C linker={linker} -C target-cpu=v3 -C debuginfo=2 -C link-arg=--btf \
         -C link-arg=--disable-expand-memcpy-in-order"
    );
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
        "# What the objects were built with; `cargo run -p xtask -- build-ebpf` writes all of it.\n\
         {}lock = \"{lock}\"\n",
        tools.versions()?
    ))
}

fn compare(root: &Path, provenance: &str) -> Result<(), String> {
    if read(root, PROVENANCE)? != provenance.as_bytes() {
        println!(
            "{PROVENANCE} names other tools than these, so bytes are not compared:\n{provenance}\
             what was built is in {BUILT}"
        );
        return Ok(());
    }
    for program in PROGRAMS {
        let object = object(program);
        if read(root, &object)? != read(root, &built(program))? {
            return Err(format!(
                "{object} is not what its source gives\n  \
                 hint: run `cargo run -p xtask -- build-ebpf` and commit what it writes"
            ));
        }
        println!("{object} is what its source gives");
    }
    Ok(())
}

fn read(root: &Path, path: &str) -> Result<Vec<u8>, String> {
    fs::read(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .map_err(|error| format!("{}: {error}", path.display()))
}
