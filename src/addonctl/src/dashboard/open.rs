//! Opens the browser.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::respond::escaped;

/// A file that leads to the URL, and goes when it is dropped. Only we can read it.
#[derive(Debug)]
pub(super) struct Signpost(PathBuf);

impl Signpost {
    fn put(folder: &Path, url: &str) -> std::io::Result<Self> {
        let path = folder.join(format!("addonctl-{}.html", uuid::Uuid::new_v4().simple()));
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let url = escaped(url);
        let signpost = Self(path);
        writeln!(
            file,
            "<!doctype html><meta charset=\"utf-8\"><title>quarterdeck</title><meta http-equiv=\"refresh\" \
             content=\"0;url={url}\"><a href=\"{url}\">The status page</a>"
        )?;
        Ok(signpost)
    }
}

impl Drop for Signpost {
    fn drop(&mut self) {
        // It may have been cleared away.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Has the desktop open the URL, by a file that leads to it: what a program is started with can be read by everybody on
/// the machine. What is returned has to be kept while the browser may read it.
pub(super) fn browser(url: &str) -> Option<Signpost> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let signpost = match Signpost::put(&folder, url) {
        Ok(signpost) => signpost,
        Err(error) => {
            eprintln!("note: the browser was not opened: {}: {error}", folder.display());
            return None;
        }
    };
    let mut opener = tokio::process::Command::new("xdg-open");
    opener.arg(&signpost.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match opener.spawn() {
        Ok(mut opener) => {
            tokio::spawn(async move {
                if !opener.wait().await.is_ok_and(|ended| ended.success()) {
                    eprintln!("note: xdg-open found no browser; open the URL yourself");
                }
            });
            Some(signpost)
        }
        Err(error) => {
            eprintln!("note: the browser was not opened: xdg-open: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_ours_and_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let signpost = Signpost::put(folder.path(), "http://127.0.0.1:1/?token=x&y").expect("a file");
        let path = signpost.0.clone();
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(std::fs::read_to_string(&path).expect("a text").contains("url=http://127.0.0.1:1/?token=x&amp;y\""));
        drop(signpost);
        assert!(!path.exists());
    }
}
