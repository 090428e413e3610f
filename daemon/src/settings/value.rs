//! Single values of the settings: parsed and in range, or refused with the cure.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which cores carry a shard. In the file: `"all"`, or a list of core numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cores {
    /// Every core that this process may run on.
    #[default]
    All,
    /// These, in this order, each once.
    List(Vec<usize>),
}

/// The command line's form: `all`, or numbers and ranges, as in `0,2-5`.
impl std::str::FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Cores, CoresError> {
        if text == "all" {
            return Ok(Cores::All);
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |digits: &str| digits.trim().parse::<usize>().ok().filter(|core| *core < CORES_MAX);
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cores.extend(first..=last),
                (Some(_) | None, Some(_) | None) => return Err(CoresError::NotACore(part.to_owned())),
            }
        }
        Cores::list(cores)
    }
}

impl Cores {
    /// A list of cores, each named once.
    ///
    /// # Errors
    /// When it is empty, or names a core twice or one beyond [`CORES_MAX`].
    pub fn list(cores: Vec<usize>) -> Result<Cores, CoresError> {
        if cores.is_empty() {
            return Err(CoresError::Empty);
        }
        for (index, core) in cores.iter().enumerate() {
            if *core >= CORES_MAX {
                return Err(CoresError::NotACore(core.to_string()));
            }
            if cores[..index].contains(core) {
                return Err(CoresError::Twice(*core));
            }
        }
        Ok(Cores::List(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => formatter.write_str("all"),
            Cores::List(cores) => {
                let numbers: Vec<String> = cores.iter().map(usize::to_string).collect();
                formatter.write_str(&numbers.join(","))
            }
        }
    }
}

/// Core numbers are below this: the width of the kernel's own `cpu_set_t`.
pub const CORES_MAX: usize = 1_024;

/// Why a list of cores is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CoresError {
    /// It names no core.
    Empty,
    /// This part is neither a core nor a range of cores.
    NotACore(String),
    /// This core is named more than once.
    Twice(usize),
}

impl std::error::Error for CoresError {}

impl fmt::Display for CoresError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoresError::Empty => write!(formatter, "an empty list of cores: name one, or say \"all\""),
            CoresError::NotACore(part) => {
                write!(formatter, "{part:?} is no core: use numbers below {CORES_MAX}, or \"all\"")
            }
            CoresError::Twice(core) => write!(formatter, "core {core} is named twice: name it once"),
        }
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cores::All => serializer.serialize_str("all"),
            Cores::List(cores) => cores.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cores, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "not cores: use \"all\" or a list as [0, 1]")]
        enum Form {
            Word(String),
            List(Vec<usize>),
        }
        match Form::deserialize(deserializer)? {
            Form::Word(word) => word.parse(),
            Form::List(cores) => Cores::list(cores),
        }
        .map_err(de::Error::custom)
    }
}

pub(super) fn within_u64<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u64, D::Error> {
    let value = i64::deserialize(deserializer)?;
    match u64::try_from(value) {
        Ok(value) if (MIN..=MAX).contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err(de::Error::custom(format!("{value} is out of range: use {MIN} to {MAX}"))),
    }
}

pub(super) fn within_u32<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u32, D::Error> {
    const { assert!(MAX <= u32::MAX as u64) };
    within_u64::<D, MIN, MAX>(deserializer).map(|value| u32::try_from(value).expect("MAX fits 32 bits"))
}

pub(super) fn within_u16<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u16, D::Error> {
    const { assert!(MAX <= u16::MAX as u64) };
    within_u64::<D, MIN, MAX>(deserializer).map(|value| u16::try_from(value).expect("MAX fits 16 bits"))
}

pub(super) fn power_of_two<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u16, D::Error> {
    const { assert!(MAX <= u16::MAX as u64) };
    let value = within_u64::<D, MIN, MAX>(deserializer)?;
    if !value.is_power_of_two() {
        return Err(de::Error::custom(format!(
            "{value} is no power of two: use {} or {}",
            value.next_power_of_two() / 2,
            value.next_power_of_two()
        )));
    }
    Ok(u16::try_from(value).expect("MAX fits 16 bits"))
}

pub(super) fn at_least_one_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.is_empty() {
        return Err(de::Error::custom("no address to listen on: name one, as \"[::]:1514\""));
    }
    texts.iter().map(|text| listen_address(text).map_err(de::Error::custom)).collect()
}

/// An address to listen on, as the file and `--listen` write it.
///
/// # Errors
/// When the text is no `address:port`; the message says the cure.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address and port: write 192.0.2.1:1514, or [::]:1514 for every address")
    })
}

pub(super) fn address_or_none_in<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        de::Error::custom(format!(
            "{text:?} is no address and port: write 127.0.0.1:9514, or \"none\" for no listener"
        ))
    })
}

pub(super) fn address_or_none_out<S: Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        None => serializer.serialize_str("none"),
        Some(address) => serializer.collect_str(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_of_the_command_line() {
        let check = |text: &str, expected: Result<Cores, CoresError>| {
            assert_eq!(text.parse::<Cores>(), expected, "{text}");
        };
        check("all", Ok(Cores::All));
        check("0", Ok(Cores::List(vec![0])));
        check("3,0-1", Ok(Cores::List(vec![3, 0, 1])));
        check("", Err(CoresError::NotACore(String::new())));
        check("2-1", Err(CoresError::NotACore("2-1".to_owned())));
        check("1,1", Err(CoresError::Twice(1)));
        check("1024", Err(CoresError::NotACore("1024".to_owned())));
        check("0-1023,7", Err(CoresError::Twice(7)));
    }
}
