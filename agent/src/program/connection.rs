//! One connection to a manager: its tasks, and what they tell the one that owns everything.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use codec::limits::FRAME_BYTES_MAX;
use codec::{FrameAt, FrameCutter};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::servers::{Link, Reached, Way};

/// What a task tells, and of which connection: what an older one tells means nothing any more.
pub(crate) struct News {
    pub(crate) connection: u64,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// It is there, or why not.
    Reached(Result<Reached, String>),
    /// A piece of the stream, or a datagram.
    Received(Vec<u8>),
    /// Everything that was given to the writer is with the kernel.
    Written,
    /// A datagram was not sent; it is tried again.
    NotSent(io::Error),
    /// It is over.
    Closed(String),
}

/// What there is of a connection; `link` only when it is made.
pub(crate) struct Connection {
    number: u64,
    link: Option<Rc<Link>>,
    cutter: FrameCutter,
    is_writing: bool,
    tasks: Vec<JoinHandle<()>>,
    news: Sender<News>,
    /// Whom it leads to, or the last one led to.
    pub(crate) server: usize,
    /// Whether there ever was one.
    pub(crate) has_tried: bool,
    /// Whether the start-up was acknowledged.
    pub(crate) was_answered: bool,
    /// Start-ups sent over UDP, where only silence tells that nobody is there.
    pub(crate) startups: u32,
}

/// Bytes that one read takes.
const READ_BYTES: usize = 8 << 10;
/// The largest datagram. A manager sends less.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Before a datagram is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Connection {
    pub(crate) fn none(news: Sender<News>) -> Connection {
        Connection {
            number: 0,
            link: None,
            cutter: FrameCutter::new(FRAME_BYTES_MAX),
            is_writing: false,
            tasks: Vec::new(),
            news,
            server: 0,
            has_tried: false,
            was_answered: false,
            startups: 0,
        }
    }

    /// Begins to make one, trying the servers from `first` on.
    pub(crate) fn begin(&mut self, way: Way, first: usize) {
        self.close();
        let (number, news) = (self.number, self.news.clone());
        self.spawn(async move {
            let what = What::Reached(way.reach(first).await);
            // Nobody listens only when the program ends.
            let _ = news.send(News { connection: number, what }).await;
        });
    }

    /// It is made.
    pub(crate) fn opened(&mut self, reached: Reached) {
        let link = Rc::new(reached.link);
        self.server = reached.server;
        self.has_tried = true;
        self.was_answered = false;
        self.startups = 0;
        self.cutter = FrameCutter::new(FRAME_BYTES_MAX);
        self.link = Some(Rc::clone(&link));
        self.spawn(read(link, self.number, self.news.clone()));
    }

    /// Ends it: whatever its tasks still tell means nothing.
    pub(crate) fn close(&mut self) {
        self.number += 1;
        self.is_writing = false;
        self.tasks.drain(..).for_each(|task| task.abort());
        if let Some(link) = self.link.take() {
            // The ring holds the socket until its operations are over: this ends them. A socket that is dead already says so.
            let _ = match &*link {
                Link::Tcp(stream) => stream.shutdown(Shutdown::Both),
                Link::Udp(socket) => socket.shutdown(Shutdown::Both),
            };
        }
    }

    /// Whether this is told of what there is now.
    pub(crate) fn is_current(&self, news: &News) -> bool {
        news.connection == self.number
    }

    /// Whether messages can be given to it.
    pub(crate) fn can_write(&self) -> bool {
        self.link.is_some() && !self.is_writing
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing
    }

    pub(crate) fn written(&mut self) {
        self.is_writing = false;
    }

    /// Sends messages, in order; [`What::Written`] tells when.
    ///
    /// # Panics
    /// Unless [`Connection::can_write`].
    pub(crate) fn write(&mut self, messages: VecDeque<Vec<u8>>) {
        assert!(self.can_write(), "one batch at a time");
        let link = Rc::clone(self.link.as_ref().expect("it can be written"));
        self.is_writing = true;
        self.tasks.retain(|task| !task.is_finished());
        self.spawn(write(link, messages, self.number, self.news.clone()));
    }

    /// The messages in what was received.
    ///
    /// # Errors
    /// When the stream is none of frames.
    pub(crate) fn cut(&mut self, received: Vec<u8>) -> Result<Vec<Vec<u8>>, codec::FrameError> {
        match self.link.as_deref() {
            None => Ok(Vec::new()),
            Some(Link::Udp(_)) => Ok(vec![received]),
            Some(Link::Tcp(_)) => {
                let mut frames = Vec::new();
                self.cutter.cut(&received, &mut frames)?;
                let whole = |frame: &FrameAt| match frame {
                    FrameAt::Carried => self.cutter.carried().to_vec(),
                    FrameAt::Received(range) => received[range.clone()].to_vec(),
                };
                Ok(frames.iter().map(whole).collect())
            }
        }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push(tokio_uring::spawn(task));
    }
}

async fn read(link: Rc<Link>, connection: u64, news: Sender<News>) {
    let mut buffer = match &*link {
        Link::Tcp(_) => vec![0; READ_BYTES],
        Link::Udp(_) => vec![0; DATAGRAM_BYTES],
    };
    loop {
        let (result, back) = match &*link {
            Link::Tcp(stream) => stream.read(buffer).await,
            Link::Udp(socket) => socket.read(buffer).await,
        };
        buffer = back;
        let what = match (result, &*link) {
            (Ok(0), Link::Tcp(_)) => What::Closed("the manager has closed the connection".to_owned()),
            (Err(error), Link::Tcp(_)) => What::Closed(error.to_string()),
            (Ok(0), Link::Udp(_)) => continue,
            // That a port is closed is anybody's word, and what agents wait for is the manager's.
            (Err(_), Link::Udp(_)) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            (Ok(bytes), Link::Tcp(_) | Link::Udp(_)) => What::Received(buffer[..bytes].to_vec()),
        };
        let is_over = matches!(what, What::Closed(_));
        if news.send(News { connection, what }).await.is_err() || is_over {
            return;
        }
    }
}

async fn write(link: Rc<Link>, messages: VecDeque<Vec<u8>>, connection: u64, news: Sender<News>) {
    let what = match &*link {
        Link::Tcp(stream) => {
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| codec::frame(message, &mut bytes));
            match stream.write_all(bytes).await.0 {
                Ok(()) => What::Written,
                Err(error) => What::Closed(error.to_string()),
            }
        }
        Link::Udp(socket) => {
            for mut message in messages {
                loop {
                    let (result, back) = socket.write(message).submit().await;
                    message = back;
                    let Err(error) = result else { break };
                    let what = What::NotSent(error);
                    if news.send(News { connection, what }).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
            What::Written
        }
    };
    let _ = news.send(News { connection, what }).await;
}
