//! What is asked before manifests can be written.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::JobName;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// For work that ends: a Job.
    Job,
    /// For work whose pods need a stable name or a volume each: a `StatefulSet` of one.
    #[value(name = "statefulset")]
    StatefulSet,
    /// For work that begins anew on a schedule.
    #[value(name = "cronjob")]
    CronJob,
    /// An Argo Workflows template.
    Argo,
    /// A process of a Nextflow pipeline, with its configuration.
    Nextflow,
    /// A rule of a Snakemake pipeline.
    Snakemake,
}

/// How much the job matters, which decides where it runs and who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Months of work: always on high-memory nodes, alone there, requests far above the use, no limits.
    Critical,
    /// Days or weeks: starts on ordinary nodes; after running out of memory it continues on high-memory nodes.
    Standard,
    /// Hours, beside long runs: requests below the use and a memory limit, so that it yields.
    Short,
}

impl Tier {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Standard => "standard",
            Self::Short => "short",
        }
    }
}

/// Where checkpoints go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A `PersistentVolumeClaim` of this many GiB, made with the rest.
    Claim {
        /// Size in GiB.
        gib: u32,
        /// Storage class; the cluster's default when none.
        class: Option<String>,
    },
    /// An object store.
    Url {
        /// For example `s3://bucket/prefix`.
        url: String,
        /// The Secret with its credentials as variables, if it needs any.
        secret: Option<String>,
    },
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Name of the workload, and of the revenant job.
    pub name: String,
    /// What is written.
    pub kind: Kind,
    /// How much it matters.
    pub tier: Tier,
    /// The image; revenant is its ENTRYPOINT.
    pub image: String,
    /// The command, as the image's arguments.
    pub command: Vec<String>,
    /// Expected peak of memory, in MiB.
    pub memory_mib: u64,
    /// Expected use of CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Where checkpoints go.
    pub store: Store,
    /// A claim with the data, and where it is mounted.
    pub data: Option<(String, String)>,
    /// How long a save takes, in seconds.
    pub save_seconds: u64,
    /// Also save every so often; `auto` lets revenant choose.
    pub every: String,
    /// A Secret whose entry `key` encrypts the checkpoints.
    pub key_secret: Option<String>,
    /// The label that marks high-memory nodes, `name=value`.
    pub high_memory_label: String,
    /// For a `CronJob`.
    pub schedule: Option<String>,
}

/// An answer that manifests cannot be written with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct InvalidAnswer {
    what: String,
    next: String,
}

impl Explain for InvalidAnswer {
    fn explain(&self) -> Problem {
        Problem::new(
            Exit::Usage,
            &self.what,
            "Kubernetes would refuse the manifest, or it would not do what it says",
            &self.next,
        )
    }
}

/// The longest name whose pods, budgets and claims still fit into a label (63 bytes).
const LONGEST_NAME: usize = 50;

impl Answers {
    /// Whether manifests can be written with these.
    pub fn check(&self) -> Result<(), InvalidAnswer> {
        let refuse = |what: String, next: &str| Err(InvalidAnswer { what, next: next.to_owned() });
        let label = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !text.starts_with('-')
                && !text.ends_with('-')
        };
        if !label(&self.name) || self.name.len() > LONGEST_NAME || self.name.parse::<JobName>().is_err() {
            return refuse(
                format!("{:?} cannot be the name of a workload", self.name),
                "use up to 50 small letters, digits and -, for example assembly-soil-7",
            );
        }
        if self.command.is_empty() {
            return refuse(
                "there is no command".into(),
                "write it after --, for example: -- megahit -1 r1.fq -2 r2.fq -o out",
            );
        }
        if self.memory_mib == 0 || self.cpu_milli == 0 {
            return refuse(
                "memory and CPU must be more than nothing".into(),
                "give the expected peak, for example --memory 128GiB --cpus 16",
            );
        }
        if self.high_memory_label.split_once('=').is_none_or(|(name, value)| name.is_empty() || value.is_empty()) {
            return refuse(
                format!("{:?} is no label", self.high_memory_label),
                "write NAME=VALUE, for example node-class=high-memory",
            );
        }
        if self.kind == Kind::CronJob && self.schedule.is_none() {
            return refuse("a CronJob needs a schedule".into(), "add --schedule '0 2 * * 0'");
        }
        if let Store::Url { url, .. } = &self.store
            && !["s3://", "gs://", "az://"].iter().any(|scheme| url.starts_with(scheme))
        {
            return refuse(
                format!("{url:?} is not an object store"),
                "use s3://…, gs://… or az://…, or --claim-size for a volume",
            );
        }
        Ok(())
    }

    /// The grace period: twice a save, for it may come twice, and never less than Kubernetes' own.
    pub fn grace_seconds(&self) -> u64 {
        (2 * self.save_seconds).max(30)
    }
}
