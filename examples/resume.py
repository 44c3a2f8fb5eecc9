# SPDX-License-Identifier: Apache-2.0
"""A training that may be killed at any moment: it goes on from its last checkpoint and ends with the same bits.

    python examples/resume.py                 trains; the same command again continues
    python examples/resume.py --kills 10      kills it ten times, also in the middle of a checkpoint, and compares

Parameters and state are saved together by orbax, which renames a checkpoint when it is whole, so that half of one does
not count. Nothing else has to be saved: a batch depends on the number of its step only, and the schedule reads its step
from the state. The network learns another one, on random inputs.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gradtx import adamw, apply_updates, chain, clip_by_global_norm, guard, warmup_cosine_decay_schedule

SIZES, BATCH = (8, 32, 32, 1), 64


def network(key: jax.Array) -> list[jax.Array]:
    keys = jax.random.split(key, len(SIZES) - 1)
    return [jax.random.normal(k, (m, n)) / m**0.5 for k, m, n in zip(keys, SIZES, SIZES[1:], strict=False)]


def output(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    for w in weights[:-1]:
        x = jnp.tanh(x @ w)
    return x @ weights[-1]


def train(args: argparse.Namespace) -> None:
    """Trains from the last checkpoint, or from the start, to the last step."""
    rate = warmup_cosine_decay_schedule(0.0, 0.01, args.steps // 10, args.steps)
    tx = guard(chain(clip_by_global_norm(1.0), adamw(rate)))
    teacher, params = network(jax.random.key(1)), network(jax.random.key(0))
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, i: Any) -> tuple:
        x = jax.random.normal(jax.random.fold_in(jax.random.key(2), i), (BATCH, SIZES[0]))
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((output(p, x) - output(teacher, x)) ** 2))(params)
        updates, state = tx.update(grads, state, params, value=loss)
        return apply_updates(params, updates), state, loss

    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with ocp.CheckpointManager(args.dir.resolve(), options=options) as manager:
        done = manager.latest_step() or 0
        if done:
            params, state = manager.restore(done, args=ocp.args.StandardRestore((params, state)))
        print(f"begins after step {done}", flush=True)
        for i in range(done + 1, args.steps + 1):
            params, state, loss = step(params, state, np.uint32(i))
            if args.every_step or i % args.every == 0:
                print(f"step {i}: loss {float(loss):.6f}", flush=True)
            if i % args.every == 0 or i == args.steps:
                print(f"saves step {i}", flush=True)
                manager.save(i, args=ocp.args.StandardSave((params, state)))
                manager.wait_until_finished()
                print(f"saved step {i}", flush=True)
    bits = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves((params, state)))
    print(f"ends with {hashlib.sha256(bits).hexdigest()[:16]}", flush=True)


class Life(NamedTuple):
    """The steps from which a process went on, to which it came, and which it saved; its hash, if it ended."""

    begins: int
    step: int
    saved: int
    ends: str | None


def live(args: argparse.Namespace, folder: Path, moment: tuple[str, int, float] | None = None) -> Life:
    """Runs a process. It is killed so many seconds after it has printed so many lines with this first word."""
    own = f"--dir={folder}", f"--steps={args.steps}", f"--every={args.every}", "--every-step"
    process = subprocess.Popen([sys.executable, __file__, *own], stdout=subprocess.PIPE, text=True)
    seen, said = 0, {}
    for line in process.stdout or ():
        word, *rest = line.replace(":", "").split()
        said[word] = rest[-1] if word == "ends" else int(rest[rest.index("step") + 1 if "step" in rest else 0])
        seen += moment is not None and word == moment[0]
        if moment is not None and seen == moment[1]:
            time.sleep(moment[2])
            process.kill()
            moment = None
    if process.wait() not in (0, -9):  # SIGKILL
        raise SystemExit(f"resume: the training ended with code {process.returncode}")
    b = said.get("begins", 0)
    return Life(b, said.get("step", b), said.get("saved", b), said.get("ends"))


def moment(draws: random.Random, every: int) -> tuple[str, int, float]:
    """At the start, at any step, or while a checkpoint is written."""
    moments = ("begins", 1, 0.2), ("step", draws.randint(1, 2 * every), 0.01), ("saves", draws.randint(1, 2), 0.05)
    word, count, most = draws.choices(moments, (1, 4, 5))[0]
    return word, count, draws.uniform(0, most)


def kill_and_compare(args: argparse.Namespace) -> int:
    """Kills the training again and again; 0 if it lost no more than it must and ended with the right bits."""
    draws, folder = random.Random(args.seed), args.dir / "killed"
    life, writing, most = live(args, folder, moment(draws, args.every)), 0, 0
    for number in range(1, args.kills + 1):
        half = any(folder.glob("*tmp*"))
        after = live(args, folder, moment(draws, args.every) if number < args.kills else None)
        lost, writing = life.step - after.begins, writing + half
        most = max(most, lost)
        where = " while a checkpoint was written" if half else ""
        print(f"kill {number}: after step {life.step}{where}; goes on from step {after.begins}", flush=True)
        if after.begins < life.saved or lost > args.every:
            raise SystemExit(f"resume: step {life.saved} was saved, and is lost")
        life = after
    whole = live(args, args.dir / "undisturbed")
    print(f"{args.kills} kills, {writing} of them while a checkpoint was written; at most {most} steps lost")
    same = "the same bits" if life.ends == whole.ends else "NOT THE SAME"
    print(f"ends with {life.ends}, undisturbed with {whole.ends}: {same}")
    return int(life.ends != whole.ends)


def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of the whole training (default: 1000)")
    parser.add_argument("--every", type=int, default=20, help="steps from checkpoint to checkpoint (default: 20)")
    parser.add_argument("--dir", type=Path, default=Path("resume"), help="of the checkpoints (default: resume)")
    parser.add_argument("--kills", type=int, default=0, help="how often it is killed (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed (default: 0)")
    parser.add_argument("--every-step", action="store_true", help="prints every step, not only those with a checkpoint")
    args = parser.parse_args(argv)
    if args.kills and args.steps < (least := 2 * args.every * (args.kills + 1)):
        parser.error(f"{args.kills} kills need at least {least} steps")
    if args.kills and args.dir.exists():
        parser.error(f"{args.dir} is there already: name another folder with --dir")
    return kill_and_compare(args) if args.kills else train(args)


if __name__ == "__main__":
    sys.exit(main())
