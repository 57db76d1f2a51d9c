//! SIGKILL at every step that the code names, each time it is reached: afterwards there is the old
//! state or the new one, and doing it again completes it. Saves are in `survives_sigkill_in_mid_save`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod stored_job;

use revenant::failpoint::{During, steps};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use stored_job::{Fixture, content, contents};

const OLD: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
const NEW: &str = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";

/// Runs `act` on a fresh world for each step, and each time that the step is reached in it, told to
/// die there; then `check`.
fn kill_at_each<W>(during: During, world: impl Fn() -> W, act: impl Fn(&W, &str) -> Output, check: impl Fn(&W, &str)) {
    for step in steps(during) {
        for nth in 1.. {
            let (world, failpoint) = (world(), format!("{step}:{nth}"));
            let output = act(&world, &failpoint);
            if output.status.success() {
                assert!(nth > 1, "{step} was never reached");
                break;
            }
            assert_eq!(output.status.signal(), Some(9), "{failpoint}: {output:?}");
            check(&world, &failpoint);
        }
    }
}

fn run(fixture: &Fixture, arguments: &[&str], more: &[(&str, &str)]) -> Output {
    let job = [("REVENANT_JOB", "assembly"), ("REVENANT_LEASE", "1s")];
    fixture.run(arguments, &[&job[..], more].concat())
}

/// Every byte of the job is what was written; the newest generation is still the newest.
fn assert_sound(fixture: &Fixture, key: Option<&str>, context: &str) {
    let environment: Vec<(&str, &str)> = key.map(|key| ("REVENANT_KEY", key)).into_iter().collect();
    let verified = run(fixture, &["verify", "--read-data", "--json"], &environment);
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["damages"], serde_json::json!([]), "{context}");
    let there = contents(&fixture.url(), "assembly", key);
    for (generation, image) in &there {
        let n = u8::try_from(generation.sequence - 1).unwrap();
        assert_eq!(*image, content(n), "{context}: {generation}");
    }
    assert_eq!(there.last().unwrap().0.to_string(), "1-4", "{context}");
}

#[test]
fn a_killed_prune() {
    let prune = ["prune", "--keep-last", "1"];
    let act = |fixture: &Fixture, failpoint: &str| run(fixture, &prune, &[("REVENANT_FAILPOINT", failpoint)]);
    kill_at_each(
        During::Prune,
        || Fixture::new(None),
        act,
        |fixture, step| {
            assert_sound(fixture, None, step);
            assert!(run(fixture, &prune, &[]).status.success(), "{step}");
            assert_sound(fixture, None, step);
            assert_eq!(fixture.packs().len(), 1, "{step}");
        },
    );
}

#[test]
fn a_killed_rotation() {
    let world = || {
        let fixture = Fixture::new(Some(OLD));
        std::fs::write(fixture.directory.path().join("new.key"), NEW).unwrap();
        fixture
    };
    let rotate = |fixture: &Fixture, more: &[(&str, &str)]| {
        let file = fixture.directory.path().join("new.key");
        run(fixture, &["key", "rotate", "--new-key-file", file.to_str().unwrap()], more)
    };
    let act = |fixture: &Fixture, step: &str| rotate(fixture, &[("REVENANT_KEY", OLD), ("REVENANT_FAILPOINT", step)]);
    kill_at_each(During::Rotation, world, act, |fixture, step| {
        let opens = |key| run(fixture, &["list"], &[("REVENANT_KEY", key)]).status.success();
        assert!(opens(OLD) || opens(NEW), "{step}: locked out");
        for key in [OLD, NEW].into_iter().filter(|key| opens(key)) {
            assert_sound(fixture, Some(key), step);
        }
        if opens(OLD) {
            assert!(rotate(fixture, &[("REVENANT_KEY", OLD)]).status.success(), "{step}");
        }
        assert!(!opens(OLD) && opens(NEW), "{step}");
        assert_sound(fixture, Some(NEW), step);
    });
}

/// The archive's generations, taken in by an empty store.
fn imported(fixture: &Fixture, archive: &Path, context: &str) -> Vec<Vec<u8>> {
    let store = tempfile::tempdir().unwrap();
    let url = format!("file://{}", store.path().display());
    let import = run(fixture, &["import", archive.to_str().unwrap(), "--store", &url], &[]);
    assert!(import.status.success(), "{context}: {import:?}");
    contents(&url, "assembly", None).into_iter().map(|(_, image)| image).collect()
}

