//! `revenant import`: generations from one file.

use super::bytes_bar::{bytes_bar, show};
use super::claimant::claimant;
use super::stored_job::{block_on, print_json};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::JobName;
use crate::repository::archive::{self, ImportTerms, Imported, Renamed};
use crate::repository::claim::Terms;
use crate::repository::user_key::UserKey;
use crate::store::{Store, StoreSettings};
use crate::supervisor::words;
use clap::Args;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of `revenant import`.
#[derive(Debug, Clone, Args)]
pub struct ImportOptions {
    /// What `revenant export` wrote, or - for standard input
    file: PathBuf,
    /// Where checkpoints are kept: `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`
    #[arg(long, env = "REVENANT_STORE", value_name = "URL", default_value = "file:///checkpoints")]
    store: String,
    /// The job that is to continue from it [default: the name that it was exported under]
    #[arg(long, env = "REVENANT_JOB", value_name = "NAME")]
    job: Option<JobName>,
    #[allow(clippy::doc_markdown)] // Shown to people as it is.
    /// A file with the key, for an encrypted job (REVENANT_KEY holds one itself)
    #[arg(long, env = "REVENANT_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A container that has not renewed its claim for this long is taken for dead
    #[arg(long, env = "REVENANT_LEASE", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// Print what was imported as JSON
    #[arg(long)]
    json: bool,
}

/// Imports.
pub fn run(options: &ImportOptions) -> Result<u8, Problem> {
    let bar = bytes_bar();
    let imported = block_on(async {
        let key = UserKey::from_environment(options.key_file.as_deref()).map_err(|error| error.explain())?;
        let store = Store::open(&options.store, &StoreSettings::default()).map_err(|error| error.explain())?;
        let terms = ImportTerms {
            job: options.job.clone(),
            key: key.as_ref(),
            holder: claimant("import"),
            terms: Terms { lease: options.lease, takeover: false },
        };
        let progress = |done, total| show(&bar, done, total);
        archive::import(&store, source(&options.file)?, &terms, progress).await.map_err(|error| error.explain())
    })?;
    bar.finish_and_clear();
    if options.json {
        print_json(&imported)?;
    } else {
        println!("{}", describe(&imported));
    }
    Ok(0)
}

fn source(path: &Path) -> Result<Box<dyn Read + Send>, Problem> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| {
        Problem::new(
            Exit::Usage,
            format!("{} cannot be read: {error}", path.display()),
            "the name is mistyped, or the file is not readable for this user",
            "give what `revenant export` wrote, or - for standard input",
        )
    })?;
    Ok(Box::new(io::BufReader::with_capacity(1 << 20, file)))
}

fn describe(imported: &Imported) -> String {
    let mut lines = Vec::new();
    for Renamed { from, to } in &imported.known {
        lines.push(format!("generation {from} is there already, as {to}"));
    }
    for Renamed { from, to } in &imported.generations {
        lines.push(format!("imported generation {from} as {to} of job {}", imported.job));
    }
    lines.push(format!("{} packs, {} new in the store", imported.packs, words::bytes(imported.new_bytes)));
    if imported.mended > 0 {
        lines.push(format!("{} damaged objects of the store are whole again", imported.mended));
    }
    if let Some(Renamed { to, .. }) = imported.generations.last() {
        lines.push(format!("the next container of this job continues from {to}"));
    }
    lines.join("\n")
}
