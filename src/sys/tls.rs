//! TLS to servers that are known by certificates which somebody named: of authorities, or the server's own.
//!
//! rustls takes no certificate that may sign others as a server's, and `openssl req -x509` makes just such ones. Here a
//! server may show the very certificate that was named, as long as its dates and names hold; all else is rustls's to say.

use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::tls::{RootCerts, TlsConfig};
// Not covered by the promises of semver: Cargo.lock names the version that this is written for.
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    RustlsConnector, TcpConnector, Transport, TransportAdapter,
};

/// Connects to web servers, through a proxy or not, as ureq does.
pub fn connector() -> impl Connector<()> {
    let plain = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    plain.chain(Named::default()).chain(RustlsConnector::default())
}

/// What rustls says of servers that do not speak TLS, or that nobody vouches for, in words that people know.
pub fn in_words(error: io::Error) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|cause| cause as _);
    let text = loop {
        let Some(found) = cause else { return error };
        match found.downcast_ref::<Error>() {
            Some(Error::InvalidMessage(_)) => break "the server does not speak TLS there",
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))) => {
                break "its certificate is signed by no authority that this machine trusts; `SSL_CERT_FILE` can name a file of \
                       certificates";
            }
            // An error of the machine hides the one that it wraps.
            _ => match found.downcast_ref::<io::Error>() {
                Some(outer) => cause = outer.get_ref().map(|cause| cause as _),
                None => cause = found.source(),
            },
        }
    };
    io::Error::new(error.kind(), text)
}

/// Speaks TLS with servers where certificates are named; leaves other connections as they are.
#[derive(Debug, Default)]
struct Named {
    config: OnceLock<Arc<ClientConfig>>,
}

impl<In: Transport> Connector<In> for Named {
    type Out = Either<In, Tls>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let settings = details.config.tls_config();
        let RootCerts::Specific(roots) = settings.root_certs() else {
            return Ok(Some(Either::A(transport)));
        };
        if !details.needs_tls() || transport.is_tls() || settings.disable_verification() {
            return Ok(Some(Either::A(transport)));
        }
        let config = match self.config.get() {
            Some(config) => Arc::clone(config),
            None => {
                let roots = roots.iter().map(|root| CertificateDer::from(root.der().to_vec())).collect();
                let config = configure(roots, settings).map_err(io::Error::other)?;
                Arc::clone(self.config.get_or_init(|| Arc::new(config)))
            }
        };
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let transport: Box<dyn Transport> = Box::new(transport);
        let mut below = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        below.set_timeout(details.timeout);
        connection.complete_io(&mut below)?;
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        let stream = StreamOwned::new(connection, below);
        Ok(Some(Either::B(Tls { buffers: LazyBuffers::new(input, output), stream })))
    }
}

fn configure(roots: Vec<CertificateDer<'static>>, settings: &TlsConfig) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(roots, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let Some(client) = settings.client_cert() else { return Ok(builder.with_no_client_auth()) };
    let chain = client.certs().iter().map(|own| CertificateDer::from(own.der().to_vec())).collect();
    let key = PrivateKeyDer::try_from(client.private_key().as_ref().to_vec());
    builder.with_client_auth_cert(chain, key.map_err(|why| Error::General(why.to_owned()))?)
}

/// Believes what rustls does, and the very certificates that were named.
#[derive(Debug)]
struct Verifier {
    named: Vec<CertificateDer<'static>>,
    strict: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    fn new(named: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let strict = strict.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { named, strict })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.strict.verify_server_cert(shown, others, name, ocsp, now);
        match &verified {
            // It is said after the dates were found good, and before the names are looked at.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.to_string() == "CaUsedAsEndEntity" && self.named.contains(shown) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

struct Tls {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.sock.inner().fmt(formatter)
    }
}

impl Transport for Tls {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rustls_says_is_told_in_words() {
        let told = |error: Error| in_words(io::Error::other(io::Error::other(error))).to_string();
        assert!(told(Error::InvalidCertificate(CertificateError::UnknownIssuer)).contains("SSL_CERT_FILE"));
        assert!(
            told(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)).contains("not speak TLS")
        );
        assert!(told(Error::InvalidCertificate(CertificateError::Expired)).contains("xpired"), "as it was");
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(in_words(refused).raw_os_error(), Some(libc::ECONNREFUSED));
    }
}
