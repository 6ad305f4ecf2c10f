//! Uploads and downloads, over a connection to an agent in this process.

#![cfg(unix)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{FailureCode, FileKind, Reply, Request, Upload};
use see_agent::server::{Agent, Settings, Trust, serve_connection};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use support::{Host, PATIENCE, failure};

/// A folder of its own, with the upload folder in it; it goes with the test.
struct Place(PathBuf);

impl Place {
    fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
    }

    /// Everything in the upload folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.uploads()).expect("the folder");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removing the test's folder");
    }
}

fn agent(test: &str) -> (Host<UnixStream>, Place) {
    let path = std::env::temp_dir().join(format!("see-agent-{test}-{}", std::process::id()));
    let place = Place(path);
    let agent = Agent::new(Settings::new(place.uploads())).expect("an agent");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let writer = theirs.try_clone().expect("a clone");
    thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
    let mut host = Host::silent(ours, 0x5EE);
    host.hello(b"").expect("a welcome");
    (host, place)
}

#[test]
fn a_file_comes_back_as_it_went() {
    let (mut host, place) = agent("round");
    let content: Vec<u8> = (0..700_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let stored = host.upload(b"odd \xFF name", 0o640, &content);
    let Reply::Stored { path, size } = stored else {
        panic!("not stored: {stored:?}");
    };
    assert_eq!(size, content.len() as u64);
    assert!(path.starts_with(place.uploads().as_os_str().as_encoded_bytes()));
    assert_eq!(host.download(&path, u64::MAX), Ok((content.clone(), false)));
    assert_eq!(
        host.download(&path, 1000),
        Ok((content[..1000].to_vec(), true))
    );
    assert_eq!(host.download(&path, size), Ok((content, false)));
    let found = fs::read_dir(place.uploads())
        .expect("the folder")
        .next()
        .expect("a file");
    let mode = found
        .expect("a file")
        .metadata()
        .expect("its bits")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_leave_nothing() {
    let (mut host, place) = agent("escape");
    let names: [&[u8]; 9] = [
        b"",
        b".",
        b"..",
        b"../x",
        b"a/b",
        b"a/../../x",
        b"x\0y",
        b"x/",
        b".see-unfinished-0",
    ];
    for name in names {
        let reply = host.upload(name, 0o644, b"x");
        assert_eq!(
            failure(&reply),
            Some(FailureCode::BadRequest),
            "{name:?}: {reply:?}"
        );
    }
    let long = host.upload(&[b'x'; 256], 0o644, b"x");
    assert_eq!(failure(&long), Some(FailureCode::BadRequest));
    assert!(place.names().is_empty(), "{:?}", place.names());
    assert_eq!(fs::read_dir(&place.0).expect("the place").count(), 1);
}

#[test]
fn links_and_folders_at_the_place_of_an_upload_are_refused() {
    let (mut host, place) = agent("links");
    let outside = place.0.join("outside");
    fs::write(&outside, "kept").expect("a file");
    symlink(&outside, place.uploads().join("link")).expect("a link");
    symlink("/no/such", place.uploads().join("dangling")).expect("a link");
    fs::create_dir(place.uploads().join("folder")).expect("a folder");
    for name in [&b"link"[..], b"dangling", b"folder"] {
        let reply = host.upload(name, 0o644, b"x");
        assert_eq!(
            failure(&reply),
            Some(FailureCode::BadRequest),
            "{name:?}: {reply:?}"
        );
    }
    assert_eq!(fs::read_to_string(outside).expect("the file"), "kept");
    assert_eq!(place.names(), ["dangling", "folder", "link"]);
}

#[test]
fn an_upload_replaces_a_plain_file_whole() {
    let (mut host, place) = agent("replace");
    assert!(matches!(
        host.upload(b"x", 0o600, b"a longer first one"),
        Reply::Stored { .. }
    ));
    assert!(matches!(
        host.upload(b"x", 0o600, b"second"),
        Reply::Stored { .. }
    ));
    assert_eq!(
        fs::read(place.uploads().join("x")).expect("the file"),
        b"second"
    );
    assert_eq!(place.names(), ["x"]);
}

#[test]
fn an_upload_of_another_length_than_announced_leaves_nothing() {
    let (mut host, place) = agent("length");
    for announced in [3, 5] {
        let upload = Upload {
            name: b"x".to_vec(),
            mode: 0o600,
            size: announced,
        };
        let number = host.send(Request::Upload(upload));
        host.feed(number, [b"four".to_vec()].into_iter())
            .expect("fed");
        assert_eq!(
            failure(&host.last_answer(number)),
            Some(FailureCode::BadRequest)
        );
    }
    let upload = Upload {
        name: b"x".to_vec(),
        mode: 0o600,
        size: u64::MAX,
    };
    let refused = host.call(Request::Upload(upload));
    assert_eq!(failure(&refused), Some(FailureCode::BadRequest));
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_host_that_overruns_its_window_loses_the_request_only() {
    let (mut host, place) = agent("overrun");
    let size = 200 * 60_000;
    let number = host.send(Request::Upload(Upload {
        name: b"x".to_vec(),
        mode: 0o600,
        size,
    }));
    // All of it at once. The agent may keep up with some; in the end it may be just fast enough.
    for _ in 0..200 {
        host.send_as(number, Request::Data(vec![7; 60_000]));
    }
    host.send_as(number, Request::End);
    let whole = match host.last_answer(number) {
        Reply::Failed { code, .. } => {
            assert_eq!(code, FailureCode::Cancelled);
            0
        }
        stored => {
            assert!(matches!(stored, Reply::Stored { .. }), "{stored:?}");
            1
        }
    };
    assert_eq!(place.names().len(), whole);
    assert!(matches!(host.call(Request::Ping), Reply::Pong(_)));
}

#[test]
fn only_regular_files_with_absolute_paths_are_sent() {
    let (mut host, place) = agent("download");
    let fifo = place.0.join("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .expect("mkfifo");
    assert!(made.success());
    let fifo = fifo.as_os_str().as_encoded_bytes();
    for path in [
        fifo,
        b"/dev/zero",
        b"/tmp",
        b"relative",
        b"",
        b"/etc\0/passwd",
    ] {
        let refused = host.download(path, 10).expect_err("refused");
        assert_eq!(failure(&refused), Some(FailureCode::BadRequest), "{path:?}");
    }
    let missing = host.download(b"/no/such/file", 10).expect_err("refused");
    assert_eq!(failure(&missing), Some(FailureCode::NotFound));
}

#[test]
fn files_without_a_length_are_read_to_their_end() {
    let (mut host, _place) = agent("proc");
    let (content, truncated) = host.download(b"/proc/self/status", 1 << 20).expect("sent");
    assert!(content.starts_with(b"Name:") && !truncated);
}

#[test]
fn an_agent_starts_without_what_a_killed_one_left_unfinished() {
    let (_host, place) = agent("left");
    fs::write(place.uploads().join(".see-unfinished-7"), "half").expect("a file");
    fs::write(place.uploads().join("whole"), "whole").expect("a file");
    Agent::new(Settings::new(place.uploads())).expect("an agent");
    assert_eq!(place.names(), ["whole"]);
}

#[test]
fn a_link_is_removed_and_looked_at_itself_also_with_separators_after_its_name() {
    let (mut host, place) = agent("link");
    let kept = place.0.join("kept");
    fs::create_dir(&kept).expect("a folder");
    fs::write(kept.join("file"), "kept").expect("a file");
    let link = place.0.join("link");
    for end in ["/", "///", "/."] {
        symlink(&kept, &link).expect("a link");
        let path = format!("{}{end}", link.display()).into_bytes();
        let Reply::File(found) = host.call(Request::Stat { path: path.clone() }) else {
            panic!("nothing at {end}");
        };
        assert_eq!(found.kind, FileKind::Link);
        assert_eq!(host.call(Request::Remove { path }), Reply::Done, "{end}");
        assert!(link.symlink_metadata().is_err(), "{end}: the link is there");
        assert!(kept.join("file").exists(), "{end}: the link was followed");
    }
}
