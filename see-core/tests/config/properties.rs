//! What holds for every configuration, tried on many.

use std::time::Duration;

use proptest::prelude::*;
use see_core::config::{Configuration, DurationValue, Size, Substitutions};
use serde_json::{Value as Json, json};

use crate::{position, tree};

/// Any JSON of a size that a person might write.
fn json_values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-1e12..1e12).prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|entries| entries.into_iter().collect::<Json>()),
        ]
    })
}

/// Every node of a tree.
fn nodes(root: &Configuration) -> Vec<Configuration> {
    let mut found = vec![root.clone()];
    let mut next = 0;
    while let Some(node) = found.get(next).cloned() {
        found.extend(node.items().iter().cloned());
        found.extend(node.entries().map(|(_, value)| value.clone()));
        next += 1;
    }
    found
}

proptest! {
    #[test]
    fn json_comes_back_as_it_went_in(json in json_values(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
        let tree = tree(&text.unwrap());
        prop_assert_eq!(tree.to_json(), json.clone());
        prop_assert_eq!(Configuration::from_json(json.clone()).to_json(), json.clone());
        prop_assert_eq!(tree.deserialize::<Configuration>().unwrap().to_json(), json);
    }

    #[test]
    fn every_value_stands_where_its_place_says(json in json_values()) {
        let text = serde_json::to_string_pretty(&json).unwrap().replace('\n', " // é\r\n");
        for node in nodes(&tree(&text)) {
            let (line, column) = position(&node);
            let line = text.split('\n').nth(line as usize - 1).unwrap();
            let rest: String = line.chars().skip(column as usize - 1).collect();
            let starts = match node.to_json() {
                Json::Object(_) => String::from("{"),
                Json::Array(_) => String::from("["),
                scalar => scalar.to_string(),
            };
            prop_assert!(rest.starts_with(&starts), "{:?} at {:?}", node, rest);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in ".{0,60}") {
        if let Err(error) = Configuration::from_str("run.json", &text) {
            prop_assert!(error.place().is_some());
        }
    }

    #[test]
    fn text_made_of_json_pieces_is_read_or_refused_with_a_place(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "1", "-", "true", "nul", "/*", "//", "\n", "\\", "'", "é",
            ]),
            0..24,
        ),
    ) {
        if let Err(error) = Configuration::from_str("run.json", &pieces.concat()) {
            prop_assert!(error.place().is_some());
        }
    }

    #[test]
    fn an_override_is_found_where_it_was_put(json in json_values(), value in ".{0,8}") {
        let root = Configuration::from_json(json!({ "root": json }));
        for node in nodes(&root).into_iter().skip(1) {
            let key = node.path();
            // The short form of a path has no escapes: such keys are set through JSON.
            if key.contains('\\') {
                continue;
            }
            let mut changed = root.clone();
            changed.set(&key, &value).unwrap();
            let expected = serde_json::from_str(&value).unwrap_or_else(|_| Json::from(value.clone()));
            let found = nodes(&changed).into_iter().find(|node| node.path() == key).unwrap();
            prop_assert_eq!(found.to_json(), expected);
        }
    }

    #[test]
    fn substitution_leaves_text_without_dollars_alone(json in json_values()) {
        let text = json.to_string().replace('$', "€");
        let tree = tree(&text);
        prop_assert_eq!(tree.substitute(&Substitutions::default()).unwrap().to_json(), tree.to_json());
    }

    #[test]
    fn any_text_is_a_duration_and_a_size_or_none(text in "[0-9a-zA-Z. -]{0,12}") {
        if let Some(duration) = DurationValue::parse(&text) {
            prop_assert!(Duration::from(duration) <= Duration::from_secs(101 * 366 * 86400));
        }
        if let Some(size) = Size::parse(&text) {
            prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
        }
    }
}
