//! What an S3 server says when it refuses, and what to do about it.

use see_core::{Error, ErrorKind};

use super::xml;

/// As much of an answer's body as is read: the longest errors, of wrong signatures, have some kilobytes.
pub(super) const LONGEST: usize = 64 * 1024;
/// As long as a word of the server's may be in an error.
const WIDEST: usize = 300;

/// What to do where requests without a signature are refused.
const SIGNED: &str = "leave out `anonymous`, and give credentials";

/// What went wrong, in which words, and what to do.
type Explained = (ErrorKind, String, String);

/// An answer that is no object: its status, and what its body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// The status of the answer.
    pub(super) status: u16,
    /// The word for the failure, such as `NoSuchKey`; empty where the body has none.
    pub(super) code: String,
    /// The server's sentence.
    pub(super) message: String,
    /// The region that the server says is right.
    pub(super) region: Option<String>,
    /// The address that the server says is right.
    pub(super) endpoint: Option<String>,
    /// The server's own time.
    pub(super) server_time: Option<String>,
    /// Whether the newest version of the object is a mark that it was deleted.
    pub(super) is_deleted: bool,
}

/// What an error names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The object's bucket.
    pub(super) bucket: &'a str,
    /// The object's name.
    pub(super) key: &'a str,
    /// The pinned version.
    pub(super) version: Option<&'a str>,
    /// The region that requests are signed for.
    pub(super) region: &'a str,
    /// Whether requests are signed at all.
    pub(super) is_anonymous: bool,
    /// Where the credentials came from.
    pub(super) credentials: &'a str,
}

impl Failure {
    /// Reads the body of an answer: S3's `<Error>`, or anything.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let mut failure = Self {
            status,
            ..Self::default()
        };
        let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
        // What breaks off or is no XML says what it said up to there.
        let _ = xml::walk(&text, |path, text| {
            let short = || text.trim().chars().take(WIDEST).collect::<String>();
            match path {
                ["Error", "Code"] => failure.code = short(),
                ["Error", "Message"] => failure.message = short(),
                ["Error", "Region"] => failure.region = Some(short()),
                ["Error", "Endpoint"] => failure.endpoint = Some(short()),
                ["Error", "ServerTime"] => failure.server_time = Some(short()),
                _ => {}
            }
        });
        failure
    }

    /// The region to sign for, where the server named another one than `region`.
    pub(super) fn right_region(&self, region: &str) -> Option<&str> {
        let told = self.region.as_deref()?;
        let is_name = !told.is_empty()
            && told.len() <= 64
            && told
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (is_name && told != region).then_some(told)
    }

    /// The error that says what was refused and what to do.
    pub(super) fn error(&self, asked: &Asked<'_>) -> Error {
        let (kind, message, advice) = self.explain(asked);
        let error = Error::new(kind, message).advice(advice).subject(format!(
            "s3://{}/{}",
            asked.bucket.escape_debug(),
            asked.key.escape_debug()
        ));
        if self.message.is_empty() {
            return error;
        }
        error.caused_by(format!("the server says: {}", self.message))
    }

    fn explain(&self, asked: &Asked<'_>) -> Explained {
        let bucket = asked.bucket.escape_debug();
        let credentials = asked.credentials;
        let word = self.word();
        let missing = |message: String, advice: &str| (ErrorKind::NotFound, message, advice.into());
        let denied =
            |message: String, advice: &str| (ErrorKind::PermissionDenied, message, advice.into());
        let unavailable =
            |message: String, advice: &str| (ErrorKind::Unavailable, message, advice.into());
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket" | "InvalidBucketName") => missing(
                format!("there is no bucket `{bucket}`"),
                "check `bucket_name`, and `auth.endpoint_url` if it is on another server",
            ),
            (_, "NoSuchVersion") => no_version(asked),
            (400, "InvalidArgument" | "InvalidVersionId" | "") | (404, _)
                if asked.version.is_some() =>
            {
                no_version(asked)
            }
            (404 | 405, _) if self.is_deleted => missing(
                "the object was deleted: its newest version is a delete marker".into(),
                "pin an earlier `version_id`, or set `include_deleted` to take the newest one that there was",
            ),
            (404, _) => missing(
                "there is no such object".into(),
                "check the image's `name`, which is the object's whole key",
            ),
            (_, "SignatureDoesNotMatch") => denied(
                format!(
                    "the server does not accept the signature made with the credentials of {credentials}"
                ),
                "check `aws_secret_access_key` and the access key's id; a proxy that changes the host or \
                 the path breaks signatures, too",
            ),
            (_, "InvalidAccessKeyId") => denied(
                format!("the server does not know the access key of {credentials}"),
                "check `aws_access_key_id`, and `auth.endpoint_url`",
            ),
            (_, "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" | "RequestExpired") => {
                denied(
                    format!(
                        "the temporary credentials of {credentials} have expired or are not valid"
                    ),
                    "get new ones, with their `aws_session_token`",
                )
            }
            (_, "RequestTimeTooSkewed") => denied(
                match &self.server_time {
                    Some(time) => format!("this host's clock is wrong: the server's says {time}"),
                    None => "this host's clock differs too much from the server's".into(),
                },
                "set it, for example with NTP",
            ),
            _ if self.right_region(asked.region).is_some() => self.wrong_region(asked),
            (301 | 307 | 308, _) => self.wrong_region(asked),
            (_, "InvalidObjectState") => unavailable(
                "the object lies in an archive and is not ready to be read".into(),
                "restore it first: `aws s3api restore-object`",
            ),
            (_, "SlowDown" | "ServiceUnavailable" | "InternalError") | (500..=599 | 429, _) => {
                unavailable(
                    format!("the server is not able to answer now{word}"),
                    "try again later",
                )
            }
            (401 | 403, _) if asked.is_anonymous => {
                denied("the object is not public".into(), SIGNED)
            }
            (400, _) if asked.is_anonymous => denied(
                format!("the server refuses a request without credentials{word}"),
                SIGNED,
            ),
            (401 | 403, _) => denied(
                format!("the credentials of {credentials} do not allow reading it{word}"),
                "they need s3:GetObject, and s3:GetObjectVersion for versions; without s3:ListBucket a \
                 missing object is refused in the same way",
            ),
            (status, _) => (
                ErrorKind::Unsupported,
                format!("the server answered with status {status}{word}"),
                "check that `auth.endpoint_url` is an S3 server".into(),
            ),
        }
    }

    fn wrong_region(&self, asked: &Asked<'_>) -> Explained {
        let right = match (self.right_region(asked.region), &self.endpoint) {
            (Some(region), _) => format!("set `auth.region_name` to \"{region}\""),
            (None, Some(endpoint)) => format!(
                "the server sends to `{}`: check `auth.endpoint_url` and `auth.region_name`",
                endpoint.escape_debug()
            ),
            (None, None) => "check `auth.endpoint_url` and `auth.region_name`".into(),
        };
        (
            ErrorKind::Configuration,
            format!(
                "the bucket `{}` is not in the region `{}`",
                asked.bucket.escape_debug(),
                asked.region.escape_debug()
            ),
            right,
        )
    }

    /// The server's word for it, for messages that do not stand for one word alone.
    fn word(&self) -> String {
        match self.code.as_str() {
            "" => String::new(),
            code => format!(": {}", code.escape_debug()),
        }
    }
}

