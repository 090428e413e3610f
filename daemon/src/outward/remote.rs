//! `queue/sockets/remote`, as wazuh-remoted has it: requests to agents, and questions about the manager itself.
//!
//! One request a connection, in frames of a length (4 bytes, little-endian) and text. `<agent id> <target> <command>` goes to
//! the agent, and its answer comes back; what begins with `{` is for the manager.
//!
//! Source: wazuh v4.14.7 `remoted/remcom.c`, `remcom_main` and `remcom_dispatch`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::requests::OPEN_MAX;
use super::{Outward, OutwardError};

/// How long a client may take to say what it wants, and to read the answer.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(10);

/// The longest request and answer. Source: wazuh v4.14.7 `headers/defs.h`, `OS_MAXSTR`.
const FRAME_BYTES_MAX: u32 = 65_536;

/// Serves clients, until the runtime ends. One that is slow holds nobody up.
pub(super) async fn serve(outward: Rc<Outward>, listener: UnixListener) {
    let free = Arc::new(Semaphore::new(OPEN_MAX));
    loop {
        let permit = Arc::clone(&free).acquire_owned().await.expect("nobody closes the semaphore");
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let outward = Rc::clone(&outward);
        tokio_uring::spawn(async move {
            // A client that is gone has nobody to be told.
            let _ = serve_one(&outward, stream).await;
            drop(permit);
        });
    }
}

async fn serve_one(outward: &Outward, mut stream: UnixStream) -> io::Result<()> {
    let request = timeout(CLIENT_TIME_MAX, read_frame(&mut stream)).await??;
    let answer = match request.first() {
        None => return Ok(()),
        Some(b'{') => outward.about_the_manager(&request).to_string().into(),
        Some(_) => to_agent(outward, &request).await,
    };
    let length = u32::try_from(answer.len()).expect("an answer is a message or a page of text").to_le_bytes();
    let write = async {
        stream.write_all(&length).await?;
        stream.write_all(&answer).await
    };
    timeout(CLIENT_TIME_MAX, write).await?
}

async fn read_frame(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32_le().await?;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a request longer than any"));
    }
    let mut request = vec![0; length as usize];
    stream.read_exact(&mut request).await?;
    Ok(request)
}

/// Asks an agent, and waits for its answer or for the word that there is none.
async fn to_agent(outward: &Outward, request: &[u8]) -> bytes::Bytes {
    let space = request.iter().position(|byte| *byte == b' ').unwrap_or(request.len());
    let (agent, payload) = (&request[..space], &request[(space + 1).min(request.len())..]);
    let agent = String::from_utf8_lossy(agent);
    match outward.request(&agent, payload).await {
        Ok(answer) => answer,
        Err(OutwardError::Agent(_) | OutwardError::Text | OutwardError::Socket { .. }) => {
            bytes::Bytes::from_static(b"err Cannot send request")
        }
        Err(OutwardError::TooMuch) => bytes::Bytes::from_static(b"err Internal error"),
    }
}

impl Outward {
    /// The answer to a question about the manager.
    fn about_the_manager(&self, request: &[u8]) -> Value {
        let Ok(request) = serde_json::from_slice::<Value>(request) else {
            return answer(2, "Invalid JSON input", json!({}));
        };
        let parameters = request.get("parameters").filter(|parameters| parameters.is_object());
        match request.get("command").and_then(Value::as_str) {
            None => answer(3, "Empty command", json!({})),
            Some("getstats") => answer(0, "ok", self.stats()),
            Some("getagentsstats" | "getconfig") if parameters.is_none() => {
                answer(5, "Empty parameters", json!({}))
            }
            Some("getagentsstats") => self.agents_stats(parameters.expect("it was just looked at")),
            Some("getconfig") => match parameters.and_then(|parameters| parameters["section"].as_str()) {
                None => answer(6, "Empty section", json!({})),
                Some(_) => answer(7, "Unrecognized or not configured section", json!({})),
            },
            Some(_) => answer(4, "Unrecognized command", json!({})),
        }
    }
}

/// An answer of wazuh-remoted's form.
#[expect(clippy::needless_pass_by_value, reason = "it becomes a part of the answer")]
pub(super) fn answer(error: u8, message: &str, data: Value) -> Value {
    json!({ "error": error, "message": message, "data": data })
}
