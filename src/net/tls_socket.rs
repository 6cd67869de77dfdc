//! A connection that is encrypted with TLS. Records are taken in and made in buffers that all connections of a thread
//! share: a connection that is silent holds its keys and nothing else.
//!
//! Tests: tests/authentication.rs, tests/crowd.rs.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::file_read::read_in_background;
use super::socket::Socket;
use crate::log::DiskFile;

/// What is read from the network at once, records.
const READ_BYTES_MAX: usize = 256 << 10;
/// A read has at least this much room: one record of the largest size.
const READ_BYTES_MIN: usize = 20 << 10;
/// What is encrypted at once, and read from a file.
const ENCRYPT_BYTES_MAX: usize = 128 << 10;
/// What one record adds at most, and how much it takes.
const RECORD_OVERHEAD_BYTES: usize = 64;
const RECORD_PLAIN_BYTES: usize = 16 << 10;

thread_local! {
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the module's documentation.
pub struct TlsSocket {
    tcp: TcpStream,
    tls: UnbufferedServerConnection,
    /// The beginning of a record that has not arrived whole.
    incoming: Vec<u8>,
    /// Decrypted, and not read yet.
    plain: BytesMut,
    /// Encrypted, and not sent yet.
    outgoing: BytesMut,
    /// Nothing more comes.
    is_ended: bool,
    /// A record was wrong: nothing more is taken in or sent.
    is_broken: bool,
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Takes in records: gives what they bring to `plain`, and adds what is to be sent to `outgoing`. How many bytes were taken,
/// and whether the peer will send no more.
fn take_in(
    tls: &mut UnbufferedServerConnection,
    records: &mut [u8],
    outgoing: &mut BytesMut,
    mut plain: impl FnMut(&[u8]),
) -> io::Result<(usize, bool)> {
    let mut taken = 0;
    loop {
        let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut records[taken..]);
        let mut discarded = discard;
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                alert(tls, &mut records[taken + discard..], outgoing);
                return Err(invalid(error));
            }
        };
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(invalid)?;
                    discarded += record.discard;
                    plain(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(mut data) => {
                encode(outgoing, |room| data.encode(room))?;
            }
            // It is sent in its turn.
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                return Ok((taken + discarded, true));
            }
            // More has to come, or something may be sent.
            _ => return Ok((taken + discarded, false)),
        }
        taken += discarded;
    }
}

/// Adds what tells the peer of an error. Nothing more is taken in after one.
fn alert(tls: &mut UnbufferedServerConnection, records: &mut [u8], outgoing: &mut BytesMut) {
    let UnbufferedStatus { state, .. } = tls.process_tls_records(records);
    if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
        let _ = encode(outgoing, |room| data.encode(room));
    }
}

