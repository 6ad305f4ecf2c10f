//! Configuration files and databases of Keystone and Glance.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::super::{folder, program};
use super::Glance;
use super::seed::SERVICE;

/// The one whose packages Keystone and Glance are, not one that comes first in the path.
const PYTHON: &str = "/usr/bin/python3";

/// Whatever of the databases depends on this file's content is told by a change of this number.
const EDITION: u32 = 1;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) folder: PathBuf,
    pub(super) identity: u16,
    pub(super) images: u16,
    pub(super) secure_identity: u16,
    pub(super) secure_images: u16,
}

impl Settings {
    /// Writes the configuration files.
    pub(super) fn write(&self, token_seconds: u32) {
        for name in [
            "identity",
            "images/content",
            "images/staging",
            "images/tasks",
            "images/locks",
        ] {
            fs::create_dir_all(self.folder.join(name)).expect("the target folder is writable");
        }
        self.put("identity/gunicorn.conf.py", gunicorn(self.identity));
        self.put("identity/keystone.conf", self.keystone(token_seconds));
        self.put("images/glance-api.conf", self.glance());
        self.put("images/glance-api-paste.ini", PIPELINE.to_owned());
    }

    /// Databases as they are after the seed: true where they are new and have no seed yet.
    pub(super) fn prepare(&self) -> bool {
        let wanted = self.description();
        let told = self.folder.join("kept/description");
        if fs::read_to_string(told).is_ok_and(|text| text == wanted) {
            for (kept, live) in self.databases() {
                for beside in ["-wal", "-shm"] {
                    let mut path = live.clone().into_os_string();
                    path.push(beside);
                    // It is there only after a kill.
                    let _ = fs::remove_file(path);
                }
                fs::copy(kept, live).expect("the target folder is writable");
            }
            self.forget_contents();
            return false;
        }
        for name in ["kept", "identity/fernet", "identity/credential"] {
            // What is not there is not in the way.
            let _ = fs::remove_dir_all(self.folder.join(name));
        }
        for (_, live) in self.databases() {
            let _ = fs::remove_file(live);
        }
        self.forget_contents();
        self.make();
        true
    }

    /// Keeps the databases as they are now, for the next test program.
    pub(super) fn keep(&self) {
        fs::create_dir_all(self.folder.join("kept")).expect("the target folder is writable");
        for (kept, live) in self.databases() {
            copy(&live, &kept);
        }
        self.put("kept/description", self.description());
    }

    /// Everything that the databases know of this file.
    fn description(&self) -> String {
        format!(
            "{EDITION} {} {} {} {}\n{}",
            self.identity,
            self.images,
            self.secure_identity,
            self.secure_images,
            self.folder.display()
        )
    }

    fn databases(&self) -> [(PathBuf, PathBuf); 2] {
        ["identity", "images"].map(|name| {
            (
                self.folder.join(format!("kept/{name}.db")),
                self.folder.join(format!("{name}/{name}.db")),
            )
        })
    }

    fn forget_contents(&self) {
        let content = self.folder.join("images/content");
        for image in fs::read_dir(&content).into_iter().flatten().flatten() {
            fs::remove_file(image.path()).expect("the target folder is writable");
        }
    }

    /// Makes the schemas and keys. Both schemas take seconds and know nothing of each other.
    fn make(&self) {
        let identity = self.folder.join("identity/keystone.conf");
        let images = self.folder.join("images/glance-api.conf");
        let mut glance = program(PYTHON, &self.folder);
        glance.args(["-m", "glance.cmd.manage", "--config-file"]);
        let glance = begin(glance.arg(&images).arg("db_sync"));
        let keystone = |words: &[&str]| {
            let mut manage = program("keystone-manage", &self.folder);
            end(begin(
                manage.arg("--config-file").arg(&identity).args(words),
            ));
        };
        keystone(&["db_sync"]);
        let output = Command::new("id").arg("-un").output();
        let user = output.expect("every host has `id`").stdout;
        let user = String::from_utf8_lossy(&user).trim().to_owned();
        let output = Command::new("id").arg("-gn").output();
        let group = output.expect("every host has `id`").stdout;
        let group = String::from_utf8_lossy(&group).trim().to_owned();
        let whose = ["--keystone-user", &user, "--keystone-group", &group];
        for setup in ["fernet_setup", "credential_setup"] {
            keystone(&[&[setup][..], &whose].concat());
        }
        let admin = Glance::ADMINISTRATOR;
        let url = format!("http://127.0.0.1:{}/v3", self.identity);
        keystone(&[
            "bootstrap",
            "--bootstrap-password",
            admin.password,
            "--bootstrap-region-id",
            Glance::REGION,
            "--bootstrap-public-url",
            &url,
            "--bootstrap-internal-url",
            &url,
            "--bootstrap-admin-url",
            &url,
        ]);
        end(glance);
        for (_, live) in self.databases() {
            // Readers then never make a writer wait: with SQLite's usual journal Keystone answers 500 at times.
            sqlite(&live, "PRAGMA journal_mode=WAL");
        }
    }

