//! Fields of a message body: little-endian numbers, and bytes behind their length.

use super::ProtocolError;

/// Appends fields to a body.
#[derive(Debug, Default)]
pub(super) struct FieldWriter {
    body: Vec<u8>,
}

impl FieldWriter {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.body.push(value);
        self
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.body.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.body.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.body.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Lengths saturate: a field that long never fits a frame, which is checked at the end.
    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.body.extend_from_slice(value);
        self
    }

    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }
}

/// Takes fields off a body; never reads past it.
#[derive(Debug)]
pub(super) struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtocolError> {
        let (field, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(ProtocolError::Truncated)?;
        self.rest = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (field, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(ProtocolError::Truncated)?;
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A field of at most `most` bytes.
    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        most: usize,
    ) -> Result<&'a [u8], ProtocolError> {
        let length = self.u32()?;
        check(field, u64::from(length), most as u64)?;
        self.take(length as usize)
    }

    /// A text of at most `most` bytes; what is not UTF-8 in it is replaced.
    pub(super) fn text(
        &mut self,
        field: &'static str,
        most: usize,
    ) -> Result<String, ProtocolError> {
        Ok(String::from_utf8_lossy(self.bytes(field, most)?).into_owned())
    }

    /// A truth value: 0 or 1, nothing else.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, ProtocolError> {
        let value = self.u8()?;
        check(field, u64::from(value), 1)?;
        Ok(value == 1)
    }

    /// How many items follow: at most `most`.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        most: usize,
    ) -> Result<usize, ProtocolError> {
        let count = self.u32()?;
        check(field, u64::from(count), most as u64)?;
        Ok(count as usize)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn finish(self) -> Result<(), ProtocolError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(ProtocolError::Trailing(extra)),
        }
    }
}

/// Refuses a value above `most`.
pub(super) fn check(field: &'static str, found: u64, most: u64) -> Result<(), ProtocolError> {
    if found > most {
        return Err(ProtocolError::OutOfRange { field, found, most });
    }
    Ok(())
}
