//! Machines of libvirt as the conformance suite meets them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use see_context::Native;
use see_core::ledger::Resource;
use see_core::testing::conformance::{Candidate, GuestAct, Report, Stranger, Verdict};
use see_core::{Error, ErrorKind, Identifier, Registries, Result};
use see_libvirt::Domain;
use serde_json::{Value, json};

use crate::{Home, emulator, guest, remains, virsh};

/// How long the kernel and the daemon may take to let go of what has ended.
const LETS_GO: Duration = Duration::from_secs(10);

/// A machine with the device by which a guest tells that it crashed.
const DOMAIN: &str = "<domain type='qemu'><name>conformance</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>\
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk><controller type='usb' model='none'/>\
    <video><model type='vga'/></video><memballoon model='none'/><panic model='isa'/></devices></domain>";

/// libvirt's driver for containers.
const CONTAINERS: &str = "lxc:///system";
/// A container as a user writes it.
const CONTAINER: &str = "<domain type='lxc'><memory unit='MiB'>64</memory>\
    <os><type>exe</type><init>/etc/container</init></os><devices>\
    <filesystem type='mount'><source dir='ROOT'/><target dir='/'/></filesystem></devices></domain>";

/// A backend with an empty disk, in a home of its own.
#[derive(Debug)]
pub struct Machine {
    home: Home,
    context: Value,
    malformed: Vec<Value>,
    /// The daemon by which strangers are made and guests are moved; the embedded driver has none.
    daemon: Option<&'static str>,
}

