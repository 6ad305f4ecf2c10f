//! The files of the host that a machine boots from without a disk.

use std::path::{Path, PathBuf};

use super::domain::DomainXml;
use super::error::XmlError;
use super::tree::Element;

/// One of those files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootFile {
    /// A kernel.
    Kernel,
    /// Its first file system.
    Initrd,
    /// The description of its devices.
    DeviceTree,
    /// A table for its firmware.
    AcpiTable,
}

impl BootFile {
    const ALL: [Self; 4] = [
        Self::Kernel,
        Self::Initrd,
        Self::DeviceTree,
        Self::AcpiTable,
    ];

    /// A name for a file of its kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::DeviceTree => "dtb",
            Self::AcpiTable => "table",
        }
    }

    /// The elements beneath `<os>` down to the one with the path.
    fn path(self) -> &'static [&'static str] {
        match self {
            Self::AcpiTable => &["acpi", "table"],
            Self::Kernel => &["kernel"],
            Self::Initrd => &["initrd"],
            Self::DeviceTree => &["dtb"],
        }
    }
}

impl DomainXml {
    /// The files that the machine boots from.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] where one has no absolute path.
    pub fn boot_files(&self) -> Result<Vec<(BootFile, PathBuf)>, XmlError> {
        let Some(os) = self.root().child("os") else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for which in BootFile::ALL {
            let Some(element) = os.at(which.path()) else {
                continue;
            };
            let path = PathBuf::from(element.text().trim());
            if !path.is_absolute() {
                return Err(XmlError::Conflict {
                    position: element.position(),
                    problem: format!("the path of the {} is not absolute", which.name()),
                });
            }
            found.push((which, path));
        }
        Ok(found)
    }

    /// Has the machine boot from this file instead of the one that the XML names.
    pub fn set_boot_file(&mut self, which: BootFile, file: &Path) {
        let os = self.root_mut().child_mut("os");
        let element = which
            .path()
            .iter()
            .try_fold(os, |parent, name| Some(parent?.child_mut(name)))
            .flatten();
        if let Some(element) = element {
            Element::set_text(element, file.to_string_lossy());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_a_machine_boots_from_are_found_and_replaced() {
        let text = "<domain><os><!-- mine --><kernel>/boot/k&amp;1</kernel><initrd> /boot/i </initrd>\
                    <cmdline>quiet</cmdline><acpi><table type='slic'>/slic</table></acpi></os><devices/></domain>";
        let mut domain = DomainXml::parse(text).unwrap();
        let found = domain.boot_files().unwrap();
        let expected = [
            (BootFile::Kernel, PathBuf::from("/boot/k&1")),
            (BootFile::Initrd, "/boot/i".into()),
            (BootFile::AcpiTable, "/slic".into()),
        ];
        assert_eq!(found, expected);
        for (which, _) in found {
            domain.set_boot_file(which, Path::new(&format!("/run/{}", which.name())));
        }
        // It has none, and gets none.
        domain.set_boot_file(BootFile::DeviceTree, Path::new("/run/dtb"));
        assert_eq!(
            domain.to_string(),
            "<domain><os><kernel>/run/kernel</kernel><initrd>/run/initrd</initrd>\
             <cmdline>quiet</cmdline><acpi><table type='slic'>/run/table</table></acpi></os><devices/></domain>"
        );
    }

    #[test]
    fn a_file_to_boot_from_has_an_absolute_path() {
        let domain =
            DomainXml::parse("<domain><os><kernel>vmlinuz</kernel></os><devices/></domain>");
        let error = domain.unwrap().boot_files().unwrap_err().to_string();
        assert!(error.contains("kernel is not absolute"), "{error}");
    }
}
