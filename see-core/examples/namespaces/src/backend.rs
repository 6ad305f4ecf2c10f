//! The backend: what is checked, what is written down, and what is made.

use std::path::PathBuf;

use async_trait::async_trait;
use see_core::config::{ConfigPath, Located};
use see_core::ledger::Resource;
use see_core::{Allocation, Backend, Driver, Error, ErrorKind, Preparation, Result};
use serde::Deserialize;

use crate::machine::NamespacesMachine;
use crate::process::{PATH, PROGRAMS};

/// The `context` section.
#[derive(Debug, Deserialize)]
pub struct NamespacesConfiguration {
    /// The program and its arguments; the program lies in one of the host's folders for programs.
    command: Vec<Located<String>>,
    /// An existing folder, in which each machine gets one of its own. The folder for temporary files.
    folder: Option<ConfigPath>,
}

/// A backend whose machines are processes in namespaces; its name in configurations is `namespaces`.
#[derive(Debug)]
pub struct Namespaces {
    command: Vec<String>,
    folder: PathBuf,
}

#[async_trait]
impl Backend for Namespaces {
    const NAME: &'static str = "namespaces";
    type Configuration = NamespacesConfiguration;

    async fn prepare(
        configuration: NamespacesConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        if configuration.command.is_empty() {
            let place = preparation.place.clone();
            return Err(Error::configuration(place, "`command` is empty")
                .advice("name a program, and its arguments"));
        }
        let folder = match &configuration.folder {
            Some(path) if !path.path().is_dir() => {
                let message = format!("found the path {}, which is no folder", path.written());
                return Err(Error::configuration(path.place().clone(), message));
            }
            Some(path) => path.path().to_owned(),
            None => std::env::temp_dir(),
        };
        let lies_on_path =
            |program: &&str| std::env::split_paths(PATH).any(|path| path.join(program).is_file());
        if let Some(missing) = PROGRAMS.iter().find(|program| !lies_on_path(program)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the program {missing} is not installed"),
            )
            .advice("it is a part of util-linux"));
        }
        let command = configuration.command.into_iter();
        Ok(Self {
            command: command.map(Located::into_inner).collect(),
            folder,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        allocation.stop.check("allocate")?;
        // All of it is written down before any of it is made: if we die from here on, the ledger knows what
        // to look for. After an error, and in the end, core removes what is written down.
        let name = format!("see-{}", allocation.identifier);
        let planned = [
            Resource::folder(&self.folder, name)?,
            Resource::process("the machine"),
        ];
        let entries = allocation.record.intend(planned).await?;
        let [folder, process] = <[_; 2]>::try_from(entries)
            .map_err(|_| Error::new(ErrorKind::Internal, "the ledger gave too few entries"))?;
        let path = folder.create_folder().await?;
        allocation.stop.check("allocate")?;
        let changes = allocation.changes.clone();
        let machine = NamespacesMachine::new(self.command.clone(), &path, process, changes);
        Ok(Box::new(machine))
    }
}
