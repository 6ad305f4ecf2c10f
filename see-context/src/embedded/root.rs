//! Removing the root of an embedded driver.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Looked};
use see_core::{Error, Result};

use super::ROOT;
use crate::error::blocking;

/// What is looked at.
const WHAT: &str = "the embedded driver's root";

/// Takes environments out of their root, and removes it with its last.
#[derive(Debug)]
pub(crate) struct Roots;

#[async_trait]
impl Collector for Roots {
    fn kind(&self) -> &str {
        ROOT
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let _gate = super::gate().await;
        let request = request.clone();
        blocking("remove the embedded driver's root", move || {
            collect(&request)
        })
        .await
    }

    /// Others of this process may live there, so that only what is this environment's counts.
    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        let request = request.clone();
        let looked = blocking("look at the embedded driver's root", move || {
            Ok(look(&request))
        });
        vec![looked.await.unwrap_or_else(look_failed)]
    }
}

/// Removes the environment from its root, and the root with its last.
fn collect(request: &CollectRequest) -> Result<Collected> {
    let path = Path::new(&request.resource.name);
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Collected::AlreadyGone);
        }
        Err(error) => {
            return Err(
                Error::io("the embedded driver's root cannot be looked at", error)
                    .subject(path.display()),
            );
        }
    };
    if !found.is_dir() {
        return Ok(Collected::Refused("it is not a folder".to_owned()));
    }
    let user = path.join("users").join(request.identifier.to_string());
    match &request.identity {
        Some(identity) if *identity == super::identity(path)? => {}
        // Its own went, and somebody made another one.
        Some(_) if !user.exists() => return Ok(Collected::AlreadyGone),
        Some(_) => {
            return Ok(Collected::Refused(
                "it is another folder than the one that was made".to_owned(),
            ));
        }
        // Its maker stopped or died before it wrote down what it made.
        None => {
            if !user.exists() {
                if !super::is_abandoned(path, request.identifier)? {
                    // The root is that of other sandboxes, which this one never joined.
                    return Ok(Collected::AlreadyGone);
                }
                if let Some(reason) = stranger(path, found.uid())? {
                    return Ok(Collected::Refused(reason));
                }
            }
        }
    }
    if !request.dry_run {
        super::withdraw(path, request.identifier, request.deadline)?;
    }
    Ok(Collected::Removed)
}

/// Whether the environment is in its root, or left it as the last one and the root stands.
fn look(request: &CollectRequest) -> Looked {
    let root = &request.resource.name;
    let path = Path::new(root);
    let looked = Looked::clear(WHAT);
    if !path.exists() {
        return looked;
    }
    let own = path.join("users").join(request.identifier.to_string());
    let is_known = || {
        let identity = request.identity.as_ref();
        identity.is_some_and(|known| super::identity(path).is_ok_and(|found| found == *known))
    };
    match super::is_last(path, request.identifier) {
        Ok(true) if is_known() || own.exists() => looked.with([root.clone()]),
        Ok(false) if own.exists() => looked.with([own.display().to_string()]),
        Ok(_) => looked,
        Err(error) => looked.ended_by(&error),
    }
}

/// A look that gave nothing is not to be taken for one that found nothing.
fn look_failed(error: Error) -> Looked {
    Looked::clear(WHAT).ended_by(&error)
}

/// Why a root whose maker wrote nothing of it down is somebody else's folder: its name alone says little.
fn stranger(path: &Path, owner: u32) -> Result<Option<String>> {
    let user = rustix::process::geteuid().as_raw();
    if owner != user {
        return Ok(Some(format!(
            "it belongs to uid {owner}, and we are uid {user}"
        )));
    }
    let strange = super::first_strange(path)?;
    Ok(strange.map(|inside| {
        format!(
            "nothing shows that it is ours, and it holds {}",
            inside.display().to_string().escape_debug()
        )
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use see_core::Identifier;
    use see_core::ledger::Resource;

    use super::*;

    #[test]
    fn a_look_that_failed_is_not_told_as_one_that_found_nothing() {
        let looked = look_failed(Error::new(see_core::ErrorKind::Internal, "broken"));
        assert!(!looked.is_clear() && looked.left().is_empty());
    }

    #[test]
    fn an_embedded_drivers_root_goes_only_where_it_is_the_folder_that_was_made() {
        let scratch = tempfile::tempdir().unwrap();
        let [ours, strange, link] =
            ["ours", "strange", "link"].map(|name| scratch.path().join(name));
        std::fs::create_dir(&ours).unwrap();
        std::fs::create_dir(&strange).unwrap();
        std::os::unix::fs::symlink(&ours, &link).unwrap();
        let identifier = Identifier::random();
        let request = |path: &Path| {
            let resource = Resource::new(ROOT, path.to_str().unwrap(), "");
            let mut request = CollectRequest::new(identifier, resource);
            request.identity = Some(crate::embedded::identity(&ours).unwrap());
            request
        };
        let collected = collect(&request(&link)).unwrap();
        assert!(matches!(collected, Collected::Refused(_)), "{collected:?}");
        // Another one was made where ours was, first without us and then as if we were in it.
        let collected = collect(&request(&strange)).unwrap();
        assert_eq!(collected, Collected::AlreadyGone);
        let user = strange.join("users").join(identifier.to_string());
        fs::create_dir_all(&user).unwrap();
        let collected = collect(&request(&strange)).unwrap();
        assert!(matches!(collected, Collected::Refused(_)), "{collected:?}");
        assert!(ours.exists() && user.exists());
        let request = request(&ours);
        assert_eq!(collect(&request).unwrap(), Collected::Removed);
        assert!(!ours.exists());
        assert_eq!(collect(&request).unwrap(), Collected::AlreadyGone);
    }

    #[test]
    fn a_folder_with_the_name_of_a_root_that_was_never_written_down_goes_only_with_what_a_root_is_made_of()
     {
        let scratch = tempfile::tempdir().unwrap();
        let identifier = Identifier::random();
        let digits: String = identifier.to_string().replace('-', "");
        let path = scratch.path().join(format!("see-{}", &digits[..16]));
        let resource = Resource::new(ROOT, path.to_str().unwrap(), "");
        let request = CollectRequest::new(identifier, resource);
        for strange in [
            "thesis",
            "etc/qemu/networks/office.xml",
            "lib/disk",
            "users.txt",
        ] {
            let file = path.join(strange);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "a stranger's").unwrap();
            let collected = collect(&request).unwrap();
            assert!(
                matches!(collected, Collected::Refused(_)),
                "{strange}: {collected:?}"
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), "a stranger's");
            fs::remove_dir_all(&path).unwrap();
        }
        for half in [
            "",
            "users",
            "cache/qemu/capabilities",
            "run/qemu/of-a-later-libvirt",
        ] {
            fs::create_dir_all(path.join(half)).unwrap();
            fs::create_dir_all(path.join("etc")).unwrap();
            fs::write(path.join("etc/qemu.conf"), "").unwrap();
            assert_eq!(collect(&request).unwrap(), Collected::Removed, "{half}");
            assert!(!path.exists());
        }
    }
}
