//! The names of things that outlive a container: jobs and their generations.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of one workload's lineage of checkpoints. Safe as a path component and an object key:
/// 1 to 128 characters of `[A-Za-z0-9._-]`, not starting with a dot or a dash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobName(String);

/// Why a job name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "job name {name:?} {reason}; use 1 to 128 letters, digits, dots, dashes and underscores, starting with a letter or digit"
)]
pub struct InvalidJobName {
    name: String,
    reason: &'static str,
}

impl FromStr for JobName {
    type Err = InvalidJobName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| Err(InvalidJobName { name: name.chars().take(160).collect(), reason });
        if name.is_empty() {
            return refuse("is empty");
        }
        if name.len() > 128 {
            return refuse("is too long");
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return refuse("starts with a character that does not belong there");
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            return refuse("has characters that do not belong in a path");
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for JobName {
    type Error = InvalidJobName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0
    }
}

impl JobName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a claim. Each container that takes a job gets a higher one; a lower one is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// One checkpoint of a job: which claim wrote it, and its number within the claim. Later
/// generations compare greater. Written `3-7`: epoch 3, sequence 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Generation {
    /// The claim that wrote it.
    pub epoch: Epoch,
    /// Its number within the claim, from 1.
    pub sequence: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch.0, self.sequence)
    }
}

/// Text that is not a generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a generation; a generation looks like 3-7 (see `revenant list`)")]
pub struct InvalidGeneration(String);

impl FromStr for Generation {
    type Err = InvalidGeneration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || InvalidGeneration(text.chars().take(64).collect());
        let (epoch, sequence) = text.split_once('-').ok_or_else(refuse)?;
        Ok(Self {
            epoch: Epoch(epoch.parse().map_err(|_| refuse())?),
            sequence: sequence.parse().map_err(|_| refuse())?,
        })
    }
}

impl TryFrom<String> for Generation {
    type Error = InvalidGeneration;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Generation> for String {
    fn from(generation: Generation) -> Self {
        generation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_names_that_could_leave_their_directory() {
        for bad in ["", "..", ".hidden", "-rf", "a/b", "a b", "ä", "a\0b", &"x".repeat(129)] {
            assert!(bad.parse::<JobName>().is_err(), "{bad:?} was accepted");
        }
        for good in ["megahit-0", "sample_12.k141", "A"] {
            assert_eq!(good.parse::<JobName>().unwrap().as_str(), good);
        }
    }

    proptest! {
        #[test]
        fn generations_keep_their_order_and_text(e in 0u64..1000, s in 0u64..1000, f in 0u64..1000, t in 0u64..1000) {
            let a = Generation { epoch: Epoch(e), sequence: s };
            let b = Generation { epoch: Epoch(f), sequence: t };
            prop_assert_eq!(a.to_string().parse::<Generation>().unwrap(), a);
            prop_assert_eq!(a < b, (e, s) < (f, t));
        }
    }
}
