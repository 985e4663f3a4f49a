use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

const ENDINGS: &[&str] = &["yaml", "yml", "json"];

fn names(root: &Root) -> Vec<String> {
    root.find(100, ENDINGS).files.iter().map(ToString::to_string).collect()
}

#[test]
fn manifests_are_found_wherever_they_lie() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("b/c")).expect("folders");
    for name in ["z.yaml", "a.yml", "b/m.json", "b/c/d.yaml", "note.txt", ".hidden.yaml", "b/.x.yaml", "yaml"] {
        fs::write(at(name), name).expect("a file");
    }
    let root = Root::open(dir.path()).expect("a root");
    assert_eq!(names(&root), ["a.yml", "b/c/d.yaml", "b/m.json", "z.yaml"]);
    assert_eq!(root.read("b/m.json", 100).expect("readable").bytes, b"b/m.json");
    assert!(root.find(100, ENDINGS).faults.is_empty());
    let few = root.find(2, ENDINGS);
    assert_eq!((few.files.len(), few.faults.len()), (2, 1));
}

#[test]
fn links_that_stay_inside_work() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    // A mounted ConfigMap: ..data is swapped, the files point through it.
    fs::create_dir_all(at("..2026_1/sub")).expect("folders");
    fs::write(at("..2026_1/a.yaml"), "one").expect("a file");
    fs::write(at("..2026_1/sub/b.yaml"), "two").expect("a file");
    symlink("..2026_1", at("..data")).expect("a link");
    symlink("..data/a.yaml", at("a.yaml")).expect("a link");
    symlink("..data/sub", at("sub")).expect("a link");
    let root = Root::open(dir.path()).expect("a root");
    assert_eq!(names(&root), ["a.yaml", "sub/b.yaml"]);
    assert_eq!(root.read("a.yaml", 100).expect("readable").bytes, b"one");
    fs::create_dir(at("..2026_2")).expect("a folder");
    fs::write(at("..2026_2/a.yaml"), "three").expect("a file");
    symlink("..2026_2", at("..tmp")).expect("a link");
    fs::rename(at("..tmp"), at("..data")).expect("a swap");
    assert_eq!(root.read("a.yaml", 100).expect("readable").bytes, b"three");
}

#[test]
fn nothing_outside_is_read() {
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("secret.yaml"), "secret").expect("a file");
    fs::create_dir(outside.path().join("in")).expect("a folder");
    let dir = outside.path().join("in");
    let secret = outside.path().join("secret.yaml");
    symlink(&secret, dir.join("absolute.yaml")).expect("a link");
    symlink("../secret.yaml", dir.join("up.yaml")).expect("a link");
    symlink("x/../../secret.yaml", dir.join("over.yaml")).expect("a link");
    symlink("..", dir.join("folder")).expect("a link");
    symlink("/proc/self/root/etc", dir.join("proc.yaml")).expect("a link");
    symlink("loop.yaml", dir.join("loop.yaml")).expect("a link");
    symlink(".", dir.join("self")).expect("a link");
    fs::create_dir(dir.join("x")).expect("a folder");
    symlink("../x", dir.join("x/again")).expect("a link");
    fs::write(dir.join("x/good.yaml"), "good").expect("a file");
    let root = Root::open(&dir).expect("a root");
    for name in
        ["absolute.yaml", "up.yaml", "over.yaml", "proc.yaml", "loop.yaml", "../secret.yaml", "folder/secret.yaml"]
    {
        assert!(root.read(name, 100).is_err(), "{name}");
    }
    assert!(matches!(root.read("up.yaml", 100), Err(ReadFault::LeadsOut)));
    assert_eq!(root.read("x/good.yaml", 100).expect("readable").bytes, b"good");
    assert!(!names(&root).iter().any(|name| name.contains("secret")), "{:?}", names(&root));
    assert_eq!(names(&root).iter().filter(|name| name.ends_with("good.yaml")).count(), 1);
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    mkfifo(&dir.path().join("fifo.yaml"), Mode::S_IRWXU).expect("a FIFO");
    fs::create_dir(dir.path().join("folder.yaml")).expect("a folder");
    symlink("/dev/zero", dir.path().join("zero.yaml")).expect("a link");
    let sparse = fs::File::create(dir.path().join("huge.yaml")).expect("a file");
    sparse.set_len(1 << 30).expect("a sparse gigabyte");
    let root = Root::open(dir.path()).expect("a root");
    assert!(matches!(root.read("fifo.yaml", 100), Err(ReadFault::NotAFile)));
    assert!(matches!(root.read("folder.yaml", 100), Err(ReadFault::NotAFile)));
    assert!(matches!(root.read("zero.yaml", 100), Err(ReadFault::LeadsOut)));
    assert!(matches!(root.read("huge.yaml", 100), Err(ReadFault::TooLarge { .. })));
    assert!(matches!(root.read("none.yaml", 100), Err(ReadFault::System(_))));
    assert!(root.find(10, ENDINGS).files.iter().any(|name| &**name == "fifo.yaml"), "a FIFO called a manifest is told");
    assert!(Root::open(&dir.path().join("none")).is_err());
    assert!(Root::open(&dir.path().join("huge.yaml")).is_err());
}
