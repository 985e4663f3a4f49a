use std::fs;

use super::*;

const MAP: &str =
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {addonmanager.kubernetes.io/mode: Reconcile}}}";

/// Has a writer end, also when the test fails.
struct Ends<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn scanner(dir: &Path) -> Scanner {
    Scanner::new(dir.to_owned(), Limits { file_bytes: 1000, ..Limits::default() })
}

#[test]
fn a_reading_settles_when_the_next_agrees() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.yaml"), MAP).expect("a file");
    let mut scanner = scanner(dir.path());
    let start = Instant::now();
    assert!(!scanner.scan(start).settled);
    assert!(!scanner.scan(start + SETTLE / 2).settled);
    assert!(scanner.scan(start + SETTLE).settled);
    fs::write(dir.path().join("b.yaml"), MAP).expect("a file");
    assert!(!scanner.scan(start + SETTLE * 2).settled);
    assert!(scanner.scan(start + SETTLE * 3).settled);
    fs::remove_file(dir.path().join("b.yaml")).expect("removed");
    let gone = scanner.scan(start + SETTLE * 4);
    assert_eq!((gone.addons.len(), gone.complete, gone.settled), (1, true, false));
}

#[test]
fn what_cannot_be_read_is_there_and_is_no_evidence() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("good.yaml"), MAP).expect("a file");
    fs::write(at("half.yaml"), format!("{MAP}\n---\na: [")).expect("a file");
    fs::write(at("empty.yaml"), "# nothing\n").expect("a file");
    fs::write(at("large.yaml"), "x".repeat(2000)).expect("a file");
    fs::create_dir(at("folder.yaml")).expect("a folder");
    std::os::unix::fs::symlink("../x", at("out.yaml")).expect("a link");
    let snapshot = scanner(dir.path()).scan(Instant::now());
    assert!(snapshot.complete);
    let evidence: Vec<_> =
        snapshot.addons.iter().map(|(name, addon)| (&**name, addon.objects.len(), addon.is_evidence())).collect();
    assert_eq!(
        evidence,
        [
            ("empty.yaml", 0, false),
            ("good.yaml", 1, true),
            ("half.yaml", 1, false),
            ("large.yaml", 0, false),
            ("out.yaml", 0, false)
        ]
    );
    assert!(snapshot.addons["large.yaml"].problems[0].to_string().contains("2000 bytes"));
}

#[test]
fn a_missing_directory_is_not_complete() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut scanner = scanner(&dir.path().join("none"));
    let snapshot = scanner.scan(Instant::now());
    assert!(!snapshot.complete && !snapshot.settled && snapshot.addons.is_empty());
    assert!(snapshot.problem.expect("a problem").contains("none"));
}

#[test]
fn an_unchanged_file_is_decoded_once() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.yaml"), MAP).expect("a file");
    let mut scanner = scanner(dir.path());
    let (one, two) = (scanner.scan(Instant::now()), scanner.scan(Instant::now()));
    assert!(Arc::ptr_eq(&one.addons["a.yaml"], &two.addons["a.yaml"]));
    assert_eq!(one.digest, two.digest);
}

#[test]
fn what_cannot_be_read_any_more_stays_in_force() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join("addons").join(name);
    fs::create_dir_all(at("sub")).expect("folders");
    for name in ["a.yaml", "b.yaml", "sub/c.yaml"] {
        fs::write(at(name), MAP.replace("name: x", &format!("name: {}", &name[name.len() - 6..name.len() - 5])))
            .expect("a file");
    }
    let mut scanner = scanner(&dir.path().join("addons"));
    let good = scanner.scan(Instant::now());
    assert!(good.complete && good.addons.len() == 3);

    // One file: what it wanted is wanted, and it is told.
    fs::write(at("a.yaml"), "x".repeat(2000)).expect("too large");
    let snapshot = scanner.scan(Instant::now());
    let addon = &snapshot.addons["a.yaml"];
    assert!(snapshot.complete && !addon.is_evidence() && !addon.problems.is_empty());
    assert_eq!(addon.objects, good.addons["a.yaml"].objects);
    let again = scanner.scan(Instant::now());
    assert_eq!(again.addons["a.yaml"].objects, good.addons["a.yaml"].objects, "and not for one reading only");

    // Part of it cannot be looked into: what is gone elsewhere is gone, and the reading is no evidence.
    fs::remove_file(at("b.yaml")).expect("removed");
    fs::rename(at("sub"), dir.path().join("away")).expect("moved");
    let deep = "d/".repeat(20);
    fs::create_dir_all(at("sub").join(deep)).expect("folders nested too deep");
    let snapshot = scanner.scan(Instant::now());
    assert!(!snapshot.complete, "{:?}", snapshot.problem);
    assert!(!snapshot.addons.contains_key("b.yaml"));

    // The whole directory.
    let before = scanner.scan(Instant::now());
    fs::rename(dir.path().join("addons"), dir.path().join("gone")).expect("moved");
    let snapshot = scanner.scan(Instant::now());
    assert!(!snapshot.complete && !snapshot.settled && snapshot.problem.is_some());
    assert_eq!(snapshot.addons, before.addons);
}

