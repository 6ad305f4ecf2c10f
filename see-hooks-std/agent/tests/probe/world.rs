//! A host, its local network, two sandboxes on one bridge and walls between them, each in a network
//! namespace of its own. The test itself is the host.

use super::support::{Host, PATIENCE};
use see_agent::protocol::{Finding, Probe, ProbeTarget, Reply, Request};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Set in the process that is in a network namespace of its own: to the name of its test.
const INSIDE: &str = "SEE_TEST_IN_OWN_NETWORK";

/// Runs a test in a network namespace of its own: this program once more, for this test alone.
pub(crate) fn in_own_network(test: &str, body: impl FnOnce(&mut World)) {
    if std::env::var(INSIDE).as_deref() == Ok(test) {
        return body(&mut World::new());
    }
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().expect("a running test has a path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .output()
        .expect("`unshare`, of util-linux");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "it did not run: {text}");
}

/// A process whose network namespace is a machine; it ends with the value.
struct Machine(Child);

impl Machine {
    fn new(program: &mut Command) -> Self {
        Self(program.spawn().expect("`unshare`, of util-linux"))
    }

    /// A machine in which nothing runs: its kernel answers all the same.
    fn idle() -> Self {
        let mut program = Command::new("unshare");
        Self::new(program.args(["--net", "sleep", "600"]))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Connects it with an end of a cable named so on the host, and gives it these addresses.
    fn connect(&self, end: &str, addresses: &[&str]) {
        let pid = self.pid();
        ip(&format!(
            "link add {end} type veth peer name eth0 netns {pid}"
        ));
        let inside = |command: &str| {
            run(Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-e", "-c", command]));
        };
        inside("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set lo up");
        for address in addresses {
            inside(&format!("ip addr add {address} dev eth0"));
        }
        inside("ip link set eth0 up");
        ip(&format!("link set {end} up"));
    }

    fn has_left_our_namespace(&self) -> bool {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        of(&self.pid()) != of("self")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Everything, and the agent in the guest.
pub(crate) struct World {
    agent: Host<UnixStream>,
    folder: PathBuf,
    _machines: [Machine; 3],
}

/// The guest's network; the host has its first address, the guest the second, another sandbox the third.
/// Behind the host: its own network, and the address under which clouds tell secrets.
const HOST: &str = "
    echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # Where bridged packets pass the firewall, too, the walls would hide what the bridge lets through.
    for table in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do
        if [ -e $table ]; then echo 0 >$table; fi
    done
    ip link set lo up
    ip addr add 169.254.169.254/32 dev lo
    ip link add br0 type bridge mcast_snooping 0
    ip addr add 10.77.0.1/24 dev br0
    ip addr add fd77::1/64 dev br0
    ip link set br0 up
";
const CONNECTED: &str = "
    ip link set guest master br0
    ip link set other master br0
    ip link set guest type bridge_slave isolated on
    ip link set other type bridge_slave isolated on
    ip addr add 192.168.77.1/24 dev lan
    nft add table inet walls
    nft add chain inet walls input '{ type filter hook input priority 0; policy drop; }'
    nft add chain inet walls forward '{ type filter hook forward priority 0; policy drop; }'
    nft add rule inet walls input iifname lo accept
    nft add rule inet walls input ct state established accept
    nft add rule inet walls forward ct state established accept
";

impl World {
    fn new() -> Self {
        script(HOST);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let folder = std::env::temp_dir().join(format!("see-agent-probe-{}", std::process::id()));
        let output: OwnedFd = theirs.try_clone().expect("a clone").into();
        let guest = Machine::new(
            Command::new("unshare")
                .args(["--net", env!("CARGO_BIN_EXE_see-agent"), "--stdio"])
                .arg("--folder")
                .arg(&folder)
                .stdin(OwnedFd::from(theirs))
                .stdout(output),
        );
        let (other, lan) = (Machine::idle(), Machine::idle());
        let machines = [guest, other, lan];
        let deadline = std::time::Instant::now() + PATIENCE;
        while !machines.iter().all(Machine::has_left_our_namespace) {
            assert!(std::time::Instant::now() < deadline, "no namespaces");
            std::thread::sleep(Duration::from_millis(5));
        }
        machines[0].connect("guest", &["10.77.0.2/24", "fd77::2/64"]);
        machines[1].connect("other", &["10.77.0.3/24", "fd77::3/64"]);
        machines[2].connect("lan", &["192.168.77.2/24"]);
        script(CONNECTED);
        let back = "ip route add default via 192.168.77.1";
        run(Command::new("nsenter").args(["-t", &machines[2].pid(), "-n", "sh", "-c", back]));
        ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut agent = Host::silent(ours, 1);
        agent.hello(b"").expect("a welcome");
        Self {
            agent,
            folder,
            _machines: machines,
        }
    }

    /// Opens a hole: a rule of the firewall, such as `input tcp dport 22`.
    pub(crate) fn accept(&self, rule: &str) {
        script(&format!("nft insert rule inet walls {rule} accept"));
    }

    /// Opens another kind of hole.
    pub(crate) fn script(&self, text: &str) {
        script(text);
    }

    /// What the agent finds.
    pub(crate) fn probe(&mut self, targets: Vec<ProbeTarget>) -> Vec<Finding> {
        let probe = Probe {
            patience: Duration::from_millis(600),
            targets,
        };
        match self.agent.call(Request::Probe(probe)) {
            Reply::Probed(findings) => findings,
            other => panic!("no findings: {other:?}"),
        }
    }

    /// What a command in the guest prints.
    pub(crate) fn in_guest(&self, command: &str) -> String {
        let pid = self._machines[0].pid();
        let mut inside = Command::new("nsenter");
        let output = inside
            .args(["-t", &pid, "-n", "sh", "-c", command])
            .output();
        String::from_utf8_lossy(&output.expect("`nsenter`").stdout).into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).expect("removing the agent's folder");
    }
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_ascii_whitespace()));
}

fn script(text: &str) {
    run(Command::new("sh").args(["-e", "-c", text]));
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("a program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// Whether the host can reach its own listener: it is really there.
pub(crate) fn listens(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}
