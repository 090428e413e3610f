//! A TCP connection: one task reads it, one writes it, both by the ring.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use tokio::sync::mpsc;

use super::{Event, tune_stream};
use crate::tls::Tls;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes that are handed to the writing task at a time.
pub(super) const WRITE_BYTES: usize = 64 << 10;

/// What a stream's tasks tell.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// Bytes have come.
    Received(Vec<u8>),
    /// What was handed over is written.
    Written,
    /// It is over, and why.
    Closed(String),
}

/// A connection, as the loop has it. Dropped, it ends after what was handed over is written.
#[derive(Debug)]
pub(super) struct Stream {
    id: u64,
    tls: Tls,
    writer: mpsc::UnboundedSender<Vec<u8>>,
    is_writing: bool,
}

impl Stream {
    /// Begins to read; what comes is an event with this id.
    pub(super) fn start(
        id: u64,
        stream: TcpStream,
        tls: Tls,
        events: &mpsc::Sender<Event>,
    ) -> io::Result<Stream> {
        tune_stream(&stream)?;
        let stream = Rc::new(tokio_uring::net::TcpStream::from_std(stream));
        let (writer, to_write) = mpsc::unbounded_channel();
        tokio_uring::spawn(read(id, Rc::clone(&stream), events.clone()));
        tokio_uring::spawn(write(id, stream, to_write, events.clone()));
        Ok(Stream { id, tls, writer, is_writing: false })
    }

    /// Its id.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The plain bytes of what has come.
    ///
    /// # Errors
    /// If TLS does not want it.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.tls.receive(bytes)
    }

    /// Whether something may be handed over: what was before is written.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_writing
    }

    /// Whether TLS has something to say.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// What was handed over is written.
    pub(super) fn written(&mut self) {
        self.is_writing = false;
    }

    /// Hands bytes over, and what TLS has to say.
    pub(super) fn send(&mut self, mut plain: Vec<u8>) {
        let mut sealed = Vec::new();
        self.tls.send(&mut plain, &mut sealed);
        if !sealed.is_empty() {
            self.is_writing = true;
            // A task that is gone has said so, or will.
            let _ = self.writer.send(sealed);
        }
    }
}

async fn read(id: u64, stream: Rc<tokio_uring::net::TcpStream>, events: mpsc::Sender<Event>) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let why = loop {
        let (read, mut filled) = stream.read(buffer).await;
        match read {
            Ok(0) => break "the other side has closed it".to_owned(),
            Ok(bytes) => {
                let received = filled[..bytes].to_vec();
                if events.send(Event::Stream(id, StreamEvent::Received(received))).await.is_err() {
                    return;
                }
            }
            Err(error) => break error.to_string(),
        }
        filled.clear();
        buffer = filled;
    };
    // The loop may be over.
    let _ = events.send(Event::Stream(id, StreamEvent::Closed(why))).await;
}

async fn write(
    id: u64,
    stream: Rc<tokio_uring::net::TcpStream>,
    mut to_write: mpsc::UnboundedReceiver<Vec<u8>>,
    events: mpsc::Sender<Event>,
) {
    while let Some(bytes) = to_write.recv().await {
        let (written, _) = stream.write_all(bytes).await;
        let event = match written {
            Ok(()) => StreamEvent::Written,
            Err(error) => StreamEvent::Closed(error.to_string()),
        };
        let is_over = matches!(event, StreamEvent::Closed(_));
        if events.send(Event::Stream(id, event)).await.is_err() || is_over {
            break;
        }
    }
    // The reading task sees this as an end. What is shut down already needs no more.
    let _ = stream.shutdown(Shutdown::Both);
}
