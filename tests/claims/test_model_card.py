"""What a folder claims about itself: front matter, fenced configurations, mergekit_config.yml; hostile cards."""

from __future__ import annotations

import os
import time

import pytest

from reconstruct.claims.model_card import Claim, ClaimKind, ModelCard, read_model_card

RECIPE = """\
models:
  - model: org/a
    parameters: {weight: 0.5}
  - model: org/b
    parameters: {weight: 0.5}
merge_method: task_arithmetic
base_model: org/base
dtype: bfloat16
"""
CARD = f"""\
---
license: apache-2.0
base_model:
- org/a
- org/b
- org/base
library_name: transformers
tags:
- mergekit
- merge
---
# merged

### Configuration

```yaml
{RECIPE}```

Use it so:

```python
merge_method = 1
```
"""


@pytest.fixture
def read(tmp_path):
    def reader(card=None, recipe=None) -> ModelCard:
        for name, content in (("README.md", card), ("mergekit_config.yml", recipe)):
            if content is not None:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_model_card(tmp_path)

    return reader


def front(*lines):
    return "\n".join(["---", *lines, "---", "# a model", ""])


def brief(card):
    return [(claim.kind, claim.models, claim.source) for claim in card.claims]


def test_a_card_as_mergekit_writes_it(read):
    card = read(CARD, RECIPE)
    assert brief(card) == [
        (ClaimKind.MERGE, ("org/a", "org/b", "org/base"), "README.md line 3"),
        (ClaimKind.RECIPE, ("org/a", "org/b", "org/base"), "README.md line 17"),
        (ClaimKind.RECIPE, ("org/a", "org/b", "org/base"), "mergekit_config.yml"),
    ]
    assert card.notes == ()
    assert card.claims[0].recipe is None
    assert card.claims[1].recipe.document == card.claims[2].recipe.document
    assert card.claims[1].recipe.location == "README.md"
    assert card.claims[1].recipe.text == RECIPE.rstrip("\n")


def test_a_card_that_mergekit_itself_writes(read):
    import yaml
    from mergekit.card import generate_card
    from mergekit.config import MergeConfiguration

    config = MergeConfiguration.model_validate(yaml.safe_load(RECIPE))
    card = read(generate_card(config=config, config_yaml=RECIPE, name="merged"), RECIPE)
    assert [claim.kind for claim in card.claims] == [ClaimKind.MERGE, ClaimKind.RECIPE, ClaimKind.RECIPE]
    assert set(card.claims[0].models) == {"org/a", "org/b", "org/base"}
    assert card.notes == ()


def test_findings_of_a_fenced_recipe_have_the_lines_of_the_card(read):
    card = read(CARD.replace("dtype: bfloat16", "dtpe: bfloat16"))
    assert [(f.line, f.path) for f in card.claims[1].recipe.findings] == [(22, "dtype"), (24, "dtpe")]


@pytest.mark.parametrize(
    ("relation", "kind"),
    [
        ("finetune", ClaimKind.FINE_TUNE),
        ("adapter", ClaimKind.ADAPTER),
        ("quantized", ClaimKind.QUANTIZED),
        (None, ClaimKind.DERIVED),
    ],
)
def test_one_base_model_and_a_relation(read, relation, kind):
    lines = ["license: mit", "base_model: org/a"] + ([f"base_model_relation: {relation}"] if relation else [])
    assert read(front(*lines)) == ModelCard((Claim(kind, ("org/a",), None, "README.md line 3"),), ())


def test_several_base_models_are_a_merge(read):
    merge = (ClaimKind.MERGE, ("org/a", "org/b"), "README.md line 2")
    assert brief(read(front("base_model: [org/a, org/b, org/a]"))) == [merge]
    assert brief(read(front("base_model: [org/a, org/b]", "base_model_relation: merge"))) == [merge]


