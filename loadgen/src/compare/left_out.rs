//! What a comparison had no time for, a line for each reason and not for each measurement.

/// What was left out: why, and for each point how often.
#[derive(Debug, Default)]
pub(super) struct LeftOut(Vec<(String, Vec<(String, u32)>)>);

impl LeftOut {
    /// One measurement of this point was left out.
    pub(super) fn note(&mut self, why: String, point: String) {
        let points = entry(&mut self.0, why);
        *entry(points, point) += 1;
    }

    /// In words, in the order in which it came.
    pub(super) fn lines(&self) -> Vec<String> {
        let times = |(point, times): &(String, u32)| match times {
            1 => point.clone(),
            more => format!("{point} ({more} turns)"),
        };
        let line = |(why, points): &(String, Vec<(String, u32)>)| {
            format!("{why}: {}", points.iter().map(times).collect::<Vec<_>>().join("; "))
        };
        self.0.iter().map(line).collect()
    }
}

/// The value of `key`, made if it is missing. A handful of keys, whose order is kept.
fn entry<V: Default>(list: &mut Vec<(String, V)>, key: String) -> &mut V {
    let at = list.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_reason() {
        let mut left_out = LeftOut::default();
        for (why, point) in [
            ("rate: no time", "tcp, 64"),
            ("half: no time", "udp, 1"),
            ("half: no time", "tcp, 1"),
            ("half: no time", "udp, 1"),
        ] {
            left_out.note(why.into(), point.into());
        }
        assert_eq!(left_out.lines(), ["rate: no time: tcp, 64", "half: no time: udp, 1 (2 turns); tcp, 1"]);
    }
}