fn no_version(asked: &Asked<'_>) -> Explained {
    let version = asked.version.unwrap_or_default().escape_debug();
    (
        ErrorKind::NotFound,
        format!("the object has no version `{version}`"),
        "check `version_id`; `aws s3api list-object-versions` lists them".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        bucket: "images",
        key: "guest.qcow2",
        version: None,
        region: "us-east-1",
        is_anonymous: false,
        credentials: "the environment",
    };

    fn said(status: u16, body: &str) -> Error {
        Failure::read(status, body.as_bytes()).error(&ASKED)
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (status, body, kind, parts) in [
            (
                403,
                "<Error><Code>SignatureDoesNotMatch</Code><Message>do &amp; check</Message></Error>",
                ErrorKind::PermissionDenied,
                vec!["the environment", "`aws_secret_access_key`", "do & check"],
            ),
            (
                403,
                "<Error><Code>InvalidAccessKeyId</Code></Error>",
                ErrorKind::PermissionDenied,
                vec!["`aws_access_key_id`"],
            ),
            (
                400,
                "<Error><Code>ExpiredToken</Code></Error>",
                ErrorKind::PermissionDenied,
                vec!["expired", "`aws_session_token`"],
            ),
            (
                403,
                "<Error><Code>RequestTimeTooSkewed</Code><ServerTime>2026-11-24T03:00:00Z</ServerTime></Error>",
                ErrorKind::PermissionDenied,
                vec!["clock", "2026-11-24T03:00:00Z"],
            ),
            (
                404,
                "<?xml version='1.0'?><Error xmlns='x'><Code>NoSuchBucket</Code></Error>",
                ErrorKind::NotFound,
                vec!["`images`", "`bucket_name`"],
            ),
            (
                404,
                "",
                ErrorKind::NotFound,
                vec!["no such object", "`name`"],
            ),
            (
                400,
                "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
                ErrorKind::Configuration,
                vec!["`us-east-1`", "`auth.region_name` to \"eu-west-1\""],
            ),
            (
                301,
                "<Error><Code>PermanentRedirect</Code><Endpoint>images.s3.eu-west-1.amazonaws.com</Endpoint></Error>",
                ErrorKind::Configuration,
                vec!["images.s3.eu-west-1.amazonaws.com", "`auth.endpoint_url`"],
            ),
            (
                403,
                "<Error><Code>InvalidObjectState</Code></Error>",
                ErrorKind::Unavailable,
                vec!["archive", "restore"],
            ),
            (
                503,
                "<html>busy",
                ErrorKind::Unavailable,
                vec!["try again later"],
            ),
            (
                403,
                "<Error><Code>AccessDenied</Code></Error>",
                ErrorKind::PermissionDenied,
                vec!["AccessDenied", "s3:GetObject"],
            ),
            (
                418,
                "teapot",
                ErrorKind::Unsupported,
                vec!["418", "S3 server"],
            ),
        ] {
            let error = said(status, body);
            let line = error.chain();
            assert_eq!(error.kind(), kind, "{line}");
            assert!(line.starts_with("s3://images/guest.qcow2: "), "{line}");
            for part in parts {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
    }

    #[test]
    fn only_the_name_of_a_region_is_taken_for_one() {
        let told = |region: &str| Failure {
            region: Some(region.to_owned()),
            ..Failure::default()
        };
        assert_eq!(
            told("eu-west-1").right_region("us-east-1"),
            Some("eu-west-1")
        );
        for region in ["us-east-1", "", "evil.example/", "EU", "a b"] {
            assert_eq!(told(region).right_region("us-east-1"), None, "{region}");
        }
    }

    #[test]
    fn a_server_that_talks_without_end_makes_a_short_error() {
        let body = format!(
            "<Error><Message>{}</Message></Error>",
            "x".repeat(LONGEST * 2)
        );
        assert!(said(500, &body).chain().len() < 1000);
        let body = format!("<Error><Message>{}</Message></Error>", "x".repeat(8000));
        assert!(said(500, &body).chain().len() < 1000);
        assert_eq!(Failure::read(500, "<a>".repeat(10_000).as_bytes()).code, "");
    }
}
