//! An Addon object: phase after phase, step after step. What its steps apply is kept like the objects
//! of any addon; everything else runs once a revision.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use quarterdeck_api::addon::{LifecycleStep, Phase as Word};
use quarterdeck_runtime::controller::{Action, Error};
use quarterdeck_runtime::object::{Kind, ObjectKey};

use super::Memory;
use super::argo::Chosen;
use super::run::{Run, SOON};
use crate::addon::dependency::Unmet;
use crate::addon::lifecycle::{Book, Lifecycle};
use crate::addon::manifest::Mode;
use crate::addon::parent::{Content, LifecycleState, Parent, State};
use crate::addon::plan::{RANKS, Wanted, rank};
use crate::addon::source::{Addon, Object, StepId};
use crate::addon::workflow::execute::{self, Observed};
use crate::addon::workflow::pod::Attempt;
use crate::addon::workflow::{self, Node, Program, Progress};

/// Most turns of one reconcile: each ends at least one step.
const TURNS: usize = 64;

/// How far the phases have come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Phases that are done.
    done: usize,
    /// Whether a step ended, so that others may begin.
    again: bool,
    /// Why the next phase does not begin, or the present one has failed.
    reason: Option<String>,
    /// Whether it has failed, rather than waits.
    failed: bool,
    /// Whether the template is not run by anybody.
    refused: bool,
    /// Whether caches have to fill first.
    pub(super) recalling: bool,
    /// The objects of all phases.
    wanted: Vec<Wanted>,
}

impl Walk {
    pub(super) fn is_done(&self, lifecycle: &Lifecycle) -> bool {
        self.done == lifecycle.phases.len()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed || self.refused
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason.clone()
    }
}

