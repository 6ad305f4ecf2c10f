//! What names one machine alone becomes the sandbox's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use see_libvirt::xml::{DomainXml, Element};

/// The devices that carry lines of text.
const LINES: [&str; 4] = ["serial", "console", "parallel", "channel"];
/// How the programs are named that run machines.
const EMULATORS: [&str; 4] = ["qemu-system-", "qemu-kvm", "kvm", "libvirt_lxc"];

/// Before the table is asked: what the sandbox replaces is not looked at.
pub(super) fn prepare(domain: &mut DomainXml) {
    domain.clear_image_disk();
}

/// Once the table has admitted the domain: files become the sandbox's own, screens listen on loopback, sockets
/// and addresses are chosen anew.
pub(super) fn settle(domain: &mut DomainXml, is_here: bool) {
    let root = domain.root_mut();
    if let Some(genid) = root.child_mut("genid") {
        // Without a value libvirt makes one.
        genid.set_text("");
    }
    let Some(devices) = root.child_mut("devices") else {
        return;
    };
    if let Some(named) = devices.child_mut("emulator") {
        match emulator(named.text().trim(), is_here) {
            Some(program) => named.set_text(program),
            None => {
                tracing::warn!(
                    "<emulator> is taken out of the domain: it is no emulator that this host's \
                     administrator installed; libvirt chooses one"
                );
                devices.remove_children(|device| device.name() == "emulator");
            }
        }
    }
    for device in devices.children_mut() {
        let kind = device.attribute("type").map(str::to_owned);
        match (device.name(), kind.as_deref()) {
            ("graphics", Some("vnc" | "spice" | "rdp")) => listen_on_loopback(device),
            ("channel", Some("unix")) if is_bound(device) => {
                device.remove_children(|child| child.name() == "source");
            }
            // What the guest says on the first line is kept in a file of the sandbox's own.
            (name, Some("file")) if LINES.contains(&name) => nobody_listens(device),
            ("serial" | "console" | "parallel", Some("unix")) if is_bound(device) => {
                nobody_listens(device);
            }
            ("tpm", _) => forget_state(device),
            ("vsock", _) => choose_cid(device),
            _ => {}
        }
    }
}

/// The program that libvirt may run as the machine: one of the usual names, which nobody but root can replace, by
/// the path behind all links.
fn emulator(program: &str, is_here: bool) -> Option<String> {
    let path = Path::new(program);
    let real = match is_here {
        true => path.canonicalize().ok()?,
        // On another host nothing can be looked at.
        false => path.to_owned(),
    };
    let is_plain = real.components().all(|part| part != Component::ParentDir);
    let name = real.file_name()?.to_str()?;
    let is_known = EMULATORS.iter().any(|known| name.starts_with(known));
    let is_roots = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0)
    };
    let is_safe = match is_here {
        true => real.ancestors().all(is_roots),
        false => real.starts_with("/usr") && is_plain,
    };
    (path.is_absolute() && is_known && is_safe).then(|| real.to_string_lossy().into_owned())
}

fn is_bound(channel: &Element) -> bool {
    channel.attribute_of("source", "mode") == Some("bind")
}

/// Has the screens listen on this address and port, as the run file says; a machine without one gets a VNC
/// screen. Without a port libvirt chooses one.
pub(crate) fn listen(domain: &mut DomainXml, address: &str, port: Option<u16>) {
    let is_screen = |device: &Element| {
        device.name() == "graphics"
            && matches!(device.attribute("type"), Some("vnc" | "spice" | "rdp"))
    };
    if !domain.devices("graphics").any(is_screen) {
        domain.add_device(Element::new("graphics").with("type", "vnc"));
    }
    let devices = domain.root_mut().child_or_insert("devices");
    for screen in devices.children_mut().filter(|device| is_screen(device)) {
        listen_on_loopback(screen);
        screen.set_attribute("listen", address);
        if let Some(port) = port {
            screen.set_attribute("autoport", "no");
            screen.set_attribute("port", port.to_string());
        }
    }
}

/// Each machine gets a port of its own, which only this host reaches.
fn listen_on_loopback(graphics: &mut Element) {
    // A channel that has to be secure asks for a second port, with certificates that the host may not have.
    for name in ["port", "tlsPort", "socket", "defaultMode"] {
        graphics.remove_attribute(name);
    }
    graphics.remove_children(|child| child.name() == "channel");
    if graphics.attribute("websocket").is_some() {
        graphics.set_attribute("websocket", "-1");
    }
    graphics.set_attribute("autoport", "yes");
    graphics.set_attribute("listen", "127.0.0.1");
}

fn nobody_listens(line: &mut Element) {
    line.set_attribute("type", "null");
    line.remove_children(|child| matches!(child.name(), "source" | "protocol"));
}

fn forget_state(tpm: &mut Element) {
    if let Some(backend) = tpm.child_mut("backend")
        && backend.attribute("persistent_state").is_some()
    {
        backend.set_attribute("persistent_state", "no");
    }
}

fn choose_cid(vsock: &mut Element) {
    if let Some(cid) = vsock.child_mut("cid") {
        cid.remove_attribute("address");
        cid.set_attribute("auto", "yes");
    }
}
