//! What images are proven by.

use see_image_providers::cache::{Algorithm, Digest, Hasher};

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// The SHA-256 as a configuration pins it.
pub(crate) fn sum(bytes: &[u8]) -> String {
    digest(Algorithm::Sha256, bytes).to_string()
}

/// The MD5, as the entity tag of an object that was uploaded whole.
pub(crate) fn md5(bytes: &[u8]) -> String {
    digest(Algorithm::Md5, bytes).hex()
}
