# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training in several processes, whose end is the same whether or not one of them is killed.

One command starts the processes on this machine, each with one CPU device; on several machines a scheduler would. Each
computes the gradients of its part of the batch and keeps its part of AdamW's state (ZeRO-1), and each writes its part
of the checkpoints. The network and the text are those of tests/benchmarks/precision_training.py, a transformer of
characters.

    python examples/multihost.py --processes 2

If a process dies, the others are stopped. The same command then continues from the last checkpoint, and ends with the
same parameters, bit for bit: a batch depends on the number of its step and on nothing else. To see it, kill one of the
processes that the first line names.
"""

import argparse
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gradtx import adamw, apply_updates
from gradtx.sharding import init_sharded, zero

HEARTBEAT = 20
"""Seconds after which a process that hangs counts as lost."""
GRACE = 5
"""Seconds that a process has to end after it was asked to."""


# One of the processes.


def train(args: argparse.Namespace, out: TextIO) -> None:
    """Trains from the last checkpoint, or from the start, to the last step."""

    def say(line: str) -> None:
        if args.process == 0:
            print(line, file=out, flush=True)

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would ignore SIGTERM, by which the launcher ends us
    jax.distributed.initialize(
        args.coordinator, args.processes, args.process, heartbeat_timeout_seconds=HEARTBEAT, initialization_timeout=120
    )
    problem = transformer(args)
    mesh = jax.make_mesh((args.processes,), ("data",), axis_types=(AxisType.Auto,))
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    tx = zero(adamw(problem.learning_rate), "data", mesh=mesh)
    params = jax.jit(lambda: problem.init(jax.random.key(0)), out_shardings=whole)()
    state = init_sharded(tx, params)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple:
        loss, grads = jax.value_and_grad(problem.loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return apply_updates(params, updates), state, loss

    @jax.jit
    def rows_of_step(i: jax.Array) -> Any:
        """This process's rows of the batch, which is the same for any number of processes."""
        batch = problem.sample(jax.random.fold_in(jax.random.key(1), i))
        size = args.batch_size // args.processes
        return jax.tree.map(lambda x: x[size * args.process : size * (args.process + 1)], batch)

    def batch_of_step(i: int) -> Any:
        rows = jax.device_get(rows_of_step(jnp.uint32(i)))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), rows)

    with ocp.CheckpointManager(checkpoints(args.dir), options=ocp.CheckpointManagerOptions(max_to_keep=3)) as manager:
        done = manager.latest_step() or 0
        if done:
            params, state = manager.restore(done, args=ocp.args.StandardRestore((params, state)))
            say(f"continues from step {done:,}")
        for i in range(done + 1, args.steps + 1):
            params, state, loss = step(params, state, batch_of_step(i))
            if i % args.every == 0 or i == args.steps:
                say(f"step {i:,}: loss {float(loss):.4f}")
                manager.save(i, args=ocp.args.StandardSave((params, state)))
    here = jax.tree.map(lambda p: p.addressable_data(0), params)
    held_out = jax.jit(problem.loss)(here, problem.held_out)
    say(f"held-out loss {float(held_out):.6f}, parameters {digest(here)}")
    jax.distributed.shutdown()


def transformer(args: argparse.Namespace) -> Any:
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "benchmarks"))
    import precision_training  # pyright: ignore[reportMissingImports]  # a script, not part of a package

    return precision_training.transformer(args.steps, args.batch_size, args.length, args.width, args.layers)


def digest(params: Any) -> str:
    """A hash of all bits."""
    return hashlib.sha256(b"".join(np.asarray(p).tobytes() for p in jax.tree.leaves(params))).hexdigest()[:16]


def child(args: argparse.Namespace) -> None:
    """Trains, and ends at once with an error or with the launcher, where JAX would wait for the other processes."""
    threading.Thread(target=end_with_the_launcher, daemon=True).start()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print, such as gloo, goes to the log
    try:
        train(args, out)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        if isinstance(error, jax.errors.JaxRuntimeError):
            # Perhaps another process is lost, and this one fails for it. The launcher blames who ends first.
            time.sleep(GRACE)
        os._exit(1)


def end_with_the_launcher() -> None:
    os.read(0, 1)  # returns when the launcher, which never writes, is gone
    os._exit(1)


# The launcher.


def launch(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Runs the processes; the exit code is 0 if all of them ended well."""
    args.dir.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells take from what they start in the background
    own = ["--coordinator", f"localhost:{free_port()}", "--process"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    children: list[subprocess.Popen] = []
    try:
        for i in range(args.processes):
            with open(log_of(args.dir, i), "a") as log:
                process = subprocess.Popen(
                    [sys.executable, __file__, *argv, *own, str(i)],
                    stdin=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the launcher alone
                )
            children.append(process)
        print(f"processes {' '.join(str(process.pid) for process in children)}", flush=True)
        failed = first_failure(children)
    except KeyboardInterrupt:
        print(f"multihost: interrupted; {how_to_continue(args.dir)}", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        stop(children)
    if failed is None:
        return 0
    i, code = failed
    messages = "" if code == -signal.SIGKILL else f" (its messages are in {log_of(args.dir, i)})"
    print(f"multihost: process {i} ended with code {code}{messages}; {how_to_continue(args.dir)}", file=sys.stderr)
    return 1


def first_failure(children: list[subprocess.Popen]) -> tuple[int, int] | None:
    """Waits; the number of the first process that fails and its code, or None if all end well."""
    while True:
        codes = [process.poll() for process in children]
        for i, code in enumerate(codes):
            if code:
                return i, code
        if None not in codes:
            return None
        time.sleep(0.02)


def stop(children: list[subprocess.Popen]) -> None:
    """Ends those that still run, before they wait for one that is lost or are ended by JAX in many lines of C++."""
    for process in children:
        process.terminate()
    for process in children:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def how_to_continue(folder: Path) -> str:
    saved = [int(path.name) for path in checkpoints(folder).glob("*") if path.name.isdigit()]
    return f"start again to continue from step {max(saved):,}" if saved else "there is no checkpoint yet"


def checkpoints(folder: Path) -> Path:
    return folder / "checkpoints"


def log_of(folder: Path, i: int) -> Path:
    return folder / f"process-{i}.log"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="each with one device (default: 2)")
    parser.add_argument("--steps", type=int, default=200, help="of the whole training (default: 200)")
    parser.add_argument("--every", type=int, default=20, help="steps from checkpoint to checkpoint (default: 20)")
    parser.add_argument("--dir", type=Path, default="multihost", help="of checkpoints and logs (default: multihost)")
    parser.add_argument("--batch-size", type=int, default=16, help="of all processes together (default: 16)")
    parser.add_argument("--length", type=int, default=64, help="characters that are seen (default: 64)")
    parser.add_argument("--width", type=int, default=64, help="of the transformer (default: 64)")
    parser.add_argument("--layers", type=int, default=2, help="of the transformer (default: 2)")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)  # the launcher gives these two to its children
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.dir = args.dir.resolve()
    if args.processes < 1 or args.batch_size % args.processes:
        parser.error(f"{args.processes} processes cannot share a batch of {args.batch_size} rows equally")
    if args.process is None:
        return launch(args, argv)
    child(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
