//! Logins that lie elsewhere than in the configuration: in a `clouds.yaml`, or in the environment, as
//! OpenStack's own clients find them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use see_core::config::{ConfigPath, Located, Origin, Place, fields_of, nearest};
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::keys::Keys;
use super::login::{OpenStackLogin, Whence};
use crate::client::TlsConfiguration;
use crate::text::{listed, read};

/// What of the process's surroundings says who logs in.
#[derive(Clone)]
pub(super) struct Surroundings {
    /// The environment variables that begin with `OS_`, without that; an empty one says nothing.
    pub(super) variables: BTreeMap<String, String>,
    /// The folders in which a `clouds.yaml` may lie, the first one first.
    pub(super) folders: Vec<PathBuf>,
    /// What `~` stands for.
    pub(super) home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        let folder = |name: &str| {
            let value = std::env::var_os(name)?;
            (!value.is_empty()).then(|| PathBuf::from(value))
        };
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_str()?.strip_prefix("OS_")?.to_lowercase();
            let value = value.into_string().ok()?;
            (!value.is_empty()).then_some((name, value))
        });
        let home = folder("HOME");
        let of_home = home.as_ref().map(|home| home.join(".config"));
        let folders = [
            std::env::current_dir().ok(),
            folder("XDG_CONFIG_HOME").map(|folder| folder.join("openstack")),
            of_home.map(|folder| folder.join("openstack")),
            Some(PathBuf::from("/etc/openstack")),
        ];
        Self {
            variables: variables.collect(),
            folders: folders.into_iter().flatten().collect(),
            home,
        }
    }
}

/// A login that lies elsewhere, and what lies beside it.
#[derive(Debug)]
pub(super) struct Cloud {
    pub(super) login: OpenStackLogin,
    pub(super) whence: Whence,
    pub(super) region: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) tls: TlsConfiguration,
}

impl Cloud {
    /// A login alone.
    pub(super) fn new(login: OpenStackLogin, whence: Whence) -> Self {
        Self {
            login,
            whence,
            region: None,
            interface: None,
            endpoint: None,
            tls: TlsConfiguration::default(),
        }
    }
}

/// The cloud of that name, else the one that `OS_CLOUD` names, else the environment's own login, else the only
/// one that the files have.
///
/// `region` is the one that the configuration asks for: a cloud with `regions` has to have it.
pub(super) fn find(
    name: Option<&Located<String>>,
    region: Option<&Located<String>>,
    around: &Surroundings,
) -> Result<Cloud> {
    if let Some(name) = name {
        let found = named(name, around).map_err(|error| error.or_at(name.place()))?;
        return found.cloud(region, around);
    }
    let variables = &around.variables;
    if let Some(name) = variables.get("cloud") {
        let mut found = named(name, around)?;
        for key in ["region_name", "interface"] {
            if let Some(value) = variables.get(key) {
                found.keys.put(key, value.clone());
            }
        }
        return found.cloud(region, around);
    }
    let keys: Keys = variables.clone().into_iter().collect();
    if keys.get("auth_url").is_some() || keys.get("auth_type").is_some() {
        let words = "the environment variables OS_…".to_owned();
        return Entry { keys, words }.cloud(region, around);
    }
    let nothing = |found: &str| {
        Error::new(
            ErrorKind::Configuration,
            format!("the provider `glance` is told no login{found}"),
        )
        .advice(
            "give `provider_configuration.os_auth` with auth_url, username, password and \
             project_name; or `cloud`, an entry of a clouds.yaml; or set OS_CLOUD, or OS_AUTH_URL and \
             its like",
        )
    };
    let Some(files) = Files::read(around)? else {
        return Err(nothing(""));
    };
    let mut names = files.clouds.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => files.entry(only)?.cloud(region, around),
        (None, _) => Err(nothing("")),
        (Some(_), Some(_)) => Err(nothing(&format!(
            ", and {} has the clouds {}",
            files.path.display(),
            files.names()
        ))),
    }
}

