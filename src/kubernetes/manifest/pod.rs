//! The pod, the same in every kind of workload.

use super::answers::{Answers, Kind, Store, Tier};
use super::cluster::priority_class_name;
use super::nodes::{Nodes, promoted_name};
use super::sizing::{cpu, memory, resources};
use super::storage::CHECKPOINTS;
use super::yaml::{indent, list, quoted};
use std::fmt::Write as _;

/// The port of probes and metrics.
const PORT: u16 = 9102;

/// A pod template, from `metadata:` on.
pub fn template(answers: &Answers, nodes: Nodes) -> String {
    let mut out = format!(
        "metadata:\n\
         \x20 labels: {{app.kubernetes.io/name: revenant-job, app.kubernetes.io/instance: {}}}\n\
         \x20 annotations:\n\
         \x20   # Autoscalers leave it where it is.\n\
         \x20   cluster-autoscaler.kubernetes.io/safe-to-evict: \"false\"\n\
         \x20   karpenter.sh/do-not-disrupt: \"true\"\n\
         \x20   prometheus.io/scrape: \"true\"\n\
         \x20   prometheus.io/port: \"{PORT}\"\n\
         spec:\n",
        answers.name
    );
    out.push_str(&indent(&spec(answers, nodes), 2));
    out
}

fn spec(answers: &Answers, nodes: Nodes) -> String {
    let restart = if answers.kind == Kind::StatefulSet { "Always" } else { "Never" };
    let grace = answers.grace_seconds();
    let mut out = format!(
        "restartPolicy: {restart}\n\
         serviceAccountName: {name}\n\
         priorityClassName: {class}\n\
         # Twice a save: time for one that is under way and for the last one. REVENANT_GRACE below says the same.\n\
         terminationGracePeriodSeconds: {grace}\n",
        name = answers.name,
        class = priority_class_name(answers.tier),
    );
    out.push_str(&affinity(answers, nodes));
    if nodes == Nodes::OrdinaryFirst {
        out.push_str(&promotion(answers));
    }
    out.push_str("containers:\n  - name: job\n");
    out.push_str(&indent(&container(answers, nodes), 4));
    out.push_str(&volumes(answers));
    out
}

/// Nodes by the tier; long runs share no node with one another.
fn affinity(answers: &Answers, nodes: Nodes) -> String {
    let mut out = format!("affinity:\n{}", indent(&nodes.affinity(answers), 2));
    if answers.tier != Tier::Short {
        out.push_str(
            "  podAntiAffinity:\n    # One long run a node: their peaks do not meet.\n    preferredDuringSchedulingIgnoredDuringExecution:\n      - weight: 100\n        podAffinityTerm:\n          topologyKey: kubernetes.io/hostname\n          labelSelector: {matchLabels: {app.kubernetes.io/name: revenant-job}}\n",
        );
    }
    out.push_str(&nodes.tolerations(answers));
    out
}

/// Looks, before a pod begins, whether an earlier one has run out of memory.
fn promotion(answers: &Answers) -> String {
    format!(
        "initContainers:\n\
         \x20 # Has an earlier pod been killed or evicted for want of memory? Then this Job is put to rest (parallelism 0) and\n\
         \x20 # the one below is woken. By hand: kubectl patch job {name} -p '{{\"spec\":{{\"parallelism\":0}}}}', then 1 for that one.\n\
         \x20 - name: place\n\
         \x20   image: {image}\n\
         \x20   command: [/opt/revenant/bin/revenant, promote, --to, {to}]\n\
         \x20   terminationMessagePolicy: FallbackToLogsOnError\n\
         \x20   env:\n\
         \x20     - {{name: REVENANT_POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}\n",
        name = answers.name,
        to = promoted_name(answers),
        image = quoted(&answers.image),
    )
}

