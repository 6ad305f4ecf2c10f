//! What format a disk image has: told from its first bytes by this program, not guessed by the
//! emulator, and refused where the image would make the emulator open other files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use see_core::{Error, ErrorKind, Result};

/// The formats that a base image may have. The names are QEMU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Qcow2,
    Raw,
    Vdi,
    Vhdx,
    Vpc,
}

impl Format {
    /// QEMU's name, as in `driver type=` and `qemu-img -F`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
        }
    }
}

/// Formats that are known and not taken: their names, signatures and the signatures' offsets.
const REFUSED: &[(&str, &[u8], usize)] = &[
    ("VMDK", b"KDMV", 0),
    ("VMDK", b"COWD", 0),
    ("VMDK description", b"# Disk DescriptorFile", 0),
    ("QED", b"QED\0", 0),
    ("LUKS", b"LUKS\xba\xbe", 0),
    ("Parallels", b"WithoutFreeSpace", 0),
    ("Parallels", b"WithouFreSpacExt", 0),
    ("cloop", b"#!/bin/sh\n#V2.0 Format", 0),
    ("gzip", b"\x1f\x8b", 0),
    ("xz", b"\xfd7zXZ\0", 0),
    ("bzip2", b"BZh", 0),
    ("Zstandard", b"\x28\xb5\x2f\xfd", 0),
    ("ZIP", b"PK\x03\x04", 0),
    ("7z", b"7z\xbc\xaf\x27\x1c", 0),
    ("OVA (tar)", b"ustar", 257),
];

/// Reads the format from the image's header.
///
/// # Errors
/// When the file cannot be read, is empty, has a format that is not taken, or depends on another
/// file: a backing or data file would let whoever made the image choose what the guest reads.
pub(crate) fn inspect(path: &Path) -> Result<Format> {
    let failed = |error| Error::io("the disk image cannot be read", error).subject(path.display());
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut header = [0_u8; 512];
    let read = read_up_to(&file, &mut header, 0).map_err(failed)?;
    let header = &header[..read];
    if header.is_empty() {
        return Err(refused(path, "the disk image is empty"));
    }
    if header.starts_with(b"QFI\xfb") {
        return qcow2(header).map_err(|error| error.subject(path.display()));
    }
    if header.starts_with(b"vhdxfile") {
        return Ok(Format::Vhdx);
    }
    if header.get(0x40..0x44) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return Ok(Format::Vdi);
    }
    // A fixed VHD has its description at the end alone.
    let mut footer = [0_u8; 8];
    if let Some(start) = length.checked_sub(512) {
        read_up_to(&file, &mut footer, start).map_err(failed)?;
    }
    if header.starts_with(b"conectix") || &footer == b"conectix" {
        return Ok(Format::Vpc);
    }
    for (name, signature, offset) in REFUSED {
        if header.get(*offset..offset + signature.len()) == Some(signature) {
            return Err(refused(
                path,
                format!("the disk image is {name}, which is not taken as it is"),
            )
            .advice(
                "turn it into qcow2, with `qemu-img convert -O qcow2` where that can read it",
            ));
        }
    }
    Ok(Format::Raw)
}

fn qcow2(header: &[u8]) -> Result<Format> {
    let wrong = |message: &'static str| Error::new(ErrorKind::Configuration, message);
    let word = |at: usize| {
        header
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_be_bytes)
    };
    let long = |at: usize| {
        header
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes)
    };
    let (Some(version), Some(backing)) = (word(4), long(8)) else {
        return Err(wrong("the disk image is cut off inside its header"));
    };
    if !(2..=3).contains(&version) {
        return Err(
            wrong("the disk image is qcow2 of an unknown version").advice("known are 2 and 3")
        );
    }
    if backing != 0 {
        return Err(wrong("the disk image depends on a backing file")
            .advice("make it whole with `qemu-img convert -O qcow2`"));
    }
    if version == 3 {
        const EXTERNAL_DATA: u64 = 1 << 2;
        match long(72) {
            None => return Err(wrong("the disk image is cut off inside its header")),
            Some(features) if features & EXTERNAL_DATA != 0 => {
                return Err(wrong("the disk image keeps its data in another file")
                    .advice("make it whole with `qemu-img convert -O qcow2`"));
            }
            Some(_) => {}
        }
    }
    Ok(Format::Qcow2)
}

fn refused(path: &Path, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message).subject(path.display())
}

fn read_up_to(file: &File, into: &mut [u8], start: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], start + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn qemu_img(arguments: &[&str]) {
        let output = Command::new("qemu-img")
            .args(arguments)
            .output()
            .expect("qemu-img is installed");
        assert!(output.status.success(), "{output:?}");
    }

    fn kind(path: &Path) -> String {
        match inspect(path) {
            Ok(format) => format.name().to_owned(),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn the_format_is_the_one_that_the_image_was_made_with() {
        let folder = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw", "vdi", "vhdx", "vpc"] {
            let path = folder.path().join(format);
            qemu_img(&["create", "-q", "-f", format, path.to_str().unwrap(), "8M"]);
            assert_eq!(kind(&path), format);
        }
        let fixed = folder.path().join("fixed");
        let name = fixed.to_str().unwrap();
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "vpc",
            "-o",
            "subformat=fixed",
            name,
            "8M",
        ]);
        assert_eq!(kind(&fixed), "vpc");
    }

    #[test]
    fn an_image_that_needs_another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        qemu_img(&["create", "-q", "-f", "qcow2", &at("base"), "8M"]);
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            &at("base"),
            "-F",
            "qcow2",
            &at("overlay"),
        ]);
        assert_eq!(
            kind(at("overlay").as_ref()),
            "the disk image depends on a backing file"
        );
        let data = format!("data_file={}", at("data"));
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &data,
            &at("outside"),
            "8M",
        ]);
        assert_eq!(
            kind(at("outside").as_ref()),
            "the disk image keeps its data in another file"
        );
    }

    #[test]
    fn what_is_no_image_or_no_known_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        for (bytes, message) in [
            (&b""[..], "the disk image is empty"),
            (
                b"QFI\xfb\0\0",
                "the disk image is cut off inside its header",
            ),
            (
                b"QFI\xfb\0\0\0\x01\0\0\0\0\0\0\0\0",
                "the disk image is qcow2 of an unknown version",
            ),
            (
                b"KDMV",
                "the disk image is VMDK, which is not taken as it is",
            ),
            (
                b"\x1f\x8b\x08",
                "the disk image is gzip, which is not taken as it is",
            ),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(kind(&path), message);
        }
    }
}
