//! Where the image service is: what Keystone's catalog says.

use reqwest::Url;
use see_core::config::nearest;
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::text::listed;

/// The type of the image service in catalogs.
const IMAGE: &str = "image";
/// A service of the catalog.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Deserialize)]
struct Endpoint {
    url: String,
    interface: String,
    region_id: Option<String>,
    region: Option<String>,
}

impl Endpoint {
    fn region(&self) -> &str {
        let region = self.region_id.as_deref().or(self.region.as_deref());
        region.unwrap_or_default()
    }
}

/// From where a cloud is seen; each service has an address for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointInterface {
    /// From anywhere.
    #[default]
    #[serde(alias = "publicURL")]
    Public,
    /// From inside the cloud.
    #[serde(alias = "internalURL")]
    Internal,
    /// For its administrators.
    #[serde(alias = "adminURL")]
    Admin,
}

impl EndpointInterface {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }

    /// The one that a word of a file or the environment means.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        serde_json::from_value(word.into()).ok()
    }
}

/// The image service's address.
///
/// # Errors
/// [`ErrorKind::Configuration`], with what the catalog has.
pub(super) fn image_service(
    catalog: &[Service],
    region: Option<&str>,
    interface: EndpointInterface,
) -> Result<Url> {
    let wrong = |message: String| Error::new(ErrorKind::Configuration, message);
    let services: Vec<&Service> = catalog.iter().filter(|found| found.kind == IMAGE).collect();
    if services.is_empty() {
        let kinds = listed(catalog.iter().map(|service| service.kind.as_str()));
        return Err(
            wrong("the cloud's catalog has no image service".to_owned()).advice(format!(
                "it has {kinds}; `endpoint` gives the address of a Glance that is not in it"
            )),
        );
    }
    let endpoints: Vec<&Endpoint> = services.iter().flat_map(|found| &found.endpoints).collect();
    let of_region: Vec<&Endpoint> = match region {
        None => endpoints,
        Some(region) => {
            let regions = || endpoints.iter().map(|endpoint| endpoint.region());
            let found: Vec<&Endpoint> = endpoints
                .iter()
                .copied()
                .filter(|endpoint| endpoint.region() == region)
                .collect();
            if found.is_empty() {
                let message = format!(
                    "the image service is in no region `{}`",
                    region.escape_debug()
                );
                let regions_text = listed(regions());
                return Err(wrong(message).advice(match nearest(region, regions()) {
                    Some(near) => format!("did you mean `{near}`? It is in {regions_text}"),
                    None => format!("it is in {regions_text}"),
                }));
            }
            found
        }
    };
    let word = interface.word();
    let mut fitting = of_region
        .iter()
        .filter(|endpoint| endpoint.interface == word);
    let Some(first) = fitting.next() else {
        let interfaces = listed(of_region.iter().map(|endpoint| endpoint.interface.as_str()));
        return Err(wrong(format!("the image service has no {word} address"))
            .advice(format!("`interface` may be {interfaces}")));
    };
    if fitting.any(|other| other.region() != first.region()) {
        // As all of OpenStack's clients do.
        let regions = listed(of_region.iter().map(|endpoint| endpoint.region()));
        let region = first.region();
        tracing::warn!(
            "the image service is in the regions {regions}: `{}` is taken, `region` names another",
            region.escape_debug()
        );
    }
    base(&first.url).map_err(|found| {
        wrong(format!(
            "the catalog's address of the image service is {found}"
        ))
        .advice("`endpoint` gives another")
    })
}

/// The address of a service of OpenStack's; else what is wrong with it.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text.trim()).map_err(|error| format!("none ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("one that begins with neither http nor https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("one with a user or a password in it".to_owned());
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// The address of an image service without its version, ending in a slash; else what is wrong with it.
pub(super) fn base(text: &str) -> Result<Url, String> {
    let mut url = address(text)?;
    let mut path = url.path().trim_end_matches('/').to_owned();
    if let Some((before, last)) = path.rsplit_once('/') {
        let version = last.strip_prefix('v').unwrap_or_default();
        let is_version = version.starts_with(['1', '2'])
            && version
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_version {
            path = before.to_owned();
        }
    }
    url.set_path(&format!("{path}/"));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Vec<Service> {
        serde_json::from_value(serde_json::json!([
            {"type": "identity", "name": "keystone", "endpoints": []},
            {"type": "image", "name": "glance", "endpoints": [
                {"interface": "internal", "region_id": "North", "region": "North", "url": "http://in/v2/"},
                {"interface": "public", "region_id": "North", "region": "North", "url": "https://n:9292"},
                {"interface": "public", "region_id": "South", "region": "South", "url": "https://s/image/v2.9"},
            ]},
        ]))
        .unwrap()
    }

    #[test]
    fn the_address_is_that_of_region_and_interface_without_its_version() {
        use EndpointInterface::{Internal, Public};
        for (region, interface, expected) in [
            (None, Public, "https://n:9292/"),
            (Some("South"), Public, "https://s/image/"),
            (None, Internal, "http://in/"),
        ] {
            let url = image_service(&catalog(), region, interface).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn what_the_catalog_has_is_listed_where_it_lacks_what_was_asked_for() {
        use EndpointInterface::{Admin, Internal, Public};
        let none = &catalog()[..1];
        for (catalog, region, interface, parts) in [
            (
                none,
                None,
                Public,
                ["no image service", "`identity`", "`endpoint`"],
            ),
            (
                &catalog()[..],
                Some("Suoth"),
                Public,
                [
                    "no region `Suoth`",
                    "did you mean `South`",
                    "`North`, `South`",
                ],
            ),
            (
                &catalog()[..],
                None,
                Admin,
                ["no admin address", "`internal`", "`public`"],
            ),
            (
                &catalog()[..],
                Some("South"),
                Internal,
                ["no internal address", "`public`", "may be"],
            ),
        ] {
            let error = image_service(catalog, region, interface).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            for part in parts {
                assert!(error.to_string().contains(part), "{part}: {error}");
            }
        }
    }

    #[test]
    fn a_catalog_may_not_lead_anywhere_but_to_http() {
        for url in [
            "file:///etc/passwd",
            "not an address",
            "http://user:word@there/",
        ] {
            let catalog: Vec<Service> = serde_json::from_value(serde_json::json!([
                {"type": "image", "endpoints": [{"interface": "public", "url": url}]},
            ]))
            .unwrap();
            let error = image_service(&catalog, None, EndpointInterface::Public).unwrap_err();
            assert!(
                error.to_string().contains("`endpoint` gives another"),
                "{error}"
            );
            assert!(!error.to_string().contains("word@"), "{error}");
        }
    }
}