fn named(name: &str, around: &Surroundings) -> Result<Entry> {
    match Files::read(around)? {
        Some(files) => files.entry(name),
        None => {
            let folders = around
                .folders
                .iter()
                .map(|folder| folder.display().to_string());
            let folders: Vec<String> = folders.collect();
            Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "the cloud `{}` is asked for, and there is no clouds.yaml",
                    name.escape_debug()
                ),
            )
            .advice(format!(
                "it is looked for in OS_CLIENT_CONFIG_FILE, {}",
                folders.join(", ")
            )))
        }
    }
}

/// One login as it was read.
struct Entry {
    keys: Keys,
    /// Where it was read.
    words: String,
}

impl Entry {
    fn cloud(self, region: Option<&Located<String>>, around: &Surroundings) -> Result<Cloud> {
        let Self { mut keys, words } = self;
        let whence = Whence::Said(words);
        let asked = region.map(|region| region.as_str());
        if let Err(names) = keys.enter_region(asked) {
            let wanted = asked.or(keys.get("region_name")).unwrap_or_default();
            let error = whence
                .wrong(format!("found no region `{}`", wanted.escape_debug()))
                .advice(format!("its `regions` are {}", names.join(", ")));
            return Err(match region {
                Some(region) => error.or_at(region.place()),
                None => error,
            });
        }
        let file = |key: &str| {
            let text = keys.get(key)?;
            let home = around.home.as_deref().and_then(Path::to_str);
            let written = match (text.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => format!("{home}/{rest}"),
                _ => text.to_owned(),
            };
            let place = Place {
                origin: Origin::Program,
                key: key.to_owned(),
            };
            Some(ConfigPath::new(written, place))
        };
        let truth = |key: &str| match keys.get(key).map(str::to_lowercase).as_deref() {
            None | Some("") => Ok(None),
            Some("true" | "yes" | "on" | "1") => Ok(Some(true)),
            Some("false" | "no" | "off" | "0") => Ok(Some(false)),
            Some(_) => Err(whence.wrong(format!("found a `{key}` that is neither true nor false"))),
        };
        let insecure = truth("insecure")?.unwrap_or(false) || truth("verify")? == Some(false);
        let tls = TlsConfiguration {
            cacert: file("cacert"),
            cert: file("cert"),
            key: file("key"),
            insecure: insecure.then_some(true),
        };
        let text = |key: &str| keys.get(key).map(str::to_owned);
        let (region, interface) = (text("region_name"), text("interface"));
        let endpoint = text("image_endpoint_override");
        // Files and environments have keys for other services and tools, too.
        let known = fields_of::<OpenStackLogin>();
        let own = keys
            .into_iter()
            .filter(|(key, _)| known.contains(&key.as_str()));
        let own = own.map(|(key, value)| (key, serde_json::Value::from(value)));
        // The complaint might repeat a value.
        let login = serde_json::from_value(own.collect()).map_err(|_| {
            whence.wrong("the keys of the login are not of the kinds that they should be")
        })?;
        Ok(Cloud {
            region,
            interface,
            endpoint,
            tls,
            ..Cloud::new(login, whence)
        })
    }
}

/// The files of clouds that count: the first of each kind.
struct Files {
    path: PathBuf,
    clouds: BTreeMap<String, Keys>,
    profiles: BTreeMap<String, Keys>,
}

/// What a file of clouds has.
#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    clouds: Option<BTreeMap<String, Option<Keys>>>,
    #[serde(default, rename = "public-clouds")]
    profiles: Option<BTreeMap<String, Option<Keys>>>,
}

