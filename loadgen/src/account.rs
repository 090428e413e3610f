//! The account of one leg: what the generators took from the plan, and what the kernel made of it.

use hdrhistogram::Histogram;

use crate::tally::nanoseconds_histogram;

/// What one generator, or all together, did in a leg.
#[derive(Debug)]
pub struct Account {
    /// Events that were due.
    pub due: u64,
    /// Of these, those of agents that speak TCP.
    pub due_tcp: u64,
    /// Events whose bytes the kernel took, at least in part.
    pub taken: u64,
    /// Events that the kernel refused.
    pub refused: u64,
    /// How late writes were taken from the plan, nanoseconds.
    pub lateness: Histogram<u64>,
    /// Acknowledgements, of start-ups and keep-alives, since the fleet was started.
    pub acknowledgements: u64,
}

impl Default for Account {
    fn default() -> Account {
        Account {
            due: 0,
            due_tcp: 0,
            taken: 0,
            refused: 0,
            lateness: nanoseconds_histogram(),
            acknowledgements: 0,
        }
    }
}

impl Account {
    /// Both together.
    ///
    /// # Panics
    /// Never: all histograms have the same bounds.
    #[must_use]
    pub fn plus(mut self, other: &Account) -> Account {
        self.due += other.due;
        self.due_tcp += other.due_tcp;
        self.taken += other.taken;
        self.refused += other.refused;
        self.acknowledgements += other.acknowledgements;
        self.lateness.add(&other.lateness).expect("both histograms have the same bounds");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_add_up() {
        let account = |number: u64| {
            let mut account = Account {
                due: number,
                due_tcp: 2 * number,
                taken: 3 * number,
                refused: 4 * number,
                acknowledgements: 5 * number,
                ..Account::default()
            };
            account.lateness.record(number).unwrap();
            account
        };
        let sum = [account(1), account(10)].iter().fold(Account::default(), Account::plus);
        assert_eq!(
            (sum.due, sum.due_tcp, sum.taken, sum.refused, sum.acknowledgements),
            (11, 22, 33, 44, 55)
        );
        assert_eq!((sum.lateness.len(), sum.lateness.max()), (2, 10));
    }
}