#[test]
fn a_skipped_file_or_folder_is_no_evidence() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("sub")).expect("a folder");
    for name in ["a.yaml", "b.yaml", "sub/c.yaml"] {
        fs::write(at(name), MAP).expect("a file");
    }
    let mut scanner = scanner(dir.path());
    assert_eq!(scanner.scan(Instant::now()).addons["a.yaml"].objects.len(), 1);
    for mark in ["a.yaml.skip", "sub.skip", "b.skip", "none.yaml.skip"] {
        fs::write(at(mark), "").expect("a mark");
    }
    let snapshot = scanner.scan(Instant::now());
    assert!(snapshot.complete);
    let evidence: Vec<_> =
        snapshot.addons.iter().map(|(name, addon)| (&**name, addon.objects.len(), addon.is_evidence())).collect();
    assert_eq!(evidence, [("a.yaml", 0, false), ("b.yaml", 1, true), ("sub/c.yaml", 0, false)]);
    let problem = &snapshot.addons["sub/c.yaml"].problems[0];
    assert!(problem.warning && problem.to_string().contains("sub.skip"), "{problem}");
    fs::remove_file(at("sub.skip")).expect("the mark is taken away");
    assert!(scanner.scan(Instant::now()).addons["sub/c.yaml"].is_evidence());
}

/// A mounted volume that is swapped while it is read: what counts is all of one state or all of the
/// other, and a file is never missing.
#[test]
fn a_swapped_volume_is_never_a_mix() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    const FILES: usize = 12;
    for state in 0..2 {
        fs::create_dir(at(&format!("..{state}"))).expect("a folder");
        for file in 0..FILES {
            let text = MAP.replace("name: x", &format!("name: f{file}-s{state}"));
            fs::write(at(&format!("..{state}/{file}.yaml")), text).expect("a file");
        }
    }
    std::os::unix::fs::symlink("..0", at("..data")).expect("a link");
    for file in 0..FILES {
        std::os::unix::fs::symlink(format!("..data/{file}.yaml"), at(&format!("{file}.yaml"))).expect("a link");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (1_usize..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                std::os::unix::fs::symlink(format!("..{}", round % 2), at("..new")).expect("a link");
                fs::rename(at("..new"), at("..data")).expect("a swap");
                if round % 7 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let _ends = Ends(&stop);
        let mut scanner = scanner(dir.path());
        let start = Instant::now();
        for round in 0..300 {
            // Each reading comes late enough to settle, if it agrees with the one before.
            let snapshot = scanner.scan(start + SETTLE * round);
            let states: std::collections::BTreeSet<&str> = snapshot
                .addons
                .values()
                .flat_map(|addon| &addon.objects)
                .map(|object| &object.ident.name[object.ident.name.len() - 2..])
                .collect();
            assert_eq!(snapshot.addons.len(), FILES);
            // What may settle at the next reading is steady now.
            assert!(scanner.agreed.is_none() || states.len() == 1, "steady on {states:?}");
            assert!(!snapshot.settled || states.len() == 1, "settled on {states:?}");
        }
    });
    let mut scanner = scanner(dir.path());
    let start = Instant::now();
    scanner.scan(start);
    assert!(scanner.scan(start + SETTLE).settled);
}

/// Files that change their names all the time: none of them is ever evidence of another's absence.
#[test]
fn a_storm_of_renames_settles_on_nothing_false() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: String| dir.path().join(name);
    fs::write(at("fixed.yaml".to_owned()), MAP).expect("a file");
    fs::write(at("0.yaml".to_owned()), MAP.replace("name: x", "name: wanders")).expect("a file");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0_usize..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                let name = |round: usize| at(format!("{}.yaml", round % 5));
                fs::rename(name(round), name(round + 1)).expect("a rename");
            }
        });
        let _ends = Ends(&stop);
        let mut scanner = scanner(dir.path());
        let start = Instant::now();
        for round in 0..500 {
            let snapshot = scanner.scan(start + SETTLE * round);
            assert!(snapshot.addons.contains_key("fixed.yaml"));
            let wanders = snapshot.addons.keys().any(|name| &**name != "fixed.yaml");
            assert!(wanders || !snapshot.complete || scanner.agreed.is_none(), "{snapshot:?}");
        }
    });
}

/// What is read is what is hashed, however fast the file is swapped.
#[test]
fn content_and_digest_belong_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let texts: Vec<String> = (0..2).map(|n| MAP.replace("name: x", &format!("name: x{n}"))).collect();
    fs::write(at("a.yaml"), &texts[0]).expect("a file");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0_usize..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                fs::write(at("new"), &texts[round % 2]).expect("a file");
                fs::rename(at("new"), at("a.yaml")).expect("a swap");
            }
        });
        let _ends = Ends(&stop);
        let mut scanner = scanner(dir.path());
        for _ in 0..2000 {
            let snapshot = scanner.scan(Instant::now());
            let addon = &snapshot.addons["a.yaml"];
            let expected = texts.iter().position(|text| hex(&Sha256::digest(text.as_bytes()).into()) == *addon.version);
            assert_eq!(addon.objects[0].ident.name.strip_prefix('x').and_then(|n| n.parse().ok()), expected);
        }
    });
}
