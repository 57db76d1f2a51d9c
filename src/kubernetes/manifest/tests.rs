use super::*;
use crate::kubernetes::lint::{self, Danger};

fn answers(kind: Kind, tier: Tier, store: Store) -> Answers {
    Answers {
        name: "assembly-soil-7".into(),
        kind,
        tier,
        image: "registry.example/megahit@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
            .into(),
        command: ["megahit", "-1", "/data/r1.fq", "-o", "/data/it's \"out\""].map(str::to_owned).to_vec(),
        memory_mib: 128 << 10,
        cpu_milli: 16_000,
        store,
        data: Some(("reads".into(), "/data".into())),
        save_seconds: 120,
        every: "auto".into(),
        key_secret: Some("assembly-key".into()),
        high_memory_label: "node-class=high-memory".into(),
        schedule: Some("0 2 * * 0".into()),
    }
}

fn stores() -> [Store; 2] {
    [
        Store::Claim { gib: 500, class: Some("fast".into()) },
        Store::Url { url: "s3://bucket/prefix".into(), secret: Some("s3-credentials".into()) },
    ]
}

/// Every variant is accepted by the types of the API, and found good by our own review.
#[test]
fn every_variant_passes_the_review() {
    for kind in [Kind::Job, Kind::StatefulSet, Kind::CronJob] {
        for tier in [Tier::Critical, Tier::Standard, Tier::Short] {
            for store in stores() {
                let text = manifest(&answers(kind, tier, store)).unwrap();
                let report = lint::lint(&[("written.yaml".into(), text.clone())])
                    .unwrap_or_else(|error| panic!("{error}\n{text}"));
                // A short job has a limit and no budget on purpose: it yields.
                let on_purpose = ["memory-limit", "no-disruption-budget"];
                let bad: Vec<_> = report
                    .findings
                    .iter()
                    .filter(|finding| {
                        finding.danger > Danger::Advice && !(tier == Tier::Short && on_purpose.contains(&finding.rule))
                    })
                    .collect();
                assert!(bad.is_empty(), "{kind:?} {tier:?}: {bad:#?}\n{text}");
            }
        }
    }
}

#[test]
fn long_runs_ask_for_more_and_short_ones_yield() {
    let sizes = |tier| resources(&answers(Kind::Job, tier, stores()[0].clone()));
    let long = sizes(Tier::Critical);
    assert_eq!((long.cpu_milli, long.memory_mib, long.memory_limit_mib), (24_000, 192 << 10, None));
    let short = sizes(Tier::Short);
    assert_eq!((short.cpu_milli, short.memory_mib, short.memory_limit_mib), (16_000, 104_858, Some(157_287)));
}

#[test]
fn the_command_arrives_as_it_was_given() {
    let text = manifest(&answers(Kind::Job, Tier::Critical, stores()[1].clone())).unwrap();
    let job = text.split("---\n").find(|part| part.contains("kind: Job")).unwrap();
    let job: serde_json::Value = serde_saphyr::from_str(job).unwrap();
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"][4], "/data/it's \"out\"");
    assert_eq!(container["resources"]["requests"]["memory"], "192Gi");
    assert_eq!(job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 240);
}

#[test]
fn pipelines_continue_after_revenants_own_codes() {
    for kind in [Kind::Argo, Kind::Nextflow, Kind::Snakemake] {
        for store in stores() {
            let text = manifest(&answers(kind, Tier::Standard, store)).unwrap();
            assert!(kind == Kind::Snakemake || text.contains("200, 201, 204, 209"), "{text}");
            if kind == Kind::Argo {
                let parsed: serde_json::Value =
                    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(parsed["spec"]["templates"][0]["container"]["args"][0], "megahit");
            }
        }
    }
}

#[test]
fn answers_that_cannot_work_are_refused() {
    let good = answers(Kind::CronJob, Tier::Critical, stores()[1].clone());
    assert!(good.check().is_ok());
    let bad = [
        Answers { name: "Assembly".into(), ..good.clone() },
        Answers { name: "a".repeat(51), ..good.clone() },
        Answers { command: vec![], ..good.clone() },
        Answers { memory_mib: 0, ..good.clone() },
        Answers { high_memory_label: "high-memory".into(), ..good.clone() },
        Answers { schedule: None, ..good.clone() },
        Answers { store: Store::Url { url: "file:///tmp".into(), secret: None }, ..good },
    ];
    for answers in bad {
        assert!(answers.check().is_err(), "{answers:?}");
    }
}
