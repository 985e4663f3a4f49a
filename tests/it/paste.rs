//! Pages whose commands are pasted: every block marked `sh`, in one shell, from the folder of the project.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::repository;
use tokio::process::Command;

/// The blocks of a page that are pasted.
fn pasted(page: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, _) => text.extend([line, "\n"]),
            (false, _) => {}
        }
    }
    text
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
