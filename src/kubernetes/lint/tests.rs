use super::*;

/// A Job as it should be.
const GOOD: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: assembly}
spec:
  backoffLimit: 100
  podFailurePolicy:
    rules:
      - {action: Ignore, onExitCodes: {operator: In, values: [200, 201, 204, 209]}}
      - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
  template:
    metadata:
      labels: {app: assembly}
      annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false"}
    spec:
      restartPolicy: Never
      priorityClassName: long-jobs
      terminationGracePeriodSeconds: 300
      containers:
        - name: assembly
          image: registry.example/megahit@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          args: [megahit, -o, /data/out]
          env:
            - {name: REVENANT_STORE, value: "s3://bucket/prefix"}
            - {name: REVENANT_GRACE, value: 300s}
          resources: {requests: {cpu: 12, memory: 192Gi}}
          securityContext:
            seccompProfile: {type: Unconfined}
            capabilities: {add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: assembly}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: assembly}}}
"#;

fn review(text: &str) -> Report {
    lint(&[("job.yaml".into(), text.into())]).unwrap()
}

fn rules(text: &str) -> Vec<&'static str> {
    review(text).findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn a_good_job_has_no_findings() {
    assert_eq!(review(GOOD).findings, []);
}

/// Each line of the good job that is changed brings its own finding, and no other.
#[test]
fn each_change_for_the_worse_is_found() {
    let changes: &[(&str, &str, &[&str])] = &[
        ("args: [megahit", "command: [megahit", &["entrypoint-replaced"]),
        ("{type: Unconfined}", "{type: RuntimeDefault}", &["seccomp-filter"]),
        ("seccompProfile: {type: Unconfined}", "runAsUser: 0", &["seccomp-unset"]),
        (
            "add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME]",
            "add: [SYS_PTRACE, SYS_ADMIN, SYS_TIME]",
            &["capabilities-missing"],
        ),
        (
            "{add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME]}",
            "{add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME], drop: [ALL]}",
            &["capabilities-missing"],
        ),
        (
            "capabilities: {add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME]}",
            "privileged: true",
            &["privileged"],
        ),
        (", SYS_ADMIN, SYS_TIME]", "]", &["clock-not-kept"]),
        ("s3://bucket/prefix", "file:///checkpoints", &["store-in-the-container"]),
        ("terminationGracePeriodSeconds: 300", "terminationGracePeriodSeconds: 60", &["grace-mismatch"]),
        ("  backoffLimit: 100", "  activeDeadlineSeconds: 7200\n  backoffLimit: 100", &["active-deadline"]),
        ("backoffLimit: 100", "backoffLimit: 0", &["backoff-limit"]),
        ("values: [200, 201, 204, 209]", "values: [201]", &["failure-policy"]),
        ("type: DisruptionTarget", "type: Other", &["failure-policy"]),
        ("memory: 192Gi}", "memory: 192Gi}, limits: {memory: 200Gi}", &["memory-limit"]),
        ("memory: 192Gi}", "memory: 192Gi}, limits: {cpu: 12}", &["cpu-limit"]),
        ("memory: 192Gi}", "memory: 192Gi}, limits: {ephemeral-storage: 10Gi}", &["ephemeral-storage-limit"]),
        (", memory: 192Gi", "", &["memory-request"]),
        ("priorityClassName: long-jobs", "hostNetwork: false", &["no-priority"]),
        ("maxUnavailable: 0", "maxUnavailable: 1", &["no-disruption-budget"]),
        ("matchLabels: {app: assembly}", "matchLabels: {app: other}", &["no-disruption-budget"]),
        ("safe-to-evict: \"false\"", "safe-to-evict: \"true\"", &["autoscaler"]),
        ("args: [megahit", "lifecycle: {preStop: {sleep: {seconds: 20}}}\n          args: [megahit", &["pre-stop"]),
        (
            "args: [megahit",
            "livenessProbe: {exec: {command: [revenant, status, --probe, live]}}\n          args: [megahit",
            &["liveness-without-startup"],
        ),
        (
            "value: 300s}",
            "value: 300s}\n            - {name: AWS_SECRET_ACCESS_KEY, value: abc}",
            &["secret-in-manifest"],
        ),
        ("@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", ":1.2.9", &["moving-tag"]),
    ];
    for (from, to, expected) in changes {
        assert!(GOOD.contains(from), "{from}");
        assert_eq!(rules(&GOOD.replacen(from, to, 1)), *expected, "{to}");
    }
}