impl Files {
    fn read(around: &Surroundings) -> Result<Option<Self>> {
        let named = |variable: &str| around.variables.get(variable).map(PathBuf::from);
        let clouds = first("clouds", named("client_config_file"), around)?;
        let secure = first("secure", named("client_secure_file"), around)?;
        let (path, mut found) = match (clouds, &secure) {
            (Some((path, file)), _) => (path, file),
            (None, Some((path, _))) => (path.clone(), File::default()),
            (None, None) => return Ok(None),
        };
        let mut merged = present(found.clouds.take());
        if let Some((_, secure)) = secure {
            for (name, keys) in present(secure.clouds) {
                merged.entry(name).or_default().extend(keys);
            }
        }
        let profiles = match first("clouds-public", None, around)? {
            Some((_, file)) => present(file.profiles),
            None => BTreeMap::new(),
        };
        Ok(Some(Self {
            path,
            clouds: merged,
            profiles,
        }))
    }

    fn entry(&self, name: &str) -> Result<Entry> {
        let Some(keys) = self.clouds.get(name) else {
            let error = Error::new(
                ErrorKind::Configuration,
                format!(
                    "{} has no cloud `{}`",
                    self.path.display(),
                    name.escape_debug()
                ),
            );
            let known = self.clouds.keys().map(String::as_str);
            return Err(match nearest(name, known) {
                Some(near) => {
                    error.advice(format!("did you mean `{near}`? It has {}", self.names()))
                }
                None => error.advice(format!("it has {}", self.names())),
            });
        };
        let words = format!("{}, cloud `{}`", self.path.display(), name.escape_debug());
        let mut all = Keys::default();
        if let Some(profile) = keys.get("profile") {
            match self.profiles.get(profile) {
                Some(shared) => all.extend(shared.clone()),
                // Its own keys may well be enough.
                None if keys.get("auth_url").is_some() => {}
                None => {
                    return Err(Whence::Said(words)
                        .wrong(format!(
                            "no clouds-public.yaml has the profile `{}`",
                            profile.escape_debug()
                        ))
                        .advice("give the cloud an `auth_url` of its own"));
                }
            }
        }
        all.extend(keys.clone());
        Ok(Entry { keys: all, words })
    }

    fn names(&self) -> String {
        listed(self.clouds.keys().map(String::as_str))
    }
}

fn present(clouds: Option<BTreeMap<String, Option<Keys>>>) -> BTreeMap<String, Keys> {
    let clouds = clouds.unwrap_or_default().into_iter();
    clouds
        .map(|(name, keys)| (name, keys.unwrap_or_default()))
        .collect()
}

/// The file that is named, else the first of that name in the folders that may be read.
fn first(
    stem: &str,
    named: Option<PathBuf>,
    around: &Surroundings,
) -> Result<Option<(PathBuf, File)>> {
    if let Some(path) = named {
        let text = read(&path).map_err(|error| {
            Error::io("the file of clouds cannot be read", error).subject(path.display())
        })?;
        let file = parsed(&path, &text)?;
        return Ok(Some((path, file)));
    }
    for folder in &around.folders {
        for ending in ["yaml", "yml", "json"] {
            let path = folder.join(format!("{stem}.{ending}"));
            // Nobody named it: to open a pipe that has the name would wait for its other end.
            if std::fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
                continue;
            }
            match read(&path) {
                Ok(text) => {
                    let file = parsed(&path, &text)?;
                    return Ok(Some((path, file)));
                }
                // What is another's may be followed by one that is for us.
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound
                            | std::io::ErrorKind::NotADirectory
                            | std::io::ErrorKind::PermissionDenied
                    ) => {}
                Err(error) => {
                    return Err(Error::io("the file of clouds cannot be read", error)
                        .subject(path.display()));
                }
            }
        }
    }
    Ok(None)
}

fn parsed(path: &Path, text: &str) -> Result<File> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    // JSON is YAML as well.
    serde_saphyr::from_str::<File>(text).map_err(|error| {
        // The complaint itself quotes lines, and passwords stand in some of them.
        let place = error.location().map_or_else(String::new, |at| {
            format!(" at line {}, column {}", at.line(), at.column())
        });
        Error::new(
            ErrorKind::Configuration,
            format!("this is no file of clouds: it cannot be read{place}"),
        )
        .subject(path.display())
        .advice(
            "expected YAML with the key `clouds`, and under it a name with `auth` for each cloud",
        )
    })
}
