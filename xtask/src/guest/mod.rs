//! `guest`: a small Linux guest that boots by itself, built without root's
//! rights from Debian's packages and our agent, the same bytes each time.
//!
//! `<target>/guest/` holds `guest.qcow2` and its variants, `vmlinuz` and
//! `initrd.img` for booting the kernel directly, and `container/`, the root of
//! a container. They are built again only when what they are made of changes.

mod container;
mod cpio;
mod disk;
mod initramfs;
mod packages;
mod root;

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command;
use crate::failure::{Failure, While};
use crate::stage::stage;
use crate::workspace;

/// To be raised when the building changes in a way that the files below do
/// not show.
const RECIPE: u64 = 1;
/// What the guest's agent demands over TCP. A guest for demonstration and
/// tests: whoever can read the image knows it.
const TOKEN: &str = "see-guest-demonstration-token";
/// Files of this folder whose content decides the image.
const OWN_FILES: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("container.rs"),
    include_str!("cpio.rs"),
    include_str!("disk.rs"),
    include_str!("initramfs.rs"),
    include_str!("packages.rs"),
    include_str!("root.rs"),
    include_str!("files/agent"),
    include_str!("files/banner"),
    include_str!("files/container"),
    include_str!("files/grub.cfg"),
    include_str!("files/initrd-init"),
    include_str!("files/inittab"),
    include_str!("files/poweroff"),
    include_str!("files/rc"),
    include_str!("files/udhcpc"),
];
/// The folder with a container's root.
const CONTAINER: &str = "container";
const AGENT_TRIPLE: &str = "x86_64-unknown-linux-gnu";
const BUILD_DEADLINE: Duration = Duration::from_secs(900);

/// The guests that are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// The guest as it should be.
    Plain,
    /// Ignores the power button.
    Deaf,
    /// Boots, but no agent ever answers.
    Mute,
}

impl Variant {
    const ALL: [Self; 3] = [Self::Plain, Self::Deaf, Self::Mute];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
        }
    }

    fn image(self) -> &'static str {
        match self {
            Self::Plain => "guest.qcow2",
            Self::Deaf => "guest-deaf.qcow2",
            Self::Mute => "guest-mute.qcow2",
        }
    }
}

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: cargo xtask guest"));
    }
    crate::setup::install(crate::setup::Purpose::Demo)?;
    let started = Instant::now();
    let image = build()?;
    println!(
        "guest: {} ({:.2} s)",
        image.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The folder of the images.
pub(crate) fn folder() -> PathBuf {
    workspace::target().join("guest")
}

/// Builds what is not there yet, and gives the plain guest's image.
pub(crate) fn build() -> Result<PathBuf, Failure> {
    let folder = folder();
    let image = folder.join(Variant::Plain.image());
    let key = key()?;
    if is_current(&folder, &key) {
        return Ok(image);
    }
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(Failure::new(
            "the guest is built on Linux on x86-64, and this host is another",
        ));
    }
    make_folder(&folder)?;
    let lock = File::create(folder.join("lock")).doing("cannot make the guest's lock")?;
    lock.lock().doing("cannot wait for another build")?;
    // Another one may have built it while this one waited.
    if is_current(&folder, &key) {
        return Ok(image);
    }
    build_into(&folder)?;
    fs::write(folder.join("key"), &key).doing("cannot write the guest's key")?;
    Ok(image)
}

