use std::path::Path;
use std::process::Command;

use super::*;

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("qemu-img is installed");
    assert!(output.status.success(), "{output:?}");
}

fn told(path: &Path) -> String {
    match format_of(&File::open(path).unwrap()) {
        Ok(format) => format.to_owned(),
        Err(error) => error.to_string(),
    }
}

fn told_of(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    told(file.path())
}

#[test]
fn the_format_of_an_image_is_the_one_it_was_made_with() {
    let folder = tempfile::tempdir().unwrap();
    for (format, options) in [
        ("qcow2", ""),
        ("qcow2", "compat=0.10"),
        ("raw", ""),
        ("qed", ""),
        ("vdi", ""),
        ("vhdx", ""),
        ("vpc", ""),
        ("vpc", "subformat=fixed"),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("parallels", ""),
    ] {
        let path = folder.path().join("image");
        let _ = std::fs::remove_file(&path);
        let name = path.to_str().unwrap();
        let mut arguments = vec!["create", "-q", "-f", format];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        arguments.extend([name, "8M"]);
        qemu_img(&arguments);
        assert_eq!(told(&path), format, "{format} {options}");
    }
}

#[test]
fn an_image_that_points_outside_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    qemu_img(&["create", "-q", "-f", "qcow2", &at("base"), "8M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", &at("base.vmdk"), "8M"]);
    let data = format!("data_file={}", at("data"));
    let arguments: [(&str, &str, Vec<&str>); 6] = [
        (
            "backed",
            "a backing file",
            vec!["-f", "qcow2", "-b", "base", "-F", "qcow2"],
        ),
        (
            "qed",
            "a backing file",
            vec!["-f", "qed", "-b", "base", "-F", "qcow2"],
        ),
        (
            "data",
            "an external data file",
            vec!["-f", "qcow2", "-o", &data],
        ),
        (
            "flat",
            "VMDK description",
            vec!["-f", "vmdk", "-o", "subformat=monolithicFlat"],
        ),
        (
            "split",
            "VMDK description",
            vec!["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
        ),
        (
            "delta",
            "VMDK description",
            vec!["-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk"],
        ),
    ];
    for (name, what, arguments) in arguments {
        let name = format!("{name}.image");
        let target = at(&name);
        let mut all = vec!["create", "-q"];
        all.extend(arguments);
        all.push(&target);
        all.push("8M");
        let output = Command::new("qemu-img")
            .args(&all)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let told = told(target.as_ref());
        assert!(told.contains("is not whole"), "{name}: {told}");
        assert!(told.contains(what), "{name}: {told}");
    }
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
        qemu_img(&["create", "-q", "-f", format, name, "8M"]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[change.0] = change.1;
        let told = told_of(&bytes);
        assert!(told.contains("differencing"), "{format} {change:?}: {told}");
    }
    let _ = std::fs::remove_file(&path);
    qemu_img(&["create", "-q", "-f", "vhdx", name, "8M"]);
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
        b"KDMV",
        b"vhdxfile",
        b"QED\0",
        b"conectix\0",
    ] {
        let told = told_of(bytes);
        assert!(told.contains("the image"), "{bytes:?}: {told}");
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
    let mut vmdk = vec![0; 1024];
    vmdk[..4].copy_from_slice(b"KDMV");
    vmdk[12] = 1;
    vmdk[28..44].fill(0xff);
    assert!(told_of(&vmdk).contains("at most"));
}

#[test]
fn a_parent_that_qemu_would_find_in_a_vmdk_is_found_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    qemu_img(&["create", "-q", "-f", "vmdk", path.to_str().unwrap(), "8M"]);
    let plain = std::fs::read(&path).unwrap();
    assert_eq!(told_of(&plain), "vmdk");
    let (begin, length) = (512, 20 * 512);
    let comment = b"# The Disk Data Base";
    let at = plain
        .windows(comment.len())
        .position(|here| here == comment);
    for hint in [&b"#parentFileNameHint="[..], b"#PARENTfilenamehint="] {
        let mut bytes = plain.clone();
        bytes[at.unwrap()..][..hint.len()].copy_from_slice(hint);
        let told = told_of(&bytes);
        assert!(told.contains("a parent, by"), "{told}");
        // The header may lead elsewhere, where nothing is said of it.
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let sector = bytes.len() as u64 / 512;
        bytes[28..36].copy_from_slice(&sector.to_le_bytes());
        bytes.extend_from_slice(&plain[begin..][..length]);
        let told = told_of(&bytes);
        assert!(told.contains("a parent, by"), "{told}");
    }
}
