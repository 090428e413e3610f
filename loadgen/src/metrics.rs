//! What the embedded manager says of itself on /metrics, as far as losses go.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A manager that does not answer within this is not asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Far more than any exposition.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The samples of one exposition: series, with its labels, to value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition(Vec<Sample>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Exposition {
    /// Asks a manager.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn fetch(address: SocketAddr) -> io::Result<Exposition> {
        let mut connection = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(Exposition::parse(&String::from_utf8_lossy(&answer)))
    }

    /// Reads the lines that are samples; everything else, HTTP headers too, is passed over.
    pub fn parse(text: &str) -> Exposition {
        let sample = |line: &str| {
            let (series, value) = line.trim_end().rsplit_once(' ')?;
            let value = value.parse().ok()?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            (is_name && !line.starts_with('#')).then(|| Sample {
                name: name.into(),
                labels: labels.trim_end_matches('}').into(),
                value,
            })
        };
        Exposition(text.lines().filter_map(sample).collect())
    }

    /// The sum of a series over all its labels.
    pub fn sum(&self, name: &str) -> u64 {
        self.of(name).map(|sample| sample.value as u64).sum()
    }

    /// The sum of a series for each value of one label.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name) {
            let value = sample.labels.split(',').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                (key == label).then(|| value.trim_matches('"').to_owned())
            });
            *sums.entry(value.unwrap_or_default()).or_insert(0) += sample.value as u64;
        }
        sums
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n# HELP dropped x\n# TYPE dropped counter\n\
        dropped_total{shard=\"0\",reason=\"replayed\"} 3\ndropped_total{shard=\"1\",reason=\"replayed\"} 4\n\
        dropped_total{shard=\"0\",reason=\"kernel\"} 1\nup 1\n# EOF\n";

    #[test]
    fn samples_are_summed_whole_and_by_label() {
        let exposition = Exposition::parse(TEXT);
        assert_eq!(
            (exposition.sum("dropped_total"), exposition.sum("up"), exposition.sum("none")),
            (8, 1, 0)
        );
        let by_reason = exposition.by_label("dropped_total", "reason");
        assert_eq!(by_reason, BTreeMap::from([("replayed".into(), 7), ("kernel".into(), 1)]));
    }

    #[test]
    fn an_answer_is_fetched_over_http() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /metrics "));
            connection.write_all(TEXT.as_bytes()).unwrap();
        });
        assert_eq!(Exposition::fetch(address).unwrap(), Exposition::parse(TEXT));
        server.join().unwrap();
        assert!(Exposition::fetch(address).is_err());
    }
}
