//! The private daemon, which tests break so that the host's stays whole.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use see_tests::{DaemonOptions, PrivateDaemon, Transport, remains, target_folder, until};

const PATIENCE: Duration = Duration::from_secs(20);

const DOMAIN: &str = "<domain type='qemu'><name>private</name><memory unit='MiB'>32</memory>\
    <os><type>hvm</type></os><devices><interface type='network'><source network='private'/></interface>\
    </devices></domain>";
const NETWORK: &str = "<network><name>private</name><bridge name='virbr-private' stp='off' delay='0'/>\
    <ip address='10.99.1.1' netmask='255.255.255.0'><dhcp><range start='10.99.1.2' end='10.99.1.9'/></dhcp></ip>\
    </network>";
const CONTAINER: &str = "<domain type='lxc'><name>contained</name><memory unit='MiB'>32</memory>\
    <os><type>exe</type><init>/bin/sleep</init><initarg>600</initarg></os><devices>\
    <filesystem type='mount'><source dir='/'/><target dir='/'/></filesystem>\
    <console type='pty'/></devices></domain>";

fn virsh(uri: &str, arguments: &[&str]) -> String {
    see_tests::virsh(uri, arguments.iter().copied()).expect("the daemon obeys")
}

#[test]
fn machines_outlive_a_killed_private_daemon_and_nothing_outlives_its_end() {
    let mut daemon = PrivateDaemon::start();
    let domain = daemon.socket().with_file_name("domain.xml");
    for (file, xml) in [
        ("network.xml", NETWORK),
        ("domain.xml", DOMAIN),
        ("lxc.xml", CONTAINER),
    ] {
        std::fs::write(domain.with_file_name(file), xml).expect("it is writable");
    }
    let path = |file: &str| domain.with_file_name(file).display().to_string();
    virsh(&daemon.uri(), &["net-create", &path("network.xml")]);
    virsh(&daemon.uri(), &["create", &path("domain.xml")]);
    virsh(&daemon.lxc_uri(), &["create", &path("lxc.xml")]);
    let all = [
        "qemu list: private",
        "qemu net-list: private",
        "lxc list: contained",
    ];
    assert_eq!(
        [daemon.objects("private"), daemon.objects("contained")].concat(),
        all
    );
    // The bridge is in the daemon's network, and not in the host's.
    assert!(daemon.told("ip", &["link"]).contains("virbr-private"));
    assert!(!Path::new("/sys/class/net/virbr-private").exists());
    let mut ip = Command::new("ls");
    ip.arg("/sys/class/net");
    let seen = daemon.beside(ip).output().expect("nsenter is installed");
    assert!(
        String::from_utf8_lossy(&seen.stdout).contains("virbr-private"),
        "{seen:?}"
    );

    daemon.kill();
    assert!(UnixStream::connect(daemon.socket()).is_err());
    let runs = |daemon: &PrivateDaemon, program: &str| {
        let mut all = daemon.processes().into_iter();
        all.any(|(_, line)| line.starts_with(program))
    };
    assert!(!runs(&daemon, "libvirtd"), "{:#?}", daemon.processes());
    assert!(
        runs(&daemon, "/usr/bin/qemu-system"),
        "{:#?}",
        daemon.processes()
    );
    daemon.restart();
    assert_eq!(
        [daemon.objects("private"), daemon.objects("contained")].concat(),
        all
    );

    let folder = daemon.socket().parent().expect("it has one").to_owned();
    let name = folder.file_name().expect("it has one").to_owned();
    let held = daemon.processes();
    drop(daemon);
    for (pid, line) in held {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid}: {line}"
        );
    }
    assert!(!folder.exists());
    let mut groups = Command::new("find");
    let groups = groups.arg("/sys/fs/cgroup").arg("-name").arg(name).output();
    assert_eq!(groups.expect("find is installed").stdout, b"");
}

