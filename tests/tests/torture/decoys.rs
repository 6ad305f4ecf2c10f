//! What only looks like a dead run's, and is somebody else's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use see_tests::{Footprint, PrivateDaemon};

use crate::arena::{Arena, Kind};

/// In the name of everything that only looks like a run's.
pub(crate) const DECOY: &str = "decoy";

/// Files, a process, and a daemon's objects with names that resemble those of an environment.
pub(crate) struct Decoys<'a> {
    folders: Vec<(PathBuf, Footprint)>,
    process: Child,
    arena: &'a Arena,
    /// A daemon's domain, network and pool, the last two of them active: their name, and their XML.
    objects: Option<(String, String)>,
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
        let objects = (arena.kind() != Kind::Embedded).then(|| define(arena, identifier));
        Self {
            folders: folders.into(),
            process,
            arena,
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
        if let Some((name, before)) = &self.objects {
            match described(self.arena, name) {
                Ok(now) if now == *before => {}
                other => found.push(format!("the decoys {before} are {other:?}")),
            }
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
        if let Some((name, _)) = &self.objects {
            let words = format!(
                "net-destroy {name}; net-undefine {name}; pool-destroy {name}; pool-undefine {name}"
            );
            // One that is damaged was reported.
            let _ = told(self.arena, "qemu", &words);
            let _ = told(self.arena, domains(self.arena), &format!("undefine {name}"));
        }
    }
}

/// The driver of the domains there.
fn domains(arena: &Arena) -> &'static str {
    match arena.kind() {
        Kind::Lxc => "lxc",
        Kind::Embedded | Kind::System => "qemu",
    }
}

/// What virsh says to these commands of its own, with the arena's daemon.
fn told(arena: &Arena, driver: &str, commands: &str) -> Result<String, String> {
    let daemon = arena.daemon().expect("decoys are a daemon's");
    let uri = match driver {
        "lxc" => daemon.lxc_uri(),
        _ => daemon.uri(),
    };
    let mut virsh = daemon.inside("virsh");
    let output = virsh.args(["-q", "-c", &uri, commands]).output();
    let output = output.expect("virsh is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{commands}: {}", text(&output.stderr))),
    }
}

/// The XML of the three, whether they are active, and no sizes of file systems.
fn described(arena: &Arena, name: &str) -> Result<String, String> {
    let domain = told(arena, domains(arena), &format!("dumpxml {name}"))?;
    let words =
        format!("net-dumpxml {name}; net-info {name}; pool-dumpxml {name}; pool-info {name}");
    let rest = told(arena, "qemu", &words)?;
    let sizes = [
        "capacity",
        "allocation",
        "available",
        "Capacity",
        "Allocation",
        "Available",
    ];
    let lines = domain.lines().chain(rest.lines());
    let lines = lines.filter(|line| !sizes.iter().any(|size| line.contains(size)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
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
fn define(arena: &Arena, identifier: &str) -> (String, String) {
    let name = format!("{identifier}-{DECOY}");
    let home = arena.home();
    let (_, last) = identifier.split_at(identifier.len() - 8);
    let folder = home.path(&format!("pool-{name}"));
    std::fs::create_dir(&folder).expect("nobody else has this name");
    let domain = match arena.kind() {
        Kind::Lxc => format!(
            "<domain type='lxc'><name>{name}</name><memory unit='MiB'>16</memory>\
             <os><type>exe</type><init>/bin/true</init></os></domain>"
        ),
        Kind::Embedded | Kind::System => domain(&name),
    };
    let network = network(&name).replace("virbr-strange", &format!("vird-{last}"));
    let pool = pool(&name).replace(&format!("/var/empty-{name}"), &folder.display().to_string());
    let file = |file: &str, xml: String| home.write(file, xml).display().to_string();
    let domain = format!("define {}", file("decoy-domain.xml", domain));
    let rest = format!(
        "net-define {}; net-start {name}; pool-define {}; pool-start {name}",
        file("decoy-network.xml", network),
        file("decoy-pool.xml", pool),
    );
    let made = told(arena, domains(arena), &domain).and_then(|_| told(arena, "qemu", &rest));
    let described = made.and_then(|_| described(arena, &name));
    let described = described.unwrap_or_else(|complaint| panic!("no decoys: {complaint}"));
    (name, described)
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
