"""Build and pipeline tools, each in the best setting known to us: the files that tell one a pipeline, and what runs it.

Knows neither what is asked of a tool nor how it is timed. A pipeline is one list of stages for all tools; each stage has one
output, and its command may run anywhere: it says `{0}`, `{1}` for its inputs and `{out}` for its output.
A tool is looked for on the PATH, or where a variable of its name points: N2=/a/path/n2, GO_TASK=…, DVC=….
"""

import json
import os
import shutil
import subprocess
from typing import Callable, NamedTuple


class Stage(NamedTuple):
    name: str
    command: str
    inputs: tuple
    out: str
    behind: tuple

    def line(self, out=None):
        return self.command.format(*self.inputs, out=out or self.out)


def pipeline(rows):
    """Stages of rows (command, inputs, out), each of which reads only what stands above it."""
    names = {out: f"s{at}" for at, (_, _, out) in enumerate(rows)}
    return [
        Stage(names[out], command, inputs, out, tuple(names[path] for path in inputs if path in names))
        for command, inputs, out in rows
    ]


def lines(stages, form):
    return "".join(form(stage) for stage in stages)


def make(stages):
    outs = " ".join(stage.out for stage in stages)
    return {"Makefile": f"all: {outs}\n" + lines(stages, lambda s: f"{s.out}: {' '.join(s.inputs)}\n\t{s.line()}\n")}


def ninja(stages):
    def build(stage):
        # With restat an output that was not written again counts as unchanged.
        new, out = stage.out + ".new", stage.out
        kept = f"{stage.line(new)}; cmp -s {new} {out} || cp {new} {out}"
        return f"build {out}: c {' '.join(stage.inputs)}\n  line = {kept}\n"

    return {"build.ninja": "rule c\n  command = $line\n  restat = 1\n" + lines(stages, build)}


def doit(stages):
    def task(stage):
        made = {"actions": [stage.line()], "file_dep": list(stage.inputs), "targets": [stage.out]}
        return f"def task_{stage.name}():\n    return {made!r}\n"

    return {"dodo.py": lines(stages, task)}


def scons(stages):
    head = "import os\nCacheDir('.kept')\nproject = Environment(ENV=os.environ)\n"
    return {"SConstruct": head + lines(stages, lambda s: f"project.Command({s.out!r}, {list(s.inputs)!r}, {s.line()!r})\n")}


def go_task(stages):
    def task(stage):
        return {
            "deps": list(stage.behind),
            "sources": list(stage.inputs),
            "generates": [stage.out],
            "cmds": [stage.line()],
        }

    tasks = {"default": {"deps": [stage.name for stage in stages]}}
    tasks.update((stage.name, task(stage)) for stage in stages)
    return {"Taskfile.yml": json.dumps({"version": "3", "method": "checksum", "run": "once", "silent": True, "tasks": tasks})}


def turbo(stages):
    outs = {stage.out for stage in stages}

    def task(stage):
        # What other tasks make is hashed when they are through, and their own keys are then no part of this task's key.
        # package.json is an input anyway; a task that names no plain input has the whole folder for one.
        made = [path for path in stage.inputs if path in outs]
        deferred = {"mode": "dependencyOutputs", "globs": made, "from": list(stage.behind)}
        inputs = ["package.json", *(path for path in stage.inputs if path not in outs)] + ([deferred] if made else [])
        return {"dependsOn": list(stage.behind), "inputs": inputs, "outputs": [stage.out]}

    scripts = {stage.name: stage.line() for stage in stages}
    package = {"name": "project", "packageManager": "npm@10.0.0", "scripts": scripts}
    tasks = {stage.name: task(stage) for stage in stages}
    tasks["all"] = {"dependsOn": list(tasks)}
    return {"package.json": json.dumps(package), "turbo.json": json.dumps({"tasks": tasks})}


def moon(stages):
    def task(stage):
        behind = [{"target": f"~:{name}", "cacheStrategy": "outputs"} for name in stage.behind]
        return {"script": stage.line(), "deps": behind, "inputs": list(stage.inputs), "outputs": [stage.out]}

    tasks = {stage.name: task(stage) for stage in stages}
    tasks["all"] = {"command": "noop", "deps": [f"~:{name}" for name in tasks]}
    workspace = {"projects": {"project": "."}, "telemetry": False}
    return {".moon/workspace.yml": json.dumps(workspace), "moon.yml": json.dumps({"tasks": tasks})}


def luigi(stages):
    def task(stage):
        return (
            f"class {stage.name}(luigi.Task):\n"
            f"    def requires(self):\n        return [{', '.join(name + '()' for name in stage.behind)}]\n"
            f"    def output(self):\n        return luigi.LocalTarget({stage.out!r})\n"
            f"    def run(self):\n        subprocess.run({stage.line()!r}, shell=True, check=True)\n"
        )

    names = ", ".join(stage.name + "()" for stage in stages)
    end = f"class All(luigi.WrapperTask):\n    def requires(self):\n        return [{names}]\n"
    return {"pipeline.py": "import luigi, subprocess\n" + lines(stages, task) + end}


