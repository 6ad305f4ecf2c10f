//! The configuration tree: what it keeps, and what typed configurations get from it.

mod properties;

use std::collections::BTreeMap;
use std::time::Duration;

use see_core::config::{
    ConfigPath, Configuration, DurationValue, HooksSection, Located, OneOrMany, Origin, RunFile,
    Size, Substitutions, fields_of, nearest,
};
use serde::Deserialize;
use serde_json::json;

fn tree(text: &str) -> Configuration {
    Configuration::from_str("dir/run.json", text).unwrap()
}

fn position(node: &Configuration) -> (u32, u32) {
    match node.origin() {
        Origin::File { line, column, .. } => (*line, *column),
        other => panic!("not from a file: {other}"),
    }
}

#[test]
fn comments_trailing_commas_windows_lines_and_a_byte_order_mark_are_read() {
    let tree = tree("\u{feff}{ // first\r\n  /* é */ \"a\": [1, 2,],\r\n  \"b\": null,\r\n}\r\n");
    assert_eq!(tree.to_json(), json!({"a": [1, 2], "b": null}));
    assert_eq!(position(&tree), (1, 1));
    assert_eq!(position(&tree.get("a").unwrap().items()[1]), (2, 20));
    assert_eq!(
        tree.key_place("b").unwrap().to_string(),
        "dir/run.json:3:3: b"
    );
}

