//! The pod and its node, as the cluster's API server sees them.
//!
//! Nothing here is needed: with no rights, or outside of a cluster, one line says so and the rest of revenant works
//! as ever. What may be granted is in `deploy/rbac.yaml`.

pub mod annotation;
pub mod client;
pub mod events;
pub mod follow;
pub mod node;
pub mod pod;

use crate::trigger::Heard;
use client::Cluster;
use tokio::sync::mpsc::Sender;

/// Watches the pod, and its node once that is known, for as long as it is polled.
pub async fn run(cluster: Cluster, heard: Sender<Heard>) {
    let pods = cluster.pods();
    let (named, node) = tokio::sync::oneshot::channel();
    let mut pod = pod::Seen::new(named);
    let name = cluster.pod.clone();
    let watching_pod = follow::object(&pods, &name, "the pod", &heard, |found| pod.heard(found));
    let watching_node = async {
        // The name is in the environment, or comes with the pod.
        let name = match cluster.node.clone() {
            Some(name) => name,
            None => match node.await {
                Ok(name) => name,
                Err(_) => return,
            },
        };
        let mut seen = node::Seen::default();
        follow::object(&cluster.nodes(), &name, "the node", &heard, |found| seen.heard(found)).await;
    };
    tokio::join!(watching_pod, watching_node);
}