#[test]
fn a_killed_export() {
    // A file of an earlier export is there: the old one or the new one is found.
    let world = || {
        let fixture = Fixture::new(None);
        let file = fixture.directory.path().join("job.tar");
        assert!(
            run(&fixture, &["export", "--generation", "1-1", "--to", file.to_str().unwrap()], &[]).status.success()
        );
        (fixture, file)
    };
    let export = |fixture: &Fixture, file: &Path, more: &[(&str, &str)]| {
        run(fixture, &["export", "--all", "--force", "--to", file.to_str().unwrap()], more)
    };
    let act = |world: &(Fixture, PathBuf), step: &str| export(&world.0, &world.1, &[("REVENANT_FAILPOINT", step)]);
    kill_at_each(During::Export, world, act, |(fixture, file), step| {
        assert_sound(fixture, None, step);
        let found = imported(fixture, file, step);
        let all: Vec<Vec<u8>> = (0..4).map(content).collect();
        assert!(found == all[..1] || found == all, "{step}: {} generations", found.len());
        assert!(export(fixture, file, &[]).status.success(), "{step}");
        assert_eq!(imported(fixture, file, step), all, "{step}");
        let names: Vec<_> =
            std::fs::read_dir(fixture.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{step} left something behind: {names:?}");
    });
}

#[test]
fn a_killed_import() {
    let source = Fixture::new(Some(OLD));
    let archive = source.directory.path().join("job.tar");
    let archive = archive.to_str().unwrap();
    let key = ("REVENANT_KEY", OLD);
    let chosen = ["export", "--generation", "1-3", "--generation", "1-4", "--to", archive];
    assert!(run(&source, &chosen, &[key]).status.success());
    let wanted = [content(2), content(3)];

    let world = || {
        let store = tempfile::tempdir().unwrap();
        let url = format!("file://{}", store.path().display());
        (store, url)
    };
    let go = |url: &str, arguments: &[&str], more: &[(&str, &str)]| {
        run(&source, &[arguments, &["--store", url]].concat(), &[&[key][..], more].concat())
    };
    let act = |(_, url): &(_, String), step: &str| go(url, &["import", archive], &[("REVENANT_FAILPOINT", step)]);
    let visible = |url: &str| -> Vec<Vec<u8>> {
        contents(url, "assembly", Some(OLD)).into_iter().map(|(_, image)| image).collect()
    };
    kill_at_each(During::Import, world, act, |(_, url), step| {
        // Before the job exists there is nothing to look at; then it is whole.
        let listed = go(url, &["list"], &[]);
        if listed.status.success() {
            let verified = go(url, &["verify", "--read-data"], &[]);
            assert!(verified.status.success(), "{step}: {verified:?}");
            let pruned = go(url, &["prune", "--keep-last", "9"], &[]);
            assert!(pruned.status.success(), "{step}: {pruned:?}");
            let found = visible(url);
            assert!(found == wanted[..found.len().min(2)], "{step}");
        }
        assert!(go(url, &["import", archive], &[]).status.success(), "{step}");
        assert_eq!(visible(url), wanted, "{step}");
        let verified = go(url, &["verify", "--read-data", "--json"], &[]);
        let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!(report["damages"], serde_json::json!([]), "{step}");
        assert_eq!(report["unreferenced_packs"], 0, "{step}");
    });
}

#[test]
fn a_killed_repacking() {
    // Of the first generation's pack the third uses a part, and the first and second go.
    let prune = ["prune", "--keep-last", "2", "--repack-below", "60%"];
    let key = ("REVENANT_KEY", OLD);
    let act = |fixture: &Fixture, failpoint: &str| run(fixture, &prune, &[key, ("REVENANT_FAILPOINT", failpoint)]);
    let images = |fixture: &Fixture| -> Vec<Vec<u8>> {
        contents(&fixture.url(), "assembly", Some(OLD)).into_iter().map(|(_, image)| image).collect()
    };
    kill_at_each(
        During::Repack,
        || Fixture::overlapping(Some(OLD)),
        act,
        |fixture, step| {
            let sound = || {
                let verified = run(fixture, &["verify", "--read-data", "--json"], &[key]);
                let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
                assert_eq!(report["damages"], serde_json::json!([]), "{step}");
            };
            sound();
            let found = images(fixture);
            assert_eq!(found.last(), Some(&content(3)), "{step}: the newest is not the newest any more");
            assert!(found.contains(&content(2)), "{step}");
            assert!(run(fixture, &prune, &[key]).status.success(), "{step}");
            sound();
            assert_eq!(images(fixture), [content(2), content(3)], "{step}");
            // Half of each generation's four parts are in packs that hold nothing else.
            let stored: u64 = fixture.packs().iter().map(|pack| pack.metadata().unwrap().len()).sum();
            assert!(stored < 6 * 40_000, "{step}: {stored} bytes are stored");
        },
    );
}
