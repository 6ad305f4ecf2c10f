//! What a daemon forgets of a network: one that dies while it makes a network leaves the bridge, the address server
//! and its own firewall rules, and its successor knows none of them.
//!
//! They are removed where libvirt knows no such network, and only what shows whose it is: an address server whose
//! configuration is named by the environment's whole identifier; and a bridge with libvirt's kind of address, without
//! ports, whose name the record intended.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use see_core::ledger::{CollectRequest, Collected};
use see_core::{Error, Result};

use super::emulator;

/// The first bytes of the addresses that libvirt gives to bridges.
const LIBVIRT: &str = "52:54:00:";
/// Where libvirt has the files of its address servers.
const FOLDER: &str = "/var/lib/libvirt/dnsmasq";
/// Where libvirt puts its own rules.
const TABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// Removes what is left of a network that libvirt does not know.
pub(super) fn collect(request: &CollectRequest) -> Result<Collected> {
    let is_local = ["qemu", "lxc"].iter().any(|driver| {
        let rest = request.resource.location.strip_prefix(driver);
        rest.is_some_and(|rest| rest.starts_with("://") || rest.starts_with("+unix://"))
    });
    if !is_local {
        return Ok(Collected::AlreadyGone);
    }
    let bridge = bridge_of(request).filter(|bridge| is_forgotten(bridge));
    let server = format!("/{}.conf", request.resource.name);
    let servers = emulator::find(|line| is_server(line, &server))?;
    if bridge.is_none() && servers.is_empty() {
        return Ok(Collected::AlreadyGone);
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(Collected::Refused(format!(
            "the daemon forgot it and left its bridge {}: only root can remove that",
            bridge.as_deref().unwrap_or_default()
        )));
    }
    if request.dry_run {
        return Ok(Collected::Removed);
    }
    let mut folders: Vec<OwnedFd> = servers
        .iter()
        .filter_map(|(pid, _)| folder_of(*pid))
        .collect();
    if folders.is_empty() {
        // The server's end is no proof of its files': they are looked for where libvirt has them.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        folders.extend(rustix::fs::open(FOLDER, flags, Mode::empty()));
    }
    emulator::end(servers, request)?;
    if let Some(bridge) = &bridge {
        run("ip", &["link", "delete", bridge])?;
        for program in ["iptables", "ip6tables"] {
            clear_rules(program, bridge)?;
        }
    }
    for folder in &folders {
        clear_files(folder, &request.resource.name, bridge.as_deref())?;
    }
    Ok(Collected::Removed)
}

/// The name that was written down when the bridge was made, else the one that is made of the identifier.
fn bridge_of(request: &CollectRequest) -> Option<String> {
    let identity = request.identity.as_ref();
    let written = identity.and_then(|details| details.get("bridge")?.as_str());
    let name = written.map(str::to_owned).or_else(|| {
        let identifier = request.identifier.to_string();
        Some(format!("virbr-{}", identifier.get(..8)?))
    })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (name.chars().all(plain) && name.len() <= 15).then_some(name)
}

/// Whether a bridge is one that libvirt made and nobody is connected to.
fn is_forgotten(bridge: &str) -> bool {
    let device = Path::new("/sys/class/net").join(bridge);
    let address = fs::read_to_string(device.join("address")).unwrap_or_default();
    let ports = fs::read_dir(device.join("brif"));
    address.starts_with(LIBVIRT) && ports.is_ok_and(|mut ports| ports.next().is_none())
}

/// By its arguments: libvirt's address server with this file of the environment's.
fn is_server(line: &[u8], file: &str) -> bool {
    let mut arguments = line.split(|byte| *byte == 0);
    let program = arguments.next().unwrap_or_default();
    program.ends_with(b"dnsmasq")
        && arguments.any(|argument| {
            argument.starts_with(b"--conf-file=") && argument.ends_with(file.as_bytes())
        })
}

/// The folder of an address server's files, as that sees it: open, since the process will be gone.
fn folder_of(pid: i32) -> Option<OwnedFd> {
    let path = format!("/proc/{pid}/root{FOLDER}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// Removes what libvirt made there for the network.
fn clear_files(folder: &OwnedFd, name: &str, bridge: Option<&str>) -> Result<()> {
    let own = ["conf", "addnhosts", "hostsfile"].map(|end| format!("{name}.{end}"));
    let status = bridge.map(|bridge| format!("{bridge}.status"));
    for file in own.into_iter().chain(status) {
        match rustix::fs::unlinkat(folder, &file, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => {
                let message = "what is left of a network cannot be removed";
                return Err(Error::io(message, error.into()).subject(format!("{FOLDER}/{file}")));
            }
        }
    }
    Ok(())
}

/// Removes libvirt's rules for a bridge, and those for its addresses.
fn clear_rules(program: &str, bridge: &str) -> Result<()> {
    let mut subnets = Vec::new();
    for table in TABLES {
        let rules = run(program, &["-w", "-t", table, "-S"])?;
        for rule in rules.lines() {
            let words: Vec<&str> = rule.split(' ').collect();
            let of_bridge = words
                .windows(2)
                .any(|pair| ["-i", "-o"].contains(&pair[0]) && pair[1] == bridge);
            let of_subnet = words
                .windows(2)
                .any(|pair| pair[0] == "-s" && subnets.iter().any(|subnet| subnet == pair[1]));
            let [add, chain, ..] = words[..] else {
                continue;
            };
            if add != "-A" || !chain.starts_with("LIBVIRT_") || !(of_bridge || of_subnet) {
                continue;
            }
            if of_bridge && let Some(pair) = words.windows(2).find(|pair| pair[0] == "-s") {
                subnets.push(pair[1].to_owned());
            }
            let mut delete = vec!["-w", "-t", table, "-D"];
            delete.extend_from_slice(&words[1..]);
            run(program, &delete)?;
        }
    }
    Ok(())
}

fn run(program: &str, words: &[&str]) -> Result<String> {
    let failed = |error| {
        Error::io("what is left of a network cannot be removed", error)
            .subject(format!("{program} {}", words.join(" ")))
    };
    let output = Command::new(program).args(words).output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(std::io::Error::other(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_server_is_known_by_the_whole_name_of_its_file() {
        let line =
            b"/usr/sbin/dnsmasq\0--conf-file=/var/lib/libvirt/dnsmasq/abc.conf\0--leasefile-ro\0";
        assert!(is_server(line, "/abc.conf"));
        assert!(!is_server(line, "/bc.conf"));
        assert!(!is_server(b"cat\0--conf-file=/x/abc.conf\0", "/abc.conf"));
    }

    #[test]
    fn a_device_without_libvirts_address_is_not_forgotten_by_it() {
        assert!(!is_forgotten("lo"));
        assert!(!is_forgotten("see-none"));
    }
}
