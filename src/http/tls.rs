//! TLS of a server, with certificate and key from files.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::util::file::{self, Stamp};

/// The files of a certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the server, then those between it and the root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The reason why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no PEM file of a {what}: {source}", path = path.display())]
    Pem {
        path: PathBuf,
        what: &'static str,
        source: pem::Error,
    },
    #[error("certificate {certificate} with key {key}: {source}", certificate = .files.certificate.display(), key = .files.key.display())]
    Unusable {
        files: TlsFiles,
        source: rustls::Error,
    },
}

/// A certificate that follows its files.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Certificate>);

struct Certificate {
    files: TlsFiles,
    used: Mutex<(Stamps, Arc<ServerConfig>)>,
}

type Stamps = [Option<Stamp>; 2];

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// They cannot be read, or do not fit together.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let used = (files.stamps(), files.config()?);
        let files = files.clone();
        let used = Mutex::new(used);
        Ok(Self(Arc::new(Certificate { files, used })))
    }

    /// Reads the files again if they changed, and returns whether they did. Blocks.
    ///
    /// # Errors
    /// As [`Tls::read`]; the certificate of before is used on.
    pub(crate) fn refresh(&self) -> Result<bool, TlsError> {
        let Certificate { files, used } = &*self.0;
        let stamps = files.stamps();
        if used.lock().0 == stamps {
            return Ok(false);
        }
        let config = files.config();
        let mut used = used.lock();
        used.0 = stamps;
        used.1 = config?;
        Ok(true)
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.used.lock().1))
    }
}

impl TlsFiles {
    fn stamps(&self) -> Stamps {
        [Stamp::at(&self.certificate), Stamp::at(&self.key)]
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let wrong = |path: &Path, what, source| TlsError::Pem {
            path: path.to_owned(),
            what,
            source,
        };
        let text = text(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let chain = chain.map_err(|source| wrong(&self.certificate, "certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(self::text(&self.key)?.as_bytes())
            .map_err(|source| wrong(&self.key, "private key", source))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        config.map(Arc::new).map_err(|source| TlsError::Unusable {
            files: self.clone(),
            source,
        })
    }
}

fn text(path: &Path) -> Result<String, TlsError> {
    file::read_text(path, file::DOCUMENT).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Accepts connections with TLS. The handshake is a part of the connection, so that a slow client delays no other.
pub(crate) struct TlsListener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Tls,
}

impl Listener for TlsListener {
    type Io = TlsIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsIo, SocketAddr) {
        let (io, client) = Listener::accept(&mut self.tcp).await;
        let handshake = self.tls.acceptor().accept(io);
        (TlsIo::Handshake(Box::new(handshake)), client)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A connection whose handshake comes before its first byte.
pub(crate) enum TlsIo {
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<TlsStream<TcpStream>>),
    Failed,
}

impl TlsIo {
    fn open(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let Self::Handshake(handshake) = self {
            match ready!(Pin::new(handshake).poll(context)) {
                Ok(stream) => *self = Self::Open(Box::new(stream)),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match self {
            Self::Open(stream) => Ok(Pin::new(&mut **stream)),
            Self::Handshake(_) | Self::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.open(context))?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self {
            Self::Open(_) => ready!(self.open(context))?.poll_flush(context),
            Self::Handshake(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self {
            Self::Open(_) => ready!(self.open(context))?.poll_shutdown(context),
            Self::Handshake(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }
}
