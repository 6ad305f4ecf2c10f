//! Words that do not belong into the house: unsafe code outside the one room
//! for it, lints switched off for good, tests switched off, and promises to
//! write the code later.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Finding;
use super::source::Source;

const RULE: &str = "words";
/// The only room with unsafe code.
const UNSAFE_ROOM: &str = "see-context/libvirt/";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let mut found = |line, message: String| {
            findings.push(Finding {
                path: source.path.clone(),
                line,
                rule: RULE,
                message,
            });
        };
        let unsafe_room = source.path.starts_with(UNSAFE_ROOM);
        walk(&source.tokens.clone(), unsafe_room, &mut found);
    }
    findings
}

fn walk(tokens: &TokenStream, unsafe_room: bool, found: &mut impl FnMut(usize, String)) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) => {
                let line = word.span().start().line;
                let called = is_punct(tokens.get(at + 1), '!');
                if word == "unsafe" && !unsafe_room {
                    found(line, format!("`unsafe` belongs into {UNSAFE_ROOM} only"));
                } else if called && (word == "todo" || word == "unimplemented") {
                    found(line, format!("`{word}!` is a promise; write the code"));
                }
            }
            TokenTree::Group(group) => {
                let before = at.checked_sub(1).and_then(|it| tokens.get(it));
                let earlier = at.checked_sub(2).and_then(|it| tokens.get(it));
                let is_attribute = group.delimiter() == Delimiter::Bracket
                    && (is_punct(before, '#') || (is_punct(before, '!') && is_punct(earlier, '#')));
                if is_attribute {
                    attribute(group, found);
                }
                walk(&group.stream(), unsafe_room, found);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Looks at one attribute, and into a `cfg_attr`.
fn attribute(group: &Group, found: &mut impl FnMut(usize, String)) {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let conditional = matches!(tokens.first(), Some(TokenTree::Ident(word)) if word == "cfg_attr");
    if conditional && let Some(TokenTree::Group(inner)) = tokens.get(1) {
        attribute(inner, found);
        return;
    }
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(word) = token else {
            continue;
        };
        // An attribute's own name stands first, or after a comma of `cfg_attr`.
        let begins = at == 0 || is_punct(tokens.get(at - 1), ',');
        let line = word.span().start().line;
        if begins && word == "allow" && matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) {
            found(
                line,
                "`allow` hides a lint for ever; use `expect` with a reason".to_owned(),
            );
        } else if begins && word == "ignore" {
            found(
                line,
                "an ignored test shows nothing; make it pass or remove it".to_owned(),
            );
        }
    }
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = Source::parse(path, text).expect("it is Rust");
        check(&[source]).iter().map(|it| it.line).collect()
    }

    #[test]
    fn unsafe_code_is_found_outside_its_room_and_inside_macros() {
        let text = "fn a() {\n    unsafe { b() }\n}\nm! {\n    unsafe fn c() {}\n}\n";
        assert_eq!(lines("see-core/src/a.rs", text), [2, 5]);
        assert!(lines("see-context/libvirt/src/a.rs", text).is_empty());
    }

    #[test]
    fn a_lint_switched_off_is_found_with_its_line() {
        let text = "#![allow(dead_code)]\n#[cfg_attr(test, allow(unused))]\nfn a() {}\n";
        assert_eq!(lines("a.rs", text), [1, 2]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        let text = "#[test]\n#[ignore]\nfn a() {}\n#[test]\n#[ignore = \"slow\"]\nfn b() {}\n";
        assert_eq!(lines("a.rs", text), [2, 5]);
    }

    #[test]
    fn promises_are_found() {
        let text = "fn a() {\n    todo!()\n}\nfn b() {\n    unimplemented!(\"later\")\n}\n";
        assert_eq!(lines("a.rs", text), [2, 5]);
    }

    #[test]
    fn the_same_words_in_comments_strings_and_names_are_fine() {
        let text = "//! todo!() and #[ignore]\n#[expect(unused, reason = \"allow\")]\n\
                    fn ignore(allow: &str) { allow.contains(\"unsafe\"); }\n";
        assert!(lines("a.rs", text).is_empty());
    }
}
