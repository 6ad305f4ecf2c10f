//! Whom a server has to be, and who we are to it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use see_core::config::ConfigPath;
use see_core::{Error, Result};
use serde::Deserialize;

/// What a message calls a text: a key may stand in it.
const TEXT: &str = "the text";

/// How servers prove who they are, and how we do: what stands under a provider's `session` or `tls`.
///
/// `Debug` shows paths, and no text that stands in their place.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfiguration {
    /// A PEM file with the certificate authorities that servers' certificates must come from, or its text. By default
    /// those that the host trusts, which `SSL_CERT_FILE` and `SSL_CERT_DIR` override.
    #[serde(alias = "verify", alias = "ca_file")]
    pub cacert: Option<ConfigPath>,
    /// A PEM file with our certificate, or its text, for servers that ask for one; its key too, unless `key` is given.
    pub cert: Option<ConfigPath>,
    /// A PEM file with the key of `cert`, or its text.
    pub key: Option<ConfigPath>,
    /// Takes any certificate, so that anyone on the way can read and change everything. `false`.
    pub insecure: Option<bool>,
}

impl fmt::Debug for TlsConfiguration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |file: &Option<ConfigPath>| {
            let written = file.as_ref()?.written();
            Some(if is_text(written) { TEXT } else { written }.to_owned())
        };
        formatter
            .debug_struct("TlsConfiguration")
            .field("cacert", &shown(&self.cacert))
            .field("cert", &shown(&self.cert))
            .field("key", &shown(&self.key))
            .field("insecure", &self.insecure)
            .finish()
    }
}

impl TlsConfiguration {
    /// Whether anyone on the way may pretend to be the server.
    pub fn is_insecure(&self) -> bool {
        self.insecure.unwrap_or(false)
    }

    pub(super) fn without_identity(&self) -> Result<ClientConfig> {
        Ok(self.verified()?.with_no_client_auth())
    }

    pub(super) fn with_identity(&self) -> Result<Option<ClientConfig>> {
        let Some(certificate) = &self.cert else {
            return match &self.key {
                None => Ok(None),
                Some(key) => Err(Error::configuration(
                    key.place().clone(),
                    "found a `key` without the certificate that it belongs to",
                )
                .advice("give `cert` too")),
            };
        };
        let certificates = certificates(certificate)?;
        let key_file = self.key.as_ref().unwrap_or(certificate);
        let (text, name) = pem(key_file, "a PEM file with a private key")?;
        // The reason is not shown: it quotes the text, and the key may stand in it.
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
            Error::configuration(
                key_file.place().clone(),
                format!("found no private key in {name}"),
            )
            .advice("expected a PEM file, line by line, with an unencrypted private key")
        })?;
        let settings = self.verified()?.with_client_auth_cert(certificates, key);
        settings.map(Some).map_err(|error| {
            Error::configuration(
                certificate.place().clone(),
                format!("the certificate and the key do not serve: {error}"),
            )
        })
    }

    fn verified(
        &self,
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                Error::new(see_core::ErrorKind::Internal, "TLS cannot be set up").caused_by(error)
            })?;
        if self.is_insecure() {
            tracing::warn!(
                "`insecure` is set: the servers of images are believed without proof of who they are"
            );
            let verifier = Arc::new(Anyone(provider));
            return Ok(builder
                .dangerous()
                .with_custom_certificate_verifier(verifier));
        }
        let mut roots = RootCertStore::empty();
        match &self.cacert {
            Some(file) => {
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| {
                        Error::configuration(
                            file.place().clone(),
                            format!("found a certificate that is none of an authority: {error}"),
                        )
                    })?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                // Without any, each https request fails and says so; http goes on.
                roots.add_parsable_certificates(found.certs);
            }
        }
        Ok(builder.with_root_certificates(roots))
    }
}

fn certificates(file: &ConfigPath) -> Result<Vec<CertificateDer<'static>>> {
    let (text, name) = pem(file, "a PEM file with certificates")?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        // The reason is not shown, as for a key: both may stand in one text.
        _ => {
            let message = format!("found no certificate in {name}");
            Err(Error::configuration(file.place().clone(), message)
                .advice("expected a PEM file, line by line, with BEGIN CERTIFICATE"))
        }
    }
}

/// Whether a value is the text of a PEM file, and no path: it is never shown.
fn is_text(written: &str) -> bool {
    written.contains("-----BEGIN") || written.contains(['\n', '\r'])
}

/// The PEM that a configuration names or holds, and what a message calls it.
fn pem<'a>(file: &'a ConfigPath, what: &str) -> Result<(Vec<u8>, &'a str)> {
    let written = file.written();
    if is_text(written) {
        return Ok((written.as_bytes().to_vec(), TEXT));
    }
    let path = file.existing_file(what)?;
    let text = std::fs::read(&path).map_err(|error| {
        Error::configuration(file.place().clone(), format!("{written} cannot be read"))
            .caused_by(error)
    })?;
    Ok((text, written))
}

/// Believes everyone, as `insecure` asks; a signature must still be one.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
