//! Folders that change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;

struct Objects {
    folder: tempfile::TempDir,
    read: Folder,
}

impl Objects {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let read = Folder::new(folder.path());
        Self { folder, read }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    /// What has changed, one line each.
    fn changes(&mut self) -> Vec<String> {
        let batch = self.read.read().unwrap();
        let what = |event: &Event| {
            let what = match &event.what {
                What::Put(_) => "put",
                What::Broken => "broken",
                What::Moved => "moved",
                What::Removed => "removed",
            };
            let file = event.origin.file.rsplit('/').next().unwrap_or_default();
            format!("{what} {} {file}:{}", event.key, event.origin.line)
        };
        let mut all: Vec<_> = batch.events.iter().map(what).collect();
        let first = |error: &Diagnostic| {
            let file = error.source.rsplit('/').next().unwrap_or_default();
            format!("! {file}:{} {}", error.line, error.message.split(" from ").next().unwrap())
        };
        all.extend(batch.unreadable.iter().chain(&batch.doubles).map(first));
        all
    }
}

fn workload(name: &str, address: &str) -> String {
    format!(
        "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: \
         {{addresses: [{address}]}}\n"
    )
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_what_has_changed_is_told() {
    let mut objects = Objects::new();
    let (a, b) = (workload("a", "10.0.0.1"), workload("b", "10.0.0.2"));
    objects.write("all.yaml", &format!("# two\n{a}---\n{b}"));
    objects
        .write("c.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#);
    objects.write("notes.txt", "no object");
    assert_eq!(
        objects.changes(),
        [
            "put Namespace c c.json:1",
            "put Workload default/a all.yaml:2",
            "put Workload default/b all.yaml:7"
        ]
    );
    assert_eq!(objects.changes(), NOTHING);
    let b = workload("b", "10.0.0.3");
    objects.write("all.yaml", &format!("# two\n# of them\n{a}---\n{b}"));
    assert_eq!(
        objects.changes(),
        ["moved Workload default/a all.yaml:3", "put Workload default/b all.yaml:8"]
    );
    objects.write("all.yaml", &a);
    assert_eq!(
        objects.changes(),
        ["removed Workload default/b all.yaml:0", "moved Workload default/a all.yaml:1"]
    );
    fs::remove_file(objects.at("all.yaml")).unwrap();
    assert_eq!(objects.changes(), ["removed Workload default/a all.yaml:0"]);
}

#[test]
fn a_broken_object_is_told_and_the_others_go_on() {
    let mut objects = Objects::new();
    let (a, b) = (workload("a", "10.0.0.1"), workload("b", "10.0.0.2"));
    objects.write("all.yaml", &format!("{a}---\n{b}"));
    objects.changes();
    objects.write(
        "all.yaml",
        &format!("{}---\n{}", workload("a", "nowhere"), workload("b", "10.0.0.3")),
    );
    assert_eq!(
        objects.changes(),
        ["broken Workload default/a all.yaml:1", "put Workload default/b all.yaml:6"]
    );
    objects.write("all.yaml", &format!("{a}---\n{b}"));
    assert_eq!(
        objects.changes(),
        ["put Workload default/a all.yaml:1", "put Workload default/b all.yaml:6"]
    );
}

#[test]
fn a_file_that_can_not_be_read_as_a_whole_removes_nothing() {
    let mut objects = Objects::new();
    let (a, b) = (workload("a", "10.0.0.1"), workload("b", "10.0.0.2"));
    objects.write("all.yaml", &format!("{a}---\n{b}"));
    objects.changes();
    objects.write("all.yaml", &format!("kind: [\n---\n{b}"));
    let told = objects.changes();
    assert_eq!(told[0], "moved Workload default/b all.yaml:3");
    assert!(told[1].contains(" not valid YAML: "), "{told:?}");
    assert_eq!(told.len(), 2);
    // Not UTF-8: nothing of it is known.
    fs::write(objects.at("all.yaml"), [0xff, 0xfe]).unwrap();
    let told = objects.changes();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("! all.yaml:0 can't be read: "), "{told:?}");
    objects.write("all.yaml", &b);
    assert_eq!(
        objects.changes(),
        ["removed Workload default/a all.yaml:0", "moved Workload default/b all.yaml:1"]
    );
}

#[test]
fn an_object_whose_kind_is_misspelt_removes_nothing() {
    let mut objects = Objects::new();
    let a = workload("a", "10.0.0.1");
    objects.write("a.yaml", &a);
    objects.changes();
    objects.write("a.yaml", &a.replace("Workload", "Wrkload"));
    assert_eq!(objects.changes(), ["! a.yaml:2 `Wrkload` is not a kind that is read here"]);
    objects.write("a.yaml", &a);
    assert_eq!(objects.changes(), ["put Workload default/a a.yaml:1"]);
}

#[test]
fn an_object_that_is_written_twice_is_the_first_until_that_is_gone() {
    let mut objects = Objects::new();
    objects.write("b.yaml", &workload("x", "10.0.0.1"));
    objects.changes();
    objects.write("a.yaml", &workload("x", "10.0.0.2"));
    let told = objects.changes();
    assert_eq!(told, ["! a.yaml:1 Workload `default/x` was already read"]);
    fs::remove_file(objects.at("b.yaml")).unwrap();
    assert_eq!(objects.changes(), ["put Workload default/x a.yaml:1"]);
    assert_eq!(objects.changes(), NOTHING);
}

#[test]
fn an_object_that_is_pasted_above_another_of_its_name_goes_with_what_was_pasted() {
    let mut objects = Objects::new();
    let (old, new) = (workload("x", "10.0.0.1"), workload("x", "10.0.0.2"));
    objects.write("a.yaml", &old);
    assert_eq!(objects.changes(), ["put Workload default/x a.yaml:1"]);
    for _ in 0..2 {
        objects.write("a.yaml", &format!("{new}---\n{old}"));
        assert_eq!(
            objects.changes(),
            ["put Workload default/x a.yaml:1", "! a.yaml:6 Workload `default/x` was already read"]
        );
        objects.write("a.yaml", &old);
        assert_eq!(objects.changes(), ["put Workload default/x a.yaml:1"], "as it was");
    }
}

#[test]
fn items_of_a_list_are_objects_of_their_own() {
    let list = |second: &str| {
        format!(
            "apiVersion: v1\nkind: List\nmetadata: {{}}\nitems:\n- apiVersion: v1\n  kind: \
             Namespace\n  metadata:\n    name: a\n- apiVersion: v1\n  kind: Namespace\n  metadata:\n    \
             name: b\n    labels: {second}\n"
        )
    };
    let mut objects = Objects::new();
    objects.write("list.yaml", &list("{x: y}"));
    assert_eq!(objects.changes(), ["put Namespace a list.yaml:5", "put Namespace b list.yaml:9"]);
    objects.write("list.yaml", &list("7"));
    assert_eq!(objects.changes(), ["broken Namespace b list.yaml:9"]);
    objects.write("list.yaml", &list("{x: z}"));
    assert_eq!(objects.changes(), ["put Namespace b list.yaml:9"]);
}

#[test]
fn what_is_no_file_is_neither_waited_for_nor_read_without_end() {
    let mut objects = Objects::new();
    objects.write("a.yaml", &workload("a", "10.0.0.1"));
    let fifo = objects.at("b.yaml");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o600.into(), 0).unwrap();
    std::os::unix::fs::symlink("/dev/zero", objects.at("c.yaml")).unwrap();
    std::os::unix::fs::symlink(objects.at("a.yaml"), objects.at("d.json")).unwrap();
    let told = objects.changes();
    assert_eq!(
        told,
        [
            "put Workload default/a a.yaml:1",
            "! b.yaml:0 can't be read: it is no regular file",
            "! c.yaml:0 can't be read: it is no regular file",
            "! d.json:1 Workload `default/a` was already read"
        ]
    );
    // Larger by the time it is read than it was said to be.
    let large = fs::File::create(objects.at("e.yaml")).unwrap();
    large.set_len((64 << 20) + 1).unwrap();
    let told = objects.changes();
    assert!(told.contains(&"! e.yaml:0 can't be read: larger than 64 MiB".to_owned()), "{told:?}");
}

