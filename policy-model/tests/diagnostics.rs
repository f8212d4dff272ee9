//! What a person sees of a policy file that is broken or surely not meant: everything at once, each with its place, its field
//! and what to do. The expected text is `tests/diagnostics/*.txt`; set `UPDATE_EXPECTED=1` to write
//! it anew and read the difference.

use std::fs;
use std::path::Path;

use portreeve_policy::{Diagnostics, Repository, Source};

#[test]
fn everything_is_reported_at_once_with_its_place_and_a_hint() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = Source::new(name, fs::read_to_string(&path).unwrap());
        let found = match Repository::parse([source]) {
            Ok(repository) => Diagnostics(repository.warnings().to_vec()),
            Err(found) => found,
        };
        let errors = found.to_string() + "\n";
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &errors).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap();
        assert_eq!(errors, expected, "{}", path.display());
    }
    assert!(seen >= 4, "only {seen} files in {}", folder.display());
}

#[test]
fn the_examples_load_without_a_warning() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for folder in ["demo", "policies"] {
        for entry in fs::read_dir(examples.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let source = Source::new(path.display().to_string(), text);
            let repository = Repository::parse([source]).unwrap_or_else(|e| panic!("{e}"));
            assert!(repository.warnings().is_empty(), "{:?}", repository.warnings());
        }
    }
}
