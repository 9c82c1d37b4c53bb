//! TLS with a fixed trust store. No file and no environment variable adds to it.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::refusal::{Reason, Refusal};
use crate::target::{Host, Target};

/// The issuers that are trusted to name a server: Mozilla's, as built in, and those given.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Mozilla's issuers and `anchors`, certificates in DER, for hosts that these do not know.
    ///
    /// # Errors
    /// `anchor_malformed` when an anchor is no certificate.
    pub fn new<'a>(anchors: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for anchor in anchors {
            roots.add(CertificateDer::from(anchor)).map_err(|_| {
                let detail = "a trust anchor is not a certificate in DER; convert it";
                Refusal::new(Reason::AnchorMalformed, detail)
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Refusal::new(Reason::TlsFailed, error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Every connection shows its certificate.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands, with the target's name as SNI and in the certificate.
    ///
    /// # Errors
    /// `certificate_refused`, `tls_failed`.
    pub(crate) async fn wrap(
        &self,
        stream: TcpStream,
        target: &Target,
    ) -> Result<TlsStream<TcpStream>, Refusal> {
        let name = match target.host() {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => ServerName::try_from(name.to_string())
                .map_err(|_| Refusal::new(Reason::UrlRefused, "the host is no DNS name"))?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.map_err(|error| explain(&error, target))
    }
}

fn explain(error: &io::Error, target: &Target) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(fault)) = inner else {
        let detail = format!("`{}` does not speak TLS as it should", target.authority());
        return Refusal::new(Reason::TlsFailed, detail);
    };
    let why = match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host"
        }
        // Another key under a trusted name is no trusted issuer either.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is from an issuer that is not trusted"
        }
        CertificateError::Revoked => "is revoked",
        _ => "does not hold",
    };
    let detail = format!("the certificate of `{}` {why}", target.authority());
    Refusal::new(Reason::CertificateRefused, detail)
}
