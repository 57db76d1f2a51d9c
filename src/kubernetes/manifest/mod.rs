//! The manifests of a long-running job, from a few answers: the practice of groups that run assemblies
//! for months, as commented YAML.
//!
//! Text is written, not objects: the comments are half of the value. Tests read every variant back as
//! the API server would, and let `lint` review it.

mod answers;
mod cluster;
mod nodes;
mod pipeline;
mod pod;
mod sizing;
mod storage;
mod workload;
mod yaml;

pub use answers::{Answers, InvalidAnswer, Kind, Store, Tier};
pub use sizing::{Resources, cpu, memory, resources};

/// Everything that the job needs, ready for `kubectl apply -f -`.
pub fn manifest(answers: &Answers) -> Result<String, InvalidAnswer> {
    answers.check()?;
    Ok(match answers.kind {
        Kind::Argo => pipeline::argo(answers),
        Kind::Nextflow => pipeline::nextflow(answers),
        Kind::Snakemake => pipeline::snakemake(answers),
        Kind::Job | Kind::StatefulSet | Kind::CronJob => {
            let documents = [
                cluster::priority_class(answers),
                cluster::service_account(answers),
                storage::claims(answers),
                cluster::disruption_budget(answers),
                workload::workload(answers),
                workload::promoted(answers),
            ];
            let documents: Vec<String> = documents.into_iter().filter(|document| !document.is_empty()).collect();
            format!("{}---\n{}", header(answers), documents.join("---\n"))
        }
    })
}

fn header(answers: &Answers) -> String {
    format!(
        "# {name}: a long-running job under revenant. Written by `revenant manifest`; read it, change it, keep it in git.\n\
         #   kubectl apply -f {name}.yaml       and look at it:  kubectl exec {pod} -- revenant status\n\
         #   revenant lint {name}.yaml          after each change\n",
        name = answers.name,
        pod = match answers.kind {
            Kind::StatefulSet => format!("{}-0", answers.name),
            _ => format!("job/{}", answers.name),
        },
    )
}

#[cfg(test)]
mod tests;
