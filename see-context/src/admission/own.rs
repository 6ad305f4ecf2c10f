//! What names one machine alone becomes the sandbox's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
    let removed = devices.remove_children(|device| {
        device.name() == "emulator" && !is_emulator(device.text().trim(), is_here)
    });
    if removed > 0 {
        tracing::warn!(
            "<emulator> is taken out of the domain: it is no emulator that this host's administrator \
             installed; libvirt chooses one"
        );
    }
    for device in devices.children_mut() {
        let kind = device.attribute("type").map(|kind| kind.into_owned());
        match (device.name(), kind.as_deref()) {
            ("graphics", Some("vnc" | "spice")) => listen_on_loopback(device),
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

/// Whether libvirt may run this program as the machine: one of the usual names, which nobody but root can replace.
fn is_emulator(program: &str, is_here: bool) -> bool {
    let path = Path::new(program);
    let name = path.file_name().and_then(|name| name.to_str());
    let is_known = name.is_some_and(|name| EMULATORS.iter().any(|known| name.starts_with(known)));
    if !is_known || !path.is_absolute() {
        return false;
    }
    if !is_here {
        return path.starts_with("/usr");
    }
    let Ok(real) = path.canonicalize() else {
        return false;
    };
    real.ancestors().all(|path| {
        fs::metadata(path).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0)
    })
}

fn is_bound(channel: &Element) -> bool {
    channel
        .child("source")
        .is_some_and(|source| source.attribute("mode").as_deref() == Some("bind"))
}

/// Has the screens listen on this address and port, as the run file says; a machine without one gets a VNC
/// screen. Without a port libvirt chooses one.
pub(crate) fn listen(domain: &mut DomainXml, address: &str, port: Option<u16>) {
    let is_screen = |device: &Element| {
        device.name() == "graphics"
            && matches!(device.attribute("type").as_deref(), Some("vnc" | "spice"))
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
    for name in ["port", "tlsPort", "socket"] {
        graphics.remove_attribute(name);
    }
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