impl Machine {
    /// The context is made of the path of an empty disk.
    pub fn new(daemon: Option<&'static str>, context: impl FnOnce(&Path) -> Value) -> Self {
        let home = Home::passable();
        let image = home.path("base.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&image)
            .arg("64M")
            .status()
            .expect("qemu-img is installed");
        assert!(made.success());
        Self {
            context: context(&image),
            malformed: Vec::new(),
            daemon,
            home,
        }
    }

    /// The same with a domain in which the guest can crash.
    pub fn crashing(mut self) -> Self {
        let domain = self.home.write("domain.xml", DOMAIN);
        self.context["domain"] = json!({ "configuration": domain });
        let keys = self.context.as_object_mut().expect("a section");
        keys.remove("memory");
        self
    }

    /// The same with a section that is malformed in a way of its own: `key` has this value.
    pub fn malformed(mut self, key: &str, value: Value) -> Self {
        let mut section = self.context.clone();
        section[key] = value;
        self.malformed.push(section);
        self
    }

    /// A container whose first process does what the small one's does.
    pub fn container() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the tests of containers need root: run `sudo -E cargo xtask test`"
        );
        let root = guest("container");
        let domain = CONTAINER.replace("ROOT", &root.to_string_lossy());
        let home = Home::passable();
        let domain = home.write("container.xml", domain);
        Self {
            context: json!({
                "hypervisor": CONTAINERS,
                "backend": "lxc",
                "domain": { "configuration": domain },
                "agent": { "transport": "none" },
            }),
            malformed: Vec::new(),
            daemon: Some(CONTAINERS),
            home,
        }
    }

    fn is_container(&self) -> bool {
        self.daemon == Some(CONTAINERS)
    }

    /// Sends a container's first process a signal, as soon as it takes that. libvirt's own order would need libvirt
    /// to have heard of the process, which on a busy host it may never.
    async fn signal_first(&self, name: &str, signal: Signal) -> Option<Result<()>> {
        let controller = match self.virsh(&["domid", name])? {
            Ok(controller) => controller,
            Err(error) => return Some(Err(error)),
        };
        let end = Instant::now() + LETS_GO;
        loop {
            if let Some(first) = first_process(controller.trim(), signal) {
                let sent = kill_process(first, signal);
                let failed = |error: Errno| Error::io("the container gets no signal", error.into());
                return Some(sent.map_err(failed));
            }
            if Instant::now() >= end {
                let message = "the container's first process does not take the signal";
                return Some(Err(Error::new(ErrorKind::Timeout, message)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn virsh(&self, arguments: &[&str]) -> Option<Result<String>> {
        let told = virsh(self.daemon?, arguments.iter().copied());
        Some(told.map_err(|message| Error::new(ErrorKind::Hypervisor, message)))
    }
}

/// A container's first process, its controller's child, once it takes this signal: the kernel throws away what that
/// process does not handle.
fn first_process(controller: &str, signal: Signal) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").expect("/proc is there");
    processes.flatten().find_map(|process| {
        // It may end while it is looked at.
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.map(str::trim)
        };
        let handled = u64::from_str_radix(field("SigCgt:")?, 16).ok()?;
        let takes = signal == Signal::KILL || handled & (1 << (signal.as_raw() - 1)) != 0;
        let is_first = field("PPid:")? == controller && takes;
        let pid = process.file_name().to_str()?.parse().ok()?;
        is_first.then(|| Pid::from_raw(pid))?
    })
}

/// Has QEMU's human monitor do this, as its user would.
///
/// # Errors
/// Those of [`Domain::qmp`].
pub async fn monitor(domain: &Domain, line: &str) -> Result<(), see_libvirt::Error> {
    let arguments = json!({ "command-line": line });
    let command = json!({ "execute": "human-monitor-command", "arguments": arguments });
    domain.qmp(&command.to_string()).await.map(drop)
}

/// Writes what ACPI's "soft off" is into its register, until it is off: the firmware chooses where that register
/// is only a while after the start.
async fn power_off(domain: &Domain) -> Result<()> {
    let end = Instant::now() + LETS_GO;
    loop {
        // An answer may be lost with the machine, which libvirt then takes for running a while longer.
        let told = monitor(domain, "o /h 0x604 0x2000").await;
        if !domain.is_active().await.unwrap_or(false) {
            return Ok(());
        }
        if Instant::now() >= end {
            told.map_err(refused)?;
            return Err(Error::timeout("the firmware", LETS_GO));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn refused(error: see_libvirt::Error) -> Error {
    Error::new(ErrorKind::Hypervisor, error.to_string())
}

#[async_trait]
impl Candidate for Machine {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        see_context::register(&mut registries)?;
        Ok(registries)
    }

    fn context(&self) -> Value {
        self.context.clone()
    }

    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        let end = Instant::now() + LETS_GO;
        loop {
            let mut found = remains(&identifier.to_string());
            found.retain(|line| !line.contains("see-conformance"));
            if found.is_empty() || Instant::now() >= end {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn malformed(&self) -> Vec<Value> {
        self.malformed.clone()
    }

    async fn provoke(&self, machine: &see_core::Machine, act: GuestAct) -> Option<Result<()>> {
        let name = machine.identifier().to_string();
        if self.is_container() {
            let signal = match act {
                GuestAct::Poweroff => Signal::TERM,
                GuestAct::Reboot => Signal::HUP,
                // A container has no kernel that could.
                GuestAct::Crash => return None,
            };
            return self.signal_first(&name, signal).await;
        }
        // Without an operating system nobody writes to the machine's ports but the monitor, in its place.
        let native = machine.native()?.downcast_ref::<Native>()?;
        let write = match act {
            GuestAct::Poweroff => return Some(power_off(&native.domain).await),
            GuestAct::Crash => "o /b 0x505 1",
            GuestAct::Reboot => "o /b 0xcf9 6",
        };
        let told = monitor(&native.domain, write).await;
        Some(told.map_err(refused))
    }

    async fn kill(&self, machine: &see_core::Machine) -> Option<Result<()>> {
        let name = machine.identifier().to_string();
        if self.is_container() {
            return self.signal_first(&name, Signal::KILL).await;
        }
        let pid = emulator(&name)?;
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let killed = kill_process(pid, Signal::KILL);
        Some(killed.map_err(|error| Error::io("the emulator cannot be killed", error.into())))
    }

    async fn plant(&self, resource: &Resource) -> Option<Result<Box<dyn Stranger>>> {
        let (kind, define, xml) = match &*resource.kind {
            "libvirt.domain" if self.is_container() => {
                let xml = "<domain type='lxc'><name>NAME</name><memory>65536</memory>\
                    <os><type>exe</type><init>/sbin/init</init></os></domain>";
                (Kind::Domain, "define", xml)
            }
            "libvirt.domain" => {
                let xml = "<domain type='qemu'><name>NAME</name><memory>65536</memory>\
                    <os><type arch='x86_64'>hvm</type></os></domain>";
                (Kind::Domain, "define", xml)
            }
            "libvirt.pool" => {
                // With the sandbox's UUID as well: libvirt would take it for the sandbox's.
                let xml = "<pool type='dir'><name>NAME</name><uuid>NAME</uuid>\
                    <target><path>/a/strangers</path></target></pool>";
                (Kind::Pool, "pool-define", xml)
            }
            "libvirt.network" => {
                let xml = "<network><name>NAME</name></network>";
                (Kind::Network, "net-define", xml)
            }
            _ => return None,
        };
        let daemon = self.daemon?;
        let file = self
            .home
            .write("stranger.xml", xml.replace("NAME", &resource.name));
        let made = self.virsh(&[define, file.to_str()?])?;
        let planted = made.and_then(|_| {
            let stranger = Defined {
                daemon,
                kind,
                name: resource.name.clone(),
                uuid: String::new(),
            };
            let uuid = stranger.uuid()?;
            Ok(Defined { uuid, ..stranger })
        });
        Some(planted.map(|stranger| Box::new(stranger) as Box<dyn Stranger>))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Domain,
    Network,
    Pool,
}

/// A domain, network or pool that is defined and not ours.
struct Defined {
    daemon: &'static str,
    kind: Kind,
    name: String,
    uuid: String,
}

impl Defined {
    /// Runs the command that this word makes for its kind.
    fn virsh(&self, word: &str) -> Result<String> {
        let prefix = match (self.kind, word) {
            (Kind::Domain, "uuid") => "dom",
            (Kind::Domain, _) => "",
            (Kind::Network, _) => "net-",
            (Kind::Pool, _) => "pool-",
        };
        let command = format!("{prefix}{word}");
        let told = virsh(self.daemon, [&*command, &self.name]);
        told.map(|text| text.trim().to_owned())
            .map_err(|message| Error::new(ErrorKind::Hypervisor, message))
    }

    fn uuid(&self) -> Result<String> {
        self.virsh("uuid")
    }
}

#[async_trait]
impl Stranger for Defined {
    async fn harm(&self) -> Option<String> {
        if matches!(self.kind, Kind::Pool) {
            let xml = self.virsh("dumpxml").unwrap_or_default();
            let info = self.virsh("info").unwrap_or_default();
            let is_same = xml.contains("/a/strangers") && info.contains("inactive");
            return (!is_same).then(|| format!("the pool is now {info} {xml}"));
        }
        match self.uuid() {
            Ok(uuid) if uuid == self.uuid => None,
            found => Some(format!("it was {}, and now it is {found:?}", self.uuid)),
        }
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        self.virsh("undefine").map(drop)
    }
}

/// Fails unless the suite passed, and these checks were really tried.
pub fn assert_shown(report: &Report, checks: &[&str]) {
    report.assert_passed();
    for check in checks {
        let verdict = report.verdict(check);
        assert!(
            matches!(verdict, Some(Verdict::Passed(_))),
            "{check} was not shown:\n{report}"
        );
    }
}

/// Fails unless strangers of these kinds were there before a sandbox of the same name.
pub fn assert_planted(report: &Report, kinds: &[&str]) {
    let verdict = report.verdict("dirty-names");
    let Some(Verdict::Passed(told)) = verdict else {
        panic!("no stranger was met: {verdict:?}");
    };
    let (planted, _) = told.split_once(';').unwrap_or((told, ""));
    for kind in kinds {
        let was = planted.split(", ").any(|planted| planted == *kind);
        assert!(was, "no {kind} was planted: {told}");
    }
}

/// Fails unless the guest switched itself off, crashed and restarted.
pub fn assert_provoked(report: &Report) {
    let verdict = report.verdict("guest-power");
    let Some(Verdict::Passed(told)) = verdict else {
        panic!("no guest did anything by itself: {verdict:?}");
    };
    for event in ["guest_poweroff", "guest_crash", "guest_reboot"] {
        assert!(told.contains(event), "{event} was not shown: {told}");
    }
}
