//! `/metrics` and `/readyz` over HTTP: few connections, short ones, and nothing a scraper can hold up.

use std::{
    cell::Cell, convert::Infallible, future::Future, io, net::TcpListener, rc::Rc, sync::Arc, time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net, sync::Semaphore, time};

use crate::{
    clock::Clock,
    exposition::{CONTENT_TYPE, Exposition},
    metrics::ShardMetrics,
    readiness::{NotReady, readiness},
};

/// Connections served at a time; the next ones wait in the kernel.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What the program shows of itself.
#[derive(Debug)]
pub struct Face {
    clock: Clock,
    shards: Vec<Arc<ShardMetrics>>,
    exposition: Exposition,
    stopping: Cell<bool>,
}

impl Face {
    /// What these shards and this exposition say.
    pub fn new(clock: Clock, shards: Vec<Arc<ShardMetrics>>, exposition: Exposition) -> Face {
        Face { clock, shards, exposition, stopping: Cell::new(false) }
    }

    /// From now on it is not ready any more.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    fn readiness(&self) -> Result<(), NotReady> {
        if self.stopping.get() {
            Err(NotReady::Stopping)
        } else {
            readiness(self.clock.nanoseconds(), &self.shards)
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if *method != Method::GET && *method != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
        }
        match path {
            "/metrics" => {
                let mut response = Response::new(Full::new(Bytes::from(self.exposition.text())));
                let kind = header::HeaderValue::from_static(CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            "/readyz" => match self.readiness() {
                Ok(()) => plain(StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            _ => plain(StatusCode::NOT_FOUND, "/metrics or /readyz\n".to_owned()),
        }
    }
}

/// Serves `face` on `listener`, in the runtime of this thread.
///
/// # Errors
/// When the listener can't be given to the runtime.
pub(super) fn serve(listener: TcpListener, face: Rc<Face>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = net::TcpListener::from_std(listener)?;
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio_uring::spawn(async move {
        loop {
            let permit = Arc::clone(&free).acquire_owned().await.expect("nobody closes the semaphore");
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: the agents come first.
                time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let connection = connection(stream, Rc::clone(&face));
            tokio_uring::spawn(async move {
                // A client that is late or gone has nobody to be told.
                let _ = time::timeout(CONNECTION_TIMEOUT, connection).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

fn connection(stream: net::TcpStream, face: Rc<Face>) -> impl Future<Output = hyper::Result<()>> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = face.answer(request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::ControlMetrics;

    #[test]
    fn answers() {
        let shards = vec![Arc::new(ShardMetrics::default())];
        let clock = Clock::start();
        let exposition = Exposition::new(clock, shards.clone(), Arc::new(ControlMetrics::default()));
        let face = Face::new(clock, shards.clone(), exposition);
        let check = |method: Method, path: &str, expected: u16| {
            assert_eq!(face.answer(&method, path).status().as_u16(), expected, "{method} {path}");
        };
        check(Method::GET, "/readyz", 503);
        shards[0].heartbeat_nanoseconds.set(clock.nanoseconds());
        check(Method::GET, "/readyz", 200);
        check(Method::HEAD, "/metrics", 200);
        check(Method::GET, "/metrics", 200);
        check(Method::POST, "/metrics", 405);
        check(Method::GET, "/", 404);
        face.stop();
        check(Method::GET, "/readyz", 503);
    }
}
