//! What is read, what is refused, and where a mistake stands.

use super::*;

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
