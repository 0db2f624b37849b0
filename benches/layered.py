"""The layered pipeline of benches/layers and benches/explain: each stage reads two files of the layer above, ten layers,
ten sources."""

import os
import random
import resource
import subprocess
import time

LAYERS = 10
SOURCES = 10


def commands(count):
    """Output, the two inputs and the command of each stage."""
    choose, width = random.Random(7), max(1, count // LAYERS)
    above = [f"src/{i}.txt" for i in range(SOURCES)]
    made = []
    while len(made) < count:
        layer = [f"out/{len(made) // width}/{i}.txt" for i in range(min(width, count - len(made)))]
        for out in layer:
            one, two = choose.sample(above, 2) if len(above) > 1 else (above[0], above[0])
            made.append((out, one, two, f"head -c 50 {one} > {out}; head -c 50 {two} >> {out}"))
        above = layer
    return made


def write_sources(folder):
    os.makedirs(f"{folder}/src")
    for i in range(SOURCES):
        with open(f"{folder}/src/{i}.txt", "w") as source:
            source.write(f"source {i}\n")


def stages(count):
    """The stages of the pipeline file."""
    for at, (out, one, two, line) in enumerate(commands(count)):
        held = "hermetic = false\n" if os.environ.get("HERMETIC") == "0" else ""
        yield f'[stages.s{at}]\nrun = "{line}"\ndeps = ["{one}", "{two}"]\nouts = ["{out}"]\n{held}'


def binary():
    """The binary under test."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.environ.get("HEADWATER", f"{os.environ.get('CARGO_TARGET_DIR', root + '/target')}/release/headwater")


def timed(command, folder):
    """Wall and CPU seconds of a process and its children."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
