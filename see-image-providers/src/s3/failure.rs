//! What an S3 server says when it refuses, and what to do about it.

use see_core::{Error, ErrorKind};
use serde::Deserialize;

/// As much of an answer's body as is read: the longest errors, of wrong signatures, have some kilobytes.
pub(super) const LONGEST: usize = 64 * 1024;
/// As long as a word of the server's may be in an error.
const WIDEST: usize = 300;

/// An answer that is no object: its status, and what its body says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Failure {
    /// The status of the answer.
    #[serde(skip)]
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
    #[serde(skip)]
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
    /// Where the credentials came from; `None` where requests are not signed at all.
    pub(super) credentials: Option<&'a str>,
}

/// What the words of servers mean, and what to do about them.
const KNOWN: [(&[&str], ErrorKind, &str, &str); 7] = [
    (
        &["NoSuchBucket", "InvalidBucketName"],
        ErrorKind::NotFound,
        "there is no such bucket",
        "check `bucket_name`, and `auth.endpoint_url` if it is on another server",
    ),
    (
        &["SignatureDoesNotMatch"],
        ErrorKind::PermissionDenied,
        "the server does not accept the signature",
        "check `aws_secret_access_key` and the access key's id; a proxy that changes the host or the path breaks \
         signatures, too",
    ),
    (
        &["InvalidAccessKeyId"],
        ErrorKind::PermissionDenied,
        "the server does not know the access key",
        "check `aws_access_key_id`, and `auth.endpoint_url`",
    ),
    (
        &[
            "ExpiredToken",
            "TokenRefreshRequired",
            "InvalidToken",
            "RequestExpired",
        ],
        ErrorKind::PermissionDenied,
        "the temporary credentials have expired or are not valid",
        "get new ones, with their `aws_session_token`",
    ),
    (
        &["RequestTimeTooSkewed"],
        ErrorKind::PermissionDenied,
        "this host's clock differs too much from the server's",
        "set it, for example with NTP",
    ),
    (
        &["InvalidObjectState"],
        ErrorKind::Unavailable,
        "the object lies in an archive and is not ready to be read",
        "restore it first: `aws s3api restore-object`",
    ),
    (
        &["SlowDown", "ServiceUnavailable", "InternalError"],
        ErrorKind::Unavailable,
        "the server is not able to answer now",
        "try again later",
    ),
];

impl Failure {
    /// Reads the body of an answer: S3's `<Error>`, or anything.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
        // What is no XML says nothing that could be understood.
        let mut failure: Self = quick_xml::de::from_str(&text).unwrap_or_default();
        failure.status = status;
        let short = |text: &mut String| *text = text.trim().chars().take(WIDEST).collect();
        short(&mut failure.code);
        short(&mut failure.message);
        let told = [
            &mut failure.region,
            &mut failure.endpoint,
            &mut failure.server_time,
        ];
        told.into_iter().flatten().for_each(short);
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
        let (kind, what, advice) = self.explain(asked);
        let mut message = what;
        if !self.code.is_empty() {
            message.push_str(&format!(": {}", self.code.escape_debug()));
        }
        if let (ErrorKind::PermissionDenied, Some(origin)) = (kind, asked.credentials) {
            message.push_str(&format!(" (with the credentials of {origin})"));
        }
        let (bucket, key) = (asked.bucket.escape_debug(), asked.key.escape_debug());
        let error = Error::new(kind, message)
            .advice(advice)
            .subject(format!("s3://{bucket}/{key}"));
        let mut said = Vec::new();
        if !self.message.is_empty() {
            said.push(format!("the server says: {}", self.message));
        }
        if let Some(time) = &self.server_time {
            said.push(format!("the server's time is: {time}"));
        }
        match said.is_empty() {
            true => error,
            false => error.caused_by(said.join("; ")),
        }
    }

    /// What went wrong, in which words, and what to do.
    fn explain(&self, asked: &Asked<'_>) -> (ErrorKind, String, String) {
        let told =
            |kind, message: &str, advice: &str| (kind, message.to_owned(), advice.to_owned());
        let code = self.code.as_str();
        let pinned = asked.version.map(|version| version.escape_debug());
        match (self.status, pinned) {
            (400 | 404, Some(version))
                if self.status == 404 && code != "NoSuchBucket"
                    || matches!(
                        code,
                        "InvalidArgument" | "InvalidVersionId" | "NoSuchVersion" | ""
                    ) =>
            {
                return (
                    ErrorKind::NotFound,
                    format!("the object has no version `{version}`"),
                    "check `version_id`; `aws s3api list-object-versions` lists them".to_owned(),
                );
            }
            (404 | 405, _) if self.is_deleted => {
                return told(
                    ErrorKind::NotFound,
                    "the object was deleted: its newest version is a delete marker",
                    "pin an earlier `version_id`, or set `include_deleted` to take the newest one that there was",
                );
            }
            _ => {}
        }
        if let Some((_, kind, message, advice)) = KNOWN.iter().find(|known| known.0.contains(&code))
        {
            return told(*kind, message, advice);
        }
        if self.right_region(asked.region).is_some() || matches!(self.status, 301 | 307 | 308) {
            return self.wrong_region(asked);
        }
        match (self.status, asked.credentials) {
            (404, _) => told(
                ErrorKind::NotFound,
                "there is no such object",
                "check the image's `name`, which is the object's whole key; `include_deleted` takes one that was deleted",
            ),
            (408 | 425 | 429 | 500..=599, _) => told(
                ErrorKind::Unavailable,
                "the server is not able to answer now",
                "try again later",
            ),
            (400 | 401 | 403, None) => told(
                ErrorKind::PermissionDenied,
                "the server refuses a request without credentials",
                "leave out `anonymous`, and give credentials",
            ),
            (401 | 403, Some(_)) => told(
                ErrorKind::PermissionDenied,
                "the credentials do not allow reading it",
                "they need s3:GetObject, and s3:GetObjectVersion for versions; without s3:ListBucket a missing object is \
                 refused in the same way",
            ),
            (status, _) => (
                ErrorKind::Unsupported,
                format!("the server answered with status {status}"),
                "check that `auth.endpoint_url` is an S3 server".to_owned(),
            ),
        }
    }

    fn wrong_region(&self, asked: &Asked<'_>) -> (ErrorKind, String, String) {
        let right = match (self.right_region(asked.region), &self.endpoint) {
            (Some(region), _) => format!("set `auth.region_name` to \"{region}\""),
            (None, Some(endpoint)) => format!(
                "the server sends to `{}`: check `auth.endpoint_url` and `auth.region_name`",
                endpoint.escape_debug()
            ),
            (None, None) => "check `auth.endpoint_url` and `auth.region_name`".to_owned(),
        };
        let region = asked.region.escape_debug();
        let message = format!("the bucket is not in the region `{region}`");
        (ErrorKind::Configuration, message, right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        bucket: "images",
        key: "guest.qcow2",
        version: None,
        region: "us-east-1",
        credentials: Some("the environment"),
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
                vec!["no such bucket", "`bucket_name`"],
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
