//! The tree's promises: what is written reads as the same tree, whatever was edited.

use proptest::prelude::*;

use super::*;

/// White space, attributes, elements, comments and sections in every form that XML allows.
fn document() -> impl Strategy<Value = String> {
    let space = "[ \t\r\n]{0,3}";
    (
        prop_oneof![
            Just(""),
            Just("\u{feff}"),
            Just("<?xml version='1.0'?>"),
            Just("<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n"),
        ],
        space,
        miscellaneous(),
        element(),
        miscellaneous(),
        space,
    )
        .prop_map(|(declaration, before, prolog, root, epilog, after)| {
            format!("{declaration}{before}{prolog}{root}{epilog}{after}")
        })
}

fn miscellaneous() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "<!--[ a-z<>&é\n\"']{0,9}-->",
        r"<\?pi [ a-z<>&é\n]{0,9}\?>",
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,4}",
        "[a-z]{1,3}:[a-zé_][a-z0-9._-]{0,3}",
        Just("disk".to_owned())
    ]
}

fn attributes() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "\"([ a-z'>é\n\t]|&amp;|&#x41;|&lt;){0,5}\"",
        "'([ a-z\">é\r]|&quot;|&#65;|&apos;){0,5}'",
    ];
    proptest::collection::btree_map(
        name(),
        (value, "[ \n\t]{1,2}", "[ \n]{0,1}=[ \n]{0,1}"),
        0..4,
    )
    .prop_map(|attributes| {
        attributes
            .into_iter()
            .map(|(name, (value, space, equals))| format!("{space}{name}{equals}{value}"))
            .collect()
    })
}

fn element() -> impl Strategy<Value = String> {
    let leaf = (name(), attributes(), "[ \n]{0,2}")
        .prop_map(|(name, attributes, space)| format!("<{name}{attributes}{space}/>"));
    leaf.prop_recursive(5, 40, 6, |inner| {
        let node = prop_oneof![
            3 => inner,
            2 => "([ a-zé>'\"\r\n]|&amp;|&lt;|&#10;){1,8}",
            1 => "<!\\[CDATA\\[[ a-z<>&\n]{0,6}\\]\\]>",
            1 => miscellaneous(),
        ];
        (
            name(),
            attributes(),
            "[ \n]{0,2}",
            proptest::collection::vec(node, 0..6),
            "[ \n]{0,2}",
        )
            .prop_map(|(name, attributes, space, nodes, end)| {
                format!(
                    "<{name}{attributes}{space}>{}</{name}{end}>",
                    nodes.concat()
                )
            })
    })
}

/// A tree as a program may build it, with any text.
fn tree() -> impl Strategy<Value = Element> {
    let leaf = (any::<String>(), any::<String>())
        .prop_map(|(value, text)| Element::new("leaf").with("a", value).with_text(text));
    leaf.prop_recursive(4, 20, 4, |inner| {
        let children = proptest::collection::vec((inner, any::<String>()), 0..4);
        (any::<String>(), any::<String>(), children).prop_map(|(text, value, children)| {
            let mut element = Element::new("p:node").with_text(text).with("é", value);
            for (child, tail) in children {
                element.append(child);
                element.append_text(&tail);
            }
            element
        })
    })
}

/// The same tree, with what XML has in place of characters that it does not have.
fn in_xml(mut element: Element) -> Element {
    let replace = |text: &mut String| {
        *text = text
            .chars()
            .map(|it| if tree::is_allowed(it) { it } else { '\u{fffd}' })
            .collect();
    };
    for attribute in &mut element.attributes {
        replace(&mut attribute.value);
    }
    replace(&mut element.text);
    replace(&mut element.tail);
    element.children = element.children.into_iter().map(in_xml).collect();
    element
}

/// What is written of a document reads as the same document.
fn reads_back(document: &Document) {
    let written = document.to_string();
    let again = Document::parse(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, *document, "{written}");
}

proptest! {
    #[test]
    fn what_is_built_reads_back_as_it_was_built(root in tree()) {
        let document = Document::parse(&root.to_string()).unwrap();
        prop_assert_eq!(document.root(), &in_xml(root));
    }

    #[test]
    fn every_form_that_xml_allows_is_read_and_keeps_its_meaning(text in document()) {
        let document = Document::parse(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
        reads_back(&document);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        if let Ok(document) = Document::parse(&text) {
            reads_back(&document);
        }
    }

    #[test]
    fn no_damaged_document_makes_the_parser_panic(
        text in document(),
        cut in any::<prop::sample::Index>(),
        with in "[<>&/='\"\\-\\[\\]!? a]{0,3}",
    ) {
        let mut characters: Vec<char> = text.chars().collect();
        let at = cut.index(characters.len());
        characters.splice(at..=at, with.chars());
        if let Ok(document) = Document::parse(&characters.into_iter().collect::<String>()) {
            reads_back(&document);
        }
    }

    #[test]
    fn an_edit_touches_nothing_else(text in document(), value in "[ -~é\n\t]{0,12}") {
        let before = Document::parse(&text).unwrap();
        let mut edited = before.clone();
        edited.root_mut().set_attribute("see-edited", &value);
        edited.root_mut().append(Element::new("see-added").with_text(&value));
        let mut again = Document::parse(&edited.to_string()).unwrap();
        prop_assert_eq!(again.root().attribute("see-edited"), Some(&*value));
        prop_assert_eq!(again.root().child("see-added").unwrap().text(), value);
        again.root_mut().remove_attribute("see-edited");
        prop_assert_eq!(again.root_mut().remove_children(|child| child.name() == "see-added"), 1);
        prop_assert_eq!(again, before);
    }
}
