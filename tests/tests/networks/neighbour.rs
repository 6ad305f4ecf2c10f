//! Who may answer a guest: services, and machines that are no guests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::thread::LinkNameSpaceType;
use see_tests::until;

use crate::support::Site;

/// The longest wait for a namespace or a service.
const START: Duration = Duration::from_secs(10);

/// A machine behind a cable: a network namespace of its own, whose kernel answers. Its end of the cable is `eth0`.
/// It is gone with the value.
pub(crate) struct Neighbour(Child);

impl Neighbour {
    /// Connects it with the daemon's network by a device of this name there, and runs a script in each of the two.
    pub(crate) fn new(site: &Site, device: &str, here: &str, there: &str) -> Self {
        let mut idle = Command::new("unshare");
        idle.args(["--net", "sleep", "600"]);
        let child = site.daemon.beside(idle).spawn();
        let neighbour = Self(child.expect("nsenter is installed"));
        let network = |file: &Path| std::fs::read_link(file).ok();
        let (outer, host) = (site.namespace(), Path::new("/proc/self/ns/net"));
        until("the neighbour's namespace", START, || {
            let own = network(&neighbour.namespace());
            own.is_some() && own != network(&outer) && own != network(host)
        });
        let pid = neighbour.0.id();
        let there = format!("ip link set lo up\n{there}");
        let shell = format!(
            "ip link add name {device} type veth peer name eth0 netns {pid}\n{here}\n\
             nsenter --net=/proc/{pid}/ns/net sh -e -c \"$1\""
        );
        let mut command = Command::new("sh");
        command.args(["-e", "-c", &shell, "sh", &there]);
        succeed(&mut site.daemon.beside(command));
        neighbour
    }

    /// Runs a script in it.
    pub(crate) fn told(&self, script: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display()));
        succeed(command.args(["sh", "-e", "-c", script]));
    }

    /// The file of its network namespace.
    pub(crate) fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end.
fn succeed(command: &mut Command) {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Does something in a network: a socket belongs to the one in which it was made, whoever uses it.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &Path,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = std::fs::File::open(namespace).expect("somebody holds it");
    let acting = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(
            namespace.as_fd(),
            Some(LinkNameSpaceType::Network),
        )
        .expect("root may");
        act()
    });
    acting.join().expect("it is done")
}

/// Opens services in a network: some greet whoever connects, some send datagrams back. They end with the test.
pub(crate) fn serve(namespace: PathBuf, tcp: &[&str], udp: &[&str]) {
    let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
        let parse = |text: &&str| text.parse().expect("an address with a port");
        texts.iter().map(parse).collect()
    };
    let (tcp, udp) = (addresses(tcp), addresses(udp));
    let (tcp, udp) = inside(&namespace, move || {
        let bind = |at: &SocketAddr| TcpListener::bind(at).expect("the port is free");
        let tcp: Vec<_> = tcp.iter().map(bind).collect();
        let bind = |at: &SocketAddr| UdpSocket::bind(at).expect("the port is free");
        let udp: Vec<_> = udp.iter().map(bind).collect();
        (tcp, udp)
    });
    for listener in tcp {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"here\n");
                let _ = stream.read(&mut [0; 64]);
            }
        });
    }
    for socket in udp {
        std::thread::spawn(move || {
            let mut datagram = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        });
    }
}