#[test]
fn the_folder_itself_may_be_gone_for_a_while() {
    let mut objects = Objects::new();
    objects.write("a.yaml", &workload("a", "10.0.0.1"));
    objects.changes();
    let aside = objects.folder.path().with_extension("aside");
    fs::rename(objects.folder.path(), &aside).unwrap();
    let error = objects.read.read().unwrap_err().to_string();
    assert!(error.starts_with("can't read the folder of objects `"), "{error}");
    fs::rename(&aside, objects.folder.path()).unwrap();
    assert_eq!(objects.changes(), NOTHING);
}

/// `objects/cases/broken.txt` has what is said of each; set `UPDATE_EXPECTED=1` to write it anew.
#[test]
fn errors_say_where_what_and_what_to_do() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/objects/cases");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(cases.join("broken.yaml"), folder.path().join("broken.yaml")).unwrap();
    let batch = Folder::new(folder.path()).read().unwrap();
    let mut all: Vec<Diagnostic> =
        batch.events.into_iter().flat_map(|event| event.diagnostics).collect();
    all.extend(batch.unreadable);
    all.sort_by_key(|found| (found.line, found.column));
    let mut said = String::new();
    for mut found in all {
        found.source = "broken.yaml".to_owned();
        said.push_str(&format!("{found}\n\n"));
    }
    let path = cases.join("broken.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &said).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "run `UPDATE_EXPECTED=1 cargo test -p portreeve-node`");
}

#[tokio::test]
async fn a_watched_folder_tells_of_what_is_renamed_over() {
    let mut objects = Objects::new();
    objects.write("a.yaml", &workload("a", "10.0.0.1"));
    let again = std::sync::Arc::new(tokio::sync::Notify::new());
    let mut watched = WatchedFolder::open(objects.folder.path(), again.clone()).unwrap();
    assert_eq!(watched.next().await.events.len(), 1);
    objects.write("..new", &workload("a", "10.0.0.2"));
    fs::rename(objects.at("..new"), objects.at("a.yaml")).unwrap();
    let batch = watched.next().await;
    assert!(matches!(batch.events[0].what, What::Put(_)));
    assert_eq!(objects.changes().len(), 1);
}

