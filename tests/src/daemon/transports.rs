//! The ways over which a private daemon is reached, with the throw-away keys and certificates of each.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PrivateDaemon;
use super::relay::Relay;

/// A way of libvirt's to a daemon on another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `qemu+ssh`: a server of the test's own (sshd) beside the daemon.
    Ssh,
    /// `qemu+tcp`: open to everybody.
    Tcp,
    /// `qemu+tls`: both sides show a certificate.
    Tls,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ssh, Self::Tcp, Self::Tls];

    /// As it stands in a URI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The port in the daemon's network.
    pub(super) fn inner_port(self) -> u16 {
        match self {
            Self::Ssh => 22,
            Self::Tcp => 16509,
            Self::Tls => 16514,
        }
    }
}

/// A transport that is open, and where.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) transport: Transport,
    pub(super) relay: Relay,
}

/// What the client shows and believes; see [`PrivateDaemon::uri_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The right ones.
    Right,
    /// The client shows a key, or a certificate, that the other host does not know.
    UnknownClient,
    /// The client does not know the other host's key, or who issued its certificate.
    UnknownHost,
}

impl Credentials {
    const ALL: [Self; 3] = [Self::Right, Self::UnknownClient, Self::UnknownHost];

    fn folder(self, daemon: &Path) -> PathBuf {
        daemon.join(match self {
            Self::Right => "client",
            Self::UnknownClient => "unknown-client",
            Self::UnknownHost => "unknown-host",
        })
    }
}

/// The name by which the client's list of known hosts knows the server, whatever its port.
const HOST_ALIAS: &str = "private-daemon";

impl PrivateDaemon {
    /// Its QEMU over this transport, as one who has what is needed writes it.
    pub fn remote_uri(&self, transport: Transport) -> String {
        self.uri_with(transport, Credentials::Right)
    }

    /// The same with these credentials.
    pub fn uri_with(&self, transport: Transport, credentials: Credentials) -> String {
        let port = self.port(transport);
        let folder = credentials.folder(self.folder.path());
        let folder = folder.display();
        match transport {
            Transport::Ssh => format!(
                "qemu+ssh://root@127.0.0.1:{port}/system?keyfile={folder}/key&command={folder}/ssh"
            ),
            Transport::Tcp => format!("qemu+tcp://127.0.0.1:{port}/system"),
            Transport::Tls => format!("qemu+tls://127.0.0.1:{port}/system?pkipath={folder}"),
        }
    }

    /// The port of the host's loopback on which it is reached over this transport.
    pub fn port(&self, transport: Transport) -> u16 {
        self.way(transport).relay.port()
    }

    /// How many bytes were sent to it over this transport.
    pub fn received(&self, transport: Transport) -> u64 {
        self.way(transport).relay.passed()
    }

    fn way(&self, transport: Transport) -> &Way {
        let way = self.ways.iter().find(|way| way.transport == transport);
        way.unwrap_or_else(|| panic!("it was not started with {transport:?}"))
    }
}

/// What the first process is told: where libvirtd itself listens on a port, `-l`.
pub(super) fn listens(transports: &[Transport]) -> &'static str {
    match transports.iter().all(|&one| one == Transport::Ssh) {
        true => "",
        false => "-l",
    }
}

/// The lines of `libvirtd.conf` for these transports.
pub(super) fn configuration(transports: &[Transport]) -> String {
    let is_on = |transport| u8::from(transports.contains(&transport));
    let (tcp, tls) = (Transport::Tcp, Transport::Tls);
    let mut lines = format!(
        "listen_addr = \"127.0.0.1\"\nauth_tcp = \"none\"\nlisten_tcp = {}\ntcp_port = \"{}\"\n\
         listen_tls = {}\ntls_port = \"{}\"\n",
        is_on(tcp),
        tcp.inner_port(),
        is_on(tls),
        tls.inner_port(),
    );
    if is_on(tls) != 0 {
        for (key, file) in [
            ("ca_file", "cacert"),
            ("cert_file", "servercert"),
            ("key_file", "serverkey"),
        ] {
            lines += &format!("{key} = \"/etc/libvirt/pki/{file}.pem\"\n");
        }
    }
    lines
}

/// Makes the keys and certificates of both sides in the daemon's folder.
pub(super) fn make_credentials(folder: &Path, transports: &[Transport]) {
    for credentials in Credentials::ALL {
        std::fs::create_dir(credentials.folder(folder)).expect("it is writable");
    }
    if transports.contains(&Transport::Ssh) {
        make_ssh(folder);
    }
    if transports.contains(&Transport::Tls) {
        make_tls(folder);
    }
}

