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

#[test]
fn text_and_attributes_mean_what_they_mean_to_every_reader_of_xml() {
    let text = "<?xml version='1.0'?><!-- c --><a b=\"1\n2\t&#10;'&apos;&#x41;\" c = '\"&lt;'>\r\n \
                x<!-- y -->&amp;<?z?><![CDATA[<&amp;>]]><b/>&#13;</a >";
    let document = Document::parse(text).unwrap();
    let root = document.root();
    assert_eq!(root.attribute("b"), Some("1 2 \n''A"));
    assert_eq!(root.attribute("c"), Some("\"<"));
    assert_eq!(root.text(), "\n x&<&amp;>\r");
    assert_eq!(
        document.to_string(),
        "<a b='1 2 &#10;&apos;&apos;A' c='\"&lt;'>\n x&amp;&lt;&amp;amp;&gt;<b/>&#13;</a>"
    );
}

#[test]
fn a_mistake_is_told_with_its_line_and_column() {
    for (text, line, column) in [
        ("", 1, 1),
        ("domain.xml", 1, 1),
        ("{\"version\": 1}", 1, 1),
        ("<domain>\n  <devices>\n</domain>", 3, 1),
        ("<domain>\n  <name>a</name>\n", 3, 1),
        ("<domain>\n  <name é='1' é='2'/></domain>", 2, 15),
        ("<domain>\n  <name a=1/></domain>", 2, 11),
        ("<domain>\n  <name a/></domain>", 2, 10),
        ("<domain>\n  <a 1='c'/></domain>", 2, 3),
        ("<domain>\n  <-/></domain>", 2, 3),
        ("<domain>\n  a & b</domain>", 2, 5),
        ("<domain>\n  &#1;</domain>", 2, 3),
        ("<domain>\n <a b='&#xb;'/></domain>", 2, 2),
        ("<domain>\n é &nbsp;</domain>", 2, 4),
        ("<domain>\n <a b='&nbsp;'/></domain>", 2, 2),
        ("<domain/>\n<domain/>", 2, 1),
        ("<domain/>\ntext", 2, 1),
        ("<domain>\n\u{1}</domain>", 2, 1),
        ("<domain>\n<a></b></domain>", 2, 4),
        ("</domain>", 1, 1),
    ] {
        let error = Document::parse(text).expect_err(text);
        assert!(
            matches!(error, XmlError::Syntax { .. }),
            "{text:?}: {error}"
        );
        assert_eq!(
            error.position(),
            Some(Position { line, column }),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn a_document_type_is_refused_and_no_entity_is_expanded() {
    let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>";
    assert!(matches!(
        Document::parse(bomb),
        Err(XmlError::DocumentType { .. })
    ));
}

#[test]
fn size_depth_and_attributes_are_bounded() {
    let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(Document::parse(&deep(MAX_DEPTH)).is_ok());
    assert!(matches!(
        Document::parse(&deep(MAX_DEPTH + 1)),
        Err(XmlError::TooDeep { .. })
    ));
    let long = format!("<a>{}</a>", " ".repeat(MAX_SIZE));
    assert!(matches!(
        Document::parse(&long),
        Err(XmlError::TooLarge { .. })
    ));
    let many: String = (0..=MAX_ATTRIBUTES)
        .map(|number| format!(" a{number}='1'"))
        .collect();
    assert!(matches!(
        Document::parse(&format!("<a{many}/>")),
        Err(XmlError::Syntax { .. })
    ));
}

#[test]
fn a_second_byte_order_mark_is_refused() {
    let error = Document::parse("\u{feff}\u{feff}\r\t").unwrap_err();
    assert!(
        error.to_string().contains("second byte order mark"),
        "{error}"
    );
    assert!(Document::parse("\u{feff}<a/>").is_ok());
}

#[test]
fn an_encoding_other_than_utf8_is_named() {
    let error = Document::parse("<?xml version='1.0' encoding='ISO-8859-1'?><a/>").unwrap_err();
    assert!(error.to_string().contains("ISO-8859-1"), "{error}");
    let error = Document::parse_bytes(b"<a>\n\xff</a>").unwrap_err();
    assert_eq!(error.position(), Some(Position { line: 2, column: 1 }));
}
