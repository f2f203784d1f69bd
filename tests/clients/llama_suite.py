#!/usr/bin/env python3
"""Runs llama.cpp's own server tests (tools/server/tests of its source) against `mete serve`.

    tests/clients/llama_suite.py PATH/tools/server/tests MODEL.gguf [pytest options]

The suite is copied, never changed in place. A wrapper takes llama-server's options to mete's, with MODEL in place of the
hub model; patterns for the text of that model match any text. llama_suite.txt lists the tests that do not apply, each with the
reason; every other one must pass. Needs pytest, requests, openai, wget and filelock."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BINARY = os.environ.get("METE_BINARY", str(HERE.parent.parent / "build/release/mete"))

WRAPPER = '''#!@PYTHON@
import os, sys
drop = {"--offline", "--cont-batching", "--slots", "--jinja", "--no-jinja", "--verbose", "--kv-unified", "--swa-full",
        "--embedding", "--no-models-autoload"}
drop_with_value = {"--model", "--hf-repo", "--hf-file", "--n-gpu-layers", "-fa"}
rename = {"--metrics": "--llama-metrics", "--no-ui": "--no-webui"}
names = "test,davinci-002,gpt-3.5-turbo,gpt-3.5-turbo-instruct,text-embedding-3-small,dummy,gpt-4.1,codellama70b"
given, out, slots, context = iter(sys.argv[1:]), [], 4, None
for word in given:
    if word in drop:
        continue
    if word in drop_with_value:
        next(given)
    elif word == "--ctx-size":
        context = int(next(given))
    elif word == "--alias":
        names = next(given) + "," + names
    elif word == "--parallel":
        slots = int(next(given))
    else:
        out.append(rename.get(word, word))
rows = int(out[out.index("--batch-size") + 1]) if "--batch-size" in out else 512
if context and "--kv-unified" in sys.argv:
    out += ["--ctx-size", str(context), "--kv-tokens", str(context)]
elif context:  # theirs is for all slots together
    out += ["--ctx-size", str(context // slots)]
if "--threads" not in out:  # the suite is not about speed
    out += ["--threads", "1"]
os.execv("@BINARY@", ["mete", "serve", "-m", "@MODEL@", "--parallel", str(min(slots, rows)), "--alias", names, *out])
'''

CONFTEST = '''import json
import os

import pytest
import utils
from utils import *
utils.match_regex = lambda regex, text: isinstance(text, str)


def pytest_collection_modifyitems(config, items):
    excluded = set(json.loads(os.environ["EXCLUDED"]))
    out = [i for i in items if {i.nodeid, i.nodeid.split("[")[0], i.nodeid.split("::")[0]} & excluded]
    unknown = excluded - {x for i in out for x in (i.nodeid, i.nodeid.split("[")[0], i.nodeid.split("::")[0])}
    assert not unknown or config.option.keyword, f"llama_suite.txt names no test of the suite: {sorted(unknown)}"
    config.hook.pytest_deselected(items=out)
    items[:] = [i for i in items if i not in out]


@pytest.fixture(autouse=True)
def stop_server_after_each_test():
    yield
    for server in set(server_instances):
        server.stop()
'''


def excluded():
    """Of llama_suite.txt: files, tests, or single cases of tests, with the reason."""
    out = {}
    for line in (HERE / "llama_suite.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            test, reason = line.split("  ", 1)
            out[test] = reason.strip()
    return out


def replace_numbers(unit):
    """What depends on the model in the tests' text: llama_suite_numbers.txt has file, old and new text, two lines each."""
    for part in (HERE / "llama_suite_numbers.txt").read_text().split("\n\n")[1:]:
        name, old, new = part.strip("\n").split("\n")
        text = (unit / name).read_text()
        if old not in text:
            raise SystemExit(f"llama_suite_numbers.txt: {name} has no {old!r}")
        (unit / name).write_text(text.replace(old, new))


def main():
    suite, model = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "tools/server/tests"
        shutil.copytree(suite, copy)
        (pathlib.Path(folder) / "models").symlink_to(suite.parents[2] / "models")  # chat templates
        replace_numbers(copy / "unit")
        wrapper = copy / "server"
        text = WRAPPER.replace("@PYTHON@", sys.executable).replace("@BINARY@", BINARY).replace("@MODEL@", str(model))
        wrapper.write_text(text)
        wrapper.chmod(0o755)
        (copy / "conftest.py").write_text(CONFTEST)
        args = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow", *sys.argv[3:]]
        variables = {**os.environ, "LLAMA_SERVER_BIN_PATH": str(wrapper),
                     "EXCLUDED": json.dumps(["unit/" + test for test in excluded()])}
        return subprocess.run([*args, "unit"], cwd=copy, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