/// Adds a handshake record to what is to be sent.
fn encode(
    outgoing: &mut BytesMut,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let from = outgoing.len();
    let mut room = 4 << 10;
    loop {
        outgoing.resize(from + room, 0);
        match encode(&mut outgoing[from..]) {
            Ok(bytes) => {
                outgoing.truncate(from + bytes);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needs)) if needs.required_size > room => {
                room = needs.required_size;
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

impl TlsSocket {
    /// A connection whose client has to begin a handshake.
    pub(super) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            tcp,
            tls: UnbufferedServerConnection::new(config).map_err(invalid)?,
            incoming: Vec::new(),
            plain: BytesMut::new(),
            outgoing: BytesMut::new(),
            is_ended: false,
            is_broken: false,
        })
    }

    /// The certificate that the client has shown and proved to own.
    pub(super) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.peer_certificates()?.first()
    }

    /// Reads what is there, takes it in, and gives what it brings to `plain` with what is left of `room`. An error of
    /// `WouldBlock` says that nothing is there.
    fn read_records(
        &mut self,
        room: usize,
        mut give: impl FnMut(&[u8]) -> usize,
    ) -> io::Result<()> {
        let wanted = (room + room / 16 + 512).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        RECORDS.with_borrow_mut(|records| {
            let kept = self.incoming.len();
            if records.len() < kept + wanted {
                records.resize(kept + wanted, 0);
            }
            records[..kept].copy_from_slice(&self.incoming);
            let read = self.tcp.try_read(&mut records[kept..kept + wanted])?;
            if read == 0 {
                self.is_ended = true;
                return Ok(());
            }
            let rest = &mut self.plain;
            let mut plain = |payload: &[u8]| {
                let given = match rest.is_empty() {
                    true => give(payload),
                    false => 0,
                };
                rest.extend_from_slice(&payload[given..]);
            };
            let records = &mut records[..kept + read];
            let outgoing = &mut self.outgoing;
            let (taken, ended) = match take_in(&mut self.tls, records, outgoing, &mut plain) {
                Ok(taken) => taken,
                Err(error) => {
                    // The peer is told why, where it still listens.
                    let _ = self.tcp.try_write(outgoing);
                    self.is_broken = true;
                    return Err(error);
                }
            };
            self.is_ended |= ended;
            let left = &records[taken..];
            match left.is_empty() {
                true => self.incoming = Vec::new(),
                false => {
                    self.incoming.clear();
                    self.incoming.extend_from_slice(left);
                }
            }
            Ok(())
        })
    }

    /// Encrypts and begins to send.
    fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let records = plain.len().div_ceil(RECORD_PLAIN_BYTES);
        // A change of keys may come before them.
        let room = plain.len() + (records + 2) * RECORD_OVERHEAD_BYTES;
        let (plain_rest, outgoing) = (&mut self.plain, &mut self.outgoing);
        let keep = |payload: &[u8]| plain_rest.extend_from_slice(payload);
        let (taken, _) = take_in(&mut self.tls, &mut self.incoming, outgoing, keep)?;
        self.incoming.drain(..taken);
        SEALED.with_borrow_mut(|sealed| {
            if sealed.len() < room {
                sealed.resize(room, 0);
            }
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.incoming);
            let ConnectionState::WriteTraffic(mut traffic) = state.map_err(invalid)? else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let bytes = traffic
                .encrypt(plain, sealed)
                .map_err(|error: EncryptError| io::Error::other(error))?;
            let sent = match self.outgoing.is_empty() {
                true => self.tcp.try_write(&sealed[..bytes]),
                false => Ok(0),
            };
            let sent = match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                sent => sent?,
            };
            self.outgoing.extend_from_slice(&sealed[sent..bytes]);
            Ok(())
        })
    }

    /// Sends what is encrypted.
    async fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            self.tcp.writable().await?;
            match self.tcp.try_write(&self.outgoing) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.outgoing.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // The room of a large answer is not kept.
        self.outgoing = BytesMut::new();
        Ok(())
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        loop {
            if !me.plain.is_empty() {
                let given = me.plain.len().min(buf.remaining());
                buf.put_slice(&me.plain[..given]);
                me.plain.advance(given);
                if me.plain.is_empty() {
                    me.plain = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if me.is_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(me.tcp.poll_read_ready(cx))?;
            let before = buf.filled().len();
            let read = me.read_records(buf.remaining(), |payload| {
                let given = payload.len().min(buf.remaining());
                buf.put_slice(&payload[..given]);
                given
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                Ok(()) => {}
            }
        }
    }
}

impl Socket for TlsSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    fn set_nodelay(&self) -> io::Result<()> {
        self.tcp.set_nodelay(true)
    }

    async fn establish(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            self.flush().await?;
            self.tcp.readable().await?;
            match self.read_records(0, |_| 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(()) if self.is_ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(()) => {}
            }
        }
        self.flush().await
    }

    async fn send_bytes(&mut self, bytes: &[u8], _more: bool) -> io::Result<usize> {
        self.flush().await?;
        let taken = bytes.len().min(ENCRYPT_BYTES_MAX);
        self.seal(&bytes[..taken])?;
        self.flush().await?;
        Ok(taken)
    }

    async fn send_file(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        self.flush().await?;
        let wanted = bytes.min(ENCRYPT_BYTES_MAX);
        let cached = FILE.with_borrow_mut(|part| {
            if part.len() < wanted {
                part.resize(wanted, 0);
            }
            match file.read_cached_at(&mut part[..wanted], position)? {
                Some(read) => self.seal(&part[..read]).map(|()| Some(read)),
                None => Ok(None),
            }
        })?;
        let sent = match cached {
            Some(sent) => sent,
            None => {
                let read = read_in_background(file, position, wanted).await?;
                self.seal(&read)?;
                read.len()
            }
        };
        self.flush().await?;
        Ok(sent)
    }
}

/// The peer is told that nothing more comes, so that it can tell an end from a cut.
impl Drop for TlsSocket {
    fn drop(&mut self) {
        if self.is_broken || !self.outgoing.is_empty() || self.tls.is_handshaking() {
            return;
        }
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.incoming);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            let mut notice = [0; RECORD_OVERHEAD_BYTES];
            if let Ok(bytes) = traffic.queue_close_notify(&mut notice) {
                let _ = self.tcp.try_write(&notice[..bytes]);
            }
        }
    }
}
