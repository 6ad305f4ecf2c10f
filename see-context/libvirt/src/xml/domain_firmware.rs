//! The firmware of a domain, and the file in which it keeps its variables.

use std::path::{Path, PathBuf};

use super::domain::DomainXml;
use super::error::XmlError;
use super::tree::Element;

/// The files that the XML names for the firmware's variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvramFiles {
    /// The machine's variables: an absolute path.
    pub file: Option<PathBuf>,
    /// What libvirt makes that file of where it does not exist.
    pub template: Option<PathBuf>,
    /// Whether the file is qcow2, as Fedora's firmware has it; raw otherwise.
    pub is_qcow2: bool,
}

/// What the copy for a sandbox keeps of a user's `<nvram>`.
const KEPT: [&str; 3] = ["template", "templateFormat", "format"];

impl DomainXml {
    /// Whether the machine's firmware keeps variables in a file of the host.
    pub fn has_nvram(&self) -> bool {
        let Some(os) = self.root().child("os") else {
            return false;
        };
        let of_loader = |name| os.attribute_of("loader", name);
        if of_loader("stateless") == Some("yes") || of_loader("type") == Some("rom") {
            return false;
        }
        os.attribute("firmware") == Some("efi")
            || of_loader("type") == Some("pflash")
            || os.child("nvram").is_some()
    }

    /// Which of the firmware's files are qcow2: its code, and its variables.
    pub fn qcow2_firmware(&self) -> [bool; 2] {
        let os = self.root().child("os");
        ["loader", "nvram"]
            .map(|name| os.and_then(|os| os.attribute_of(name, "format")) == Some("qcow2"))
    }

    /// Removes a file of variables that the firmware does not use: libvirt would change its owner all the same.
    pub fn remove_unused_nvram(&mut self) {
        if !self.has_nvram()
            && let Some(os) = self.root_mut().child_mut("os")
        {
            os.remove_children(|child| child.name() == "nvram");
        }
    }

    /// The files that the XML names for the firmware's variables.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] where the file has no absolute path, or is no raw or qcow2 file.
    pub fn nvram(&self) -> Result<NvramFiles, XmlError> {
        let Some(nvram) = self.root().at(&["os", "nvram"]) else {
            return Ok(NvramFiles::default());
        };
        let refused = |problem: &str| XmlError::Conflict {
            position: nvram.position(),
            problem: problem.to_owned(),
        };
        let of = |name| nvram.attribute(name);
        let format = of("format");
        if of("type").is_some_and(|kind| kind != "file")
            || format.is_some_and(|format| !["raw", "qcow2"].contains(&format))
        {
            return Err(refused(
                "the firmware's variables have to be a raw or qcow2 file, of which each machine gets a copy",
            ));
        }
        let file = match nvram.child("source") {
            Some(source) => source.attribute("file").map(str::to_owned),
            None => Some(nvram.text().trim().to_owned()),
        };
        let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
        if file.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(refused(
                "the path of the firmware's variables is not absolute",
            ));
        }
        Ok(NvramFiles {
            file,
            template: of("template").map(PathBuf::from),
            is_qcow2: format == Some("qcow2"),
        })
    }

    /// Has the firmware keep its variables in this file, in the format that the XML names. Where the file does not
    /// exist yet, libvirt makes it of the template that the XML names, or of the firmware's own.
    pub fn set_nvram(&mut self, file: &Path) {
        let os = self.root_mut().child_or_insert("os");
        let mut own = Element::new("nvram");
        if let Some(users) = os.child("nvram") {
            for name in KEPT {
                if let Some(value) = users.attribute(name) {
                    own = own.with(name, value);
                }
            }
        }
        os.remove_children(|child| child.name() == "nvram");
        // libvirt wants it behind the loader, and takes the rest in any order.
        os.append(own.with_text(file.to_string_lossy()));
    }

    /// Has the guest find the firmware's code read-only.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] where the XML lets the guest write it.
    pub fn protect_loader(&mut self) -> Result<(), XmlError> {
        let Some(loader) = self
            .root_mut()
            .child_mut("os")
            .and_then(|os| os.child_mut("loader"))
        else {
            return Ok(());
        };
        if loader.attribute("type") != Some("pflash") {
            return Ok(());
        }
        match loader.attribute("readonly") {
            Some("yes") => Ok(()),
            None => {
                // QEMU would open it for writing.
                loader.set_attribute("readonly", "yes");
                Ok(())
            }
            Some(_) => Err(XmlError::Conflict {
                position: loader.position(),
                problem: "the guest would write to the firmware's own file: the loader has to be \
                          readonly='yes'"
                    .to_owned(),
            }),
        }
    }
}
