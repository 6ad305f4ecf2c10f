//! The token that TCP needs.

use crate::protocol::{MAX_TOKEN, MIN_TOKEN};
use std::fmt;
use std::hint::black_box;

/// A secret of [`MIN_TOKEN`] to [`MAX_TOKEN`] bytes. Its debug form does not show it.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// A token of these bytes, without the white space around them; nothing when the length is not
    /// allowed.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii();
        (MIN_TOKEN..=MAX_TOKEN)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// Whether `offered` is this token; takes the same time whatever is offered.
    pub fn matches(&self, offered: &[u8]) -> bool {
        let mut difference = self.0.len() ^ offered.len();
        for at in 0..MAX_TOKEN {
            let ours = self.0.get(at).copied().unwrap_or(0);
            let theirs = offered.get(at).copied().unwrap_or(0);
            difference |= usize::from(black_box(ours ^ theirs));
        }
        black_box(difference) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_matches() {
        let token = Token::new(b" 0123456789abcdef\n").expect("long enough");
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [
            &b""[..],
            b"0123456789abcdeF",
            b"0123456789abcde",
            b"0123456789abcdef0",
        ] {
            assert!(!token.matches(wrong), "{wrong:?}");
        }
        assert!(!token.matches(&[b"0123456789abcdef", &[0u8; 300][..]].concat()));
    }

    #[test]
    fn tokens_that_are_too_short_or_too_long_are_none() {
        assert!(Token::new(&[b'x'; MIN_TOKEN - 1]).is_none());
        assert!(Token::new(&[b'x'; MAX_TOKEN + 1]).is_none());
    }

    #[test]
    fn the_debug_form_hides_the_token() {
        let token = Token::new(b"0123456789abcdef").expect("long enough");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
