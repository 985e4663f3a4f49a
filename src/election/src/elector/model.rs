//! The real elector and the real gate under a model checker: three nodes, one server, and every order in which answers,
//! pauses, partitions, stops and deletions can fall, a few of them at a time.
//!
//! Time goes in half seconds, of which every duration of a 4 s lease is a multiple. Without a fault every request is answered
//! at once; a fault is one of [`Act`]'s that cost one of the budget. A write may be started at any moment by any node whose
//! workers run; it can land until twice its timeout after it was admitted, and at any later time if it was paused between
//! gate and wire. Safety is a little stronger than "not after the later epoch's first write": nothing of an epoch lands once
//! somebody leads in a later one.

use std::{sync::Arc, time::Duration};

use stateright::{Model, Property};

use super::*;
use crate::{
    clock::{Clock as _, ManualClock},
    epoch::{Epoch, EpochToken},
    gate::Gate,
};

mod checks;

const UNIT: Duration = Duration::from_millis(500);
/// Until when the first fault falls, or none does.
const FIRST_FAULT_BY: u64 = 1;
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone, Copy)]
struct Deck {
    nodes: usize,
    horizon: u64,
    faults: u8,
    bugs: Bugs,
    gate_off: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u64,
    faults: u8,
    server: Server,
    nodes: Vec<Node>,
    /// The one write of the run, once it was admitted.
    write: Option<Write>,
    write_used: bool,
    clobbered: bool,
    fence_failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Server {
    lease: Option<LeaseView>,
    version: u64,
    uids: u64,
    /// Every epoch there was, in order.
    epochs: Vec<EpochToken>,
    /// The place among them of the latest one in which somebody led.
    led: usize,
    /// Requests whose sender has given up on them.
    orphans: Vec<(usize, Request)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    elector: Elector,
    request: Option<Sent>,
    /// The open gate: token and deadline.
    gate: Option<(EpochToken, BootInstant)>,
    working: bool,
    draining: bool,
    paused: bool,
    partitioned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sent {
    id: RequestId,
    request: Request,
    until: u64,
    slow: bool,
    answer: Option<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Write {
    node: usize,
    token: EpochToken,
    end: u64,
    paused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Act {
    Advance,
    Tick(usize),
    Exchange(usize),
    Commit(usize),
    Answer(usize),
    GiveUp(usize),
    CommitOrphan(usize),
    Join(usize),
    StartWrite(usize),
    LandWrite,
    Resume(usize),
    // From here on: faults.
    Slow(usize),
    Partition(usize),
    Pause(usize),
    PauseWrite,
    Stop(usize),
    DeleteLease,
}

fn timing() -> Timing {
    Timing::new(UNIT * 8, UNIT * 6, UNIT).expect("fits")
}

fn at(units: u64) -> BootInstant {
    BootInstant::default() + Duration::from_secs(1000) + UNIT * u32::try_from(units).expect("small")
}

impl State {
    fn now(&self) -> BootInstant {
        at(self.now)
    }

    fn step(&mut self, i: usize, event: Event) {
        let now = self.now();
        for action in self.nodes[i].elector.step(now, event) {
            let node = &mut self.nodes[i];
            match action {
                Action::Ask { id, request, within } => {
                    self.abandon(i);
                    let until = self.now + u64::try_from(within.as_nanos().div_ceil(UNIT.as_nanos())).expect("small");
                    let sent = Sent { id, request, until, slow: false, answer: None };
                    self.nodes[i].request = Some(sent);
                }
                Action::ProveFence { token } => self.step(i, Event::FenceJudged { token, may_lead: true }),
                Action::Lead { token, deadline, .. } => {
                    let place = self.server.epochs.iter().position(|epoch| *epoch == token);
                    self.server.led = self.server.led.max(place.expect("was written"));
                    node.gate = Some((token, deadline));
                    node.working = true;
                }
                Action::Extend { deadline } => {
                    if let Some((_, until)) = &mut node.gate {
                        *until = deadline.max(*until);
                    }
                }
                Action::StandDown { .. } => {
                    node.gate = None;
                    node.working = false;
                    node.draining = true;
                }
                Action::Finish => node.draining = false,
            }
        }
    }

    /// The node no longer waits for its request, which may still reach the server.
    fn abandon(&mut self, i: usize) {
        let Some(sent) = self.nodes[i].request.take() else {
            return;
        };
        if sent.answer.is_none() && !self.nodes[i].partitioned && !matches!(sent.request, Request::Get) {
            self.server.orphans.push((i, sent.request));
        }
    }

    fn execute(&mut self, request: &Request) -> Answer {
        let wall = ManualClock::at(self.now()).wall();
        let server = &mut self.server;
        let record = request.record(wall);
        let answer = match (request, record) {
            (Request::Get, _) => return Answer::Got(Ok(server.lease.clone())),
            (Request::Create { .. }, Some(record)) if server.lease.is_none() => {
                server.uids += 1;
                Ok((server.uids.to_string().into(), record))
            }
            (Request::Replace { base, .. }, Some(record)) => match &server.lease {
                Some(lease) if lease.uid == base.uid && lease.version == base.version => Ok((base.uid.clone(), record)),
                Some(_) => Err(LeaseError::Conflict),
                None => Err(LeaseError::NotFound),
            },
            _ => Err(LeaseError::Conflict),
        };
        Answer::Wrote(answer.map(|(uid, record)| {
            server.version += 1;
            let version = server.version.to_string().into();
            let lease = LeaseView { uid, version, record, metadata: Arc::default() };
            let token = lease.token();
            if !lease.record.is_free() && server.epochs.last() != Some(&token) {
                assert!(!server.epochs.contains(&token), "an epoch came back: {token}");
                server.epochs.push(token);
            }
            server.lease = Some(lease.clone());
            lease
        }))
    }

    /// Watches deliver at once to whoever can hear.
    fn announce(&mut self) {
        let sight = match &self.server.lease {
            Some(lease) => LeaseSight::Is(lease.clone()),
            None => LeaseSight::Gone(Some(self.server.version)),
        };
        for i in 0..self.nodes.len() {
            if !self.nodes[i].paused && !self.nodes[i].partitioned {
                self.step(i, Event::Seen(sight.clone()));
            }
        }
    }

    fn execute_and_announce(&mut self, request: &Request) -> Answer {
        let before = self.server.version;
        let answer = self.execute(request);
        if self.server.version != before {
            self.announce();
        }
        answer
    }

    /// The write may still land.
    fn write_in_flight(&self, i: usize) -> bool {
        self.write.as_ref().is_some_and(|write| write.node == i && self.now < write.end)
    }
}

impl Deck {
    fn admits(&self, state: &State, i: usize) -> Option<EpochToken> {
        let node = &state.nodes[i];
        let (token, deadline) = node.gate.as_ref()?;
        if self.gate_off {
            return Some(token.clone());
        }
        let (gate, keeper) = Gate::new(timing(), Arc::new(ManualClock::at(state.now())));
        keeper.open(Epoch::new("deck", token.clone()), *deadline, true);
        let permit = gate.admit(timing().write_timeout()).ok()?;
        permit.token().cloned()
    }

    /// What happens before time goes on. Timers, reads and failures go node by node, as their order among nodes changes
    /// nothing; writes race.
    fn urgent(state: &State, actions: &mut Vec<Act>) -> bool {
        for (i, node) in state.nodes.iter().enumerate() {
            if Self::tick_due(state, i) {
                actions.push(Act::Tick(i));
                return true;
            }
            let Some(sent) = &node.request else { continue };
            if !node.paused && state.now >= sent.until {
                if sent.answer.is_some() && !node.partitioned {
                    actions.push(Act::Answer(i));
                }
                actions.push(Act::GiveUp(i));
                return true;
            }
            if matches!(sent.request, Request::Get) && !sent.slow && !node.partitioned && !node.paused {
                actions.push(Act::Exchange(i));
                return true;
            }
        }
        let mut urgent = false;
        for (i, node) in state.nodes.iter().enumerate() {
            if let Some(sent) = &node.request
                && !sent.slow
                && !node.partitioned
                && !node.paused
            {
                actions.push(Act::Exchange(i));
                if state.faults > 0 {
                    actions.push(Act::Slow(i));
                    actions.push(Act::Partition(i));
                }
                urgent = true;
            }
        }
        urgent
    }

    fn tick_due(state: &State, i: usize) -> bool {
        let node = &state.nodes[i];
        !node.paused && node.elector.next_wake().is_some_and(|wake| wake <= state.now())
    }
}

impl Model for Deck {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let node = |i: usize| {
            let mut elector = Elector::new(NAMES[i], timing());
            elector.bugs = self.bugs;
            Node {
                elector,
                request: None,
                gate: None,
                working: false,
                draining: false,
                paused: false,
                partitioned: false,
            }
        };
        let mut state = State {
            now: 0,
            faults: self.faults,
            server: Server::default(),
            nodes: (0..self.nodes).map(node).collect(),
            write: None,
            write_used: false,
            clobbered: false,
            fence_failed: false,
        };
        // The first node finds no lease and creates it; the others come after that.
        for act in [Act::Tick(0), Act::Exchange(0), Act::Exchange(0)] {
            state = self.next_state(&state, act).expect("possible");
        }
        assert!(state.nodes[0].working);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Act>) {
        let write_is_over = state.write_used && state.write.is_none();
        if state.clobbered || state.fence_failed || write_is_over {
            // Nothing more can land; what else there is to see, the runs without this write show.
            return;
        }
        if let Some(write) = &state.write {
            actions.push(Act::LandWrite);
            if !write.paused && state.faults > 0 {
                actions.push(Act::PauseWrite);
            }
        }
        for (i, node) in state.nodes.iter().enumerate() {
            if node.working && !node.paused && !state.write_used {
                actions.push(Act::StartWrite(i));
            }
        }
        if Self::urgent(state, actions) {
            return;
        }
        for k in 0..state.server.orphans.len() {
            actions.push(Act::CommitOrphan(k));
        }
        for (i, node) in state.nodes.iter().enumerate() {
            if let Some(sent) = &node.request
                && sent.slow
                && !node.partitioned
            {
                match sent.answer {
                    None => actions.push(Act::Commit(i)),
                    Some(_) if !node.paused => actions.push(Act::Answer(i)),
                    Some(_) => {}
                }
            }
            if node.draining && !node.paused && !state.write_in_flight(i) {
                actions.push(Act::Join(i));
            }
            if node.paused {
                actions.push(Act::Resume(i));
            }
            if node.working && state.faults > 0 {
                actions.extend((!node.paused).then_some(Act::Pause(i)));
                actions.extend((!node.partitioned).then_some(Act::Partition(i)));
                actions.push(Act::Stop(i));
            }
        }
        if state.faults > 0 && state.server.lease.is_some() {
            actions.push(Act::DeleteLease);
        }
        // Before the first fault one period is like the next.
        let untouched = state.faults == self.faults && state.now >= FIRST_FAULT_BY;
        if state.now < self.horizon && !untouched {
            actions.push(Act::Advance);
        }
    }

    fn next_state(&self, last: &State, act: Act) -> Option<State> {
        let mut state = last.clone();
        match act {
            Act::Advance => {
                state.now += 1;
                // An unpaused write has ended in one way or another.
                if state.write.as_ref().is_some_and(|write| !write.paused && state.now >= write.end) {
                    state.write = None;
                }
            }
            Act::Tick(i) => state.step(i, Event::Tick),
            Act::Exchange(i) => {
                let slow = self.next_state(last, Act::Commit(i))?;
                // What the watch said may have made the node ask something else already.
                let answered = slow.nodes[i].request.as_ref().is_some_and(|sent| sent.answer.is_some());
                return if answered { self.next_state(&slow, Act::Answer(i)) } else { Some(slow) };
            }
            Act::Commit(i) => {
                let request = state.nodes[i].request.as_ref()?.request.clone();
                let answer = state.execute(&request);
                state.nodes[i].request.as_mut()?.answer = Some(answer);
                if state.server.version != last.server.version {
                    state.announce();
                }
            }
            Act::Answer(i) => {
                let sent = state.nodes[i].request.take()?;
                state.step(i, Event::Answered(sent.id, sent.answer?));
            }
            Act::GiveUp(i) => {
                let id = state.nodes[i].request.as_ref()?.id;
                let read = matches!(state.nodes[i].request.as_ref()?.request, Request::Get);
                state.abandon(i);
                let error = LeaseError::Unknown("no answer".into());
                let answer = if read { Answer::Got(Err(error)) } else { Answer::Wrote(Err(error)) };
                state.step(i, Event::Answered(id, answer));
            }
            Act::CommitOrphan(k) => {
                let (_, request) = state.server.orphans.remove(k);
                state.execute_and_announce(&request);
            }
            Act::Join(i) => {
                state.nodes[i].draining = false;
                state.step(i, Event::WorkersJoined);
            }
            Act::StartWrite(i) => {
                let token = self.admits(&state, i)?;
                let flight = timing().write_timeout() * 2;
                let end = state.now + u64::try_from(flight.as_nanos() / UNIT.as_nanos()).expect("small");
                state.write = Some(Write { node: i, token, end, paused: false });
                state.write_used = true;
            }
            Act::LandWrite => {
                let write = state.write.take()?;
                let place = state.server.epochs.iter().position(|epoch| *epoch == write.token)?;
                let past = state.server.led > place;
                let fence_admits = state.server.lease.as_ref().is_some_and(|lease| lease.token() == write.token);
                state.clobbered = past && !write.paused;
                state.fence_failed = past && fence_admits;
            }
            // Its clock ran on. What the watch had to say comes with the next change.
            Act::Resume(i) => state.nodes[i].paused = false,
            Act::Slow(i) => {
                state.faults -= 1;
                state.nodes[i].request.as_mut()?.slow = true;
            }
            Act::Partition(i) => {
                state.faults -= 1;
                state.nodes[i].partitioned = true;
            }
            Act::Pause(i) => {
                state.faults -= 1;
                state.nodes[i].paused = true;
            }
            Act::PauseWrite => {
                state.faults -= 1;
                state.write.as_mut()?.paused = true;
            }
            Act::Stop(i) => {
                state.faults -= 1;
                state.step(i, Event::Stop);
            }
            Act::DeleteLease => {
                state.faults -= 1;
                state.server.lease = None;
                state.server.version += 1;
                state.announce();
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing of an epoch lands after a later one began", |_, state: &State| !state.clobbered),
            Property::always("the fence stops what a pause let out", |_, state: &State| !state.fence_failed),
            Property::always("two gates are never open to two epochs", |_, state: &State| {
                let usable = timing().write_timeout() * 2;
                let open = |node: &&Node| node.gate.as_ref().is_some_and(|(_, end)| state.now() + usable <= *end);
                state.nodes.iter().filter(open).count() < 2
            }),
            Property::sometimes("a second node leads", |_, state: &State| {
                state.nodes[1..].iter().any(|node| node.working)
            }),
            Property::sometimes("the first node leads again", |_, state: &State| {
                state.server.epochs.len() > 1 && state.nodes[0].working
            }),
        ]
    }
}
