"""From measurements to one table and the verdict on each target. Pure: reads and prints nothing by itself."""

import statistics

COLUMNS = [
    ("wall_s", "wall s", "{:.2f}"),
    ("frozen_s", "frozen s", "{:.3f}"),
    ("frozen_reported_s", "reported s", "{:.3f}"),
    ("cpu_s", "CPU s", "{:.2f}"),
    ("peak_mib", "peak MiB", "{:.0f}"),
    ("stored_mib", "stored MiB", "{:.1f}"),
    ("dirtied_mib", "dirtied MiB", "{:.1f}"),
    ("fetched_mib", "fetched MiB", "{:.0f}"),
]


def medians(measurements):
    """One row for each thing that was measured: the median of every value over its repetitions."""
    groups = {}
    for m in measurements:
        groups.setdefault((m["size"], m["program"], m["what"]), []).append(m["values"])
    rows = []
    for (size, program, what), values in groups.items():
        keys = dict.fromkeys(key for value in values for key in value)
        middle = {key: statistics.median([value[key] for value in values if key in value]) for key in keys}
        for key in ("stored", "dirtied"):
            if f"{key}_bytes" in middle:
                middle[f"{key}_mib"] = middle[f"{key}_bytes"] / 2**20
        rows.append({"size": size, "program": program, "what": what, "repetitions": len(values), "values": middle})
    return rows


