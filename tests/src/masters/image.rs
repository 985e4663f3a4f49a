//! The image of quarterdeck that tests run: as `hack/image --debug` makes it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::Masters;
use crate::binaries::{repository, target};

/// An archive with one image; the file goes with the last clone.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its whole name, with registry and tag.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    file: Arc<tempfile::TempPath>,
}

impl Image {
    /// The archive.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Wraps a program into an image.
///
/// # Errors
/// With what `hack/image` said, when it fails.
pub async fn image(program: &Path, name: &str) -> Result<Image> {
    let folder = target().join("it");
    std::fs::create_dir_all(&folder)?;
    let file = tempfile::Builder::new().prefix("image-").suffix(".tar").tempfile_in(&folder)?.into_temp_path();
    let script: PathBuf = repository().join("hack/image");
    let output = Command::new(&script)
        .args(["--debug", "--name", name, "--program"])
        .arg(program)
        .arg("--out")
        .arg(&file)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    }
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Image { name: name.to_owned(), digest, file: Arc::new(file) })
}

impl Masters {
    /// Runs `ctr` against the containerd of a master; its output if it ends well.
    ///
    /// # Errors
    /// With what it said, when it does not.
    pub async fn ctr(&self, number: usize, args: &[&str]) -> Result<String> {
        let address = self.master(number).containerd()?;
        let output = Command::new(self.parts()?.join("bin/ctr"))
            .args(["--address", &address, "--namespace", "k8s.io"])
            .args(args)
            .output()
            .await
            .context("running ctr")?;
        if !output.status.success() {
            bail!("ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Loads another image on every master.
    ///
    /// # Errors
    /// When one of them refuses.
    pub async fn load(&self, image: &Image) -> Result<()> {
        let file = image.file().display().to_string();
        for master in self.all() {
            self.ctr(master.number(), &["images", "import", &file]).await?;
        }
        Ok(())
    }
}
