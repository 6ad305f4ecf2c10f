//! The sample on its way into the guest: its file, and what it is called there.

use super::guest::Guest;
use super::order::{Command, Order};
use see_agent::protocol::{MAX_NAME, Upload};
use see_core::{Error, ErrorKind, Event, Result};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::fs::{File, OpenOptions};

/// How the agent's own files in its upload folder begin.
const AGENTS_OWN: &[u8] = b".see-unfinished-";
/// `O_NONBLOCK` of Linux: opening a pipe in place of the file waits for nobody.
const NON_BLOCKING: i32 = 0o4000;

/// Who takes a sample in the guest, by what its names may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    /// SEE's agent on a Unix: any name.
    Unix,
    /// SEE's agent on Windows; `shell` where the name goes into a command for `cmd`.
    Windows { shell: bool },
    /// python-see's agent, which writes the name into a command for a shell.
    PythonSee,
}

impl Taker {
    /// SEE's agent on this system.
    pub(super) fn agent(system: &str, order: &Order) -> Self {
        match system {
            "windows" => Self::Windows {
                shell: matches!(order.command, Command::Shell(_)),
            },
            _ => Self::Unix,
        }
    }
}

/// Opens the sample, and tells with what name it goes into the guest where that is not its own.
pub(super) async fn open(
    guest: &Guest,
    order: &Order,
    path: &Path,
    taker: Taker,
) -> Result<(Upload, File)> {
    let unreadable = |error| Error::io("the sample cannot be read", error).subject(path.display());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NON_BLOCKING)
        .open(path)
        .await
        .map_err(unreadable)?;
    let found = file.metadata().await.map_err(unreadable)?;
    if !found.is_file() {
        let error = Error::new(ErrorKind::Configuration, "the sample has to be a file");
        return Err(error.subject(path.display()));
    }
    let own = path.file_name().unwrap_or_default();
    let (name, why) = name(own, taker);
    if let Some(why) = why {
        let name = String::from_utf8_lossy(&name).into_owned();
        let message = format!("the sample is called {name} in the guest: {why}");
        // Also where the same order was begun before.
        let name = order.renamed.get_or_init(|| name);
        let event = Event::new("sample_renamed")
            .with("sample", path)
            .with("guest_name", name.clone())
            .with("message", message);
        guest.post_surely(event).await;
    }
    let upload = Upload {
        name,
        mode: 0o755,
        size: found.len(),
    };
    Ok((upload, file))
}

/// What a file of this name is called in the guest, and why it is not called so.
fn name(own: &OsStr, taker: Taker) -> (Vec<u8>, Option<&'static str>) {
    let own = own.as_bytes();
    let (name, mut why) = match taker {
        Taker::Unix => (Cow::Borrowed(own), None),
        Taker::Windows { shell } => windows(own, shell),
        Taker::PythonSee => only(
            own,
            |c| c.is_ascii_alphanumeric() || "._-".contains(c),
            "python-see's agent writes names into commands without quotes",
        ),
    };
    let mut name = name.into_owned();
    if name.starts_with(AGENTS_OWN) {
        name[0] = b'_';
        why = Some("the agent's own files are called like it");
    }
    if taker == Taker::PythonSee && name.starts_with(b"-") {
        name[0] = b'_';
        why = Some("commands take it for an option");
    }
    if name.len() > MAX_NAME {
        shorten(&mut name);
        why = Some("names have at most 255 bytes there");
    }
    (name, why)
}

/// The name with `_` in place of every other character.
fn only<'a>(
    own: &'a [u8],
    is_allowed: impl Fn(char) -> bool,
    why: &'static str,
) -> (Cow<'a, [u8]>, Option<&'static str>) {
    match std::str::from_utf8(own) {
        Ok(text) if text.chars().all(&is_allowed) => (Cow::Borrowed(own), None),
        _ => {
            let text = String::from_utf8_lossy(own);
            let plain = |c: char| match is_allowed(c) && c != char::REPLACEMENT_CHARACTER {
                true => c,
                false => '_',
            };
            let name: String = text.chars().map(plain).collect();
            (Cow::Owned(name.into_bytes()), Some(why))
        }
    }
}

fn windows(own: &[u8], shell: bool) -> (Cow<'_, [u8]>, Option<&'static str>) {
    let forbidden = "Windows has no such names";
    let (name, mut why) = only(
        own,
        |c| !c.is_control() && !"<>:\"/\\|?*".contains(c),
        forbidden,
    );
    let mut name = name.into_owned();
    if let Some(last) = name.last_mut().filter(|last| matches!(last, b'.' | b' ')) {
        *last = b'_';
        why = Some("Windows drops dots and spaces at the end of names");
    }
    if is_device(&name) {
        name.insert(0, b'_');
        why = Some("Windows has a device of that name");
    }
    if shell {
        let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
        let of_cmd = "cmd reads some of its characters as its own";
        let (plain, changed) = only(&name, plain, of_cmd);
        name = plain.into_owned();
        why = why.or(changed);
    }
    (Cow::Owned(name), why)
}

