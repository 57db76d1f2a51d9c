//! Files on volumes are rolled back to the checkpoint, or the restore is refused.

use super::super::{
    Baseline, FilePolicy, Held, Hold, Mounts, Plan, RelPath, Root, Site, VolumeMode, bring_back, capture_at, plan_at,
};
use super::folder_store::FolderStore;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const MOUNTS: &[u8] = b"1 0 0:1 / / rw - unknown none rw\n2 1 0:2 /x /data rw - ext4 /dev/sdb rw\n";

/// A container's root with a volume at `/data`, and a job that writes there.
struct Job {
    temp: tempfile::TempDir,
    policy: FilePolicy,
    held: Held,
    baseline: Baseline,
}

impl Job {
    fn new(policy: FilePolicy) -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("root/data")).unwrap();
        fs::create_dir_all(temp.path().join("store")).unwrap();
        fs::write(temp.path().join("root/data/input"), "given").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let root = Root::open(&temp.path().join("root")).unwrap();
        Self { baseline: Baseline::now(&root), temp, policy, held: Held::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join("root/data").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// Declares a file open for writing.
    fn holds(&mut self, name: &str, append_only: bool) {
        let path = RelPath::from_absolute(&Path::new("/data").join(name)).unwrap();
        self.held.files.insert(path, Hold { write: true, append_only, mapped: false, pid: 7 });
    }

    fn append(&self, name: &str, text: &str) {
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.at(name))
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    fn site(&self) -> Site {
        Site { root: Root::open(&self.temp.path().join("root")).unwrap(), mounts: Mounts::parse(MOUNTS) }
    }

    fn store(&self) -> FolderStore {
        FolderStore(self.temp.path().join("store"))
    }

    fn save(&self) {
        let captured = capture_at(&self.site(), &self.held, &self.baseline, &self.policy, &self.store()).unwrap();
        assert_eq!(captured.warnings, []);
    }

    fn plan(&self) -> Plan {
        plan_at(self.site(), &self.store(), &self.policy).unwrap()
    }

    /// What lies in the dated folders, as `name=content`.
    fn aside(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.at("")).unwrap().flatten() {
            if folder.file_name().to_string_lossy().starts_with(".revenant-aside-") {
                for file in fs::read_dir(folder.path()).unwrap().flatten() {
                    let content = fs::read_to_string(file.path()).unwrap();
                    found.push(format!("{}={content}", file.file_name().to_string_lossy()));
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn a_job_killed_after_its_last_save_is_rolled_back() {
    let mut job = Job::new(FilePolicy { volumes: vec![("/data".into(), VolumeMode::Auto)], ..FilePolicy::default() });
    job.append("log", "one\n");
    fs::write(job.at("index"), "v1").unwrap();
    fs::write(job.at("part.tmp"), "half").unwrap();
    fs::write(job.at("scratch"), "s").unwrap();
    job.holds("log", true);
    job.holds("part.tmp", false);
    job.save();
    // Half an hour of work that the killed container takes with it.
    job.append("log", "two\n");
    fs::write(job.at("index"), "v2, longer").unwrap();
    job.append("part.tmp", " and whole");
    fs::rename(job.at("part.tmp"), job.at("part")).unwrap();
    fs::remove_file(job.at("scratch")).unwrap();
    fs::write(job.at("result"), "new").unwrap();

    let plan = job.plan();
    insta::assert_snapshot!(plan.to_string(), @"
    container layer: 0 paths to bring back (0 files, 16384 bytes in the store), 0 to delete
    volumes: 1 of 5 files are as they were
      /data/index: bring back the copy, move what is there now aside
      /data/log: cut from 8 back to 4 bytes
      /data/part.tmp: rename back from /data/part
      /data/scratch: bring back the copy, move what is there now aside
      /data/result: is newer than the checkpoint, move aside
    verdict: files and memory will agree
    ");
    let report = bring_back(&plan, &job.store()).unwrap();
    assert_eq!(report.warnings, []);
    assert_eq!((job.read("log"), job.read("index")), ("one\n".into(), "v1".into()));
    assert_eq!((job.read("part.tmp"), job.read("scratch")), ("half".into(), "s".into()));
    assert_eq!(job.read("input"), "given");
    assert!(!job.at("part").exists() && !job.at("result").exists());
    assert_eq!(
        job.aside(),
        ["index=v2, longer", "log.from-byte-4=two\n", "part.tmp.from-byte-4= and whole", "result=new"]
    );
    // Again, as after a crash: nothing is left to do, and nothing is lost.
    let again = bring_back(&job.plan(), &job.store()).unwrap();
    assert_eq!((again.volumes, job.aside().len()), (0, 4));
}

#[test]
fn what_cannot_be_rolled_back_is_refused_by_name() {
    let mut job = Job::new(FilePolicy { volumes: vec![("/data".into(), VolumeMode::Record)], ..FilePolicy::default() });
    for name in ["rewritten", "cut", "deleted", "log"] {
        fs::write(job.at(name), "0123456789").unwrap();
        job.holds(name, false);
    }
    job.save();
    fs::write(job.at("rewritten"), "abcdefghij").unwrap();
    fs::write(job.at("cut"), "0").unwrap();
    fs::remove_file(job.at("deleted")).unwrap();
    job.append("log", "more");
    let refusal = bring_back(&job.plan(), &job.store()).unwrap_err();
    insta::assert_snapshot!(refusal.to_string(), @"
    3 files are not as at the checkpoint and cannot be brought back
      why:  they were changed after the checkpoint, by this job or another:
        /data/cut was cut to 1 bytes after the checkpoint, and the checkpoint has no copy of it
        /data/deleted was deleted after the checkpoint, and the checkpoint has no copy of it
        /data/rewritten was rewritten after the checkpoint, and the checkpoint has no copy of it
      next: bring them back from a backup, use another generation, or restore as it is with `--files accept`; `--volume PATH=copy` keeps copies from the next checkpoint on
    ");
    assert_eq!(job.read("log"), "0123456789more", "a refused plan changes nothing");

    job.policy.accept = true;
    bring_back(&job.plan(), &job.store()).unwrap();
    assert_eq!((job.read("log"), job.read("rewritten")), ("0123456789".into(), "abcdefghij".into()));
}

#[test]
fn other_jobs_files_are_left_alone_on_a_volume_that_was_not_named_and_are_told_of() {
    let mut job = Job::new(FilePolicy::default());
    job.append("log", "one\n");
    job.holds("log", true);
    job.save();
    assert_eq!(job.plan().left_alone(), None, "what was there before is no news");
    std::thread::sleep(std::time::Duration::from_millis(50));
    fs::write(job.at("neighbour"), "n").unwrap();
    job.append("log", "two\n");
    let plan = job.plan();
    let told = plan.left_alone().unwrap();
    assert!(told.contains("/data/neighbour") && told.contains("--volume /data=record"), "{told}");
    assert!(plan.to_string().contains("/data/neighbour: appeared or changed after the checkpoint"), "{plan}");
    bring_back(&plan, &job.store()).unwrap();
    assert_eq!((job.read("log"), job.read("neighbour")), ("one\n".into(), "n".into()));
}

#[test]
fn a_large_file_is_copied_only_when_asked() {
    for (mode, comes_back) in [(VolumeMode::Auto, false), (VolumeMode::Copy, true)] {
        let mut job = Job::new(FilePolicy { volumes: vec![("/data".into(), mode)], ..FilePolicy::default() });
        fs::write(job.at("database"), vec![1; 9 << 20]).unwrap();
        job.holds("database", false);
        job.save();
        let open = fs::OpenOptions::new().write(true).open(job.at("database")).unwrap();
        std::os::unix::fs::FileExt::write_at(&open, b"x", 5 << 20).unwrap();
        assert_eq!(bring_back(&job.plan(), &job.store()).is_ok(), comes_back, "{mode:?}");
        assert_eq!(fs::read(job.at("database")).unwrap() == vec![1; 9 << 20], comes_back, "{mode:?}");
    }
}

#[test]
fn a_second_container_still_knows_the_jobs_older_files() {
    let mut job = Job::new(FilePolicy::default());
    fs::write(job.at("stage-1"), "done").unwrap();
    job.append("log", "one\n");
    job.holds("log", true);
    job.save();
    std::thread::sleep(std::time::Duration::from_millis(50));
    job.baseline = Baseline::now(&job.site().root);
    job.baseline.continue_from(job.plan().catalogue());
    job.save();
    fs::write(job.at("stage-1"), "destroyed").unwrap();
    bring_back(&job.plan(), &job.store()).unwrap();
    assert_eq!(job.read("stage-1"), "done");
}

#[test]
fn changed_programs_are_named_before_criu_fails_on_them() {
    let mut job = Job::new(FilePolicy::default());
    fs::write(job.temp.path().join("root/libz.so"), "v1").unwrap();
    job.baseline = {
        std::thread::sleep(std::time::Duration::from_millis(50));
        Baseline::now(&job.site().root)
    };
    for name in ["libz.so", "data/input"] {
        let path = RelPath::from_bytes(name.as_bytes()).unwrap();
        job.held.files.insert(path, Hold { mapped: name == "libz.so", pid: 7, ..Hold::default() });
    }
    job.save();
    assert_eq!(job.plan().obstacles(), [""; 0]);
    fs::write(job.temp.path().join("root/libz.so"), "v22").unwrap();
    fs::remove_file(job.at("input")).unwrap();
    insta::assert_snapshot!(job.plan().refusal().unwrap().to_string(), @"
    2 files are not what the processes have in memory (image changed)
      why:  this container's image, or an input, differs from the checkpoint's:
        /data/input was 5 bytes, is missing
        /libz.so was 2 bytes, is 3 bytes
      next: use the image that the checkpoint was made with
    ");
}
