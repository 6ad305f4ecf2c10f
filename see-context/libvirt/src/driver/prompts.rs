//! Connections that ask nobody: libvirt starts the program `ssh`, which would wait at the terminal for a password, a
//! passphrase, or a word on a host's key.

use std::borrow::Cow;

/// The parameter by which libvirt runs `ssh` in batch mode.
const NO_TTY: &str = "no_tty";

/// The URI with `ssh` in batch mode, unless it says itself whether it is.
pub(crate) fn without_prompts(uri: &str) -> Cow<'_, str> {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let is_ssh = address
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().ends_with("+ssh"));
    let mut names = query
        .split(['&', ';'])
        .filter_map(|parameter| parameter.split('=').next());
    match is_ssh && !names.any(|name| name == NO_TTY) {
        true if query.is_empty() => format!("{address}?{NO_TTY}=1").into(),
        true => format!("{uri}&{NO_TTY}=1").into(),
        false => uri.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_in_batch_mode_unless_the_uri_says_otherwise() {
        for (uri, native) in [
            ("qemu+ssh://host/system", "qemu+ssh://host/system?no_tty=1"),
            ("lxc+ssh://host/?", "lxc+ssh://host/?no_tty=1"),
            (
                "qemu+ssh://u@host:1/system?keyfile=/k",
                "qemu+ssh://u@host:1/system?keyfile=/k&no_tty=1",
            ),
            (
                "qemu+ssh://host/system?no_tty=0&keyfile=/k",
                "qemu+ssh://host/system?no_tty=0&keyfile=/k",
            ),
            ("qemu+SSH://host/system", "qemu+SSH://host/system?no_tty=1"),
            ("qemu+libssh://host/system", "qemu+libssh://host/system"),
            ("qemu+tls://host/system", "qemu+tls://host/system"),
            ("qemu:///system?a=+ssh://", "qemu:///system?a=+ssh://"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_prompts(uri), native);
        }
    }
}
