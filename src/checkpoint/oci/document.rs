//! The documents of an OCI image, as the OCI image specification 1.0 has them.

use crate::repository::manifest::Manifest;
use crate::repository::timestamp;
use serde_json::{Value, json};

/// Content of `oci-layout`.
pub(super) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Config,
    Layer,
}

impl Kind {
    fn media_type(self) -> &'static str {
        match self {
            Self::Manifest => "application/vnd.oci.image.manifest.v1+json",
            Self::Config => "application/vnd.oci.image.config.v1+json",
            Self::Layer => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A blob that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub kind: Kind,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    pub length: u64,
}

impl Blob {
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind.media_type(), "digest": self.digest(), "size": self.length })
    }
}

/// `<job>:<generation>`; repositories of images have small letters, and neither begin nor end with a mark.
pub(super) fn name(manifest: &Manifest) -> String {
    let job = manifest.job.as_str().to_ascii_lowercase();
    // Between letters and digits there may be one dot, one or two underscores, or any number of dashes.
    let parts: Vec<&str> =
        job.split(|mark: char| !mark.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let job = if parts.is_empty() { "checkpoint".to_owned() } else { parts.join("-") };
    format!("{job}:{}", manifest.generation)
}

/// The machine's name as Go has it, which is what images say.
fn architecture(manifest: &Manifest) -> String {
    match manifest.checkpoint.pointer("/host/arch").and_then(Value::as_str).unwrap_or(std::env::consts::ARCH) {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    }
}

pub(super) fn config(manifest: &Manifest, layer: &str) -> Value {
    json!({
        "created": timestamp::text(manifest.created),
        "architecture": architecture(manifest),
        "os": "linux",
        "config": { "Labels": annotations(manifest) },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{
            "created": timestamp::text(manifest.created),
            "created_by": format!("revenant {} export --format oci", env!("CARGO_PKG_VERSION")),
        }],
    })
}

pub(super) fn manifest(manifest: &Manifest, config: &Blob, layer: &Blob) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": Kind::Manifest.media_type(),
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
        "annotations": annotations(manifest),
    })
}

pub(super) fn index(manifest: &Manifest, image: &Blob, name: &str) -> Value {
    let mut descriptor = image.descriptor();
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
        "annotations": annotations(manifest),
    })
}

/// What it is, for people and registries. Deliberately none of the keys by which CRI-O, containerd or podman
/// recognize the checkpoint of a container.
fn annotations(manifest: &Manifest) -> Value {
    let fact = |path| manifest.checkpoint.pointer(path).and_then(Value::as_str).unwrap_or("unknown");
    json!({
        "org.opencontainers.image.created": timestamp::text(manifest.created),
        "org.opencontainers.image.title": format!("checkpoint {} of {}", manifest.generation, manifest.job),
        "org.opencontainers.image.description":
            "CRIU images of a process tree, saved by revenant. Not a container's checkpoint: no engine can start it.",
        "revenant.checkpoint.job": manifest.job,
        "revenant.checkpoint.generation": manifest.generation,
        "revenant.checkpoint.reason": manifest.reason,
        "revenant.checkpoint.criu": fact("/host/criu"),
        "revenant.checkpoint.kernel": fact("/host/kernel"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Epoch, Generation};
    use crate::repository::crypto::{ObjectId, RepositoryId};
    use crate::repository::manifest::{IndexRef, Stats};
    use std::time::SystemTime;

    fn sample(job: &str) -> Manifest {
        let generation = Generation { epoch: Epoch(3), sequence: 7 };
        Manifest {
            repository: RepositoryId([7; 16]),
            job: job.parse().unwrap(),
            generation,
            created: SystemTime::UNIX_EPOCH,
            base: None,
            replaces: None,
            reason: "request".to_owned(),
            images: Vec::new(),
            index: IndexRef { id: ObjectId([2; 32]), len: 600 },
            packs: Vec::new(),
            checkpoint: json!({ "host": { "arch": "aarch64", "criu": "4.2.1", "kernel": "6.18.0" } }),
            stats: Stats::default(),
        }
    }

    #[test]
    fn a_job_becomes_a_name_that_registries_take() {
        for (job, wanted) in
            [("gut-12", "gut-12:3-7"), ("Gut__.12_", "gut-12:3-7"), ("_", "checkpoint:3-7"), ("a.b", "a-b:3-7")]
        {
            assert_eq!(name(&sample(job)), wanted);
        }
    }

    #[test]
    fn no_engine_takes_it_for_a_container() {
        let blob = |kind| Blob { kind, sha256: "ab".repeat(32), length: 5 };
        let sample = sample("gut-12");
        let image = manifest(&sample, &blob(Kind::Config), &blob(Kind::Layer));
        let text = format!("{image}{}", index(&sample, &blob(Kind::Manifest), "gut-12:3-7"));
        for key in
            ["io.kubernetes.cri-o.annotations.checkpoint", "org.criu.checkpoint", "io.podman.annotations.checkpoint"]
        {
            assert!(!text.contains(key), "{text}");
        }
        assert_eq!(config(&sample, &"cd".repeat(32))["architecture"], "arm64");
        assert_eq!(image["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    }
}
