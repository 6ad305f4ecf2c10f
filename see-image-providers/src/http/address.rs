//! What the configuration of the provider `http` says, checked: the address, who asks, where the sums are.

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderValue;
use reqwest::{RequestBuilder, Url};
use ring::digest;
use see_core::config::Located;
use see_core::{Error, ErrorKind, Result, Secret};

use super::HttpAuth;
use crate::client::shown;

/// The address of an image, without whom it is asked as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Without user and password.
    pub(super) url: Url,
    /// The user and the password that stood in it.
    pub(super) user: Option<(String, Secret)>,
}

impl Address {
    /// Reads the address that a configuration gives.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where it is none. The text is not shown: a password may be in it.
    pub(super) fn read(text: &str) -> Result<Self> {
        let wrong = |message: &'static str| {
            Error::new(ErrorKind::Configuration, message)
                .advice("expected an address such as `https://example.org/images/guest.qcow2`")
        };
        let mut url =
            Url::parse(text).map_err(|error| wrong("this is not a URL").caused_by(error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("found a URL that is neither http nor https"));
        }
        let user = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let password = Secret::new(decoded(url.password().unwrap_or_default()));
            (decoded(url.username()), password)
        });
        // Neither fails for http.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Self { url, user })
    }

    /// The address of `name` beneath this one.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the name leads elsewhere.
    pub(super) fn beneath(&self, name: &Located<String>) -> Result<Self> {
        crate::name::beneath(name, "the `url`")?;
        let wrong = |message: String| Error::configuration(name.place().clone(), message);
        let mut whole = self.clone();
        let mut steps = whole
            .url
            .path_segments_mut()
            .map_err(|()| wrong("the `url` can have nothing beneath it".to_owned()))?;
        steps.pop_if_empty().extend(name.split('/'));
        drop(steps);
        Ok(whole)
    }

    /// The name of the file there.
    pub(super) fn file_name(&self) -> String {
        let last = self
            .url
            .path_segments()
            .and_then(|mut steps| steps.next_back());
        match last {
            None | Some("") => "image".to_owned(),
            Some(name) => decoded(name),
        }
    }

    /// Always the same words for the same address. A query may hold a secret: its digest stands for it.
    pub(super) fn identity(&self) -> String {
        let mut words = shown(&self.url);
        if let Some(query) = self.url.query() {
            let digest = digest::digest(&digest::SHA256, query.as_bytes());
            words.push_str("?sha256=");
            for byte in &digest.as_ref()[..8] {
                words.push_str(&format!("{byte:02x}"));
            }
        }
        words
    }

    /// Whether a request to `other` goes to the same server.
    pub(super) fn is_same_server(&self, other: &Url) -> bool {
        self.url.origin() == other.origin()
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// A user and a password.
    Basic(String, Secret),
    /// Whoever has the token.
    Bearer(Secret),
}

impl Login {
    /// Reads what the configuration says: in `auth`, or in front of the address's host.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where it says several, or a part of one.
    pub(super) fn read(auth: HttpAuth, user: Option<(String, Secret)>) -> Result<Option<Self>> {
        let wrong = |message: &'static str| Error::new(ErrorKind::Configuration, message);
        let none = || Secret::new("");
        let login = match (auth.username, auth.password, auth.token, user) {
            (None, None, None, None) => return Ok(None),
            (None, None, Some(token), None) => Self::Bearer(token),
            (Some(name), password, None, None) => Self::Basic(name, password.unwrap_or_else(none)),
            (None, None, None, Some((name, password))) => Self::Basic(name, password),
            (None, Some(_), None, None) => {
                return Err(
                    wrong("found `auth.password` without a user").advice("give `auth.username`")
                );
            }
            (.., None) => {
                return Err(wrong("found both a user and a token")
                    .advice("give `auth.username` and `auth.password`, or `auth.token`"));
            }
            (.., Some(_)) => {
                return Err(wrong("both the `url` and `auth` say who asks")
                    .advice("leave the user out of the `url`"));
            }
        };
        let cannot_be_sent = match &login {
            Self::Basic(name, _) if name.contains(':') => true,
            Self::Basic(..) => false,
            Self::Bearer(token) => HeaderValue::from_str(token.reveal()).is_err(),
        };
        if cannot_be_sent {
            return Err(wrong(
                "a user's name with a colon, or a token with a control character, \
                 cannot be sent",
            ));
        }
        Ok(Some(login))
    }

