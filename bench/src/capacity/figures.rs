//! What criterion reported: for each bench, nanoseconds of one element.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Folders below a report's root that are looked at: group, function, value and `new`.
const DEPTH_MAX: usize = 5;

/// The time of one element (message, event, agent) of a bench, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The median of the samples.
    pub ns: f64,
    /// The lower end of the median's confidence interval.
    pub low_ns: f64,
    /// The upper end.
    pub high_ns: f64,
}

/// The figures of a machine, by the bench's whole name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(BTreeMap<String, Figure>);

/// Why reports can't be read.
#[derive(Debug)]
pub enum FiguresError {
    /// A folder or file can't be read.
    Io(PathBuf, std::io::Error),
    /// A file is not what criterion writes.
    Json(PathBuf, serde_json::Error),
}

impl Figures {
    /// The reports below a folder: `target/criterion`, or a copy of it.
    ///
    /// # Errors
    /// If the folder or one of its reports can't be read.
    pub fn read(folder: &Path) -> Result<Figures, FiguresError> {
        let mut figures = Figures::default();
        figures.read_below(folder, DEPTH_MAX)?;
        Ok(figures)
    }

    /// The figure of a bench.
    pub fn of(&self, bench: &str) -> Option<Figure> {
        self.0.get(bench).copied()
    }

    fn read_below(&mut self, folder: &Path, depth: usize) -> Result<(), FiguresError> {
        let failed = |error| FiguresError::Io(folder.to_owned(), error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && depth > 0 {
                self.read_below(&path, depth - 1)?;
            }
        }
        // `base` is an earlier run, `change` the comparison of the two.
        if folder.ends_with("new") && folder.join("benchmark.json").exists() {
            let Benchmark { full_id, throughput } = json(&folder.join("benchmark.json"))?;
            let Estimates { median } = json(&folder.join("estimates.json"))?;
            let elements = throughput.and_then(|throughput| throughput.elements).unwrap_or(1) as f64;
            let Interval { lower_bound, upper_bound } = median.confidence_interval;
            let [ns, low_ns, high_ns] =
                [median.point_estimate, lower_bound, upper_bound].map(|time| time / elements);
            self.0.insert(full_id, Figure { ns, low_ns, high_ns });
        }
        Ok(())
    }
}

impl FromIterator<(String, Figure)> for Figures {
    fn from_iter<Pairs: IntoIterator<Item = (String, Figure)>>(pairs: Pairs) -> Figures {
        Figures(pairs.into_iter().collect())
    }
}

impl fmt::Display for FiguresError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FiguresError::Io(path, error) => {
                write!(formatter, "{}: {error}: name a folder of criterion's reports", path.display())
            }
            FiguresError::Json(path, error) => {
                write!(formatter, "{}: {error}: run the bench again", path.display())
            }
        }
    }
}

impl std::error::Error for FiguresError {}

/// What is needed of criterion's `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Elements")]
    elements: Option<u64>,
}

/// What is needed of criterion's `estimates.json`; times are in nanoseconds of an iteration.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

fn json<Value: for<'de> Deserialize<'de>>(path: &Path) -> Result<Value, FiguresError> {
    let text = fs::read(path).map_err(|error| FiguresError::Io(path.to_owned(), error))?;
    serde_json::from_slice(&text).map_err(|error| FiguresError::Json(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(folder: &Path, name: &str, id: &str, throughput: &str, median: f64) {
        let new = folder.join(name).join("new");
        fs::create_dir_all(&new).unwrap();
        let benchmark = format!(r#"{{"group_id":"g","full_id":"{id}","throughput":{throughput}}}"#);
        fs::write(new.join("benchmark.json"), benchmark).unwrap();
        let interval = format!(r#"{{"confidence_level":0.95,"lower_bound":{median},"upper_bound":1280.0}}"#);
        let estimate = format!(r#"{{"confidence_interval":{interval},"point_estimate":{median}}}"#);
        let estimates = format!(r#"{{"mean":{estimate},"median":{estimate}}}"#);
        fs::write(new.join("estimates.json"), estimates).unwrap();
    }

    #[test]
    fn reports_are_read_by_their_whole_names_and_divided_by_their_elements() {
        let folder = tempfile::tempdir().unwrap();
        report(folder.path(), "codec_open_x/200", "codec/open/x/200", r#"{"Elements":64}"#, 640.0);
        report(folder.path(), "other/600", "other/600", "null", 7.0);
        let earlier = folder.path().join("other/600/base");
        fs::create_dir_all(&earlier).unwrap();
        fs::write(earlier.join("benchmark.json"), "not read").unwrap();
        let figures = Figures::read(folder.path()).unwrap();
        assert_eq!(figures.of("codec/open/x/200"), Some(Figure { ns: 10.0, low_ns: 10.0, high_ns: 20.0 }));
        assert_eq!(figures.of("other/600").map(|figure| figure.ns), Some(7.0));
        assert_eq!(figures.of("nobody"), None);
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let absent = Figures::read(&folder.path().join("absent")).unwrap_err();
        assert!(absent.to_string().contains("absent"));
        report(folder.path(), "a/200", "a/200", "null", 1.0);
        fs::write(folder.path().join("a/200/new/estimates.json"), "{}").unwrap();
        let broken = Figures::read(folder.path()).unwrap_err();
        assert!(broken.to_string().contains("estimates.json"), "{broken}");
    }
}
