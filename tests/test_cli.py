"""The command line: every mistake ends in one message, exit code 2 and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from support.family import BASE, CODE, CODE_HALF, DOCS, load, save

from reconstruct.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the command line in this process, in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["reconstruct", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def refused(result, *words):
    code, _, err = result
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_usage_lists_the_verbs(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "reconstruct fit suspect=S parents=[A,B] base=C" in out
    assert "Exit codes" in out


def test_help_costs_no_heavy_import():
    program = (
        "import sys; sys.argv = ['reconstruct', '--help']\n"
        "from reconstruct.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'hydra', 'numba', 'scipy', 'pandas', 'mergekit', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_version(run):
    assert run("--version")[1].startswith("merge-reconstruct ")


def test_unknown_verb(run):
    refused(run("frobnicate"), "frobnicate", "fit, verify, scan, report")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["suspect", "missing"]),
        (["suspect=./s"], ["parents", "missing"]),
        (["suspect=./s", "parents=[./a]"], ["./s", "no such file or folder"]),
        (["suspect=./s", "prents=[./a]"], ["prents"]),
        (["suspect=./s", "parents=[./a]", "+extra=1"], ["extra", "no such option"]),
        (["suspect=./s", "parents=[./a]", "+compute.extra=1"], ["compute.extra", "no such option"]),
        (["suspect=./s", "parents=[./a]", "compute.threads=many"], ["compute.threads", "many"]),
        (["suspect=./s", "parents=[./a]", "compute.threads=-1"], ["compute.threads", "negative"]),
        (["suspect=./s", "parents=[./a]", "compute.kernels=quantum"], ["quantum", "processor"]),
        (["suspect=./s", "parents=[./a]", "hypotheses.families=[dare_ties]"], ["dare_ties", "slerp"]),
        (["suspect=./s", "parents=[./a]", "hypotheses=ties"], ["hypotheses/ties", "slerp"]),
        (["suspect=./s", "parents=[./a]", "sampling.block=1"], ["sampling.block", "4096"]),
        (["suspect=./s", "parents=[./a]", "report.formats=[gif]"], ["gif", "png"]),
        (["suspect=./s", "parents=./a,./b"], ["parents", "[value1,value2]"]),
        (["resume=./nothing"], ["nothing", "no run store"]),
        (["refit=./nothing"], ["nothing", "no run store"]),
        (["resume=./nothing", "suspect=./s"], ["resume", "Leave"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_fit_refuses(run, arguments, words):
    refused(run("fit", *arguments, *([] if "resume=./nothing" in arguments else ["folder=run"])), *words)


def test_report_refuses(run):
    refused(run("report"), "run", "missing")
    refused(run("report", "run=./nothing"), "nothing", "no run store")


def test_nothing_in_common_is_said(run, tmp_path):
    other = save(tmp_path / "other", {"something.weight": load("base")["lm_head.weight"]}, config=False)
    refused(run("fit", f"suspect={other}", f"parents=[{CODE}]", "folder=run"), str(other), "no floating-point tensor")


def test_a_truncated_file_is_named(run, tmp_path):
    suspect = save(tmp_path / "s", load("ft-code"))
    weights = suspect / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(run("fit", f"suspect={suspect}", f"parents=[{CODE}]", "folder=run"), str(weights), "truncated")


def test_nan_weights_are_named(run, tmp_path):
    tensors = load("ft-code")
    tensors["lm_head.weight"][0, 0] = float("inf")
    suspect = save(tmp_path / "s", tensors)
    refused(
        run("fit", f"suspect={suspect}", f"parents=[{CODE}]", f"base={BASE}", "folder=run"), "lm_head.weight", "1 NaN"
    )


def test_fit_then_report_then_refit(run, blend_folder, tmp_path):
    arguments = [f"suspect={blend_folder}", f"parents=[{CODE},{DOCS}]", f"base={BASE}", "folder=run"]
    code, out, err = run("fit", *arguments, "report.formats=[svg]")
    assert (code, err) == (0, "")
    assert "reproduced" in out
    report = tmp_path / "run" / "report"
    first = (report / "result.json").read_bytes()
    assert json.loads(first)["coefficients"][str(CODE)]["estimate"] == pytest.approx(0.565)
    assert (report / "recipe.yml").is_file()
    assert len(list(report.glob("*.svg"))) == 5
    overrides = tmp_path / "run" / ".hydra" / "overrides.yaml"
    began = overrides.read_text()
    assert f"suspect={blend_folder}" in began

    assert run("fit", "resume=run", "report=quiet")[0] == 0
    assert (report / "result.json").read_bytes() == first
    assert overrides.read_text() == began

    (report / "result.json").unlink()
    assert run("report", "run=run", "report=quiet")[0] == 0
    assert (report / "result.json").read_bytes() == first

    assert run("fit", "refit=run", f"parents=[{CODE}]", "folder=again", "report=quiet")[0] == 0
    again = tmp_path / "again" / "report"
    assert json.loads((again / "result.json").read_text())["verdict"]["kind"] == "related"
    assert not (again / "recipe.yml").exists()


def test_a_sweep_makes_one_run_a_suspect(run, blend_folder, tmp_path):
    code, _, _ = run(
        "fit", "-m", f"suspect={blend_folder},{CODE_HALF}", f"parents=[{CODE},{DOCS}]", f"base={BASE}",
        "folder=sweep", "report=quiet",
    )  # fmt: skip
    assert code == 0
    kinds = [
        json.loads((tmp_path / "sweep" / n / "report" / "result.json").read_text())["verdict"]["kind"] for n in "01"
    ]
    assert kinds == ["reproduced", "related"]


def test_experiments_override_the_primary_configuration(run):
    code, out, _ = run("fit", "--cfg", "job", "experiment=demo")
    assert code == 0
    assert "suspect: runs/demo/merge" in out


def test_help_of_a_verb_names_groups_and_examples(run):
    code, out, _ = run("fit", "--help")
    assert code == 0
    assert "hypotheses: all, default, linear, slerp, task_arithmetic" in out
    assert "refit=" in out


RECIPE = f"""merge_method: linear
dtype: float32
out_dtype: bfloat16
models:
  - model: {CODE}
    parameters: {{weight: 0.565}}
  - model: org/docs
    parameters: {{weight: 0.435}}
