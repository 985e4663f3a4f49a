//! What each command does.

mod apply;
mod create;
mod delete;
mod describe;
mod get;
mod logs;
mod mark;
mod prune;
mod rollback;
mod shell;
mod wait;

use crate::cli::{ChannelsCommand, Cli, Command};
use crate::exit::Exit;
use crate::output::print;
use crate::server::Server;

/// Does what the command line says.
///
/// # Errors
/// When it cannot be done.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Completion { shell } => shell::completion(shell)?,
        Command::Man { dir } => shell::man(dir.as_deref())?,
        Command::Version => print(concat!("addonctl ", env!("CARGO_PKG_VERSION"), "\n"))?,
        Command::Create(args) if args.flags.dryrun => {
            let addon = crate::create::addon(&args.name, &args.flags)?;
            print(&crate::output::object(&addon, args.output)?)?;
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(Box::pin(ask(cli)));
        }
    }
    Ok(Exit::Fine)
}

/// Does what needs a server.
async fn ask(cli: Cli) -> anyhow::Result<Exit> {
    let server = async || Server::connect(&cli.connection).await;
    match cli.command {
        Command::Create(args) => {
            // What is wrong with the files is said before any server is looked for.
            let addon = crate::create::addon(&args.name, &args.flags)?;
            create::run(&server().await?, &addon).await?;
        }
        Command::Get(args) => get::run(&server().await?, &args).await?,
        Command::Describe(args) => describe::run(&server().await?, &args).await?,
        Command::Plan(args) => return crate::plan::run(&server().await?, &args).await,
        Command::Apply(args) => apply::run(&args, server).await?,
        Command::Delete(args) => delete::run(&server().await?, &args).await?,
        Command::Wait(args) => wait::run(&server().await?, &args).await?,
        Command::Prune(args) => prune::run(&server().await?, &args).await?,
        Command::Pause(args) => mark::run(&server().await?, &args, mark::Mark::Pause).await?,
        Command::Resume(args) => mark::run(&server().await?, &args, mark::Mark::Resume).await?,
        Command::Adopt(args) => mark::run(&server().await?, &args, mark::Mark::Adopt).await?,
        Command::Rollback(args) => rollback::run(&server().await?, &args).await?,
        Command::Logs(args) => logs::run(&server().await?, &args).await?,
        Command::Status(args) => return crate::status::run(&cli.connection, &args).await,
        Command::Top(args) => return crate::top::run(&cli.connection, &args).await,
        Command::Dashboard(args) => crate::dashboard::run(&cli.connection, &args).await?,
        Command::Channels { command: ChannelsCommand::Get { output, .. } } => {
            crate::channels::get(&server().await?, output).await?;
        }
        Command::Channels { command: ChannelsCommand::Apply(args) } => {
            crate::channels::apply(&server().await?, &args).await?;
        }
        Command::Completion { .. } | Command::Man { .. } | Command::Version => {}
    }
    Ok(Exit::Fine)
}
