//! Pages whose commands are pasted: every block marked `sh`, in one shell, from the folder of the project. A block that needs
//! more than the others says so behind that (`sh kubelet`), and is pasted by the test that has it.

mod deploy;
mod kubelet;
mod migrate;
mod room;
mod systemd;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::repository;
use tokio::process::Command;

/// The blocks of a page that are pasted.
fn pasted(page: &str) -> String {
    pasted_with(page, &[])
}

/// The blocks of a page that are pasted where these are at hand: what blocks name behind `sh`.
fn pasted_with(page: &str, at_hand: &[&str]) -> String {
    let taken = blocks(page).into_iter().filter(|(mark, _)| {
        mark.strip_prefix("sh").is_some_and(|needs| needs.split_whitespace().all(|need| at_hand.contains(&need)))
    });
    taken.map(|(_, text)| text).collect()
}

/// The blocks of a page: what stands behind the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line.strip_prefix("```")) {
            (false, Some(mark)) => {
                inside = true;
                all.push((mark.to_owned(), String::new()));
            }
            (true, Some("")) => inside = false,
            (true, _) => {
                if let Some((_, text)) = all.last_mut() {
                    text.extend([line, "\n"]);
                }
            }
            (false, None) => {}
        }
    }
    all
}

/// Every block of these pages is pasted by a test: none is left unmarked, or asks for what no test has.
#[test]
fn every_block_of_the_guides_is_pasted() -> Result<()> {
    for folder in ["docs/deploy", "docs/migrate"] {
        for entry in std::fs::read_dir(repository().join(folder))? {
            let path = entry?.path();
            let name = path.strip_prefix(repository())?.display().to_string();
            let page = std::fs::read_to_string(&path)?;
            let known = deploy::PAGES.iter().chain(&migrate::PAGES).find(|(page, _)| *page == name);
            let blocks = blocks(&page);
            ensure!(known.is_some() || blocks.is_empty(), "{name} has commands, and no test pastes them");
            for (mark, text) in blocks {
                let needs =
                    mark.strip_prefix("sh").with_context(|| format!("{name}: a block is marked {mark:?}:\n{text}"))?;
                let at_hand = known.map_or(&[][..], |(_, at_hand)| *at_hand);
                ensure!(needs.split_whitespace().all(|need| at_hand.contains(&need)), "{name}: no test has {needs}");
            }
        }
    }
    Ok(())
}

/// Everything is built before the tests run, and a build beside them would replace what they run: this stands for
/// cargo, builds nothing, and runs what is there.
fn cargo(folder: &Path) -> Result<()> {
    let programs = program_named("cluster")?;
    let programs = programs.parent().context("a program is in a folder")?;
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = build ] && exit 0\nwhile [ \"$1\" != --bin ]; do shift; done\nbin=$2\n\
         while [ \"$1\" != -- ]; do shift; done\nshift\nexec {}/$bin \"$@\"\n",
        programs.display()
    );
    let file = folder.join("cargo");
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[tokio::test]
async fn the_tour_of_addons_goes_from_an_empty_cluster_to_the_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    cargo(folder.path())?;
    let page = std::fs::read_to_string(repository().join("docs/controllers/addon.md"))?;
    // Beside other tests, and whatever an earlier run left.
    let dir = folder.path().join("tour").display().to_string();
    let script = pasted(&page).replace("target/tour", &dir);
    ensure!(script.contains("hack/run --dir"), "the page has no commands");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let shell = |script: String| {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-x", "-c", &script]).current_dir(repository()).env("PATH", &path);
        bash.env("CARGO_TARGET_DIR", quarterdeck_it::target());
        bash
    };
    let ran = shell(script).output().await.context("running bash")?;
    let end = shell(format!("hack/run stop --dir {dir}")).output().await?;
    ensure!(ran.status.success(), "{}\n{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    Ok(())
}
