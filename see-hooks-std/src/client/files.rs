//! Files to and from the guest.

use super::call::Call;
use super::{Client, ClientError, within};
use see_agent::protocol::{FileInfo, MAX_BODY, Reply, Request, Upload};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most files of a folder that are taken from a guest.
const MAX_FILES: usize = 65_536;

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloaded {
    /// How many bytes were written.
    pub size: u64,
    /// The file is longer than the limit.
    pub truncated: bool,
}

impl Client {
    /// Stores a file in the guest's upload folder, or at an absolute path; gives its path there. `content` has to give as
    /// many bytes as `upload` announces.
    ///
    /// # Errors
    /// When `content` cannot be read or has another length, or the agent refuses it.
    pub async fn upload(
        &self,
        upload: Upload,
        content: impl AsyncRead + Unpin,
        deadline: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        within(deadline, "the upload", async {
            let size = upload.size;
            let is_last = |reply: &Reply| matches!(reply, Reply::Stored { .. });
            let mut call = Call::start(&self.link, Request::Upload(upload), is_last).await?;
            let path = call.feed_upload(content, size).await?;
            Ok(path)
        })
        .await
    }

    /// What is in a folder of the guest, given by its absolute path, in no order; `true` when there is more than the
    /// first 65,536.
    ///
    /// # Errors
    /// When the agent cannot list it.
    pub async fn list(
        &self,
        path: impl Into<Vec<u8>>,
        deadline: Duration,
    ) -> Result<(Vec<FileInfo>, bool), ClientError> {
        let path = path.into();
        within(deadline, "the list of files", async {
            let mut call = Call::start(&self.link, Request::List { path }, |_| false).await?;
            let mut all = Vec::new();
            loop {
                match call.next().await? {
                    Reply::Files(some) if all.len() + some.len() <= MAX_FILES => all.extend(some),
                    Reply::Files(_) => {
                        return Err(self.link.violated("it lists more files than it may"));
                    }
                    Reply::End { truncated, .. } => return Ok((all, truncated)),
                    other => return Err(self.link.unexpected(other)),
                }
            }
        })
        .await
    }

    /// What is at an absolute path of the guest; a link is not followed.
    ///
    /// # Errors
    /// When there is nothing, or the agent cannot look.
    pub async fn stat(
        &self,
        path: impl Into<Vec<u8>>,
        deadline: Duration,
    ) -> Result<FileInfo, ClientError> {
        let path = path.into();
        match self.ask(Request::Stat { path }, deadline).await? {
            Reply::File(info) => Ok(info),
            other => Err(self.link.unexpected(other)),
        }
    }

    /// Makes a folder of the guest, and those that it lies in; one that is there already will do.
    ///
    /// # Errors
    /// When the agent cannot.
    pub async fn make_folder(
        &self,
        path: impl Into<Vec<u8>>,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let path = path.into();
        self.done(Request::MakeFolder { path }, deadline).await
    }

    /// Removes a file of the guest, a link, or a folder with all that is in it.
    ///
    /// # Errors
    /// When there is nothing, or the agent cannot.
    pub async fn remove(
        &self,
        path: impl Into<Vec<u8>>,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let path = path.into();
        self.done(Request::Remove { path }, deadline).await
    }

    /// Fetches a regular file of the guest, at most `limit` bytes of it.
    ///
    /// What was written before an error stays written.
    ///
    /// # Errors
    /// When the agent refuses it, or `to` cannot be written.
    pub async fn download(
        &self,
        path: impl Into<Vec<u8>>,
        limit: u64,
        mut to: impl AsyncWrite + Unpin,
        deadline: Duration,
    ) -> Result<Downloaded, ClientError> {
        let request = Request::Download {
            path: path.into(),
            limit,
        };
        within(deadline, "the download", async {
            let writing = |error| ClientError::local("writing the download", &error);
            let mut call = Call::start(&self.link, request, |_| false).await?;
            let mut size = 0;
            loop {
                match call.next().await? {
                    Reply::Data(bytes) => {
                        size += bytes.len() as u64;
                        if size > limit {
                            return Err(self.link.violated("it sent more than was asked for"));
                        }
                        to.write_all(&bytes).await.map_err(writing)?;
                    }
                    Reply::End { total, truncated } => {
                        if total != size {
                            let how = "its count of bytes is not what it sent";
                            return Err(self.link.violated(how));
                        }
                        to.flush().await.map_err(writing)?;
                        return Ok(Downloaded { size, truncated });
                    }
                    other => {
                        return Err(self.link.unexpected(other));
                    }
                }
            }
        })
        .await
    }
}

impl Call {
    /// Sends the content of an upload; gives the path that the agent stored it under.
    pub(super) async fn feed_upload(
        &mut self,
        content: impl AsyncRead + Unpin,
        size: u64,
    ) -> Result<Vec<u8>, ClientError> {
        // A file that grows meanwhile must not make the upload longer than announced.
        let mut content = content.take(size);
        let mut sent = 0;
        loop {
            let mut bytes = Vec::with_capacity(MAX_BODY);
            let reading = |error| ClientError::local("reading the file to upload", &error);
            while bytes.len() < MAX_BODY {
                let room = (MAX_BODY - bytes.len()) as u64;
                let read = (&mut content).take(room).read_buf(&mut bytes).await;
                if read.map_err(reading)? == 0 {
                    break;
                }
            }
            if bytes.is_empty() {
                break;
            }
            sent += bytes.len() as u64;
            if let Some(reply) = self.send_data(bytes).await? {
                return Err(self.unexpected(reply));
            }
        }
        if sent != size {
            let message = format!("it has {sent} bytes, {size} were announced");
            return Err(ClientError::Local {
                doing: "reading the file to upload",
                message,
            });
        }
        self.send(Request::End).await?;
        match self.next().await? {
            Reply::Stored { path, .. } => Ok(path),
            other => Err(self.unexpected(other)),
        }
    }
}