"""


@pytest.fixture
def claimed(tmp_path):
    """A recipe file of which one model has to be found by `recipe.paths`."""
    path = tmp_path / "claimed.yml"
    path.write_text(RECIPE)
    return path


QUIET = ("report=quiet", "report.console=true")


def test_a_claimed_recipe_is_verified(run, blend_folder, claimed):
    paths = f"recipe.paths={{org/docs: {DOCS}}}"
    code, out, _ = run("verify", f"suspect={blend_folder}", f"recipe={claimed}", paths, "folder=v", *QUIET)
    assert code == 0
    assert out.startswith("confirmed")
    assert json.loads((claimed.parent / "v/report/result.json").read_text())["conclusion"]["kind"].startswith(
        "confirmed"
    )
    assert (claimed.parent / "v/report/checks.parquet").is_file()


def test_a_wrong_recipe_ends_with_1_where_that_is_asked_for(run, blend_folder, claimed):
    claimed.write_text(RECIPE.replace("0.565", "0.575").replace("org/docs", str(DOCS)))
    arguments = ("verify", f"suspect={blend_folder}", f"recipe={claimed}", *QUIET)
    code, out, _ = run(*arguments, "folder=lenient")
    assert code == 0
    assert out.startswith("refuted")
    assert "0.575 is claimed, 0.565 reproduces" in " ".join(out.split())
    assert run(*arguments, "folder=strict", "strict=true")[0] == 1


def test_plots_of_a_verification_are_drawn(run, blend_folder, claimed):
    claimed.write_text(RECIPE.replace("0.565", "0.575").replace("org/docs", str(DOCS)))
    code, _, _ = run("verify", f"suspect={blend_folder}", f"recipe={claimed}", "folder=v", "report.console=false")
    assert code == 0
    drawn = {path.name for path in (claimed.parent / "v/report").iterdir()}
    assert {"identical-per-layer.png", "claimed-and-fitted.png", "claimed-and-fitted.svg"} <= drawn


def test_the_claims_of_a_folder_are_verified(run, blend_folder, tmp_path):
    suspect = save(tmp_path / "named", load(blend_folder))
    (suspect / "README.md").write_text("---\nbase_model: org/code\nbase_model_relation: finetune\n---\n")
    code, out, _ = run(
        "verify", f"suspect={suspect}", "claim=card", f"recipe.paths={{org/code: {CODE}}}", f"parents=[{DOCS}]",
        "folder=v", "strict=true", *QUIET,
    )  # fmt: skip
    assert code == 1
    assert "contradicted   fine-tune of org/code" in out
    assert json.loads((tmp_path / "v/report/result.json").read_text())["claims"][0]["state"] == "contradicted"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("recipe=claimed.yml",), ["suspect", "missing"]),
        (("suspect=s",), ["recipe", "claim=card"]),
        (("suspect=s", "recipe=claimed.yml", "claim=card"), ["one claim at a time"]),
        (("suspect=s", "claim=cart"), ["claim", "There are card"]),
        (("suspect=s", "recipe=nowhere.yml"), ["nowhere.yml", "no such file"]),
        (("suspect=s", "recipe=claimed.yml"), ["org/docs", "recipe.paths={org/docs: ./folder}"]),
    ],
)
def test_mistakes_in_a_verification_end_in_one_message(run, claimed, arguments, words):
    refused(run("verify", *arguments), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("just words", ["claimed.yml", "not a mapping"]),
        ("merge_method: sperl\nmodels: []", ["claimed.yml", "line 1", "no method 'sperl'", "slerp"]),
        (
            f"merge_method: slerp\nbase_model: {CODE}\nmodels: [{{model: {CODE}}}, {{model: {DOCS}}}]",
            ["claimed.yml", "t"],
        ),
    ],
)
def test_files_that_are_no_recipe_end_in_one_message(run, blend_folder, claimed, text, words):
    claimed.write_text(text)
    refused(run("verify", f"suspect={blend_folder}", "recipe=claimed.yml"), *words)
