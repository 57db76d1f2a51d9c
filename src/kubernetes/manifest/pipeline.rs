//! The same job as a step of a pipeline.

use super::answers::{Answers, Store, Tier};
use super::nodes::Nodes;
use super::pod::container;
use super::sizing::{cpu, memory, resources};
use super::storage::CHECKPOINTS;
use super::yaml::{indent, quoted};
use crate::exit::Exit;

/// An Argo Workflows template: each retry continues from the checkpoint.
pub fn argo(answers: &Answers) -> String {
    let (label, value) = answers.high_memory_label.split_once('=').unwrap_or(("", ""));
    let name = &answers.name;
    let volumes = match &answers.store {
        Store::Claim { .. } => format!(
            "  volumes:\n    - {{name: checkpoints, persistentVolumeClaim: {{claimName: {name}-checkpoints}}}}\n"
        ),
        Store::Url { .. } => String::new(),
    };
    let moves = match answers.tier {
        Tier::Critical => format!("      nodeSelector: {{{}: {}}}\n", quoted(label), quoted(value)),
        Tier::Standard => format!(
            "      # From the first retry on (out of memory, evicted) on a high-memory node.\n      podSpecPatch: |\n        nodeSelector: '{{{{=asInt(retries) > 0 ? toJson({{\"{label}\": \"{value}\"}}) : \"{{}}\"}}}}'\n"
        ),
        Tier::Short => String::new(),
    };
    format!(
        "# {name} as an Argo Workflow. Written by `revenant manifest`.\n\
         apiVersion: argoproj.io/v1alpha1\n\
         kind: Workflow\n\
         metadata:\n  generateName: {name}-\n\
         spec:\n\
         \x20 entrypoint: {name}\n\
         {volumes}\
         \x20 templates:\n\
         \x20   - name: {name}\n\
         \x20     # Every end but the command's own failure is worth another pod: it continues from the checkpoint.\n\
         \x20     retryStrategy:\n        limit: \"100\"\n        retryPolicy: Always\n\
         \x20       expression: \"lastRetry.status == 'Error' || asInt(lastRetry.exitCode) in [{}, {}, {}, {}, 137, 143]\"\n\
         {moves}\
         \x20     container:\n{}",
        Exit::SavedAndStopped.code(),
        Exit::StoppedUnsaved.code(),
        Exit::Fenced.code(),
        Exit::StoppedBeforeStart.code(),
        indent(&without_probes(&container(answers, Nodes::at_first(answers))), 8),
    )
}

/// Argo runs its own waiting container beside; probes of the main one are left out.
fn without_probes(container: &str) -> String {
    let mut out = String::new();
    let mut skipping = false;
    for line in container.lines() {
        let is_field = !line.starts_with(' ') && !line.starts_with('#');
        if is_field {
            skipping = line.ends_with("Probe:");
        }
        if !skipping && !line.starts_with("# A restore of a large") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// A Nextflow process: the executor's own retries continue from the checkpoint.
pub fn nextflow(answers: &Answers) -> String {
    let sizes = resources(answers);
    let codes = [Exit::SavedAndStopped, Exit::StoppedUnsaved, Exit::Fenced, Exit::StoppedBeforeStart]
        .map(|exit| exit.code().to_string())
        .join(", ");
    let label = answers.name.replace('-', "_");
    format!(
        "// {name} as a Nextflow process on Kubernetes. Written by `revenant manifest`; for nextflow.config.\n\
         // The image's ENTRYPOINT is not used by Nextflow: the script itself starts revenant.\n\
         //   script:  \"/opt/revenant/bin/revenant run -- {command}\"\n\
         process {{\n\
         \x20   withLabel: {label} {{\n\
         \x20       container = {image}\n\
         \x20       cpus = {cpus}\n\
         \x20       memory = '{mib} MB'\n\
         \x20       // Saved and stopped, or evicted: the next attempt continues from the checkpoint.\n\
         \x20       errorStrategy = {{ task.exitStatus in [{codes}, 137, 143] ? 'retry' : 'finish' }}\n\
         \x20       maxRetries = 100\n\
         \x20       pod = [\n\
         \x20           [env: 'REVENANT_STORE', value: {store}],\n\
         \x20           [env: 'REVENANT_JOB', value: '{name}'],\n\
         \x20           [env: 'REVENANT_EVERY', value: '{every}'],\n\
         {mount}\
         \x20           [securityContext: [seccompProfile: [type: 'Unconfined'], capabilities: [add: ['CHECKPOINT_RESTORE', 'SYS_PTRACE']]]],\n\
         \x20           [priorityClassName: '{class}'],\n\
         \x20       ]\n\
         \x20   }}\n\
         }}\n",
        name = answers.name,
        command = answers.command.join(" "),
        image = groovy(&answers.image),
        cpus = sizes.cpu_milli.div_ceil(1000),
        mib = sizes.memory_mib,
        store = groovy(&store(answers)),
        every = answers.every,
        mount = match &answers.store {
            Store::Claim { .. } =>
                format!("            [volumeClaim: '{}-checkpoints', mountPath: '{CHECKPOINTS}'],\n", answers.name),
            Store::Url { .. } => String::new(),
        },
        class = super::cluster::priority_class_name(answers.tier),
    )
}

/// A Snakemake rule.
pub fn snakemake(answers: &Answers) -> String {
    let sizes = resources(answers);
    format!(
        "# {name} as a Snakemake rule. Written by `revenant manifest`.\n\
         # Run with the Kubernetes executor; --retries 100 lets each attempt continue from the checkpoint.\n\
         rule {rule}:\n\
         \x20   output: \"{name}.done\"\n\
         \x20   threads: {threads}\n\
         \x20   resources: mem_mb={mib}  # requests {cpu} CPU and {memory}\n\
         \x20   container: {image}\n\
         \x20   retries: 100\n\
         \x20   shell:\n\
         \x20       \"REVENANT_STORE={store} REVENANT_JOB={name} REVENANT_EVERY={every} \"\n\
         \x20       \"/opt/revenant/bin/revenant run -- {command} && touch {{output}}\"\n",
        name = answers.name,
        rule = answers.name.replace('-', "_"),
        threads = sizes.cpu_milli.div_ceil(1000),
        mib = sizes.memory_mib,
        cpu = cpu(sizes.cpu_milli).replace('"', ""),
        memory = memory(sizes.memory_mib),
        image = quoted(&format!("docker://{}", answers.image)),
        store = store(answers),
        every = answers.every,
        command = answers.command.join(" "),
    )
}

fn store(answers: &Answers) -> String {
    match &answers.store {
        Store::Claim { .. } => format!("file://{CHECKPOINTS}"),
        Store::Url { url, .. } => url.clone(),
    }
}

fn groovy(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