    /// Puts it into a request.
    pub(super) fn put_into(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic(name, password) => request.basic_auth(name, Some(password.reveal())),
            Self::Bearer(token) => request.bearer_auth(token.reveal()),
        }
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use see_core::config::Configuration;

    use super::*;

    fn named(name: &str) -> Located<String> {
        Located::new(name.to_owned(), Configuration::empty().place())
    }

    #[test]
    fn the_user_is_moved_out_of_sight() {
        let address = Address::read("https://me:p%40ss@example.org:8443/a?b#c").unwrap();
        assert_eq!(address.url.as_str(), "https://example.org:8443/a?b");
        let (name, password) = address.user.clone().unwrap();
        assert_eq!((name.as_str(), password.reveal()), ("me", "p@ss"));
        assert!(!format!("{address:?}").contains("p@ss"));
        for text in [
            "https://me:hunter2@",
            "ftp://me:hunter2@host/",
            "https://me:hunter2@[x",
        ] {
            let error = Address::read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(!error.chain().contains("hunter2"), "{}", error.chain());
        }
    }

    #[test]
    fn a_name_stays_beneath_its_url() {
        let base = Address::read("https://example.org/images/").unwrap();
        for (name, url, file) in [
            ("a.img", "https://example.org/images/a.img", "a.img"),
            (
                "ü/a b?c",
                "https://example.org/images/%C3%BC/a%20b%3Fc",
                "a b?c",
            ),
            ("a%2fb", "https://example.org/images/a%252fb", "a%2fb"),
        ] {
            let whole = base.beneath(&named(name)).unwrap();
            assert_eq!(whole.url.as_str(), url);
            assert_eq!(whole.file_name(), file);
        }
        for name in ["", "/etc/passwd", "../a", "a/../../b", "a/.", "a\nb"] {
            assert!(base.beneath(&named(name)).is_err(), "{name}");
        }
        assert_eq!(base.file_name(), "image");
    }

    #[test]
    fn the_identity_has_no_secret_in_it_and_tells_queries_apart() {
        let of = |text: &str| Address::read(text).unwrap().identity();
        assert_eq!(of("https://a:b@h/x"), "https://h/x");
        let signed = of("https://h/x?signature=hunter2");
        assert!(signed.starts_with("https://h/x?sha256=") && !signed.contains("hunter2"));
        assert_eq!(signed, of("https://h/x?signature=hunter2#y"));
        assert_ne!(signed, of("https://h/x?signature=other"));
    }

    #[test]
    fn a_login_is_one_and_whole() {
        let secret = |text: &str| Some(Secret::new(text));
        let auth = |username: Option<&str>, password, token| HttpAuth {
            username: username.map(str::to_owned),
            password,
            token,
        };
        let user = || Some(("me".to_owned(), Secret::new("pass")));
        assert_eq!(Login::read(auth(None, None, None), None).unwrap(), None);
        let basic = Some(Login::Basic("me".to_owned(), Secret::new("pass")));
        assert_eq!(
            Login::read(auth(Some("me"), secret("pass"), None), None).unwrap(),
            basic
        );
        assert_eq!(Login::read(auth(None, None, None), user()).unwrap(), basic);
        for (wrong, user) in [
            (auth(None, secret("p"), None), None),
            (auth(Some("me"), secret("p"), secret("t")), None),
            (auth(None, secret("p"), secret("t")), None),
            (auth(None, None, secret("t")), user()),
            (auth(Some("me"), None, None), user()),
            (auth(Some("m:e"), None, None), None),
            (auth(None, None, secret("t\n")), None),
        ] {
            assert!(Login::read(wrong, user).is_err());
        }
    }
}
