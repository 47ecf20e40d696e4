"""Composition with Hydra as a library: words become checked jobs, errors become sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ff_bench import traits
from ff_bench.config import RunConfig, build, conf_dir
from ff_bench.errors import TooSmall, UsageError
from ff_bench.explain import explain, refuse_odd_choices

CONFIG = "config"
BASES = "base"
"""Name of folders whose files others start from."""
MODES = ("experiment", "hydra")
"""Keys that may turn a single run into a sweep."""
LAUNCHERS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray_aws": "ray", "ray": "ray"}
"""Launchers of other packages, with the extra that installs each."""
BROKEN = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


class ConfSource(FileConfigSource):
    """A directory of configurations in which two kinds of folders are no group of choices.

    One without YAML (`prompts/`), and one of files that others start from (`model/base/`).
    """

    @staticmethod
    def scheme() -> str:
        """Return the scheme under which search paths name this source."""
        return "conf"

    def is_group(self, config_path: str) -> bool:
        """Say whether a folder offers choices."""
        folder = Path(self.path) / config_path
        if folder.name == BASES:
            return False
        return super().is_group(config_path) and any(folder.rglob("*.yaml"))


@dataclass(frozen=True)
class Job:
    """One checked configuration with the overrides that made it."""

    overrides: tuple[str, ...]
    config: RunConfig


@dataclass(frozen=True)
class Sweep:
    """The jobs of a command line, and the launcher that was asked to run them.

    Attributes:
        jobs: what runs.
        launcher: Hydra's choice.
        is_multirun: whether the command line is a sweep.
        left_out: a sentence for each job that a sweep leaves out, as its policy cannot run in its budget.
        master: the composition that jobs are derived from, with the launcher's own fields; None where no word
            names anything of Hydra's.
        config_dir: a directory of the user's, that jobs elsewhere need as well.
    """

    jobs: tuple[Job, ...]
    launcher: str
    is_multirun: bool
    left_out: tuple[str, ...] = ()
    master: DictConfig | None = None
    config_dir: str | None = None


@contextmanager
def session(config_dir: str | None = None) -> Iterator[Hydra]:
    """Open Hydra on our configurations; whatever Hydra state there was before is put back.

    Args:
        config_dir: a directory of the user's, searched after ours.

    Raises:
        UsageError: where that directory does not exist.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UsageError(f"--config-dir={config_dir} is not allowed: it must be an existing directory")
    version.setbase("1.3")
    backup, store = get_gh_backup(), ConfigStore.instance()
    Plugins.instance()  # whose choices are in the store for good
    stored = deepcopy(store.repo)
    SourcesRegistry.instance().register(ConfSource)
    search_path = create_config_search_path(f"{ConfSource.scheme()}://{conf_dir()}")
    if config_dir is not None:
        anchor = SearchPathQuery(provider="schema", path=None)
        search_path.prepend(
            provider="command-line", path=f"file://{Path(config_dir).resolve()}", anchor=anchor
        )
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2(task_name="ff-bench", config_search_path=search_path)
    finally:
        restore_gh_from_backup(backup)
        store.repo = stored  # policies of the user's are choices of one command line


