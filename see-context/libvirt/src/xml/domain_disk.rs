//! Which disk of a domain takes the image, and what becomes of the others.

use std::path::PathBuf;

use super::domain::DomainXml;
use super::domain_device::{DiskSource, device_of, keep_owner};
use super::error::{Position, XmlError};
use super::tree::Element;

/// What a disk's XML holds that is about the image which it was written for.
const OF_ANOTHER_IMAGE: [&str; 9] = [
    "auth",
    "backenddomain",
    "backingStore",
    "encryption",
    "mirror",
    "readonly",
    "shareable",
    "source",
    "transient",
];

/// A disk beside the image's, on which the guest may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherDisk {
    /// The file that the XML names.
    pub file: PathBuf,
    /// The format that the XML says, such as `raw`.
    pub format: Option<String>,
    /// Where the disk stands in the XML.
    pub position: Position,
}

impl DomainXml {
    /// Puts an image into the disk that the guest boots from: among those with `device='disk'`, never a
    /// cdrom or floppy, the one with the lowest `<boot order=…>`; where none has one, the first, or the one
    /// on its bus whose name comes before (`vda` before `vdb`), as libvirt sorts them.
    ///
    /// # Errors
    /// [`XmlError::NoDisk`] when there is none.
    pub fn set_disk(&mut self, source: &DiskSource) -> Result<(), XmlError> {
        let devices = self.devices_element();
        let position = devices.position();
        let index = image_disk(devices).ok_or(XmlError::NoDisk { position })?;
        if let Some(disk) = devices.children_mut().nth(index) {
            source.fill_in(disk);
        }
        Ok(())
    }

    /// Takes everything out of the image's disk that is about another image: where it lies, how it is opened, who
    /// shares it. A domain without such a disk is left as it is; [`Self::set_disk`] tells.
    pub fn clear_image_disk(&mut self) {
        let devices = self.devices_element();
        let index = image_disk(devices);
        if let Some(disk) = index.and_then(|index| devices.children_mut().nth(index)) {
            disk.set_attribute("type", "file");
            for name in ["rawio", "sgio"] {
                disk.remove_attribute(name);
            }
            disk.remove_children(|child| OF_ANOTHER_IMAGE.contains(&child.name()));
        }
    }

    /// The disks beside the image's on which the guest may write, in the XML's order.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] for one that is no file: nothing that is written there could be thrown away.
    pub fn further_disks(&self) -> Result<Vec<FurtherDisk>, XmlError> {
        let Some(devices) = self.root().child("devices") else {
            return Ok(Vec::new());
        };
        further(devices)
            .into_iter()
            .filter_map(|index| devices.children().nth(index))
            .map(read)
            .collect()
    }

    /// Points the disks of [`Self::further_disks`] at these images, in their order.
    pub fn set_further_disks(&mut self, sources: &[DiskSource]) {
        let devices = self.devices_element();
        for (index, source) in further(devices).into_iter().zip(sources) {
            if let Some(disk) = devices.children_mut().nth(index) {
                source.fill_in(disk);
            }
        }
    }

    /// Nobody waits until what the guest writes has reached the host's disk, on the disk of [`Self::set_disk`] and those
    /// of [`Self::further_disks`]: they are for images that are thrown away. One whose cache the XML chooses keeps it.
    pub fn skip_flushes(&mut self) {
        let devices = self.devices_element();
        let disks = further(devices).into_iter().chain(image_disk(devices));
        for index in disks.collect::<Vec<_>>() {
            if let Some(disk) = devices.children_mut().nth(index) {
                let driver = disk.child_or_insert("driver");
                // That way of reading needs a cache of its own.
                let is_native = driver.attribute("io") == Some("native");
                if driver.attribute("cache").is_none() && !is_native {
                    driver.set_attribute("cache", "unsafe");
                }
            }
        }
    }

    /// The images that the guest reads without an overlay, but for raw ones: files of read-only disks and media.
    pub fn shown_images(&self) -> Vec<FurtherDisk> {
        let shown = self.devices("disk").filter(|disk| {
            let is_media = matches!(device_of(disk), "cdrom" | "floppy");
            (is_media || is_read_only(disk))
                && is_file(disk)
                && !matches!(disk.attribute_of("driver", "type"), None | Some("raw"))
        });
        let read = |disk: &Element| FurtherDisk {
            file: disk
                .attribute_of("source", "file")
                .unwrap_or_default()
                .into(),
            format: disk.attribute_of("driver", "type").map(str::to_owned),
            position: disk.position(),
        };
        shown.map(read).collect()
    }

