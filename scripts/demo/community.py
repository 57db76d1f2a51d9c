"""Simulates a small metagenome: a seeded community of genomes with shared repeats, plus phage lambda.

Usage: community.py OUTPUT_DIR [--megabases 3.0] [--genomes 24] [--coverage 30] [--seed 7]

Writes genomes.fa (FASTA) and, by ART with its HiSeq 2500 quality profile, reads_1.fq and reads_2.fq:
paired-end 150 bp reads, fragments of 350 ± 40 bp.
"""

import argparse
import gzip
import pathlib
import random
import subprocess
import tempfile

LAMBDA = pathlib.Path("/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz")  # Debian: bowtie2-examples
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def random_dna(rng, length, gc):
    """DNA of a given GC content: species differ in it."""
    weights = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    return "".join(rng.choices("ACGT", weights, k=length))


def with_repeats(rng, genome, repeats):
    """Scatters copies of shared mobile elements over a genome, on both strands, slightly diverged."""
    pieces, position = [], 0
    for cut in sorted(rng.randrange(len(genome)) for _ in range(rng.randint(2, 6))):
        repeat = list(rng.choice(repeats))
        for _ in range(len(repeat) // 200):
            repeat[rng.randrange(len(repeat))] = rng.choice("ACGT")
        repeat = "".join(repeat)
        if rng.random() < 0.5:
            repeat = repeat.translate(COMPLEMENT)[::-1]
        pieces += [genome[position:cut], repeat]
        position = cut
    return "".join(pieces) + genome[position:]


def lambda_phage():
    """The genome of phage lambda, as Bowtie 2 ships it with its examples."""
    with tempfile.TemporaryDirectory() as scratch:
        fasta_gz = LAMBDA
        if not fasta_gz.exists():  # Not installed, or installed without documentation, as in container images.
            subprocess.run(["apt-get", "-qq", "download", "bowtie2-examples"], cwd=scratch, check=True)
            package = next(pathlib.Path(scratch).glob("*.deb"))
            subprocess.run(["dpkg-deb", "--extract", package, scratch], check=True)
            fasta_gz = pathlib.Path(scratch) / LAMBDA.relative_to("/")
        return read_fasta(fasta_gz)


def read_fasta(fasta_gz):
    with gzip.open(fasta_gz, "rt") as fasta:
        return "".join(line.strip().upper() for line in fasta if not line.startswith(">")).replace("N", "A")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--megabases", type=float, default=3.0)
    parser.add_argument("--genomes", type=int, default=24)
    parser.add_argument("--coverage", type=float, default=30)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    rng = random.Random(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    repeats = [random_dna(rng, rng.randint(700, 1600), 0.5) for _ in range(8)]
    mean = options.megabases * 1e6 / options.genomes
    genomes = {
        f"species_{n:02}": with_repeats(rng, random_dna(rng, int(mean * rng.uniform(0.4, 1.6)), rng.uniform(0.3, 0.7)), repeats)
        for n in range(1, options.genomes + 1)
    }
    genomes["phage_lambda"] = lambda_phage()

    fasta = options.output / "genomes.fa"
    with fasta.open("w") as out:
        for name, sequence in genomes.items():
            out.write(f">{name}\n")
            out.writelines(sequence[i : i + 80] + "\n" for i in range(0, len(sequence), 80))
    subprocess.run(
        ["art_illumina", "-q", "-ss", "HS25", "-i", fasta, "-p", "-l", "150", "-f", str(options.coverage), "-m", "350", "-s", "40",
         "-na", "-rs", str(options.seed), "-o", options.output / "reads_"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for mate in "12":
        (options.output / f"reads_{mate}.fq").stat()
    print(f"{len(genomes)} genomes, {sum(map(len, genomes.values())) / 1e6:.2f} Mb, {options.coverage:g}x reads in {options.output}")


if __name__ == "__main__":
    main()
