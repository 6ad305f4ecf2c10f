//! Each text in real shells, with paths that a shell would read as something else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use super::*;

/// Paths that a shell would read as something else, were they written into its program.
fn paths() -> Vec<Vec<u8>> {
    let names: [&[u8]; 16] = [
        b"plain.sh",
        "ö.sh".as_bytes(),
        "Übersicht 1.docx".as_bytes(),
        b"  two  spaces ",
        b"$(touch PWNED)`touch PWNED`${HOME}$HOME",
        b"a'b\"c\\",
        b"';touch PWNED;'",
        b"\";touch PWNED;\"",
        b"a\ntouch PWNED\n",
        b"\nEND\ntouch PWNED\nEND\n",
        b"-rf",
        b"*?[a-z]~!#&|;<>(){}=%^",
        b"\xff\xfe latin \xf6",
        b"{sample}${sample}${see_sample}",
        b"tab\tbell\x07return\r",
        b"n".repeat(255).leak(),
    ];
    names.map(|name| [b"/up load/", name].concat()).to_vec()
}

/// What the shell prints, which does in `folder` what the agent makes of the arguments.
fn printed(shell: &str, text: &str, path: &[u8], folder: &Path) -> Vec<u8> {
    let mut arguments = posix(text).expect("it is followed").into_iter();
    arguments.next();
    let mut command = Command::new(shell);
    if shell.ends_with("busybox") {
        command.arg("sh");
    }
    for argument in arguments {
        // As the agent does it, which looks at every argument.
        let mut bytes = argument.into_bytes();
        while let Some(at) = find(&bytes, SAMPLE_PLACEHOLDER.as_bytes()) {
            if bytes == SAMPLE_PLACEHOLDER.as_bytes() {
                bytes = path.to_vec();
                break;
            }
            bytes.splice(at..at + SAMPLE_PLACEHOLDER.len(), path.iter().copied());
        }
        command.arg(OsString::from_vec(bytes));
    }
    let output = command.current_dir(folder).output().expect("a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "{text:?} with {:?}", OsStr::from_bytes(path));
    output.stdout
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn shells() -> Vec<&'static str> {
    let known = ["/bin/sh", "/bin/bash", "/bin/busybox"];
    let there = known.into_iter().filter(|path| Path::new(path).exists());
    there.collect()
}

/// Each text prints `<` the path `>`, where `PATH` stands, as one word.
const TEXTS: [(&str, &str); 27] = [
    ("printf '<%s>' {sample}", "<PATH>"),
    ("printf '<%s>' ${sample}", "<PATH>"),
    ("printf '<%s>' \"{sample}\"", "<PATH>"),
    ("printf '<%s>' '{sample}'", "<PATH>"),
    ("printf '<%s>' \"a {sample} b\" c", "<a PATH b><c>"),
    ("printf '<%s>' 'a {sample} b' c", "<a PATH b><c>"),
    ("printf '<%s>' --in={sample}.out", "<--in=PATH.out>"),
    ("printf '<%s>' {sample}{sample}", "<PATHPATH>"),
    ("printf '<%s>' \\{sample}", "<PATH>"),
    ("x={sample}; printf '<%s>' \"$x\"", "<PATH>"),
    ("printf '<%s>' \"$(printf '%s.' {sample})\"", "<PATH.>"),
    ("printf '<%s>' \"$(printf '%s.' \"{sample}\")\"", "<PATH.>"),
    ("printf '<%s>' \"`printf '%s.' {sample}`\"", "<PATH.>"),
    ("printf '<%s>' \"${none-{sample}}\"", "<PATH>"),
    ("printf '<%s>' ${none-{sample}}", "<PATH>"),
    ("(printf '<%s>' {sample})", "<PATH>"),
    ("f() { printf '<%s>' {sample} $#; }; f a b", "<PATH><2>"),
    ("set -- a b; printf '<%s>' {sample} $#", "<PATH><2>"),
    (
        "printf '<%s>' $#; # don't {sample}\nprintf '<%s>' {sample}",
        "<0><PATH>",
    ),
    ("printf '<%s>' a#{sample}", "<a#PATH>"),
    (
        "cat <<END; printf '<%s>' {sample}\nit's {sample}\nEND\nprintf '<%s>' '{sample}'",
        "it's PATH\n<PATH><PATH>",
    ),
    (
        "cat <<-END\n\t{sample}.\n\tEND\nprintf '<%s>' {sample}",
        "PATH.\n<PATH>",
    ),
    (
        "printf '<%s>' $((1 << 2)) {sample}\nprintf '<%s>' {sample}",
        "<4><PATH><PATH>",
    ),
    (
        "file={sample}; printf '<%s>' \"$(case x in *) printf %s. \"$file\";; esac)\"",
        "<PATH.>",
    ),
    ("f=$'a'; printf '<%s>' {sample}", "<PATH>"),
    (
        "cat <<END; printf '<%s>' {sample}\n$(echo no)\nEND\n",
        "no\n<PATH>",
    ),
    (
        "case {sample} in a) ;; *) printf '<%s>' {sample};; esac",
        "<PATH>",
    ),
];

#[test]
fn a_shell_sees_the_path_of_the_sample_as_one_word_in_whatever_quotes_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in shells() {
        for (text, expected) in TEXTS {
            for path in paths() {
                let mut wanted = Vec::new();
                for (number, part) in expected.split("PATH").enumerate() {
                    if number > 0 {
                        wanted.extend_from_slice(&path);
                    }
                    wanted.extend_from_slice(part.as_bytes());
                }
                let found = printed(shell, text, &path, folder.path());
                let (found, wanted) = (OsStr::from_bytes(&found), OsStr::from_bytes(&wanted));
                assert_eq!(found, wanted, "{shell}: {text:?}");
            }
        }
    }
    let left = std::fs::read_dir(folder.path()).expect("it is readable");
    assert_eq!(left.count(), 0, "a name was run as a command");
}

