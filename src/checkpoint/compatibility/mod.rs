//! Whether a checkpoint can run here, checked before anything of this container is changed.
//!
//! [`Surroundings`] is what a container offers, read at the save and again before the restore; [`check`] compares the
//! two, without I/O. Each thing that does not fit is a sentence with a remedy.

mod capabilities;
mod cpu;
mod memory;
mod mounts;

pub use cpu::CpuPolicy;
pub use memory::{Footprint, Memory};
pub use mounts::Need as MountNeed;

use super::record::Host;
use crate::criu::probe::Rights;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::tree::Process;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What a container and its node offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Surroundings {
    /// Instruction sets of the processor, by the kernel's names.
    pub cpu: BTreeSet<String>,
    /// Capabilities: at a save those that the workload holds, at a restore those that can be given to it.
    pub capabilities: u64,
    /// The container image, if the pod tells (`REVENANT_IMAGE`).
    pub image: Option<String>,
    /// What the workload has in memory (at a save).
    pub footprint: Footprint,
    /// How much memory there is (at a restore).
    #[serde(skip)]
    pub memory: Memory,
    /// Mounts that hold something that the workload needs (at a save).
    pub mounts: Vec<MountNeed>,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The restore must not be tried.
    pub refuses: bool,
    /// One sentence.
    pub what: String,
    /// Why it matters.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Misfit {
    fn new(refuses: bool, what: impl Into<String>, cause: &str, remedy: impl Into<String>) -> Self {
        Self { refuses, what: what.into(), cause: cause.to_owned(), remedy: remedy.into() }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cause)
    }
}

impl From<Misfit> for Problem {
    fn from(misfit: Misfit) -> Self {
        Self::new(Exit::RestoreRefused, misfit.what, misfit.cause, misfit.remedy)
    }
}

impl Surroundings {
    /// Those of a workload that is about to be saved. What cannot be read is left out: it is not checked later.
    pub fn of(tree: &[Process]) -> Self {
        Self {
            cpu: cpu::here(),
            capabilities: capabilities::held_by(tree),
            image: image(),
            footprint: Footprint::of(tree),
            memory: Memory::default(),
            mounts: mounts::needed_by(tree),
        }
    }

    /// Those of this container.
    pub fn here() -> Self {
        Self {
            cpu: cpu::here(),
            capabilities: Rights::current().map_or(u64::MAX, |rights| rights.effective),
            image: image(),
            footprint: Footprint::default(),
            memory: Memory::here(),
            mounts: Vec::new(),
        }
    }
}

fn image() -> Option<String> {
    std::env::var("REVENANT_IMAGE").ok().filter(|image| !image.is_empty())
}

/// Everything that does not fit, what refuses first.
#[allow(clippy::similar_names)] // Made in what, made on which: that is what they are.
pub fn check(
    made_in: &Surroundings,
    made_on: &Host,
    here: &Surroundings,
    host: &Host,
    policy: CpuPolicy,
) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    misfits.extend(cpu::check(&made_in.cpu, &here.cpu, policy));
    misfits.extend(capabilities::check(made_in.capabilities, here.capabilities));
    misfits.extend(memory::check(made_in.footprint, here.memory));
    misfits.extend(mounts::check(&made_in.mounts, &mounts::state_here(&made_in.mounts)));
    misfits.extend(kernel(&made_on.kernel, &host.kernel));
    if let (Some(then), Some(now)) = (&made_in.image, &here.image)
        && then != now
    {
        misfits.push(Misfit::new(
            false,
            format!("the checkpoint was made in the image {then}, this container's is {now}"),
            "programs and libraries in memory must be those of the image",
            "use the first image; files that differ are refused by name",
        ));
    }
    misfits.sort_by_key(|misfit| !misfit.refuses);
    misfits
}

/// All that refuses, as one problem.
pub fn refusal(misfits: &[Misfit]) -> Option<Problem> {
    let refusing: Vec<&Misfit> = misfits.iter().filter(|misfit| misfit.refuses).collect();
    let (first, rest) = refusing.split_first()?;
    let mut problem = Problem::from((*first).clone());
    for misfit in rest {
        problem.cause.push_str("\n        also: ");
        problem.cause.push_str(&misfit.to_string());
        problem.next.push_str("; and ");
        problem.next.push_str(&misfit.remedy);
    }
    Some(problem)
}

/// An older kernel usually works, and when it does not, this is why.
fn kernel(then: &str, now: &str) -> Option<Misfit> {
    let version = |text: &str| -> Option<(u32, u32)> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    (version(now)? < version(then)?).then(|| {
        Misfit::new(
            false,
            format!("the checkpoint was made on Linux {then}, this node has Linux {now}"),
            "an older kernel may lack what the workload uses",
            "if the restore fails, use a node whose kernel is at least as new",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(kernel: &str) -> Host {
        Host { kernel: kernel.to_owned(), ..Host::here("4.2.1") }
    }

    #[test]
    fn the_same_container_fits_itself() {
        let me = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        let made_in = Surroundings::of(&[me]);
        assert!(!made_in.cpu.is_empty() && made_in.footprint.largest > 0);
        let json = serde_json::to_value(&made_in).unwrap();
        let read: Surroundings = serde_json::from_value(json).unwrap();
        let misfits = check(&read, &host("6.1"), &Surroundings::here(), &host("6.1"), CpuPolicy::All);
        assert_eq!(misfits, []);
    }

    #[test]
    fn an_older_kernel_or_another_image_is_told_but_not_refused() {
        let then = Surroundings { image: Some("tool@sha256:aa".into()), ..Surroundings::default() };
        let now = Surroundings { image: Some("tool@sha256:bb".into()), ..Surroundings::default() };
        let misfits = check(&then, &host("6.18.2-amd64"), &now, &host("6.1.0-44"), CpuPolicy::All);
        assert_eq!(misfits.len(), 2);
        assert!(misfits[0].what.contains("Linux 6.18.2-amd64, this node has Linux 6.1.0-44"));
        assert!(misfits[1].what.contains("sha256:bb"));
        assert_eq!(refusal(&misfits), None);
        assert_eq!(kernel("6.1.0", "6.12"), None);
    }

    #[test]
    fn all_reasons_are_told_at_once() {
        let misfit = |what: &str| Misfit::new(true, what, "because", "do");
        let problem = refusal(&[misfit("one"), Misfit::new(false, "x", "y", "z"), misfit("two")]).unwrap();
        assert_eq!(problem.to_string(), "one\n  why:  because\n        also: two; because\n  next: do; and do");
    }
}
