//! From a template's text to a program.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use quarterdeck_api::duration;

use super::leaf;
use super::model::{Argument, ArtifactFrom, Body, Call, OutputFrom, RetryText, Template, Text, Workflow};
use super::parameters::{AddonFacts, Parameters};
use super::program::{Action, KnownNodes, Node, Program, Retry, When};
use super::read::Sink;
use super::scope::{Scope, Sibling, World, left_by, status};
use super::substitute::{Found, Lookup, Miss, text};
use super::template::read;
use super::{Limits, Refusal, condition};

/// What a template is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Its Addon.
    pub addon: &'a AddonFacts,
    /// What `{{workflow.name}}` is: the name that a Workflow object would have.
    pub workflow_name: &'a str,
    /// The phase's `role`: the service account if the template names none.
    pub role: Option<&'a str>,
    /// Steps of this revision that have ended ([`Progress::known`](super::Progress::known)).
    pub known: &'a KnownNodes,
    /// `{{workflow.status}}` for the steps of `onExit`; none while the others have not ended.
    pub status: Option<&'a str>,
    /// Bounds.
    pub limits: Limits,
}

/// Compiles a template, or says all that is not in the grammar. Paths count from the template's top.
///
/// What rests on outputs that [`Context::known`] lacks is [`Action::Pending`] or [`When::Unknown`];
/// compile again when a step has ended.
pub fn compile(template: &str, parameters: &Parameters, context: &Context<'_>) -> Result<Program, Vec<Refusal>> {
    let workflow = read(template, &context.limits)?;
    let sink = Sink::default();
    let program = program(&workflow, template, parameters, context, &sink);
    let refusals = sink.into_refusals(context.limits.refusals);
    match program {
        Some(program) if refusals.is_empty() => Ok(program),
        _ if refusals.is_empty() => Err(vec![Refusal::new("", "nothing to run")]),
        _ => Err(refusals),
    }
}

fn program(
    workflow: &Workflow,
    template: &str,
    parameters: &Parameters,
    context: &Context<'_>,
    sink: &Sink,
) -> Option<Program> {
    let addon = context.addon;
    let builtins = BTreeMap::from([
        ("workflow.name", context.workflow_name.to_owned()),
        ("workflow.namespace", addon.namespace.clone()),
    ]);
    let mut world = World { globals: parameters.clone(), builtins };
    let base = Scope::new(Rc::new(World { globals: parameters.clone(), builtins: world.builtins.clone() }));
    for (name, value, path) in &workflow.parameters {
        let value = settled(text(value, path, &base), path, sink);
        if let Some(value) = value {
            // Upstream refuses what collides with the Addon's own parameters, too.
            sink.extend(world.globals.add(name, &value, path).err().into_iter().collect());
        }
    }
    let account = workflow.account.as_ref().and_then(|(account, path)| settled(text(account, path, &base), path, sink));
    let account = account.or_else(|| context.role.map(str::to_owned)).filter(|account| !account.is_empty());
    if let Some(account) = &account {
        let path = workflow.account.as_ref().map_or("spec.serviceAccountName", |(_, path)| path);
        check_account(account, path, sink);
        world.builtins.insert("workflow.serviceAccountName", account.clone());
    }
    let deadline = seconds(workflow.deadline.as_ref(), &base, sink);
    let Some((entrypoint, path)) = &workflow.entrypoint else {
        sink.refuse("spec.entrypoint", "missing");
        return None;
    };
    let world = Rc::new(world);
    let compiler = |exit| Compiler {
        workflow,
        context,
        sink,
        nodes: Vec::new(),
        calls: Vec::new(),
        called: 0,
        spent: Cell::new(0),
        capture: template.contains(".outputs.result"),
        exit,
    };
    let mut main = compiler(false);
    main.root(entrypoint, path, &world);
    let exit = workflow.on_exit.as_ref().map(|(name, path)| {
        let mut exit = compiler(true);
        let mut builtins = world.builtins.clone();
        builtins.insert("workflow.status", context.status.unwrap_or_default().to_owned());
        exit.root(name, path, &Rc::new(World { globals: world.globals.clone(), builtins }));
        exit.nodes
    });
    let parallelism = workflow.parallelism;
    Some(Program { account, deadline, parallelism, nodes: main.nodes, exit: exit.unwrap_or_default() })
}

/// A value that must be known by now.
pub(super) fn settled<T>(value: Result<T, Miss>, path: &str, sink: &Sink) -> Option<T> {
    match value {
        Ok(value) => Some(value),
        Err(Miss::Refused(refusals)) => {
            sink.extend(refusals);
            None
        }
        Err(Miss::Unknown(reason)) => {
            sink.refuse(path, format!("it must be known from the start: {reason}"));
            None
        }
    }
}

