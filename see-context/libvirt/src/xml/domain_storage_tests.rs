//! Which disk takes the image, what becomes of the others, and the firmware's variables.

use std::path::{Path, PathBuf};

use super::*;

fn domain(devices: &str) -> DomainXml {
    DomainXml::parse(&format!("<domain><devices>{devices}</devices></domain>")).unwrap()
}

fn source(file: &str) -> DiskSource {
    DiskSource {
        file: PathBuf::from(file),
        format: "qcow2".to_owned(),
        backing: Vec::new(),
        relabel: true,
    }
}

/// The target of the disk that took the image.
fn takes_image(devices: &str) -> String {
    let mut domain = domain(devices);
    domain.set_disk(&source("/image")).unwrap();
    let taken: Vec<Disk> = domain
        .disks()
        .into_iter()
        .filter(|disk| disk.source.as_deref() == Some(Path::new("/image")))
        .collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
    taken[0].target.clone().unwrap()
}

#[test]
fn the_image_goes_into_the_disk_that_the_guest_boots_from_and_never_into_a_cdrom() {
    let cdrom = "<disk device='cdrom'><target dev='hda'/><boot order='1'/></disk>";
    let (a, b) = (
        "<disk><target dev='vda'/></disk>",
        "<disk device='disk'><target dev='vdb'/></disk>",
    );
    assert_eq!(takes_image(&format!("{cdrom}{a}{b}")), "vda");
    assert_eq!(takes_image(&format!("{b}{cdrom}{a}")), "vda");
    // Another bus may come first in the file, and then does so for the firmware.
    let sata = "<disk><target dev='sdb'/></disk>";
    assert_eq!(takes_image(&format!("{sata}{a}{b}")), "sdb");
    let ordered = "<disk><target dev='vdb'/><boot order='2'/></disk>";
    assert_eq!(takes_image(&format!("{a}{cdrom}{ordered}")), "vdb");
    let far = "<disk><target dev='vdaa'/></disk>";
    assert_eq!(takes_image(&format!("{far}{b}")), "vdb");
}

#[test]
fn further_disks_are_those_that_the_guest_may_write() {
    let text = "<disk type='file'><driver type='raw' cache='none'/><source file='/users/b.img'/>\
                <target dev='vdb'/></disk>\
                <disk type='file'><target dev='vda'/></disk>\
                <disk type='file'><source file='/users/c.img'/><target dev='vdc'/><readonly/></disk>\
                <disk type='block'><source dev='/dev/sdz'/><target dev='vdd'/><readonly/></disk>\
                <disk type='file' device='cdrom'><source file='/users/e.iso'/></disk>\
                <disk type='file'><source file='/users/f.img'/><target dev='vdf'/></disk>";
    let mut domain = domain(text);
    let further = domain.further_disks().unwrap();
    let named: Vec<_> = further
        .iter()
        .map(|disk| (disk.file.to_str().unwrap(), disk.format.as_deref()))
        .collect();
    assert_eq!(
        named,
        [("/users/b.img", Some("raw")), ("/users/f.img", None)]
    );
    domain.set_disk(&source("/run/1")).unwrap();
    domain.set_further_disks(&[source("/run/2"), source("/run/3")]);
    let expected = text
        .replace(
            "<driver type='raw' cache='none'/><source file='/users/b.img'/>\
             <target dev='vdb'/>",
            "<driver type='qcow2' cache='none' name='qemu'/><target dev='vdb'/>\
             <source file='/run/2'/><backingStore/>",
        )
        .replace(
            "<target dev='vda'/>",
            "<target dev='vda'/><driver type='qcow2' name='qemu'/>\
             <source file='/run/1'/><backingStore/>",
        )
        .replace(
            "<source file='/users/f.img'/><target dev='vdf'/>",
            "<target dev='vdf'/><driver type='qcow2' name='qemu'/>\
             <source file='/run/3'/><backingStore/>",
        );
    assert_eq!(
        domain.to_string(),
        format!("<domain><devices>{expected}</devices></domain>")
    );
}

#[test]
fn a_disk_that_gets_no_overlay_and_could_be_written_is_refused() {
    for disk in [
        "<disk type='block'><source dev='/dev/sdz'/><target dev='vdb'/></disk>",
        "<disk type='network'><source protocol='nbd' name='x'/><target dev='vdb'/></disk>",
        "<disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/></disk>",
        "<disk type='file' device='lun'><source file='/x'/><target dev='vdb'/></disk>",
    ] {
        let domain = domain(&format!("<disk><target dev='vda'/></disk>\n{disk}"));
        let error = domain.further_disks().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the disk vdb"), "{text}");
        assert_eq!(error.position().unwrap().line, 2, "{text}");
    }
    let relative = "<disk><target dev='vda'/></disk><disk><source file='x'/></disk>";
    assert!(domain(relative).further_disks().is_err());
}