#[test]
fn what_libvirt_would_leave_in_a_private_daemon_is_seen_by_every_look() {
    let daemon = PrivateDaemon::start();
    let identifier = see_core::Identifier::random().to_string();
    let (short, shorter) = (&identifier[..20], &identifier[..8]);
    assert_eq!(daemon.traces(), Vec::<String>::new());
    assert_eq!(remains(&identifier), Vec::<String>::new());
    for path in [
        &format!("/var/log/libvirt/qemu/{identifier}.log"),
        &format!("/var/lib/libvirt/qemu/domain-7-{short}"),
        &format!("/var/lib/libvirt/dnsmasq/virbr-{shorter}.status"),
        &format!("/run/libvirt/network/{identifier}.pid"),
    ] {
        let shell = "mkdir -p \"${1%/*}\"; echo >\"$1\"";
        daemon.told("sh", &["-ec", shell, "sh", path]);
        assert_eq!(daemon.traces(), [path.to_owned()]);
        let [found] = &remains(&identifier)[..] else {
            panic!("{path}: {:?}", remains(&identifier));
        };
        assert!(found.ends_with(path), "{found}");
        daemon.told("rm", &[path]);
    }
    assert_eq!(remains(&identifier), Vec::<String>::new());
}

#[test]
fn a_private_daemon_apart_is_reached_over_tcp_and_shares_no_file() {
    let options = DaemonOptions {
        transports: vec![Transport::Tcp],
        apart: true,
        ..DaemonOptions::default()
    };
    let mut daemon = PrivateDaemon::with(&options);
    let marked = tempfile::NamedTempFile::new_in("/tmp").expect("it is writable");
    // A checkout in one of them leaves the empty folders in which its target folder is hidden.
    let files = ["/tmp", "/var/tmp", "-not", "-type", "d"];
    assert_eq!(daemon.told("find", &files), "");
    let folders = daemon.told("find", &["/tmp", "/var/tmp", "-type", "d"]);
    let target = target_folder();
    for folder in folders.lines().map(Path::new) {
        let is_hidden = [Path::new("/tmp"), Path::new("/var/tmp")].contains(&folder);
        assert!(is_hidden || target.starts_with(folder), "{folders}");
    }
    assert!(marked.path().exists());
    let uri = daemon.remote_uri(Transport::Tcp);
    assert_eq!(virsh(&uri, &["list", "--name"]).trim(), "");
    let containers = uri.replace("qemu+", "lxc+");
    assert_eq!(virsh(&containers, &["list", "--name"]).trim(), "");

    daemon.pause();
    until("a daemon that stands still", PATIENCE, || {
        let processes = daemon.processes();
        let mut found = processes
            .iter()
            .filter(|(_, line)| line.starts_with("libvirtd"));
        found.any(|(pid, _)| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            state.is_ok_and(|state| state.contains(") T "))
        })
    });
    let mut waiting = Command::new("virsh")
        .args(["-q", "-c", &uri, "version"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("virsh is installed");
    daemon.cont();
    until("the answer", PATIENCE, || {
        let ended = waiting.try_wait().expect("it is a child");
        ended.is_some_and(|status| status.success())
    });

    daemon.kill();
    let refused = std::net::TcpStream::connect(("127.0.0.1", daemon.port(Transport::Tcp)));
    let refused = refused.expect_err("nobody listens").kind();
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    daemon.restart();
    assert_eq!(daemon.remote_uri(Transport::Tcp), uri);
    virsh(&uri, &["version"]);
}

#[test]
fn a_private_daemon_apart_starts_where_the_target_folder_lies_in_the_temporary_folder() {
    let clone = tempfile::tempdir_in("/tmp").expect("a temporary folder");
    let target = target_folder();
    let own = std::env::current_exe().expect("a running test has a path");
    let there = own.strip_prefix(&target).expect("it is in that folder");
    let there = clone.path().join(there);
    let output = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-ec",
            "mount --bind \"$1\" \"$2\"; exec \"$3\" --exact \"$4\"",
            "sh",
        ])
        .args([target.as_path(), clone.path(), there.as_path()])
        .arg("a_private_daemon_apart_is_reached_over_tcp_and_shares_no_file")
        .output()
        .expect("unshare is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text} {output:?}"
    );
}
