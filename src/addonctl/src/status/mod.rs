//! `status`: what is wrong in words, and how all is, at a glance.

mod leases;
mod page;
mod text;
mod verdict;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::cli::{Connection, ListForm, ObjectForm, StatusArgs};
use crate::columns::Dress;
use crate::exit::Exit;
use crate::output::{object, print};
use crate::reach::Site;

pub(crate) use page::{NoStatus, PATH, Page};
pub(crate) use text::{caches, leader, seconds, state_colour};
pub(crate) use verdict::{Verdict, colour};

/// Prints how the managers are.
///
/// # Errors
/// When that cannot be found out.
pub(crate) async fn run(connection: &Connection, args: &StatusArgs) -> anyhow::Result<Exit> {
    let site = Site::open(connection, &args.reach).await?;
    let page = look(&site).await?;
    let verdict = Verdict::of(&page);
    let text = match args.output {
        ListForm::Json => object(&page.whole, ObjectForm::Json)?,
        ListForm::Yaml => object(&page.whole, ObjectForm::Yaml)?,
        form @ (ListForm::Table | ListForm::Wide) => {
            text::render(&page, &verdict, form == ListForm::Wide, Timestamp::now(), Dress::of_stdout())
        }
    };
    print(&text)?;
    Ok(verdict.exit())
}

/// Asks the leader, or a survivor; of managers that are all silent, their Leases tell.
pub(crate) async fn look(site: &Site) -> anyhow::Result<Page> {
    let survey = site.survey().await?;
    let error = match site.reach(&survey, &BTreeSet::new(), |_| {}).await {
        Ok(reached) => {
            for error in &reached.passed {
                eprintln!("note: {error}");
            }
            let mut manager = reached.manager;
            match manager.get(PATH, "application/json").await {
                Ok(answer) => return Ok(Page::read(&answer.body, &manager.place)?),
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    match leases::page(&survey, site.lease()) {
        Some(page) if error.is_about_one_replica() => {
            eprintln!("note: {error}");
            Ok(page)
        }
        _ => Err(error.into()),
    }
}
