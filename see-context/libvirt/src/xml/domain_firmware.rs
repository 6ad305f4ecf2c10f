//! The firmware of a domain, and the file in which it keeps its variables.

use std::path::{Path, PathBuf};

use super::domain::DomainXml;
use super::error::XmlError;
use super::tree::Element;

impl DomainXml {
    /// Whether the machine's firmware keeps variables in a file of the host.
    pub fn has_nvram(&self) -> bool {
        let Some(os) = self.root().child("os") else {
            return false;
        };
        let of_loader = |name: &str, value: &str| {
            os.child("loader")
                .is_some_and(|loader| loader.attribute(name).as_deref() == Some(value))
        };
        if of_loader("stateless", "yes") || of_loader("type", "rom") {
            return false;
        }
        os.attribute("firmware").as_deref() == Some("efi")
            || of_loader("type", "pflash")
            || os.child("nvram").is_some()
    }

    /// Removes a file of variables that the firmware does not use: libvirt would change its owner all the same.
    pub fn remove_unused_nvram(&mut self) {
        if !self.has_nvram()
            && let Some(os) = self.root_mut().child_mut("os")
        {
            os.remove_children(|child| child.name() == "nvram");
        }
    }

    /// The file of the firmware's variables that the XML names.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] where it is no plain file with an absolute path.
    pub fn nvram(&self) -> Result<Option<PathBuf>, XmlError> {
        let Some(nvram) = self.root().at(&["os", "nvram"]) else {
            return Ok(None);
        };
        let refused = |problem: &str| XmlError::Conflict {
            position: nvram.position(),
            problem: problem.to_owned(),
        };
        let of = |name| nvram.attribute(name);
        if of("type").is_some_and(|kind| kind != "file")
            || of("format").is_some_and(|format| format != "raw")
        {
            return Err(refused(
                "the firmware's variables have to be a raw file, of which each machine gets a copy",
            ));
        }
        let path = match nvram.child("source") {
            Some(source) => source.attribute("file").map(|file| file.into_owned()),
            None => Some(nvram.text().trim().to_owned()),
        };
        match path.filter(|path| !path.is_empty()).map(PathBuf::from) {
            Some(path) if !path.is_absolute() => Err(refused(
                "the path of the firmware's variables is not absolute",
            )),
            path => Ok(path),
        }
    }

    /// Has the firmware keep its variables in this file. Where that does not exist yet, libvirt makes it
    /// of the template that the XML names, or of the firmware's own.
    pub fn set_nvram(&mut self, file: &Path) {
        let os = self.root_mut().child_or_insert("os");
        let template = os
            .child("nvram")
            .and_then(|nvram| nvram.attribute("template"))
            .map(|template| template.into_owned());
        os.remove_children(|child| child.name() == "nvram");
        let mut nvram = Element::new("nvram");
        if let Some(template) = template {
            nvram = nvram.with("template", template);
        }
        // libvirt wants it behind the loader, and takes the rest in any order.
        os.append(nvram.with_text(file.to_string_lossy()));
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
        if loader.attribute("type").as_deref() != Some("pflash") {
            return Ok(());
        }
        match loader.attribute("readonly").as_deref() {
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
