//! TLS with the machine's root certificates, read at the first https connection and kept.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tower_service::Service;

use super::Error;
use super::error::one_line;
use super::stream::Stream;
use super::target::Host;

/// The client side of TLS, shared by all connections.
#[derive(Default)]
pub(super) struct Tls {
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    #[cfg(test)]
    pub fn with_roots(roots: RootCertStore) -> Tls {
        Tls { config: OnceLock::from(Ok(Arc::new(config(roots)))) }
    }

    /// Makes the connection secure. The certificate must be for `host`, whatever address was dialled.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub async fn connect(&self, host: &Host, stream: Stream) -> Result<Stream, Error> {
        let failed = |reason: String| Error::Tls { host: host.to_string(), reason };
        // Blocks for the few milliseconds of the first call only.
        let config = self.config.get_or_init(native_config).clone().map_err(failed)?;
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|e| failed(e.to_string()))?,
            Host::Ip(ip) => ServerName::from(IpAddr::clone(ip)),
        };
        let resolver = Arc::new(FixedServerNameResolver::new(name));
        let mut connector = HttpsConnector::new(Dialled(Some(stream)), config, true, resolver);
        let secured = connector.call(http::Uri::from_static("https://dialled")).await;
        Ok(Stream::Tls(Box::new(secured.map_err(|e| failed(reason(&*e)))?)))
    }
}

fn native_config() -> Result<Arc<ClientConfig>, String> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        return Err(
            "this machine has no root certificates; install `ca-certificates` or set SSL_CERT_FILE".into()
        );
    }
    Ok(Arc::new(config(roots)))
}

fn config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // One stream, one connection: over HTTP/2 the pool would put all streams to a provider on a single
    // connection, where they wait for each other beyond its stream limit and die together.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    match rustls_error(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate was issued by nobody this machine trusts; SSL_CERT_FILE can name more".into()
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "its certificate has expired".into(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "its certificate is for another name".into(),
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS on this port".into(),
        _ => one_line(error),
    }
}

/// An `io::Error` hides what it carries from `source`.
fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    rustls_error(error.downcast_ref::<io::Error>()?.get_ref()?)
}

/// Hands the connector a stream that is connected already.
struct Dialled(Option<Stream>);

impl Service<http::Uri> for Dialled {
    type Response = Stream;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
