//! `plan`: what the manager would do about addons, asked of the server by dry runs. Nothing is written.
//!
//! A [`Subject`] is one addon as it should be: its objects, what its inventory holds now, and what its
//! steps would run. [`ask`] holds each object against the server; [`show`] tells the outcome.

mod ask;
mod diff;
mod read;
mod show;
mod subject;

use crate::cli::PlanArgs;
use crate::exit::Exit;
use crate::output::print;
use crate::server::Server;

/// Plans the addon that is named, or those of the files.
///
/// # Errors
/// When something could not be planned; what could is told before.
pub(crate) async fn run(server: &Server, args: &PlanArgs) -> anyhow::Result<Exit> {
    let subjects = match &args.name {
        Some(name) => {
            let meant = crate::cli::NameArgs { name: name.clone(), namespace: args.namespace.clone() };
            let addon = server.find(&meant).await?;
            anyhow::ensure!(
                !addon.is_mirror(),
                "addon {name} shows an addon of another source; plan its files with -f"
            );
            vec![subject::of_addon(&addon, Some(&addon), None)]
        }
        None => read::subjects(server, args).await?,
    };
    let mut kinds = crate::kinds::Kinds::default();
    let mut total = show::Count::default();
    for subject in &subjects {
        let outcome = ask::outcome(server, &mut kinds, subject).await;
        print(&show::text(&outcome))?;
        total.add(&outcome);
    }
    print(&total.text())?;
    anyhow::ensure!(total.failed == 0, "{} could not be planned", total.failed);
    Ok(if total.changes() == 0 { Exit::Fine } else { Exit::Changes })
}
