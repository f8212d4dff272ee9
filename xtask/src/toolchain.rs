//! What kernel programs are built with: a `rustc` that has `core`'s source, `bpf-linker`, and LLVM's
//! `objcopy`. Any of them can be named by an environment variable.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to get them; said when one is missing.
const HOW: &str = "\
  hint: on Debian, `ebpf-redirect/fetch-toolchain` installs all of it; elsewhere
        `rustup toolchain install nightly --component rust-src && cargo install bpf-linker --locked`
        and LLVM's llvm-objcopy";

/// The tools, as found.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    pub(crate) objcopy: PathBuf,
    /// Where `core`'s source is.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// Looks for the tools; `root` is the repository's.
    pub(crate) fn find(root: &Path) -> Result<Self, String> {
        let own = root.join("target/ebpf-tools/bin");
        let rustc = named("PORTREEVE_EBPF_RUSTC")
            .or_else(|| {
                [nightly(), Some("/usr/bin/rustc".into())]
                    .into_iter()
                    .flatten()
                    .find(|rustc| has_source(rustc))
            })
            .ok_or(format!("no rustc with the source of `core` was found\n{HOW}"))?;
        let linker = named("PORTREEVE_BPF_LINKER")
            .or_else(|| in_path("bpf-linker", &own))
            .ok_or(format!("bpf-linker was not found\n{HOW}"))?;
        let objcopies = ["llvm-objcopy", "llvm-objcopy-22", "llvm-objcopy-19", "llvm-objcopy-14"];
        let objcopy = named("PORTREEVE_OBJCOPY")
            .or_else(|| objcopies.iter().find_map(|name| in_path(name, &own)))
            .ok_or(format!("llvm-objcopy was not found\n{HOW}"))?;
        let sysroot = said(&rustc, &["--print", "sysroot"])?.into();
        Ok(Self { rustc, linker, objcopy, sysroot })
    }

    /// What an object depends on besides its source, a line for each tool.
    pub(crate) fn versions(&self) -> Result<String, String> {
        let rustc = said(&self.rustc, &["--version"])?;
        let verbose = said(&self.rustc, &["--version", "--verbose"])?;
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let linker = said(&self.linker, &["--version"])?;
        let linker = linker.lines().next().unwrap_or_default();
        let llvm = llvm.unwrap_or("unknown");
        Ok(format!("rustc = \"{rustc}\"\nllvm = \"{llvm}\"\nlinker = \"{linker}\"\n"))
    }
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

fn nightly() -> Option<PathBuf> {
    said(Path::new("rustup"), &["which", "rustc", "--toolchain", "nightly"]).ok().map(PathBuf::from)
}

fn has_source(rustc: &Path) -> bool {
    said(rustc, &["--print", "sysroot"])
        .is_ok_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/core").is_dir())
}

fn in_path(name: &str, own: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(own.to_owned()).chain(env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a program prints.
pub(crate) fn said(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("can't run `{}`: {error}", shown()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("`{}` failed: {why}", shown()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
