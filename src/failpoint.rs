//! Test support: dies on purpose at a named step, as a crash or a kill would.
//!
//! `REVENANT_FAILPOINT=name` kills the process (SIGKILL) the first time that `failpoint!("name")` is
//! reached, `name:3` the third time. Without the variable a failpoint costs one load.
//!
//! Every step is listed in [`STEPS`] with the operations that reach it, or it does not compile; the
//! crash tests go through that list, so a new step is tested as soon as it exists.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is under way when a step is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// A container takes its job.
    Begin,
    /// A save with the workload in a container.
    Save,
    /// A save to a slow store with a spool.
    SpooledSave,
    /// `revenant prune`.
    Prune,
    /// `revenant prune --repack-below`.
    Repack,
    /// `revenant key rotate`.
    Rotation,
    /// `revenant export`.
    Export,
    /// `revenant import` of an encrypted job.
    Import,
}

/// A step at which a process may be told to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// The operations that reach it.
    pub during: &'static [During],
}

/// All steps there are.
pub const STEPS: &[Step] = {
    use During::{Begin, Export, Import, Prune, Repack, Rotation, Save, SpooledSave};
    &[
        Step { name: "claim-taken", during: &[Begin, Prune, Import] },
        Step { name: "claim-sealed", during: &[Begin, Prune, Import] },
        Step { name: "save.pack.sealed", during: &[Save, SpooledSave] },
        Step { name: "save.pack.uploaded", during: &[Save] },
        Step { name: "save.pack.spooled", during: &[SpooledSave] },
        Step { name: "save.images.packed", during: &[Save] },
        Step { name: "save.recipes.packed", during: &[Save] },
        Step { name: "save.packs.durable", during: &[Save] },
        Step { name: "save.index.durable", during: &[Save] },
        Step { name: "commit-before-manifest", during: &[Save, Import, Repack] },
        Step { name: "commit-after-manifest", during: &[Save, Import, Repack] },
        Step { name: "prune-manifests", during: &[Prune, Repack] },
        Step { name: "prune-objects", during: &[Prune, Repack] },
        Step { name: "prune-batch", during: &[Prune, Repack] },
        Step { name: "repack.pack.stored", during: &[Repack] },
        Step { name: "repack.packs.stored", during: &[Repack] },
        Step { name: "repack.index.stored", during: &[Repack] },
        Step { name: "repack.generation.committed", during: &[Repack] },
        Step { name: "repack.generation.replaced", during: &[Repack] },
        Step { name: "key-rotate-added", during: &[Rotation] },
        Step { name: "export.pack.written", during: &[Export] },
        Step { name: "export.objects.written", during: &[Export] },
        Step { name: "export.file.synced", during: &[Export] },
        Step { name: "export.file.named", during: &[Export] },
        Step { name: "import.keys.stored", during: &[Import] },
        Step { name: "import.job.made", during: &[Import] },
        Step { name: "import.object.stored", during: &[Import] },
        Step { name: "import.objects.stored", during: &[Import] },
        Step { name: "import.generation.committed", during: &[Import] },
    ]
};

/// The names of the steps that this operation reaches.
pub fn steps(during: During) -> impl Iterator<Item = &'static str> {
    STEPS.iter().filter(move |step| step.during.contains(&during)).map(|step| step.name)
}

/// Whether a step of this name is listed in [`STEPS`].
pub const fn is_listed(name: &str) -> bool {
    let mut n = 0;
    while n < STEPS.len() {
        if same(STEPS[n].name.as_bytes(), name.as_bytes()) {
            return true;
        }
        n += 1;
    }
    false
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut n = 0;
    while n < a.len() {
        if a[n] != b[n] {
            return false;
        }
        n += 1;
    }
    true
}

/// Marks a step at which the process may be told to die; see [`crate::failpoint`].
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{
        const { assert!($crate::failpoint::is_listed($name), "list this step in failpoint::STEPS: crash tests read it") };
        $crate::failpoint::reach($name)
    }};
}

struct Armed {
    name: String,
    remaining: AtomicU64,
}

/// The step `name` is reached. Use [`crate::failpoint!`], so that it is listed.
pub fn reach(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| parse(&std::env::var("REVENANT_FAILPOINT").ok()?));
    if let Some(armed) = armed
        && armed.name == name
        && armed.remaining.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // In one piece: other processes write to the same log.
        let words = format!("revenant: failpoint {name} reached, dying\n");
        let _ = std::io::stderr().write_all(words.as_bytes());
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        // The first process of a container cannot be killed by itself.
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let nth: u64 = nth.parse().ok().filter(|&nth| nth > 0)?;
    (!name.is_empty()).then(|| Armed { name: name.to_owned(), remaining: AtomicU64::new(nth) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_name_and_count() {
        let nth = |text| parse(text).map(|armed| (armed.name, armed.remaining.into_inner()));
        assert_eq!(nth("commit"), Some(("commit".to_owned(), 1)));
        assert_eq!(nth("commit:3"), Some(("commit".to_owned(), 3)));
        assert_eq!(nth("commit:0"), None);
        assert_eq!(nth(":1"), None);
        assert_eq!(nth(""), None);
    }

    /// A step that no code reaches any more would make a crash test that tests nothing.
    #[test]
    fn every_listed_step_is_in_the_code_once_listed() {
        fn sources(directory: &std::path::Path, text: &mut String) {
            for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    sources(&entry, text);
                } else if entry.extension().is_some_and(|extension| extension == "rs") {
                    text.push_str(&std::fs::read_to_string(entry).unwrap());
                }
            }
        }
        let mut text = String::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        for (n, step) in STEPS.iter().enumerate() {
            assert!(text.contains(&format!("failpoint!(\"{}\")", step.name)), "nothing reaches {}", step.name);
            assert!(!step.during.is_empty() && STEPS[..n].iter().all(|other| other.name != step.name), "{}", step.name);
        }
        assert!(is_listed("claim-taken") && !is_listed("claim") && !is_listed(""));
    }
}
