//! The socket's serving end: few clients, short requests, and a slow one holds up nobody.

use std::{
    io,
    os::unix::{fs::PermissionsExt, net},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{self, timeout},
};

use super::{Answer, End, Line, Order, REQUEST_BYTES_MAX, Request};

/// Clients served at a time; the next ones wait in the kernel.
const CLIENTS_MAX: usize = 16;

/// How long a client may think, or take to read what it asked for. A page is some hundred kilobytes.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests on their way to the control plane, which takes one after the other.
const ORDERS_MAX: usize = CLIENTS_MAX;

/// Owner and group: who may ask is who may read the keys.
const SOCKET_MODE: u32 = 0o660;

/// The socket, bound.
#[derive(Debug)]
pub struct CommandServer {
    listener: net::UnixListener,
    path: PathBuf,
}

/// The requests, as the control plane takes them.
pub type Orders = mpsc::Receiver<Order>;

impl CommandServer {
    /// Binds the socket. The caller has the home's lock: what lies at the path is left from an earlier run.
    ///
    /// # Errors
    /// When it can't be bound, such as at a path of more than 107 bytes.
    pub fn bind(path: &Path) -> io::Result<CommandServer> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        listener.set_nonblocking(true)?;
        Ok(CommandServer { listener, path: path.to_owned() })
    }

    /// Serves clients in this thread's runtime.
    ///
    /// # Errors
    /// When the runtime can't watch the socket.
    ///
    /// # Panics
    /// Outside of the runtime.
    pub fn serve(&self) -> io::Result<Orders> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let free = Arc::new(Semaphore::new(CLIENTS_MAX));
        tokio_uring::spawn(async move {
            loop {
                let permit = Arc::clone(&free).acquire_owned().await.expect("nobody closes the semaphore");
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, most likely: the agents come first.
                    time::sleep(Duration::from_secs(1)).await;
                    continue;
                };
                let sender = sender.clone();
                tokio_uring::spawn(async move {
                    // A client that is late or gone has nobody to be told.
                    let _ = serve_client(stream, sender).await;
                    drop(permit);
                });
            }
        });
        Ok(orders)
    }
}

impl Drop for CommandServer {
    fn drop(&mut self) {
        // A socket that nobody serves would make the next command wait for a refusal; it is harmless if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve_client(stream: UnixStream, orders: mpsc::Sender<Order>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut read).take(REQUEST_BYTES_MAX as u64);
        timeout(CLIENT_TIMEOUT, bounded.read_until(b'\n', &mut line)).await??;
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            let text = format!("a request is one line of at most {REQUEST_BYTES_MAX} bytes");
            return say(&mut write, &[], &Line::Refused(text)).await;
        }
        match serde_json::from_slice(&line) {
            Ok(request) => carry_out(&request, &orders, &mut write).await?,
            Err(error) => {
                let text = format!("no request that is known: {error}");
                say(&mut write, &[], &Line::Refused(text)).await?;
            }
        }
    }
}

/// Has a request answered page after page, so that a long answer is never in memory as a whole.
async fn carry_out(
    request: &Request,
    orders: &mpsc::Sender<Order>,
    write: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let mut from = 0;
    loop {
        let (sender, answer) = oneshot::channel();
        // Either fails only when the program ends.
        let _ = orders.send(Order { request: request.clone(), from, answer: sender }).await;
        let ending = || Answer::refused("the program is stopping");
        let Answer { items, end } = answer.await.unwrap_or_else(|_| ending());
        match end {
            End::More(next) => {
                from = next;
                send(write, &lines(&items)).await?;
            }
            End::Ok(value) => return say(write, &items, &Line::Ok(value)).await,
            End::Refused(why) => return say(write, &items, &Line::Refused(why)).await,
        }
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), items: &[Value], last: &Line) -> io::Result<()> {
    let mut bytes = lines(items);
    append(&mut bytes, last);
    send(write, &bytes).await
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> io::Result<()> {
    timeout(CLIENT_TIMEOUT, write.write_all(bytes)).await?
}

fn lines(items: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    items.iter().for_each(|item| append(&mut bytes, &BorrowedItem { item }));
    bytes
}

/// [`Line::Item`], without a copy of it.
#[derive(Serialize)]
struct BorrowedItem<'a> {
    item: &'a Value,
}

