//! The subcommands that look into a store, run as a person runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod stored_job;

use revenant::job::Generation;
use revenant::repository::{claim, generations};
use revenant::store::{Store, StoreSettings};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stored_job::{Fixture, JOB};

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn list_shows_jobs_and_generations() {
    let fixture = Fixture::new(None);
    assert!(fixture.shows(&["list"], &[]).starts_with("assembly "));
    assert!(fixture.shows(&["list", "--jobs"], &JOB).starts_with("assembly "));
    let lines = fixture.shows(&["list"], &JOB);
    let names: Vec<&str> = lines.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["1-1", "1-2", "1-3", "1-4"]);
    let json = fixture.shows(&["list", "--json"], &JOB);
    let newest: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(newest["generation"], "1-4");
    assert_eq!(newest["image_bytes"], 1000);
}

#[test]
fn inspect_shows_the_newest_or_the_named_generation() {
    let fixture = Fixture::new(None);
    assert!(fixture.shows(&["inspect"], &JOB).contains("generation 1-4 of job assembly"));
    assert!(fixture.shows(&["inspect", "1-2"], &JOB).contains("core-300.img"));
    let unknown = fixture.run(&["inspect", "7-7"], &JOB);
    assert_eq!(unknown.status.code(), Some(210));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no generation 7-7"));
}

#[test]
fn verify_names_the_damaged_object_and_whom_it_hurts() {
    let fixture = Fixture::new(None);
    assert!(fixture.shows(&["verify", "--read-data"], &JOB).contains("4 of 4 generations are good"));
    let pack = &fixture.packs()[0];
    flip(pack);
    let output = fixture.run(&["verify", "--read-data"], &JOB);
    assert_eq!(output.status.code(), Some(211));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(pack.file_name().unwrap().to_str().unwrap()), "{text}");
    assert!(text.contains("3 of 4 generations are good"), "{text}");
}

#[test]
fn prune_keeps_the_newest_and_leaves_no_pack_behind() {
    let fixture = Fixture::new(None);
    let said = fixture.shows(&["prune", "--keep-last", "2"], &JOB);
    assert!(said.contains("removed 1-1, 1-2; 2 packs"), "{said}");
    assert_eq!(fixture.packs().len(), 2);
    assert!(fixture.shows(&["verify", "--read-data"], &JOB).contains("2 of 2 generations are good"));
}

#[test]
fn prune_leaves_a_running_job_alone() {
    let fixture = Fixture::new(None);
    let claims = fixture.directory.path().join("store/assembly/claims");
    std::fs::remove_file(claims.join(format!("{:020}.released", 1))).unwrap();
    // A beat that changes while prune watches.
    let store = Store::open(&fixture.url(), &StoreSettings::default()).unwrap().child("assembly");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let output = std::thread::scope(|scope| {
        let prune = scope.spawn(|| fixture.run(&["prune", "--keep-last", "1"], &JOB));
        let holder = claim::Claim::resume(&store, revenant::job::Epoch(1), Duration::from_secs(60));
        while !prune.is_finished() {
            runtime.block_on(holder.beat()).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        prune.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(203), "{}", String::from_utf8_lossy(&output.stderr));
    let list = runtime.block_on(generations::list(&store)).unwrap();
    assert_eq!(list.iter().map(Generation::to_string).collect::<Vec<_>>(), ["1-1", "1-2", "1-3", "1-4"]);
}

#[test]
fn keys_are_rotated_without_touching_packs() {
    let old = "5a".repeat(32);
    let fixture = Fixture::new(Some(&old));
    let with_old = [JOB[0], ("REVENANT_KEY", old.as_str())];
    assert_eq!(fixture.run(&["list"], &JOB).status.code(), Some(208), "no key");
    assert!(fixture.shows(&["verify", "--read-data"], &with_old).contains("4 of 4"));
    let packs: Vec<Vec<u8>> = fixture.packs().iter().map(|pack| std::fs::read(pack).unwrap()).collect();
    let new_file = fixture.directory.path().join("new.key");
    std::fs::write(&new_file, "a passphrase of some length\n").unwrap();
    let new_file = new_file.to_str().unwrap();
    fixture.shows(&["key", "rotate", "--new-key-file", new_file], &with_old);
    let wrong = fixture.run(&["list"], &with_old);
    assert_eq!(wrong.status.code(), Some(208));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("does not open this job's checkpoints"));
    let with_new = [JOB[0], ("REVENANT_KEY_FILE", new_file)];
    assert!(fixture.shows(&["verify", "--read-data"], &with_new).contains("4 of 4"));
    assert_eq!(fixture.shows(&["key", "list"], &with_new).lines().count(), 1);
    let after: Vec<Vec<u8>> = fixture.packs().iter().map(|pack| std::fs::read(pack).unwrap()).collect();
    assert!(packs == after);
}

/// The archive is one file that standard tools read, and another store takes it in.
#[test]
fn a_job_moves_to_another_store_in_one_file() {
    let key = "5a".repeat(32);
    for key in [None, Some(key.as_str())] {
        let fixture = Fixture::new(key);
        let environment: Vec<(&str, &str)> = JOB.into_iter().chain(key.map(|key| ("REVENANT_KEY", key))).collect();
        let file = fixture.directory.path().join("job.tar");
        let name = file.to_str().unwrap();
        let said = fixture.shows(&["export", "--all", "--to", name], &environment);
        assert!(said.contains("exported 1-1, 1-2, 1-3, 1-4 of job assembly"), "{said}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fixture.run(&["export", "--to", name], &environment).status.code(), Some(210), "it exists");

        let directory = fixture.directory.path().join("unpacked");
        std::fs::create_dir(&directory).unwrap();
        let tar = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&directory).status().unwrap();
        let mut sums = Command::new("sha256sum");
        sums.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(directory.join("assembly"));
        assert!(tar.success() && sums.status().unwrap().success());

        let other = format!("file://{}", fixture.directory.path().join("other").display());
        // By a pipe, as to another machine; under another name.
        let mut export = Command::new(env!("CARGO_BIN_EXE_revenant"));
        export.env_clear().args(["export", "--generation", "1-3", "--to", "-", "--store", &fixture.url()]);
        let mut export = export.envs(environment.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
        let mut import = Command::new(env!("CARGO_BIN_EXE_revenant"));
        import.env_clear().args(["import", "-", "--store", &other, "--json"]).stdin(export.stdout.take().unwrap());
        import.envs(environment.iter().copied()).env("REVENANT_JOB", "moved");
        let imported = import.output().unwrap();
        assert!(export.wait().unwrap().success() && imported.status.success(), "{imported:?}");
        let report: serde_json::Value = serde_json::from_slice(&imported.stdout).unwrap();
        assert_eq!(report["generations"], serde_json::json!([{"from": "1-3", "to": "1-1"}]));

        let moved: Vec<(&str, &str)> =
            [("REVENANT_JOB", "moved")].into_iter().chain(key.map(|key| ("REVENANT_KEY", key))).collect();
        let verified = fixture.shows(&["verify", "--read-data", "--store", &other], &moved);
        assert!(verified.contains("1 of 1 generations are good"), "{verified}");
        let here = fixture.shows(&["import", name, "--store", &other, "--lease", "1s"], &moved);
        assert!(here.contains("generation 1-3 is there already, as 1-1"), "{here}");
        assert!(here.contains("imported generation 1-4 as 2-3 of job moved"), "{here}");
    }
}