fn build_into(folder: &Path) -> Result<(), Failure> {
    let work = folder.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).doing(format_args!("cannot empty {}", work.display()))?;
    }
    let packages = work.join("packages");
    make_folder(&packages)?;
    let agent = stage("guest: agent", build_agent)?;
    stage("guest: packages", || packages::unpack(folder, &packages))?;
    stage("guest: images", || {
        let kernel = work.join("vmlinuz");
        copy(&find_kernel(&packages)?, &kernel)?;
        let initramfs = work.join("initrd.img");
        fs::write(&initramfs, initramfs::build(&packages)?)
            .doing(format_args!("cannot write {}", initramfs.display()))?;
        let config = work.join("grub.cfg");
        fs::write(&config, include_str!("files/grub.cfg"))
            .doing(format_args!("cannot write {}", config.display()))?;
        let core = work.join("core.img");
        disk::boot_loader(&packages, &config, &core)?;
        let parts = root::Parts {
            busybox: &busybox(&packages)?,
            agent: &agent,
            kernel: &kernel,
            initramfs: &initramfs,
        };
        let root = work.join("root.img");
        let raw = work.join("disk.img");
        for variant in Variant::ALL {
            root::build(&root, &work, variant, &parts)?;
            let built = work.join(variant.image());
            disk::assemble(&packages, &core, &root, &raw, &built)?;
        }
        let container = work.join(CONTAINER);
        container::build(&container, &parts)?;
        // Moved into place at the end, so that what is in place is whole.
        let former = folder.join(CONTAINER);
        if former.exists() {
            fs::remove_dir_all(&former)
                .doing(format_args!("cannot remove {}", former.display()))?;
        }
        fs::rename(container, &former).doing(format_args!(
            "cannot put {CONTAINER} into {}",
            folder.display()
        ))?;
        for name in ["vmlinuz", "initrd.img"]
            .into_iter()
            .chain(Variant::ALL.map(Variant::image))
        {
            fs::rename(work.join(name), folder.join(name))
                .doing(format_args!("cannot put {name} into {}", folder.display()))?;
        }
        fs::write(folder.join("token"), TOKEN).doing("cannot write the guest's token")
    })?;
    fs::remove_dir_all(&work).doing(format_args!("cannot remove {}", work.display()))
}

/// Whether the images were built from what `key` stands for.
fn is_current(folder: &Path, key: &str) -> bool {
    fs::read_to_string(folder.join("key")).is_ok_and(|built| built == key)
        && folder.join(CONTAINER).is_dir()
        && ["vmlinuz", "initrd.img", "token"]
            .into_iter()
            .chain(Variant::ALL.map(Variant::image))
            .all(|name| folder.join(name).is_file())
}

/// Stands for everything the images are made of, but for the packages: those
/// stay what they were at the first build until their folder is removed.
fn key() -> Result<String, Failure> {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(RECIPE);
    for content in OWN_FILES {
        hasher.write(content.as_bytes());
        hasher.write_u8(0xff);
    }
    let mut sources = Vec::new();
    let agent = workspace::root().join("see-hooks-std/agent");
    sources.push(agent.join("Cargo.toml"));
    list(&agent.join("src"), &mut sources)?;
    sources.sort();
    for source in sources {
        let content = fs::read(&source).doing(format_args!("cannot read {}", source.display()))?;
        let name = source.strip_prefix(&agent).unwrap_or(&source);
        hasher.write(name.as_os_str().as_encoded_bytes());
        hasher.write_u8(0xff);
        hasher.write(&content);
        hasher.write_u8(0xff);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).doing(format_args!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

/// The agent, static: it runs in any Linux guest.
fn build_agent() -> Result<PathBuf, Failure> {
    let target = workspace::target();
    let root = workspace::root();
    // The paths of this checkout are kept out of the program, so that two
    // checkouts build the same one. Encoded, because a path may hold spaces.
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Cstrip=symbols".to_owned(),
        format!("--remap-path-prefix={}=see", root.display()),
    ];
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(&root)
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", "see-agent", "--target", AGENT_TRIPLE])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    command::output(&mut cargo, BUILD_DEADLINE)?;
    Ok(target.join(AGENT_TRIPLE).join("release/see-agent"))
}

fn find_kernel(packages: &Path) -> Result<PathBuf, Failure> {
    let mut boot = Vec::new();
    list(&packages.join("boot"), &mut boot)?;
    boot.into_iter()
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .ok_or_else(|| Failure::new("the kernel's package holds no kernel"))
}

/// The static busybox: newer packages have it under `/usr`.
fn busybox(packages: &Path) -> Result<PathBuf, Failure> {
    ["bin/busybox", "usr/bin/busybox"]
        .into_iter()
        .map(|place| packages.join(place))
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::new("the package busybox-static holds no busybox"))
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).doing(format_args!("cannot make {}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to)
        .doing(format_args!("cannot copy {}", from.display()))
        .map(drop)
}
