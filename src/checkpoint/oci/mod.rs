//! One generation as an OCI image archive: CRIU's images as plain files in the one layer of an image that
//! registries keep and `skopeo`, `podman load` and `buildah` read.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/…
//!   manifest ──▶ config
//!            └─▶ layer, tar with zstd:  checkpoint/pages-1.img, checkpoint/core-301.img, …
//!                                       checkpoint/revenant-checkpoint.json
//! ```
//!
//! It is no checkpoint of a *container*: it says nothing of namespaces, mounts or a root file system. So it
//! carries none of the annotations by which a container engine would take it for one (`docs/oci-archive.md`).

mod archive;
mod document;
mod layer;

use crate::criu::options::RestoreOptions;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::manifest::Manifest;
use crate::repository::read::{Opened, ReadError};
use archive::Archive;
use document::{Blob, Kind};
use std::io::{self, Seek, Write};

/// What an OCI export wrote.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OciExported {
    /// The name that the image gets where it is loaded: `<job>:<generation>`.
    pub name: String,
    /// Digest of its manifest, `sha256:…`: by this a registry knows it.
    pub digest: String,
    /// How many images of CRIU's and revenant's it holds.
    pub images: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of the layer, compressed.
    pub layer_bytes: u64,
}

/// Why an OCI export does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Output(#[from] io::Error),
    /// The generation cannot be read.
    #[error("the generation cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A name of an image is none that CRIU gives.
    #[error("the generation has an image {0:?}, which is no file name")]
    Name(String),
    /// A thread of the export has died.
    #[error("the export ended before its end")]
    Aborted,
}

impl Explain for OciError {
    fn explain(&self) -> Problem {
        match self {
            Self::Output(_) => Problem::new(
                Exit::Failure,
                self.to_string(),
                "the file system is full, or read-only",
                "make room or choose another place; nothing was left under that name",
            ),
            Self::Read(error) => error.explain(),
            Self::Name(_) => Problem::new(
                Exit::Damaged,
                self.to_string(),
                "it was saved by a revenant with a defect, or by something else",
                "export another generation",
            ),
            Self::Aborted => Problem::new(Exit::Internal, self.to_string(), "a bug in revenant", "please report it"),
        }
    }
}

/// Writes a generation as an OCI image archive, with bounded memory. What is encrypted in the store is in the
/// clear here. Every byte was covered by a seal that matched. `progress` is told bytes done and bytes to do.
///
/// Blocks: call it outside the runtime's own threads.
pub fn export<W: Write + Seek>(
    opened: &Opened,
    manifest: &Manifest,
    out: &mut W,
    mut progress: impl FnMut(u64, u64),
) -> Result<OciExported, OciError> {
    let total: u64 = opened.images().map(|(_, length)| length).sum();
    let facts = facts(manifest)?;
    let mut archive = Archive::new(out, manifest.created);
    archive.add("oci-layout", document::LAYOUT.as_bytes())?;
    let mut written = None;
    let layer = archive.add_blob(Kind::Layer, |out| {
        let layer = layer::write(opened, manifest.created, &facts, out, |done| progress(done, total))?;
        written = Some(layer);
        Ok::<(), OciError>(())
    })?;
    let written = written.ok_or(OciError::Aborted)?;
    let config = add(&mut archive, Kind::Config, &document::config(manifest, &written.plain_digest))?;
    let image = add(&mut archive, Kind::Manifest, &document::manifest(manifest, &config, &layer))?;
    let name = document::name(manifest);
    archive.add("index.json", document::index(manifest, &image, &name).to_string().as_bytes())?;
    archive.finish()?;
    Ok(OciExported { name, digest: image.digest(), images: written.images, bytes: total, layer_bytes: layer.length })
}

fn add<W: Write + Seek>(archive: &mut Archive<'_, W>, kind: Kind, content: &serde_json::Value) -> io::Result<Blob> {
    archive.add_blob(kind, |out| out.write_all(content.to_string().as_bytes()))
}

/// What somebody has to know who restores the images without revenant.
fn facts(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let arguments: Vec<String> = RestoreOptions::new(".")
        .arguments()
        .into_iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .filter(|argument| argument != "--stream")
        .collect();
    let facts = serde_json::json!({
        "job": manifest.job,
        "generation": manifest.generation,
        "criu": arguments,
        "checkpoint": manifest.checkpoint,
    });
    Ok(serde_json::to_vec_pretty(&facts)?)
}
