//! Numbers across restarts, and when there are none.

use std::time::{Duration, Instant};

use super::*;

fn labels(text: &str) -> Labels {
    text.parse().unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("identities.json")
    }

    fn open(&self) -> Identities {
        Identities::open(self.0.path(), Instant::now()).unwrap()
    }
}

#[test]
fn a_restart_keeps_numbers() {
    let folder = Folder::new();
    let mut first = folder.open();
    let shop = first.acquire(&labels("app=shop"));
    let client = first.acquire(&labels("app=client"));
    first.save().unwrap();
    drop(first);

    let mut second = folder.open();
    // In another order than before.
    assert_eq!(second.acquire(&labels("app=client")), client);
    assert_eq!(second.acquire(&labels("app=shop")), shop);
    let new = second.acquire(&labels("app=new"));
    assert!(new > shop && new > client, "{new:?}");
}

#[test]
fn a_name_that_was_not_written_down_in_time_is_as_if_it_never_was() {
    let folder = Folder::new();
    let mut first = folder.open();
    let shop = first.acquire(&labels("app=shop"));
    first.save().unwrap();
    first.acquire(&labels("app=unsaved"));
    // Killed here, half way through writing: the old file is whole.
    std::fs::write(folder.file().with_extension("new"), "{\"format\": \"portre").unwrap();
    drop(first);

    let mut second = folder.open();
    assert_eq!(second.acquire(&labels("app=shop")), shop);
    second.save().unwrap();
    assert_eq!(folder.open().list().len(), 1);
}

