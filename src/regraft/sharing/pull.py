"""`pull`: a network from the hub, checked file by file, and its golden probes replayed before it gets its name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from regraft import commit
from regraft.errors import RegraftError, StorageError, WeightsError
from regraft.exports.proving.proof import replay
from regraft.models.store.folder import CONFIG, load_model, load_probes, read_config
from regraft.sharing import hub as the_hub
from regraft.sharing.layout import KNOWN, LARGEST_TEXT, NEEDED
from regraft.sharing.signing import SIGNATURE
from regraft.summary import Summary
from regraft.wording import quantity

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Pulled", "pull"]

_TENSORS = ".safetensors"


@dataclass(frozen=True, repr=False)
class Pulled(Summary):
    """What `pull` has fetched.

    Attributes:
        path: The model folder, as `predict` and `load_model` take it.
        repo: Where it comes from.
        commit: The hash of the commit there: `revision=` of it fetches the same again.
        num_probes: Golden probes that were replayed.
    """

    path: Path
    repo: str
    commit: str
    num_probes: int

    def facts(self) -> dict[str, object]:
        """Return where it lies and where it comes from."""
        return {"path": str(self.path), "repo": self.repo, "commit": self.commit, "num_probes": self.num_probes}

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.repo} at commit {self.commit}; all files are whole, "
            f"{quantity(self.num_probes, 'golden probe')} replayed"
        )


def pull(
    repo: str,
    out: str | Path | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    model: nn.Module | None = None,
) -> Pulled:
    """Copy a network that `push` has put on the hub, here, as a model folder.

    Only files that regraft knows are fetched, all of one commit; nothing in them is executed. Each has to have the
    hash that the repository's manifest.json lists, and the network has to give the logits of its golden probes. A
    manifest tells damage, not forgery: whoever may write to the repository can write both.

    Args:
        repo: USER/NAME.
        out: The new folder; None takes NAME. Nothing is overwritten.
        revision: A branch, a tag or the hash of a commit.
        token: Of the hub; None takes HF_TOKEN, or that of `hf auth login`, if there is one.
        model: The module itself, for a run that trained a module of the user's own.

    Raises:
        SettingsError: There is no such repository or revision, or it takes a token.
        StorageError: A file is not what it was; or there is something at `out`.
        WeightsError: It is not a model of regraft's; the hub cannot be reached; or the network does not give the logits
            of its golden probes.
    """
    the_hub.require_names(repo, revision, token)
    target = Path(out) if out is not None else Path(repo.rpartition("/")[2])
    commit.require_free(target)
    with commit.storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".regraft-pull-", dir=target.parent) as folder:
            fetched = Path(folder) / "model"
            with the_hub.asked(repo, token) as hub:
                oid = _fetch(hub, repo, revision, fetched)
            num = _replayed(fetched, repo, model)
            commit.require_free(target)
            with commit.folder(target) as final:
                for path in sorted(path for path in fetched.rglob("*") if path.is_file()):
                    place = final / path.relative_to(fetched)
                    place.parent.mkdir(exist_ok=True)
                    if path.name not in (commit.MANIFEST, SIGNATURE):  # the one is written anew, the other signs it
                        shutil.move(path, place)
            if (fetched / SIGNATURE).is_file():
                commit.write_new(target / SIGNATURE, (fetched / SIGNATURE).read_bytes())
    return Pulled(target, repo, oid, num)


def _fetch(hub: HfApi, repo: str, revision: str | None, out: Path) -> str:
    """Copy the files of a repository that regraft knows, check them, and return the hash of their commit."""
    info = hub.model_info(repo, revision=revision, files_metadata=True, timeout=the_hub.SECONDS)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    lacking = [name for name in (*NEEDED, commit.MANIFEST) if name not in sizes]
    if lacking:
        raise _no_model(repo, f"it has no {lacking[0]}")
    oid = info.sha or ""
    for name in (CONFIG, commit.MANIFEST):
        _download(hub, repo, oid, name, sizes, out)
    try:
        read_config(out)
        listed = json.loads((out / commit.MANIFEST).read_text(encoding="utf-8"))["files"]
    except RegraftError as error:
        raise _no_model(repo, f"its {CONFIG} is another program's, or damaged") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_model(repo, f"its {commit.MANIFEST} is damaged") from error
    if not isinstance(listed, dict) or not set(NEEDED) <= set(listed):
        raise _no_model(repo, f"its {commit.MANIFEST} does not list all of {', '.join(NEEDED)}")
    strange = sorted(set(listed) - KNOWN | set(listed) & {SIGNATURE, commit.MANIFEST})
    if strange:
        raise _no_model(repo, f"its {commit.MANIFEST} lists {strange[0][:100]!r}, which regraft does not write")
    commit.require_space(out, sum(sizes.get(name, 0) for name in listed))
    for name in (*listed, *([SIGNATURE] if SIGNATURE in sizes else [])):
        if name != CONFIG:
            _download(hub, repo, oid, name, sizes, out)
    shutil.rmtree(out / ".cache", ignore_errors=True)  # notes of the hub's library
    reason = commit.damage(out)
    if reason is not None:
        raise StorageError(
            f"What came from {repo!r} is not what was pushed: {reason.partition('/')[2]}.",
            "the files that its manifest.json lists",
            "the same command again; if it stays so, the repository is damaged: push again",
        )
    return oid


def _download(hub: HfApi, repo: str, oid: str, name: str, sizes: Mapping[str, Any], out: Path) -> None:
    if not name.endswith(_TENSORS) and sizes.get(name, 0) > LARGEST_TEXT:
        raise _no_model(repo, f"its {name} has {sizes[name]:,} bytes")
    hub.hf_hub_download(repo, name, revision=oid, local_dir=out)


def _replayed(folder: Path, repo: str, model: nn.Module | None) -> int:
    """Require that a network gives the logits of its golden probes; return how many there are."""
    network = load_model(folder, model=model)
    try:
        probes = load_probes(folder)
        replay(network, probes, repo)
    except (KeyError, RuntimeError, ValueError) as error:
        raise _no_model(repo, f"its golden probes cannot be replayed ({type(error).__name__})") from error
    return len(probes["logits"])


def _no_model(repo: str, why: str) -> WeightsError:
    return WeightsError(
        f"{repo!r} is not a model that regraft has pushed: {why}.",
        "a repository that `regraft push` wrote",
        "for a network of timm's own use `regraft train --model NAME`",
    )
