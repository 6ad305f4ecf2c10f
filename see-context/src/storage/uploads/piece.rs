//! The names of what lies in the folder of images.

use see_core::Identifier;

/// What a volume in the folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Claim,
    Image(Identifier),
    Whole(Identifier),
    Lease(Identifier),
}

impl Piece {
    pub(super) fn name(self, digest: &str) -> String {
        match self {
            Self::Claim => format!("{digest}.claim"),
            Self::Image(uploader) => format!("{digest}.{uploader}.img"),
            Self::Whole(uploader) => format!("{digest}.{uploader}.whole"),
            Self::Lease(owner) => format!("{digest}.{owner}.lease"),
        }
    }

    /// The digest and the piece of a volume's name; `None` for what is none of ours.
    pub(super) fn parse(name: &str) -> Option<(&str, Self)> {
        let (digest, rest) = name.split_once('.')?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digest.len() != 64 || !digest.bytes().all(is_digit) {
            return None;
        }
        let piece = match rest.split_once('.') {
            None if rest == "claim" => Self::Claim,
            Some((who, "img")) => Self::Image(who.parse().ok()?),
            Some((who, "whole")) => Self::Whole(who.parse().ok()?),
            Some((who, "lease")) => Self::Lease(who.parse().ok()?),
            _ => return None,
        };
        (piece.name(digest) == name).then_some((digest, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_told_by_its_name_and_every_other_name_is_not_ours() {
        let (digest, who) = ("0a".repeat(32), Identifier::random());
        for piece in [
            Piece::Claim,
            Piece::Image(who),
            Piece::Whole(who),
            Piece::Lease(who),
        ] {
            let name = piece.name(&digest);
            assert_eq!(Piece::parse(&name), Some((digest.as_str(), piece)));
            for other in [
                format!("{name}x"),
                name.to_uppercase(),
                name[1..].to_owned(),
                name.replace(".", ".."),
            ] {
                assert_eq!(Piece::parse(&other), None, "{other}");
            }
        }
        assert_eq!(Piece::parse("thesis.qcow2"), None);
    }
}
