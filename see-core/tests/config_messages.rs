//! What a person reads who made a mistake in a configuration.

use std::collections::BTreeMap;
use std::fmt::Write;

use see_core::Error;
use see_core::config::{
    ConfigPath, Configuration, DurationValue, Excerpt, HooksSection, Located, OneOrMany, RunFile,
    Size, Substitutions,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only what is refused matters")]
struct Machine {
    image: Option<ConfigPath>,
    #[serde(alias = "memory_size")]
    memory: Option<Size>,
    cpus: Option<u16>,
    priority: Option<i8>,
    share: Option<f64>,
    hypervisor: Option<String>,
    acceleration: Option<Acceleration>,
    console: Option<bool>,
    deadline: Option<DurationValue>,
    network: Option<Network>,
    filesystem: Option<OneOrMany<Filesystem>>,
    labels: Option<BTreeMap<String, u8>>,
    corner: Option<(u8, u8)>,
    device: Option<Device>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only what is refused matters")]
struct Network {
    mode: Located<String>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only what is refused matters")]
struct Filesystem {
    source_path: ConfigPath,
    target_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Acceleration {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only what is refused matters")]
enum Device {
    None,
    Disk { bus: String },
    Cdrom(u8),
}

fn refusal<T>(result: see_core::Result<T>, text: &str) -> String {
    let error = match result {
        Ok(_) => panic!("this was not refused: {text}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), see_core::ErrorKind::Configuration, "{error}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message
}

fn read<T: DeserializeOwned>(text: &str) -> see_core::Result<T> {
    Configuration::from_str("run.json", text)?.deserialize()
}

/// Every text with the message that it gets.
fn messages<T>(texts: &[&str], read: impl Fn(&str) -> see_core::Result<T>) -> String {
    let mut all = String::new();
    for text in texts {
        let message = refusal(read(text), text);
        writeln!(
            all,
            "{}\n  {message}\n",
            text.escape_debug()
                .to_string()
                .replace("\\\"", "\"")
                .replace("\\'", "'")
        )
        .expect("a string takes all");
    }
    all
}

/// Compares with the stored messages; the texts stand beside them already.
macro_rules! assert_messages {
    (($($arguments:tt)*)) => {
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!(messages($($arguments)*));
        })
    };
}

#[test]
fn text_that_is_not_json_is_refused_with_line_and_column() {
    assert_messages!((
        &[
            "",
            "// nothing but a comment\n",
            "{",
            "{\n  \"a\": [1, 2\n",
            "{\n  \"a\": 1\n  \"b\": 2\n}",
            "{\"a\" 1}",
            "{\"a\": }",
            "{\"a\":",
            "{a: 1}",
            "{'a': 1}",
            "{\"a\": True}",
            "{\"a\": qemu}",
            "{\"a\": 0x10}",
            "{\"a\": +1}",
            "{\"a\": .5}",
            "{\"a\": -}",
            "{\"a\": NaN}",
            "{\"a\": 007}",
            "{\"a\": 1e999}",
            "{\"a\": \"open",
            "{\"a\": \"open\n}",
            "{\"a\": \"\\q\"}",
            "{\"a\": \"\\ud800\"}",
            "{\"a\": 1} {}",
            "{\"a\": 1}]",
            "[1 2]",
            "[,]",
            "/* open",
            "{\n  \"ä\": 1, \"b\": ?\n}",
            "<domain/>",
        ],
        |text| Configuration::from_str("run.json", text)
    ));
}

#[test]
fn a_key_given_twice_is_refused_with_both_places() {
    assert_messages!((
        &["{\n  \"a\": {\"b\": 1,\n    \"c\": 2, \"b\": 3}\n}"],
        |text| Configuration::from_str("run.json", text)
    ));
}

#[test]
fn nesting_without_end_is_refused() {
    for depth in [65, 600, 100_000] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        let message = refusal(Configuration::from_str("run.json", &text), "nested lists");
        assert!(message.contains("expected at most 64"), "{message}");
    }
    let text = "[".repeat(64) + &"]".repeat(64);
    assert!(Configuration::from_str("run.json", &text).is_ok());
}

#[test]
fn a_typed_configuration_refuses_each_kind_of_mistake() {
    assert_messages!((
        &[
            "[]",
            "null",
            "{\n  \"imgae\": \"guest.qcow2\"\n}",
            "{\"banana\": 1}",
            "{\"image\": 5}",
            "{\"image\": \"\"}",
            "{\"image\": [\"a\", \"b\"]}",
            "{\"memory\": \"256 megs\"}",
            "{\"memory\": -1}",
            "{\"memory\": 1.5}",
            "{\"memory\": true}",
            "{\"memory\": \"99999999999 TiB\"}",
            "{\"memory\": \"1GiB\", \"memory_size\": \"2GiB\"}",
            "{\"cpus\": 70000}",
            "{\"cpus\": -1}",
            "{\"cpus\": 1.5}",
            "{\"cpus\": \"2\"}",
            "{\"cpus\": []}",
            "{\"priority\": 200}",
            "{\"share\": \"0.5\"}",
            "{\"hypervisor\": {}}",
            "{\"hypervisor\": false}",
            "{\"acceleration\": \"kmv\"}",
            "{\"acceleration\": \"fast\"}",
            "{\"acceleration\": 1}",
            "{\"console\": \"true\"}",
            "{\"console\": 1}",
            "{\"deadline\": \"soon\"}",
            "{\"deadline\": -5}",
            "{\"deadline\": \"1s1h\"}",
            "{\"deadline\": 1e300}",
            "{\"deadline\": {}}",
            "{\"network\": {}}",
            "{\"network\": {\"mode\": null}}",
            "{\"network\": {\"mod\": \"none\"}}",
            "{\"network\": \"none\"}",
            "{\"filesystem\": {\"source_path\": \"a\"}}",
            "{\"filesystem\": [\n  {\"source_path\": \"a\", \"target_path\": \"b\"},\n  {\"source_path\": 1, \"target_path\": \"b\"}\n]}",
            "{\"labels\": {\"a b\": 256}}",
            "{\"corner\": [1]}",
            "{\"corner\": [1, 2, 3]}",
            "{\"device\": \"disk\"}",
            "{\"device\": {\"disk\": {\"buss\": \"ide\"}}}",
            "{\"device\": {\"disc\": {}}}",
            "{\"device\": {\"cdrom\": 1000}}",
            "{\"device\": {}}",
            "{\"device\": {\"disk\": {}, \"cdrom\": 1}}",
        ],
        read::<Machine>
    ));
}

#[test]
fn a_run_file_refuses_each_kind_of_mistake() {
    assert_messages!((
        &[
            "[]",
            "{}",
            "{\"version\": 2, \"contexts\": {}}",
            "{\"version\": \"1\", \"context\": {}}",
            "{\"version\": 1}",
            "{\"version\": 1, \"context\": null}",
            "{\"version\": 1, \"context\": \"qemu.json\"}",
            "{\"version\": 1, \"contxt\": {}}",
            "{\"version\": 1, \"context\": {}, \"protocol\": {\"step\": \"poweron\"}}",
            "{\"version\": 1, \"context\": {}, \"hooks\": null}",
            "{\"version\": 1, \"context\": {}, \"hooks\": [\"commands\", \"screen\"]}",
            "{\"version\": 1, \"context\": {}, \"hooks\": \"commands\"}",
        ],
        |text| RunFile::read(&Configuration::from_str("run.json", text)?)
    ));
}

#[test]
fn a_hooks_section_refuses_each_kind_of_mistake() {
    assert_messages!((
        &[
            "null",
            "[\"commands\"]",
            "[{\"name\": \"commands\"}]",
            "{}",
            "{\"configuration\": {}}",
            "{\"hooks\": null}",
            "{\"hooks\": \"commands\"}",
            "{\"hooks\": [\"commands\", \"screen\"]}",
            "{\"hooks\": [null]}",
            "{\"hooks\": [[]]}",
            "{\"hooks\": [{}]}",
            "{\"hooks\": [{\"nmae\": \"commands\"}]}",
            "{\"hooks\": [{\"name\": null}]}",
            "{\"hooks\": [{\"name\": \"a\", \"required\": \"no\"}]}",
            "{\"hooks\": [{\"name\": \"a\", \"configuration\": []}]}",
            "{\"hooks\": [], \"configuration\": []}",
            "{\"hooks\": [], \"hook\": []}",
            "{\"hooks\": {\"hooks\": {\"hooks\": []}}}",
            "{\"hooks\": {\"hooks\": []}, \"configuration\": {}}",
            "{\"hooks\": {\"configuration\": {}}}",
        ],
        |text| HooksSection::read(&Configuration::from_str("hooks.json", text)?)
    ));
}

#[test]
fn substitutions_refuse_what_they_do_not_know() {
    let values = Substitutions::default().environment(|_| None);
    assert_messages!((
        &[
            "{\"a\": \"${sampel}\"}",
            "{\"a\": \"${HOME}/x\"}",
            "{\"a\": \"${}\"}",
            "{\"a\": \"${env:}\"}",
            "{\"a\": [\"x\", \"${env:NOT_SET}\"]}",
            "{\"a\": \"${env:A=B}\"}",
            "{\"a\": \"${sample\"}",
            "{\"a\": \"run ${command} now\"}",
        ],
        |text| Configuration::from_str("run.json", text)?.substitute(&values)
    ));
}

#[test]
fn overrides_refuse_what_leads_nowhere() {
    let text = "{\"context\": {\"memory\": \"1GiB\"}, \"list\": [1, 2]}";
    assert_messages!((
        &[
            "context.memory.size=1",
            "context[0]=1",
            "list.a=1",
            "list[3]=1",
            "list[x]=1",
            "list[0=1",
            "list[0]x=1",
            "=1",
            "a..b=1",
            "a.",
            "\"a=1",
        ],
        |assignment| Configuration::from_str("run.json", text)?.set_assignment(assignment)
    ));
}

#[test]
fn a_mistake_in_an_override_names_the_override_and_not_its_value() {
    let mut machine = Configuration::empty();
    machine.set_assignment("cpus=hunter2").unwrap();
    insta::assert_snapshot!(
        refusal(machine.deserialize::<Machine>(), "cpus=hunter2"),
        @"--set cpus: expected a whole number, found a string"
    );
    let mut machine = Configuration::empty();
    machine.set_assignment("network={\"mode\": 7}").unwrap();
    insta::assert_snapshot!(
        refusal(machine.deserialize::<Machine>(), "network"),
        @"--set network: network.mode: expected a string, found a number (put it in quotes)"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused_as_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let shown = |path: &std::path::Path| {
        refusal(Configuration::from_file(path), "a file")
            .replace(&folder.path().display().to_string(), "FOLDER")
    };
    insta::assert_snapshot!(
        shown(&path),
        @"FOLDER/run.json: cannot be read: No such file or directory (os error 2)"
    );
    std::fs::write(&path, b"{\n  \"\xc3\xa4\": \"\xff\"}").unwrap();
    insta::assert_snapshot!(
        shown(&path),
        @"FOLDER/run.json:2:9: expected UTF-8 text, found the byte 0xff"
    );
    std::fs::write(&path, vec![b' '; 4 * 1024 * 1024 + 1]).unwrap();
    insta::assert_snapshot!(
        shown(&path),
        @"FOLDER/run.json:1:1: expected a file of at most 4 MiB, found a longer one"
    );
    insta::assert_snapshot!(
        shown(folder.path()),
        @"FOLDER: cannot be read: Is a directory (os error 21)"
    );
}

#[test]
fn a_path_to_nothing_is_refused_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    std::fs::write(folder.path().join("guest.qcow2"), "").unwrap();
    let image = |text: &str| {
        let text = format!("{{\"image\": {text}}}");
        let machine: Machine = Configuration::from_str(&file, &text)
            .unwrap()
            .deserialize()
            .unwrap();
        machine.image.unwrap().existing_file("a disk image")
    };
    let shown = |text: &str| {
        refusal(image(text), text).replace(&folder.path().display().to_string(), "FOLDER")
    };
    assert_eq!(
        image("\"guest.qcow2\"").unwrap(),
        folder.path().join("guest.qcow2")
    );
    insta::assert_snapshot!(
        shown("\"gest.qcow2\""),
        @"FOLDER/run.json:1:11: image: expected a disk image at `FOLDER/gest.qcow2`, found nothing (a relative path starts at the folder of its file)"
    );
    insta::assert_snapshot!(
        shown("\".\""),
        @"FOLDER/run.json:1:11: image: expected a disk image at `FOLDER/.`, found a folder"
    );
}

#[test]
fn the_excerpt_of_an_error_shows_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    std::fs::write(
        &path,
        "\u{feff}{\n  \"token\": \"hush\", \"cpus\": \"many\"\n}",
    )
    .unwrap();

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what is refused matters")]
    struct Agent {
        token: String,
        cpus: u8,
    }
    let error: Error = Configuration::from_file(&path)
        .and_then(|tree| tree.deserialize::<Agent>())
        .unwrap_err();
    let excerpt = Excerpt::of(error.place().unwrap()).unwrap();
    assert_eq!(excerpt.text, "  \"token\": \"****\", \"cpus\": \"many\"");
    assert_eq!((excerpt.line, excerpt.before, excerpt.length), (2, 27, 6));
}