/// Names what an account may be: it becomes a part of a request's header.
fn check_account(account: &str, path: &str, sink: &Sink) {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if account.len() > 253 || !account.bytes().all(fine) {
        sink.refuse(path, format!("{account:?} is not a service account's name"));
    }
}

fn number(field: Option<&Text>, scope: &Scope, sink: &Sink) -> Option<u32> {
    let (value, path) = field?;
    let value = settled(text(value, path, scope), path, sink)?;
    let number = value.trim().parse().ok();
    if number.is_none() {
        sink.refuse(path, format!("{value:?} is not a whole number"));
    }
    number
}

fn seconds(field: Option<&Text>, scope: &Scope, sink: &Sink) -> Option<Duration> {
    let seconds = number(field, scope, sink)?;
    if seconds == 0 {
        sink.refuse(field.map_or("", |(_, path)| path), "not more than 0");
    }
    Some(Duration::from_secs(seconds.into()))
}

/// A number of seconds or a duration with units.
fn span(field: Option<&Text>, scope: &Scope, sink: &Sink) -> Option<Duration> {
    let (value, path) = field?;
    let value = settled(text(value, path, scope), path, sink)?;
    if let Ok(seconds) = value.trim().parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    duration::parse(value.trim()).map_err(|error| sink.refuse(path, error.to_string())).ok()
}

/// An artifact handed to a template: its text and the scope that its references stand in.
#[derive(Clone, Debug)]
pub(super) struct Artifact {
    pub(super) data: String,
    pub(super) path: String,
    pub(super) scope: Rc<Scope>,
}

/// What a step inherits from the calls that lead to it.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) when: When,
    pub(super) after: Vec<usize>,
    pub(super) retry: Retry,
    pub(super) deadline: Option<Duration>,
    pub(super) account: Option<String>,
    pub(super) continue_on_failure: bool,
}

/// What a call came to.
struct Group {
    nodes: std::ops::Range<usize>,
    outputs: BTreeMap<String, Found>,
}

/// A task of a graph: the steps to wait for, all tasks that have ended before it, and what it left.
type Done<'t> = (Vec<usize>, BTreeSet<&'t str>, Rc<Sibling>);

pub(super) struct Compiler<'c> {
    pub(super) workflow: &'c Workflow,
    pub(super) context: &'c Context<'c>,
    pub(super) sink: &'c Sink,
    pub(super) nodes: Vec<Node>,
    /// Templates being expanded.
    calls: Vec<String>,
    /// Calls expanded so far.
    called: usize,
    /// Bytes of manifests, files and scripts read so far.
    spent: Cell<usize>,
    /// Whether anything refers to what a step writes on its standard output.
    pub(super) capture: bool,
    exit: bool,
}

