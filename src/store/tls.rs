//! TLS for the cloud back ends: one provider, and certificates even in an image that has none.

use super::StoreError;
use object_store::{Certificate, ClientOptions};
use std::path::Path;
use std::sync::Once;

/// Where distributions keep their root certificates. The same list as Go's `crypto/x509` and OpenSSL's
/// usual builds.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Chooses `ring` for this process. Called when a cloud store is opened, never for a local one.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    // An error means that somebody chose a provider before us: then that one is used.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Whether this container has root certificates. An image made from scratch has none.
pub(super) fn system_has_roots() -> bool {
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    named || BUNDLES.iter().any(|path| Path::new(path).exists())
}

/// Mozilla's roots, as built into revenant.
pub(super) fn bundled_roots(mut options: ClientOptions) -> Result<ClientOptions, StoreError> {
    for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let certificate = Certificate::from_der(der).map_err(|error| StoreError::InvalidUrl {
            url: "built-in certificates".to_owned(),
            reason: error.to_string(),
        })?;
        options = options.with_root_certificate(certificate);
    }
    Ok(options.with_no_system_certificates(true))
}