def test_an_adapters_library(read):
    card = read(front("base_model: org/a", "library_name: peft"))
    assert brief(card) == [(ClaimKind.ADAPTER, ("org/a",), "README.md line 2")]


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (["base_model: org/a", "tags: [merge]"], "line 3: tagged 'merge', and only one base model is named: org/a"),
        (["base_model: org/a", "tags: [x, Mergekit]"], "line 3: tagged 'Mergekit', and only one base model"),
        (["tags: [merge]"], "line 2: tagged 'merge', and no base model is named"),
        (["base_model: a", "base_model_relation: finetune", "tags: [merge]"], "line 4: tagged 'merge', and said to be"),
        (["base_model: [a, b]", "base_model_relation: finetune"], "line 3: said to be a fine-tune, of 2 base models"),
        (["base_model: a", "base_model_relation: merge"], "line 3: said to be a merge, of one base model: a"),
        (["base_model_relation: quantized"], "line 2: said to be quantized, and no base model is named"),
        (["base_model: a", "base_model_relation: cousin"], "line 3: there is no relation 'cousin'"),
        (["base_model: a", "base_model_relation: [merge]"], "line 3: there is no relation"),
        (["base_model: {a: b}"], "line 2: base_model is neither a name nor a list of names"),
        (["license: mit", "base_model: [a, 5]"], "line 3: base_model is neither"),
        (["base_model: 5"], "line 2: base_model is neither"),
        (["- a"], "line 2: the front matter is not a mapping"),
        (["base_model: a", "base_model: b"], "line 3, column 1: 'base_model' a second time, after line 2"),
        (["base_model: [a"], "the front matter cannot be read"),
        (["base_model: !!python/name:os.system"], "line 2, column 13: the tag 'tag:yaml.org,2002:python"),
    ],
)  # fmt: skip
def test_contradictions_and_what_cannot_be_read(read, lines, note):
    card = read(front(*lines))
    assert len(card.notes) == 1
    assert card.notes[0].startswith("README.md")
    assert note in card.notes[0]


@pytest.mark.parametrize(
    "card",
    [
        "",
        "# a model\n",
        "---\n---\n",
        "---\n# nothing\n---\n",
        front("license: no"),
        "\n---\nbase_model: a\n---\n",
        "---\nbase_model:\n---\n",
        "```yaml\nx: 1\n```\n",
        "```yaml\ngenome: {merge_method: ties}\n```\n",
    ],
)
def test_cards_without_claims(read, card):
    assert read(card) == ModelCard((), ())


def test_a_folder_without_a_card(tmp_path):
    assert read_model_card(tmp_path) == ModelCard((), ())
    assert read_model_card(tmp_path / "none") == ModelCard((), ())


def test_recipes_that_contradict_one_another_or_the_front_matter(read):
    card = read(CARD.replace("- org/base\n", "- org/c\n"), RECIPE.replace("0.5", "0.6", 1))
    assert card.notes == (
        "mergekit_config.yml: another recipe than that of README.md line 17",
        "README.md line 3: names org/c, which the recipe of README.md line 17 does not use",
        "README.md line 17: uses org/base, which README.md line 3 does not name",
        "README.md line 3: names org/c, which the recipe of mergekit_config.yml does not use",
        "mergekit_config.yml: uses org/base, which README.md line 3 does not name",
    )
    tuned = read(front("base_model: [org/a, org/b, org/base]", "base_model_relation: quantized"))
    assert "README.md line 2: said to be quantized, and mergekit_config.yml is a recipe" in tuned.notes


def test_folders_and_adapters_of_a_recipe_are_no_contradiction(read):
    recipe = RECIPE.replace("org/a", "./local/a").replace("org/b\n", "org/b@v1+org/adapter\n")
    assert read(front("base_model: [org/base, org/b, org/adapter]"), recipe).notes == ()


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("```yaml", "```"), ("~~~~ YAML", "~~~~~"), ("  ```yml title=x", "  ```"), ("```yaml", "")],
)
def test_fences(read, opening, closing):
    card = read(f"# x\n\n{opening}\n{RECIPE}{closing}\n")
    assert [claim.source for claim in card.claims] == ["README.md line 4"]