impl Compiler<'_> {
    fn root(&mut self, name: &str, path: &str, world: &Rc<World>) {
        let scope = Rc::new(Scope::new(Rc::clone(world)));
        let call = Call {
            path: path.to_owned(),
            name: if self.exit { format!("onExit.{name}") } else { name.to_owned() },
            template: name.to_owned(),
            parameters: Vec::new(),
            artifacts: self.workflow.artifacts.clone(),
            when: None,
            continue_on_failure: false,
        };
        let guard = Guard {
            when: When::Run,
            after: Vec::new(),
            retry: Retry::default(),
            deadline: None,
            account: None,
            continue_on_failure: false,
        };
        let node = call.name.clone();
        self.call(&call, path, &node, &scope, &BTreeMap::new(), guard);
    }

    /// Counts a text that a step reads: calls may repeat it.
    pub(super) fn spend(&self, bytes: usize, path: &str) -> Result<(), Miss> {
        let most = self.context.limits.text_bytes;
        self.spent.set(self.spent.get().saturating_add(bytes));
        if self.spent.get() > most {
            return Err(Miss::refused(path, format!("more than {most} bytes in all steps together")));
        }
        Ok(())
    }

    /// Expands one call; `artifacts` are the caller's inputs.
    fn call(
        &mut self,
        call: &Call,
        template_path: &str,
        node: &str,
        scope: &Rc<Scope>,
        artifacts: &BTreeMap<String, Artifact>,
        mut guard: Guard,
    ) -> Group {
        let none = |at: usize| Group { nodes: at..at, outputs: BTreeMap::new() };
        // Calls that come to nothing count, too: they may multiply like all others.
        self.called += 1;
        if self.nodes.len() >= self.context.limits.nodes || self.called > 4 * self.context.limits.nodes {
            self.sink.refuse(template_path, format!("more than {} steps", self.context.limits.nodes));
            return none(self.nodes.len());
        }
        let workflow = self.workflow;
        let Some(template) = workflow.templates.get(&call.template) else {
            self.sink.refuse(template_path, format!("there is no template {}", call.template));
            return none(self.nodes.len());
        };
        if self.calls.contains(&call.template) {
            let chain = self.calls.join(" → ");
            self.sink.refuse(template_path, format!("template {} calls itself: {chain} → {0}", call.template));
            return none(self.nodes.len());
        }
        if self.calls.len() >= self.context.limits.calls_deep {
            self.sink.refuse(template_path, format!("calls nested deeper than {}", self.context.limits.calls_deep));
            return none(self.nodes.len());
        }
        if guard.when == When::Run
            && let Some((when, path)) = &call.when
        {
            let longest = self.context.limits.condition_bytes;
            guard.when = match condition::holds(when, path, &**scope, longest) {
                Ok(true) => When::Run,
                Ok(false) => When::Skip,
                Err(Miss::Unknown(reason)) => When::Unknown(reason),
                Err(Miss::Refused(refusals)) => {
                    self.sink.extend(refusals);
                    When::Skip
                }
            };
        }
        let skipped = guard.when == When::Skip;
        let callee = Rc::new(self.inputs(call, template, scope, skipped));
        let handed = self.artifacts(call, template, scope, &callee, artifacts);
        let own = template.retry.as_ref().filter(|_| !skipped).map(|retry| self.retry(retry, &callee));
        guard.retry = own.unwrap_or(guard.retry);
        let deadline = if skipped { None } else { seconds(template.deadline.as_ref(), &callee, self.sink) };
        guard.deadline = [guard.deadline, deadline].into_iter().flatten().min();
        if let Some((account, path)) = &template.account
            && !skipped
            && let Some(account) = settled(text(account, path, &*callee), path, self.sink)
        {
            check_account(&account, path, self.sink);
            guard.account = Some(account).filter(|account| !account.is_empty());
        }
        self.calls.push(call.template.clone());
        let group = self.body(call, template, node, callee, &handed, guard);
        self.calls.pop();
        group
    }

    fn body(
        &mut self,
        call: &Call,
        template: &Template,
        node: &str,
        scope: Rc<Scope>,
        artifacts: &BTreeMap<String, Artifact>,
        guard: Guard,
    ) -> Group {
        let start = self.nodes.len();
        let is_group = matches!(template.body, Body::Steps(_) | Body::Dag(_));
        if is_group && guard.continue_on_failure {
            self.sink.refuse(
                format!("{}.continueOn", call.path),
                "on a call of steps or a dag it is not supported; put it on the steps themselves",
            );
        }
        let scope = match &template.body {
            Body::Steps(groups) => self.steps(groups, node, scope, artifacts, guard),
            Body::Dag(tasks) => self.dag(tasks, &template.path, node, scope, artifacts, &guard),
            Body::Resource(_) | Body::Container(_) => {
                let leaf = leaf::Leaf { template, scope: &scope, artifacts };
                let actions = leaf.actions(self, guard.when == When::Skip);
                self.push(node, template, actions, &guard);
                scope
            }
        };
        let nodes = start..self.nodes.len();
        let known = self.context.known;
        let names: Vec<&str> = self.nodes[nodes.clone()].iter().map(|node| node.name.as_str()).collect();
        let outputs = template.outputs.iter().map(|output| {
            let found = match &output.from {
                OutputFrom::File(_) if is_group => {
                    self.sink.refuse(&*output.path, "only a container has files");
                    Found::Unknown("it has no files".to_owned())
                }
                OutputFrom::File(_) => match names.first() {
                    Some(node) => {
                        left_by(node, known, "such output", |facts| facts.parameters.get(&output.name).cloned())
                    }
                    None => Found::Unknown("nothing ran".to_owned()),
                },
                OutputFrom::Text(value) => match text(value, &output.path, &*scope) {
                    Ok(value) => Found::Known(value),
                    Err(Miss::Unknown(reason)) => Found::Unknown(reason),
                    Err(Miss::Refused(refusals)) => {
                        self.sink.extend(refusals);
                        Found::Unknown("refused".to_owned())
                    }
                },
            };
            (output.name.clone(), found)
        });
        let outputs = outputs.collect();
        Group { nodes, outputs }
    }

    /// Adds the steps of a call that calls no other.
    fn push(&mut self, node: &str, template: &Template, actions: Vec<Action>, guard: &Guard) {
        let several = actions.len() > 1;
        let mut after = guard.after.clone();
        for (index, action) in actions.into_iter().enumerate() {
            let at = self.nodes.len();
            let node = Node {
                name: if several { format!("{node}/{}", index + 1) } else { node.to_owned() },
                origin: template.path.clone(),
                after: std::mem::replace(&mut after, vec![at]),
                when: guard.when.clone(),
                retry: guard.retry,
                deadline: guard.deadline,
                account: guard.account.clone(),
                continue_on_failure: guard.continue_on_failure,
                action,
                content: None,
            };
            self.nodes.push(node.sealed());
        }
    }

    fn steps(
        &mut self,
        groups: &[Vec<Call>],
        node: &str,
        scope: Rc<Scope>,
        artifacts: &BTreeMap<String, Artifact>,
        guard: Guard,
    ) -> Rc<Scope> {
        let mut scope = scope;
        let mut guard = guard;
        let mut names = BTreeSet::new();
        for calls in groups {
            let start = self.nodes.len();
            let mut ended = Vec::new();
            for call in calls {
                if !names.insert(&call.name) {
                    self.sink.refuse(format!("{}.name", call.path), format!("a second step {}", call.name));
                    continue;
                }
                ended.push((call, self.child(call, node, &scope, artifacts, &guard)));
            }
            // A group in which nothing is to do hands on what it waited for.
            if self.nodes.len() > start {
                guard.after = (start..self.nodes.len()).collect();
            }
            let mut next = Scope::clone(&scope);
            for (call, group) in ended {
                next.siblings.insert(call.name.clone(), self.sibling(&group));
            }
            scope = Rc::new(next);
        }
        scope
    }

    fn child(
        &mut self,
        call: &Call,
        node: &str,
        scope: &Rc<Scope>,
        artifacts: &BTreeMap<String, Artifact>,
        guard: &Guard,
    ) -> Group {
        let guard = Guard { continue_on_failure: call.continue_on_failure, ..guard.clone() };
        let path = format!("{}.template", call.path);
        self.call(call, &path, &format!("{node}/{}", call.name), scope, artifacts, guard)
    }

    fn sibling(&self, group: &Group) -> Rc<Sibling> {
        let known = self.context.known;
        let names = self.nodes[group.nodes.clone()].iter().map(|node| node.name.as_str());
        let result = match self.nodes.get(group.nodes.start).filter(|_| group.nodes.len() == 1) {
            Some(node) => left_by(&node.name, known, "result", |facts| facts.result.clone()),
            None => Found::Unknown("only a single step has a result".to_owned()),
        };
        Rc::new(Sibling { status: status(names, known), outputs: group.outputs.clone(), result })
    }

    fn dag(
        &mut self,
        tasks: &[(Call, Vec<String>)],
        path: &str,
        node: &str,
        scope: Rc<Scope>,
        artifacts: &BTreeMap<String, Artifact>,
        guard: &Guard,
    ) -> Rc<Scope> {
        let Some(order) = self.order(tasks, path) else { return scope };
        let mut done: BTreeMap<&str, Done<'_>> = BTreeMap::new();
        for (call, dependencies) in order {
            let mut after: BTreeSet<usize> = BTreeSet::new();
            let mut before: BTreeSet<&str> = BTreeSet::new();
            for dependency in dependencies {
                let (ends, ancestors, _) = &done[dependency.as_str()];
                after.extend(ends);
                before.extend(ancestors);
                before.insert(dependency);
            }
            let mut inner = Scope::clone(&scope);
            inner.siblings.extend(before.iter().map(|name| ((*name).to_owned(), Rc::clone(&done[name].2))));
            let waits = if after.is_empty() { guard.after.clone() } else { after.into_iter().collect() };
            let inherited = Guard { after: waits.clone(), ..guard.clone() };
            let group = self.child(call, node, &Rc::new(inner), artifacts, &inherited);
            let ends = if group.nodes.is_empty() { waits } else { group.nodes.clone().collect() };
            done.insert(&call.name, (ends, before, self.sibling(&group)));
        }
        // The template's own outputs come after everything.
        let mut all = Scope::clone(&scope);
        all.siblings.extend(done.into_iter().map(|(name, (.., sibling))| (name.to_owned(), sibling)));
        Rc::new(all)
    }

    /// Tasks in an order in which each comes after those it depends on.
    fn order<'t>(&self, tasks: &'t [(Call, Vec<String>)], path: &str) -> Option<Vec<(&'t Call, &'t [String])>> {
        let names: BTreeSet<&str> = tasks.iter().map(|(call, _)| call.name.as_str()).collect();
        if names.len() != tasks.len() {
            self.sink.refuse(format!("{path}.dag.tasks"), "two tasks have one name");
            return None;
        }
        for (call, dependencies) in tasks {
            if let Some(missing) = dependencies.iter().find(|name| !names.contains(name.as_str())) {
                self.sink.refuse(format!("{}.dependencies", call.path), format!("there is no task {missing}"));
                return None;
            }
        }
        let mut placed: BTreeSet<&str> = BTreeSet::new();
        let mut order = Vec::with_capacity(tasks.len());
        while order.len() < tasks.len() {
            let before = order.len();
            for (call, dependencies) in tasks {
                if !placed.contains(call.name.as_str())
                    && dependencies.iter().all(|name| placed.contains(name.as_str()))
                {
                    placed.insert(&call.name);
                    order.push((call, dependencies.as_slice()));
                }
            }
            if order.len() == before {
                let stuck: Vec<&str> = names.difference(&placed).copied().collect();
                let reason = format!("tasks that wait for each other: {}", stuck.join(", "));
                self.sink.refuse(format!("{path}.dag.tasks"), reason);
                return None;
            }
        }
        Some(order)
    }

    /// The scope of a called template.
    fn inputs(&self, call: &Call, template: &Template, scope: &Rc<Scope>, skipped: bool) -> Scope {
        let mut callee = Scope::new(Rc::clone(&scope.world));
        let most = self.context.limits.value_bytes;
        let find = |value: &str, path: &str, scope: &dyn Lookup| match text(value, path, scope) {
            Ok(value) if value.len() > most => {
                self.sink.extend(vec![Refusal::value(path, format!("its value is longer than {most} bytes"))]);
                Found::Unknown("refused".to_owned())
            }
            Ok(value) => Found::Known(value),
            Err(Miss::Unknown(reason)) => Found::Unknown(reason),
            Err(Miss::Refused(refusals)) => {
                self.sink.extend(refusals);
                Found::Unknown("refused".to_owned())
            }
        };
        let globals = Scope::new(Rc::clone(&scope.world));
        for (name, default, path) in &template.inputs {
            let given = call.parameters.iter().find(|(given, ..)| given == name);
            let found = match (given, default) {
                _ if skipped => Found::Unknown("the step is skipped".to_owned()),
                (Some((_, value, path)), _) => find(value, path, &**scope),
                (None, Some(default)) => find(default, path, &globals),
                (None, None) => {
                    let reason = format!("input {name} has no value: {} gives none, and it has no default", call.path);
                    self.sink.refuse(&**path, reason);
                    continue;
                }
            };
            callee.inputs.insert(name.clone(), found);
        }
        callee
    }

    fn artifacts(
        &self,
        call: &Call,
        template: &Template,
        scope: &Rc<Scope>,
        callee: &Rc<Scope>,
        inherited: &BTreeMap<String, Artifact>,
    ) -> BTreeMap<String, Artifact> {
        let mut out = BTreeMap::new();
        for input in &template.artifacts {
            let given = call.artifacts.iter().find(|given: &&Argument| given.name == input.name);
            let artifact = match (given, &input.raw) {
                (Some(Argument { from: ArtifactFrom::Raw((data, path)), .. }), _) => {
                    Artifact { data: data.clone(), path: path.clone(), scope: Rc::clone(scope) }
                }
                (Some(Argument { from: ArtifactFrom::Input(name), path, .. }), _) => match inherited.get(name) {
                    Some(artifact) => artifact.clone(),
                    None => {
                        self.sink.refuse(&**path, format!("there is no input artifact {name}"));
                        continue;
                    }
                },
                (None, Some((data, path))) => {
                    Artifact { data: data.clone(), path: path.clone(), scope: Rc::clone(callee) }
                }
                (None, None) if input.optional => continue,
                (None, None) => {
                    self.sink.refuse(&*input.at, format!("artifact {} is not given by {}", input.name, call.path));
                    continue;
                }
            };
            out.insert(input.name.clone(), artifact);
        }
        out
    }

    fn retry(&self, retry: &RetryText, scope: &Scope) -> Retry {
        Retry {
            limit: number(retry.limit.as_ref(), scope, self.sink),
            backoff: span(retry.duration.as_ref(), scope, self.sink).unwrap_or_default(),
            factor: number(retry.factor.as_ref(), scope, self.sink).unwrap_or_default(),
            max: span(retry.max.as_ref(), scope, self.sink),
            given: true,
        }
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "compile_refused_tests.rs"]
mod refused_tests;

#[cfg(test)]
#[path = "constructs_tests.rs"]
mod constructs_tests;
