//! URIs of other hosts: what in one has to change where no connection comes about.

use see_core::{Error, ErrorKind, Result};
use see_libvirt::is_on_this_host;

/// How a daemon on another host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// By the program `ssh`, or by a library that does the same.
    Ssh,
    Tcp,
    Tls,
    /// One that is not known here.
    Other,
}

impl Transport {
    /// That of a URI with a host: TLS, unless it names another.
    fn of(uri: &str) -> Self {
        let scheme = uri.split("://").next().unwrap_or_default();
        match scheme.split_once('+').map(|(_, name)| name) {
            Some("ssh" | "libssh" | "libssh2") => Self::Ssh,
            Some("tcp") => Self::Tcp,
            Some("tls") | None => Self::Tls,
            Some(_) => Self::Other,
        }
    }
}

/// What the user of a URI with another host can do about an error of its connection; `None` where nothing is known.
pub(super) fn advice(uri: &str, error: &see_libvirt::Error) -> Option<String> {
    if is_on_this_host(uri) {
        return None;
    }
    let host = host_of(uri);
    // Without the URI, which names files of its own.
    let said = error.cause().to_string();
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let transport = Transport::of(uri);
    if error.is_timed_out() {
        return Some(format!(
            "`{host}` does not answer: check host and port in the URI, and whether a firewall drops what is sent there"
        ));
    }
    if says(&[
        "Could not resolve",
        "unable to resolve",
        "Name or service not known",
    ]) {
        return Some(format!(
            "no address is known for the host `{host}` in the URI"
        ));
    }
    let listener = match transport {
        Transport::Ssh => "an SSH server (sshd)",
        Transport::Tcp => "libvirt (virtproxyd-tcp.socket, or libvirtd with `listen_tcp`)",
        Transport::Tls => "libvirt (virtproxyd-tls.socket, or libvirtd with `listen_tls`)",
        Transport::Other => return None,
    };
    let nobody_listens = Some(format!(
        "check host and port in the URI: is that host up, and does {listener} take connections on that port?"
    ));
    let advice = match transport {
        // Also the helper there says that a connection was refused.
        Transport::Ssh if says(&["virt-ssh-helper", "libvirt-sock", "nc:", "netcat"]) => {
            "SSH works, libvirt's daemon there does not: is it installed and running, and is the URI's user in the \
             group `libvirt`? `socket=` in the URI names a socket of its own"
                .to_owned()
        }
        Transport::Ssh if says(&["Host key verification failed", "host key"]) => format!(
            "the key of `{host}` is not the one that SSH knows: connect to it once with `ssh`, compare the key with \
             the host's own, and add it to the file of known hosts"
        ),
        Transport::Ssh if says(&["Permission denied", "uthentication", "Too many"]) => {
            "the host takes no key of ours for the URI's user: name the key with `keyfile=` in the URI or load it into \
             the agent, since nobody is asked for a password or a passphrase, and check the name before the `@`"
                .to_owned()
        }
        Transport::Tls if says(&["Our own certificate", "pkipath", "clientcert", "clientkey", "cacert"]) => {
            "the files of this side do not fit: the folder of `pkipath=` in the URI has to hold `cacert.pem`, \
             `clientcert.pem` and `clientkey.pem`"
                .to_owned()
        }
        Transport::Tls if says(&["verify peer's certificate", "ertificate"]) => format!(
            "the certificate of the other host is not believed: `cacert.pem` in the folder of `pkipath=` has to be of \
             the authority that issued it, and it has to name the host `{host}` as the URI writes it"
        ),
        Transport::Tls if says(&["TLS", "handshake"]) => {
            "the other host refused our certificate: `clientcert.pem` in the folder of `pkipath=` in the URI has to \
             be issued by an authority that it knows, and be among those that it lets in"
                .to_owned()
        }
        Transport::Tcp if says(&["uthentication", "SASL"]) => {
            "the other host asks for a login, which is not given over TCP: use `qemu+ssh` or `qemu+tls` in the URI"
                .to_owned()
        }
        _ => return nobody_listens,
    };
    Some(advice)
}

/// Refuses a URI with a password: it would stand in the ledger and in messages, and no transport takes one.
///
/// # Errors
/// [`ErrorKind::Configuration`] without the URI.
pub(super) fn refuse_password(uri: &str) -> Result<()> {
    let user = authority(uri).rsplit_once('@').map(|(user, _)| user);
    match user.is_some_and(|user| user.contains(':')) {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::Configuration,
            "the URI of the hypervisor holds a password, which no transport of libvirt takes",
        )
        .advice("take it out, and use a key (`keyfile=`, or the SSH agent) or a certificate (`pkipath=`)")),
    }
}

/// The host in a URI, without user and port.
fn host_of(uri: &str) -> &str {
    let place = authority(uri);
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    match host.split_once(']') {
        Some((bracketed, _)) => bracketed.trim_start_matches('['),
        None => host.split(':').next().unwrap_or(host),
    }
}

/// What stands between `//` and the path.
fn authority(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_tells_its_transport_and_its_host() {
        for (uri, transport, host) in [
            ("qemu+ssh://user@far:22/system", Transport::Ssh, "far"),
            ("qemu+libssh2://far/system", Transport::Ssh, "far"),
            ("qemu+tcp://10.0.0.1:1/system", Transport::Tcp, "10.0.0.1"),
            ("qemu://[fe80::1]:16514/system", Transport::Tls, "fe80::1"),
            ("qemu+tls://far?pkipath=/p", Transport::Tls, "far"),
        ] {
            assert_eq!(Transport::of(uri), transport, "{uri}");
            assert_eq!(host_of(uri), host, "{uri}");
        }
    }

    #[test]
    fn a_password_in_a_uri_is_refused_and_not_repeated() {
        let error = refuse_password("qemu+ssh://me:tiger@far/system").unwrap_err();
        assert!(!error.chain().contains("tiger"), "{error:?}");
        for uri in [
            "qemu+ssh://me@far:22/system",
            "qemu+tls://[::1]:16514/system",
            "qemu:///system?socket=/a:b@c",
        ] {
            refuse_password(uri).unwrap();
        }
    }
}
