//! A certification authority for a day, and the certificates that it signs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// How long certificates are good.
const DAYS: &str = "30";
/// After this they are made anew.
const FRESH: Duration = Duration::from_secs(20 * 24 * 3600);

/// An authority whose word nobody has but the tests.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// The authority whose files lie in this folder; they are made where they are missing or old.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn in_folder(folder: &Path) -> Self {
        let authority = Self {
            folder: folder.to_owned(),
        };
        let made = std::fs::metadata(folder.join("complete")).and_then(|found| found.modified());
        let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
        if age.is_ok_and(|age| age < FRESH) {
            return authority;
        }
        std::fs::create_dir_all(folder).expect("the folder of the services is writable");
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -subj /CN=tests -addext \
             keyUsage=critical,keyCertSign,cRLSign -keyout authority.key -out authority.pem -days",
            &[DAYS],
        );
        authority.sign(
            "server",
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
        );
        authority.sign(
            "client",
            "subjectAltName=DNS:client\nextendedKeyUsage=clientAuth\n",
        );
        let both = ["client.crt", "client.key"]
            .map(|name| std::fs::read_to_string(folder.join(name)).expect("it was just written"));
        std::fs::write(folder.join("client.pem"), both.concat()).expect("the folder is writable");
        std::fs::write(folder.join("complete"), "").expect("the folder is writable");
        authority
    }

    /// The certificate by which clients know what it signed.
    pub fn file(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// A client's certificate alone.
    pub fn client_certificate(&self) -> PathBuf {
        self.folder.join("client.crt")
    }

    /// The key to the client's certificate.
    pub fn client_key(&self) -> PathBuf {
        self.folder.join("client.key")
    }

    /// The client's certificate and its key in one file.
    pub fn client(&self) -> PathBuf {
        self.folder.join("client.pem")
    }

    /// A server's certificate and its key.
    pub(super) fn server(&self) -> (PathBuf, PathBuf) {
        (
            self.folder.join("server.crt"),
            self.folder.join("server.key"),
        )
    }

    fn sign(&self, name: &str, extensions: &str) {
        let file = |ending: &str| format!("{name}.{ending}");
        let written = format!("basicConstraints=CA:FALSE\n{extensions}");
        std::fs::write(self.folder.join(file("ext")), written).expect("the folder is writable");
        self.openssl(
            "req -newkey rsa:2048 -nodes -subj",
            &[
                &format!("/CN={name}"),
                "-keyout",
                &file("key"),
                "-out",
                &file("csr"),
            ],
        );
        self.openssl(
            "x509 -req -CA authority.pem -CAkey authority.key -CAcreateserial -days",
            &[
                DAYS,
                "-in",
                &file("csr"),
                "-out",
                &file("crt"),
                "-extfile",
                &file("ext"),
            ],
        );
    }

    fn openssl(&self, words: &str, more: &[&str]) {
        let output = Command::new("openssl")
            .args(words.split_whitespace())
            .args(more)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed: `cargo xtask setup` does it");
        assert!(output.status.success(), "openssl {words}: {output:?}");
    }
}
