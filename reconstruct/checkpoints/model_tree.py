"""The model tree of a Hub: the repositories whose cards name another one as their base model.

What a card says is a claim, and who made a model need not say so: a list of whom to compare, never evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.utils import httpx

from reconstruct.checkpoints.hub_refusals import Asked
from reconstruct.checkpoints.hub_requests import Address, HubRequests, any_length
from reconstruct.checkpoints.reference import repository_named
from reconstruct.checkpoints.retries import RetryPolicy
from reconstruct.checkpoints.tree_query import RELATIONS, TreeQuery
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import RemoteError

__all__ = ["UNSTATED", "Child", "Tree", "list_children"]

#: The relation of a repository that names a base model, but not what it is to it.
UNSTATED = "unstated"
_PAGE = 1000  # repositories asked for at once; a Hub may give fewer
_PAGES = 40  # that are read at most: the rest have next to no downloads
_FIELDS = ("sha", "downloads", "tags")
_T = TypeVar("_T")
_SHA = re.compile(r"^[0-9a-f]{40}$")
_NEXT = re.compile(r'<([^<>]+)>\s*;[^<]*\brel="?next"?')


@dataclass(frozen=True)
class Child:
    """A repository of a model tree: `commit` its main branch was at (or ""), `relation` (or "unstated"), `downloads` of
    the last month.
    """

    repository: str
    commit: str
    relation: str
    downloads: int


@dataclass(frozen=True)
class Tree:
    """`children`, most downloaded first; `complete`: whether these are all that the Hub lists."""

    children: tuple[Child, ...]
    complete: bool


def list_children(
    query: TreeQuery,
    wire: Wire,
    endpoint: str | None = None,
    *,
    retries: RetryPolicy | None = None,
    timeout: float = 60.0,
) -> Tree:
    """Ask a Hub who names `query.repository` as the base model. `endpoint`: else the one that HF_ENDPOINT names.

    Raises RemoteError (offline, no such repository, nobody names it), UnreachableError and BudgetExhausted.
    """
    if is_offline_mode():
        raise RemoteError(
            "HF_HUB_OFFLINE is set, and only a Hub knows a model tree", subject=str(query),
            remedy="Unset it, or name the candidates",
        )  # fmt: skip
    hub = (endpoint or constants.ENDPOINT).rstrip("/")
    requests = HubRequests(hub, wire, retries or RetryPolicy(), timeout)
    asked = Asked(hub, query.repository)
    tag = ":".join(["base_model", *([query.relation] if query.relation else []), query.repository])
    fields = [("expand", field) for field in _FIELDS]
    further: str | None = urlencode([("filter", tag), ("sort", "downloads"), ("limit", _PAGE), *fields])
    found: dict[str, Child] = {}
    for _ in range(_PAGES):
        page, further = _page(requests, f"{hub}/api/models?{further}", asked)
        for item in page:
            child = _child(item, query, hub)
            found.setdefault(child.repository.lower(), child)
        if further is None:
            break
    if not found:
        raise _childless(query, requests, asked)
    ordered = sorted(found.values(), key=lambda child: (-child.downloads, child.repository.lower()))
    return Tree(tuple(ordered), further is None)


def _childless(query: TreeQuery, requests: HubRequests, asked: Asked) -> RemoteError:
    """Nobody names a repository. Raises RemoteError if there is none of that name."""
    answer = requests.get(Address(f"{asked.endpoint}/api/models/{query.repository}"), asked, any_length)
    name = _loaded(answer, asked.endpoint, dict).get("id")
    relation = f" ({query.relation})" if query.relation else ""
    return RemoteError(
        f"no repository on {asked.endpoint} names it as its base model{relation}", subject=str(query),
        remedy="Name the candidates" if name in {None, query.repository} else f"It is called {name} there",
    )  # fmt: skip


def _page(requests: HubRequests, url: str, asked: Asked) -> tuple[list[Any], str | None]:
    """The repositories of one page, and the query of the next one."""
    links: list[str] = []

    def check(response: httpx.Response) -> None:
        any_length(response)
        links.append(response.headers.get("link", ""))

    page = _loaded(requests.get(Address(url), asked, check), asked.endpoint, list)
    following = _NEXT.search(links[-1])
    # Only the query is followed: neither a mirror's upstream nor anybody else is sent our token.
    return page, urlsplit(following[1]).query or None if following is not None else None


def _loaded(answer: bytes, hub: str, kind: type[_T]) -> _T:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise _no_hub(hub, str(error)) from None
    if not isinstance(value, kind):
        raise _no_hub(hub, f"{type(value).__name__} instead of {kind.__name__}")
    return value


def _child(item: Any, query: TreeQuery, hub: str) -> Child:
    if not isinstance(item, Mapping):
        raise _no_hub(hub, "no description of a repository")
    name, commit, downloads = item.get("id"), item.get("sha"), item.get("downloads")
    if not isinstance(name, str) or (named := repository_named(name)) is None:
        raise _no_hub(hub, f"{name!r} for a repository")
    tags = item.get("tags")
    said = {str(tag).lower() for tag in tags} if isinstance(tags, list) else set()
    stated = (r for r in RELATIONS if f"base_model:{r}:{query.repository}".lower() in said)
    return Child(
        str(named.location),
        commit if isinstance(commit, str) and _SHA.match(commit) else "",
        query.relation or next(stated, UNSTATED),
        downloads if isinstance(downloads, int) else 0,
    )


def _no_hub(hub: str, what: str) -> RemoteError:
    return RemoteError(f"does not answer as a Hub does ({what})", subject=hub, remedy="Check HF_ENDPOINT")
