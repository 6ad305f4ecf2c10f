//! What only looks like a dead run's, and is somebody else's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use see_tests::{Footprint, PrivateDaemon};

use crate::arena::Arena;

/// In the name of everything that only looks like a run's.
pub(crate) const DECOY: &str = "decoy";

/// Files, a process, and a daemon's objects with names that resemble those of an environment.
pub(crate) struct Decoys<'a> {
    folders: Vec<(PathBuf, Footprint)>,
    process: Child,
    objects: Option<(&'a PrivateDaemon, Vec<String>)>,
}

impl<'a> Decoys<'a> {
    pub(crate) fn lay(arena: &'a Arena, identifier: &str) -> Self {
        let home = arena.home();
        let digits: String = identifier.chars().filter(|digit| *digit != '-').collect();
        let names = [
            home.runtime().join(format!("see-{identifier}-{DECOY}")),
            home.runtime()
                .join(format!("see-{}-{DECOY}", &digits[..16])),
            home.path("pool").join(format!("{identifier}.{DECOY}")),
            PathBuf::from(format!("/var/tmp/see-{identifier}.{DECOY}")),
            home.path(&format!("state/{identifier}.jsonl.{DECOY}")),
        ];
        let folders = names.map(|path| {
            std::fs::create_dir(&path).expect("nobody else has this name");
            std::fs::write(path.join("notes"), identifier).expect("it was just made");
            let footprint = Footprint::of(&path);
            (path, footprint)
        });
        let process = Command::new("sh")
            .args(["-c", "read line", DECOY, "-uuid", identifier])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        let objects = arena.daemon().map(|daemon| {
            define(arena, daemon, identifier);
            (daemon, daemon.objects(DECOY))
        });
        if let Some((_, objects)) = &objects {
            assert_eq!(objects.len(), 3, "{objects:?}");
        }
        Self {
            folders: folders.into(),
            process,
            objects,
        }
    }

    pub(crate) fn damage(&mut self) -> Vec<String> {
        let mut found: Vec<String> = self
            .folders
            .iter()
            .flat_map(|(path, before)| Footprint::of(path).changes(before))
            .collect();
        let ended = self.process.try_wait().expect("a child can be waited for");
        found.extend(ended.map(|status| format!("the decoy process ended: {status}")));
        if let Some((daemon, before)) = &self.objects {
            let now = daemon.objects(DECOY);
            let gone = before.iter().filter(|object| !now.contains(object));
            found.extend(gone.map(|object| format!("gone: {object}")));
        }
        found
    }
}

impl Drop for Decoys<'_> {
    fn drop(&mut self) {
        for (path, _) in &self.folders {
            // A damaged one was reported.
            let _ = std::fs::remove_dir_all(path);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some((daemon, objects)) = &self.objects {
            for object in objects {
                let words: Vec<&str> = object.split([' ', ':']).collect();
                let undefine = match words.get(1) {
                    Some(&"list") => "undefine",
                    Some(&"net-list") => "net-undefine",
                    _ => "pool-undefine",
                };
                let name = object.rsplit(' ').next().unwrap_or_default();
                let _ = virsh(daemon, &[undefine, name]).output();
            }
        }
    }
}

/// `virsh` with the daemon's QEMU.
pub(crate) fn virsh(daemon: &PrivateDaemon, words: &[&str]) -> Command {
    let mut virsh = daemon.inside("virsh");
    virsh.args(["-q", "-c", &daemon.uri()]).args(words);
    virsh
}

/// Defines an object of the daemon's from this XML.
pub(crate) fn defined(arena: &Arena, daemon: &PrivateDaemon, by: &str, xml: &str) {
    let file = arena.home().write("object.xml", xml);
    let file = file.to_str().expect("a home's path is text");
    let output = virsh(daemon, &[by, file]).output();
    let output = output.expect("virsh is installed");
    assert!(output.status.success(), "{by} {xml}: {output:?}");
}

/// A domain, a network and a pool without a label, under names that resemble.
fn define(arena: &Arena, daemon: &PrivateDaemon, identifier: &str) {
    let name = format!("{identifier}-{DECOY}");
    defined(arena, daemon, "define", &domain(&name));
    defined(arena, daemon, "net-define", &network(&name));
    defined(arena, daemon, "pool-define", &pool(&name));
}

/// A domain that is nobody's of ours.
pub(crate) fn domain(name: &str) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>\
         <os><type arch='x86_64'>hvm</type></os></domain>"
    )
}

/// A network that is nobody's of ours.
pub(crate) fn network(name: &str) -> String {
    format!("<network><name>{name}</name><bridge name='virbr-strange'/></network>")
}

/// A pool that is nobody's of ours.
pub(crate) fn pool(name: &str) -> String {
    format!(
        "<pool type='dir'><name>{name}</name><target><path>/var/empty-{name}</path></target></pool>"
    )
}
