//! How values stand in a body: CBOR (RFC 8949), with fields by their names.

use super::{Frame, MAX_BODY, ProtocolError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the body of a frame is.
pub(super) mod kind {
    /// A message in CBOR.
    pub(in super::super) const MESSAGE: u8 = 0;
    /// Bytes of the request's stream: of an upload, a download or a program's input.
    pub(in super::super) const DATA: u8 = 1;
    /// Bytes of a program's standard output.
    pub(in super::super) const STDOUT: u8 = 2;
    /// Bytes of a program's standard error.
    pub(in super::super) const STDERR: u8 = 3;
}

/// How deep values may lie in each other; the deepest of ours is at seven.
const DEPTH: usize = 16;

/// The frame with this message.
pub(super) fn message(
    session: u64,
    request: u32,
    message: &impl Serialize,
) -> Result<Frame, ProtocolError> {
    let mut body = Vec::new();
    ciborium::into_writer(message, &mut body)
        .map_err(|error| ProtocolError::Malformed(error.to_string()))?;
    frame(session, request, kind::MESSAGE, body)
}

/// The frame with this body.
pub(super) fn frame(
    session: u64,
    request: u32,
    kind: u8,
    body: Vec<u8>,
) -> Result<Frame, ProtocolError> {
    if body.len() > MAX_BODY {
        return Err(ProtocolError::TooLong { found: body.len() });
    }
    Ok(Frame {
        session,
        request,
        kind,
        body,
    })
}

/// The message in a body. Fields that this version does not know are passed over.
pub(super) fn read<T: DeserializeOwned>(mut body: &[u8]) -> Result<T, ProtocolError> {
    let message = ciborium::de::from_reader_with_recursion_limit(&mut body, DEPTH)
        .map_err(|error| ProtocolError::Malformed(error.to_string()))?;
    match body.len() {
        0 => Ok(message),
        extra => Err(ProtocolError::Trailing(extra)),
    }
}

/// Refuses a value above `most`.
pub(super) fn check(field: &'static str, found: u64, most: u64) -> Result<(), ProtocolError> {
    if found > most {
        return Err(ProtocolError::OutOfRange { field, found, most });
    }
    Ok(())
}

/// Byte strings in a list.
pub(super) mod list {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    pub(in super::super) fn serialize<S: Serializer>(
        list: &[Vec<u8>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|item| Bytes::new(item)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<ByteBuf>::deserialize(from)?;
        Ok(list.into_iter().map(ByteBuf::into_vec).collect())
    }
}

/// Pairs of byte strings in a list.
pub(super) mod pairs {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    pub(in super::super) fn serialize<S: Serializer>(
        list: &[(Vec<u8>, Vec<u8>)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs = list.iter();
        to.collect_seq(pairs.map(|(name, value)| (Bytes::new(name), Bytes::new(value))))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Pairs, D::Error> {
        let list = Vec::<(ByteBuf, ByteBuf)>::deserialize(from)?;
        let pairs = list.into_iter();
        Ok(pairs
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect())
    }
}

/// Times as whole milliseconds.
pub(super) mod milliseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// Addresses as text, such as `192.0.2.1:53`.
pub(super) mod text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &impl Display,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