/// The container, without its name.
pub fn container(answers: &Answers, nodes: Nodes) -> String {
    let resources = resources(answers);
    let mut out = format!(
        "# revenant is the image's ENTRYPOINT: the command comes as args. A `command:` here would replace revenant.\n\
         image: {}\n\
         args: {}\n\
         env:\n",
        quoted(&answers.image),
        list(&answers.command),
    );
    let grace = format!("{}s", answers.grace_seconds());
    let store = match &answers.store {
        Store::Claim { .. } => format!("file://{CHECKPOINTS}"),
        Store::Url { url, .. } => url.clone(),
    };
    for (name, value) in [
        ("REVENANT_STORE", store.as_str()),
        ("REVENANT_JOB", answers.name.as_str()),
        ("REVENANT_GRACE", grace.as_str()),
        ("REVENANT_EVERY", answers.every.as_str()),
        ("REVENANT_HTTP", &format!("0.0.0.0:{PORT}")),
    ] {
        let _ = writeln!(out, "  - {{name: {name}, value: {}}}", quoted(value));
    }
    out.push_str("  # The same pod cannot run a container twice at once: a restart need not wait for a lease.\n");
    for (name, path) in [
        ("REVENANT_POD_UID", "metadata.uid"),
        ("REVENANT_POD_NAME", "metadata.name"),
        ("REVENANT_POD_NAMESPACE", "metadata.namespace"),
        ("REVENANT_NODE_NAME", "spec.nodeName"),
    ] {
        let _ = writeln!(out, "  - {{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {path}}}}}}}");
    }
    if nodes == Nodes::OrdinaryFirst {
        out.push_str("  # Out of memory here: the next pod moves on, instead of going back in a container that is too small.\n  - {name: REVENANT_ON_OOM, value: exit}\n");
    }
    if answers.key_secret.is_some() {
        out.push_str("  # Checkpoints hold all that the job has in memory, secrets too.\n  - {name: REVENANT_KEY_FILE, value: /run/secrets/revenant/key}\n");
    }
    if let Store::Url { secret: Some(secret), .. } = &answers.store {
        let _ = writeln!(out, "envFrom:\n  - secretRef: {{name: {}}}", quoted(secret));
    }
    let _ = writeln!(out, "ports:\n  - {{name: revenant, containerPort: {PORT}}}");
    let _ = write!(
        out,
        "# A restore of a large checkpoint takes a while: until it is over, no other probe asks.\n\
         startupProbe:\n  httpGet: {{path: /startupz, port: revenant}}\n  periodSeconds: 10\n  failureThreshold: 360\n\
         livenessProbe:\n  httpGet: {{path: /livez, port: revenant}}\n  periodSeconds: 20\n  timeoutSeconds: 10\n  failureThreshold: 6\n\
         readinessProbe:\n  httpGet: {{path: /readyz, port: revenant}}\n  periodSeconds: 20\n",
    );
    out.push_str(match answers.tier {
        Tier::Short => "# CPU as used, memory below the use and a limit a little above: it yields to long runs.\n",
        _ => "# One and a half times the expected use and no limits: a spike does not kill, and eviction takes others first.\n",
    });
    let _ = write!(
        out,
        "resources:\n  requests: {{cpu: {}, memory: {}}}\n",
        cpu(resources.cpu_milli),
        memory(resources.memory_mib)
    );
    if let Some(limit) = resources.memory_limit_mib {
        let _ = writeln!(out, "  limits: {{memory: {}}}", memory(limit));
    }
    out.push_str(
        "# What CRIU needs; never `privileged`. Any seccomp filter would make saving impossible. The last two keep the\n\
         # monotonic clock going on a node that was booted later; without them such a node is refused, unless\n\
         # REVENANT_CLOCK is best-effort.\n\
         securityContext:\n  seccompProfile: {type: Unconfined}\n  capabilities: {add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME]}\n",
    );
    out.push_str(&mounts(answers));
    out
}

fn mounts(answers: &Answers) -> String {
    let mut mounts = String::new();
    if matches!(answers.store, Store::Claim { .. }) {
        let _ = writeln!(mounts, "  - {{name: checkpoints, mountPath: {CHECKPOINTS}}}");
    }
    if let Some((_, path)) = &answers.data {
        let _ = writeln!(mounts, "  - {{name: data, mountPath: {}}}", quoted(path));
    }
    if answers.key_secret.is_some() {
        mounts.push_str("  - {name: key, mountPath: /run/secrets/revenant, readOnly: true}\n");
    }
    if mounts.is_empty() { mounts } else { format!("volumeMounts:\n{mounts}") }
}

fn volumes(answers: &Answers) -> String {
    let mut volumes = String::new();
    if matches!(answers.store, Store::Claim { .. }) && answers.kind != Kind::StatefulSet {
        let _ = writeln!(
            volumes,
            "  - {{name: checkpoints, persistentVolumeClaim: {{claimName: {}-checkpoints}}}}",
            answers.name
        );
    }
    if let Some((claim, _)) = &answers.data {
        let _ = writeln!(volumes, "  - {{name: data, persistentVolumeClaim: {{claimName: {}}}}}", quoted(claim));
    }
    if let Some(secret) = &answers.key_secret {
        let _ = writeln!(volumes, "  - {{name: key, secret: {{secretName: {}, defaultMode: 0400}}}}", quoted(secret));
    }
    if volumes.is_empty() { volumes } else { format!("volumes:\n{volumes}") }
}
