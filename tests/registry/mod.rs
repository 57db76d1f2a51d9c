//! A container registry of our own, under the name that the pages use, in a network that nothing else is in.

use std::path::Path;
use std::process::Command;

/// Its network and its names are gone with it.
const TYPED: &str = r#"
set -e
busybox ifconfig lo up
mount --bind hosts /etc/hosts
python3 -B "$REGISTRY" pushed 2>log &
until [ -e pushed/ready ]; do kill -0 $!; sleep 0.05; done
bash -c "$LINE"
"#;

/// Types a line in this folder that pushes to `registry.example`; what the registry then has under the tag.
pub fn pushed(line: &str, folder: &Path, tag: &str) -> Vec<u8> {
    let settings = folder.join(".config/containers");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::create_dir(folder.join("pushed")).unwrap();
    std::fs::write(folder.join("hosts"), "127.0.0.1 localhost registry.example\n").unwrap();
    std::fs::write(settings.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    // Without TLS.
    std::fs::write(
        settings.join("registries.conf"),
        "[[registry]]\nlocation = \"registry.example\"\ninsecure = true\n",
    )
    .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry/registry.py");
    let mut shell = Command::new("unshare");
    shell.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", TYPED]).current_dir(folder);
    let output = shell.env("HOME", folder).env("LINE", line).env("REGISTRY", script).output().unwrap();
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(output.status.success(), "{line}: {}{}", String::from_utf8_lossy(&output.stderr), log());
    std::fs::read(folder.join("pushed").join(tag)).unwrap_or_else(|_| panic!("nothing came to the registry: {}", log()))
}
