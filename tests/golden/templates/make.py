#!/usr/bin/env python3
"""Makes the golden renderings of chat templates with the environment that `transformers` renders them in.

  make.py                 refreshes <template>.json beside every <template>.jinja here, and snippets.json
  make.py SOURCE_DIR OUT  renders every *.jinja of SOURCE_DIR (for example llama.cpp's models/templates) and writes
                          template and renderings to OUT; run the tests with METE_TEMPLATE_GOLDENS=OUT

Needs: pip install transformers jinja2. Cases are in cases.json, small templates for the corners of the language in snippets.txt."""
import datetime
import json
import pathlib
import sys

import transformers.utils.chat_template_utils as oracle

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = {"bos_token": "<BOS>", "eos_token": "<EOS>"}
SNIPPET_VARIABLES = {
    "l": [1, 2, 3, 4, 5], "s": "héllo wörld", "d": {"k": "v", "n": 2},
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
}


class FixedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


oracle.datetime = FixedDatetime


def render(source, variables):
    try:
        return {"text": oracle._compile_jinja_template(source).render(**variables)}
    except Exception as error:  # any refusal is part of the golden data
        return {"error": f"{type(error).__name__}: {error}"}


def read_snippets():
    """Snippets end with a line of ====."""
    return (HERE / "snippets.txt").read_text(encoding="utf-8").split("\n====\n")[:-1]


def shorten(result):
    """Committed renderings over 400 bytes shrink to their FNV-1a hash; the two-argument form keeps them whole."""
    data = result.get("text", "").encode("utf-8")
    if len(data) <= 400:
        return result
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return {"bytes": len(data), "fnv1a": f"{value:016x}"}


def write(path, data):
    path.write_text(json.dumps(data, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def golden(source, cases):
    return {case["name"]: render(source, {**TOKENS, **case["variables"]}) for case in cases}


def main():
    cases = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
    if len(sys.argv) == 3:
        out = pathlib.Path(sys.argv[2])
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
            source = path.read_text(encoding="utf-8")
            (out / path.name).write_text(source, encoding="utf-8")
            write(out / (path.stem + ".json"), golden(source, cases))
        return
    for path in sorted(HERE.glob("*.jinja")):
        full = golden(path.read_text(encoding="utf-8"), cases)
        write(path.with_suffix(".json"), {name: shorten(result) for name, result in full.items()})
    write(HERE / "snippets.json", {"variables": SNIPPET_VARIABLES, "results": [
        render(source, SNIPPET_VARIABLES) for source in read_snippets()]})


if __name__ == "__main__":
    main()
