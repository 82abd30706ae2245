"""YAML text to plain data that knows its lines. Strict where PyYAML is silent: duplicate keys, aliases that explode."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from reconstruct.errors import ConfigurationError

__all__ = ["LARGEST_TEXT", "LocatedDocument", "load_located"]

#: Characters of the largest text that is read: PyYAML needs seconds for it.
LARGEST_TEXT = 1 << 20
_DEEPEST = 50
_LARGEST_EXPANSION = 10_000  # nodes that aliases may repeat: far more than recipes do, and far fewer than bombs
_LONGEST_KEY, _LONGEST_PATH = 200, 400  # characters
_REMEDY = "Correct the file; no program reads it as it stands"
_PLAIN: dict[type[yaml.Node], str] = {
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
    yaml.MappingNode: "tag:yaml.org,2002:map",
}


@dataclass(frozen=True)
class LocatedDocument:
    """`lines`: path, such as "models[1].parameters.weight", -> the line where its key (or list item) stands."""

    value: Any
    lines: dict[str, int]

    def line(self, path: str) -> int | None:
        """The line of a path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)


def load_located(text: str, location: str, first_line: int = 1) -> LocatedDocument:
    """Parse one document. `first_line`: where the text starts in its file. An empty document has the value None."""
    reader = _Reader(location, first_line)
    if len(text) > LARGEST_TEXT:
        raise ConfigurationError(
            f"more than {LARGEST_TEXT:,} characters", subject=location, remedy="No configuration is so long"
        )
    try:
        nodes = list(itertools.islice(yaml.compose_all(text, Loader=yaml.SafeLoader), 2))
    except RecursionError:
        reader.fail(None, "nested too deeply", "Flatten it: a recipe needs some ten levels")
    except yaml.MarkedYAMLError as error:
        reader.fail(error.problem_mark or error.context_mark, f"not YAML: {_reason(error)}")
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"line {first_line + text.count(chr(10), 0, error.position)}: not YAML: U+{code:04X} is not allowed"
        raise ConfigurationError(message, subject=location, remedy=_REMEDY) from error
    if len(nodes) > 1:
        reader.fail(
            nodes[1].start_mark,
            "a second document begins: configurations of several stages are not supported",
            "Give one document a run: each stage with its own output as checkpoint",
        )
    if not nodes:
        return LocatedDocument(None, {"": first_line})
    count, _ = reader.survey(nodes[0])
    if count > len(reader.surveyed) + _LARGEST_EXPANSION:
        reader.fail(nodes[0].start_mark, "aliases that expand to a document of enormous size", "Write it out")
    return LocatedDocument(reader.plain(nodes[0], ""), reader.lines)


def _reason(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(" ".join(part.split()) for part in (error.context, error.problem) if part)


class _Reader:
    """Walks the nodes twice: a survey, which refuses what is not safe to expand, then the construction."""

    def __init__(self, location: str, first_line: int) -> None:
        self.location, self.first_line = location, first_line
        self.lines: dict[str, int] = {}
        self.surveyed: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()
        self._loader = yaml.SafeLoader("")

    def fail(self, mark: yaml.Mark | None, message: str, remedy: str = _REMEDY) -> NoReturn:
        """Raise with the place in the text."""
        place = f"line {self.first_line + mark.line}, column {mark.column + 1}: " if mark else ""
        raise ConfigurationError(place + message, subject=self.location, remedy=remedy)

    def survey(self, node: yaml.Node, depth: int = 0) -> tuple[int, int]:
        """(nodes, levels) once all aliases are expanded. Each node is visited once, however often it is referred to."""
        known = self.surveyed.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            self.fail(node.start_mark, "an alias that refers to itself")
        if depth > _DEEPEST:
            self.fail(node.start_mark, "nested too deeply", "Flatten it: a recipe needs some ten levels")
        self._open.add(id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            self._refuse_duplicates(node)
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        below = [self.survey(child, depth + 1) for child in children]
        count, height = 1 + sum(c for c, _ in below), 1 + max((h for _, h in below), default=0)
        if height > _DEEPEST:
            self.fail(node.start_mark, "nested too deeply", "Flatten it: a recipe needs some ten levels")
        self._open.discard(id(node))
        self.surveyed[id(node)] = count, height
        return count, height

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key.start_mark, "a key that is a list or a mapping")
            if len(key.value) > _LONGEST_KEY:
                self.fail(key.start_mark, f"a key of {len(key.value):,} characters", "No key of a recipe is so long")
            line, written = self.first_line + key.start_mark.line, (key.tag, key.value)
            if written in lines:
                self.fail(
                    key.start_mark, f"{key.value[:40]!r} a second time, after line {lines[written]}", "Keep one of them"
                )
            lines[written] = line

    def plain(self, node: yaml.Node, path: str) -> Any:
        """Plain data; the lines are noted on the way."""
        self.lines.setdefault(path, self.first_line + node.start_mark.line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag != _PLAIN.get(type(node)):
            self.fail(node.start_mark, f"the tag {node.tag!r} is refused", "Write plain lists and mappings")
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, self._inside(path, f"[{index}]")) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        try:
            self._loader.flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            self.fail(error.problem_mark, f"not YAML: {_reason(error)}")
        result: dict[str, Any] = {}
        for key, child in node.value:
            written = self._scalar(key)
            name = written if isinstance(written, str) else str(key.value)
            inner = self._inside(path, f".{name}" if path else name)
            if inner != path:
                self.lines[inner] = self.first_line + key.start_mark.line
            result[name] = self.plain(child, inner)
        return result

    def _inside(self, path: str, step: str) -> str:
        """The path of a part; that of the whole where it became too long, so that long keys cost no memory."""
        return path + step if len(path) + len(step) <= _LONGEST_PATH else path

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._loader.construct_object(node)
        except yaml.MarkedYAMLError as error:
            self.fail(node.start_mark, f"the tag {node.tag!r} is refused: {_reason(error)}", "Write plain values")
        except (ValueError, KeyError, AttributeError, OverflowError, TypeError) as error:
            kind = node.tag.rpartition(":")[2]
            raise ConfigurationError(
                f"line {self.first_line + node.start_mark.line}: {node.value[:40]!r} is no {kind}",
                subject=self.location,
                remedy="Put it in quotes if text is meant",
            ) from error
