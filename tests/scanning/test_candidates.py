"""The list of candidates, and the command that a scan ends with."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from reconstruct.errors import ConfigurationError
from reconstruct.scanning.candidates import list_candidates
from reconstruct.scanning.command import fit_command


def test_one_reference_a_line_each_once_without_comments(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# mine\norg/a@main\n\n  ./b # the second\n./c#1\norg/a@main\n", "utf-8")
    assert list_candidates(path) == ("org/a@main", "./b", "./c#1")
    assert list_candidates(str(path)) == list_candidates(path)


def test_model_trees_stand_alone_in_lists_and_in_files(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("children:org/base # all\n./b\nchildren:merge:org/c\n", "utf-8")
    assert list_candidates(path) == ("children:org/base", "./b", "children:merge:org/c")
    assert list_candidates("children:org/base") == ("children:org/base",)
    assert list_candidates([path.name, "children:org/base"]) == ("list.txt", "children:org/base")


@pytest.mark.parametrize(
    ("given", "words"), [("nowhere.txt", "cannot be read"), (".", "a folder, not a list"), ([], "no candidates")]
)
def test_what_is_no_list(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=words):
        list_candidates(given)


def test_weights_in_place_of_a_list(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigurationError, match="no text"):
        list_candidates(path)


@pytest.mark.parametrize(
    "name",
    [
        "org/model@main",
        "./a b",
        "./it's",
        "./a,b",
        "./x=y",
        "./m(1)",
        "12e4567",
        "null",
        "./back\\",
        "~/m",
        "./[1]",
        "./$a",
    ],
)
def test_the_shell_and_hydra_give_back_every_name(name):
    words = shlex.split(fit_command(name, [name, "org/b"], name))
    assert words[:2] == ["reconstruct", "fit"]
    suspect, parents, base = OverridesParser.create().parse_overrides(words[2:])
    assert str(suspect.value()) == name
    assert [str(item) for item in parents.value()] == [name, "org/b"]
    assert str(base.value()) == name
