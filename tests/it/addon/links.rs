//! Directories as a kubelet mounts a ConfigMap: links through `..data`, which is swapped.

use std::os::unix::fs::symlink;

use super::{World, at, map};

impl World {
    /// Swaps the content of the directory as a kubelet does: a new folder, a new `..data`, then links
    /// to what is new, and away with those to what is no more.
    fn mount(&self, version: u32, files: &[(&str, &str)]) {
        let folder = format!("..version-{version}");
        std::fs::create_dir(self.path(&folder)).unwrap();
        for (name, text) in files {
            std::fs::write(self.path(&folder).join(name), text).unwrap();
        }
        symlink(&folder, self.path("..data_tmp")).unwrap();
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        for (name, _) in files.iter().filter(|(name, _)| !self.path(name).is_symlink()) {
            symlink(format!("..data/{name}"), self.path(name)).unwrap();
        }
        for entry in std::fs::read_dir(self.path("")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let stays = name == "..data" || name == folder || files.iter().any(|(file, _)| *file == name);
            match entry.file_type().unwrap().is_dir() {
                _ if stays => {}
                true => std::fs::remove_dir_all(entry.path()).unwrap(),
                false => std::fs::remove_file(entry.path()).unwrap(),
            }
        }
    }
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let world = World::start(&[]).await;
    let (a, b) = (map("a", "Reconcile", "v"), map("b", "Reconcile", "v"));
    world.mount(1, &[("a.yaml", &a), ("b.yaml", &b)]);
    for file in ["a.yaml", "b.yaml"] {
        world.parent(file, "ready").await;
    }
    let uid = world.until_there(&at("a")).await["metadata"]["uid"].clone();
    // The content changes behind links that stay.
    world.mount(2, &[("a.yaml", &map("a", "Reconcile", "w")), ("b.yaml", &b)]);
    world.until(&at("a"), "the new content is applied", |object| object["data"]["k"] == "w").await;
    // A file comes, and one goes, in one swap.
    world.mount(3, &[("a.yaml", &map("a", "Reconcile", "x")), ("c.yaml", &map("c", "Reconcile", "v"))]);
    world.until_there(&at("c")).await;
    world.until_gone(&at("b")).await;
    world.until_no_parent("b.yaml").await;
    let a = world.until(&at("a"), "it is applied", |object| object["data"]["k"] == "x").await;
    assert_eq!(a["metadata"]["uid"], uid, "it was there all the time");
}
