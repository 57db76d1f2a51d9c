//! The Helm chart and the kustomize base under `deploy/` are what `revenant manifest` writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn run(command: &mut Command) -> String {
    let output =
        command.current_dir(ROOT).output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make deps`"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// By Helm itself where there is one, else by a renderer of the templates (Debian's sprig, the library of Helm's functions).
#[test]
fn the_chart_gives_the_same_objects_for_each_set_of_answers() {
    let folder = tempfile::tempdir().unwrap();
    let render = folder.path().join("render");
    if Command::new("helm").arg("version").output().is_ok_and(|output| output.status.success()) {
        run(Command::new("helm").args([
            "lint",
            "--strict",
            "deploy/helm/revenant-job",
            "--values",
            "scripts/helm/example.yaml",
        ]));
        std::fs::write(&render, "#!/bin/sh\nexec helm template \"$1\" \"$2\" --values \"$3\"\n").unwrap();
        run(Command::new("chmod").arg("755").arg(&render));
    } else {
        run(Command::new("go")
            .args(["build", "-o", render.to_str().unwrap(), "scripts/helm/render.go"])
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", folder.path().join("cache")));
    }
    let said = run(Command::new("python3")
        .args(["-B", "scripts/helm/check.py", "--revenant", env!("CARGO_BIN_EXE_revenant"), "--render"])
        .arg(&render));
    assert!(said.contains("sets of answers give what revenant manifest gives"), "{said}");
}

#[test]
fn the_kustomize_base_is_up_to_date() {
    let answers = ["--name", "long-job", "--image", "revenant-job", "--memory", "128GiB", "--cpus", "16", "--", "true"];
    let written = run(Command::new(env!("CARGO_BIN_EXE_revenant")).arg("manifest").args(answers));
    let base = Path::new(ROOT).join("deploy/kustomize/base/long-job.yaml");
    assert_eq!(
        std::fs::read_to_string(base).unwrap(),
        written,
        "write it again: revenant manifest {}",
        answers.join(" ")
    );
}
