//! The laws, and what breaks them.

use std::collections::HashMap;
use std::fmt;

use super::history::{History, Tenure, Write};

/// What is demanded of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Nothing of a tenure lands after the next one began. Holds wherever no process is paused, by the gate; and with pauses
    /// too where the fence stands.
    NothingLate,
    /// What lands late changes no object that a later tenure wrote. Holds always, by preconditions.
    NothingUndone,
}

/// A write that a law forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It landed after a later tenure had begun.
    Late {
        /// The write.
        write: Write,
        /// The tenure that had begun.
        successor: Tenure,
    },
    /// It landed late, on an object that a later tenure had written.
    Undid {
        /// The write.
        write: Write,
        /// What the later tenure had written.
        earlier: Write,
    },
    /// Its sender had never held the Lease, or its token is no tenure's.
    Stranger {
        /// The write.
        write: Write,
    },
}

/// Everything in a history that breaks a law.
pub fn check(history: &History, law: Law) -> Vec<Violation> {
    let mut violations = Vec::new();
    // The newest tenure that has written each object so far.
    let mut written: HashMap<&str, (usize, &Write)> = HashMap::new();
    for write in &history.writes {
        let Some(tenure) = history.tenure_of(write) else {
            violations.push(Violation::Stranger { write: write.clone() });
            continue;
        };
        let holder = history.tenure_at(write.version).unwrap_or(tenure);
        if holder > tenure && law == Law::NothingLate {
            let successor = history.tenures[holder].clone();
            violations.push(Violation::Late { write: write.clone(), successor });
        }
        match written.get(write.uid.as_str()) {
            Some((newer, earlier)) if *newer > tenure => {
                if law == Law::NothingUndone {
                    violations.push(Violation::Undid { write: write.clone(), earlier: (*earlier).clone() });
                }
            }
            _ => drop(written.insert(&write.uid, (tenure, write))),
        }
    }
    violations
}

/// The writes that carry no token though they could.
pub fn unfenced(history: &History) -> Vec<&Write> {
    history.writes.iter().filter(|write| write.token.is_none() && !write.own_name).collect()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late { write, successor } => write!(f, "late: {write}; but {successor}"),
            Self::Undid { write, earlier } => write!(f, "undid: {write}; but {earlier}"),
            Self::Stranger { write } => write!(f, "stranger: {write}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verb;
    use super::*;

    /// Three tenures, of a, b and a again, that begin at 10, 20 and 30.
    fn history(writes: &[Write]) -> History {
        let tenure = |number: u64, replica: &str| Tenure {
            token: format!("uid/{number}"),
            began: number * 10,
            replica: replica.to_owned(),
        };
        History {
            tenures: vec![tenure(1, "a"), tenure(2, "b"), tenure(3, "a")],
            writes: writes.to_vec(),
            orphans: vec![],
        }
    }

    fn write(version: u64, replica: &str, token: Option<u64>, uid: &str) -> Write {
        Write {
            version,
            replica: replica.to_owned(),
            token: token.map(|number| format!("uid/{number}")),
            own_name: false,
            object: format!("endpointslices x/{uid}"),
            uid: uid.to_owned(),
            verb: Verb::Update,
        }
    }

    fn kinds(writes: &[Write], law: Law) -> Vec<(&'static str, u64)> {
        let name = |violation: &Violation| match violation {
            Violation::Late { write, .. } => ("late", write.version),
            Violation::Undid { write, .. } => ("undid", write.version),
            Violation::Stranger { write } => ("stranger", write.version),
        };
        check(&history(writes), law).iter().map(name).collect()
    }

    #[test]
    fn writes_in_their_own_tenure_break_nothing() {
        let writes = [write(11, "a", Some(1), "x"), write(21, "b", None, "x"), write(31, "a", None, "x")];
        assert_eq!(kinds(&writes, Law::NothingLate), []);
        assert_eq!(kinds(&writes, Law::NothingUndone), []);
        assert_eq!(history(&writes).working_tenures(), 3);
    }

    #[test]
    fn a_write_after_the_next_tenure_began_is_late_whether_or_not_that_wrote() {
        for token in [Some(1), None] {
            let writes = [write(11, "a", token, "x"), write(21, "a", token, "x")];
            assert_eq!(kinds(&writes, Law::NothingLate), [("late", 21)]);
            assert_eq!(kinds(&writes, Law::NothingUndone), []);
        }
    }

    #[test]
    fn a_token_tells_an_old_tenure_of_the_present_holder() {
        let writes = [write(31, "a", Some(1), "x")];
        assert_eq!(kinds(&writes, Law::NothingLate), [("late", 31)]);
    }

    #[test]
    fn a_late_write_on_what_a_later_tenure_wrote_undoes_it() {
        let other = [write(21, "b", None, "y"), write(22, "a", None, "x")];
        assert_eq!(kinds(&other, Law::NothingUndone), []);
        let same = [write(21, "b", None, "x"), write(22, "a", None, "x"), write(23, "a", None, "x")];
        assert_eq!(kinds(&same, Law::NothingUndone), [("undid", 22), ("undid", 23)]);
        let repaired = [write(21, "b", None, "x"), write(22, "a", None, "x"), write(23, "b", None, "x")];
        assert_eq!(kinds(&repaired, Law::NothingUndone), [("undid", 22)]);
    }

    #[test]
    fn who_never_led_is_a_stranger() {
        let writes = [write(9, "a", None, "x"), write(15, "c", None, "x"), write(16, "a", Some(7), "x")];
        let strangers = [("stranger", 9), ("stranger", 15), ("stranger", 16)];
        assert_eq!(kinds(&writes, Law::NothingLate), strangers);
        assert_eq!(kinds(&writes, Law::NothingUndone), strangers);
    }

    #[test]
    fn a_token_is_missed_only_where_it_could_have_been_sent() {
        let own = Write { own_name: true, ..write(12, "a", None, "event") };
        let history = history(&[write(11, "a", Some(1), "x"), own, write(13, "a", None, "y")]);
        assert_eq!(unfenced(&history).iter().map(|write| write.version).collect::<Vec<_>>(), [13]);
    }

    #[test]
    fn the_past_of_a_history_ends_where_it_is_cut() {
        let history = history(&[write(11, "a", None, "x"), write(21, "a", None, "x")]);
        let past = history.until(20);
        assert_eq!((past.tenures.len(), past.writes.len()), (2, 1));
        assert_eq!(check(&past, Law::NothingLate), []);
    }
}
