//! What the duties need of the host, how its presence is seen, and which
//! package brings it where.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace;

/// What the host is being prepared for; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// The embedded driver and a guest: no daemon.
    Demo,
    /// The system daemon, its networks, and every backend's driver.
    Everything,
    /// Also what the comparison with python-see needs.
    Bench,
}

/// How the presence of something is seen, without asking a package system.
#[derive(Debug)]
enum Sign {
    /// A program on the path, or in the administrator's folders.
    Program(&'static str),
    /// A program that is of no use where there is no apt, and not needed there.
    ProgramBesideApt(&'static str),
    /// A driver of libvirt: a loadable module.
    Driver(&'static str),
    /// The file by which pkg-config finds a library to build against.
    Library(&'static str),
    /// Firmware for machines that boot by UEFI.
    Firmware,
    /// Python's venv with a pip to put into it.
    PythonVenv,
    /// A package of the distribution's Python, such as `glance`.
    PythonPackage(&'static str),
    /// A program that its package would start with the host, which nobody asked for.
    Server(&'static str),
}

/// One thing needed, and the packages that bring it.
#[derive(Debug)]
pub(crate) struct Need {
    purpose: Purpose,
    sign: Sign,
    pub(crate) apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    zypper: &'static str,
    apk: &'static str,
}

const fn need(
    purpose: Purpose,
    sign: Sign,
    [apt, dnf, pacman, zypper, apk]: [&'static str; 5],
) -> Need {
    Need {
        purpose,
        sign,
        apt,
        dnf,
        pacman,
        zypper,
        apk,
    }
}

/// Everything the duties need. Columns: apt, dnf, pacman, zypper, apk.
#[rustfmt::skip]
const NEEDS: &[Need] = &[
    need(Purpose::Demo, Sign::Program("gcc"), ["gcc", "gcc", "gcc", "gcc", "gcc"]),
    need(Purpose::Demo, Sign::Program("pkg-config"), ["pkg-config", "pkgconf-pkg-config", "pkgconf", "pkg-config", "pkgconf"]),
    need(Purpose::Demo, Sign::Program("mke2fs"), ["e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs"]),
    need(Purpose::Demo, Sign::Program("debugfs"), ["e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs-extra"]),
    need(Purpose::Demo, Sign::Program("xz"), ["xz-utils", "xz", "xz", "xz", "xz"]),
    need(Purpose::Demo, Sign::Program("qemu-system-x86_64"), ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu-x86", "qemu-system-x86_64"]),
    need(Purpose::Demo, Sign::Program("qemu-img"), ["qemu-utils", "qemu-img", "qemu-img", "qemu-tools", "qemu-img"]),
    need(Purpose::Demo, Sign::Library("libvirt"), ["libvirt-dev", "libvirt-devel", "libvirt", "libvirt-devel", "libvirt-dev"]),
    need(Purpose::Demo, Sign::Driver("qemu"), ["libvirt-daemon-driver-qemu", "libvirt-daemon-driver-qemu", "libvirt", "libvirt-daemon-driver-qemu", "libvirt-qemu"]),
    need(Purpose::Everything, Sign::Program("g++"), ["g++", "gcc-c++", "gcc", "gcc-c++", "g++"]),
    need(Purpose::Everything, Sign::Program("libvirtd"), ["libvirt-daemon", "libvirt-daemon", "libvirt", "libvirt-daemon", "libvirt-daemon"]),
    need(Purpose::Everything, Sign::Program("virsh"), ["libvirt-clients", "libvirt-client", "libvirt", "libvirt-client", "libvirt-client"]),
    need(Purpose::Everything, Sign::Driver("lxc"), ["libvirt-daemon-driver-lxc", "libvirt-daemon-driver-lxc", "libvirt", "libvirt-daemon-driver-lxc", "libvirt-lxc"]),
    need(Purpose::Everything, Sign::Driver("vbox"), ["libvirt-daemon-driver-vbox", "libvirt-daemon-driver-vbox", "libvirt", "libvirt-daemon-driver-vbox", "libvirt-vbox"]),
    need(Purpose::Everything, Sign::Program("dnsmasq"), ["dnsmasq-base", "dnsmasq", "dnsmasq", "dnsmasq", "dnsmasq"]),
    need(Purpose::Everything, Sign::Program("iptables"), ["iptables", "iptables-nft", "iptables", "iptables", "iptables"]),
    need(Purpose::Everything, Sign::Program("nft"), ["nftables", "nftables", "nftables", "nftables", "nftables"]),
    need(Purpose::Everything, Sign::Program("ip"), ["iproute2", "iproute", "iproute2", "iproute2", "iproute2"]),
    need(Purpose::Everything, Sign::Program("ping"), ["iputils-ping", "iputils", "iputils", "iputils", "iputils"]),
    need(Purpose::Everything, Sign::Program("mkfs.xfs"), ["xfsprogs", "xfsprogs", "xfsprogs", "xfsprogs", "xfsprogs"]),
    need(Purpose::Everything, Sign::ProgramBesideApt("mmdebstrap"), ["mmdebstrap", "mmdebstrap", "mmdebstrap", "mmdebstrap", "mmdebstrap"]),
    need(Purpose::Everything, Sign::Firmware, ["ovmf", "edk2-ovmf", "edk2-ovmf", "qemu-ovmf-x86_64", "ovmf"]),
    need(Purpose::Everything, Sign::Program("curl"), ["curl", "curl", "curl", "curl", "curl"]),
    need(Purpose::Everything, Sign::Program("openssl"), ["openssl", "openssl", "openssl", "openssl", "openssl"]),
    need(Purpose::Everything, Sign::Program("script"), ["bsdutils", "util-linux-script", "util-linux", "util-linux", "util-linux-misc"]),
    need(Purpose::Everything, Sign::Program("setpriv"), ["util-linux", "util-linux", "util-linux", "util-linux", "setpriv"]),
    need(Purpose::Everything, Sign::Program("ssh"), ["openssh-client", "openssh-clients", "openssh", "openssh-clients", "openssh-client"]),
    need(Purpose::Everything, Sign::Server("sshd"), ["openssh-server", "openssh-server", "openssh", "openssh-server", "openssh-server"]),
    need(Purpose::Everything, Sign::Server("nginx"), ["nginx-light", "nginx-core", "nginx", "nginx", "nginx"]),
    need(Purpose::Everything, Sign::PythonPackage("gunicorn"), ["gunicorn", "python3-gunicorn", "gunicorn", "python3-gunicorn", "py3-gunicorn"]),
    need(Purpose::Everything, Sign::PythonPackage("keystone"), ["python3-keystone", "python3-keystone", "python-keystone", "python3-keystone", "py3-keystone"]),
    need(Purpose::Everything, Sign::PythonPackage("glance"), ["python3-glance", "python3-glance", "python-glance", "python3-glance", "py3-glance"]),
    need(Purpose::Everything, Sign::Server("swift-proxy-server"), ["swift-proxy", "openstack-swift-proxy", "python-swift", "openstack-swift-proxy", "py3-swift"]),
    need(Purpose::Everything, Sign::Server("swift-account-server"), ["swift-account", "openstack-swift-account", "python-swift", "openstack-swift-account", "py3-swift"]),
    need(Purpose::Everything, Sign::Server("swift-container-server"), ["swift-container", "openstack-swift-container", "python-swift", "openstack-swift-container", "py3-swift"]),
    need(Purpose::Everything, Sign::Server("swift-object-server"), ["swift-object", "openstack-swift-object", "python-swift", "openstack-swift-object", "py3-swift"]),
    need(Purpose::Bench, Sign::PythonVenv, ["python3-venv", "python3", "python", "python3", "python3"]),
];

/// A package system that is not apt, known by its program.
pub(crate) const OTHER_SYSTEMS: &[(&str, &str)] = &[
    ("dnf", "dnf install"),
    ("pacman", "pacman -S --needed"),
    ("zypper", "zypper install"),
    ("apk", "apk add"),
];

impl Need {
    /// The package's name on another system; none for one that is not known.
    pub(crate) fn package_on(&self, system: &str) -> Option<&'static str> {
        match system {
            "dnf" => Some(self.dnf),
            "pacman" => Some(self.pacman),
            "zypper" => Some(self.zypper),
            "apk" => Some(self.apk),
            _ => None,
        }
    }

    /// Whether its package, or one that comes with it, would start servers with the host.
    pub(crate) fn brings_servers(&self) -> bool {
        matches!(self.sign, Sign::Server(_) | Sign::PythonPackage(_))
    }
}

impl Sign {
    fn is_seen(&self) -> bool {
        match self {
            Sign::Program(name) | Sign::Server(name) => workspace::program(name).is_some(),
            Sign::ProgramBesideApt(name) => {
                workspace::program("apt-get").is_none() || workspace::program(name).is_some()
            }
            Sign::PythonPackage(name) => python_folders()
                .iter()
                .any(|folder| folder.join(name).join("__init__.py").is_file()),
            Sign::Driver(name) => library_folders().into_iter().any(|folder| {
                folder
                    .join("libvirt/connection-driver")
                    .join(format!("libvirt_driver_{name}.so"))
                    .is_file()
            }),
            Sign::Library(name) => {
                let file = format!("pkgconfig/{name}.pc");
                let mut folders = library_folders();
                folders.push("/usr/share".into());
                let asked = std::env::var_os("PKG_CONFIG_PATH").unwrap_or_default();
                folders.iter().any(|folder| folder.join(&file).is_file())
                    || std::env::split_paths(&asked)
                        .any(|folder| folder.join(format!("{name}.pc")).is_file())
            }
            // The descriptions by which libvirt finds firmware.
            Sign::Firmware => fs::read_dir("/usr/share/qemu/firmware").is_ok_and(|descriptions| {
                descriptions.flatten().any(|description| {
                    let name = description.file_name();
                    let name = name.to_string_lossy();
                    name.contains("edk2") || name.contains("ovmf")
                })
            }),
            // Debian's python3 has the module venv, but not the pip wheel that
            // a new venv starts from: that is what python3-venv brings.
            Sign::PythonVenv => {
                workspace::program("python3").is_some()
                    && subfolders(Path::new("/usr/lib")).into_iter().any(|folder| {
                        folder.join("ensurepip/__init__.py").is_file()
                            && (folder.join("ensurepip/_bundled").is_dir()
                                || Path::new("/usr/share/python-wheels").is_dir())
                    })
            }
        }
    }
}

/// What is not there of what the purpose needs.
pub(crate) fn missing(purpose: Purpose) -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| need.purpose <= purpose && !need.sign.is_seen())
        .collect()
}

/// The missing things as a list for a person.
pub(crate) fn described(missing: &[&Need]) -> String {
    let words: Vec<String> = missing
        .iter()
        .map(|need| match &need.sign {
            Sign::Program(name) | Sign::ProgramBesideApt(name) | Sign::Server(name) => {
                (*name).to_owned()
            }
            Sign::PythonPackage(name) => format!("Python's {name}"),
            Sign::Driver(name) => format!("libvirt's {name} driver"),
            Sign::Library(name) => format!("the development files of {name}"),
            Sign::Firmware => "firmware for UEFI".to_owned(),
            Sign::PythonVenv => "Python's venv".to_owned(),
        })
        .collect();
    words.join(", ")
}

/// The folders libraries live in: `/usr/lib`, `/usr/lib64`, and Debian's one
/// for each architecture.
fn library_folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/lib64"), PathBuf::from("/usr/local/lib")];
    folders.extend(
        subfolders(Path::new("/usr/lib"))
            .into_iter()
            .filter(|folder| {
                folder
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().contains("-linux-"))
            }),
    );
    folders.push("/usr/lib".into());
    folders
}

/// Where distributions keep the packages of their Python.
fn python_folders() -> Vec<PathBuf> {
    let versions = ["/usr/lib", "/usr/lib64"]
        .into_iter()
        .flat_map(|folder| subfolders(Path::new(folder)))
        .filter(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("python3")
        });
    versions
        .flat_map(|folder| [folder.join("dist-packages"), folder.join("site-packages")])
        .collect()
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_no_host_has_is_not_seen() {
        assert!(!Sign::Program("see-no-such-program").is_seen());
        assert!(Sign::Program("sh").is_seen());
    }

    #[test]
    fn every_need_names_a_package_on_every_system() {
        for need in NEEDS {
            assert!(!need.apt.is_empty());
            for (system, _) in OTHER_SYSTEMS {
                assert!(
                    need.package_on(system).is_some_and(|name| !name.is_empty()),
                    "{need:?} on {system}"
                );
            }
        }
    }
}
