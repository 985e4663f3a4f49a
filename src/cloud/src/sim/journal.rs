//! What a made-up cloud was asked, and what came of it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Calls that are remembered.
const MOST: usize = 200_000;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its number, from 1.
    pub number: u64,
    /// When it came, in ms since 1970.
    pub at: u64,
    /// Its method, as the guard names it.
    pub method: String,
    /// The cluster on whose behalf it was made.
    pub cluster: String,
    /// Tenure in which it was made; 0 in reads.
    pub epoch: u64,
    /// Its operation.
    pub op_id: String,
    /// What it is about: `namespace/name` of Services, names of Nodes, destinations of routes.
    pub subjects: Vec<String>,
    /// Whether the cloud was changed by it.
    pub changed: bool,
    /// `ok`, a [`CloudError::outcome`](crate::CloudError::outcome), or `abandoned` by who made it; `None` while it runs.
    pub outcome: Option<String>,
}

/// The latest calls.
#[derive(Debug, Default)]
pub(super) struct Journal {
    calls: VecDeque<Call>,
    last: u64,
}

impl Journal {
    /// Writes down that a call came, and returns its number.
    pub fn begin(&mut self, at: u64, method: &str, call: &crate::CallCtx, subjects: Vec<String>) -> u64 {
        self.last += 1;
        if self.calls.len() >= MOST {
            self.calls.pop_front();
        }
        let op_id = if call.op_id == Uuid::nil() { String::new() } else { call.op_id.to_string() };
        self.calls.push_back(Call {
            number: self.last,
            at,
            method: method.to_owned(),
            cluster: call.cluster.to_string(),
            epoch: call.lease_epoch,
            op_id,
            subjects,
            changed: false,
            outcome: None,
        });
        self.last
    }

    fn find(&mut self, number: u64) -> Option<&mut Call> {
        let first = self.calls.front()?.number;
        self.calls.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// Writes down that a call changed the cloud.
    pub fn changed(&mut self, number: u64) {
        if let Some(call) = self.find(number) {
            call.changed = true;
        }
    }

    /// Writes down what came of a call.
    pub fn end(&mut self, number: u64, outcome: &str) -> Option<Call> {
        let call = self.find(number)?;
        call.outcome.get_or_insert_with(|| outcome.to_owned());
        Some(call.clone())
    }

    /// The calls, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }

    /// Forgets all calls; numbers go on.
    pub fn clear(&mut self) {
        self.calls.clear();
    }
}
