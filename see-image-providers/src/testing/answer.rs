//! One connection of the server that misbehaves.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Fault, Resource, Seen, Shared};

const PIECE: usize = 64 << 10;

pub(super) async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    // Whoever asks may go away at any time.
    let _ = conversation(connection, &shared).await;
}

async fn conversation(mut connection: TcpStream, shared: &Shared) -> io::Result<()> {
    let (reading, mut writing) = connection.split();
    let mut reading = BufReader::new(reading);
    while let Some(seen) = request(&mut reading).await? {
        if !answer(&mut writing, shared, seen).await? {
            break;
        }
    }
    writing.shutdown().await
}

/// The next request; its body, if any, is left alone.
async fn request(reading: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if reading.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut seen = Seen {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers: Vec::new(),
    };
    loop {
        let mut line = String::new();
        if reading.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(seen));
        };
        seen.headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Answers; `false` where the connection is to be closed.
async fn answer(
    writing: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    seen: Seen,
) -> io::Result<bool> {
    let path = seen.target.split('?').next().unwrap_or_default().to_owned();
    let is_get = seen.method == "GET";
    let (resource, fault) = {
        let mut state = shared.state();
        state.seen.push(seen.clone());
        match state.resources.get_mut(&path) {
            Some(resource) => {
                let fault = is_get.then(|| resource.once.pop_front()).flatten();
                let fault = fault.or_else(|| resource.always.clone().filter(|_| is_get));
                let is_post = seen.method == "POST";
                let fault = fault.or_else(|| resource.posts.clone().filter(|_| is_post));
                (Some(resource.clone()), fault)
            }
            None => (None, None),
        }
    };
    let Some(resource) = resource else {
        let page = b"<html>404 Not Found</html>";
        plain(writing, 404, &[], page, is_get).await?;
        return Ok(true);
    };
    match fault {
        Some(Fault::Status(status, headers, body)) => {
            plain(writing, status, &headers, &body, is_get).await?;
            Ok(true)
        }
        Some(Fault::Redirect(to)) => {
            plain(writing, 302, &[("Location".to_owned(), to)], b"", is_get).await?;
            Ok(true)
        }
        fault => body(writing, shared, &seen, &path, &resource, fault).await,
    }
}

async fn plain(
    writing: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
    with_body: bool,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} As Told\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if status != 204 {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    writing.write_all(head.as_bytes()).await?;
    if with_body && status != 204 {
        writing.write_all(body).await?;
    }
    writing.flush().await
}

async fn body(
    writing: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    seen: &Seen,
    path: &str,
    resource: &Resource,
    fault: Option<Fault>,
) -> io::Result<bool> {
    let whole = resource.length;
    let range = range(seen, resource);
    let mut head = String::new();
    let (mut first, mut end) = (0, whole);
    match range {
        None => head.push_str("HTTP/1.1 200 OK\r\n"),
        Some((start, _)) if start >= whole => {
            let headers = [("Content-Range".to_owned(), format!("bytes */{whole}"))];
            plain(writing, 416, &headers, b"", true).await?;
            return Ok(true);
        }
        Some((start, stop)) => {
            (first, end) = (start, stop.map_or(whole, |stop| stop.min(whole)));
            if let Some(Fault::ShiftedRange(by)) = fault {
                first = (first + by).min(end - 1);
            }
            head.push_str("HTTP/1.1 206 Partial Content\r\n");
            if !matches!(fault, Some(Fault::NoLength)) {
                let _ = write!(head, "Content-Range: bytes {first}-{}/{whole}\r\n", end - 1);
            }
        }
    }
    if resource.ranges {
        head.push_str("Accept-Ranges: bytes\r\n");
    }
    for (name, value) in [
        ("ETag", &resource.entity_tag),
        ("Last-Modified", &resource.last_modified),
    ] {
        if let Some(value) = value {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    let announced = match &fault {
        Some(Fault::ContentLength(length)) => Some(*length),
        Some(Fault::NoLength) => None,
        _ if seen.method == "HEAD" => Some(resource.announced.unwrap_or(whole)),
        _ => Some(end - first),
    };
    match announced {
        Some(length) => {
            let _ = write!(head, "Content-Length: {length}\r\n\r\n");
        }
        None => head.push_str("Connection: close\r\n\r\n"),
    }
    writing.write_all(head.as_bytes()).await?;
    if seen.method != "GET" {
        writing.flush().await?;
        return Ok(true);
    }
    let _sending = Sending::begin(shared);
    let (piece, pause) = match &fault {
        Some(Fault::Trickle(piece, pause) | Fault::Line(piece, pause)) => (*piece, Some(*pause)),
        _ => (PIECE, None),
    };
    let stop = match &fault {
        Some(Fault::CutAfter(bytes) | Fault::Stall(bytes) | Fault::Replace(bytes, _)) => {
            end.min(first + bytes)
        }
        _ => end,
    };
    let mut at = first;
    while at < stop {
        let _line = match fault {
            Some(Fault::Line(..)) => Some(shared.line.lock().await),
            _ => None,
        };
        let bytes = piece_of(resource, at, stop.min(at + piece as u64), &fault);
        writing.write_all(&bytes).await?;
        shared.state().sent += bytes.len() as u64;
        at += bytes.len() as u64;
        if let Some(pause) = pause {
            writing.flush().await?;
            tokio::time::sleep(pause).await;
        }
    }
    writing.flush().await?;
    match fault {
        Some(Fault::Stall(_)) => std::future::pending().await,
        Some(Fault::Replace(_, by)) => {
            shared.state().resources.insert(path.to_owned(), *by);
            Ok(false)
        }
        Some(Fault::CutAfter(_) | Fault::ContentLength(_) | Fault::NoLength) => Ok(false),
        _ => Ok(true),
    }
}

/// A body on its way, counted until it ends in whatever way.
struct Sending<'a>(&'a Shared);

impl<'a> Sending<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let mut state = shared.state();
        state.at_once += 1;
        state.most_at_once = state.most_at_once.max(state.at_once);
        Self(shared)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.state().at_once -= 1;
    }
}

/// The bytes from `start` on, up to `end` or as far as they lie together.
fn piece_of(resource: &Resource, start: u64, end: u64, fault: &Option<Fault>) -> Bytes {
    let from = (start % resource.body.len() as u64) as usize;
    let to = resource.body.len().min(from + (end - start) as usize);
    let piece = resource.body.slice(from..to);
    let end = start + piece.len() as u64;
    match fault {
        Some(Fault::Flip(at)) if (start..end).contains(at) => {
            let mut piece = piece.to_vec();
            piece[(at - start) as usize] ^= 1;
            piece.into()
        }
        _ => piece,
    }
}

/// The range that was asked for, where it is to be given: first byte, and the one after the last.
fn range(seen: &Seen, resource: &Resource) -> Option<(u64, Option<u64>)> {
    if !resource.ranges {
        return None;
    }
    if let Some(condition) = seen.header("if-range") {
        let marks = [&resource.entity_tag, &resource.last_modified];
        if !marks.into_iter().flatten().any(|mark| mark == condition) {
            return None;
        }
    }
    let (start, last) = seen
        .header("range")?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let last: Option<u64> = match last {
        "" => None,
        last => Some(last.parse().ok()?),
    };
    Some((start.parse().ok()?, last.map(|last| last + 1)))
}