/// A server that lets one key in, and would ask others for a password.
fn make_ssh(folder: &Path) {
    let server = folder.join("ssh");
    std::fs::create_dir(&server).expect("it is writable");
    make_key(&server.join("host_key"));
    let host_key = read(&server.join("host_key.pub"));
    for credentials in Credentials::ALL {
        let client = credentials.folder(folder);
        let known = client.join("known_hosts");
        if credentials == Credentials::UnknownHost {
            std::fs::copy(
                Credentials::Right.folder(folder).join("key"),
                client.join("key"),
            )
            .expect("it is there");
            std::fs::write(&known, "").expect("it is writable");
        } else {
            make_key(&client.join("key"));
            std::fs::write(&known, format!("{HOST_ALIAS} {host_key}")).expect("it is writable");
        }
        let options = [
            "IdentitiesOnly=yes".to_owned(),
            "GlobalKnownHostsFile=none".to_owned(),
            format!("UserKnownHostsFile={}", known.display()),
            format!("HostKeyAlias={HOST_ALIAS}"),
        ];
        let options: String = options.iter().map(|one| format!(" -o {one}")).collect();
        let script = format!("#!/bin/sh\nexec ssh -F none{options} \"$@\"\n");
        write(&client.join("ssh"), &script, 0o755);
    }
    let right = Credentials::Right.folder(folder);
    let authorized = read(&right.join("key.pub"));
    write(&server.join("authorized_keys"), &authorized, 0o600);
    let port = Transport::Ssh.inner_port();
    let configuration = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey /run/sshd/host_key\nPidFile none\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication yes\nAuthorizedKeysFile /run/sshd/authorized_keys\n",
    );
    write(&server.join("config"), &configuration, 0o644);
}

fn make_key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
    run(command.arg(path));
}

/// Two authorities: the one of the server and the right client, and one that neither knows.
fn make_tls(folder: &Path) {
    let server = folder.join("pki");
    let other = folder.join("other-pki");
    for authority in [&server, &other] {
        std::fs::create_dir(authority).expect("it is writable");
        make_certificate(
            authority,
            "ca",
            None,
            "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign",
        );
    }
    make_certificate(
        &server,
        "server",
        Some(&server),
        "subjectAltName=IP:127.0.0.1\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth",
    );
    for credentials in Credentials::ALL {
        let client = credentials.folder(folder);
        // libvirt's client looks first whether it believes its own certificate.
        let (issuer, believed) = match credentials {
            Credentials::Right => (&server, vec![&server]),
            Credentials::UnknownClient => (&other, vec![&server, &other]),
            Credentials::UnknownHost => (&other, vec![&other]),
        };
        make_certificate(
            &client,
            "client",
            Some(issuer),
            "keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=clientAuth",
        );
        let believed = believed.iter().map(|one| read(&one.join("cacert.pem")));
        write(
            &client.join("cacert.pem"),
            &believed.collect::<String>(),
            0o600,
        );
    }
}

/// A key and a certificate for it, issued by the authority in that folder, or by itself.
fn make_certificate(folder: &Path, name: &str, issuer: Option<&Path>, extensions: &str) {
    let file = |kind: &str| folder.join(format!("{name}{kind}.pem"));
    let mut request = Command::new("openssl");
    request.args([
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    let place = folder.file_name().expect("it has a name").to_string_lossy();
    request.args(["-subj", &format!("/CN={name} of {place}"), "-config"]);
    let sections = format!("[req]\ndistinguished_name=name\n[name]\n[extensions]\n{extensions}\n");
    let configuration = folder.join(format!("{name}.cnf"));
    write(&configuration, &sections, 0o600);
    request
        .arg(&configuration)
        .args(["-extensions", "extensions"]);
    request
        .args(["-x509", "-days", "2", "-keyout"])
        .arg(file("key"));
    if let Some(issuer) = issuer {
        request.arg("-CA").arg(issuer.join("cacert.pem"));
        request.arg("-CAkey").arg(issuer.join("cakey.pem"));
    }
    run(request.arg("-out").arg(file("cert")));
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("it was made")
}

fn write(path: &Path, text: &str, mode: u32) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = file.expect("it is writable");
    file.write_all(text.as_bytes()).expect("there is room");
    let permissions = std::fs::Permissions::from_mode(mode);
    file.set_permissions(permissions).expect("it is ours");
}
