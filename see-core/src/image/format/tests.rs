use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

fn qemu_img(folder: &Path, arguments: &[&str]) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("qemu-img is installed");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn told(path: &Path) -> String {
    match ImageFormat::of(&File::open(path).unwrap()) {
        Ok(format) => format.name().to_owned(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            assert!(error.advice_text().is_some(), "what to do? {error}");
            error.to_string()
        }
    }
}

fn told_of(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    told(file.path())
}

/// An image with data in it up to its end, made so.
fn made(folder: &Path, format: &str, options: &str) -> PathBuf {
    let raw = folder.join("content");
    let mut content = vec![0_u8; 4 << 20];
    // Not everything, and nothing that can be compressed.
    let mut number = 1_u32;
    for byte in content[1 << 20..3 << 20].iter_mut() {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (number >> 24) as u8;
    }
    std::fs::write(&raw, content).unwrap();
    let path = folder.join("image");
    let _ = std::fs::remove_file(&path);
    let mut arguments = vec!["convert", "-q", "-f", "raw", "-O", format];
    for option in options.split_whitespace() {
        match option {
            "-c" => arguments.push(option),
            option => arguments.extend(["-o", option]),
        }
    }
    arguments.extend(["content", "image"]);
    qemu_img(folder, &arguments);
    path
}

const MADE: [(&str, &str); 15] = [
    ("qcow2", ""),
    ("qcow2", "-c"),
    ("qcow2", "-c compression_type=zstd"),
    ("qcow2", "compat=0.10"),
    ("qcow2", "cluster_size=512"),
    ("qcow2", "cluster_size=2M"),
    ("qcow2", "extended_l2=on"),
    ("qcow2", "refcount_bits=1"),
    ("qcow2", "refcount_bits=64"),
    ("qcow2", "preallocation=metadata"),
    ("raw", ""),
    ("vdi", ""),
    ("vhdx", ""),
    ("vpc", ""),
    ("vpc", "subformat=fixed"),
];

#[test]
fn the_format_is_the_one_that_the_image_was_made_with() {
    let folder = tempfile::tempdir().unwrap();
    for (format, options) in MADE {
        let path = made(folder.path(), format, options);
        assert_eq!(told(&path), format, "{format} {options}");
        let empty = format!("{format}-empty");
        let mut arguments = vec!["create", "-q", "-f", format];
        for option in options.split_whitespace().filter(|option| *option != "-c") {
            arguments.extend(["-o", option]);
        }
        arguments.extend([&*empty, "8M"]);
        qemu_img(folder.path(), &arguments);
        assert_eq!(
            told(&folder.path().join(&empty)),
            format,
            "empty {format} {options}"
        );
    }
    let path = made(folder.path(), "qcow2", "");
    qemu_img(folder.path(), &["snapshot", "-c", "one", "image"]);
    qemu_img(folder.path(), &["resize", "-q", "image", "64M"]);
    assert_eq!(told(&path), "qcow2", "with a snapshot, and larger");
}

#[test]
fn an_image_that_is_cut_off_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for (format, options) in MADE {
        // A raw image has no description, and a fixed VHD has it at its end alone.
        if format == "raw" || options.contains("fixed") {
            continue;
        }
        let path = made(folder.path(), format, options);
        let whole = std::fs::read(&path).unwrap();
        for rest in [1_usize, 2, 3] {
            // Preallocated, empty space ends it.
            if options.contains("preallocation") && rest == 3 {
                continue;
            }
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len((whole.len() * rest / 4) as u64).unwrap();
            let told = told(&path);
            assert!(
                told.contains("cut off"),
                "{rest} of 4, {format} {options}: {told}"
            );
            std::fs::write(&path, &whole).unwrap();
        }
    }
}

#[test]
fn an_image_that_depends_on_another_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    qemu_img(at, &["create", "-q", "-f", "qcow2", "base", "8M"]);
    qemu_img(
        at,
        &[
            "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "overlay",
        ],
    );
    let told_backed = told(&at.join("overlay"));
    assert!(
        told_backed.contains("depends on a backing file"),
        "{told_backed}"
    );
    qemu_img(
        at,
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "data_file=data",
            "outside",
            "8M",
        ],
    );
    let told_outside = told(&at.join("outside"));
    assert!(
        told_outside.contains("another file for its data"),
        "{told_outside}"
    );
}

#[test]
fn an_encrypted_image_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let image = at.join("image");
    let secret = "secret,id=key,data=a-passphrase";
    let options = "encrypt.format=aes,encrypt.key-secret=key";
    let arguments = [
        "create", "-q", "--object", secret, "-f", "qcow2", "-o", options, "image", "8M",
    ];
    qemu_img(at, &arguments);
    let made = std::fs::read(&image).unwrap();
    // qemu-img measures the processor before it makes a LUKS header, which fails on a busy host: so the header's
    // number of the encryption (AES 1, LUKS 2) is written by hand, as is LUKS's own header.
    let mut by_luks = made.clone();
    assert_eq!(made[32..36], [0, 0, 0, 1]);
    by_luks[35] = 2;
    let mut luks = vec![0; 8 << 20];
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    for (content, how) in [(made, "AES"), (by_luks, "LUKS"), (luks, "LUKS")] {
        std::fs::write(&image, content).unwrap();
        let told = told(&image);
        assert!(
            told.contains(&format!("is encrypted ({how})")),
            "{how}: {told}"
        );
    }
}

