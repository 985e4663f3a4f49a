//! `wait`: watches addons until they are as they should be, and tells how it goes.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::bail;
use futures::StreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use quarterdeck_api::addon::{Addon, Health, Phase};
use quarterdeck_api::duration;

use crate::cli::{Goal, NameArgs, WaitArgs};
use crate::exit::{NotFound, TimedOut};
use crate::output::print;
use crate::server::{Server, explain};

pub(super) async fn run(server: &Server, args: &WaitArgs) -> anyhow::Result<()> {
    let begun = tokio::time::Instant::now();
    let mut addons = Vec::new();
    for name in &args.names {
        let meant = NameArgs { name: name.clone(), namespace: args.namespace.clone() };
        match appeared(server, &meant, args.goal, begun + args.timeout).await {
            Err(error) if error.is::<NotFound>() && args.goal == Goal::Deleted => print(&reached(name, args.goal))?,
            found => addons.push(found?),
        }
    }
    by(server, &addons, args.goal, begun, args.timeout).await
}

/// The addon, once there is one: what a source has just been given is shown a moment later.
async fn appeared(
    server: &Server,
    meant: &NameArgs,
    goal: Goal,
    deadline: tokio::time::Instant,
) -> anyhow::Result<Addon> {
    const LOOK: Duration = Duration::from_millis(250);
    let mut progress = Progress::new();
    loop {
        match server.find(meant).await {
            Err(error) if error.is::<NotFound>() && goal != Goal::Deleted => {
                if tokio::time::Instant::now() + LOOK > deadline {
                    progress.end();
                    return Err(error);
                }
                progress.tell(&format!("{error}, yet"));
            }
            found => {
                progress.end();
                return found;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for all of the addons; the time is that of all together.
pub(super) async fn until(server: &Server, addons: &[Addon], goal: Goal, timeout: Duration) -> anyhow::Result<()> {
    by(server, addons, goal, tokio::time::Instant::now(), timeout).await
}

/// [`until`], counted from a moment before.
async fn by(
    server: &Server,
    addons: &[Addon],
    goal: Goal,
    begun: tokio::time::Instant,
    timeout: Duration,
) -> anyhow::Result<()> {
    let deadline = begun + timeout;
    for addon in addons {
        let mut progress = Progress::new();
        let waiting = one(server, addon, goal, &mut progress);
        let outcome = tokio::time::timeout_at(deadline, waiting).await;
        progress.end();
        match outcome {
            Ok(answer) => answer?,
            Err(_) => {
                let after = duration::format(timeout);
                return Err(TimedOut(format!("not within {after}: {}", progress.last)).into());
            }
        }
        print(&reached(addon.name(), goal))?;
    }
    Ok(())
}

fn reached(name: &str, goal: Goal) -> String {
    let word = match goal {
        Goal::Healthy => "healthy",
        Goal::Succeeded => "succeeded",
        Goal::Deleted => "deleted",
    };
    format!("addon {name} {word}\n")
}

/// Watches one addon until it is there.
async fn one(server: &Server, addon: &Addon, goal: Goal, progress: &mut Progress) -> anyhow::Result<()> {
    let name = addon.name();
    let api = server.api::<Addon>(Some(addon.namespace()));
    let what = format!("addon {name}");
    let field = format!("metadata.name={name}");
    let is_same = |seen: &Addon| seen.metadata.uid == addon.metadata.uid;
    'again: loop {
        let list = api.list(&ListParams::default().fields(&field)).await.map_err(|error| explain(error, &what))?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        match list.items.iter().find(|seen| is_same(seen)) {
            Some(seen) if is_reached(seen, goal) => return Ok(()),
            Some(seen) => progress.tell(&state(seen)),
            None if goal == Goal::Deleted => return Ok(()),
            None => return Err(NotFound(format!("{what} was deleted")).into()),
        }
        let watch = api.watch(&WatchParams::default().fields(&field), &version).await;
        let mut events = Box::pin(watch.map_err(|error| explain(error, &what))?);
        // A stream that ends, breaks or is too old is begun anew with a list, after a breath.
        while let Some(Ok(event)) = events.next().await {
            match event {
                WatchEvent::Added(seen) | WatchEvent::Modified(seen) if is_same(&seen) => {
                    if is_reached(&seen, goal) {
                        return Ok(());
                    }
                    progress.tell(&state(&seen));
                }
                WatchEvent::Deleted(seen) if is_same(&seen) => {
                    if goal == Goal::Deleted {
                        return Ok(());
                    }
                    bail!(NotFound(format!("{what} was deleted")));
                }
                WatchEvent::Error(_) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue 'again;
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether an addon is as the goal says. What is said about an older spec does not count.
fn is_reached(addon: &Addon, goal: Goal) -> bool {
    let Some(status) = &addon.status else { return false };
    let seen = match (status.observed_generation, addon.metadata.generation) {
        (Some(observed), Some(generation)) => observed >= generation,
        _ => true,
    };
    let succeeded = status.lifecycle.installed == Some(Phase::Succeeded);
    seen && addon.metadata.deletion_timestamp.is_none()
        && match goal {
            Goal::Healthy => status.health.map_or(succeeded, |health| health == Health::Ready),
            Goal::Succeeded => succeeded,
            Goal::Deleted => false,
        }
}

/// How an addon is, in a line.
fn state(addon: &Addon) -> String {
    let status = addon.status.clone().unwrap_or_default();
    let health = status.health.map_or_else(|| addon.phase().to_string(), |health| health.to_string());
    let mut line = format!("{}: {health}", addon.name());
    if addon.metadata.deletion_timestamp.is_some() {
        line.push_str(", being deleted");
    }
    if !status.reason.is_empty() {
        line.push_str(&format!(", {}", status.reason.lines().next().unwrap_or_default()));
    }
    if let Some(held) = &status.held {
        line.push_str(&format!("; a removal waits: addonctl prune {} --confirm={}", addon.name(), held.plan));
    }
    line
}

/// Tells on the standard error how it goes: on a terminal in one line that is written over, else a line
/// for each change.
struct Progress {
    terminal: bool,
    last: String,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: "nothing was seen yet".to_owned() }
    }

    fn tell(&mut self, line: &str) {
        if line == self.last {
            return;
        }
        line.clone_into(&mut self.last);
        if self.terminal {
            eprint!("\r\u{1b}[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\u{1b}[2K");
            let _ = std::io::stderr().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reaches(metadata: &Value, status: &Value, goal: Goal) -> bool {
        let addon = serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("an Addon");
        is_reached(&addon, goal)
    }

    #[test]
    fn only_what_is_said_about_the_present_spec_counts() {
        let ready = json!({"health": "Ready", "observedGeneration": 2, "lifecycle": {"installed": "Succeeded"}});
        assert!(reaches(&json!({"generation": 2}), &ready, Goal::Healthy));
        assert!(!reaches(&json!({"generation": 3}), &ready, Goal::Healthy));
        assert!(!reaches(&json!({"generation": 3}), &ready, Goal::Succeeded));
        assert!(!reaches(&json!({"generation": 2}), &ready, Goal::Deleted));
        let going = json!({"generation": 2, "deletionTimestamp": "2024-01-01T00:00:00Z"});
        assert!(!reaches(&going, &ready, Goal::Healthy));
    }

    #[test]
    fn succeeded_is_healthy_where_nobody_tells_the_health() {
        let status = json!({"lifecycle": {"installed": "Succeeded"}});
        assert!(reaches(&json!({}), &status, Goal::Healthy));
        let status = json!({"lifecycle": {"installed": "Succeeded"}, "health": "Degraded"});
        assert!(!reaches(&json!({}), &status, Goal::Healthy));
        assert!(reaches(&json!({}), &status, Goal::Succeeded));
        assert!(!reaches(&json!({}), &json!({"lifecycle": {"installed": "Failed"}}), Goal::Healthy));
        assert!(!reaches(&json!({}), &Value::Null, Goal::Healthy));
    }
}
