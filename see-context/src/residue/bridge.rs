//! What a daemon forgets of a network: one that dies while it makes a network or takes it down leaves the bridge, the
//! address server and its own firewall rules, and its successor knows none of them.
//!
//! They are removed where libvirt knows no such network, and only what shows whose it is: an address server whose
//! configuration is named by the environment's whole identifier; and a bridge of the name and the hardware address
//! that were written down before it was made, without ports.

mod nftables;

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use see_core::ledger::{CollectRequest, Collected};
use see_core::{Error, ErrorKind, Result};

use super::{emulator, is_here, traces_of};

use crate::program::environment;

/// The details by which a bridge is known again.
pub(crate) const BRIDGE: &str = "bridge";
pub(crate) const MAC: &str = "mac";

/// Where libvirt puts its own rules.
const TABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// Removes what is left of a network that libvirt does not know.
pub(crate) fn collect(request: &CollectRequest) -> Result<Collected> {
    // Nothing was made before it was written down.
    let Some((bridge, mac)) = written(request).filter(|_| is_here(&request.resource.location))
    else {
        return Ok(Collected::AlreadyGone);
    };
    let stands = has_address(bridge, mac);
    let server = format!("/{}.conf", request.resource.name);
    let servers = emulator::find(|line| is_server(line, &server))?;
    if stands && let Some(port) = port_of(bridge) {
        return Ok(Collected::Refused(format!(
            "the daemon forgot it, and {port} is connected to its bridge {bridge}"
        )));
    }
    if (stands || !servers.is_empty()) && !rustix::process::geteuid().is_root() {
        return Ok(Collected::Refused(format!(
            "the daemon forgot it and left its bridge {bridge}: only root can remove that"
        )));
    }
    let was_there = stands || !servers.is_empty();
    if !request.dry_run {
        emulator::end(servers, request)?;
        if stands {
            // Before the bridge goes: a rule may know it by its number.
            for family in ["ip", "ip6"] {
                nftables::clear_table(family, bridge, request.deadline)?;
            }
            run("ip", &["link", "delete", bridge], request.deadline)?;
            for program in ["iptables", "ip6tables"] {
                clear_rules(program, bridge, request.deadline)?;
            }
        }
        clear_traces(request)?;
    }
    Ok(match was_there {
        true => Collected::Removed,
        false => Collected::AlreadyGone,
    })
}

/// What is left of a network that libvirt does not know.
pub(super) fn left(request: &CollectRequest) -> Result<Vec<String>> {
    let mut left = Vec::new();
    if let Some((bridge, mac)) = written(request)
        && has_address(bridge, mac)
    {
        left.push(format!("bridge {bridge}"));
    }
    let server = format!("/{}.conf", request.resource.name);
    let servers = emulator::find(|line| is_server(line, &server))?;
    left.extend(servers.iter().map(|(pid, _)| format!("process {pid}")));
    Ok(left)
}

/// Whether an address server of a network of this name runs.
pub(crate) fn has_server(name: &str) -> Result<bool> {
    let server = format!("/{name}.conf");
    emulator::find(|line| is_server(line, &server)).map(|found| !found.is_empty())
}

/// The name of the bridge, as it was written down.
pub(super) fn name_of(request: &CollectRequest) -> Option<&str> {
    written(request).map(|(bridge, _)| bridge)
}

/// Removes the files that libvirt keeps of a network which is gone.
pub(crate) fn clear_traces(request: &CollectRequest) -> Result<()> {
    if let Some(traces) = traces_of(&request.resource.location) {
        traces.clear_network(&request.resource.name, name_of(request))?;
    }
    Ok(())
}

/// Name and hardware address of the bridge, as they were written down before it was made.
fn written(request: &CollectRequest) -> Option<(&str, &str)> {
    let details = request.identity.as_ref()?;
    let bridge = details.get(BRIDGE)?.as_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = !bridge.is_empty() && bridge.len() <= 15 && bridge.chars().all(plain);
    is_name.then_some((bridge, details.get(MAC)?.as_str()?))
}

/// Whether there is a bridge of this name with this hardware address.
fn has_address(bridge: &str, mac: &str) -> bool {
    let device = Path::new("/sys/class/net").join(bridge);
    let address = fs::read_to_string(device.join("address")).unwrap_or_default();
    device.join("bridge").is_dir() && address.trim().eq_ignore_ascii_case(mac)
}

