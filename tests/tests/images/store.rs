//! A store that is full, read-only, or tampered with: told clearly, and nothing outside it is touched.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use see_tests::services::Nginx;
use see_tests::{Dice, Outcome, finish, spawn};
use serde_json::{Value, json};

use crate::support::*;

/// How a failure begins to say what to do.
const HELP: &str = "= help: ";

/// A web server with one image of this size, and its section.
fn server(size: usize) -> (Nginx, Value) {
    let nginx = Nginx::start();
    nginx.put("guest.img", &Dice::of("a store").bytes(size));
    let section = json!({ "provider": "http", "uri": nginx.url("guest.img") });
    (nginx, section)
}

/// The pull, after a shell prepared mounts that nobody else sees, and before it tells of the folder `store`.
fn with_mounts(user: &User, mounts: &str) -> Command {
    user.make(&user.store());
    user.pull_within(&format!(
        "{mounts}\ncode=0; \"$0\" \"$@\" || code=$?; ls -A store/* >listed || true; exit $code"
    ))
}

/// What a pull that failed says.
fn failure(outcome: &Outcome) -> String {
    assert!(
        outcome.code.is_some_and(|code| code != 0),
        "it succeeded: {outcome:#?}"
    );
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(told.contains(HELP), "what to do? {told}");
    told
}

/// Every file and folder beneath this one, with its length.
fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let metadata = entry.metadata().expect("nobody else is here");
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            found.push((entry.path(), metadata.len()));
        }
    }
    found.sort();
    found
}

#[test]
fn an_image_for_which_there_is_no_room_is_refused_before_it_is_sent() {
    let (nginx, section) = server(48 << 20);
    let user = User::of(&section);
    let mut pull = with_mounts(&user, "mount -t tmpfs -o size=32m,mode=0700 none store");
    let told = failure(&finish(spawn(&mut pull), PULL));
    assert!(
        told.contains("free") || told.contains("room") || told.contains("space"),
        "{told}"
    );
    let sent: u64 = nginx.log().iter().map(|request| request.sent).sum();
    assert!(sent < 1 << 20, "{sent} bytes were sent for nothing");
}

#[test]
fn a_disk_that_fills_up_on_the_way_is_told_and_the_next_try_succeeds() {
    let (_nginx, section) = server(24 << 20);
    let user = User::of(&section);
    // Somebody else takes the room while the image is on its way.
    let mount = "mount -t tmpfs -o size=32m,mode=0700 none store\n\
                 (while ! find store -size +8M | grep -q .; do sleep 0.01; done\n\
                 dd if=/dev/zero of=store/theirs bs=1M 2>/dev/null || true) &";
    let mut section = section;
    let slow = section["uri"]
        .as_str()
        .expect("it is text")
        .replace("guest", "slow/guest");
    section["uri"] = json!(slow);
    user.want(&section);
    let script = format!(
        "{mount}\ncode=0; seectl=$0; \"$0\" \"$@\" >first 2>&1 || code=$?; echo $code >code; \
         wait; rm -f store/theirs"
    );
    let mut pull = with_mounts(&user, &script);
    let outcome = finish(spawn(&mut pull), PULL);
    let first = std::fs::read_to_string(user.home().path("first")).expect("the shell wrote it");
    let code = std::fs::read_to_string(user.home().path("code")).expect("the shell wrote it");
    assert_ne!(code.trim(), "0", "{first}");
    assert!(first.contains("No space left"), "{first}");
    assert!(first.contains(HELP), "what to do? {first}");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
}

#[test]
fn a_store_on_a_read_only_file_system_is_told() {
    let (_nginx, section) = server(1 << 20);
    let user = User::of(&section);
    let mount = "mount --bind store store; mount -o remount,bind,ro store";
    let told = failure(&finish(spawn(&mut with_mounts(&user, mount)), PULL));
    assert!(
        told.contains("Read-only") || told.contains("read-only"),
        "{told}"
    );
    assert!(told.contains("store"), "{told}");
}

#[test]
fn a_link_that_was_planted_in_the_store_is_not_followed() {
    let (_nginx, section) = server(1 << 20);
    let user = User::of(&section);
    let outside = user.home().path("outside");
    std::fs::create_dir(&outside).expect("the home is writable");
    std::fs::write(outside.join("theirs"), "theirs").expect("the home is writable");
    let before = tree(&outside);
    // What the store consists of is seen from one that works.
    let outcome = finish(spawn(&mut user.pull()), PULL);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let parts: Vec<PathBuf> = tree(&user.store())
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert!(!parts.is_empty());
    for part in parts {
        let relative = part.strip_prefix(user.store()).expect("it is in the store");
        let victim = User::of(&section);
        let planted = victim.store().join(relative);
        let above = planted.parent().expect("it is in the store");
        victim.make(above);
        let target = if part.is_dir() {
            outside.clone()
        } else {
            outside.join("theirs")
        };
        symlink(&target, &planted).expect("the home is writable");
        let outcome = finish(spawn(&mut victim.pull()), PULL);
        assert_eq!(
            tree(&outside),
            before,
            "{}: {outcome:#?}",
            relative.display()
        );
        let content = std::fs::read(outside.join("theirs")).expect("it is still there");
        assert_eq!(content, b"theirs", "{}", relative.display());
        if outcome.code == Some(0) {
            // It made its own in the place of the link, or never came across it.
            let pulled = std::fs::canonicalize(pulled_path(&outcome)).expect("it is there");
            let store = std::fs::canonicalize(victim.store()).expect("it is there");
            assert!(pulled.starts_with(&store), "{}", pulled.display());
        } else {
            let told = failure(&outcome);
            assert!(told.contains("link"), "{}: {told}", relative.display());
        }
    }
}

#[test]
fn a_name_that_climbs_out_of_its_place_is_refused_and_makes_nothing() {
    let nginx = Nginx::start();
    nginx.put("guest.img", &Dice::of("a name").bytes(1 << 20));
    let climbs = "expected one beneath the `url`";
    // What is no `..` to a URL is a name like any other, and there is none such.
    let missing = "404";
    for (name, part) in [
        ("../../guest.img", climbs),
        ("a/../../guest.img", climbs),
        ("..", climbs),
        ("..%2f..%2fescaped.img", missing),
    ] {
        let section = json!({ "provider": "http", "name": name,
            "provider_configuration": { "url": nginx.url("") } });
        let user = User::of(&section);
        let home = user.home().folder().to_owned();
        let before: Vec<PathBuf> = names(&home);
        let outcome = finish(spawn(&mut user.pull()), PULL);
        let after: Vec<PathBuf> = names(&home)
            .into_iter()
            .filter(|path| !before.contains(path) && path != &user.store())
            .filter(|path| !path.ends_with("state"))
            .collect();
        assert!(after.is_empty(), "{name}: {after:?}: {outcome:#?}");
        assert!(outcome.code.is_some_and(|code| code != 0), "{outcome:#?}");
        assert!(outcome.stderr.contains(part), "{name}: {outcome:#?}");
    }
}

/// What stands directly in a folder, and beside it.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("it is there")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}
