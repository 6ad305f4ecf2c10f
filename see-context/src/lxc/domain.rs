//! A container's XML before anything is made: read, checked, and closed in.

use std::path::PathBuf;

use see_core::config::ConfigPath;
use see_core::{Error, Result};
use see_libvirt::xml::{DomainXml, Element, XmlError};

use super::root::{Root, is_root};
use super::users::Users;
use crate::admission;
use crate::error::xml;
use crate::host::read_xml;
use crate::network::NetworkPlan;

/// Reads the domain's XML, and checks that everything can be filled in.
pub(super) fn prepare(path: &ConfigPath, network: &NetworkPlan) -> Result<(DomainXml, Root)> {
    let bytes = read_xml(path, "a libvirt domain XML")?;
    let mut domain =
        DomainXml::parse_bytes(&bytes).map_err(|error| xml(error, path.path(), path.place()))?;
    let wrong = |element: &Element, problem: String| {
        let position = element.position();
        xml(
            XmlError::Conflict { position, problem },
            path.path(),
            path.place(),
        )
    };
    match domain.hypervisor_type().as_deref() {
        Some("lxc") => {}
        found => {
            let found = found.unwrap_or("none").escape_debug().to_string();
            return Err(wrong(
                domain.root(),
                format!("the domain is of type `{found}`, and the backend is `lxc`"),
            )
            .advice("write <domain type='lxc'>"));
        }
    }
    network.unplug(&mut domain);
    admission::admit(&mut domain, network.promise(), true, path)?;
    let source = source_of_root(&domain, wrong)?;
    let users = mapped(domain.root(), wrong)?;
    // Without it a container without an interface has the host's network.
    let features = domain.root_mut().child_or_insert("features");
    if features.child("privnet").is_none() {
        features.append(Element::new("privnet"));
    }
    Ok((domain, Root { source, users }))
}

fn source_of_root(
    domain: &DomainXml,
    wrong: impl Fn(&Element, String) -> Error,
) -> Result<PathBuf> {
    const ADVICE: &str =
        "write <filesystem type='mount'><source dir='…'/><target dir='/'/></filesystem>";
    let mut roots = domain
        .devices("filesystem")
        .filter(|device| is_root(device));
    let (root, second) = (roots.next(), roots.next());
    if let Some(second) = second {
        return Err(wrong(second, "the container has a second root".to_owned())
            .advice("keep the one that each sandbox is to get a copy of"));
    }
    let Some(root) = root else {
        return Err(wrong(
            domain.root(),
            "the container has no root of its own, so that it would get the host's".to_owned(),
        )
        .advice(ADVICE));
    };
    let source = root.attribute_of("source", "dir").map(PathBuf::from);
    let is_mount = root.attribute("type").is_none_or(|kind| kind == "mount");
    match source.filter(|_| is_mount) {
        None => Err(wrong(root, "the container's root is not a folder".to_owned()).advice(ADVICE)),
        Some(source) if !source.is_absolute() || !source.is_dir() => Err(wrong(
            root,
            format!("there is no folder at {}", source.display()),
        )
        .advice("the path of the container's root is absolute")),
        Some(source) => {
            let resolved = source.canonicalize().map_err(|error| {
                wrong(
                    root,
                    format!("{} cannot be used: {error}", source.display()),
                )
            })?;
            if resolved.parent().is_none() {
                return Err(wrong(
                    root,
                    "the container's root is the host's, which is full of what it must not see"
                        .to_owned(),
                )
                .advice("give it a folder with a root file system of its own"));
            }
            Ok(resolved)
        }
    }
}

/// The first number above those that a host gives its own users and groups.
const FIRST_FREE: u32 = 1 << 16;

/// The users of the domain's own `<idmap>`; `None` without one. libvirt takes the lines of all of them together.
fn mapped(root: &Element, wrong: impl Fn(&Element, String) -> Error) -> Result<Option<Users>> {
    const ADVICE: &str = "leave the <idmap> out: each sandbox then gets users of its own";
    let maps = || root.children().filter(|child| child.name() == "idmap");
    let Some(map) = maps().next() else {
        return Ok(None);
    };
    let (mut uid, mut gid) = (None, None);
    for line in maps().flat_map(Element::children) {
        let first = match line.name() {
            "uid" => &mut uid,
            "gid" => &mut gid,
            _ => continue,
        };
        let number = |name: &str| line.attribute(name)?.parse::<u32>().ok();
        let (Some(start), Some(target), Some(_)) =
            (number("start"), number("target"), number("count"))
        else {
            return Err(wrong(
                line,
                "`start`, `target` and `count` of a line in the <idmap> are not all numbers"
                    .to_owned(),
            )
            .advice(ADVICE));
        };
        // The users of a line are its target and those above it, so no other line reaches these.
        if target < FIRST_FREE {
            let whose = match target {
                0 => "root".to_owned(),
                _ => format!("{} {target}", line.name()),
            };
            return Err(wrong(
                line,
                format!(
                    "the <idmap> makes the container's {} {start} the host's {whose}, and those below {FIRST_FREE} \
                     belong to the host's own accounts",
                    line.name()
                ),
            )
            .advice(ADVICE));
        }
        if start == 0 {
            *first = Some(target);
        }
    }
    match (uid, gid) {
        (Some(uid), Some(gid)) => Ok(Some(Users::of_domain(uid, gid))),
        _ => Err(
            wrong(map, "the <idmap> does not say who root is".to_owned()).advice(
                "write lines <uid start='0' …/> and <gid start='0' …/>, or leave the <idmap> out",
            ),
        ),
    }
}