#[test]
fn a_damaged_image_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let plain = std::fs::read(made(folder.path(), "qcow2", "")).unwrap();
    for (at, byte, what) in [
        (79, 2, "marked it as corrupt"),
        (78, 1, "unknown features of qcow2: 0x100"),
        (23, 40, "impossible sizes"),
        (99, 7, "impossible sizes"),
        (36, 0xff, "impossible sizes"),
        (40, 0x7f, "cut off"),
        (48, 0xff, "cut off"),
    ] {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        let told = told_of(&bytes);
        assert!(told.contains(what), "byte {at}: {told}");
    }
}

#[test]
fn an_image_that_was_not_closed_is_told_as_that_and_not_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(made(folder.path(), "qcow2", "")).unwrap();
    bytes[79] = 1;
    let told = told_of(&bytes);
    assert!(
        told.contains("its reference counts were not written"),
        "{told}"
    );
    assert!(!told.contains("damaged"), "{told}");
}

#[test]
fn an_image_that_a_machine_writes_is_told_as_such_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["qcow2", "raw"] {
        let path = made(folder.path(), format, "");
        let mut writer = Command::new("qemu-io")
            .args(["-f", format, "image"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("qemu-io is installed with qemu-img");
        let is_told = || told(&path).contains("open for writing by another program");
        let end = Instant::now() + Duration::from_secs(60);
        while !is_told() && Instant::now() < end {
            std::thread::yield_now();
        }
        let was_told = is_told();
        drop(writer.stdin.take());
        writer.wait().unwrap();
        assert!(was_told, "{format}");
        assert_eq!(told(&path), format, "it is closed");
    }
}

#[test]
fn what_is_known_and_not_taken_is_named() {
    for (bytes, name) in [
        (&b"KDMV"[..], "VMDK"),
        (b"# Disk DescriptorFile\nversion=1\n", "VMDK description"),
        (b"QED\0", "QED"),
        (b"WithoutFreeSpace", "Parallels"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh91AY", "bzip2"),
        (b"PK\x03\x04", "ZIP"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ] {
        let told = told_of(bytes);
        let expected = format!("the disk image is {name}, which is not taken");
        assert!(told.contains(&expected), "{told}");
    }
    let mut archive = vec![0; 512];
    archive[257..262].copy_from_slice(b"ustar");
    assert!(told_of(&archive).contains("OVA (tar)"));
}

#[test]
fn a_differencing_vdi_vhd_or_vhdx_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let name = path.to_str().unwrap();
    for (format, change) in [
        ("vdi", (0x4c_usize, 4_u8)),
        ("vdi", (0x1a8, 1)),
        ("vdi", (0x1b8, 1)),
        ("vpc", (63, 4)),
    ] {
        let _ = std::fs::remove_file(&path);
        qemu_img(folder.path(), &["create", "-q", "-f", format, name, "8M"]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[change.0] = change.1;
        let told = told_of(&bytes);
        assert!(told.contains("differencing"), "{format} {change:?}: {told}");
    }
    let _ = std::fs::remove_file(&path);
    qemu_img(folder.path(), &["create", "-q", "-f", "vhdx", name, "8M"]);
    let mut bytes = std::fs::read(&path).unwrap();
    let identifier = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa];
    let item = bytes
        .windows(6)
        .position(|found| found == identifier)
        .unwrap();
    let offset = u32::from_le_bytes(bytes[item + 16..item + 20].try_into().unwrap());
    let table = bytes
        .windows(8)
        .position(|found| found == b"metadata")
        .unwrap();
    bytes[table + offset as usize + 4] |= 2;
    let told = told_of(&bytes);
    assert!(told.contains("differencing VHDX"), "{told}");
}

#[test]
fn a_page_is_not_an_image_and_its_beginning_is_quoted_harmlessly() {
    for (text, what) in [
        ("\n <!DOCTYPE html><title>404</title>", "found HTML or XML"),
        (
            "\u{feff}<?xml version=\"1.0\"?><Error/>",
            "found HTML or XML",
        ),
        ("{\"error\": {\"code\": 404}}", "found JSON"),
        ("404 page not found\n", "found text"),
    ] {
        let told = told_of(text.as_bytes());
        assert!(told.contains(what), "{told}");
    }
    let long = format!("<html>\r\n\t{}", "é".repeat(400));
    let told = told_of(long.as_bytes());
    assert!(
        told.contains("`<html>\\r\\n\\té") && told.len() < 400,
        "{told}"
    );
    let told = told_of(b"");
    assert!(told.contains("is empty"), "{told}");
}

#[test]
fn a_header_that_lies_or_is_cut_off_is_an_error_and_no_more() {
    for bytes in [
        &b"QFI\xfb\0\0"[..],
        b"QFI\xfb\0\0\0\x09\0\0\0\0\0\0\0\0",
        b"vhdxfile",
        b"conectix\0",
    ] {
        let told = told_of(bytes);
        assert!(told.contains("the disk image"), "{bytes:?}: {told}");
    }
    // Offsets at the end of the numbers.
    let mut vhdx = vec![0; 300 << 10];
    vhdx[..8].copy_from_slice(b"vhdxfile");
    let table = 192 << 10;
    vhdx[table..table + 4].copy_from_slice(b"regi");
    vhdx[table + 8] = 1;
    vhdx[table + 16..table + 32].copy_from_slice(&[
        0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88,
        0x6e,
    ]);
    vhdx[table + 32..table + 40].fill(0xff);
    assert!(told_of(&vhdx).contains("cut off"));
}
