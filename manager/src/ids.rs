//! From agents' ids to their places in the table.

use codec::AgentId;
use rustc_hash::FxHashMap;

/// Who has which id.
///
/// `manage_agents` counts ids up from `001` and writes at least three digits: such an id is a number, and finds its place
/// in a row of four bytes a number, which stays in the cache where a hash map of the same fleet does not.
#[derive(Debug, Default)]
pub(crate) struct IdIndex {
    /// The place of each usual id, by its number.
    by_number: Vec<u32>,
    /// Usual ids of this number and above are too far apart for a row.
    numbers_end: u32,
    /// Those, and the ids with zeros in front beyond the third digit or with fewer digits. A stranger can look ids up and
    /// never insert one, so a fast hash is safe here.
    others: FxHashMap<AgentId, u32>,
    length: usize,
}

/// What stands for "no agent" in the row: no place in a table, since a table has fewer agents.
const NOBODY: u32 = u32::MAX;

/// How many numbers the row may have for each agent, so that gaps in client.keys cost little and one id of eight digits
/// does not cost 400 MB.
const NUMBERS_PER_AGENT: usize = 8;
const NUMBERS_MIN: usize = 1_024;

impl IdIndex {
    /// An index for `agents` ids.
    pub(crate) fn with_room(agents: usize) -> IdIndex {
        let numbers_end = agents.saturating_mul(NUMBERS_PER_AGENT).max(NUMBERS_MIN);
        IdIndex { numbers_end: u32::try_from(numbers_end).unwrap_or(u32::MAX), ..IdIndex::default() }
    }

    /// Notes the place of an id, unless it has one; whether it had none.
    pub(crate) fn insert(&mut self, id: AgentId, place: u32) -> bool {
        assert_ne!(place, NOBODY, "a table has fewer agents than numbers");
        if self.find(id).is_some() {
            return false;
        }
        match self.number(id) {
            Some(number) => {
                if self.by_number.len() <= number {
                    self.by_number.resize(number + 1, NOBODY);
                }
                self.by_number[number] = place;
            }
            None => {
                self.others.insert(id, place);
            }
        }
        self.length += 1;
        true
    }

    /// The place of an id.
    #[inline]
    pub(crate) fn find(&self, id: AgentId) -> Option<u32> {
        match self.number(id) {
            Some(number) => self.by_number.get(number).copied().filter(|place| *place != NOBODY),
            None => self.others.get(&id).copied(),
        }
    }

    /// How many ids have a place.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// An id's number in the row. Each usual id has another one, and no other id has any.
    #[inline]
    fn number(&self, id: AgentId) -> Option<usize> {
        let number = id.number();
        (id.is_usual() && number < self.numbers_end).then_some(number as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_id_has_its_own_place() {
        let ids =
            ["000", "001", "1", "01", "0001", "00001", "999", "1000", "01000", "12345", "99999999", "8192"];
        let mut index = IdIndex::with_room(ids.len());
        let id = |text: &str| text.parse::<AgentId>().unwrap();
        for (place, text) in ids.iter().enumerate() {
            assert_eq!(index.find(id(text)), None, "{text}");
            assert!(index.insert(id(text), place as u32), "{text}");
            assert!(!index.insert(id(text), 77), "{text}");
        }
        for (place, text) in ids.iter().enumerate() {
            assert_eq!(index.find(id(text)), Some(place as u32), "{text}");
        }
        assert_eq!(index.len(), ids.len());
        for text in ["2", "002", "0000", "998", "1001", "99999998", "00000001"] {
            assert_eq!(index.find(id(text)), None, "{text}");
        }
        assert!(index.by_number.len() <= NUMBERS_MIN, "the row stays short: {}", index.by_number.len());
        assert_eq!(index.others.len(), 8, "the unusual and the far ones");
    }
}
