//! A cluster with one pod on one node, as its API server shows it.

use super::{Announcer, Asked, Feed, Say};
use crate::harness::{Container, PATIENCE, Running, Store};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A cluster with one pod on one node.
pub struct Cluster {
    server: Announcer,
    /// What the watch of the pod says.
    pub pod: Arc<Feed>,
    /// What the watch of the node says.
    pub node: Arc<Feed>,
    account: tempfile::TempDir,
    pub store: Store,
}

pub fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "assembly-0", "namespace": "jobs", "resourceVersion": "10"},
        "spec": {"containers": [{"name": "main"}], "nodeName": "node-7", "terminationGracePeriodSeconds": 77},
        "status": {"phase": "Running"}})
}

pub fn node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-7", "resourceVersion": "20"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

pub fn event(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string()
}

fn refused() -> Say {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "pods is forbidden"});
    Say::Whole(403, "application/json", status.to_string())
}

impl Cluster {
    /// One that grants what deploy/rbac.yaml grants, or nothing.
    pub fn new(rights: bool) -> Self {
        Self::which_grants(rights, false)
    }

    /// One that grants its optional right too.
    pub fn which_lets_annotate() -> Self {
        Self::which_grants(true, true)
    }

    /// PATCH with `application/merge-patch+json` answers with the whole object:
    /// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#patch-partially-update-the-specified-pod>.
    fn which_grants(rights: bool, patches: bool) -> Self {
        let (pod_feed, node_feed) = (Arc::new(Feed::default()), Arc::new(Feed::default()));
        let (pods, nodes) = (pod_feed.clone(), node_feed.clone());
        let whole = |object: Value| Say::Whole(200, "application/json", object.to_string());
        let server = Announcer::start(move |asked| {
            if !rights || asked.headers.get("authorization").is_none_or(|value| value != "Bearer token-of-the-account")
            {
                return refused();
            }
            let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
            match (asked.method.as_str(), path, query.contains("watch=true")) {
                ("GET", "/api/v1/namespaces/jobs/pods/assembly-0", _) => whole(pod()),
                ("PATCH", "/api/v1/namespaces/jobs/pods/assembly-0", _) => match asked.headers.get("content-type") {
                    _ if !patches => refused(),
                    Some(kind) if kind == "application/merge-patch+json" => {
                        let patch: Value = serde_json::from_str(&asked.body).unwrap();
                        let mut patched = pod();
                        patched["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
                        whole(patched)
                    }
                    other => panic!("a patch of the kind {other:?}"),
                },
                ("GET", "/api/v1/namespaces/jobs/pods", true) => Say::Lines(pods.clone()),
                ("GET", "/api/v1/nodes/node-7", _) => whole(node()),
                ("GET", "/api/v1/nodes", true) => Say::Lines(nodes.clone()),
                ("POST", "/api/v1/namespaces/jobs/events", _) => {
                    Say::Whole(201, "application/json", asked.body.clone())
                }
                _ => Say::Whole(
                    404,
                    "application/json",
                    json!({"kind": "Status", "code": 404, "status": "Failure", "message": "no", "reason": "NotFound"})
                        .to_string(),
                ),
            }
        });
        let account = tempfile::tempdir().unwrap();
        std::fs::write(account.path().join("token"), "token-of-the-account").unwrap();
        std::fs::write(account.path().join("namespace"), "jobs").unwrap();
        Self { server, pod: pod_feed, node: node_feed, account, store: Store::local() }
    }

    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    pub fn start_with(&self, options: &[&str]) -> Running {
        Container::of("in-cluster")
            .store(&self.store)
            .env("REVENANT_LEASE", "1s")
            .hostname("assembly-0")
            .mount_read_only(self.account.path(), "/var/run/secrets/kubernetes.io/serviceaccount")
            .options(&["--kubernetes-api", &self.server.url()])
            .options(options)
            .workload("counter.py", &[])
            .start()
    }

    pub fn wait_for(&self, what: &str, seen: impl Fn(&Asked) -> bool) {
        let begun = SystemTime::now();
        while !self.server.asked().iter().any(&seen) {
            assert!(begun.elapsed().unwrap() < PATIENCE, "{what} was not asked for: {:#?}", self.server.asked());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_for_watches(&self) {
        self.wait_for("a watch of the pod", |asked| asked.path.contains("/pods?") && asked.path.contains("watch=true"));
        self.wait_for("a watch of the node", |asked| {
            asked.path.contains("/nodes?") && asked.path.contains("watch=true")
        });
    }

    /// The bodies of all patches of the pod.
    pub fn patches(&self) -> Vec<Value> {
        let asked = self.server.asked().into_iter().filter(|asked| asked.method == "PATCH");
        asked.map(|asked| serde_json::from_str(&asked.body).unwrap()).collect()
    }

    /// How often something was put on the pod's record.
    pub fn events(&self, reason: &str) -> usize {
        let named = |asked: &Asked| {
            asked.method == "POST"
                && serde_json::from_str::<Value>(&asked.body).is_ok_and(|body| body["reason"] == reason)
        };
        self.server.asked().iter().filter(|asked| named(asked)).count()
    }

    pub fn wait_for_event(&self, reason: &str) {
        self.wait_for(reason, |asked| {
            let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
            asked.method == "POST" && body["reason"] == reason && body["involvedObject"]["name"] == "assembly-0"
        });
    }
}
