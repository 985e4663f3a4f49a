//! Channels from the command line: what they installed ([`get`]), and what they would update and do
//! update ([`apply`]), as kOps' tool does it.

mod carry_out;
mod get;
mod pki;
mod read;

use kube::api::ListParams;
use quarterdeck_api::channel::Installed;

pub(crate) use get::get;

use crate::cli::ApplyChannelArgs;
use crate::output::{Table, print};
use crate::server::Server;
use read::Update;

/// Shows what the channels would update; with `--yes` does it.
///
/// # Errors
/// When a channel cannot be read, or an update fails. Others go on.
pub(crate) async fn apply(server: &Server, args: &ApplyChannelArgs) -> anyhow::Result<()> {
    let read::Reading { updates, failed } = read::updates(server, &args.urls).await?;
    if updates.is_empty() {
        print("No update required\n")?;
    } else {
        print(&table(&updates))?;
        if !args.yes {
            print("\nMust specify --yes to update\n")?;
        }
    }
    let mut wrong = failed;
    for update in updates.iter().filter(|_| args.yes) {
        let name = &update.entry.name;
        match carry_out::run(server, update).await {
            Ok(()) => print(&format!("Updated {name:?} to {}\n", version(Some(&update.offer.note))))?,
            Err(error) => {
                wrong += 1;
                eprintln!("error: addon {name}: {error:#}");
            }
        }
    }
    anyhow::ensure!(wrong == 0, "{wrong} of the channels' addons could not be handled");
    Ok(())
}

/// What is to be updated, as kOps prints it.
fn table(updates: &[Update]) -> String {
    let mut table = Table::new(&["NAME", "CURRENT", "UPDATE", "PKI"]);
    for update in updates {
        let offered = update.applies().then_some(&update.offer.note);
        let pki = if update.required.install_pki { "yes" } else { "no" };
        table.row([update.entry.name.clone(), version(update.installed.as_ref()), version(offered), pki.to_owned()]);
    }
    table.render(|_, _| None)
}

/// What tells a state of an addon from others: its version, else its hash, else its id; `-` for none.
fn version(note: Option<&Installed>) -> String {
    let Some(note) = note else { return "-".to_owned() };
    let version = note.version.as_deref().unwrap_or_default();
    let told = [version, &note.manifest_hash, &note.id].into_iter().find(|text| !text.is_empty());
    told.unwrap_or("-").to_owned()
}

/// Everything of a kind.
fn everything() -> ListParams {
    ListParams::default()
}
