//! The job's name when nobody gave one: from what stays the same when a pod or container is replaced.

use crate::exit::Exit;
use crate::explain::Problem;
use crate::job::JobName;

/// The alphabet of Kubernetes' random suffixes (`k8s.io/apimachinery/pkg/util/rand`).
const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";

/// What is known about the container.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The Kubernetes Job's name (`JOB_NAME`, by the downward API).
    pub kubernetes_job: Option<String>,
    /// The number of an Indexed Job's pod (`JOB_COMPLETION_INDEX`, set by Kubernetes).
    pub completion_index: Option<String>,
    /// The pod's name (`REVENANT_POD_NAME` or `POD_NAME`).
    pub pod: Option<String>,
    /// Whether Kubernetes runs this container: then the host name is the pod's name.
    pub in_kubernetes: bool,
    /// The host name.
    pub host: String,
}

/// A derived name, and whether the next container will derive the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The name.
    pub name: JobName,
    /// From what.
    pub from: &'static str,
    /// Whether it outlives this container.
    pub stable: bool,
}

impl Identity {
    /// From this process's environment.
    pub fn here() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            kubernetes_job: variable("JOB_NAME"),
            completion_index: variable("JOB_COMPLETION_INDEX"),
            pod: variable("REVENANT_POD_NAME").or_else(|| variable("POD_NAME")),
            in_kubernetes: variable("KUBERNETES_SERVICE_HOST").is_some(),
            host: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// The job's name.
    pub fn job(&self) -> Result<Derived, Problem> {
        let (text, from, stable) = if let Some(job) = &self.kubernetes_job {
            let name = match &self.completion_index {
                Some(index) => format!("{job}-{index}"),
                None => job.clone(),
            };
            (name, "the Kubernetes Job's name", true)
        } else if let Some(pod) = self.pod.as_ref().or(self.in_kubernetes.then_some(&self.host)) {
            (without_random_suffix(pod).to_owned(), "the pod's name", true)
        } else {
            (self.host.clone(), "the host name", !looks_random(&self.host))
        };
        match text.parse() {
            Ok(name) => Ok(Derived { name, from, stable }),
            Err(error) => Err(Problem::new(
                Exit::Usage,
                format!("no job name was given, and {from} cannot serve as one: {error}"),
                "a job's checkpoints lie under its name",
                "give the job a name of its own: --job NAME, or REVENANT_JOB in the pod's environment",
            )),
        }
    }
}

/// `assembly-x7k2p` → `assembly` (`Job`, `DaemonSet`); `assembly-6d4cf56db6-x7k2p` → `assembly` (`Deployment`);
/// `assembly-0` (`StatefulSet`) stays.
fn without_random_suffix(pod: &str) -> &str {
    let random = |part: &str| part.chars().all(|c| RANDOM.contains(c));
    let Some((owner, suffix)) = pod.rsplit_once('-').filter(|(_, suffix)| suffix.len() == 5 && random(suffix)) else {
        return pod;
    };
    debug_assert!(!suffix.is_empty());
    match owner.rsplit_once('-') {
        // A ReplicaSet's hash has a digit in it, practically always; a word has not.
        Some((deployment, hash))
            if (8..=10).contains(&hash.len()) && random(hash) && hash.contains(|c: char| c.is_ascii_digit()) =>
        {
            deployment
        }
        _ => owner,
    }
}

/// Twelve hexadecimal digits: what docker and podman call a container when nobody names it.
fn looks_random(host: &str) -> bool {
    host.len() == 12 && host.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(identity: &Identity) -> (String, bool) {
        let derived = identity.job().unwrap();
        (derived.name.to_string(), derived.stable)
    }

    #[test]
    fn pods_of_one_owner_have_one_job() {
        for (pod, job) in [
            ("assembly-0", "assembly-0"),
            ("assembly-x7k2p", "assembly"),
            ("assembly-6d4cf56db6-x7k2p", "assembly"),
            ("megahit-plant", "megahit-plant"),
            ("sample-12-x7k2p", "sample-12"),
            ("pod", "pod"),
        ] {
            let identity = Identity { in_kubernetes: true, host: pod.into(), ..Identity::default() };
            assert_eq!(name(&identity), (job.to_owned(), true));
        }
    }

    #[test]
    fn a_kubernetes_jobs_own_name_comes_first() {
        let mut identity = Identity {
            kubernetes_job: Some("assembly".into()),
            pod: Some("other-x7k2p".into()),
            ..Identity::default()
        };
        assert_eq!(name(&identity).0, "assembly");
        identity.completion_index = Some("3".into());
        assert_eq!(name(&identity).0, "assembly-3");
    }

    #[test]
    fn a_random_host_name_is_not_stable() {
        let identity = |host: &str| Identity { host: host.into(), ..Identity::default() };
        assert_eq!(name(&identity("3f2a9c01b7de")), ("3f2a9c01b7de".to_owned(), false));
        assert_eq!(name(&identity("workstation")), ("workstation".to_owned(), true));
        assert_eq!(identity("").job().unwrap_err().exit, 210);
    }
}