impl Run<'_> {
    /// Brings an Addon object to where it should be.
    pub(super) async fn live(self, addon: &Addon, lifecycle: &Lifecycle) -> Result<Action, Error> {
        let Some(before) = self.engine.parent(&self.id) else {
            self.engine.set_state(&self.id, None);
            return Ok(Action::Done);
        };
        let mut content = before.content.clone();
        let seen = self.engine.observe(lifecycle, &mut content);
        match Box::pin(self.lead(addon, lifecycle, before, content)).await? {
            Action::Done if !seen => Ok(Action::RequeueAfter(UNSYNCED)),
            Action::RequeueAfter(after) if !seen => Ok(Action::RequeueAfter(after.min(UNSYNCED))),
            action => Ok(action),
        }
    }

    async fn lead(
        mut self,
        addon: &Addon,
        lifecycle: &Lifecycle,
        before: Parent,
        mut content: Content,
    ) -> Result<Action, Error> {
        let mut life = content.lifecycle.take().unwrap_or_default();
        // Of one that is paused nothing may be lost, such as that another system installed it.
        if life.checksum != *lifecycle.checksum && !addon.policy.paused {
            life = begun(&life, lifecycle);
            if lifecycle.adopt {
                content.version = addon.version.to_string();
            }
        }
        life.generation = lifecycle.generation;
        if lifecycle.deleting {
            content.lifecycle = Some(life);
            return Box::pin(self.leave(addon, lifecycle, before, content)).await;
        }
        let installed = content.version == *addon.version;
        if addon.policy.paused {
            content.lifecycle = Some(life);
            return self.rest(addon, before, content, State::Paused, Vec::new()).await;
        }
        let unmet = if installed { Vec::new() } else { self.engine.unmet(addon) };
        if !lifecycle.faults.is_empty() || !unmet.is_empty() {
            let reasons: Vec<String> =
                lifecycle.faults.iter().cloned().chain(unmet.iter().map(ToString::to_string)).collect();
            let pending = lifecycle.faults.is_empty() && unmet.iter().all(Unmet::is_pending);
            life.installed = Some(if pending { Word::Pending } else { Word::ValidationFailed });
            life.reason = reasons.join("; ");
            content.lifecycle = Some(life);
            let state = if pending { State::Progressing } else { State::Degraded };
            return self.rest(addon, before, content, state, reasons).await;
        }
        content.lifecycle = Some(life);
        if self.begin(addon, &mut content).await? {
            content.state = Some(State::Progressing);
            content.errors.clear();
            self.write_parent(&content).await?;
        }
        self.walk(addon, lifecycle, &before, content).await
    }

    async fn walk(
        mut self,
        addon: &Addon,
        lifecycle: &Lifecycle,
        before: &Parent,
        mut content: Content,
    ) -> Result<Action, Error> {
        let mut book = Book::read(content.steps(), &lifecycle.checksum);
        let mut memory = self.engine.take_memory(&self.id);
        let walk = self.turns(lifecycle, &mut book, &mut memory, &mut content).await?;
        if walk.recalling {
            self.engine.put_memory(&self.id, memory);
            return Ok(Action::RequeueAfter(SOON));
        }
        let wanted = &walk.wanted;
        self.note_uids(&memory, &mut content.members);
        memory.keep(wanted);
        if let Some(patience) = memory.patience(self.outcome.waiting) {
            self.outcome.look_again(patience);
        }
        self.weigh(addon, wanted, &mut memory, &mut content).await;
        let complete = walk.is_done(lifecycle);
        if complete {
            let known = |object: &Object| memory.known.keys().any(|known| known.may_be(&object.ident));
            self.store(addon, &mut content, known).await?;
        }
        self.engine.put_memory(&self.id, memory);
        let life = content.lifecycle.get_or_insert_default();
        life.note(&book);
        life.prereqs = Some(match lifecycle.phases.first() {
            Some(phase) if phase.step == LifecycleStep::Prereqs && walk.done == 0 => word(&walk),
            _ => Word::Succeeded,
        });
        let applied = complete && self.outcome.errors.is_empty() && !self.outcome.retry && !self.outcome.waiting;
        let installed = applied || (complete && content.version == *addon.version);
        life.installed = Some(if installed { Word::Succeeded } else { word(&walk) });
        life.reason = walk.reason.clone().or_else(|| self.outcome.errors.first().cloned()).unwrap_or_default();
        if applied {
            life.version = lifecycle.package_version.to_string();
        }
        match &walk.reason {
            Some(reason) if walk.failed || walk.refused => self.outcome.errors.push(reason.clone()),
            _ => self.outcome.waiting |= !complete,
        }
        let held = if applied {
            self.let_go(addon, &mut content);
            self.prune(addon.account.as_ref(), &mut content).await?
        } else {
            content.held.clone()
        };
        self.finish(addon, Some(before), content, held, walk.wanted.len()).await
    }

    /// Turns until nothing more can be done now.
    pub(super) async fn turns(
        &mut self,
        lifecycle: &Lifecycle,
        book: &mut Book,
        memory: &mut Memory,
        content: &mut Content,
    ) -> Result<Walk, Error> {
        let mut last = None;
        for _ in 0..TURNS {
            self.outcome = std::mem::take(&mut self.outcome).next_turn();
            let walk = self.turn(lifecycle, book, memory, content).await?;
            if !walk.again {
                last = Some(walk);
                break;
            }
        }
        if !self.spent.is_empty() {
            self.keep(lifecycle, book, content).await?;
        }
        Ok(last.unwrap_or_else(|| {
            self.outcome.look_again(Duration::ZERO);
            Walk::default()
        }))
    }

    /// One turn: settle the objects of all steps that ran or may run, and let each step that may run
    /// do so.
    async fn turn(
        &mut self,
        lifecycle: &Lifecycle,
        book: &mut Book,
        memory: &mut Memory,
        content: &mut Content,
    ) -> Result<Walk, Error> {
        let now = Timestamp::now();
        let mut walk = Walk::default();
        let mut runners: Vec<Chosen> = Vec::new();
        for phase in &lifecycle.phases {
            runners.push(self.runner(lifecycle, phase, book).await?);
        }
        let native = |(index, chosen): (usize, &Chosen)| match chosen {
            Chosen::Native(program) => lifecycle.objects(index, program),
            _ => Vec::new(),
        };
        let objects: Vec<Object> = runners.iter().enumerate().flat_map(native).collect();
        let wanted = self.resolve(&objects).await?;
        if !self.recall(&wanted, content, memory) {
            self.outcome.look_again(SOON);
            return Ok(Walk { recalling: true, ..Walk::default() });
        }
        let mut open: BTreeSet<StepId> = BTreeSet::new();
        let mut current = None;
        for (index, chosen) in runners.iter().enumerate() {
            let phase = &lifecycle.phases[index];
            let progress = book.of(phase.step, &lifecycle.checksum);
            let fresh = progress.nodes.is_empty() && progress.status.is_none();
            if fresh && let Some(reason) = self.gate(lifecycle, index, &wanted, memory).await? {
                walk.failed = reason.1;
                walk.reason = Some(reason.0);
                break;
            }
            let program = match chosen {
                Chosen::Native(program) => program,
                Chosen::Argo => match self.argo(lifecycle, phase, book).await? {
                    Ok(()) => {
                        walk.done += 1;
                        continue;
                    }
                    Err((reason, failed)) => {
                        walk.failed = failed;
                        walk.reason = Some(reason);
                        break;
                    }
                },
                Chosen::Nobody(reason) => {
                    walk.refused = true;
                    walk.reason = Some(reason.clone());
                    break;
                }
                Chosen::Unknown => break,
            };
            let next = workflow::next(program, &progress, now);
            book.set(phase.step, next.progress.clone());
            walk.again |= next.compile_again;
            for (at, node) in program.all().enumerate() {
                let starts = next.start.iter().any(|start| std::ptr::eq(*start, node));
                let succeeded =
                    next.progress.of(node).is_some_and(|one| one.state == workflow::progress::State::Succeeded);
                if starts || succeeded {
                    open.insert(StepId { phase: index, node: at });
                }
            }
            if next.phase == workflow::Phase::Succeeded {
                walk.done += 1;
                continue;
            }
            current = Some((index, program, next));
            break;
        }
        self.widen(lifecycle, &wanted, book, content).await?;
        for stage in 0..RANKS {
            let is_open = |wanted: &&Wanted| wanted.step.is_none_or(|step| open.contains(&step));
            let stage: Vec<&Wanted> =
                wanted.iter().filter(|wanted| rank(&wanted.ident) == stage).filter(is_open).collect();
            self.settle(&stage, memory).await?;
        }
        let Some((index, program, next)) = current else {
            walk.wanted = wanted;
            return Ok(walk);
        };
        if let Some(wake) = next.wake {
            let left = wake.duration_since(now);
            self.outcome.look_again(Duration::try_from(left).unwrap_or_default());
        }
        if let workflow::Phase::Failed { message, .. } = &next.phase {
            walk.failed = true;
            walk.reason = Some(format!("{}: {message}", lifecycle.phases[index].step));
        }
        if !self.observing {
            self.stop(lifecycle, lifecycle.phases[index].step, program, &next).await?;
            walk.again |= self.step(lifecycle, index, program, &next, &wanted, book, memory, content).await?;
        }
        if walk.reason.is_none() && !walk.again {
            walk.reason = waiting_for(program, &book.of(lifecycle.phases[index].step, &lifecycle.checksum));
        }
        walk.wanted = wanted;
        Ok(walk)
    }

    /// Why a phase may not begin yet, and whether that is a failure.
    async fn gate(
        &mut self,
        lifecycle: &Lifecycle,
        phase: usize,
        wanted: &[Wanted],
        memory: &Memory,
    ) -> Result<Option<(String, bool)>, Error> {
        match lifecycle.phases[phase].step {
            LifecycleStep::Install => {
                for name in &lifecycle.secrets {
                    let key = ObjectKey::new(&*lifecycle.facts.target_namespace, &**name);
                    match self.api.get_metadata(&Kind::of::<Secret>(), &key).await {
                        Ok(Some(_)) => {}
                        Ok(None) => {
                            self.outcome.look_again(SECRET);
                            return Ok(Some((format!("secret {key} does not exist"), true)));
                        }
                        Err(error) => {
                            self.outcome.failed(&format!("secret {key}"), error)?;
                            return Ok(Some((format!("secret {key} cannot be read"), true)));
                        }
                    }
                }
                Ok(None)
            }
            LifecycleStep::Validate => {
                let earlier = wanted.iter().filter(|wanted| wanted.step.is_some_and(|step| step.phase < phase));
                let unready = earlier
                    .filter(|wanted| memory.known.get(&wanted.ident).is_none_or(|known| !known.health.is_ready()));
                let unready = unready.count();
                Ok((unready > 0).then(|| (format!("validate: waiting for {unready} objects to be ready"), false)))
            }
            LifecycleStep::Prereqs | LifecycleStep::Delete => Ok(None),
        }
    }

    /// Widens the inventory before anything is made.
    async fn widen(
        &mut self,
        lifecycle: &Lifecycle,
        wanted: &[Wanted],
        book: &Book,
        content: &mut Content,
    ) -> Result<(), Error> {
        let known = content.members.len();
        for wanted in wanted.iter().filter(|wanted| wanted.mode == Mode::Reconcile) {
            content.members.entry(wanted.ident.clone()).or_default();
        }
        if content.members.len() == known {
            return Ok(());
        }
        self.keep(lifecycle, book, content).await
    }

    /// Writes down where things stand, in the middle of the work; what is written down leaves nothing
    /// behind.
    async fn keep(&mut self, lifecycle: &Lifecycle, book: &Book, content: &mut Content) -> Result<(), Error> {
        let life = content.lifecycle.get_or_insert_default();
        life.note(book);
        if content.version != life.checksum && !matches!(life.installed, Some(Word::Deleting | Word::DeleteFailed)) {
            life.installed = Some(Word::Pending);
            content.state = Some(State::Progressing);
        }
        content.errors.clear();
        self.write_parent(content).await?;
        for spent in std::mem::take(&mut self.spent) {
            self.clear(lifecycle, &spent).await?;
        }
        Ok(())
    }

    /// Lets the steps do what they may; whether one of them ended.
    #[expect(clippy::too_many_arguments, reason = "the state of one walk, which nobody else has")]
    async fn step(
        &mut self,
        lifecycle: &Lifecycle,
        phase: usize,
        program: &Program,
        next: &workflow::Next<'_>,
        wanted: &[Wanted],
        book: &mut Book,
        memory: &Memory,
        content: &mut Content,
    ) -> Result<bool, Error> {
        let step = lifecycle.phases[phase].step;
        let mut ended = false;
        let mut begun = Vec::new();
        for node in &next.start {
            let mut progress = book.of(step, &lifecycle.checksum);
            if let workflow::Action::Apply(made) | workflow::Action::Create(made) = &node.action {
                let at = program.all().position(|one| std::ptr::eq(one, *node));
                let own = wanted
                    .iter()
                    .filter(|wanted| wanted.step.is_some_and(|step| step.phase == phase && Some(step.node) == at));
                let right = own.filter(|wanted| {
                    memory.known.get(&wanted.ident).is_some_and(|known| known.right.wanted == wanted.hash)
                });
                // Objects that stand twice, or in another addon, are errors already.
                if right.count() == made.objects.len() {
                    progress.begin(node, Timestamp::now());
                    progress.end(node, workflow::Outcome::done(), Timestamp::now());
                    book.set(step, progress);
                    ended = true;
                }
                continue;
            }
            self.clear(lifecycle, &Spent::of(step, program, node, progress.last_attempt(node))).await?;
            progress.begin(node, Timestamp::now());
            book.set(step, progress);
            begun.push(*node);
        }
        if !begun.is_empty() {
            // Written before any is done: a restart looks before it does it again. What ended a turn ago
            // is written with it.
            self.keep(lifecycle, book, content).await?;
        }
        for node in begun.iter().chain(&next.running) {
            ended |= self.carry(lifecycle, phase, program, node, book).await?;
        }
        Ok(ended)
    }

    /// Carries a step on; whether it ended.
    async fn carry(
        &mut self,
        lifecycle: &Lifecycle,
        phase: usize,
        program: &Program,
        node: &Node,
        book: &mut Book,
    ) -> Result<bool, Error> {
        let step = lifecycle.phases[phase].step;
        let mut progress = book.of(step, &lifecycle.checksum);
        let attempt =
            attempt(lifecycle, step, program.account.as_deref(), program.deadline, node, progress.attempt(node));
        let api = self.api_as(Some(&lifecycle.account(program, node)));
        let observed = execute::step(&api, &self.engine.kinds, &attempt, progress.marks(node)).await;
        let ended = match observed {
            Ok(None) => return Ok(false),
            Ok(Some(Observed::Ended(outcome))) => {
                progress.end(node, outcome, Timestamp::now());
                true
            }
            Ok(Some(Observed::UnderWay { message, marks, look_again })) => {
                progress.note(node, &message, marks);
                self.outcome.look_again(look_again);
                false
            }
            Err(error) => {
                self.outcome.failed(&format!("{step}, step {}", node.name), error)?;
                return Ok(false);
            }
        };
        let succeeded = progress.of(node).is_some_and(|one| one.state == workflow::progress::State::Succeeded);
        let number = progress.last_attempt(node);
        book.set(step, progress);
        if ended && succeeded && matches!(node.action, workflow::Action::Pod(_)) {
            // Its Pod goes once this is written: nobody else remembers it.
            self.spent.push(Spent::of(step, program, node, number));
        }
        Ok(ended)
    }

    /// Takes away what an attempt left behind that is over and recorded.
    async fn clear(&mut self, lifecycle: &Lifecycle, spent: &Spent) -> Result<(), Error> {
        let Spent { step, account, node, number, .. } = spent;
        if *number == 0 || !matches!(node.action, workflow::Action::Pod(_)) {
            return Ok(());
        }
        let named = node.account.as_deref().or(account.as_deref());
        let api = self.api_as(Some(&lifecycle.own_account(named)));
        match execute::remove(&api, &attempt(lifecycle, *step, account.as_deref(), None, node, *number)).await {
            Ok(()) => Ok(()),
            Err(error) => self.outcome.failed(&format!("{step}, step {}: removing its pod", node.name), error),
        }
    }

    /// Ends what attempts that were given up left running.
    async fn stop(
        &mut self,
        lifecycle: &Lifecycle,
        step: LifecycleStep,
        program: &Program,
        next: &workflow::Next<'_>,
    ) -> Result<(), Error> {
        for node in &next.stop {
            let begun = next.progress.nodes.get(&node.name).map_or(0, |one| one.attempts);
            let api = self.api_as(Some(&lifecycle.account(program, node)));
            if let Err(error) =
                execute::stop(&api, &attempt(lifecycle, step, program.account.as_deref(), None, node, begun)).await
            {
                self.outcome.failed(&format!("{step}, step {}", node.name), error)?;
            }
        }
        Ok(())
    }
}