#[test]
fn a_damaged_file_is_an_error_that_says_what_to_do() {
    let folder = Folder::new();
    let mut identities = folder.open();
    identities.acquire(&labels("app=shop"));
    identities.save().unwrap();
    let whole = std::fs::read_to_string(folder.file()).unwrap();
    let next = "\"next\":257";
    assert!(whole.contains(next), "{whole}");
    for damaged in [
        whole[..whole.len() / 2].to_owned(),
        String::new(),
        whole.replace("identities", "endpoint ids"),
        whole.replace(next, "\"next\":256"),
        whole.replace("[256,", "[255,"),
        whole.replace("\"turn\":256", "\"turn\":255"),
        whole.replace("\"k8s\"", "7"),
    ] {
        std::fs::write(folder.file(), &damaged).unwrap();
        let error = Identities::open(folder.0.path(), Instant::now()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{damaged}: {error}");
        assert!(error.to_string().contains("hint: put a copy of it back"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), damaged, "left as it is");
    }
    std::fs::write(folder.file(), whole.replace("\"version\":1", "\"version\":2")).unwrap();
    let error = Identities::open(folder.0.path(), Instant::now()).unwrap_err();
    assert!(error.to_string().contains("layout 2, and this version knows 1"), "{error}");
}

#[test]
fn a_number_that_nobody_has_is_kept_for_a_while_and_then_given_up() {
    let folder = Folder::new();
    let mut identities = folder.open();
    let begin = Instant::now();
    let keep = Duration::from_secs(60);
    identities.at(begin);
    let shop = identities.acquire(&labels("app=shop"));
    identities.acquire(&labels("app=shop"));
    identities.release(&labels("app=shop"));
    identities.at(begin + keep * 2);
    assert!(identities.collect(keep).is_empty(), "one still has it");
    identities.release(&labels("app=shop"));
    assert!(identities.collect(keep).is_empty(), "released only now");
    assert_eq!(identities.acquire(&labels("app=shop")), shop);
    identities.release(&labels("app=shop"));
    identities.at(begin + keep * 3);
    assert_eq!(identities.collect(keep).len(), 1);
    assert_ne!(identities.acquire(&labels("app=shop")), shop, "others come first");
    identities.save().unwrap();
    let mut second = folder.open();
    assert_ne!(second.acquire(&labels("app=other")), shop, "after a restart, too");
}

#[test]
fn numbers_run_out_closed_and_those_that_nobody_has_come_in_turn() {
    let folder = Folder::new();
    let now = Instant::now();
    let mut identities = Identities::with_range(folder.0.path(), 256..=258, now).unwrap();
    let names = ["app=a", "app=b", "app=c"];
    let numbers: Vec<_> = names.iter().map(|name| identities.acquire(&labels(name))).collect();
    assert_eq!(identities.acquire(&labels("app=d")), None);
    for (name, seconds) in [("app=b", 1), ("app=a", 2)] {
        identities.release(&labels(name));
        identities.at(now + Duration::from_secs(seconds));
        identities.collect(Duration::ZERO);
    }
    identities.save().unwrap();
    drop(identities);
    let mut identities = Identities::with_range(folder.0.path(), 256..=258, now).unwrap();
    assert_eq!(identities.acquire(&labels("app=c")), numbers[2]);
    assert_eq!(identities.acquire(&labels("app=d")), numbers[0]);
    // It is given up at once, and is not the next.
    identities.release(&labels("app=d"));
    identities.collect(Duration::ZERO);
    identities.save().unwrap();
    let mut identities = Identities::with_range(folder.0.path(), 256..=258, now).unwrap();
    assert_eq!(identities.acquire(&labels("app=c")), numbers[2]);
    assert_eq!(identities.acquire(&labels("app=e")), numbers[1]);
    assert_eq!(identities.acquire(&labels("app=f")), numbers[0]);
    assert_eq!(identities.acquire(&labels("app=g")), None);
}

#[test]
fn those_who_are_gone_leave_nothing_on_disk() {
    let folder = Folder::new();
    let mut identities = folder.open();
    let size = |identities: &Identities| {
        identities.save().unwrap();
        std::fs::metadata(folder.file()).unwrap().len()
    };
    identities.acquire(&labels("app=stays"));
    let before = size(&identities);
    for number in 0..1000 {
        let gone = labels(&format!("app=gone-{number}"));
        identities.acquire(&gone);
        identities.release(&gone);
        identities.collect(Duration::ZERO);
    }
    let after = size(&identities);
    assert!(after < before + 10, "{before} bytes, then {after}");
    // A file in which they were listed is read all the same.
    let text = std::fs::read_to_string(folder.file()).unwrap();
    let listed = text.replace("\"turn\":256", "\"free\":[257,258]");
    assert_ne!(text, listed);
    std::fs::write(folder.file(), listed).unwrap();
    assert_eq!(folder.open().list().len(), 1);
}

#[test]
fn a_number_that_somebody_has_who_is_not_known_is_nobodys_when_numbers_come_again() {
    let folder = Folder::new();
    let mut identities =
        Identities::with_range(folder.0.path(), 256..=258, Instant::now()).unwrap();
    identities.begin_after(&[256, 258].into());
    assert_eq!(identities.acquire(&labels("app=a")), Some(Identity::new(257)));
    assert_eq!(identities.acquire(&labels("app=b")), None);
}

#[test]
fn many_at_once_have_each_number_once() {
    let folder = Folder::new();
    let identities = folder.open();
    let take = |thread: usize| {
        let mut identities = identities.clone();
        std::thread::spawn(move || {
            let take = |number: usize| {
                // Half of the names are asked for by everybody.
                let owner = if number.is_multiple_of(2) { 0 } else { thread };
                let name = labels(&format!("app=w{number},of=t{owner}"));
                let identity = identities.acquire(&name).unwrap();
                if number.is_multiple_of(16) {
                    identities.save().unwrap();
                }
                (name, identity)
            };
            (0..100).map(take).collect::<Vec<_>>()
        })
    };
    let threads: Vec<_> = (1..=4).map(take).collect();
    let taken: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    identities.save().unwrap();
    let by_name: std::collections::BTreeMap<_, _> = taken.iter().cloned().collect();
    let by_number: std::collections::BTreeSet<_> =
        taken.iter().map(|(_, identity)| *identity).collect();
    assert_eq!(by_name.len(), 50 + 4 * 50);
    assert_eq!(by_number.len(), by_name.len());
    for (name, identity) in taken {
        assert_eq!(by_name[&name], identity);
    }
    let written: Vec<_> =
        folder.open().list().into_iter().map(|(id, name, _)| (name, id)).collect();
    assert_eq!(written.len(), by_name.len());
    assert!(written.iter().all(|(name, identity)| by_name[name] == *identity));
}

#[test]
fn what_can_not_be_written_is_an_error_and_is_tried_again() {
    let folder = Folder::new();
    let mut identities = folder.open();
    identities.acquire(&labels("app=shop"));
    // Nothing can be renamed over a folder, not even by root.
    std::fs::create_dir(folder.file()).unwrap();
    let error = identities.save().unwrap_err();
    assert!(error.to_string().starts_with("can't write `"), "{error}");
    std::fs::remove_dir(folder.file()).unwrap();
    identities.save().unwrap();
    assert_eq!(folder.open().list().len(), 1);
}

#[test]
fn prefixes_keep_their_numbers_too() {
    let folder = Folder::new();
    let mut first = folder.open();
    let prefix = |text: &str| text.parse::<IpNet>().unwrap();
    let name = ["api.example.org".to_owned()];
    let net = first.acquire_prefix(prefix("10.0.0.0/8"), &[]);
    let one = first.acquire_prefix(prefix("192.0.2.1/32"), &[]);
    let named = first.acquire_prefix(prefix("192.0.2.1/32"), &name);
    assert_eq!(net, Some(Identity::new(1 << 24)));
    assert_ne!(one, named, "who has other names is somebody else");
    first.save().unwrap();
    drop(first);
    let mut second = folder.open();
    assert_eq!(second.acquire_prefix(prefix("192.0.2.1/32"), &name), named);
    assert_eq!(second.acquire_prefix(prefix("192.0.2.1/32"), &[]), one);
    assert_eq!(second.acquire_prefix(prefix("10.0.0.0/8"), &[]), net);
}