#[test]
fn media_are_read_only_and_keep_their_owner() {
    let mut domain = domain(
        "<disk type='file' device='floppy'><source file='/a'/></disk>\
         <disk type='file' device='cdrom'><readonly/><source file='/b'/></disk>\
         <disk type='network' device='cdrom'><source protocol='http' name='c'/></disk>\
         <disk type='file'><source file='/d'/><readonly/></disk>\
         <disk type='file'><source file='/e'/></disk>",
    );
    domain.protect_media(false);
    let kept = "<seclabel model='dac' relabel='no'/>";
    assert_eq!(
        domain.to_string(),
        format!(
            "<domain><devices><disk type='file' device='floppy'>\
             <source file='/a'>{kept}</source><readonly/><backingStore/></disk>\
             <disk type='file' device='cdrom'><readonly/><source file='/b'>{kept}</source><backingStore/></disk>\
             <disk type='network' device='cdrom'><source protocol='http' name='c'/><readonly/></disk>\
             <disk type='file'><source file='/d'>{kept}</source><readonly/><backingStore/></disk>\
             <disk type='file'><source file='/e'/></disk></devices></domain>"
        )
    );
}

fn booting(os: &str) -> DomainXml {
    DomainXml::parse(&format!("<domain>{os}<devices/></domain>")).unwrap()
}

#[test]
fn the_variables_of_the_firmware_go_into_a_file_of_the_machine() {
    for (os, users) in [
        ("<os firmware='efi'/>", None),
        ("<os><loader type='pflash'>/f</loader></os>", None),
        ("<os><nvram template='/t'>/v</nvram></os>", Some("/v")),
        ("<os><nvram template='/t'/></os>", None),
        (
            "<os><nvram type='file'><source file='/v'/></nvram></os>",
            Some("/v"),
        ),
    ] {
        let mut domain = booting(os);
        assert!(domain.has_nvram(), "{os}");
        assert_eq!(
            domain.nvram().unwrap().file,
            users.map(PathBuf::from),
            "{os}"
        );
        domain.set_nvram(Path::new("/run/nvram"));
        let set = domain.nvram().unwrap().file;
        assert_eq!(set.as_deref(), Some(Path::new("/run/nvram")), "{os}");
        let template = os.contains("template='/t'");
        assert_eq!(domain.to_string().contains("template='/t'"), template);
    }
    for os in [
        "<os><type>hvm</type></os>",
        "<os firmware='bios'/>",
        "<os firmware='efi'><loader stateless='yes'/></os>",
        "<os><loader type='rom'>/f</loader></os>",
        "",
    ] {
        assert!(!booting(os).has_nvram(), "{os}");
    }
    for os in [
        "<os><nvram type='network'><source protocol='nbd'/></nvram></os>",
        "<os><nvram format='vmdk'>/v</nvram></os>",
        "<os><nvram>v</nvram></os>",
    ] {
        assert!(booting(os).nvram().is_err(), "{os}");
    }
}

#[test]
fn variables_as_virt_install_writes_them_on_fedora_keep_their_formats_and_template() {
    let mut domain = booting(
        "<os firmware='efi'><type arch='x86_64' machine='pc-q35-9.1'>hvm</type>\
         <firmware><feature enabled='no' name='enrolled-keys'/></firmware>\
         <loader readonly='yes' type='pflash' format='qcow2'>/usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2</loader>\
         <nvram template='/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2' templateFormat='qcow2' \
         format='qcow2'>/var/lib/libvirt/qemu/nvram/fedora_VARS.qcow2</nvram></os>",
    );
    let named = domain.nvram().unwrap();
    assert_eq!(
        named.file.as_deref(),
        Some(Path::new("/var/lib/libvirt/qemu/nvram/fedora_VARS.qcow2"))
    );
    assert_eq!(
        named.template.as_deref(),
        Some(Path::new("/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2"))
    );
    assert!(named.is_qcow2);
    assert_eq!(domain.qcow2_firmware(), [true, true]);
    domain.set_nvram(Path::new("/run/nvram"));
    assert!(
        domain.to_string().contains(
            "<nvram template='/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2' templateFormat='qcow2' \
             format='qcow2'>/run/nvram</nvram>"
        ),
        "{domain}"
    );
}

#[test]
fn a_guest_never_writes_the_firmware_itself() {
    let mut open = booting("<os><loader type='pflash'>/f</loader></os>");
    open.protect_loader().unwrap();
    assert!(open.to_string().contains("readonly='yes'"), "{open}");
    let mut writable = booting("<os><loader type='pflash' readonly='no'>/f</loader></os>");
    assert!(writable.protect_loader().is_err());
    for other in ["<os firmware='efi'/>", "<os><loader>/bios</loader></os>"] {
        let mut domain = booting(other);
        let before = domain.to_string();
        domain.protect_loader().unwrap();
        assert_eq!(domain.to_string(), before);
    }
}

#[test]
fn writes_to_what_is_thrown_away_wait_for_no_disk_and_a_chosen_cache_is_kept() {
    let mut domain = DomainXml::parse(
        "<domain type='qemu'><devices>\
         <disk type='file'><target dev='vda' bus='virtio'/></disk>\
         <disk type='file'><driver name='qemu' cache='none'/><source file='/b'/><target dev='vdb'/></disk>\
         <disk type='file'><driver name='qemu' io='native'/><source file='/c'/><target dev='vdc'/></disk>\
         <disk type='file'><source file='/d'/><target dev='vdd'/><readonly/></disk>\
         <disk type='file' device='cdrom'><source file='/e'/><target dev='sda'/></disk>\
         </devices></domain>",
    )
    .unwrap();
    domain.skip_flushes();
    let text = domain.to_string();
    assert_eq!(text.matches("cache='unsafe'").count(), 1, "{text}");
    assert_eq!(text.matches("cache=").count(), 2, "{text}");
}
