//! A container's consoles: one whose output is kept, and one for the agent.
//!
//! libvirt gives a container pseudo-terminals alone. One that nobody reads fills up and stops the container's
//! first process, so the first is read into a file; the last carries the agent's frames, as a serial port does
//! in a whole machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use see_core::{ChannelStream, Error, ErrorKind, GuestChannel, Identifier, Result};
use see_libvirt::xml::{DomainXml, Element};
use see_libvirt::{Connection, DomainEvent, DomainEvents};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::terminal::{self, Terminal};
use crate::channel::{Connected, sole};
use crate::error::{blocking, libvirt};
use crate::machine::Task;

/// How much of a console is read at a time, in bytes.
const CHUNK: usize = 16 << 10;

/// Adds a console, the domain's next one.
fn add(domain: &mut DomainXml) {
    let next = domain.devices("console").count();
    domain.add_device(
        Element::new("console").with("type", "pty").with_child(
            Element::new("target")
                .with("type", "lxc")
                .with("port", next.to_string()),
        ),
    );
}

/// Gives the domain a console whose output is kept in the run folder, unless it has one: that is the user's to read.
/// What comes back are the file and the task that keeps it.
pub(super) async fn kept(
    domain: &mut DomainXml,
    folder: &Path,
    connection: &Connection,
    identifier: Identifier,
) -> Result<Option<(PathBuf, Task)>> {
    if domain.devices("console").count() > 0 {
        return Ok(None);
    }
    add(domain);
    let (name, file) = (identifier.to_string(), folder.join("console.log"));
    let new = file.clone();
    blocking("keep the console", move || append(&new, &[])).await?;
    let uuid = Uuid::parse_str(&name)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let events = connection.domain_events(uuid).await.map_err(libvirt)?;
    let keeping = keep(events, connection.clone(), name, file.clone());
    Ok(Some((file, Task::spawn(keeping))))
}

/// Gives the domain a console for the agent, the last one.
pub(super) fn for_the_agent(
    domain: &mut DomainXml,
    connection: &Connection,
    identifier: Identifier,
) -> Arc<dyn GuestChannel> {
    add(domain);
    Arc::new(AgentConsole {
        connection: connection.clone(),
        domain: identifier.to_string(),
        place: Arc::new(Semaphore::new(1)),
    })
}

/// The terminals of a running container's consoles, in their order.
async fn terminals(connection: &Connection, domain: &str) -> Result<Vec<PathBuf>> {
    let domain = connection.domain_by_name(domain).await.map_err(libvirt)?;
    let text = domain.xml().await.map_err(libvirt)?;
    let xml = DomainXml::parse(&text)
        .map_err(|error| Error::new(ErrorKind::Hypervisor, error.to_string()))?;
    Ok(xml
        .devices("console")
        .filter_map(|console| console.attribute_of("source", "path"))
        .map(PathBuf::from)
        .collect())
}

/// Keeps what the first console says, until the domain is gone.
async fn keep(mut events: DomainEvents, connection: Connection, domain: String, file: PathBuf) {
    let mut console: Option<Terminal> = None;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = async {
            match &mut console {
                Some(console) => console.read(&mut chunk).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => match event {
                None | Some(DomainEvent::Undefined) => return,
                Some(DomainEvent::Started | DomainEvent::Rebooted) => {
                    console = first(&connection, &domain).await;
                }
                Some(_) => {}
            },
            read = read => match read {
                Ok(length) if length > 0 => {
                    let (file, text) = (file.clone(), chunk[..length].to_vec());
                    let kept = blocking("keep the console", move || append(&file, &text)).await;
                    if let Err(error) = kept {
                        tracing::debug!(%error, "a part of the console is lost");
                    }
                }
                // The container ended, or starts anew.
                _ => console = None,
            },
        }
    }
}

async fn first(connection: &Connection, domain: &str) -> Option<Terminal> {
    let found = terminals(connection, domain).await;
    let path = found.ok()?.into_iter().next()?;
    terminal::open(&path)
        .inspect_err(|error| tracing::warn!(%error, "the container's console cannot be read"))
        .ok()
}

fn append(file: &Path, text: &[u8]) -> Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(text))
        .map_err(|error| Error::io("the console cannot be kept", error).subject(file.display()))
}

/// The console that the agent serves.
#[derive(Debug)]
struct AgentConsole {
    connection: Connection,
    domain: String,
    /// Two readers would share the bytes between them.
    place: Arc<Semaphore>,
}

#[async_trait]
impl GuestChannel for AgentConsole {
    async fn open(&self) -> Result<Box<dyn ChannelStream>> {
        let place = sole(&self.place)?;
        // A container that does not run has consoles without terminals.
        let path = terminals(&self.connection, &self.domain)
            .await?
            .pop()
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    "the container's console is not there",
                )
                .advice("the container must be running")
            })?;
        let terminal = terminal::open(&path).map_err(|error| {
            Error::io("the container's console cannot be opened", error).subject(path.display())
        })?;
        Ok(Box::new(Connected::new(terminal, place)))
    }
}
