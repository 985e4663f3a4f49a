//! What a `resource`, `container` or `script` template does.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::command::{Kubectl, Verb, is_shell, kubectl};
use super::compile::{Artifact, Compiler, settled};
use super::model::{Body, Container, OutputFrom, PodFields, Resource, Template, Text};
use super::objects;
use super::program::{Action, Cascade, Deletion, Objects, Patch, PodFile, PodStep, Strategy};
use super::read::Sink;
use super::scope::Scope;
use super::substitute::{Miss, shell, text};
use super::template::volume_name;
use crate::addon::manifest::{Desired, Mode};

/// Where a script's source is found in its container.
pub(super) const SCRIPT_PATH: &str = "/quarterdeck/script";

/// A template that calls no other, and what it was called with.
pub(super) struct Leaf<'a> {
    pub(super) template: &'a Template,
    pub(super) scope: &'a Rc<Scope>,
    pub(super) artifacts: &'a BTreeMap<String, Artifact>,
}

impl Leaf<'_> {
    /// What it does, in order.
    pub(super) fn actions(&self, compiler: &Compiler<'_>, skipped: bool) -> Vec<Action> {
        if skipped {
            // Whatever is wrong with its values does no harm.
            return vec![Action::Pending("its condition does not hold".to_owned())];
        }
        let actions = match &self.template.body {
            Body::Resource(resource) => {
                if let Some(output) = self.template.outputs.iter().find(|o| matches!(o.from, OutputFrom::File(_))) {
                    compiler.sink.refuse(&*output.path, "only a container has files");
                }
                self.resource(resource, compiler).map(|action| vec![action])
            }
            Body::Container(container) => match self.natively(container, compiler) {
                Some(commands) => commands,
                None => self.pod(container, compiler).map(|step| vec![Action::Pod(Box::new(step))]),
            },
            Body::Steps(_) | Body::Dag(_) => return Vec::new(),
        };
        match actions {
            Ok(actions) => actions,
            Err(Miss::Unknown(reason)) => vec![Action::Pending(reason)],
            Err(Miss::Refused(refusals)) => {
                compiler.sink.extend(refusals);
                vec![Action::Pending("refused".to_owned())]
            }
        }
    }

    fn resource(&self, resource: &Resource, compiler: &Compiler<'_>) -> Result<Action, Miss> {
        let (addon, scope) = (compiler.context.addon, &**self.scope);
        let (manifest, origin) = &resource.manifest;
        compiler.spend(manifest.len(), origin)?;
        let namespace = addon.namespace.clone();
        if let Some((_, path)) = &resource.merge_strategy
            && resource.action.0 != "patch"
        {
            return Err(Miss::refused(path, "only a patch has one"));
        }
        let desired = |mode| {
            let objects = objects::desired(manifest, origin, scope, mode, addon)?;
            Ok(Objects { objects, namespace: namespace.clone(), origin: origin.clone() })
        };
        match resource.action.0.as_str() {
            "apply" => desired(Mode::Reconcile).map(Action::Apply),
            "create" => desired(Mode::EnsureExists).map(Action::Create),
            "delete" => {
                let objects = objects::named(manifest, origin, scope)?;
                Ok(Action::Delete(Deletion { objects, namespace, cascade: Cascade::Background, wait: true }))
            }
            "patch" => {
                let strategy = match resource.merge_strategy.as_ref().map(|(name, path)| (name.as_str(), path)) {
                    None | Some(("strategic", _)) => Strategy::Strategic,
                    Some(("merge", _)) => Strategy::Merge,
                    Some((other, path)) => {
                        return Err(Miss::refused(
                            path,
                            format!("{other:?} is not supported: strategic and merge are"),
                        ));
                    }
                };
                let (object, body) = objects::patch(manifest, origin, scope)?;
                Ok(Action::Patch(Patch { object, namespace, strategy, body }))
            }
            other => Err(Miss::refused(
                &format!("{}.action", resource.path),
                format!("{other:?} is not supported: apply, create, delete and patch are"),
            )),
        }
    }

    /// The actions of a container that only runs kubectl on its input artifacts; none for another one.
    fn natively(&self, container: &Container, compiler: &Compiler<'_>) -> Option<Result<Vec<Action>, Miss>> {
        let other_cluster = container.fields.iter().any(|(field, _, value)| match *field {
            "envFrom" => true,
            "env" => value
                .as_array()
                .into_iter()
                .flatten()
                .any(|variable| variable["name"].as_str().is_none_or(|name| name.starts_with("KUBE"))),
            _ => false,
        });
        let has_outputs = self.template.outputs.iter().any(|output| matches!(output.from, OutputFrom::File(_)));
        if other_cluster || has_outputs || container.source.is_some() {
            return None;
        }
        let words = |texts: &[Text]| texts.iter().map(|(word, _)| word.clone()).collect::<Vec<_>>();
        let commands = kubectl(&words(&container.command), &words(&container.args))?;
        let mut actions = Vec::new();
        for command in &commands {
            let mut files = Vec::new();
            for file in &command.files {
                files.push(self.artifact_at(file)?);
            }
            actions.push(self.command(command, &files, container, compiler));
        }
        Some(actions.into_iter().collect())
    }

    /// The input artifact that lies at a path.
    fn artifact_at(&self, file: &str) -> Option<&Artifact> {
        let value = |text_: &str| text(text_, "", &**self.scope).ok();
        let file = value(file)?;
        let input = self
            .template
            .artifacts
            .iter()
            .find(|input| input.path.as_ref().and_then(|(path, _)| value(path)).is_some_and(|path| path == file))?;
        self.artifacts.get(&input.name)
    }

    fn command(
        &self,
        command: &Kubectl,
        files: &[&Artifact],
        container: &Container,
        compiler: &Compiler<'_>,
    ) -> Result<Action, Miss> {
        let addon = compiler.context.addon;
        for artifact in files {
            compiler.spend(artifact.data.len(), &artifact.path)?;
        }
        let at = container.args.last().or(container.command.last()).map_or(&*container.path, |(_, path)| path);
        // The word that names it holds one value, so it needs no more than to be a name.
        let namespace = match &command.namespace {
            Some(namespace) => Some(text(namespace, at, &**self.scope)?),
            None => None,
        };
        let default = namespace.clone().unwrap_or_else(|| addon.namespace.clone());
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if default.is_empty() || default.len() > 63 || !default.bytes().all(fine) {
            return Err(Miss::refused(at, format!("{default:?} is not a namespace's name")));
        }
        let check = |found: &str, name: &str, artifact: &Artifact| match &namespace {
            Some(namespace) if !found.is_empty() && found != namespace => Err(Miss::refused(
                &artifact.path,
                format!("{name} is in namespace {found}, and the command says -n {namespace}"),
            )),
            _ => Ok(()),
        };
        let origin = files.iter().map(|artifact| artifact.path.as_str()).collect::<Vec<_>>().join(", ");
        let desired = |mode| -> Result<Objects, Miss> {
            let mut objects: Vec<Desired> = Vec::new();
            for artifact in files {
                let new = objects::desired(&artifact.data, &artifact.path, &*artifact.scope, mode, addon)?;
                for object in &new {
                    check(&object.ident.namespace, &object.ident.name, artifact)?;
                }
                objects.extend(new);
            }
            Ok(Objects { objects, namespace: default.clone(), origin: origin.clone() })
        };
        match command.verb {
            Verb::Apply => desired(Mode::Reconcile).map(Action::Apply),
            Verb::Create => desired(Mode::EnsureExists).map(Action::Create),
            Verb::Delete => {
                let mut objects = Vec::new();
                for artifact in files {
                    let new = objects::named(&artifact.data, &artifact.path, &*artifact.scope)?;
                    for object in &new {
                        check(&object.ident.namespace, &object.ident.name, artifact)?;
                    }
                    objects.extend(new);
                }
                let (cascade, wait) = (command.cascade, command.wait);
                Ok(Action::Delete(Deletion { objects, namespace: default, cascade, wait }))
            }
        }
    }

    fn pod(&self, container: &Container, compiler: &Compiler<'_>) -> Result<PodStep, Miss> {
        let (sink, scope) = (compiler.sink, &**self.scope);
        let mut misses = Misses::default();
        let mut step = PodStep { capture_result: compiler.capture, ..PodStep::default() };
        let image = misses.take(text(&container.image.0, &container.image.1, scope));
        let all = container.command.iter().chain(&container.args).map(|(word, _)| word.as_str());
        let strict = is_program_text(container.command.is_empty(), all);
        let mut words = |texts: &[Text]| -> Vec<Value> {
            let word = |(word, path): &Text| {
                let value = if strict { shell(word, path, scope) } else { text(word, path, scope) };
                misses.take(value).unwrap_or_default().into()
            };
            texts.iter().map(word).collect()
        };
        let (mut command, mut args) = (words(&container.command), words(&container.args));
        for input in &self.template.artifacts {
            let Some(artifact) = self.artifacts.get(&input.name) else { continue };
            let Some((path, at)) = &input.path else {
                sink.refuse(&*input.at, "it has no path to be put at");
                continue;
            };
            compiler.spend(artifact.data.len(), &artifact.path)?;
            // What the file is for is not known: its values must be harmless in anything.
            let content = misses.take(shell(&artifact.data, &artifact.path, &*artifact.scope));
            let path = misses.take(text(path, at, scope));
            let mode = input.mode.as_ref().and_then(|(mode, at)| {
                let mode_ = settled(text(mode, at, scope), at, sink)?;
                let parsed = mode_.parse().ok().filter(|mode| (0..=0o777).contains(mode));
                if parsed.is_none() {
                    sink.refuse(&**at, format!("{mode_:?} is no permission bits"));
                }
                parsed
            });
            if let (Some(content), Some(path)) = (content, path) {
                if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.ends_with('/') {
                    sink.refuse(&**at, format!("{path:?} is not the absolute path of a file"));
                }
                step.files.push(PodFile { path, content, mode });
            }
        }
        if let Some((source, path)) = &container.source {
            compiler.spend(source.len(), path)?;
            let content = misses.take(shell(source, path, scope)).unwrap_or_default();
            step.files.push(PodFile { path: SCRIPT_PATH.to_owned(), content, mode: Some(0o755) });
            if command.is_empty() {
                sink.refuse(format!("{}.command", container.path), "missing: a script needs its interpreter");
            }
            // The interpreter's own arguments stand before the script, as the template gives them.
            command.append(&mut args);
            command.push(SCRIPT_PATH.into());
        }
        let bytes: usize = step.files.iter().map(|file| file.content.len()).sum();
        let most = compiler.context.limits.pod_file_bytes;
        if bytes > most {
            sink.refuse(&*self.template.path, format!("{bytes} bytes of files; at most {most} reach a Pod"));
        }
        step.container.insert("image".to_owned(), image.unwrap_or_default().into());
        for (field, words) in [("command", command), ("args", args)] {
            if !words.is_empty() {
                step.container.insert(field.to_owned(), words.into());
            }
        }
        for (field, path, value) in &container.fields {
            step.container.insert((*field).to_owned(), misses.tree(value, path, scope));
        }
        self.pod_fields(&compiler.workflow.pod, &mut step, &mut misses, sink);
        self.pod_fields(&self.template.pod, &mut step, &mut misses, sink);
        self.mounts(container, &mut step, sink);
        let mut files = self.template.outputs.iter().filter_map(|output| match &output.from {
            OutputFrom::File(path) => Some((output, path)),
            OutputFrom::Text(_) => None,
        });
        if let Some((output, path)) = files.next() {
            if let Some(path) = misses.take(text(path, &output.path, scope)) {
                step.output = Some((output.name.clone(), path));
            }
            for (more, _) in files {
                sink.refuse(&*more.path, "a second output from a file: a Pod hands back one");
            }
        }
        let step = misses.or(step)?;
        // Fields that a Pod does not have would get lost on the way.
        super::pod::check(&step).map_err(|reason| Miss::refused(&self.template.path, reason))?;
        Ok(step)
    }

    /// Adds the Pod's own fields; the template's win over the workflow's.
    fn pod_fields(&self, fields: &PodFields, step: &mut PodStep, misses: &mut Misses, sink: &Sink) {
        let scope = &**self.scope;
        for (field, path, value) in &fields.fields {
            step.spec.insert((*field).to_owned(), misses.tree(value, path, scope));
        }
        for (path, volume) in &fields.volumes {
            let volume = misses.tree(volume, path, scope);
            match volume_name(&volume) {
                Some(name) if name.starts_with("quarterdeck-") => {
                    sink.refuse(&**path, "names that begin with quarterdeck- are taken")
                }
                Some(name) => {
                    step.volumes.retain(|known| volume_name(known) != Some(name));
                    step.volumes.push(volume);
                }
                None => sink.refuse(&**path, "it has no name"),
            }
        }
        for (pairs, to) in [(&fields.labels, &mut step.labels), (&fields.annotations, &mut step.annotations)] {
            for (key, value, path) in pairs {
                to.extend(misses.take(text(value, path, scope)).map(|value| (key.clone(), value)));
            }
        }
    }

    /// Keeps the volumes that are mounted; a mount of another one is refused.
    fn mounts(&self, container: &Container, step: &mut PodStep, sink: &Sink) {
        let path = container.fields.iter().find(|(field, ..)| *field == "volumeMounts").map(|(_, path, _)| path);
        let mounts = step.container.get("volumeMounts").and_then(Value::as_array).cloned().unwrap_or_default();
        let mounted: Vec<&str> = mounts.iter().filter_map(volume_name).collect();
        step.volumes.retain(|volume| volume_name(volume).is_some_and(|name| mounted.contains(&name)));
        for name in mounted {
            if !step.volumes.iter().any(|volume| volume_name(volume) == Some(name)) {
                sink.refuse(path.map_or("", |path| path), format!("there is no volume {name}"));
            }
        }
    }
}