/// Whether Windows takes it for a device, with whatever extension.
fn is_device(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name).to_uppercase();
    let stem = text.split('.').next().unwrap_or_default().trim_end();
    let numbered = |prefix| {
        let number = stem.strip_prefix(prefix);
        number.is_some_and(|number| {
            let mut digits = number.chars();
            let digit = digits.next();
            digit.is_some_and(|digit| "0123456789¹²³".contains(digit)) && digits.next().is_none()
        })
    };
    matches!(stem, "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT")
}

/// Takes bytes out before the extension, and cuts no character in two.
fn shorten(name: &mut Vec<u8>) {
    /// A longer one is none.
    const EXTENSION: usize = 32;
    let dot = name.iter().rposition(|byte| *byte == b'.');
    let dot = dot.filter(|dot| *dot > 0 && name.len() - dot <= EXTENSION);
    let extension = name.split_off(dot.unwrap_or(name.len()));
    let mut length = MAX_NAME - extension.len();
    if std::str::from_utf8(name).is_ok() {
        while name.get(length).is_some_and(|byte| byte & 0xC0 == 0x80) {
            length -= 1;
        }
    }
    name.truncate(length);
    name.extend(extension);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Taker = Taker::Windows { shell: false };
    const CMD: Taker = Taker::Windows { shell: true };

    #[test]
    fn names_stay_where_the_guest_has_such_names_and_are_changed_for_a_reason_where_not() {
        let cases: [(Taker, &[u8], &[u8]); 25] = [
            (Taker::Unix, "ö.sh".as_bytes(), "ö.sh".as_bytes()),
            (
                Taker::Unix,
                b" $(a)`b`'\"\\\n\t\x07",
                b" $(a)`b`'\"\\\n\t\x07",
            ),
            (Taker::Unix, b"\xff\xfe\xf6", b"\xff\xfe\xf6"),
            (Taker::Unix, b"-rf", b"-rf"),
            (Taker::Unix, b"con", b"con"),
            (Taker::Unix, b".see-unfinished-0", b"_see-unfinished-0"),
            (
                WINDOWS,
                "Übersicht 1.docx".as_bytes(),
                "Übersicht 1.docx".as_bytes(),
            ),
            (WINDOWS, b"a&b%c%^d.exe", b"a&b%c%^d.exe"),
            (WINDOWS, b"a:b<c>\"d|e?f*g\\.exe", b"a_b_c__d_e_f_g_.exe"),
            (WINDOWS, b"a\nb\x1f", b"a_b_"),
            (WINDOWS, b"\xf6.exe", b"_.exe"),
            (WINDOWS, b"a. .", b"a. _"),
            (WINDOWS, b"NUL", b"_NUL"),
            (WINDOWS, b"con.txt", b"_con.txt"),
            (WINDOWS, b"Com1.exe", b"_Com1.exe"),
            (WINDOWS, "lpt².x".as_bytes(), "_lpt².x".as_bytes()),
            (WINDOWS, b"com10.exe", b"com10.exe"),
            (WINDOWS, b"console.exe", b"console.exe"),
            (
                CMD,
                "Übersicht 1.exe".as_bytes(),
                "Übersicht_1.exe".as_bytes(),
            ),
            (CMD, b"a&b%c%^d.exe", b"a_b_c__d.exe"),
            (CMD, b"nul", b"_nul"),
            (Taker::PythonSee, b"sample-1.sh", b"sample-1.sh"),
            (Taker::PythonSee, "ö $x;'.sh".as_bytes(), b"___x__.sh"),
            (Taker::PythonSee, b"-rf", b"_rf"),
            (Taker::PythonSee, b"\xff", b"_"),
        ];
        for (taker, own, expected) in cases {
            let (found, why) = name(OsStr::from_bytes(own), taker);
            let own = OsStr::from_bytes(own);
            assert_eq!(
                OsStr::from_bytes(&found),
                OsStr::from_bytes(expected),
                "{taker:?}: {own:?}"
            );
            assert_eq!(
                why.is_some(),
                own.as_bytes() != found,
                "{taker:?}: {own:?}: {why:?}"
            );
        }
    }

    #[test]
    fn a_name_that_is_too_long_keeps_its_extension_and_whole_characters() {
        let whole = "x".repeat(255);
        assert_eq!(
            name(OsStr::new(&whole), Taker::Unix),
            (whole.into_bytes(), None)
        );
        let long = format!("{}.exe", "ö".repeat(200));
        let (found, why) = name(OsStr::new(&long), Taker::Unix);
        assert_eq!(
            String::from_utf8(found).unwrap(),
            format!("{}.exe", "ö".repeat(125))
        );
        assert!(why.is_some());
    }
}
