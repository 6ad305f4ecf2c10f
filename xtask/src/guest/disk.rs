//! A disk that a BIOS boots by itself: GRUB in front, one partition behind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::failure::{Failure, While};

const SECTOR: u64 = 512;
/// Where the partition begins: 1 MiB, as everybody's does.
const PARTITION_START: u64 = 2048;
/// Where the partition table lies in the first sector.
const TABLE: usize = 446;
const DEADLINE: Duration = Duration::from_secs(120);

/// Writes GRUB's core image: enough of it to read an ext4 and start a kernel.
pub(super) fn boot_loader(packages: &Path, config: &Path, core: &Path) -> Result<(), Failure> {
    let mut make = Command::new(packages.join("usr/bin/grub-mkimage"));
    make.arg("-d").arg(packages.join("usr/lib/grub/i386-pc"));
    make.args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot"]);
    make.arg("-o").arg(core).arg("-c").arg(config);
    make.args(["biosdisk", "part_msdos", "ext2", "linux"]);
    command::output(&mut make, DEADLINE).map(drop)
}

/// Puts boot sector, core image and the file system into a raw disk, and turns
/// that into a qcow2.
pub(super) fn assemble(
    packages: &Path,
    core: &Path,
    root: &Path,
    raw: &Path,
    qcow2: &Path,
) -> Result<(), Failure> {
    let read =
        |path: &Path| std::fs::read(path).doing(format_args!("cannot read {}", path.display()));
    let mut first = read(&packages.join("usr/lib/grub/i386-pc/boot.img"))?;
    let core = read(core)?;
    let size = std::fs::metadata(root)
        .doing(format_args!("cannot read {}", root.display()))?
        .len();
    if first.len() as u64 != SECTOR || core.len() as u64 > (PARTITION_START - 1) * SECTOR {
        return Err(Failure::new(
            "GRUB's images do not fit before the first partition",
        ));
    }
    first[TABLE..].copy_from_slice(&partition_table(size / SECTOR)?);

    let failed = || format!("cannot write {}", raw.display());
    let mut disk = File::create(raw).doing(failed())?;
    disk.set_len(PARTITION_START * SECTOR + size)
        .doing(failed())?;
    // The boot sector expects the core image right behind itself, and the core
    // image's first sector expects the rest right behind that.
    disk.write_all(&first).doing(failed())?;
    disk.write_all(&core).doing(failed())?;
    copy_sparse(root, &mut disk, PARTITION_START * SECTOR)?;
    drop(disk);
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-q", "-f", "raw", "-O", "qcow2"]);
    command::output(convert.arg(raw).arg(qcow2), DEADLINE).map(drop)
}

/// One bootable Linux partition, and the sector's signature.
fn partition_table(sectors: u64) -> Result<[u8; 66], Failure> {
    let sectors = u32::try_from(sectors).doing("the guest's root is too large for its table")?;
    let start = u32::try_from(PARTITION_START).doing("the start of the partition")?;
    let mut table = [0; 66];
    // Cylinders and heads: the values that mean "look at the sector numbers".
    table[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    table[8..12].copy_from_slice(&start.to_le_bytes());
    table[12..16].copy_from_slice(&sectors.to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    Ok(table)
}

/// Copies a file to an offset and leaves out what is zero.
fn copy_sparse(from: &Path, to: &mut File, offset: u64) -> Result<(), Failure> {
    let failed = || format!("cannot copy {}", from.display());
    let mut source = File::open(from).doing(failed())?;
    let mut block = vec![0; 1 << 16];
    let zeros = vec![0; 1 << 16];
    let mut place = offset;
    loop {
        let length = source.read(&mut block).doing(failed())?;
        if length == 0 {
            return Ok(());
        }
        if block[..length] != zeros[..length] {
            to.seek(SeekFrom::Start(place)).doing(failed())?;
            to.write_all(&block[..length]).doing(failed())?;
        }
        place += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_table_holds_one_bootable_linux_partition() {
        let table = partition_table(0x0040_0000).expect("it fits");
        assert_eq!(table[0], 0x80);
        assert_eq!(table[4], 0x83);
        assert_eq!(table[8..12], [0, 8, 0, 0]);
        assert_eq!(table[12..16], [0, 0, 0x40, 0]);
        assert!(table[16..64].iter().all(|byte| *byte == 0));
        assert_eq!(table[64..], [0x55, 0xaa]);
    }

    #[test]
    fn a_root_too_large_for_the_table_is_refused() {
        assert!(partition_table(1 << 32).is_err());
    }

    #[test]
    fn a_sparse_copy_has_the_same_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("source");
        let mut content = vec![0; 200_000];
        content[150_000] = 7;
        std::fs::write(&source, &content).expect("written");
        let target = folder.path().join("target");
        let mut disk = File::create(&target).expect("made");
        disk.set_len(512 + 200_000).expect("sized");
        copy_sparse(&source, &mut disk, 512).expect("copied");
        assert_eq!(std::fs::read(&target).expect("read")[512..], content);
    }
}
