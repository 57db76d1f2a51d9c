"""The programs: how their inputs are made, how they are run, and what their result is."""

import collections
import hashlib
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parent / "demo"
COMPLEMENT = str.maketrans("ACGT", "TGCA")


class Recipe:
    """`command` runs in /work with /data read-only; `setup` runs in the same image, once, with /data writable."""

    def __init__(self, name, shown, script, result, setup="", make=None, user="", add=()):
        self.name, self.shown, self.result, self.setup, self.make, self.user = name, shown, result, setup, make, user
        self.options, self.add = (["--user", user] if user else []), [f"CAP_{capability}" for capability in add]
        self.command = ["/bin/bash", "-euo", "pipefail", "-c", script]


def prepare(options, recipe):
    """Makes the inputs, unless they are there; returns their directory."""
    reads = options.cache / "reads-0.15"
    if not (reads / "complete").exists():
        subprocess.run([sys.executable, "-B", DEMO / "community.py", reads, "--megabases", "0.15"], check=True)
        (reads / "complete").touch()
    key = hashlib.sha256((recipe.setup + (recipe.make.__name__ if recipe.make else "")).encode()).hexdigest()[:12]
    data = options.cache / f"{recipe.name}-{key}"
    if not (data / "complete").exists():
        data.mkdir(parents=True, exist_ok=True)
        for name in ("genomes.fa", "reads_1.fq", "reads_2.fq"):
            if not (data / name).exists():
                (data / name).hardlink_to(reads / name)
        if recipe.make:
            recipe.make(data)
        if recipe.setup:
            script = f"mount --bind {data} {options.rootfs}/mnt && chroot {options.rootfs} /bin/bash -euo pipefail -c 'cd /mnt; {recipe.setup}'"
            subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script], check=True, stdout=subprocess.DEVNULL)
        (data / "complete").touch()
    return data


# ---- results


def sequences(path):
    """The multiset of sequences, each by its smaller strand: order, names and strand vary between runs."""

    def read(work):
        found, current = [], []
        for line in (work / path).read_text().splitlines() + [">"]:
            if line.startswith(">"):
                if current:
                    forward = "".join(current)
                    found.append(min(forward, forward.translate(COMPLEMENT)[::-1]))
                current = []
            else:
                current.append(line)
        assert found, f"{path} is empty"
        return collections.Counter(found)

    return read


def file(path):
    """The bytes."""

    def read(work):
        content = (work / path).read_bytes()
        assert content, f"{path} is empty"
        return hashlib.sha256(content).hexdigest()

    return read


def lines(path):
    """The lines in any order."""

    def read(work):
        content = (work / path).read_bytes().splitlines()
        assert content, f"{path} is empty"
        return hashlib.sha256(b"\n".join(sorted(content))).hexdigest()

    return read


# ---- inputs


def genomes(data):
    name, current = None, []
    for line in (data / "genomes.fa").read_text().splitlines() + [">"]:
        if line.startswith(">"):
            if current:
                yield name, "".join(current)
            name, current = line[1:].split()[0] if len(line) > 1 else "", []
        else:
            current.append(line)


def taxonomy(data):
    """A taxonomy with one species for each genome, as Kraken 2 reads it."""
    folder = data / "db" / "taxonomy"
    folder.mkdir(parents=True, exist_ok=True)
    nodes, names = ["1\t|\t1\t|\tno rank\t|\t-\t|"], ["1\t|\troot\t|\t\t|\tscientific name\t|"]
    with open(data / "library.fa", "w") as library:
        for number, (name, sequence) in enumerate(genomes(data), 2):
            nodes.append(f"{number}\t|\t1\t|\tspecies\t|\t-\t|")
            names.append(f"{number}\t|\t{name}\t|\t\t|\tscientific name\t|")
            library.write(f">{name}|kraken:taxid|{number}\n{sequence}\n")
    (folder / "nodes.dmp").write_text("\n".join(nodes) + "\n")
    (folder / "names.dmp").write_text("\n".join(names) + "\n")