@contextmanager
def sentences(hydra: Hydra, words: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra raises over some words into a sentence."""
    try:
        yield
    except BROKEN as error:
        raise explain(hydra, words, error) from None


def compose(words: Sequence[str], *, config_dir: str | None = None) -> Job:
    """Compose and check one configuration.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    with session(config_dir) as hydra:
        return _single(hydra, offer_policies(words))


def expand(words: Sequence[str], *, multirun: bool, config_dir: str | None = None) -> Sweep:
    """Compose and check every job of a command line before the first one runs.

    Args:
        words: overrides; under `multirun` with several values (comma lists, glob, range).
        multirun: whether `-m` was given; an experiment may ask for it by itself.
        config_dir: a directory of the user's.

    Raises:
        UsageError: for the first job that cannot run.
    """
    with session(config_dir) as hydra:
        words = offer_policies(words)
        overrides = _parse(hydra, words)
        if not multirun and not any(override.key_or_group.startswith(MODES) for override in overrides):
            return Sweep((_single(hydra, words),), "basic", False)
        master = _master(hydra, words)
        launcher = str(master.hydra.runtime.choices.get("hydra/launcher", "basic"))
        multirun = multirun or str(master.hydra.mode).endswith("MULTIRUN")
        if not multirun:
            return Sweep((_single(hydra, words),), launcher, False, (), master, config_dir)
        params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        given = {override.get_key_element() for override in overrides}
        extra = [override for override in _parse(hydra, params) if override.get_key_element() not in given]
        bases: dict[tuple[str, ...], dict[str, Any]] = {}
        batches = BasicSweeper.split_arguments([*extra, *overrides], None)[0]
        jobs, left_out = [], {}
        for batch in batches:
            try:
                jobs.append(_job(hydra, batch, bases))
            except TooSmall as error:
                left_out[str(error)] = error
        possible = {job.config.budget.asked for job in jobs}
        for refusal in left_out.values():
            if refusal.budget not in possible:  # too small for every policy: no matter of one of them
                raise refusal
        return Sweep(tuple(jobs), launcher, True, tuple(left_out), master, config_dir)


def overrides_of(settings: Mapping[str, object]) -> list[str]:
    """Write Python values as overrides; a mapping sets fields within, its `name` chooses the group's file."""
    words: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inner = dict(value)
            if "name" in inner:
                words.append(f"{key}={_literal(inner.pop('name'))}")
            words += overrides_of({f"{key}.{field}": item for field, item in inner.items()})
        else:
            words.append(f"{key}={_literal(value)}")
    return words


def _literal(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(_literal(item) for item in value) + "]"
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _single(hydra: Hydra, words: Sequence[str]) -> Job:
    for override in _parse(hydra, words):
        if override.is_sweep_override():
            raise UsageError(
                f"{override.input_line} gives several values: write -m before it to run every one"
            )
    return _job(hydra, words, {})


def _job(hydra: Hydra, words: Sequence[str], bases: dict[tuple[str, ...], dict[str, Any]]) -> Job:
    """Compose one job twice: as asked, and with the choices of groups only, which fixes keys and types."""
    choices = tuple(word.input_line or "" for word in _parse(hydra, words) if _is_choice(hydra, word))
    with sentences(hydra, words):
        if choices not in bases:
            bases[choices] = _tree(_compose(hydra, choices))
        tree = _tree(_compose(hydra, words))
    return Job(tuple(words), build(tree, bases[choices]))


def _master(hydra: Hydra, words: Sequence[str]) -> DictConfig:
    try:
        return hydra.compose_config(CONFIG, list(words), RunMode.MULTIRUN, with_log_configuration=False)
    except BROKEN as error:
        for name, extra in LAUNCHERS.items():
            if f"hydra/launcher/{name}'" in str(error):
                raise UsageError(
                    f"hydra/launcher={name} needs a package that is not here: pip install 'ff-bench[{extra}]'"
                ) from None
        raise explain(hydra, words, error) from None


def _compose(hydra: Hydra, words: Sequence[str]) -> DictConfig:
    return hydra.compose_config(CONFIG, list(words), RunMode.RUN, with_log_configuration=False)


def _tree(composed: DictConfig) -> dict[str, Any]:
    tree = {key: composed._get_node(key) for key in composed if key != "hydra"}
    plain = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict), plain
    return {str(key): value for key, value in plain.items()}


def _parse(hydra: Hydra, words: Sequence[str]) -> list[Override]:
    with sentences(hydra, words):
        overrides = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(words))
    refuse_odd_choices(hydra, overrides)
    return overrides


def _is_choice(hydra: Hydra, override: Override) -> bool:
    loader = hydra.config_loader
    assert isinstance(loader, ConfigLoaderImpl), type(loader)
    return loader.repository.group_exists(override.key_or_group)


def offer_policies(words: Sequence[str]) -> list[str]:
    """Make installed plug-ins and .py files choices; their fields come from the dataclass.

    Returns:
        The words, with files named by their choice.

    Raises:
        UsageError: for a policy that cannot be loaded, or whose fields no command line could set.
    """
    shipped = {path.stem for path in (conf_dir() / "policy").glob("*.yaml")}
    return [
        f"policy={','.join(_offered(value, shipped) for value in word.removeprefix('policy=').split(','))}"
        if word.startswith("policy=") and not word.endswith(")")
        else word
        for word in words
    ]


def _offered(value: str, shipped: set[str]) -> str:
    """Make one policy a choice where it is none yet, and return the choice's name."""
    is_file = value.endswith(".py") and Path(value).is_file()
    if value in shipped or not (is_file or value in traits.installed()):
        return value
    name = str(Path(value).resolve()) if is_file else value
    label = Path(value).stem if is_file else value
    if label in shipped:
        raise UsageError(
            f"policy={value} is not allowed: tables would call it {label}, as they call a policy of ours; "
            "rename the file"
        )
    ConfigStore.instance().store(group="policy", name=label, node={"name": name, **traits.defaults(name)})
    return label
