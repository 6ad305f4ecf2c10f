//! Names that somebody else has already.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::bench::{Bench, named};
use super::candidate::Stranger;
use crate::fault::Faults;
use crate::ledger::Resource;
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Error, Identifier, Result, Stop};

/// What lies in a stranger's file.
const CONTENT: &[u8] = b"a stranger's, and none of ours";

pub(super) async fn names(bench: Arc<Bench>) -> Outcome {
    let model = Identifier::random();
    let planned = holdings(&bench, model).await?;
    // Names that are drawn by lot cannot be taken by others beforehand.
    let again = holdings(&bench, model).await?;
    let planned: Vec<Resource> = planned
        .into_iter()
        .filter(|resource| again.contains(resource))
        .collect();
    let (mut tried, mut skipped) = (Vec::new(), Vec::new());
    for resource in planned {
        let wanted = Identifier::random();
        let taken = renamed(&resource, model, wanted);
        // A name without the identifier is shared, or of no consequence.
        if taken == resource {
            continue;
        }
        let Some(stranger) = plant(&bench, &taken).await? else {
            skipped.push(resource.kind.to_string());
            continue;
        };
        let met = meet(&bench, wanted, &*stranger).await;
        stranger.remove().await?;
        met.map_err(|stumble| stumble.during(format!("a {} that exists", named(&taken))))?;
        bench.nothing_left(wanted).await?;
        tried.push(resource.kind.to_string());
    }
    if tried.is_empty() {
        let why = format!("nothing of {} can be planted", skipped.join(", "));
        return Err(Stumble::NotApplicable(why));
    }
    let skipped = match skipped.as_slice() {
        [] => String::new(),
        kinds => format!("; not planted: {}", kinds.join(", ")),
    };
    Ok(format!("{}{skipped}", tried.join(", ")))
}

/// What an environment of this identifier holds.
async fn holdings(bench: &Bench, identifier: Identifier) -> Outcome<Vec<Resource>> {
    let attempt = bench
        .attempt(identifier, Stop::new(), &Faults::default())
        .await?;
    let holdings = attempt.record.holdings();
    attempt.end(bench).await?;
    Ok(holdings)
}

/// Allocates where a stranger has the name already.
async fn meet(bench: &Bench, identifier: Identifier, stranger: &dyn Stranger) -> Outcome<()> {
    let attempt = bench
        .attempt(identifier, Stop::new(), &Faults::default())
        .await?;
    let accepted = attempt.outcome.is_ok();
    if let Ok(machine) = &attempt.outcome {
        bench.within("release", machine.release()).await??;
    }
    // What the stranger's name keeps from being collected is the stranger's.
    let _ = attempt
        .record
        .collect(&bench.collectors, bench.candidate.patience())
        .await?;
    let left = attempt.record.close().await?;
    let harm = stranger.harm().await;
    ensure(!accepted, || "the allocation went on with it".to_owned())?;
    ensure(harm.is_none(), || harm.unwrap_or_default())?;
    ensure(left.is_empty(), || {
        let left: Vec<String> = left.iter().map(named).collect();
        format!("the ledger still holds {}", left.join(", "))
    })
}

/// The same resource, planned for another environment.
fn renamed(resource: &Resource, from: Identifier, to: Identifier) -> Resource {
    let (from, to) = (from.to_string(), to.to_string());
    let mut renamed = resource.clone();
    renamed.name = renamed.name.replace(&from, &to);
    renamed.location = renamed.location.replace(&from, &to);
    renamed
}

async fn plant(bench: &Bench, resource: &Resource) -> Outcome<Option<Box<dyn Stranger>>> {
    if let Some(planted) = bench.candidate.plant(resource).await {
        return Ok(Some(planted?));
    }
    let Some(path) = resource.path() else {
        return Ok(None);
    };
    // One that lies in a folder of the environment's own cannot be there before it.
    if !path.parent().is_some_and(Path::is_dir) {
        return Ok(None);
    }
    let planted = Planted::new(path, resource.kind == Resource::FOLDER);
    let planted = planted.map_err(|error| Error::io("a stranger cannot be planted", error))?;
    Ok(Some(Box::new(planted)))
}

/// A file, or a folder with a file in it.
struct Planted {
    path: PathBuf,
    file: PathBuf,
    inode: u64,
}

impl Planted {
    fn new(path: PathBuf, is_folder: bool) -> std::io::Result<Self> {
        let file = if is_folder {
            fs::create_dir(&path)?;
            path.join("file")
        } else {
            path.clone()
        };
        fs::write(&file, CONTENT)?;
        let inode = fs::symlink_metadata(&path)?.ino();
        Ok(Self { path, file, inode })
    }
}

#[async_trait]
impl Stranger for Planted {
    async fn harm(&self) -> Option<String> {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        let whole = fs::read(&self.file).is_ok_and(|content| content == CONTENT);
        (!same || !whole).then(|| "it was removed, replaced or written to".to_owned())
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        let removed = if self.file == self.path {
            fs::remove_file(&self.path)
        } else {
            fs::remove_dir_all(&self.path)
        };
        removed.map_err(|error| Error::io("a stranger cannot be removed", error))
    }
}
