//! What goes in and out of the state machine, and its phases.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    clock::BootInstant,
    epoch::EpochToken,
    lease_api::{LeaseError, LeaseSight},
    record::{Change, LeaseView, Record},
};

/// Tells requests apart.
pub type RequestId = u64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time went on.
    Tick,
    /// The watch said something.
    Seen(LeaseSight),
    /// A request ended. One that gets no answer within its time ends as [`LeaseError::Unknown`].
    Answered(RequestId, Answer),
    /// The fence was looked at, on behalf of the tenure `token`.
    FenceJudged {
        /// The tenure the judgement is for.
        token: EpochToken,
        /// Whether that tenure may begin, or go on.
        may_lead: bool,
    },
    /// The server refused a write as being of a past epoch: look at the Lease now.
    Doubt,
    /// The workers of the last tenure are joined, and no write of theirs can land any more.
    WorkersJoined,
    /// The process ends.
    Stop,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Of [`Request::Get`].
    Got(Result<Option<LeaseView>, LeaseError>),
    /// Of [`Request::Create`] and [`Request::Replace`].
    Wrote(Result<LeaseView, LeaseError>),
}

impl Answer {
    pub(super) fn error(&self) -> Option<&LeaseError> {
        match self {
            Self::Got(answer) => answer.as_ref().err(),
            Self::Wrote(answer) => answer.as_ref().err(),
        }
    }
}

/// What to ask the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read the Lease.
    Get,
    /// Create the Lease with [`Record::first`].
    Create {
        /// Our name in the Lease.
        identity: Arc<str>,
        /// The lease duration.
        duration_seconds: i32,
    },
    /// Replace `base` with [`Record::next`].
    Replace {
        /// The Lease as it must still be.
        base: LeaseView,
        /// What to make of it.
        change: Change,
        /// Our name in the Lease.
        identity: Arc<str>,
        /// The lease duration.
        duration_seconds: i32,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a request, at once, and give up any other that is still under way.
    Ask {
        /// Goes into [`Event::Answered`].
        id: RequestId,
        /// What to ask.
        request: Request,
        /// How long to wait for the answer.
        within: Duration,
    },
    /// Look whether the fence works for this token, and answer with [`Event::FenceJudged`].
    ProveFence {
        /// The token of the new tenure.
        token: EpochToken,
    },
    /// Open the gate and announce the tenure.
    Lead {
        /// The token of the tenure.
        token: EpochToken,
        /// The resourceVersion of the write that began it; 0 if the server's are no numbers.
        lease_version: u64,
        /// By when every write must have ended, until [`Action::Extend`].
        deadline: BootInstant,
    },
    /// Move the gate's deadline on.
    Extend {
        /// By when every write must have ended.
        deadline: BootInstant,
    },
    /// Shut the gate at once, then announce the end of the tenure, so that workers are cancelled and joined;
    /// [`Event::WorkersJoined`] says when that is done.
    StandDown {
        /// Why.
        loss: Loss,
    },
    /// The election has ended.
    Finish,
}

/// Why a tenure ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The process ends.
    Stopped,
    /// No renewal went through in time.
    NotRenewed,
    /// The Lease names another tenure.
    Taken {
        /// Whose; empty if nobody's.
        holder: Arc<str>,
    },
    /// The Lease was deleted, or deleted and created anew.
    Deleted,
    /// The fence does not work, and it is required.
    FenceNotProven,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the process is stopping"),
            Self::NotRenewed => f.write_str("the lease could not be renewed in time"),
            Self::Taken { holder } if holder.is_empty() => f.write_str("the lease was released by somebody else"),
            Self::Taken { holder } => write!(f, "the lease was taken by {holder}"),
            Self::Deleted => f.write_str("the lease was deleted"),
            Self::FenceNotProven => f.write_str("the fence is required and could not be proven"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Somebody else's lease, or nobody's.
    Following,
    /// The lease is ours.
    Holding(Holding),
    /// It was; workers are being joined.
    Draining(Draining),
    /// Workers are joined; giving the lease back.
    Releasing(Releasing),
    /// Over.
    Finished,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Holding {
    /// The Lease as we last wrote or read it.
    pub(super) lease: LeaseView,
    pub(super) token: EpochToken,
    /// The version of the write that began the tenure.
    pub(super) first_version: u64,
    /// When the last successful renewal was sent.
    pub(super) renewed: BootInstant,
    /// When the present or last try began, and when the next one begins.
    pub(super) try_began: BootInstant,
    pub(super) next_try: BootInstant,
    /// Whether workers were told to begin.
    pub(super) announced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Draining {
    /// Whether to give the lease back afterwards.
    pub(super) release: bool,
    /// The Lease as it is, if no write of ours was under way when the tenure ended.
    pub(super) lease: Option<LeaseView>,
    /// Until when nobody else can have held the Lease after us.
    pub(super) ours_until: BootInstant,
    /// On a stop: when to release even though a worker would not join. All its writes have ended by then.
    pub(super) give_up: Option<BootInstant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Releasing {
    /// When to give up.
    pub(super) until: BootInstant,
    /// When to try again, if nothing is under way.
    pub(super) next_try: BootInstant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) id: RequestId,
    pub(super) purpose: Purpose,
    /// When it was asked for: never after it was sent.
    pub(super) sent: BootInstant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Following: see how the Lease is.
    Look,
    /// Following: create or replace it in our name.
    Take,
    /// Holding: renew upon what we last knew.
    Renew,
    /// Holding: that failed; read the Lease, and be done with both steps by `until`.
    SlowRead { until: BootInstant },
    /// Holding: renew upon what was read.
    SlowRenew,
    /// Leaving: read the Lease.
    ReleaseRead,
    /// Leaving: give it back.
    Release,
}

impl Request {
    /// The record that a create or replace writes, at the wall time `wall`; [`None`] for a read.
    pub fn record(&self, wall: jiff::Timestamp) -> Option<Record> {
        match self {
            Self::Get => None,
            Self::Create { identity, duration_seconds } => Some(Record::first(identity, *duration_seconds, wall)),
            Self::Replace { base, change, identity, duration_seconds } => {
                Some(base.record.next(*change, identity, *duration_seconds, wall))
            }
        }
    }
}