#[test]
fn keys_that_are_no_words_are_quoted_in_paths() {
    let tree = tree(r#"{"a.b": [{"c d": 1}]}"#);
    let inner = tree.get("a.b").unwrap().items()[0].get("c d").unwrap();
    assert_eq!(inner.path(), "\"a.b\"[0].\"c d\"");
    let mut changed = tree.clone();
    changed.set(&inner.path(), "2").unwrap();
    assert_eq!(changed.to_json(), json!({"a.b": [{"c d": 2}]}));
}

#[test]
fn a_debug_form_shows_no_values() {
    let shown = format!("{:?}", tree(r#"{"token": "hush"}"#).get("token").unwrap());
    assert_eq!(shown, "Configuration(a string at dir/run.json:1:11: token)");
}

#[derive(Debug, Deserialize)]
struct Everything {
    flag: bool,
    small: u8,
    #[serde(alias = "other")]
    large: i64,
    ratio: f32,
    letter: char,
    text: String,
    absent: Option<u8>,
    null: Option<u8>,
    #[serde(default)]
    defaulted: Vec<u8>,
    one: OneOrMany<String>,
    many: OneOrMany<String>,
    located: Located<DurationValue>,
    size: Option<Located<Size>>,
    path: ConfigPath,
    raw: Configuration,
    raws: Vec<Configuration>,
    map: BTreeMap<String, Located<u16>>,
    plain: Kind,
    tuple: (u8, String),
    list: Vec<Kind>,
    maximum: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Nothing,
    One(u8),
    Pair(u8, u8),
    Named { value: OneOrMany<u8> },
}

#[test]
fn every_sort_of_field_is_read() {
    let read: Everything = tree(
        r#"{
  "flag": true, "small": 255, "other": -9223372036854775808, "ratio": 1, "letter": "é",
  "text": "t", "null": null, "one": "a", "many": ["a", "b"], "located": "1m30s", "size": "2KiB",
  "path": "guest.qcow2",
  "raw": {"x": [1]}, "raws": [1, "two", null],
  "map": {"a": 1, "b": 2},
  "plain": "nothing", "tuple": [1, "x"],
  "list": ["nothing", {"one": 1}, {"pair": [1, 2]}, {"named": {"value": 3}}, {"nothing": null}],
  "maximum": 18446744073709551615
}"#,
    )
    .deserialize()
    .unwrap();
    assert!(read.flag);
    assert_eq!((read.small, read.large, read.ratio), (255, i64::MIN, 1.0));
    assert_eq!((read.letter, read.text.as_str()), ('é', "t"));
    assert_eq!((read.absent, read.null), (None, None));
    assert!(read.defaulted.is_empty());
    assert_eq!(*read.one, ["a"]);
    assert_eq!(read.many.into_vec(), ["a", "b"]);
    assert_eq!(Duration::from(*read.located), Duration::from_secs(90));
    assert_eq!(
        read.located.place().to_string(),
        "dir/run.json:3:73: located"
    );
    assert_eq!(u64::from(*read.size.unwrap()), 2048);
    assert_eq!(read.path.path(), std::path::Path::new("dir/guest.qcow2"));
    let raw = read.raw.get("x").unwrap();
    assert_eq!(
        raw.items()[0].place().to_string(),
        "dir/run.json:5:17: raw.x[0]"
    );
    assert_eq!(read.raws[1].as_str(), Some("two"));
    assert!(read.raws[2].is_null());
    assert_eq!(
        read.map["b"].place().to_string(),
        "dir/run.json:6:24: map.b"
    );
    assert_eq!(
        (read.plain, read.tuple),
        (Kind::Nothing, (1, String::from("x")))
    );
    let kinds = [
        Kind::Nothing,
        Kind::One(1),
        Kind::Pair(1, 2),
        Kind::Named {
            value: vec![3].into(),
        },
        Kind::Nothing,
    ];
    assert_eq!(read.list, kinds);
    assert_eq!(read.maximum, u64::MAX);
}

#[test]
fn a_typed_value_that_is_read_within_another_keeps_its_own_tree() {
    #[derive(Deserialize)]
    struct Outer {
        first: Located<Configuration>,
        second: Option<OneOrMany<Located<Configuration>>>,
    }
    let outer: Outer = tree(r#"{"first": {"a": 1}, "second": [2, {"b": 3}]}"#)
        .deserialize()
        .unwrap();
    assert_eq!(outer.first.place().key, "first");
    assert_eq!(outer.first.to_json(), json!({"a": 1}));
    let second = outer.second.unwrap();
    assert_eq!(second[1].place().key, "second[1]");
    assert_eq!(second[1].get("b").unwrap().path(), "second[1].b");
}

#[test]
fn located_values_of_other_deserializers_have_no_file() {
    let read: BTreeMap<String, Located<Configuration>> =
        serde_json::from_str(r#"{"a": {"b": [1]}}"#).unwrap();
    assert_eq!(read["a"].place().origin, Origin::Program);
    assert_eq!(read["a"].to_json(), json!({"b": [1]}));
}

#[test]
fn the_unit_type_takes_no_configuration() {
    assert!(tree("{}").deserialize::<()>().is_ok());
    assert!(tree("null").deserialize::<()>().is_ok());
    let error = tree(r#"{"a": 1}"#).deserialize::<()>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "dir/run.json:1:2: a: unknown key `a`, no keys are allowed here"
    );
}

#[test]
fn the_known_keys_of_a_type_are_found_with_their_aliases() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only the names matter")]
    struct Hook {
        results_folder: Option<ConfigPath>,
        #[serde(rename = "agent-port", alias = "port")]
        agent_port: u16,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only the names matter")]
    struct Wrapped(Hook);

    let mut fields = fields_of::<Hook>().to_vec();
    fields.sort_unstable();
    assert_eq!(fields, ["agent-port", "port", "results_folder"]);
    assert_eq!(fields_of::<Option<Located<Wrapped>>>(), fields_of::<Hook>());
    assert!(fields_of::<()>().is_empty());
    assert!(fields_of::<Configuration>().is_empty());
    assert!(fields_of::<BTreeMap<String, String>>().is_empty());
}

#[test]
fn a_hooks_own_keys_win_over_the_shared_ones_and_all_keep_their_places() {
    let tree = tree(
        r#"{
  "shared": {"results_folder": "all", "log_format": "text", "other": 1},
  "own": {"results_folder": "mine"}
}"#,
    );
    let merged = tree.get("own").unwrap().merge_shared(
        tree.get("shared").unwrap(),
        &["results_folder", "log_format"],
    );
    assert_eq!(
        merged.to_json(),
        json!({"results_folder": "mine", "log_format": "text"})
    );
    let places: Vec<_> = merged
        .entries()
        .map(|(_, value)| value.place().to_string())
        .collect();
    assert_eq!(
        places,
        [
            "dir/run.json:3:29: own.results_folder",
            "dir/run.json:2:53: shared.log_format"
        ]
    );
}

#[test]
fn overrides_are_json_where_they_can_be_and_strings_otherwise() {
    let mut run = tree(r#"{"a": {"b": [1, {"c": 2}]}, "n": null}"#);
    for assignment in [
        "a.b[0]=true",
        "a.b[1].c=x=y",
        "a.b[2]=[1, 2]",
        "n.deep.er=1GiB",
        "fresh[0].key=007",
        "empty=",
    ] {
        run.set_assignment(assignment).unwrap();
    }
    assert_eq!(
        run.to_json(),
        json!({
            "a": {"b": [true, {"c": "x=y"}, [1, 2]]},
            "n": {"deep": {"er": "1GiB"}},
            "fresh": [{"key": "007"}],
            "empty": "",
        })
    );
    let list = run.get("a").unwrap().get("b").unwrap();
    assert_eq!(list.place().to_string(), "dir/run.json:1:13: a.b");
    assert_eq!(list.items()[0].place().to_string(), "--set a.b[0]");
    assert_eq!(
        list.items()[2].items()[1].place().to_string(),
        "--set a.b[2]: a.b[2][1]"
    );
    assert_eq!(
        run.key_place("fresh").unwrap().to_string(),
        "--set fresh[0].key: fresh"
    );
}

#[test]
fn a_relative_path_starts_at_its_file_and_an_override_at_the_working_folder() {
    let mut run = tree(r#"{"file": "a b/ü.xml", "root": "/x.xml", "tilde": "~/x"}"#);
    run.set("set", "y.xml").unwrap();
    let paths: BTreeMap<String, ConfigPath> = run.deserialize().unwrap();
    let shown: Vec<_> = paths.values().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(shown, ["dir/a b/ü.xml", "/x.xml", "y.xml", "dir/~/x"]);
}

#[test]
fn substitutions_keep_types_and_places_and_are_not_looked_at_again() {
    let run = tree(
        r#"{"sample": "${sample}", "command": "${command}", "runtime": "${runtime}",
 "mixed": ["<${sample}|${runtime}>", "$${sample} costs $5 or $$"], "${sample}": "${env:TOKEN}"}"#,
    );
    let values = Substitutions::default()
        .sample(Some("s ${command}"))
        .command(None::<String>)
        .runtime(30)
        .environment(|name| (name == "TOKEN").then(|| "t".into()));
    let done = run.substitute(&values).unwrap();
    assert_eq!(
        done.to_json(),
        json!({
            "sample": "s ${command}", "command": null, "runtime": 30,
            "mixed": ["<s ${command}|30>", "${sample} costs $5 or $$"],
            "${sample}": "t",
        })
    );
    assert_eq!(
        done.get("runtime").unwrap().place(),
        run.get("runtime").unwrap().place()
    );
}

#[test]
fn durations_and_sizes_are_read_as_they_are_written() {
    let seconds =
        |text| DurationValue::parse(text).map(|value| Duration::from(value).as_secs_f64());
    assert_eq!(seconds("90s"), Some(90.0));
    assert_eq!(seconds("5m"), Some(300.0));
    assert_eq!(seconds("1h30m"), Some(5400.0));
    assert_eq!(seconds("250ms"), Some(0.25));
    assert_eq!(seconds("1.5h"), Some(5400.0));
    assert_eq!(seconds("7"), Some(7.0));
    assert_eq!(seconds("2d"), Some(172_800.0));
    for wrong in [
        "",
        "s",
        "-1s",
        "1x",
        "1s1s",
        "1m1h",
        "1.s",
        ".5s",
        "NaN",
        "inf",
        "1e9s",
        "99999999999h",
        "1..2s",
    ] {
        assert!(seconds(wrong).is_none(), "{wrong}");
    }
    let bytes = |text| Size::parse(text).map(u64::from);
    assert_eq!(bytes("256MiB"), Some(256 << 20));
    assert_eq!(bytes("4 GiB"), Some(4 << 30));
    assert_eq!(bytes("10MB"), Some(10_000_000));
    assert_eq!(bytes("1.5KiB"), Some(1536));
    assert_eq!(bytes("12"), Some(12));
    for wrong in [
        "",
        "MiB",
        "-1B",
        "0.3B",
        "1XB",
        "18446744073709551616",
        "17179869184GiB",
        "1 2B",
    ] {
        assert_eq!(bytes(wrong), None, "{wrong}");
    }
    assert_eq!(Size::from(4 << 30).to_string(), "4GiB");
    assert_eq!(Size::from(1025).to_string(), "1025B");
}

#[test]
fn a_run_file_and_every_form_of_its_hooks_are_read() {
    let hooks = r#"{"configuration": {"results_folder": "r"}, "hooks": [{"name": "commands"}, {"name": "screen", "required": false, "configuration": {"x": 1}}]}"#;
    for section in [hooks.to_owned(), format!("{{\"hooks\": {hooks}}}")] {
        let text = format!(
            "{{\"version\": 1, \"context\": {{}}, \"hooks\": {section}, \"protocol\": []}}"
        );
        let run = RunFile::read(&tree(&text)).unwrap();
        assert_eq!(
            run.hooks.configuration.to_json(),
            json!({"results_folder": "r"})
        );
        let read: Vec<_> = run
            .hooks
            .hooks
            .iter()
            .map(|hook| {
                (
                    hook.name.as_str(),
                    hook.required,
                    hook.configuration.to_json(),
                )
            })
            .collect();
        let expected = [
            ("commands", true, json!({})),
            ("screen", false, json!({"x": 1})),
        ];
        assert_eq!(read, expected);
        assert!(run.protocol.unwrap().is_list());
    }
    let run = RunFile::read(&tree(r#"{"version": 1, "context": {}}"#)).unwrap();
    assert!(run.hooks.hooks.is_empty() && run.protocol.is_none());
    assert!(
        HooksSection::read(&tree(r#"{"hooks": []}"#))
            .unwrap()
            .hooks
            .is_empty()
    );
}

#[test]
fn a_tag_is_split_from_the_keys_it_stands_among() {
    let (tag, rest) = tree(r#"{"timeout": 5, "step": "wait"}"#)
        .split_tag("step")
        .unwrap();
    assert_eq!(tag.as_str(), "wait");
    assert_eq!(tag.place().to_string(), "dir/run.json:1:24: step");
    assert_eq!(rest.to_json(), json!({"timeout": 5}));
    let error = tree(r#"{"timeout": 5}"#).split_tag("step").unwrap_err();
    assert_eq!(
        error.to_string(),
        "dir/run.json:1:1: the key `step` is missing"
    );
}

#[test]
fn the_nearest_word_is_a_slip_away_or_there_is_none() {
    let known = ["commands", "screen", "timers", "network_tracer"];
    for (typed, meant) in [
        ("comands", Some("commands")),
        ("Screen", Some("screen")),
        ("sceren", Some("screen")),
        ("timer", Some("timers")),
        ("network-tracer", Some("network_tracer")),
        ("banana", None),
        ("x", None),
        ("", None),
    ] {
        assert_eq!(nearest(typed, known), meant, "{typed}");
    }
}