def aligned(lines):
    """Lines of cells as text: the first two columns to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))]
        yield "  ".join(cells).rstrip()


def table(rows, size):
    """The rows of one size."""
    lines = [["program", "what", *(title for _, title, _ in COLUMNS), "n"]]
    for row in rows:
        if row["size"] == size and any(key in row["values"] for key, _, _ in COLUMNS[:2]):
            cells = [form.format(row["values"][key]) if key in row["values"] else "" for key, _, form in COLUMNS]
            lines.append([row["program"], row["what"], *cells, str(row["repetitions"])])
    return "\n".join(aligned(lines))


class Target:
    """A promise: `measured(values of)` must be at most `bound`."""

    def __init__(self, text, bound, measured, unit="×", sizes=None):
        self.text, self.bound, self.measured, self.unit, self.sizes = text, bound, measured, unit, sizes

    def verdict(self, rows, size):
        """None where the rows for it are missing."""

        def value(program, what, key):
            for row in rows:
                if (row["size"], row["program"], row["what"]) == (size, program, what):
                    return row["values"][key]
            raise KeyError(what)

        if self.sizes and size not in self.sizes:
            return None
        try:
            measured = self.measured(value)
        except KeyError:
            return None
        return {"target": self.text, "size": size, "bound": self.bound, "measured": measured, "unit": self.unit, "met": measured <= self.bound}


TMPFS, ZSTD, DISK = "dump to tmpfs", "dump to tmpfs, then zstd -1 -T0 to disk, synced", "dump to disk, synced"
FIRST, RESTORE = "first save", "restore in a new container"
# Rows of lazy restore; the store follows in the name.
EXECUTES, ALL_THERE, TOUCHES, WALKS = "executes", "all memory is there", "has changed 5 % of it", "has read all of it"
LOCAL = "local store"
# The rows of a real assembler, which has a size of its own.
ENDS, ASSEMBLY = "until its end", "MEGAHIT"
# Below, what does not grow with the size is most of it.
LARGE = ("4 GiB", "8 GiB")


def again(percent, pattern):
    """The row of a later save."""
    return f"save again, {percent} % dirtied {pattern}".rstrip()


SIZED = [
    Target("frozen, first save / criu dump to tmpfs", 0.4, lambda v: v("revenant", FIRST, "frozen_s") / v("criu", TMPFS, "frozen_s")),
    Target(
        "frozen, save again with 5 % random / criu dump to tmpfs", 0.4,
        lambda v: v("revenant", again(5, "random"), "frozen_s") / v("criu", TMPFS, "frozen_s"),
    ),
    Target(
        "frozen, save again with 25 % random / criu dump to tmpfs", 0.4,
        lambda v: v("revenant", again(25, "random"), "frozen_s") / v("criu", TMPFS, "frozen_s"),
    ),
    Target(
        "frozen, store throttled to 10 MB/s / not throttled", 1.2,
        lambda v: v("revenant", "first save, store at 10 MB/s", "frozen_s") / v("revenant", FIRST, "frozen_s"),
    ),
    Target("first save to durable / criu dump + zstd -1 -T0", 0.7, lambda v: v("revenant", FIRST, "wall_s") / v("criu", ZSTD, "wall_s")),
    Target("first save to durable / criu dump to disk, synced", 1.0, lambda v: v("revenant", FIRST, "wall_s") / v("criu", DISK, "wall_s")),
    Target(
        "save again with 5 % random, wall / first save", 0.4,
        lambda v: v("revenant", again(5, "random"), "wall_s") / v("revenant", FIRST, "wall_s"),
    ),
    Target(
        "save again with 5 % in runs, wall / first save", 0.4,
        lambda v: v("revenant", again(5, "in runs"), "wall_s") / v("revenant", FIRST, "wall_s"),
    ),
    Target(
        "save again with 5 % in runs, stored / dirtied bytes", 1.3,
        lambda v: v("revenant", again(5, "in runs"), "stored_bytes") / v("revenant", again(5, "in runs"), "dirtied_bytes"),
    ),
    Target("restore to running / criu restore from tmpfs", 1.6, lambda v: v("revenant", RESTORE, "restore_s") / v("criu", "restore from tmpfs", "wall_s")),
    Target(
        "lazy restore to running / criu restore from tmpfs", 0.2,
        lambda v: v("revenant lazy", f"{EXECUTES}, {LOCAL}", "restore_s") / v("criu", "restore from tmpfs", "wall_s"), sizes=LARGE,
    ),
    Target(
        "lazy restore until all memory is there, local store / criu restore from tmpfs", 0.9,
        lambda v: v("revenant lazy", f"{ALL_THERE}, {LOCAL}", "restore_s") / v("criu", "restore from tmpfs", "wall_s"), sizes=LARGE,
    ),
    Target("memory of revenant, highest of all its rows", 256, lambda v: v("revenant", "all rows", "peak_mib"), "MiB"),
    Target("memory of revenant, eager restore from S3", 256, lambda v: v("revenant eager", f"{WALKS}, S3", "peak_mib"), "MiB"),
    Target("memory of revenant, lazy restore from S3", 256, lambda v: v("revenant lazy", f"{WALKS}, S3", "peak_mib"), "MiB"),
]  # fmt: skip


def against_eager(store):
    """A target for the whole rest of an assembly."""
    row = f"{ENDS}, {store}"
    text = f"MEGAHIT until its end after a lazy restore / an eager one, {store}"
    return Target(text, 1.1, lambda v: v("revenant lazy", row, "wall_s") / v("revenant eager", row, "wall_s"))


ASSEMBLER = [against_eager(store) for store in (LOCAL, "S3", "S3, 20 ms, 200 MB/s")]

IDLE = [
    Target("idle: resident memory of PID 1", 16, lambda v: v("revenant", "idle", "rss_mib"), "MiB"),
    Target("idle: wake-ups a second", 1, lambda v: v("revenant", "idle", "wakeups_per_s"), "/s"),
    Target("watching with every trigger: share of a core", 0.2, lambda v: v("revenant", "watching all", "cpu_percent"), "%"),
    Target("watching with every trigger: wake-ups a second", 5, lambda v: v("revenant", "watching all", "wakeups_per_s"), "/s"),
    Target("watching with every trigger: memory, more than with none", 4, lambda v: v("revenant", "watching all", "more_mib"), "MiB"),
    Target("watching with every trigger: resident memory of PID 1", 16, lambda v: v("revenant", "watching all", "rss_mib"), "MiB"),
    Target("start of a trivial command, more than without", 30, lambda v: v("revenant", "start", "added_ms"), "ms"),
    Target("SIGTERM to frozen, small tree", 50, lambda v: v("revenant", "SIGTERM", "to_frozen_ms"), "ms"),
    Target("size of the binary", 25, lambda v: v("revenant", "binary", "size_mib"), "MiB"),
    Target("shared libraries that the binary needs", 0, lambda v: v("revenant", "binary", "libraries"), ""),
]


def small_table(rows):
    """What was measured with a small workload: each value by its name, as the targets use them."""
    lines = [["what", "value", "", "n"]]
    for row in rows:
        if row["size"] == "small":
            lines += [[row["what"], key, f"{value:.2f}", str(row["repetitions"])] for key, value in row["values"].items()]
    return "\n".join(aligned(lines))


def verdicts(rows, sizes):
    """Every target that could be measured, for every size."""
    checked = [target.verdict(rows, size) for target in SIZED for size in sizes]
    checked += [target.verdict(rows, "small") for target in IDLE]
    checked += [target.verdict(rows, ASSEMBLY) for target in ASSEMBLER]
    return [verdict for verdict in checked if verdict]


def targets_table(checked):
    """The verdicts as text."""
    lines = [["target", "size", "at most", "measured", "verdict"]]
    for v in checked:
        said = f"{v['measured']:.2f} {v['unit']}".strip()
        lines.append([v["target"], v["size"], f"{v['bound']:g} {v['unit']}".strip(), said, "met" if v["met"] else "NOT MET"])
    return "\n".join(aligned(lines))