    /// Makes every cdrom and floppy read-only, and with `relabel` false keeps libvirt from changing the
    /// owner of what they and other read-only disks show. Nothing is beneath their files, whatever those say.
    pub fn protect_media(&mut self, relabel: bool) {
        for disk in self.devices_element().children_mut() {
            if disk.name() != "disk" {
                continue;
            }
            let is_media = matches!(device_of(disk), "cdrom" | "floppy");
            if !is_media && !is_read_only(disk) {
                continue;
            }
            if is_media && !is_read_only(disk) {
                disk.append(Element::new("readonly"));
            }
            let kind = disk.attribute("type");
            let is_local = matches!(kind, None | Some("file" | "block" | "volume"));
            if is_file(disk) && disk.child("backingStore").is_none() {
                disk.append(Element::new("backingStore"));
            }
            if let Some(source) = disk.child_mut("source")
                && is_local
                && !relabel
                && source.child("seclabel").is_none()
            {
                source.append(keep_owner());
            }
        }
    }
}

/// The place of the image's disk among the devices.
fn image_disk(devices: &Element) -> Option<usize> {
    let disks = || {
        devices
            .children()
            .enumerate()
            .filter(|(_, child)| child.name() == "disk" && device_of(child) == "disk")
    };
    let ordered = disks()
        .filter_map(|(index, disk)| {
            let order = disk.attribute_of("boot", "order")?;
            Some((order.trim().parse::<u32>().ok()?, index))
        })
        .min();
    if let Some((_, index)) = ordered {
        return Some(index);
    }
    let (first, disk) = disks().next()?;
    let Some((bus, _)) = target(disk) else {
        return Some(first);
    };
    disks()
        .filter_map(|(index, disk)| {
            let (its, name) = target(disk)?;
            (its == bus).then_some((name.len(), name, index))
        })
        .min()
        .map(|(_, _, index)| index)
}

/// `vd` and `a` of `vda`: the bus, and the disk's letters on it.
fn target(disk: &Element) -> Option<(&str, &str)> {
    disk.attribute_of("target", "dev")?.split_at_checked(2)
}

/// The places of the writable disks beside the image's.
fn further(devices: &Element) -> Vec<usize> {
    let image = image_disk(devices);
    let is_further = |index: usize, child: &Element| {
        child.name() == "disk"
            && Some(index) != image
            && matches!(device_of(child), "disk" | "lun")
            && !is_read_only(child)
            && child.child("source").is_some()
    };
    let all = devices.children().enumerate();
    all.filter(|(index, child)| is_further(*index, child))
        .map(|(index, _)| index)
        .collect()
}

/// Whether a disk shows a file; `file` is libvirt's default.
fn is_file(disk: &Element) -> bool {
    let kind = disk.attribute("type");
    kind.unwrap_or("file") == "file" && disk.child("source").is_some()
}

fn is_read_only(disk: &Element) -> bool {
    disk.child("readonly").is_some()
}

fn read(disk: &Element) -> Result<FurtherDisk, XmlError> {
    let position = disk.position();
    let refused = |problem: String| XmlError::Conflict { position, problem };
    let unfit = ["auth", "encryption"]
        .iter()
        .find(|name| disk.child(name).is_some());
    let slices = disk.at(&["source", "slices"]).map(|_| &"slices");
    if let Some(unfit) = unfit.or(slices) {
        return Err(refused(format!(
            "<{unfit}> of a disk that the guest writes to is about a file of which it gets an overlay"
        )));
    }
    let name = disk.attribute_of("target", "dev");
    let name = name.unwrap_or("without a name").escape_debug();
    match disk.attribute_of("source", "file").map(PathBuf::from) {
        Some(file) if is_file(disk) && device_of(disk) == "disk" => {
            if !file.is_absolute() {
                return Err(refused(format!(
                    "the disk {name} shows a file whose path is not absolute"
                )));
            }
            Ok(FurtherDisk {
                file,
                format: disk.attribute_of("driver", "type").map(str::to_owned),
                position,
            })
        }
        _ => Err(refused(format!(
            "the guest would write to what the disk {name} shows: only a file gets an overlay \
             that is thrown away, everything else has to be <readonly/>"
        ))),
    }
}