#[test]
fn where_checkpoints_lie_is_found_through_mounts() {
    let with = |mount: &str, volume: &str| {
        let text = GOOD.replacen("s3://bucket/prefix", "file:///data/checkpoints", 1);
        let text = text.replacen(
            "resources:",
            &format!("volumeMounts: [{{name: v, mountPath: {mount}}}]\n          resources:"),
            1,
        );
        rules(&text.replacen(
            "      containers:",
            &format!("      volumes: [{{name: v, {volume}}}]\n      containers:"),
            1,
        ))
    };
    assert_eq!(with("/data", "persistentVolumeClaim: {claimName: c}"), Vec::<&str>::new());
    assert_eq!(with("/data", "emptyDir: {}"), ["store-in-the-pod"]);
    assert_eq!(with("/data/checkpoints", "hostPath: {path: /srv}"), ["store-on-the-node"]);
    assert_eq!(with("/dat", "persistentVolumeClaim: {claimName: c}"), ["store-in-the-container"]);
}

#[test]
fn a_deployment_needs_a_name_for_its_job_and_one_pod() {
    let deployment = GOOD.replacen("batch/v1", "apps/v1", 1).replacen("kind: Job", "kind: Deployment", 1);
    let start = deployment.find("  backoffLimit").unwrap();
    let end = deployment.find("  template:").unwrap();
    let deployment =
        format!("{}  selector: {{matchLabels: {{app: assembly}}}}\n{}", &deployment[..start], &deployment[end..]);
    let deployment = deployment.replacen("restartPolicy: Never", "restartPolicy: Always", 1);
    assert_eq!(rules(&deployment), ["job-without-name"]);
    let named = deployment.replacen("value: 300s}", "value: 300s}\n            - {name: REVENANT_JOB, value: one}", 1);
    assert_eq!(rules(&named), Vec::<&str>::new());
    let two = named.replacen("  selector: {matchLabels", "  replicas: 2\n  selector: {matchLabels", 1);
    assert_eq!(rules(&two), ["job-name-shared"]);
}

#[test]
fn a_plain_pod_is_told_all_that_it_lacks_the_worst_first() {
    let report =
        review("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: megahit}]}\n");
    let dangers: Vec<_> = report.findings.iter().map(|finding| finding.danger).collect();
    assert!(dangers.is_sorted_by(|a, b| a >= b), "{dangers:?}");
    for rule in ["bare-pod", "no-checkpoints", "memory-request", "no-priority", "moving-tag"] {
        assert!(report.findings.iter().any(|finding| finding.rule == rule), "{rule}");
    }
    let text = text(&report);
    assert!(text.starts_with("fatal: ") && text.contains("where: job.yaml:1 Pod/p, spec.containers"), "{text}");
}

#[test]
fn what_the_api_server_would_refuse_is_named() {
    let error = lint(&[("a.yaml".into(), GOOD.replacen("backoffLimit: 100", "backoffLimit: many", 1))]).unwrap_err();
    assert!(error.to_string().contains("line 1: Job assembly"), "{error}");
    let error = lint(&[("a.yaml".into(), "kind: ConfigMap\n".into())]).unwrap_err();
    assert!(matches!(error, LintError::NoWorkload));
}

#[test]
fn sarif_names_each_rule_once_and_each_place() {
    let report = review(&GOOD.replacen("maxUnavailable: 0", "maxUnavailable: 1", 1));
    let log = sarif(&report);
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"][0]["id"], "no-disruption-budget");
    assert_eq!(log["runs"][0]["results"][0]["level"], "warning");
    let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "job.yaml");
    assert_eq!(place["region"]["startLine"], 1);
}
