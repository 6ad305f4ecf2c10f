//! A container's root: a copy of the user's, owned by the container's users.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use see_core::ledger::{Entry, Resource};
use see_core::{Error, Result, StopToken};
use see_libvirt::xml::{DomainXml, Element};

use super::users::{Users, claim};
use crate::allocation::{Site, exactly, make_folder};
use crate::error::blocking;
use crate::storage::large_files;

/// The root of the sandboxes, and who their users are.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// The user's folder, which is only read.
    pub(super) source: PathBuf,
    /// The users of the domain's own map; left out, each sandbox has some of its own.
    pub(super) users: Option<Users>,
}

impl Root {
    /// Makes what has to be there before a sandbox's parts are written down.
    pub(super) async fn prepare(&self) -> Result<()> {
        match self.users {
            Some(_) => Ok(()),
            None => blocking("make the folder for containers' users", claim::make_folder).await,
        }
    }

    /// The folder with the copy, and who has the container's users.
    pub(super) fn intents(&self, site: &Site<'_>) -> Result<Vec<Resource>> {
        let folder = Resource::folder(large_files(), format!("see-{}", site.identifier))?;
        let mut planned = vec![folder];
        if self.users.is_none() {
            let name = site.identifier.to_string();
            planned.push(Resource::file(claim::FOLDER, name)?);
        }
        Ok(planned)
    }

    /// Makes the copy, and gives it to the container's users.
    pub(super) async fn make(&self, entries: Vec<Entry>, site: &Site<'_>) -> Result<OwnRoot> {
        let (folder, users) = match self.users {
            Some(users) => {
                let [folder] = exactly(entries)?;
                (make_folder(folder).await?, users)
            }
            None => {
                let [folder, claimed] = exactly(entries)?;
                (make_folder(folder).await?, own_users(claimed).await?)
            }
        };
        let copy = folder.join("root");
        let (source, target, stop) = (self.source.clone(), copy.clone(), site.stop.clone());
        blocking("copy the container's root", move || {
            // The container's users pass it to what is theirs.
            open_up(&folder, 0o711)?;
            copy_tree(&source, &target, users, &stop)
        })
        .await?;
        Ok(OwnRoot {
            folder: copy,
            users,
        })
    }
}

/// The root of one container.
#[derive(Debug)]
pub(super) struct OwnRoot {
    pub(super) folder: PathBuf,
    pub(super) users: Users,
}

impl OwnRoot {
    /// Gives it to the domain.
    pub(super) fn fill_in(&self, domain: &mut DomainXml) {
        if let Some(map) = self.users.map() {
            domain.root_mut().append(map);
        }
        let devices = domain.root_mut().child_or_insert("devices");
        if let Some(root) = devices.children_mut().find(|device| is_root(device)) {
            root.child_or_insert("source")
                .set_attribute("dir", self.folder.to_string_lossy());
        }
    }
}

/// Users that no other container has, until the sandbox is gone.
async fn own_users(entry: Entry) -> Result<Users> {
    let block = blocking("choose the container's users", move || {
        claim::take(&entry, Path::new(claim::FOLDER))
    });
    Ok(Users::of_block(block.await?))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io("the container's root cannot be copied", error).subject(path.display())
}

fn open_up(folder: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(failed(folder))
}

/// Copies folders, regular files and links. Devices, pipes and sockets are left out, since libvirt gives a
/// container its own; what is mounted inside is an empty folder.
fn copy_tree(source: &Path, target: &Path, users: Users, stop: &StopToken) -> Result<()> {
    let device = fs::metadata(source).map_err(failed(source))?.dev();
    let mut waiting = vec![(source.to_owned(), target.to_owned())];
    while let Some((from, to)) = waiting.pop() {
        stop.check("copy the container's root")?;
        let found = fs::symlink_metadata(&from).map_err(failed(&from))?;
        let kind = found.file_type();
        if kind.is_dir() {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&to)
                .map_err(failed(&to))?;
            if found.dev() == device {
                for entry in fs::read_dir(&from).map_err(failed(&from))? {
                    let entry = entry.map_err(failed(&from))?;
                    waiting.push((entry.path(), to.join(entry.file_name())));
                }
            }
        } else if kind.is_symlink() {
            let way = fs::read_link(&from).map_err(failed(&from))?;
            symlink(way, &to).map_err(failed(&to))?;
        } else if kind.is_file() {
            fs::copy(&from, &to).map_err(failed(&from))?;
        } else {
            continue;
        }
        let (uid, gid) = users.owner(found.uid(), found.gid());
        lchown(&to, Some(uid), Some(gid)).map_err(failed(&to))?;
        if !kind.is_symlink() {
            // A change of owners takes rights away.
            open_up(&to, found.mode() & 0o7777)?;
        }
    }
    Ok(())
}

/// The element of the container's root.
pub(super) fn is_root(device: &Element) -> bool {
    device.name() == "filesystem" && device.attribute_of("target", "dir") == Some("/")
}

#[cfg(test)]
mod tests {
    use see_core::{ErrorKind, Stop};

    use super::*;

    #[test]
    fn a_copy_has_links_and_rights_of_the_model_which_stays_as_it_was() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        fs::create_dir_all(model.join("bin")).unwrap();
        fs::write(model.join("bin/tool"), "tool").unwrap();
        open_up(&model.join("bin/tool"), 0o4755).unwrap();
        symlink("/etc/shadow", model.join("bin/link")).unwrap();
        let pipe = std::os::unix::net::UnixListener::bind(model.join("socket")).unwrap();
        let stop = Stop::new();
        let users = Users::of_block(100);

        let copy = folder.path().join("copy");
        copy_tree(&model, &copy, users, &stop.token()).unwrap();
        let tool = fs::metadata(copy.join("bin/tool")).unwrap();
        assert_eq!(tool.mode() & 0o7777, 0o4755);
        assert_eq!((tool.uid(), tool.gid()), users.root);
        let link = copy.join("bin/link");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/etc/shadow"));
        assert_eq!(fs::symlink_metadata(&link).unwrap().uid(), users.root.0);
        assert!(!copy.join("socket").exists());
        drop(pipe);
        assert_eq!(fs::metadata(model.join("bin/tool")).unwrap().uid(), 0);

        stop.stop();
        let again = folder.path().join("again");
        let error = copy_tree(&model, &again, users, &stop.token()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stopped);
    }
}
