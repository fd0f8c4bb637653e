"""`uniad serve` for a long time, with bursts of requests and a checkpoint that is replaced now and then."""

import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

from long_runs.asking import Clients
from long_runs.feeding import LARGEST_BURST
from long_runs.measuring import Pace, Sampler, held_on_disk
from long_runs.predicting import Outcome, Setting, running, wait_for

THREADS = 12
QUEUE = 16
DONE = 'uniad_reloads_total{outcome="done"}'
RELOAD = 2.0  # seconds between looks at the checkpoint


def serve(setting: Setting) -> Outcome:
    """Requests until the time is over, then SIGTERM."""
    outcome, own = Outcome(), Random(setting.seed)
    checkpoint = setting.folder / "served.ckpt"
    shutil.copy(setting.checkpoint, checkpoint)
    words = (f"ckpt_path={checkpoint}", "port=0", f"queue={QUEUE}", f"reload_every={RELOAD}", "read_timeout=4")
    log, temporary = setting.folder / "log.txt", setting.folder / "tmp"
    with running(setting, "serve", *words) as child, ThreadPoolExecutor(THREADS) as threads:
        wait_for(lambda: " at http" in log.read_text(), child, "the start")
        clients = Clients(log.read_text().split(" at ")[1].split(";")[0], setting.pictures, setting.seed)
        sampler = Sampler(child, lambda: held_on_disk(temporary))
        pace, end, asked, replaced = Pace(child, setting.share), time.monotonic() + setting.seconds, 0, 0
        every = min(setting.seconds / 6, 120.0)
        due = time.monotonic() + every
        while time.monotonic() < end:
            count = round(LARGEST_BURST ** own.random())
            list(threads.map(clients.ask, range(asked, asked + count)))
            asked += count
            if time.monotonic() >= due and clients.metrics().get(DONE, 0) == replaced:  # each one is to be seen
                due, replaced = time.monotonic() + every, replaced + 1
                shutil.copyfile(setting.checkpoint, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").rename(checkpoint)
            time.sleep(max(pace.pause(), own.uniform(0.5, 4)))
            if child.poll() is not None:
                raise SystemExit(f"the command ended with status {child.returncode}; see log.txt in the folder")
        time.sleep(RELOAD + 5)  # what was sent and not read is inspected, too
        outcome.counts["processor_share"] = round(pace.used, 3)
        sampler.stop()
        outcome.faults += clients.differences()
        reloads = {name: n for name, n in clients.metrics().items() if name.startswith("uniad_reloads_total")}
        if reloads != {DONE: replaced}:
            outcome.faults.append(f"reloads: {reloads}, expected {replaced} done")
        clients.close()
        child.send_signal(signal.SIGTERM)
        if child.wait(60) != 0:
            outcome.faults.append(f"status {child.returncode} after SIGTERM, expected 0")
    text = log.read_text()
    if "Traceback" in text or not text.endswith("stopped\n"):
        outcome.faults.append(f"log.txt ends with {text[-200:]!r}")
    if left := [path.name for path in temporary.rglob("*")]:
        outcome.faults.append(f"left in the temporary folder: {', '.join(left[:5])}")
    outcome.faults += clients.faults
    outcome.samples = sampler.rows
    outcome.counts.update(
        requests=asked, images=clients.images, statuses=dict(sorted(clients.statuses.items())),
        kinds=dict(sorted(clients.kinds.items())), reloads=int(sum(reloads.values())),
    )  # fmt: skip
    return outcome
