#!/usr/bin/env python3
"""Writes down the samples with which gitleaks tests its own rules: a secret for every rule, as JSON lines.

They stand in functions of gitleaks' source, as arguments of its `Validate`, and many are made by chance. So a copy of the source is
taken whose `Validate` writes down what it is given, and the program that makes gitleaks' configuration is run from it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = "github.com/zricethezav/gitleaks/v8"
_NOTE = """
func note(rule string, path string, sample string) {
	file, err := os.OpenFile(os.Getenv("SAMPLES"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	if err := json.NewEncoder(file).Encode(map[string]string{"rule": rule, "path": path, "text": sample}); err != nil {
		panic(err)
	}
}
"""


def patched(source: str) -> str:
    """`validate.go`, writing down every sample that a rule has to find."""
    source = source.replace("import (\n", 'import (\n\t"encoding/json"\n\t"os"\n', 1) + _NOTE
    plain, with_paths = (
        "for _, tp := range truePositives {\n",
        "for path, tp := range truePositives {\n",
    )
    if plain not in source or with_paths not in source:
        raise SystemExit("gitleaks' validate.go is not as it was")
    source = source.replace(plain, plain + '\t\tnote(rule.RuleID, "", tp)\n')
    return source.replace(with_paths, with_paths + "\t\tnote(rule.RuleID, path, tp)\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="such as v8.30.1; in Go's cache of modules")
    parser.add_argument("output", type=Path)
    parser.add_argument("--go", default="go")
    options = parser.parse_args()
    local = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    asked = [options.go, "mod", "download", "-json", f"{MODULE}@{options.version}"]
    subprocess.run(asked, env=local, cwd="/", check=True, stdout=subprocess.DEVNULL)
    cache = subprocess.run(
        [options.go, "env", "GOMODCACHE"], env=local, capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory(prefix="gitleaks-") as folder:
        copy = Path(folder) / "source"
        shutil.copytree(
            Path(cache.strip()) / f"{MODULE}@{options.version}",
            copy,
            ignore=shutil.ignore_patterns("testdata"),
        )
        subprocess.run(["chmod", "-R", "u+w", str(copy)], check=True)
        validate = copy / "cmd" / "generate" / "config" / "utils" / "validate.go"
        validate.write_text(patched(validate.read_text()))
        found = Path(folder) / "samples.jsonl"
        main_folder = copy / "cmd" / "generate" / "config"
        words = [options.go, "run", "."]
        subprocess.run(
            [*words, str(Path(folder) / "made.toml")],
            env={**local, "SAMPLES": str(found)},
            cwd=main_folder,
            check=True,
        )
        options.output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