/// A Pod of a step that is over.
pub(super) struct Spent {
    step: LifecycleStep,
    /// The program's account.
    account: Option<String>,
    node: Node,
    number: u32,
}

impl Spent {
    fn of(step: LifecycleStep, program: &Program, node: &Node, number: u32) -> Self {
        Self { step, account: program.account.clone(), node: node.clone(), number }
    }
}

fn attempt<'a>(
    lifecycle: &'a Lifecycle,
    step: LifecycleStep,
    account: Option<&'a str>,
    deadline: Option<Duration>,
    node: &'a Node,
    number: u32,
) -> Attempt<'a> {
    Attempt {
        addon: &lifecycle.facts,
        phase: step.as_str(),
        revision: &lifecycle.checksum,
        node,
        number,
        account,
        deadline,
    }
}

/// How often caches are asked again that are not complete yet.
const UNSYNCED: Duration = Duration::from_secs(1);

/// How often a Secret that has to exist is looked for.
const SECRET: Duration = Duration::from_secs(10);

/// A revision of which nothing ran yet, or, of one that another system installed, everything.
fn begun(before: &LifecycleState, lifecycle: &Lifecycle) -> LifecycleState {
    if lifecycle.adopt {
        return LifecycleState {
            checksum: lifecycle.checksum.to_string(),
            version: lifecycle.package_version.to_string(),
            prereqs: Some(Word::Succeeded),
            installed: Some(Word::Succeeded),
            progress: Book::adopted(lifecycle).to_value(),
            ..before.clone()
        };
    }
    LifecycleState {
        checksum: lifecycle.checksum.to_string(),
        generation: lifecycle.generation,
        started: Timestamp::now().as_millisecond(),
        version: before.version.clone(),
        prereqs: Some(Word::Pending),
        installed: Some(Word::Pending),
        reason: String::new(),
        // Kept until this one has some of its own: that steps ran is why a delete step does.
        progress: before.progress.clone(),
    }
}

impl LifecycleState {
    /// Notes what ran; that nothing of this revision did makes nothing of the one before forgotten.
    fn note(&mut self, book: &Book) {
        let progress = book.to_value();
        if progress.as_object().is_some_and(|steps| !steps.is_empty()) {
            self.progress = progress;
        }
    }
}

fn word(walk: &Walk) -> Word {
    match (walk.refused, walk.failed) {
        (true, _) => Word::ValidationFailed,
        (_, true) => Word::Failed,
        _ => Word::Pending,
    }
}

/// What the steps that are under way say.
fn waiting_for(program: &Program, progress: &Progress) -> Option<String> {
    let running = program.all().find_map(|node| {
        let one = progress.of(node).filter(|one| one.state == workflow::progress::State::Running)?;
        Some((node, one))
    });
    running.map(|(node, one)| match one.message.as_str() {
        "" => format!("step {} is running", node.name),
        message => format!("step {}: {message}", node.name),
    })
}