def redun(stages):
    head = (
        "import subprocess\nfrom redun import task\nfrom redun.file import ContentFile\nredun_namespace = 'project'\n"
        "@task()\ndef stage(line, out, inputs):\n    subprocess.run(line, shell=True, check=True)\n    return ContentFile(out)\n"
        "@task(cache=False)\ndef main():\n    files = {}\n"
    )

    outs = {stage.out for stage in stages}

    def call(stage):
        inputs = ", ".join(f"files[{path!r}]" if path in outs else f"ContentFile({path!r})" for path in stage.inputs)
        return f"    files[{stage.out!r}] = stage({stage.line()!r}, {stage.out!r}, [{inputs}])\n"

    return {"pipeline.py": head + lines(stages, call) + "    return files\n"}


def snakemake(stages):
    def rule(stage):
        inputs = ", ".join(repr(path) for path in stage.inputs)
        # Braces in a command would be Snakemake's.
        line = stage.line().replace("{", "{{").replace("}", "}}")
        return f"rule {stage.name}:\n    input: {inputs}\n    output: {stage.out!r}\n    cache: True\n    shell: {line!r}\n"

    outs = ", ".join(repr(stage.out) for stage in stages)
    return {"Snakefile": f"rule all:\n    input: {outs}\n" + lines(stages, rule)}


def dvc(stages):
    made = lambda s: {"cmd": s.line(), "deps": list(s.inputs), "outs": [s.out]}
    return {"dvc.yaml": json.dumps({"stages": {s.name: made(s) for s in stages}})}


def bazel(stages):
    def rule(stage):
        places = [f"$(location {path})" for path in stage.inputs]
        line = stage.command.format(*places, out="$@")
        return f"genrule(name = {stage.name!r}, srcs = {list(stage.inputs)!r}, outs = [{stage.out!r}], cmd = {line!r})\n"

    return {"WORKSPACE": "", ".bazelrc": "build --disk_cache=.kept\n", "BUILD": lines(stages, rule)}


def headwater(stages):
    def table(stage):
        inputs = ", ".join(json.dumps(path) for path in stage.inputs)
        return f'[stages.{stage.name}]\nrun = {json.dumps(stage.line())}\ndeps = [{inputs}]\nouts = ["{stage.out}"]\n'

    return {"pipeline.toml": "[pipeline]\nhermetic = false\n" + lines(stages, table)}


class Tool(NamedTuple):
    name: str
    program: str
    arguments: str
    files: Callable
    before: str = ""
    after: str = ""
    # Where what it makes lies.
    outs: str = ""


TOOLS = [
    Tool("make", "make", "-s", make),
    Tool("ninja", "ninja", "", ninja),
    Tool("n2", "n2", "", ninja),
    Tool("doit", "doit", "", doit),
    Tool("SCons", "scons", "-Q", scons),
    Tool("go-task", "task", "", go_task),
    Tool("turbo", "turbo", "run all", turbo),
    Tool("moon", "moon", "run project:all", moon),
    Tool("luigi", "luigi", "--module pipeline All --local-scheduler", luigi),
    Tool("redun", "redun", "run pipeline.py main", redun),
    Tool("Snakemake", "snakemake", "--cores 1 --cache", snakemake),
    Tool("DVC", "dvc", "repro -q", dvc, before="init -q"),
    Tool("Bazel", "bazel", "build :all", bazel, after="clean --expunge", outs="bazel-bin/"),
    Tool("Headwater", "headwater", "run -q", headwater),
]


def place(tool):
    """Where its program is, if it is here."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    built = f"{os.environ.get('CARGO_TARGET_DIR', root + '/target')}/release/headwater"
    named = os.environ.get(tool.name.upper().replace("-", "_"), built if tool.name == "Headwater" else tool.program)
    return shutil.which(named)


def present(names):
    """The tools of these names, or all, as far as they are here."""
    return [tool for tool in TOOLS if place(tool) and (not names or tool.name in names)]


class Failed(Exception):
    """A tool ended with an error; says its command and what it printed."""


class Project:
    """A folder with a pipeline for one tool."""

    def __init__(self, tool, folder, stages):
        self.tool, self.folder = tool, folder
        # None of them is to tell anyone of this, and a module of the folder is to be found.
        told = {"DO_NOT_TRACK": "1", "TURBO_TELEMETRY_DISABLED": "1", "DVC_NO_ANALYTICS": "1", "PYTHONPATH": folder}
        self.environment = {**os.environ, **told, "SNAKEMAKE_OUTPUT_CACHE": f"{folder}/.kept"}
        os.makedirs(f"{folder}/.kept")
        subprocess.run(["git", "init", "-q", folder], check=True)
        who = ["-c", "user.name=bench", "-c", "user.email=bench"]
        subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "begin"], cwd=folder, check=True)
        for path, text in tool.files(stages).items():
            self.write(path, text)
        for stage in stages:
            os.makedirs(os.path.dirname(f"{folder}/{stage.out}"), exist_ok=True)
        if tool.before:
            self.call(tool.before)

    def write(self, path, text):
        os.makedirs(os.path.dirname(f"{self.folder}/{path}"), exist_ok=True)
        with open(f"{self.folder}/{path}", "w") as file:
            file.write(text)

    def out(self, path):
        return f"{self.folder}/{self.tool.outs}{path}"

    def call(self, arguments):
        command = [place(self.tool), *arguments.split()]
        ended = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if ended.returncode:
            raise Failed(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")

    def run(self):
        self.call(self.tool.arguments)

    def remove(self):
        if self.tool.after:
            self.call(self.tool.after)
        shutil.rmtree(self.folder)
