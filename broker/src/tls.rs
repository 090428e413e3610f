//! TLS, or none: bytes of the stream to plain ones and back. No sockets.
//!
//! The server has a certificate of its own making; the client knows it by its SHA-256, so there is no authority to trust, no name to
//! compare, and no date to expire.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::{fmt, str};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

/// The name in a certificate of ours, which nobody compares.
pub const CERTIFICATE_NAME: &str = "ringmaster-broker";

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl str::FromStr for Fingerprint {
    type Err = String;

    /// 64 hexadecimal digits; colons between them, as openssl writes, are fine.
    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        let is_hex = digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit);
        if !is_hex {
            return Err("a fingerprint is 64 hexadecimal digits, as `ringmaster-broker certificate` prints"
                .to_owned());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = str::from_utf8(pair).expect("hexadecimal digits are ASCII");
            *byte = u8::from_str_radix(pair, 16).expect("they were looked at above");
        }
        Ok(Fingerprint(bytes))
    }
}

/// One end of a connection.
#[derive(Debug)]
pub enum Tls {
    /// Nothing is sealed.
    Off,
    /// TLS 1.3.
    On(Box<Connection>),
}

/// How the client's connections begin.
///
/// # Errors
/// If the library does not want to.
pub fn client_config(pinned: Fingerprint) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { pinned, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// How the server's connections begin, and what clients pin.
///
/// # Errors
/// If a file is none of the kind, or the two do not belong together.
pub fn server_config(certificate: &Path, key: &Path) -> Result<(Arc<ServerConfig>, Fingerprint), String> {
    let at = |path: &Path, error: &dyn fmt::Display| {
        format!("{}: {error}; `ringmaster-broker certificate` makes a pair", path.display())
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| at(certificate, &error))?;
    let first = certificates.first().ok_or_else(|| at(certificate, &"it holds no certificate"))?;
    let fingerprint = Fingerprint::of(first);
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| at(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .map_err(|error| at(certificate, &error))?;
    Ok((Arc::new(config), fingerprint))
}

impl Tls {
    /// The client's end.
    ///
    /// # Errors
    /// If the library does not want to.
    ///
    /// # Panics
    /// Never: the name is one.
    pub fn client(config: Option<&Arc<ClientConfig>>) -> Result<Tls, String> {
        let Some(config) = config else { return Ok(Tls::Off) };
        let name = ServerName::try_from(CERTIFICATE_NAME).expect("it is a name");
        let connection = ClientConnection::new(Arc::clone(config), name);
        Ok(Tls::On(Box::new(connection.map_err(|error| error.to_string())?.into())))
    }

    /// The server's end.
    ///
    /// # Errors
    /// If the library does not want to.
    pub fn server(config: Option<&Arc<ServerConfig>>) -> Result<Tls, String> {
        let Some(config) = config else { return Ok(Tls::Off) };
        let connection = ServerConnection::new(Arc::clone(config));
        Ok(Tls::On(Box::new(connection.map_err(|error| error.to_string())?.into())))
    }

    /// Takes bytes of the stream; gives the plain ones.
    ///
    /// # Errors
    /// If the other side is not who it should be, or breaks the protocol.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let Tls::On(connection) = self else { return Ok(bytes.to_vec()) };
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            let state = connection.process_new_packets().map_err(|error| error.to_string())?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            connection.reader().read_exact(&mut plain[start..]).map_err(|error| error.to_string())?;
        }
        Ok(plain)
    }

    /// Appends to `out` what goes on the stream: what the handshake has to say, and `plain`.
    ///
    /// # Panics
    /// Never: memory takes all.
    pub fn send(&mut self, plain: &mut Vec<u8>, out: &mut Vec<u8>) {
        match self {
            Tls::Off => out.append(plain),
            Tls::On(connection) => {
                // The caller sends little at a time, and no more before that is written.
                connection.set_buffer_limit(None);
                connection.writer().write_all(plain).expect("without a limit all is taken");
                plain.clear();
                while connection.wants_write() {
                    connection.write_tls(out).expect("a Vec takes all");
                }
            }
        }
    }

    /// Whether [`Tls::send`] has something even if there is nothing plain to send.
    pub fn wants_write(&self) -> bool {
        match self {
            Tls::Off => false,
            Tls::On(connection) => connection.wants_write(),
        }
    }
}

/// Takes one certificate, and none else.
#[derive(Debug)]
struct Pinned {
    pinned: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(certificate);
        if found == self.pinned {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(format!(
            "the server's certificate has the fingerprint {found}, not the pinned one"
        )))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets both ends speak until neither has anything to say; gives what each has received.
    fn talk(client: &mut Tls, server: &mut Tls) -> Result<(Vec<u8>, Vec<u8>), String> {
        let (mut to_server, mut to_client) = (b"from the client".to_vec(), b"from the server".to_vec());
        let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
        loop {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            client.send(&mut to_server, &mut up);
            server.send(&mut to_client, &mut down);
            if up.is_empty() && down.is_empty() {
                return Ok((at_client, at_server));
            }
            // However the stream is cut.
            for chunk in up.chunks(7) {
                at_server.extend(server.receive(chunk)?);
            }
            for chunk in down.chunks(1_000) {
                at_client.extend(client.receive(chunk)?);
            }
        }
    }

    #[test]
    fn the_pinned_certificate_and_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let (certificate, key) = (scratch.path().join("certificate.pem"), scratch.path().join("key.pem"));
        let printed = crate::certificate::make(&certificate, &key).unwrap();
        let (config, fingerprint) = server_config(&certificate, &key).unwrap();
        assert_eq!(printed, fingerprint);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));

        let pinned = client_config(fingerprint).unwrap();
        let mut client = Tls::client(Some(&pinned)).unwrap();
        let (at_client, at_server) = talk(&mut client, &mut Tls::server(Some(&config)).unwrap()).unwrap();
        assert_eq!((at_client, at_server), (b"from the server".to_vec(), b"from the client".to_vec()));

        let other = client_config(Fingerprint([7; 32])).unwrap();
        let mut client = Tls::client(Some(&other)).unwrap();
        let error = talk(&mut client, &mut Tls::server(Some(&config)).unwrap()).unwrap_err();
        assert!(error.contains(&fingerprint.to_string()), "{error}");
        assert!(talk(&mut Tls::Off, &mut Tls::server(Some(&config)).unwrap()).is_err(), "not in the clear");
    }

    #[test]
    fn fingerprints_as_text() {
        let text = "00:ff".repeat(16).replace("ff00", "ff:00");
        assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), "00ff".repeat(16));
        for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64)] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }
}
