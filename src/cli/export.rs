//! `revenant export`: generations as one file.

use super::bytes_bar::{bytes_bar, show};
use super::output_file::OutputFile;
use super::stored_job::{StoredJob, block_on};
use crate::checkpoint::oci::{self, OciExported};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::Generation;
use crate::repository::archive::{self, Exported};
use crate::repository::generations::{self, GenerationError};
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::supervisor::words;
use clap::Args;
use std::path::PathBuf;

/// Options of `revenant export`. The job may be running: a generation never changes.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools)] // Flags of a command line are what they are.
pub struct ExportOptions {
    #[command(flatten)]
    job: StoredJob,
    /// Which generation; may be given several times [default: the newest]
    #[arg(long, value_name = "GENERATION", conflicts_with = "all")]
    generation: Vec<Generation>,
    /// All generations of the job
    #[arg(long)]
    all: bool,
    /// What is written: revenant's own archive, which `revenant import` reads and which stays encrypted; or an
    /// OCI image archive with one generation's CRIU images as plain files, for registries and other tools
    #[arg(long, value_enum, default_value_t = Format::Revenant)]
    format: Format,
    /// With --format oci: write the memory of an encrypted job in the clear
    #[arg(long)]
    decrypt: bool,
    /// The file, or - for standard output
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Print what was exported as JSON (to standard error with --to -)
    #[arg(long)]
    json: bool,
}

/// What an export writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Stored objects as they are: `revenant import` reads it
    Revenant,
    /// An OCI image with CRIU's images: skopeo, podman load and registries read it
    Oci,
}

/// Exports.
pub fn run(options: &ExportOptions) -> Result<u8, Problem> {
    let bar = bytes_bar();
    let progress = |done, total| show(&bar, done, total);
    let exported = block_on(async {
        let repository = options.job.open().await?;
        let chosen = choose(options, &repository).await?;
        match options.format {
            Format::Revenant => {
                if options.decrypt {
                    return Err(Problem::new(
                        Exit::Usage,
                        "--decrypt is for --format oci",
                        "revenant's own archive holds the stored objects as they are, encrypted if the job is",
                        "leave --decrypt out, or give --format oci",
                    ));
                }
                archive(options, &repository, &chosen, progress).await
            }
            Format::Oci => image(options, &repository, &chosen, progress).await,
        }
    })?;
    bar.finish_and_clear();
    let text = if options.json { exported.json()? } else { exported.text() };
    if options.to.as_os_str() == "-" {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
    Ok(0)
}

async fn choose(options: &ExportOptions, repository: &Repository) -> Result<Vec<Generation>, Problem> {
    let list = generations::list(&repository.store).await.map_err(|error| error.explain())?;
    if list.is_empty() {
        return Err(Problem::new(
            Exit::Failure,
            format!("job {} has no generation", options.job.job),
            "nothing was saved yet, or the job is complete and its checkpoints were removed",
            "`revenant checkpoint` in its container saves now",
        ));
    }
    if let Some(unknown) = options.generation.iter().find(|generation| !list.contains(generation)) {
        return Err(GenerationError::Unknown(*unknown).explain());
    }
    Ok(match (options.all, options.generation.is_empty()) {
        (true, _) => list,
        (false, false) => options.generation.clone(),
        (false, true) => list.last().copied().into_iter().collect(),
    })
}

/// What came of it.
enum Outcome {
    Archive(Exported),
    Image(OciExported, PathBuf),
}

impl Outcome {
    fn json(&self) -> Result<String, Problem> {
        let text = match self {
            Self::Archive(exported) => serde_json::to_string(exported),
            Self::Image(exported, _) => serde_json::to_string(exported),
        };
        text.map_err(|error| Problem::new(Exit::Internal, error.to_string(), "a bug in revenant", "please report it"))
    }

    fn text(&self) -> String {
        match self {
            Self::Archive(exported) => describe(exported),
            Self::Image(exported, file) => describe_image(exported, file),
        }
    }
}

async fn archive(
    options: &ExportOptions,
    repository: &Repository,
    chosen: &[Generation],
    progress: impl FnMut(u64, u64),
) -> Result<Outcome, Problem> {
    let mut out = OutputFile::create(&options.to, options.force)?;
    match archive::export(repository, &options.job.job, chosen, &mut out, progress).await {
        Ok((exported, _)) => out.finish().map(|()| Outcome::Archive(exported)),
        Err(error) => {
            out.discard();
            Err(error.explain())
        }
    }
}

async fn image(
    options: &ExportOptions,
    repository: &Repository,
    chosen: &[Generation],
    progress: impl FnMut(u64, u64),
) -> Result<Outcome, Problem> {
    let [generation] = chosen else {
        return Err(Problem::new(
            Exit::Usage,
            format!("an OCI image holds one generation, and {} were chosen", chosen.len()),
            "--all, or --generation more than once",
            "export them one by one, or leave --format oci out",
        ));
    };
    if repository.crypt.is_encrypted() && !options.decrypt {
        return Err(Problem::new(
            Exit::Usage,
            format!("job {} is encrypted, and an OCI image would hold its memory in the clear", options.job.job),
            "CRIU and the tools that read OCI images know nothing of revenant's encryption",
            "give --decrypt if that is meant, and protect the file and the registry; or leave --format oci out",
        ));
    }
    let manifest = generations::load(repository, *generation).await.map_err(|error| error.explain())?;
    let handle = tokio::runtime::Handle::current();
    let opened = Opened::open(repository, manifest.index.id, manifest.index.len, &handle).await;
    let opened = opened.map_err(|error| error.explain())?;
    let mut out = OutputFile::create(&options.to, options.force)?;
    let Some(file) = out.seekable() else {
        return Err(Problem::new(
            Exit::Usage,
            "an OCI image cannot be written to standard output",
            "its parts are named by digests that are known only when they have been written",
            "give --to FILE; `skopeo copy oci-archive:FILE docker://…` sends it on",
        ));
    };
    match tokio::task::block_in_place(|| oci::export(&opened, &manifest, file, progress)) {
        Ok(exported) => out.finish().map(|()| Outcome::Image(exported, options.to.clone())),
        Err(error) => {
            out.discard();
            Err(error.explain())
        }
    }
}

fn describe(exported: &Exported) -> String {
    let names: Vec<String> = exported.generations.iter().map(ToString::to_string).collect();
    let sealed = if exported.encrypted { "encrypted, its key opens it" } else { "not encrypted" };
    format!(
        "exported {} of job {}: {} in {} packs ({} of it used), {sealed}",
        names.join(", "),
        exported.job,
        words::bytes(exported.bytes),
        exported.packs,
        words::bytes(exported.used),
    )
}

fn describe_image(exported: &OciExported, file: &std::path::Path) -> String {
    format!(
        "exported {} as an OCI image, not encrypted: {} images, {} ({} compressed), {}\n\
         send it to a registry:    skopeo copy oci-archive:{} docker://REGISTRY/{}\n\
         no container engine can start it; docs/oci-archive.md says what CRIU can do with it",
        exported.name,
        exported.images,
        words::bytes(exported.bytes),
        words::bytes(exported.layer_bytes),
        exported.digest,
        file.display(),
        exported.name,
    )
}