def proteins(data):
    """What the genomes code for, in the standard code, cut at stops."""
    bases = "TCAG"
    acids = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
    code = {a + b + c: acids[16 * i + 4 * j + k] for i, a in enumerate(bases) for j, b in enumerate(bases) for k, c in enumerate(bases)}
    with open(data / "proteins.fa", "w") as out:
        number = 0
        for _, sequence in genomes(data):
            for frame in range(3):
                text = "".join(code.get(sequence[at : at + 3], "X") for at in range(frame, len(sequence) - 2, 3))
                for part in text.split("*"):
                    if len(part) >= 60:
                        number += 1
                        out.write(f">p{number}\n{part}\n")


def table(data):
    """Numbers for R."""
    generator = random.Random(7)
    with open(data / "table.txt", "w") as out:
        for _ in range(2000):
            out.write(" ".join(f"{generator.gauss(0, 1):.6f}" for _ in range(8)) + "\n")


READS = "-1 /data/reads_1.fq -2 /data/reads_2.fq"

RECIPES = [
    Recipe("megahit", "MEGAHIT", f"megahit {READS} -t 2 --k-list 21,31,41 -o /work/out >/dev/null 2>&1", sequences("out/final.contigs.fa")),
    Recipe("spades", "SPAdes (Python driver, many children)",
           f"spades.py {READS} -o /work/out -t 2 -m 4 -k 21,33 --only-assembler >/dev/null", sequences("out/contigs.fasta")),
    Recipe("kraken2", "Kraken 2 (memory-mapped database)",
           "for n in 1 2 3 4 5 6 7 8; do kraken2 --db /data/db --memory-mapping --threads 2 --report /work/report$n --paired /data/reads_1.fq /data/reads_2.fq >> /work/out.txt 2>/dev/null; done",
           file("out.txt"),
           setup="kraken2-build --add-to-library library.fa --db db --no-masking && kraken2-build --build --db db --threads 2 && rm -rf db/library",
           make=taxonomy),
    Recipe("diamond", "DIAMOND blastx",
           "diamond blastx -d /data/proteins -q /data/reads_1.fq -p 2 -o /work/out.tsv -t /work --quiet", lines("out.tsv"),
           setup="diamond makedb --in proteins.fa -d proteins", make=proteins),
    Recipe("bowtie2", "bowtie2 piped into samtools sort (temporary files)",
           "bowtie2 -p 2 --reorder -x /data/index -1 /data/reads_1.fq -2 /data/reads_2.fq 2>/work/log | samtools sort -m 1M -T /tmp/sorting -o /work/out.bam - && samtools view /work/out.bam > /work/out.sam",
           file("out.sam"), setup="bowtie2-build --threads 2 genomes.fa index"),
    Recipe("minimap2", "minimap2",
           "for n in 1 2 3 4; do minimap2 -t 2 -ax sr /data/genomes.fa /data/reads_1.fq /data/reads_2.fq 2>/dev/null | grep -v ^@PG >> /work/out.sam; done",
           lines("out.sam")),
    Recipe("trimmomatic", "Trimmomatic (Java)",
           "for n in 1 2 3; do java -Xmx256m -jar /usr/share/java/trimmomatic.jar PE -threads 2 -phred33 /data/reads_1.fq /data/reads_2.fq /work/p1.fq /work/u1.fq /work/p2.fq /work/u2.fq SLIDINGWINDOW:4:30 MINLEN:50; cat /work/p1.fq /work/u1.fq /work/p2.fq >> /work/out.fq; done",
           file("out.fq")),
    Recipe("r", "R",
           "Rscript -e 'set.seed(1); x <- as.matrix(read.table(\"/data/table.txt\")); sink(\"/work/out.txt\"); for (i in 1:40) { s <- x[sample(nrow(x), replace=TRUE), ]; d <- dist(s[1:1200,]); h <- hclust(d); cat(i, sum(h$height), svd(s)$d, \"\\n\"); flush(stdout()) }'",
           file("out.txt"), make=table),
    Recipe("numpy", "Python: numpy and multiprocessing", "python3 /programs/numpy_pool.py /work/out.txt", file("out.txt")),
    # Its sockets are of a Unix kind; a small part of its shared memory is System V's.
    Recipe("postgresql", "PostgreSQL under a small load (checked by pg_amcheck and its own ledger)",
           "bash /programs/ledger.sh /work/out.txt", file("out.txt"), user="postgres", add=["SYS_ADMIN"]),
    Recipe("perl", "Perl", "perl /programs/kmers.pl /data/reads_1.fq /work/out.txt", file("out.txt")),
]  # fmt: skip
