//! `revenant promote`: an init container's look back, after which the job begins here or continues on larger nodes.

use crate::exit::Exit;
use crate::kubernetes::promote::{self, Placed};
use crate::kubernetes::watch::client::Cluster;
use clap::Args;
use std::time::Duration;
use tracing::{info, warn};

/// The API server is not waited for any longer: the job may begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `revenant promote`.
#[derive(Debug, Clone, Args)]
pub struct PromoteOptions {
    /// The Job for larger nodes, at rest until it is needed (parallelism 0)
    #[arg(long, env = "REVENANT_PROMOTE_TO", value_name = "JOB")]
    to: String,
    /// The container whose memory counts
    #[arg(long, env = "REVENANT_PROMOTE_CONTAINER", value_name = "NAME", default_value = "job")]
    container: String,
    /// The cluster's API server [default: as Kubernetes tells every pod]
    #[arg(long, env = "REVENANT_KUBERNETES_API", value_name = "URL")]
    kubernetes_api: Option<String>,
}

/// Looks, and moves the job if it must. That it cannot be moved is no reason to keep it from running where it is: this
/// is told, and the end is a good one.
pub fn run(options: &PromoteOptions) -> u8 {
    match place(options) {
        Ok(Placed::Here) => Exit::Ok.code(),
        Ok(Placed::Moved { from, because }) => {
            info!(
                pod = because.pod,
                "the pod {} has run out of memory: {}; the Job {} continues the work on larger nodes, and {from} rests",
                because.pod,
                because.how,
                options.to
            );
            Exit::StoppedBeforeStart.code()
        }
        Err(error) => {
            warn!(
                "not moved to larger nodes, should memory have run out: {error}; the job begins here. The service account \
                 needs the rights that `revenant manifest --tier standard` writes"
            );
            Exit::Ok.code()
        }
    }
}

fn place(options: &PromoteOptions) -> Result<Placed, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let cluster = Cluster::of_this_pod(options.kubernetes_api.as_deref())?;
        let asked = promote::promote(&cluster, &options.to, &options.container);
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("the API server does not answer".to_owned()))
    })
}