/// Each would split the path, or read it as a program, in one shell or another.
const REFUSED: [&str; 13] = [
    "echo \"`echo \\\"{sample}\\\"`\"",
    "echo `echo \\`echo {sample}\\``",
    "x=\"$(case x in x) echo {sample};; esac)\"",
    "(case x in x) ;; esac; cat {sample})",
    "cat <<END\n$(cat {sample})\nEND\n",
    "cat <<END\n`cat {sample}`\nEND\n",
    "cat $'a\\'{sample}'",
    "cat $'{sample}'",
    "cat <<'E F'\nit's\nE F\ncat {sample}",
    "cat <<E\r\nit's\r\nE\r\ncat {sample}\r\n",
    "((x=1<<2)); cat {sample}",
    "cat <<E\na\\\nE\nit's\nE\ncat {sample}",
    "cat <<$(E)\nit's\n$(E)\ncat {sample}",
];

#[test]
fn a_reference_to_the_sample_where_the_shell_is_not_followed_is_refused_with_what_works() {
    for text in REFUSED {
        let why = posix(text).expect_err(text);
        assert!(why.contains("`file={sample};`"), "{why}");
        // The same without a reference there.
        let before = format!("echo {{sample}}\n{}", text.replace("{sample}", "x"));
        posix(&before).expect(text);
    }
}

#[test]
fn a_here_string_is_none_that_begins_with_the_next_line() {
    let text = "cat <<<{sample}\nprintf '<%s>' '{sample}'";
    let arguments = posix(text).unwrap();
    assert!(
        arguments[2].ends_with("cat <<<\"${see_sample}\"\nprintf '<%s>' ''\"${see_sample}\"''")
    );
}

#[test]
fn a_reference_that_would_come_of_a_word_and_the_braces_around_it_is_refused() {
    assert!(posix("cat <<{{sample}}\nx\n{sample}\n").is_err());
}

#[test]
fn the_samples_environment_tells_nothing_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = printed("/bin/sh", "env; : {sample}", b"/up/x", folder.path());
    assert!(find(&found, b"see_sample").is_none());
    assert!(find(&found, b"/up/x").is_none());
}

#[test]
fn a_text_without_a_reference_is_left_alone() {
    let text = "echo $1 {samples} $sample";
    assert_eq!(posix(text).unwrap(), ["/bin/sh", "-c", text]);
}

mod properties {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_text_has_the_agent_write_the_path_into_the_program(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "{sample}", "${sample}", "{sample", "sample}", "$", "{", "}", "\\", "'", "\"", "`", "(", ")", "$(",
                "$((", "<<", "<<-", "E", "\n", "#", " ", "ö",
            ]), 0..24)
        ) {
            let Ok(arguments) = posix(&pieces.concat()) else {
                return Ok(());
            };
            if let [_, _, text, _, _] = arguments.as_slice() {
                proptest::prop_assert!(!text.contains(SAMPLE_PLACEHOLDER), "{text}");
            } else {
                proptest::prop_assert!(!arguments[2].contains(SAMPLE_PLACEHOLDER));
            }
        }
    }
}
