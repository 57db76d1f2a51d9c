//! Instruction sets: a program that has chosen its code by them at its start cannot do without them later.

use super::Misfit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;

/// What a missing instruction set means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CpuPolicy {
    /// Every one that the first node had must be here.
    #[default]
    All,
    /// Nothing is checked: for programs that are known not to use what is missing.
    None,
}

/// Names of `flags` in `/proc/cpuinfo` (`arch/x86/include/asm/cpufeatures.h`) that programs can use: the kernel
/// lists there its own features and mitigations, too.
const X86: &[&str] = &[
    "abm",
    "adx",
    "aes",
    "amx_bf16",
    "amx_int8",
    "amx_tile",
    "avx",
    "avx2",
    "avx512_4fmaps",
    "avx512_4vnniw",
    "avx512_bf16",
    "avx512_bitalg",
    "avx512_fp16",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_vp2intersect",
    "avx512_vpopcntdq",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512er",
    "avx512f",
    "avx512ifma",
    "avx512pf",
    "avx512vbmi",
    "avx512vl",
    "avx_ifma",
    "avx_vnni",
    "avx_vnni_int8",
    "avx_ne_convert",
    "bmi1",
    "bmi2",
    "cldemote",
    "clflushopt",
    "clwb",
    "clzero",
    "cmpccxadd",
    "cx16",
    "erms",
    "f16c",
    "fma",
    "fma4",
    "fsgsbase",
    "fsrm",
    "gfni",
    "hle",
    "lwp",
    "movbe",
    "movdir64b",
    "movdiri",
    "ospke",
    "pclmulqdq",
    "pni",
    "popcnt",
    "rdpid",
    "rdrand",
    "rdseed",
    "rtm",
    "serialize",
    "sha_ni",
    "sse4_1",
    "sse4_2",
    "sse4a",
    "ssse3",
    "tbm",
    "tsxldtrk",
    "user_shstk",
    "vaes",
    "vpclmulqdq",
    "waitpkg",
    "xop",
    "xsave",
    "xsavec",
    "xsaveopt",
];

/// Those of this machine.
pub fn here() -> BTreeSet<String> {
    fs::read_to_string("/proc/cpuinfo").map(|text| parse(&text)).unwrap_or_default()
}

/// The first processor speaks for all. ARM lists only what programs can use.
fn parse(cpuinfo: &str) -> BTreeSet<String> {
    let line = |name: &str| cpuinfo.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    match (line("flags"), line("Features")) {
        (Some(flags), _) => flags.split_whitespace().filter(|flag| X86.contains(flag)).map(str::to_owned).collect(),
        (None, Some(features)) => features.split_whitespace().map(str::to_owned).collect(),
        (None, None) => BTreeSet::new(),
    }
}

/// What is missing, by name. An empty side was not read, and says nothing.
pub fn check(then: &BTreeSet<String>, now: &BTreeSet<String>, policy: CpuPolicy) -> Option<Misfit> {
    if policy == CpuPolicy::None || now.is_empty() {
        return None;
    }
    let missing: Vec<&str> = then.difference(now).map(String::as_str).collect();
    (!missing.is_empty()).then(|| {
        Misfit::new(
            true,
            format!("this node's processor lacks {}", missing.join(", ")),
            "the workload was started on a processor that has them, and may have chosen its code by that",
            "schedule the pod on a node of the first kind (nodeSelector, affinity); --cpu-cap none restores all the same",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_programs_can_use_counts() {
        let text =
            "processor\t: 0\nflags\t\t: fpu vme avx2 pti md_clear avx512f\nbugs\t\t:\nprocessor\t: 1\nflags\t\t: fpu\n";
        assert_eq!(parse(text), set(&["avx2", "avx512f"]));
        assert_eq!(parse("processor\t: 0\nFeatures\t: fp asimd sve\n"), set(&["asimd", "fp", "sve"]));
        assert!(parse("").is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let misfit = check(&set(&["avx2", "avx512f", "avx512bw"]), &set(&["avx2"]), CpuPolicy::All).unwrap();
        assert!(misfit.refuses);
        assert_eq!(misfit.what, "this node's processor lacks avx512bw, avx512f");
        assert_eq!(check(&set(&["avx2"]), &set(&["avx2", "fma"]), CpuPolicy::All), None);
        assert_eq!(check(&set(&["avx2"]), &set(&["fma"]), CpuPolicy::None), None);
        assert_eq!(check(&set(&[]), &set(&["fma"]), CpuPolicy::All), None);
        assert_eq!(check(&set(&["avx2"]), &set(&[]), CpuPolicy::All), None);
    }
}
