//! Who speaks: the job, the pod and the generation, as every line of a JSON log names them.

use crate::job::{Generation, JobName};
use std::sync::Mutex;

/// Where Kubernetes' downward API is asked to put the pod's name.
const POD_NAME: &str = "REVENANT_POD_NAME";
/// And its namespace.
const POD_NAMESPACE: &str = "REVENANT_POD_NAMESPACE";

/// What is known of the speaker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The job.
    pub job: Option<String>,
    /// The pod: its name if the pod's template gives it, else the host name, which is the same in most pods.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The newest durable generation.
    pub generation: Option<String>,
}

static SPEAKER: Mutex<Identity> = Mutex::new(Identity { job: None, pod: None, namespace: None, generation: None });

/// The speaker of this process.
pub fn speaker() -> Identity {
    SPEAKER.lock().map(|speaker| speaker.clone()).unwrap_or_default()
}

/// From now on this process speaks for a job.
pub fn speak_for(job: &JobName) {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let host = || nix::unistd::gethostname().ok()?.into_string().ok();
    if let Ok(mut speaker) = SPEAKER.lock() {
        speaker.job = Some(job.to_string());
        speaker.pod = variable(POD_NAME).or_else(host);
        speaker.namespace = variable(POD_NAMESPACE);
    }
}

/// From now on the job's newest durable generation is this one.
pub fn at_generation(generation: Generation) {
    if let Ok(mut speaker) = SPEAKER.lock() {
        speaker.generation = Some(generation.to_string());
    }
}
