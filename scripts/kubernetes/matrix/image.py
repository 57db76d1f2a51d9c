"""The image under a job changes."""

from causes import cause, nothing_lost
from cluster import Failed, kubectl, terminated, wait, get

# Counts in every image that has bash.
COUNTS = "n=0; while :; do n=$((n + 1)); printf 'tick %d hash %032d\\n' $n 0; sleep 0.1; done"


@cause("image changed", "kubectl set image: the same program with another C library", "refused by name; the image of the save continues, nothing lost; with the policy `fresh` it begins anew and says so")
def image_changed(new):
    with new("changed", kind="statefulset", command=["bash", "-c", COUNTS]) as job:
        job.counts()
        restarted(job, "image", "job=localhost/counter-debian-13:1")
        refused = wait("the other image is refused", lambda: next((end for end in terminated(get("pod", f"{job.name}-0")) if end[0] == 202), None))
        if "/libc" not in refused[2] and not job.said("/libc"):
            raise Failed(f"the C library is not named: {refused}\n{job.report()}")
        before = len(job.containers())
        restarted(job, "image", "job=localhost/counter:1")
        job.counts(containers=before + 1)
        lost = nothing_lost(job)
        # Whoever wants the new image more than the old work says so.
        restarted(job, "env", "REVENANT_ON_RESTORE_FAILURE=fresh")
        job.counts(containers=before + 2)
        restarted(job, "image", "job=localhost/counter-debian-13:1")
        anew = job.counts(containers=before + 3)
        if anew.first != 1 or not anew.said("/libc"):
            raise Failed(f"it did not begin anew, or did not say why\n{job.report()}")
        return lost


def restarted(job, what, value):
    """A StatefulSet waits for a pod that is not ready before it changes it: somebody deletes it."""
    kubectl("set", what, f"statefulset/{job.name}", value)
    kubectl("delete", "pod", f"{job.name}-0", "--wait=false", "--ignore-not-found")