    fn keystone(&self, token_seconds: u32) -> String {
        let own = self.folder.join("identity");
        let own = own.display();
        // Without its cache Keystone asks its database some hundred times whether one token is good. It is one
        // process, so the cache knows at once of what is revoked.
        format!(
            "[DEFAULT]\nuse_stderr = true\n\
             [database]\nconnection = sqlite:///{own}/identity.db\n\
             [cache]\nenabled = true\nbackend = oslo_cache.dict\n\
             [identity]\npassword_hash_rounds = 4\n\
             [token]\nexpiration = {token_seconds}\nallow_expired_window = 0\n\
             [fernet_tokens]\nkey_repository = {own}/fernet\n\
             [credential]\nkey_repository = {own}/credential\n"
        )
    }

    fn glance(&self) -> String {
        let own = self.folder.join("images");
        let own = own.display();
        let (name, password, project) = SERVICE;
        let keystone = format!("http://127.0.0.1:{}/v3", self.identity);
        let port = self.images;
        let mut text = format!(
            // Every list of more than a few images has pages.
            "[DEFAULT]\nuse_stderr = true\nenabled_backends = disk:file\nenabled_import_methods = []\n\
             limit_param_default = 4\napi_limit_max = 4\n\
             bind_host = 127.0.0.1\nbind_port = {port}\npublic_endpoint = http://127.0.0.1:{port}\n\
             workers = 0\n\
             [database]\nconnection = sqlite:///{own}/images.db\n\
             [paste_deploy]\nflavor = keystone\nconfig_file = {own}/glance-api-paste.ini\n\
             [oslo_concurrency]\nlock_path = {own}/locks\n\
             [glance_store]\ndefault_backend = disk\n"
        );
        for (section, folder) in [
            ("disk", "content"),
            ("os_glance_staging_store", "staging"),
            ("os_glance_tasks_store", "tasks"),
        ] {
            let _ = writeln!(
                text,
                "[{section}]\nfilesystem_store_datadir = {own}/{folder}"
            );
        }
        // Each request asks Keystone whether the token is still good: a test that revokes one sees it at once.
        let _ = writeln!(
            text,
            "[keystone_authtoken]\nauth_type = password\nauth_url = {keystone}\n\
             www_authenticate_uri = {keystone}\nusername = {name}\npassword = {password}\n\
             user_domain_name = Default\nproject_name = {project}\nproject_domain_name = Default\n\
             service_token_roles_required = true\ntoken_cache_time = -1"
        );
        text
    }

    fn put(&self, name: &str, text: String) {
        fs::write(self.folder.join(name), text).expect("the target folder is writable");
    }
}

/// gunicorn reads this file of the folder it runs in. Its command line stays empty, since Keystone takes the
/// words on it for its own.
fn gunicorn(port: u16) -> String {
    format!(
        "wsgi_app = 'keystone.server.wsgi:initialize_public_application()'\n\
         bind = '127.0.0.1:{port}'\nworkers = 1\n\
         worker_class = 'gthread'\nthreads = 8\ntimeout = 600\ngraceful_timeout = 1\n\
         control_socket_disable = True\n{ENDING}"
    )
}

/// The process that serves ends with the one that made it: else it keeps the port for a while after a test program,
/// and the next one makes databases for another port.
const ENDING: &str = "\
def post_fork(server, worker):
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
";

/// What stands between a request and Glance: who asks is looked up in Keystone.
const PIPELINE: &str = "\
[composite:glance-api-keystone]
use = egg:Paste#urlmap
/: api
[pipeline:api]
pipeline = versionnegotiation authtoken context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: versions
/v2: v2
[app:versions]
paste.app_factory = glance.api.versions:create_resource
[app:v2]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
";

/// Copies a database as it is now, also while its server runs.
fn copy(from: &Path, to: &Path) {
    let script = "import sqlite3, sys; \
                  sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    python(script, &[from.as_os_str(), to.as_os_str()]);
}

fn sqlite(database: &Path, statement: &str) {
    let script =
        "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()";
    python(script, &[database.as_os_str(), statement.as_ref()]);
}

/// Python has SQLite with it.
fn python(script: &str, words: &[&OsStr]) {
    let mut python = program(PYTHON, &folder());
    end(begin(python.args(["-I", "-c", script]).args(words)));
}

fn begin(command: &mut Command) -> (String, Child) {
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.unwrap_or_else(|error| {
        panic!(
            "`{shown}` cannot be started ({error}): `cargo xtask setup` installs what is missing"
        )
    });
    (shown, child)
}

fn end((shown, child): (String, Child)) {
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(
        output.status.success(),
        "{shown}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
