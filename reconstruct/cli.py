"""The command line: a table of verbs, one short Hydra main each; `python -m reconstruct` is the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from reconstruct.errors import ReconstructError

__all__ = ["main"]

_USAGE = """\
usage: reconstruct <verb> [key=value ...]

  fit      rebuild a suspect checkpoint from candidate parents: reconstruct fit suspect=S parents=[A,B] base=C
  verify   is a claimed recipe what the weights follow: reconstruct verify suspect=S recipe=claimed.yml
  scan     who among many candidates is a parent: reconstruct scan suspect=S candidates=[A,B,...] base=C
  report   draw the report of a finished run again, without weights: reconstruct report run=runs/<folder>

reconstruct <verb> --help lists a verb's options; --cfg job shows them as composed; -m runs a sweep.
Exit codes: 0 done (whatever the verdict), 1 refuted (verify strict=true), 2 bad input or configuration, 3 incomplete,
130 interrupted.
"""


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help"}:
        sys.stdout.write(_USAGE)
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"merge-reconstruct {version('merge-reconstruct')}\n")
        return
    verb = arguments[0]
    if verb not in _VERBS:
        sys.stderr.write(f"error: no verb {verb!r}. There are {', '.join(_VERBS)}\n")
        sys.exit(2)
    sys.argv = [f"reconstruct {verb}", *arguments[1:]]
    _VERBS[verb]()


def _run_hydra(verb: str, body: Callable[[Any], None]) -> None:
    """Compose conf/<verb>.yaml and run `body`; errors of the user end in one message and their exit code."""
    import hydra

    from reconstruct.schema import register

    started = False

    def guarded(config: Any) -> None:
        nonlocal started
        started = True
        try:
            body(config)
        except ReconstructError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; what is finished is kept in the run folder\n")
            sys.exit(130)

    register()
    try:
        hydra.main(version_base="1.3", config_path="pkg://reconstruct.conf", config_name=verb)(guarded)()
    except SystemExit as end:
        # Hydra ends with 1 when the configuration does not compose; that is the user's input too.
        sys.exit(2 if end.code == 1 and not started else end.code)


def _fit() -> None:
    def body(config: Any) -> None:
        from reconstruct.commands import run_fit
        from reconstruct.schema import FitConfig, to_dataclass

        run_fit(to_dataclass(config, FitConfig))

    _run_hydra("fit", body)


def _as_hydra_takes_it(argument: str) -> str:
    """recipe=F is recipe.file=F; recipe.paths={org/a: ./a} becomes a list, as Hydra takes no slash in a key."""
    if argument.startswith("recipe="):
        return f"recipe.file={argument.removeprefix('recipe=')}"
    if argument.startswith("recipe.paths={"):
        import yaml

        try:
            pairs = yaml.safe_load(argument.removeprefix("recipe.paths=")).items()
        except (yaml.YAMLError, AttributeError):
            return argument
        quoted = (f"{reference}={folder}".replace("\\", "\\\\").replace("'", "\\'") for reference, folder in pairs)
        return "recipe.paths=[" + ",".join(f"'{pair}'" for pair in quoted) + "]"
    return argument


def _verify() -> None:
    sys.argv[1:] = [_as_hydra_takes_it(argument) for argument in sys.argv[1:]]

    def body(config: Any) -> None:
        from reconstruct.commands import run_verify
        from reconstruct.schema import VerifyConfig, to_dataclass

        chosen = to_dataclass(config, VerifyConfig)
        if run_verify(chosen) and chosen.strict:
            sys.exit(1)

    _run_hydra("verify", body)


def _scan() -> None:
    def body(config: Any) -> None:
        from reconstruct.commands import run_scan
        from reconstruct.schema import ScanConfig, to_dataclass

        run_scan(to_dataclass(config, ScanConfig))

    _run_hydra("scan", body)


def _report() -> None:
    def body(config: Any) -> None:
        from reconstruct.commands import run_report
        from reconstruct.schema import ReportVerbConfig, to_dataclass

        run_report(to_dataclass(config, ReportVerbConfig))

    _run_hydra("report", body)


_VERBS: dict[str, Callable[[], None]] = {"fit": _fit, "verify": _verify, "scan": _scan, "report": _report}
