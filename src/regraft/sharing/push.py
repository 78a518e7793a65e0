"""`push`: a run's network on the hub, with its card, and without images of the data set."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from regraft.errors import SettingsError
from regraft.sharing.hub import asked, require_names
from regraft.sharing.layout import KNOWN
from regraft.sharing.shared_folder import write_shared
from regraft.sharing.signing import require_signing, sign
from regraft.summary import Summary

__all__ = ["Pushed", "push"]


@dataclass(frozen=True, repr=False)
class Pushed(Summary):
    """What `push` has put on the hub, or would.

    Attributes:
        repo: USER/NAME.
        files: Bytes of each file, by name.
        commit: The hash of the commit; empty in a dry run.
        url: Where to look at it; empty in a dry run.
    """

    repo: str
    files: Mapping[str, int]
    commit: str = ""
    url: str = ""

    def facts(self) -> dict[str, object]:
        """Return where it is, and how much."""
        return {"repo": self.repo, "commit": self.commit, "files": len(self.files)}

    def __str__(self) -> str:
        total = f"{len(self.files)} files, {sum(self.files.values()) / 1e6:.1f} MB"
        if self.commit:
            return f"pushed {total} to {self.url} (commit {self.commit[:12]})"
        lines = [f"{size:>12,} bytes  {name}" for name, size in self.files.items()]
        return "\n".join([*lines, f"{total} would go to {self.repo}; nothing was sent"])


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
    photos: bool = False,
    license: str | None = None,
    key: str | Path | None = None,
    password: str | None = None,
    dry_run: bool = False,
    model: nn.Module | None = None,
) -> Pushed:
    """Put a run's network on the hub: weights, class names, preprocessing, thresholds, calibration, recipe and figures.

    Names of files, predictions and paths of this machine stay here, and so do the images of the data set unless
    `photos` is set: the golden probes, which are validation images, are drawn anew.

    Args:
        run: A run folder or a model folder.
        repo: USER/NAME; made where there is none.
        private: Whether only its owner sees it. One that is public already is not written to.
        token: Of the hub; None takes HF_TOKEN, or that of `hf auth login`.
        revision: A branch, made where there is none; None takes the default branch.
        message: Of the commit.
        photos: Whether to put the golden probes themselves and report.html there, which show images of the data set.
        license: Of the model, for its card, such as apache-2.0.
        key: A private key to sign what is uploaded with, as for `sign`.
        password: Of the key.
        dry_run: Whether to say what would go, and ask nobody.
        model: The module itself, for a run that trained a module of the user's own.

    Raises:
        SettingsError: There is no model, no token or no such repository; or it is public, and `private` was asked for.
        StorageError: The model folder is damaged.
        WeightsError: The network does not give the logits of its golden probes; or the hub cannot be reached.
    """
    require_names(repo, revision, token)
    if key is not None:
        require_signing()
    with tempfile.TemporaryDirectory(prefix="regraft-push-") as folder:
        staged = Path(folder) / "model"
        write_shared(run, staged, repo=repo, photos=photos, license=license, model=model)
        if key is not None:
            sign(staged, key=key, password=password)
        paths = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        files = {name: path.stat().st_size for name, path in paths.items()}
        if dry_run:
            return Pushed(repo, files)
        with asked(repo, token, writes=True) as hub:
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete

            hub.create_repo(repo, private=private or None, exist_ok=True)
            there = hub.model_info(repo)
            if private and not there.private:
                raise SettingsError(
                    f"{repo!r} is there already, and everybody sees it; a private one was asked for.",
                    "",
                    "make it private in its settings on the hub, or choose another name",
                )
            if revision is not None and not revision.startswith("refs/"):
                hub.create_branch(repo, branch=revision, exist_ok=True)
            listed = [one.rfilename for one in hub.model_info(repo, revision=revision).siblings or ()]
            old = [name for name in listed if name in KNOWN and name not in files]
            done = hub.create_commit(
                repo,
                [
                    *(CommitOperationAdd(name, str(path)) for name, path in paths.items()),
                    *(CommitOperationDelete(name, is_folder=False) for name in old),
                ],
                commit_message=message or "Upload a model with regraft push",
                revision=revision,
            )
        return Pushed(repo, files, done.oid, f"{hub.endpoint}/{repo}")
