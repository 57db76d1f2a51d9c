//! Reaching the API server with what the pod is given.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{ApiResource, DynamicObject};
use kube::config::AuthInfo;
use kube::{Api, Client, Config};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kubelet mounts a service account's token.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server, and who we are there.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The node's name, where the pod was given it.
    pub node: Option<String>,
}

/// Whether this container could ask: it has an address and a token.
pub fn is_here(url: Option<&str>) -> bool {
    (url.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some())
        && Path::new(ACCOUNT).join("token").exists()
}

impl Cluster {
    /// With the pod's service account. `url` instead of the address in the environment.
    pub fn of_this_pod(url: Option<&str>) -> Result<Self, String> {
        // An error means that a provider was chosen before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let config = match url {
            None => Config::incluster_env().map_err(|error| error.to_string())?,
            Some(url) => {
                let mut config = Config::new(url.parse().map_err(|error| format!("{url}: {error}"))?);
                let token = PathBuf::from(ACCOUNT).join("token").display().to_string();
                config.auth_info = AuthInfo { token_file: Some(token), ..AuthInfo::default() };
                config
            }
        };
        let namespace = fs::read_to_string(Path::new(ACCOUNT).join("namespace"))
            .map_err(|error| format!("the pod's namespace cannot be read: {error}"))?;
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            client: Client::try_from(config).map_err(|error| error.to_string())?,
            namespace: namespace.trim().to_owned(),
            // A pod's host name is its name, unless its author wants otherwise.
            pod: variable("REVENANT_POD_NAME").unwrap_or(host),
            node: variable("REVENANT_NODE_NAME"),
        })
    }

    /// The namespace's pods.
    pub fn pods(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Pod>(&()))
    }

    /// The namespace's Jobs.
    pub fn jobs(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Job>(&()))
    }

    /// The nodes.
    pub fn nodes(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<Node>(&()))
    }

    /// The namespace's events.
    pub fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
