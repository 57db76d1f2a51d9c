//! Who takes a claim when a person runs a subcommand.

use crate::checkpoint::protocol::Holder;

/// This host and subcommand, for those who are refused meanwhile.
pub fn claimant(subcommand: &str) -> Holder {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Holder {
        host: format!("{host} (revenant {subcommand})"),
        pod_uid: None,
        instance: hex::encode(rand::random::<[u8; 16]>()),
    }
}
