"""What was measured, as tables: a short one for the README, all of it for docs/."""

import textwrap

BEGIN, END = "<!-- survival on Kubernetes: written by make test-k8s -->", "<!-- end of survival on Kubernetes -->"


def lost(row):
    return "none" if row["lost_seconds"] == 0 else f"{row['lost_seconds']:.1f} s"


def again(row):
    # Nothing died.
    return "–" if row["again_seconds"] == 0 else f"{row['again_seconds']:.0f} s"


def lines(rows, columns):
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(cell(row) for cell in columns.values()) + " |"


def full(rows):
    """Every row, with how it was made; of one that failed, its first words."""
    def told(cell):
        return lambda row: cell(row) if "lost_seconds" in row else row["result"]

    columns = {
        "cause": lambda row: row["cause"], "how": lambda row: row["how"], "must show": lambda row: row["must"],
        "work lost": told(lost), "running again after": told(again),
    }
    return "\n".join(lines(rows, columns)) + "\n"


def short(rows):
    """The causes, and the shapes of pods in one sentence."""
    causes = [row for row in rows if not row["cause"].startswith(("pod: ", "the commands of"))]
    shapes = [row for row in rows if row["cause"].startswith("pod: ")]
    table = "\n".join(lines(causes, {"cause": lambda row: row["cause"], "work lost": lost, "running again after": again}))
    times = [row["again_seconds"] for row in shapes]
    names = "; ".join(row["cause"].removeprefix("pod: ") for row in shapes)
    worst = max(row["lost_seconds"] for row in shapes)
    sentence = (
        f"Pods of these shapes were deleted once each: {names}. Work lost: {'none' if worst == 0 else f'{worst:.1f} s at most'}; "
        f"running again after {min(times):.0f} to {max(times):.0f} s."
    )
    return f"{table}\n\n" + textwrap.fill(sentence, 120, break_on_hyphens=False) + "\n"


def put(path, text):
    """Between the markers of a page."""
    page = path.read_text()
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
