//! Every command that README and docs show is run by a test, as it stands there, or stands in the table below with the
//! reason why not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod documented;
mod harness;
mod registry;
mod stored_job;

use documented::Page;
use harness::{Container, Output, Running, Store, Ticks};
use ring::digest::{SHA256, digest};
use std::path::Path;
use stored_job::Fixture;

/// How a command of a page is run.
#[derive(Clone, Copy)]
enum Run {
    /// As it stands there, by this file.
    By(&'static str),
    /// With names and values of its own, by this file: a sentence only speaks of it.
    AlikeBy(&'static str),
    /// Not, for this reason.
    Not(&'static str),
}
use Run::{AlikeBy, By, Not};

const HERE: &str = "tests/types_what_the_docs_show.rs";
const CLUSTER: &str = "scripts/kubernetes/matrix/documented.py";
const PODMAN: &str = "tests/starts_with_podman.rs";
const STORES: &str = "tests/store_commands.rs";

const LONG: Run = Not("takes many minutes, and is a test itself: it compares, and fails by its exit code");
const MEASURES: Run = Not("takes many minutes, and measures: the page holds what it found");
const COMPARED: Run = Not("a sentence compares with it");

/// Page, beginning of the command, how it is run.
const COMMANDS: [(&str, &str, Run); 49] = [
    ("README.md", "make deps && make test", By(".ci/run")),
    ("README.md", "make deps && make demo", LONG),
    ("README.md", "make demo", LONG),
    ("README.md", "make tools", LONG),
    ("README.md", "revenant manifest", By(HERE)),
    ("README.md", "revenant lint", By(HERE)),
    (
        "README.md",
        "kubectl exec POD -- /opt/revenant/bin/revenant checkpoint",
        AlikeBy("scripts/kubernetes/matrix/causes.py"),
    ),
    ("README.md", "revenant export --job assembly", By(HERE)),
    ("README.md", "revenant import job.tar", AlikeBy(STORES)),
    ("benchmarks.md", "make bench", MEASURES),
    ("benchmarks.md", "podman container", AlikeBy("benches/compare/podman.py")),
    ("compatibility.md", "podman container checkpoint --export", AlikeBy("benches/compare/podman.py")),
    ("decide.md", "revenant doctor --pid", AlikeBy("tests/doctor.rs")),
    ("fidelity.md", "make fidelity", MEASURES),
    ("fidelity.md", "make programs", LONG),
    ("format.md", "revenant <kind> <version>", Not("no command: what a digest is taken of")),
    ("format.md", "revenant prune --repack-below", AlikeBy("tests/survives_a_kill_at_every_step.rs")),
    ("format.md", "revenant key rotate", AlikeBy(STORES)),
    ("format.md", "revenant export --format oci", AlikeBy("tests/exports_an_oci_image.rs")),
    ("format.md", "make fuzz", Not("needs a nightly compiler")),
    ("kubernetes-survival.md", "make test-k8s", By(".ci/run")),
    ("kubernetes-survival.md", "kubectl patch", By(CLUSTER)),
    ("kubernetes-survival.md", "revenant manifest --tier standard", AlikeBy("scripts/kubernetes/matrix/job.py")),
    ("lazy-restore.md", "make bench", MEASURES),
    ("observing.md", "revenant run --http", AlikeBy("tests/survival/making.rs")),
    ("observing.md", "revenant status --json", AlikeBy("tests/saves_on_schedule_and_by_file.rs")),
    ("observing.md", "revenant status --probe", AlikeBy("tests/answers_probes_and_metrics.rs")),
    ("oci-archive.md", "revenant export --format oci", By(HERE)),
    ("oci-archive.md", "skopeo copy", By(HERE)),
    ("oci-archive.md", "podman", AlikeBy("tests/exports_an_oci_image.rs")),
    ("operations.md", "revenant list --jobs", By(HERE)),
    ("operations.md", "revenant prune --store", By(HERE)),
    ("operations.md", "revenant export --store", By(HERE)),
    ("operations.md", "revenant import gut-12.tar --store", By(HERE)),
    ("operations.md", "revenant export --format oci", AlikeBy("tests/exports_an_oci_image.rs")),
    ("processes.md", "docker run --init", COMPARED),
    ("security.md", "revenant key rotate", AlikeBy(STORES)),
    ("start.md", "revenant manifest", By(HERE)),
    ("start.md", "kubectl", By(CLUSTER)),
    ("start.md", "podman", By(PODMAN)),
    (
        "start.md",
        "helm install",
        Not("Debian has no Helm; tests/deploys_as_it_writes_manifests.rs renders and compares the chart"),
    ),
    ("start.md", "make deps && make demo", LONG),
    ("survival.md", "revenant checkpoint --stop", AlikeBy("tests/saves_on_request.rs")),
    ("survival.md", "make survival", MEASURES),
    ("troubleshooting.md", "revenant manifest --tier standard", AlikeBy("scripts/kubernetes/matrix/job.py")),
    ("troubleshooting.md", "kubectl delete pod", AlikeBy("scripts/kubernetes/matrix/causes.py")),
    ("troubleshooting.md", "kubectl logs --previous", Not("kubectl's own: where the output of an older container is")),
    ("users.md", "docker run --user", COMPARED),
    ("users.md", "podman run --user", COMPARED),
];

fn repository(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What speaks against it: a file that is said to run a command knows nothing of its page, or of its options.
fn objection(page: &str, command: &str, run: Run) -> Option<String> {
    match run {
        Not(reason) => reason.is_empty().then(|| "no reason is given".to_owned()),
        // It reads no page: it makes the same targets.
        By(".ci/run") => {
            let made = targets(command).all(|target| repository(".ci/run").contains(&format!("make {target}")));
            (!made).then(|| ".ci/run does not make it".to_owned())
        }
        By(file) => (!repository(file).contains(page)).then(|| format!("{file} does not speak of {page}")),
        AlikeBy(file) => {
            let text = repository(file);
            let mut options =
                command.split(' ').filter(|word| word.strip_prefix("--").is_some_and(|name| !name.is_empty()));
            options.find(|option| !text.contains(option)).map(|option| format!("{file} does not use {option}"))
        }
    }
}

/// What a line makes.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("&& ").filter_map(|part| part.strip_prefix("make ")?.split_whitespace().next())
}

/// Every command of a page.
fn commands(page: &Page) -> Vec<String> {
    page.lines().into_iter().map(ToOwned::to_owned).chain(page.in_sentences()).collect()
}

#[test]
fn every_command_is_run_or_the_reason_is_given() {
    let (mut used, mut wrong) = ([false; COMMANDS.len()], Vec::new());
    for page in Page::all() {
        for command in commands(&page) {
            let mut rows = COMMANDS
                .iter()
                .enumerate()
                .filter(|(_, (of, beginning, _))| page.name == *of && command.starts_with(beginning));
            match (rows.next(), rows.next()) {
                (Some((row, (_, _, run))), None) => {
                    used[row] = true;
                    wrong.extend(
                        objection(&page.name, &command, *run).map(|why| format!("{}: {command}: {why}", page.name)),
                    );
                }
                (None, _) => {
                    wrong.push(format!("{}: {command}: no test runs it, and the table does not say why", page.name))
                }
                (Some(_), Some(_)) => wrong.push(format!("{}: {command}: more than one row", page.name)),
            }
        }
    }
    let stale = COMMANDS
        .iter()
        .zip(used)
        .filter(|(_, used)| !used)
        .map(|((page, beginning, _), _)| format!("{page} shows no {beginning} any more"));
    wrong.extend(stale);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is not run here is at least there to be made.
#[test]
fn make_knows_every_target() {
    let makefile = repository("Makefile");
    for page in Page::all() {
        for target in commands(&page).iter().flat_map(|line| targets(line)) {
            assert!(makefile.contains(&format!("\n{target}: ")), "{}: make {target}", page.name);
        }
    }
}

/// A container in whose shell a reader types; what it types is on the store's side of the world.
fn shell(container: Container) -> Running {
    container.tmpfs("/work").directory("/work").entrypoint(&["sleep", "3600"]).start()
}

/// Types a line as it stands, and it must succeed. A reader's shell knows of no job.
fn typed(shell: &Running, line: &str) -> Output {
    let output = shell.exec(&["env", "--unset=REVENANT_JOB", "bash", "-c", line]);
    assert_eq!(output.code, 0, "{line}\n{}{}", output.stdout, output.stderr);
    output
}

fn saves_and_stops(job: &Container, times: u32) -> Running {
    let running = job.start();
    running.wait_for_line("tick 3 ");
    for _ in 1..times {
        assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    }
    assert_eq!(running.exec(&["revenant", "checkpoint", "--stop"]).code, 0);
    assert_eq!(running.wait(), 200);
    running
}

#[test]
fn manifests_are_written_and_reviewed() {
    let shell = shell(Container::of("unused"));
    let start = Page::named("start.md");
    let [write] = start.typed("revenant manifest");
    typed(&shell, write);
    let written = typed(&shell, "cat gut-12.yaml").stdout;
    for part in ["kind: Job\n", "name: gut-12\n", "image: \"registry.example/gut:1\"\n", "mountPath: \"/reads\"}\n"] {
        assert!(written.contains(part), "{part}{written}");
    }
    let readme = Page::named("README.md");
    let ([write], [review]) = (readme.typed("revenant manifest"), readme.typed("revenant lint"));
    typed(&shell, write);
    assert!(typed(&shell, "cat gut-12.yaml").stdout.contains("image: \"registry.example/megahit:1.2.9\"\n"));
    typed(&shell, review);
}

/// The buckets of the page, on a server of our own.
#[test]
fn a_job_is_pruned_and_moves_as_operations_says() {
    let page = Page::named("operations.md");
    let [prune, export, import] = page.typed("revenant ");
    let list = page.in_sentences().into_iter().find(|command| command.starts_with("revenant list ")).unwrap();
    let store = Store::seaweed();
    for bucket in ["assemblies", "old", "new"] {
        store.server().make_bucket(bucket);
    }
    let job = |url: &str| {
        Container::of("gut-12").store(&store).env("REVENANT_STORE", url).workload("counter.py", &["--threads", "1"])
    };
    let shell = shell(Container::of("unused").store(&store));

    saves_and_stops(&job("s3://assemblies/checkpoints"), 3);
    assert!(typed(&shell, &list).stdout.contains("gut-12"));
    assert!(typed(&shell, prune).stdout.contains("removed 1-1, 1-2"));

    let before = saves_and_stops(&job("s3://old/checkpoints"), 1);
    typed(&shell, export);
    typed(&shell, import);
    let ticks = Ticks::of(&before.stdout_lines());
    let after = job("s3://new/checkpoints").start();
    after.wait_for_line(&format!("tick {} ", ticks.last() + 3));
    ticks.then(Ticks::of(&after.stdout_lines())).assert_unbroken();
}

#[test]
fn a_checkpoint_goes_into_one_file_as_the_readme_says() {
    let fixture = Fixture::new(None);
    let container = Container::of("unused").env("REVENANT_STORE", "file:///checkpoints");
    let shell = shell(container.mount(&fixture.directory.path().join("store"), "/checkpoints"));
    let sentences = Page::named("README.md").in_sentences();
    let export = sentences.iter().find(|command| command.starts_with("revenant export ")).unwrap();
    assert!(typed(&shell, export).stdout.contains("exported 1-4 of job assembly"));
}

/// The images are checked by tests/exports_an_oci_image.rs; here a registry takes one.
#[test]
fn images_are_exported_and_pushed_as_oci_archive_says() {
    let page = Page::named("oci-archive.md");
    let [plain, encrypted] = page.typed("revenant export");
    let [push] = page.typed("skopeo copy");
    let (store, key) = (Store::local(), "5a".repeat(32));
    let job = |name: &str| Container::of(name).store(&store).workload("counter.py", &[]);
    saves_and_stops(&job("gut-12"), 1);
    saves_and_stops(&job("secret-12").env("REVENANT_KEY", &key), 1);
    let folder = tempfile::tempdir().unwrap();
    let shell = |container: Container| {
        container.mount(folder.path(), "/work").directory("/work").entrypoint(&["sleep", "3600"]).start()
    };
    typed(&shell(Container::of("unused").store(&store)), plain);
    typed(&shell(Container::of("unused").store(&store).env("REVENANT_KEY", &key)), encrypted);
    assert!(folder.path().join("s.tar").exists());

    let pushed = registry::pushed(push, folder.path(), "3-7");
    let mut archive = tar::Archive::new(std::fs::File::open(folder.path().join("gut-12.tar")).unwrap());
    let named = format!("blobs/sha256/{}", hex::encode(digest(&SHA256, &pushed)));
    assert!(archive.entries().unwrap().any(|entry| entry.unwrap().path().unwrap() == Path::new(&named)), "{named}");
}