fn append(bytes: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, line).expect("a Vec takes all, and a value is JSON");
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};

    use serde_json::json;

    use super::*;
    use crate::command::{CommandError, client};

    /// Serves in the place of a control plane while `client` talks to it from another thread.
    fn serving<T: Send + 'static>(client: impl FnOnce(PathBuf) -> T + Send + 'static) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("command");
        tokio_uring::start(async move {
            let server = CommandServer::bind(&path).unwrap();
            let mut orders = server.serve().unwrap();
            let at = path.clone();
            let mut client = tokio::task::spawn_blocking(move || client(at));
            loop {
                tokio::select! {
                    order = orders.recv() => answer(order.unwrap()),
                    outcome = &mut client => {
                        drop(server);
                        assert!(!path.exists(), "nothing is left behind");
                        return outcome.unwrap();
                    }
                }
            }
        })
    }

    /// Three agents, one a page; a reset is refused; status is never answered.
    fn answer(order: Order) {
        let answer = match (&order.request, order.from) {
            (Request::Agents { .. }, from @ 0..2) => Answer::more(vec![json!({ "number": from })], from + 1),
            (Request::Agents { .. }, from) => Answer::done(vec![json!({ "number": from })]),
            (Request::ResetCounter { id }, _) => Answer::refused(format!("no agent {id}")),
            (Request::AgentRequest { .. } | Request::Reload | Request::Send { .. } | Request::Status, _) => {
                return;
            }
        };
        order.answer(answer);
    }

    #[test]
    fn answers_come_page_by_page_to_their_end() {
        let outcome = serving(|path| {
            let mut numbers = Vec::new();
            let end = client::ask_at(&path, &Request::Agents { ids: Vec::new() }, |item| {
                numbers.push(item["number"].as_u64().unwrap());
            });
            let refused = client::ask_at(&path, &Request::ResetCounter { id: "7".to_owned() }, drop);
            let unanswered = client::ask_at(&path, &Request::Status, drop);
            (numbers, end.unwrap(), refused, unanswered)
        });
        let refused = |text: &str| Err(CommandError::Refused(text.to_owned()));
        let (numbers, end, reset, status) = outcome;
        assert_eq!((numbers, end), (vec![0, 1, 2], Value::Null));
        assert_eq!((reset, status), (refused("no agent 7"), refused("the program is stopping")));
    }

    #[test]
    fn what_is_no_request_is_refused_and_a_client_that_only_looks_holds_up_nobody() {
        let lines = serving(|path| {
            let _idle: Vec<_> =
                (0..CLIENTS_MAX - 1).map(|_| net::UnixStream::connect(&path).unwrap()).collect();
            let mut stream = net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"command\":\"dance\"}\nno json\n{\"command\":\"agents\"}\n").unwrap();
            stream.write_all(&vec![b'x'; REQUEST_BYTES_MAX]).unwrap();
            let lines: Vec<String> = io::BufReader::new(&stream).lines().map(Result::unwrap).collect();
            lines
        });
        assert!(
            lines[0].starts_with("{\"refused\":\"no request that is known: unknown variant `dance`"),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("{\"refused\":\"no request that is known: expected"), "{lines:?}");
        assert_eq!(
            lines[2..6],
            [
                r#"{"item":{"number":0}}"#,
                r#"{"item":{"number":1}}"#,
                r#"{"item":{"number":2}}"#,
                r#"{"ok":null}"#
            ]
        );
        assert!(lines[6].starts_with("{\"refused\":\"a request is one line of at most"), "{lines:?}");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn the_socket_is_for_owner_and_group_and_takes_a_stale_ones_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("command");
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as after a kill");
        let server = CommandServer::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        drop(server);
        let nowhere = client::ask_at(&path, &Request::Status, drop);
        assert_eq!(nowhere, Err(CommandError::NotRunning { path: path.clone() }));
        let mut long = folder.path().to_owned();
        (0..12).for_each(|_| long.push("a_long_name"));
        assert!(CommandServer::bind(&long).is_err());
    }
}
