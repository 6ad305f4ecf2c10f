//! What proves that the bytes are the right ones.

use std::fmt;

use md5::Digest as _;
use see_core::{Error, ErrorKind, Result};

/// A hash function that servers name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// MD5: finds accidents, proves nothing.
    Md5,
    /// SHA-1: finds accidents, proves nothing.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm that is known.
    pub const ALL: [Self; 5] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    /// Its name, as in `sha256:…`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of this name, however it is capitalised and with or without a hyphen.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace('-', "");
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Whether nobody can make other bytes with the same digest.
    pub fn is_strong(self) -> bool {
        !matches!(self, Self::Md5 | Self::Sha1)
    }

    /// The length of its digests, in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// The digest of some bytes; written and read as `sha256:0123…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Digest {
    /// A digest of this algorithm from its hexadecimal form, in either case.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where it is none, or one of another length.
    pub fn of_hex(algorithm: Algorithm, hex: &str) -> Result<Self> {
        let refused = || {
            let shown: String = hex.chars().take(160).collect();
            Error::new(
                ErrorKind::Configuration,
                format!(
                    "found `{}`, expected the {} hexadecimal digits of a {} digest",
                    shown.escape_debug(),
                    algorithm.length() * 2,
                    algorithm.name()
                ),
            )
        };
        if hex.len() != algorithm.length() * 2 || !hex.is_ascii() {
            return Err(refused());
        }
        let bytes = hex
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| {
                let high = char::from(pair[0]).to_digit(16)?;
                let low = char::from(pair[1]).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()
            })
            .collect::<Option<Box<[u8]>>>()
            .ok_or_else(refused)?;
        Ok(Self { algorithm, bytes })
    }

    /// Reads `sha256:0123…`, or the digits alone where their number tells the algorithm.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] with what was found.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let (algorithm, hex) = match text.split_once(':') {
            Some((name, hex)) => (Algorithm::of_name(name), hex),
            None => (
                Algorithm::ALL
                    .into_iter()
                    .find(|known| known.length() * 2 == text.len()),
                text,
            ),
        };
        let algorithm = algorithm.ok_or_else(|| {
            let shown: String = text.chars().take(160).collect();
            Error::new(
                ErrorKind::Configuration,
                format!("found `{}`, expected a digest", shown.escape_debug()),
            )
            .advice("such as sha256: and 64 hexadecimal digits; md5, sha1, sha256, sha384 and sha512 are known")
        })?;
        Self::of_hex(algorithm, hex)
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether it proves that bytes are the right ones.
    pub fn is_strong(&self) -> bool {
        self.algorithm.is_strong()
    }

    /// The digits alone, in lower case.
    pub fn hex(&self) -> String {
        self.bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a digest while the bytes pass.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    state: State,
}

#[derive(Clone)]
enum State {
    Md5(md5::Md5),
    Sha(ring::digest::Context),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        let sha = |function| State::Sha(ring::digest::Context::new(function));
        let state = match algorithm {
            Algorithm::Md5 => State::Md5(md5::Md5::new()),
            Algorithm::Sha1 => sha(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::Sha256 => sha(&ring::digest::SHA256),
            Algorithm::Sha384 => sha(&ring::digest::SHA384),
            Algorithm::Sha512 => sha(&ring::digest::SHA512),
        };
        Self { algorithm, state }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Md5(hash) => hash.update(bytes),
            State::Sha(context) => context.update(bytes),
        }
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        let bytes = match self.state {
            State::Md5(hash) => hash.finalize().to_vec().into_boxed_slice(),
            State::Sha(context) => context.finish().as_ref().into(),
        };
        Digest {
            algorithm: self.algorithm,
            bytes,
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_everybody_computes() {
        for (algorithm, expected) in [
            (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                Algorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            let digest = hasher.finish();
            assert_eq!(digest.hex(), expected);
            assert_eq!(Digest::parse(&digest.to_string()).unwrap(), digest);
            assert_eq!(Digest::parse(&expected.to_uppercase()).unwrap(), digest);
        }
    }

    #[test]
    fn what_is_no_digest_is_refused_with_what_was_found() {
        for (text, found) in [
            ("", "``"),
            ("sha256:12", "`12`"),
            ("crc32:00", "`crc32:00`"),
            ("zz", "`zz`"),
            ("sha256:é", "`é`"),
        ] {
            let error = Digest::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
            assert!(error.message().contains(found), "{error}");
        }
    }
}