#[tokio::test]
async fn a_folder_that_was_replaced_is_watched_again() {
    let parent = tempfile::tempdir().unwrap();
    let [folder, removed, link] = ["one", "two", "link"].map(|name| parent.path().join(name));
    let fill = |folder: &Path, address| {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a.yaml"), workload("a", address)).unwrap();
    };
    fill(&folder, "10.0.0.1");
    fill(&removed, "10.0.0.1");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    for path in [&link, &removed] {
        let mut watched = WatchedFolder::open(path, Arc::default()).unwrap();
        assert_eq!(watched.next().await.events.len(), 1);
        if path == &link {
            // As a release is made current.
            fill(&parent.path().join("three"), "10.0.0.2");
            std::os::unix::fs::symlink("three", parent.path().join("new")).unwrap();
            fs::rename(parent.path().join("new"), path).unwrap();
        } else {
            fs::remove_dir_all(path).unwrap();
            fill(path, "10.0.0.2");
        }
        let batch = tokio::time::timeout(Duration::from_secs(10), async {
            // That it is gone may be told before.
            loop {
                let batch = watched.next().await;
                if !batch.events.is_empty() {
                    return batch;
                }
            }
        });
        assert!(matches!(batch.await.unwrap().events[0].what, What::Put(_)), "{path:?}");
        // The poll, which is every two seconds, may just have been.
        fs::write(path.join("..new"), workload("a", "10.0.0.3")).unwrap();
        fs::rename(path.join("..new"), path.join("a.yaml")).unwrap();
        let at_once = tokio::time::timeout(Duration::from_secs(1), watched.next()).await;
        assert_eq!(at_once.unwrap().events.len(), 1, "{path:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_steps_counts_when_it_is_whole() {
    let objects = Objects::new();
    let both = workload("a", "10.0.0.1") + "---\n" + &workload("b", "10.0.0.2");
    objects.write("a.yaml", &both);
    let mut watched = WatchedFolder::open(objects.folder.path(), Arc::default()).unwrap();
    assert_eq!(watched.next().await.events.len(), 2);
    // As editors and redirections of a shell do: away, empty, a part of it, all of it.
    let path = objects.at("a.yaml");
    let write = async {
        let steps = ["", &workload("a", "10.0.0.1"), &both.replace("10.0.0.2", "10.0.0.3")];
        fs::rename(&path, objects.at("a.yaml~")).unwrap();
        for text in steps {
            tokio::time::sleep(Duration::from_millis(5)).await;
            fs::write(&path, text).unwrap();
        }
    };
    let (batch, ()) = tokio::join!(watched.next(), write);
    assert_eq!(batch.events.len(), 1, "{:?}", batch.events);
    assert!(matches!(batch.events[0].what, What::Put(_)));
    // What is gone for good, is gone.
    fs::remove_file(&path).unwrap();
    let batch = watched.next().await;
    assert_eq!(batch.events.len(), 2);
    assert!(batch.events.iter().all(|event| matches!(event.what, What::Removed)));
}

#[tokio::test]
async fn an_object_that_is_moved_to_another_file_is_never_gone() {
    let objects = Objects::new();
    objects.write("a.yaml", &(workload("a", "10.0.0.1") + "---\n" + &workload("b", "10.0.0.2")));
    let mut watched = WatchedFolder::open(objects.folder.path(), Arc::default()).unwrap();
    assert_eq!(watched.next().await.events.len(), 2);
    // One after the other, each whole.
    let rename = async {
        for (name, object) in
            [("a.yaml", workload("a", "10.0.0.1")), ("b.yaml", workload("b", "10.0.0.2"))]
        {
            objects.write("..new", &object);
            fs::rename(objects.at("..new"), objects.at(name)).unwrap();
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    let (batch, ()) = tokio::join!(watched.next(), rename);
    assert!(!batch.events.is_empty());
    assert!(
        batch.events.iter().all(|event| !matches!(event.what, What::Removed)),
        "{:?}",
        batch.events
    );
}

#[tokio::test]
async fn what_comes_in_the_place_of_something_comes_when_that_goes() {
    let objects = Objects::new();
    objects.write("a.yaml", &workload("a", "10.0.0.1"));
    let mut watched = WatchedFolder::open(objects.folder.path(), Arc::default()).unwrap();
    assert_eq!(watched.next().await.events.len(), 1);
    objects.write("..new", &workload("b", "10.0.0.1"));
    fs::rename(objects.at("..new"), objects.at("a.yaml")).unwrap();
    let batch = watched.next().await;
    assert_eq!(batch.events.len(), 2, "{:?}", batch.events);
    assert!(matches!(batch.events[0].what, What::Removed));
    assert!(matches!(batch.events[1].what, What::Put(_)));
}