/// A port of a bridge.
fn port_of(bridge: &str) -> Option<String> {
    let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif")).ok()?;
    let port = ports.flatten().next()?;
    Some(port.file_name().to_string_lossy().into_owned())
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

/// Removes libvirt's rules for a bridge, and those for its addresses.
fn clear_rules(program: &str, bridge: &str, deadline: Instant) -> Result<()> {
    let mut subnets = Vec::new();
    for table in TABLES {
        let rules = match run(program, &["-w", "-t", table, "-S"], deadline) {
            Ok(rules) => rules,
            // Without it the daemon made none.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
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
            run(program, &delete, deadline)?;
        }
    }
    Ok(())
}

/// Runs a program to its end, or ends it at the deadline: `iptables -w` waits for whoever holds its lock.
///
/// # Errors
/// [`ErrorKind::NotFound`] without the program, [`ErrorKind::Timeout`] at the deadline.
fn run(program: &str, words: &[&str], deadline: Instant) -> Result<String> {
    const LOOK: Duration = Duration::from_millis(5);
    let subject = || format!("{program} {}", words.join(" "));
    let failed = |error: io::Error| {
        let kind = error.kind();
        let error = Error::io("what is left of a network cannot be removed", error);
        match kind {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "it is not installed").caused_by(error)
            }
            _ => error,
        }
        .subject(subject())
    };
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .envs(environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C in mid-change is not for it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // Its rules may be more than a pipe holds.
    let (output, said) = (read(child.stdout.take()), read(child.stderr.take()));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() >= deadline {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::timeout("a program to end", begun.elapsed()).subject(subject()));
        }
        std::thread::sleep(LOOK);
    };
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    if status.success() {
        return Ok(text(output));
    }
    Err(failed(io::Error::other(text(said).trim().to_owned())))
}

/// Reads a pipe to its end, beside whoever waits for the program.
fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until then says enough.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use see_core::Identifier;
    use see_core::ledger::{Details, Resource};

    use super::*;

    fn request(location: &str, bridge: &str) -> CollectRequest {
        let identifier = Identifier::random();
        let resource = Resource::new("libvirt.network", identifier.to_string(), location);
        let mut request = CollectRequest::new(identifier, resource);
        let mut identity = Details::new();
        identity.insert(BRIDGE.to_owned(), bridge.into());
        identity.insert(MAC.to_owned(), "52:54:00:00:00:01".into());
        request.identity = Some(identity);
        request
    }

    #[test]
    fn without_the_program_for_rules_there_are_none_to_remove() {
        let soon = Instant::now() + Duration::from_secs(60);
        clear_rules("see-no-such-program", "virbr-0", soon).unwrap();
    }

    #[test]
    fn a_program_that_waits_for_ever_is_ended_at_the_deadline() {
        let begun = Instant::now();
        let error = run("sleep", &["600"], begun + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        // More than a pipe holds.
        let soon = begun + Duration::from_secs(60);
        let long = run("sh", &["-c", "head -c 200000 /dev/zero"], soon);
        assert_eq!(long.unwrap().len(), 200_000);
        let error = run("sh", &["-c", "echo why >&2; exit 3"], soon).unwrap_err();
        assert!(error.chain().contains("why"), "{}", error.chain());
    }

    #[test]
    fn an_address_server_is_known_by_the_whole_name_of_its_file() {
        let line =
            b"/usr/sbin/dnsmasq\0--conf-file=/var/lib/libvirt/dnsmasq/abc.conf\0--leasefile-ro\0";
        assert!(is_server(line, "/abc.conf"));
        assert!(!is_server(line, "/bc.conf"));
        assert!(!is_server(b"cat\0--conf-file=/x/abc.conf\0", "/abc.conf"));
    }

    #[test]
    fn a_device_of_another_address_is_not_the_one_that_was_written_down() {
        // Its address it has, but it is no bridge.
        assert!(!has_address("lo", "00:00:00:00:00:00"));
        assert!(!has_address("see-none", ""));
    }

    #[test]
    fn a_bridge_that_was_not_written_down_is_not_looked_for() {
        let mut request = request("qemu:///system", "virbr-0123abcd");
        assert_eq!(
            written(&request),
            Some(("virbr-0123abcd", "52:54:00:00:00:01"))
        );
        request.identity = None;
        assert_eq!(collect(&request).unwrap(), Collected::AlreadyGone);
        for name in ["", "../lo", "a b", "longer-than-any-device"] {
            assert_eq!(written(&self::request("qemu:///system", name)), None);
        }
    }
}
