//! From a command line to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::builder::Manager;
use crate::flags::{FlagSet, Outcome, Parsed, terminal_width};
use crate::install::command::{INSTALL, InstallFlags, UNINSTALL};
use crate::log::LogLevel;

/// Worker threads at most: controllers wait more than they compute, and each thread costs memory.
const THREADS: usize = 4;

/// Every flag and subcommand of a manager.
pub(crate) fn flag_set(manager: &Manager) -> FlagSet {
    let flags = FlagSet::new(manager.program.clone());
    let flags = manager.shared.iter().fold(flags, |flags, shared| (shared.flags)(flags));
    let flags = manager.entries.iter().fold(flags, |flags, entry| (entry.flags)(flags));
    flags
        .subcommand::<InstallFlags>(INSTALL, "Bring what the server needs: roles, a FlowSchema, the epoch fence")
        .subcommand::<InstallFlags>(UNINSTALL, "Remove what install brought")
}

/// Does what the arguments say.
pub(crate) fn run(manager: &Manager, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = match flag_set(manager).parse(args, terminal_width()) {
        Ok(outcome) => outcome,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::FAILURE;
        }
    };
    // Only one provider is compiled in; a second call would find it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ended = match outcome {
        Outcome::Print(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Outcome::Command(name, parsed) => block_on(crate::install::command::run(manager, &parsed, name == UNINSTALL)),
        Outcome::Run(parsed) => LogLevel::start(&parsed.options.logs, &manager.program).and_then(|log| {
            announce(manager, &parsed);
            let ended = block_on(crate::run::run(manager, &parsed, log.clone()));
            log.finish();
            ended
        }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each told once: many messages hold those of their causes already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        _ if text.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let ended = runtime.block_on(work);
    // What still blocks a thread, such as a file system that hangs, is not waited for.
    runtime.shutdown_background();
    ended
}

/// Says what this process was told to do, once.
fn announce(manager: &Manager, parsed: &Parsed) {
    for warning in &parsed.warnings {
        tracing::warn!(warning, "a flag does not do what it says");
    }
    let enabled: Vec<_> = parsed.selection.enabled().collect();
    let disabled: Vec<_> = parsed.selection.disabled().collect();
    tracing::info!(
        program = manager.program.name,
        version = manager.program.version,
        enabled = enabled.join(","),
        disabled = disabled.join(","),
        "starting"
    );
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::told;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("no such file").context("/a: no such file").context("reading");
        assert_eq!(told(&error), "reading: /a: no such file");
    }
}
