//! A container's consoles: one whose output is kept, and one for the agent.
//!
//! libvirt gives a container pseudo-terminals alone. One that nobody reads fills up and stops the container's
//! first process, so the first is read into a file; the last carries the agent's frames, as a serial port does
//! in a whole machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use see_core::ledger::Resource;
use see_core::{ChannelStream, Error, ErrorKind, GuestChannel, Result};
use see_libvirt::xml::{DomainXml, Element};
use see_libvirt::{Connection, DomainEvent, DomainEvents};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::terminal::{self, Terminal};
use crate::allocation::{Entries, Making, Part, Site, Task};
use crate::error::{blocking, libvirt};
use crate::parts::Connected;

/// How much of a console is read at a time, in bytes.
const CHUNK: usize = 16 << 10;

/// The consoles of a container.
#[derive(Debug)]
pub(super) struct Consoles {
    /// Whether the agent gets one.
    pub(super) agent: bool,
}

#[async_trait]
impl Part for Consoles {
    /// The file lies in the run folder, and goes with it.
    fn intents(&self, _site: &Site) -> Result<Vec<Resource>> {
        Ok(Vec::new())
    }

    async fn make(&self, _entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let name = making.identifier.to_string();
        let connection = making.connection()?.clone();
        let own = making.domain.devices("console").count();
        let mut next = own;
        let mut add = |domain: &mut DomainXml| {
            domain.add_device(
                Element::new("console").with("type", "pty").with_child(
                    Element::new("target")
                        .with("type", "lxc")
                        .with("port", next.to_string()),
                ),
            );
            next += 1;
        };
        // One that the user wrote is the user's to read.
        if own == 0 {
            add(&mut making.domain);
            let file = making.run_folder()?.join("console.log");
            let new = file.clone();
            blocking("keep the console", move || append(&new, &[])).await?;
            let uuid = Uuid::parse_str(&name)
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
            let events = connection.domain_events(uuid).await.map_err(libvirt)?;
            let keeping = keep(events, connection.clone(), name.clone(), file.clone());
            making.abilities.tasks.push(Task::spawn(keeping));
            making.abilities.console = Some(file);
        }
        if self.agent {
            add(&mut making.domain);
            making.abilities.channel = Some(Arc::new(AgentConsole {
                connection,
                domain: name,
                place: Arc::new(Semaphore::new(1)),
            }));
        }
        Ok(())
    }
}

/// The terminals of a running container's consoles, in their order.
async fn terminals(connection: &Connection, domain: &str) -> Result<Vec<PathBuf>> {
    let domain = connection.domain_by_name(domain).await.map_err(libvirt)?;
    let text = domain.xml().await.map_err(libvirt)?;
    let xml = DomainXml::parse(&text)
        .map_err(|error| Error::new(ErrorKind::Hypervisor, error.to_string()))?;
    Ok(xml
        .devices("console")
        .filter_map(|console| console.child("source")?.attribute("path"))
        .map(|path| PathBuf::from(path.as_ref()))
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
        let place = Arc::clone(&self.place).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "the guest's channel is in use by another connection",
            )
        })?;
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
