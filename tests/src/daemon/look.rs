//! What is in a private daemon.

use super::PrivateDaemon;

/// Its files and control groups, its network's devices, and its firewall's tables, by name.
const LIST: &str = "find /run/libvirt /var/lib/libvirt /var/log/libvirt /etc/libvirt /sys/fs/cgroup/*/machine* \
                    /sys/fs/cgroup/machine* 2>/dev/null; ls /sys/class/net; nft list tables";

impl PrivateDaemon {
    /// The names of its domains, networks and pools that contain a text, running or not.
    pub fn objects(&self, part: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (driver, kind) in [
            ("qemu", "list"),
            ("qemu", "net-list"),
            ("qemu", "pool-list"),
            ("lxc", "list"),
        ] {
            let uri = format!("{driver}+unix:///system?socket={}", self.inner_socket());
            let names = self.told("virsh", &["-q", "-c", &uri, kind, "--all", "--name"]);
            let ours = names
                .lines()
                .filter(|line| line.contains(part) && !line.is_empty());
            found.extend(ours.map(|line| format!("{driver} {kind}: {line}")));
        }
        found
    }

    /// What is in its namespaces that a run has made, or libvirt for one, of any user: machines, networks and
    /// pools, libvirt's files (logs, notes, and those of address servers), control groups, network devices, and tables
    /// of the firewall. They are known by an environment's identifier, or the beginning of a name of SEE's.
    pub fn traces(&self) -> Vec<String> {
        let list = self.told("sh", &["-c", LIST]);
        let ours = list.lines().filter(|line| is_of_a_run(line));
        let mut found: Vec<String> = ours.map(str::to_owned).collect();
        found.extend(self.objects("-"));
        found.sort();
        found
    }
}

/// Whether a line has the beginning of an identifier in it, or of a name that SEE gives to a table, a network or a device.
fn is_of_a_run(line: &str) -> bool {
    // libvirt has the first twenty characters of a name in those of its folders.
    let begins_identifier = |part: &[u8]| {
        let hexadecimal = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        hexadecimal(&part[..8]) && part[8] == b'-' && hexadecimal(&part[9..13]) && part[13] == b'-'
    };
    line.contains("virbr")
        || line.contains("see-")
        || line.starts_with("see")
        || line.as_bytes().windows(14).any(begins_identifier)
}
