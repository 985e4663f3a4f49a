//! Completion scripts and manual pages, made of the command line's own description.

use std::path::Path;

use anyhow::Context as _;

use crate::cli;
use crate::output::print;

/// Prints the completion script of a shell.
pub(super) fn completion(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "addonctl", &mut script);
    print(&String::from_utf8(script)?)
}

/// Prints the manual page, or writes a page for each command into a folder.
pub(super) fn man(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else { return print(&page(cli::command())?) };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut root = cli::command();
    root.build();
    write(folder, &root, "addonctl")
}

/// Writes the pages of a command and of those below it.
fn write(folder: &Path, command: &clap::Command, name: &str) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}.1"));
    let text = page(command.clone().name(name.to_owned()))?;
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write(folder, below, &format!("{name}-{}", below.get_name()))?;
    }
    Ok(())
}

fn page(command: clap::Command) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}