/// Whether a container's words are read by an interpreter, as far as can be told: values in them must
/// then be plain. A container without a command runs whatever its image says.
pub(super) fn is_program_text<'w>(no_command: bool, mut words: impl Iterator<Item = &'w str>) -> bool {
    let evaluates = |word: &str| {
        is_shell(word)
            || matches!(word, "eval" | "exec" | "--command" | "--eval" | "--execute")
            || (word.starts_with('-') && !word.starts_with("--") && word.len() <= 6 && word.ends_with(['c', 'e']))
    };
    no_command || words.any(evaluates)
}

/// What went wrong in several places.
#[derive(Default)]
struct Misses {
    refusals: Vec<super::Refusal>,
    unknown: Option<String>,
}

impl Misses {
    fn take<T>(&mut self, value: Result<T, Miss>) -> Option<T> {
        match value {
            Ok(value) => return Some(value),
            Err(Miss::Refused(refusals)) => self.refusals.extend(refusals),
            Err(Miss::Unknown(reason)) => {
                self.unknown.get_or_insert(reason);
            }
        }
        None
    }

    /// A tree with values in its texts; keys have none.
    fn tree(&mut self, value: &Value, path: &str, scope: &Scope) -> Value {
        match value {
            Value::String(source) => self.take(text(source, path, scope)).unwrap_or_default().into(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.tree(item, &format!("{path}[{index}]"), scope))
                .collect(),
            Value::Object(fields) => {
                let fields =
                    fields.iter().map(|(key, value)| (key.clone(), self.tree(value, &format!("{path}.{key}"), scope)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    fn or<T>(self, value: T) -> Result<T, Miss> {
        match self.unknown {
            _ if !self.refusals.is_empty() => Err(Miss::Refused(self.refusals)),
            Some(reason) => Err(Miss::Unknown(reason)),
            None => Ok(value),
        }
    }
}
