//! The devices of a domain that SEE reads and fills in.

use std::path::{Path, PathBuf};

use super::tree::Element;

/// A disk as the XML has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `disk`, `cdrom`, `floppy` or `lun`; libvirt's default is `disk`.
    pub device: String,
    /// The name of the device in the guest, such as `vda`.
    pub target: Option<String>,
    /// The file, where it is one.
    pub source: Option<PathBuf>,
    /// The driver's type, such as `qcow2`.
    pub format: Option<String>,
}

impl Disk {
    pub(super) fn read(element: &Element) -> Self {
        let of = |child, attribute| element.attribute_of(child, attribute).map(str::to_owned);
        Self {
            device: device_of(element).to_owned(),
            target: of("target", "dev"),
            source: of("source", "file").map(PathBuf::from),
            format: of("driver", "type"),
        }
    }
}

pub(super) fn device_of(disk: &Element) -> &str {
    disk.attribute("device").unwrap_or("disk")
}

/// What a disk is made to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSource {
    /// The image, absolute.
    pub file: PathBuf,
    /// Its format. It is always said: a guest that writes a header into a raw image must not
    /// have it believed.
    pub format: String,
    /// The images beneath, nearest first; the chain ends behind the last. libvirt then reads no
    /// header to find out.
    pub backing: Vec<Backing>,
    /// Whether libvirt may change the owner of the image to the emulator's user. `false` writes
    /// a label of the model `dac`, which only a driver with root's rights has.
    pub relabel: bool,
}

/// An image beneath another, which is never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// The image, absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: String,
    /// Whether libvirt may change its owner. `false` writes a label of the model `dac`, which
    /// only a driver with root's rights has.
    pub relabel: bool,
}

impl DiskSource {
    pub(super) fn fill_in(&self, disk: &mut Element) {
        disk.set_attribute("type", "file");
        disk.child_or_insert("driver")
            .set_attribute("type", &self.format);
        if let Some(driver) = disk.child_mut("driver")
            && driver.attribute("name").is_none()
        {
            driver.set_attribute("name", "qemu");
        }
        // A volume's, a device's or a network source's attributes contradict a file.
        disk.remove_children(|child| child.name() == "source" || child.name() == "backingStore");
        disk.append(source(&self.file, self.relabel));
        disk.append(chain(&self.backing));
    }
}

fn source(file: &Path, relabel: bool) -> Element {
    let source = Element::new("source").with("file", file.to_string_lossy());
    if relabel {
        return source;
    }
    source.with_child(keep_owner())
}

/// Keeps libvirt from giving a file to the emulator's user.
pub(super) fn keep_owner() -> Element {
    Element::new("seclabel")
        .with("model", "dac")
        .with("relabel", "no")
}

fn chain(backing: &[Backing]) -> Element {
    match backing.split_first() {
        None => Element::new("backingStore"),
        Some((nearest, rest)) => Element::new("backingStore")
            .with("type", "file")
            .with_child(Element::new("format").with("type", &nearest.format))
            .with_child(source(&nearest.file, nearest.relabel))
            .with_child(chain(rest)),
    }
}

/// A network interface as the XML has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// libvirt's type: `network`, `bridge`, `user`, …
    pub kind: String,
    /// The hardware address, where it is fixed.
    pub mac: Option<String>,
    /// The libvirt network, for an interface of type `network`.
    pub network: Option<String>,
    /// The host's device, once the domain runs.
    pub target: Option<String>,
}

impl Interface {
    pub(super) fn read(element: &Element) -> Self {
        let of = |child, attribute| element.attribute_of(child, attribute).map(str::to_owned);
        Self {
            kind: element.attribute("type").unwrap_or_default().to_owned(),
            mac: of("mac", "address"),
            network: of("source", "network"),
            target: of("target", "dev"),
        }
    }
}
