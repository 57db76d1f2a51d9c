//! docs/start.md, "On a laptop, with podman": the image by the page's Dockerfile, and its commands as they stand there. An
//! assembly is stopped in the middle, its container is left behind, and a new one ends it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod documented;
mod harness;
mod podman;

use documented::Page;
use harness::{criu, rootfs};
use podman::Podman;
use std::path::Path;

/// So long that it takes seconds to assemble, and so random that it comes out in one piece.
const GENOME: usize = 400_000;

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

fn other_strand(strand: &str) -> String {
    let pair = |base| match base {
        'A' => 'T',
        'C' => 'G',
        'G' => 'C',
        _ => 'A',
    };
    strand.chars().rev().map(pair).collect()
}

/// Writes reads without errors, each base 20 times, as /reads of an image; the genome that they are of.
fn sequence(folder: &Path) -> String {
    let mut state = 12;
    let genome: String = (0..GENOME).map(|_| char::from(b"ACGT"[random(&mut state) % 4])).collect();
    let (mut forward, mut reverse) = (String::new(), String::new());
    for number in 0..GENOME * 20 / 200 {
        let at = random(&mut state) % (GENOME - 300);
        let quality = "I".repeat(100);
        forward += &format!("@{number}/1\n{}\n+\n{quality}\n", &genome[at..at + 100]);
        reverse += &format!("@{number}/2\n{}\n+\n{quality}\n", other_strand(&genome[at + 200..at + 300]));
    }
    std::fs::create_dir_all(folder.join("reads")).unwrap();
    std::fs::write(folder.join("reads/1.fq"), forward).unwrap();
    std::fs::write(folder.join("reads/2.fq"), reverse).unwrap();
    genome
}

#[test]
fn an_assembly_outlives_its_container_as_the_page_says() {
    let page = Page::named("start.md");
    let [volume, first, stop, second] = page.typed("podman ");
    let [dockerfile] = page.dockerfiles();
    let podman = Podman::new();

    // What the page takes from a registry.
    let genome = sequence(podman.folder());
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    podman.typed(&format!(
        "tar --create --directory {} . --directory {} reads | podman import --change 'ENV {path}' - registry.example/megahit:1.2.9",
        rootfs("megahit").display(),
        podman.folder().display(),
    ));
    podman.typed(&format!(
        "mkdir -p opt/revenant/bin && cp {} opt/revenant/bin/revenant && cp -r {} opt/revenant/criu &&
         tar --create opt | podman import - registry.example/revenant-bundle",
        env!("CARGO_BIN_EXE_revenant"),
        criu().display(),
    ));
    podman.write("Dockerfile", &dockerfile);
    podman.typed("mkdir context && podman build --pull=never --layers=false --file Dockerfile --tag registry.example/gut:1 context");

    podman.typed(volume);
    let mut one = podman.type_beside(first, "one.log");
    podman.wait_for("one.log", "Build graph for k = 21");
    // As `kubectl exec … -- revenant status` on the same page, with the same image.
    assert!(podman.typed("podman exec one revenant status").contains("running"));
    podman.typed(stop);
    let ended = one.wait().unwrap();
    assert_eq!(ended.code(), Some(200), "{}", std::fs::read_to_string(podman.folder().join("one.log")).unwrap());
    let said = podman.typed(second);
    assert!(said.contains("continued from generation 1-1"), "{said}");

    podman.typed("podman cp two:/out/final.contigs.fa contigs");
    let contigs = std::fs::read_to_string(podman.folder().join("contigs")).unwrap();
    let contigs: Vec<&str> = contigs.lines().filter(|line| !line.starts_with('>')).collect();
    let opposite = other_strand(&genome);
    assert!(contigs.iter().all(|contig| genome.contains(contig) || opposite.contains(contig)));
    assert!(contigs.iter().map(|contig| contig.len()).sum::<usize>() > GENOME / 10 * 9, "{said}");
}
