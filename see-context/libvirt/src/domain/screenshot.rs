//! Pictures of a domain's screen.

use virt_sys as sys;

use super::Domain;
use crate::error::{Cause, Error};
use crate::handle::Handle;

/// A picture as the hypervisor made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// What libvirt says it is, for example `image/png`. The bytes decide.
    pub mime_type: String,
    /// The picture.
    pub bytes: Vec<u8>,
}

impl Domain {
    /// Takes a picture of screen number `screen` (the first is 0), of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Cause::TooLarge`] beyond `limit`, [`Error::is_unsupported`], whatever else libvirt
    /// reports (a domain without a screen), or the time limit.
    pub async fn screenshot(&self, screen: u32, limit: usize) -> Result<Screenshot, Error> {
        self.object
            .call_with("take a picture of", move |domain, session| {
                let stream = Handle::new(virt::stream::Stream::new(session.connect(), 0)?);
                let mime_type = domain.screenshot(&stream, screen, 0)?;
                // SAFETY: the stream is valid here, and both functions only end its transfer.
                let end = |good: bool| unsafe {
                    if good {
                        sys::virStreamFinish(stream.as_ptr())
                    } else {
                        sys::virStreamAbort(stream.as_ptr())
                    }
                };
                match receive(&stream, limit) {
                    Ok(bytes) if end(true) == 0 => Ok(Screenshot { mime_type, bytes }),
                    Ok(_) => Err(Cause::last()),
                    Err(cause) => {
                        end(false);
                        Err(cause)
                    }
                }
            })
            .await
    }
}

fn receive(stream: &virt::stream::Stream, limit: usize) -> Result<Vec<u8>, Cause> {
    let mut bytes = Vec::new();
    let mut part = vec![0_u8; 64 * 1024];
    loop {
        let count = stream.recv(&mut part)?;
        let Ok(count) = usize::try_from(count) else {
            return Err(Cause::Malformed(format!(
                "a blocking stream answered {count}; a count of bytes was due"
            )));
        };
        match part.get(..count) {
            Some([]) => return Ok(bytes),
            Some(received) if bytes.len() + count <= limit => bytes.extend_from_slice(received),
            _ => return Err(Cause::TooLarge { limit }),
        }
    }
}