def test_other_blocks_are_not_read(read):
    assert read(f"```python\n{RECIPE}```\n\n````text\n```yaml\n{RECIPE}```\n````\n").claims == ()


def test_a_recipe_that_is_refused_becomes_a_note(read):
    card = read(CARD.replace("task_arithmetic", "task_arithmetics"), RECIPE.replace("weight: 0.5", "weight: x", 1))
    assert [claim.kind for claim in card.claims] == [ClaimKind.MERGE]
    assert card.notes[0].startswith("README.md: line 22: merge_method: no method 'task_arithmetics'")
    assert card.notes[1] == "mergekit_config.yml: line 3: models[0].parameters.weight: 'x' is no number"
    several = read(f"```yaml\n{RECIPE}---\n{RECIPE}```\n")
    assert several.notes[0].startswith("README.md: line 11, column 1: a second document begins")


# Hostile folders.


def test_front_matter_that_is_not_closed(read):
    card = read("---\nbase_model: org/a\n" + f"```yaml\n{RECIPE}```\n")
    assert card.notes == ("README.md line 1: the front matter is not closed by a line of ---",)
    assert brief(card) == [(ClaimKind.RECIPE, ("org/a", "org/b", "org/base"), "README.md line 4")]


def test_bytes_that_are_not_text(read):
    card = read(front("base_model: org/a").encode() + b"\xff\xfe", b"\xff" + RECIPE.encode())
    assert brief(card) == [(ClaimKind.DERIVED, ("org/a",), "README.md line 2")]
    assert "README.md line 5: not UTF-8; what is not was replaced" in card.notes
    assert "mergekit_config.yml line 1: not UTF-8; what is not was replaced" in card.notes
    assert read(b"\x00" * 1000, b"").claims == ()
    assert (
        read(front("base_model: a\x00b"), "").notes[0].startswith("README.md: the front matter cannot be read: line 2")
    )
    assert brief(read(b"\xef\xbb\xbf" + front("base_model: org/a").replace("\n", "\r\n").encode()))[0][0] == "derived"


def test_files_that_are_too_large(read):
    card = read(CARD + "x" * 2_000_000, "#" * 2_000_000)
    assert card == ModelCard(
        (),
        (
            "README.md: not read, for it is larger than 1 MB",
            "mergekit_config.yml: not read, for it is larger than 1 MB",
        ),
    )


def test_what_is_no_file(tmp_path):
    (tmp_path / "README.md").mkdir()
    os.mkfifo(tmp_path / "mergekit_config.yml")
    assert read_model_card(tmp_path).notes == ("README.md: not a file", "mergekit_config.yml: not a file")


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "README.md").symlink_to(tmp_path / "README.md")
    (tmp_path / "mergekit_config.yml").symlink_to(tmp_path / "gone")
    assert read_model_card(tmp_path).claims == ()


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 20_000,
        "x0: &x0 y\n" + "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 20)),
        "base_model: &a [*a]",
        "? {a: b}\n: c",
        "base_model: " + "y" * 500_000,
    ],
)
def test_hostile_yaml_becomes_a_note_or_a_name(read, text):
    start = time.monotonic()
    card = read(f"---\n{text}\n---\n", text)
    assert len(card.notes) >= 1
    assert all(len(note) < 600 for note in card.notes)
    assert time.monotonic() - start < 10


def test_no_more_than_a_few_recipes_are_read(read):
    start = time.monotonic()
    card = read(f"```yaml\n{RECIPE}```\n" * 4000)
    assert len(card.claims) == 16
    assert card.notes == ("README.md line 162: configurations beyond 16 are not read",)
    assert time.monotonic() - start < 5
