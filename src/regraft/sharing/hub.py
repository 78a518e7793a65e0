"""The hub, asked through huggingface_hub: within time limits; errors say what to do, and never the token."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from regraft.errors import RegraftError, SettingsError, WeightsError
from regraft.models.zoo.pretrained import is_hub_reachable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["SECONDS", "asked", "require_names"]

SECONDS = 60.0  # without a byte from the hub
_REPO = re.compile(r"(?!.*(?:--|\.\.))[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]{0,200}", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")
_FOREIGN = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet")


def require_names(repo: str, revision: str | None, token: str | None) -> None:
    """Raise SettingsError where a repository, a revision or a token cannot be one; the token is not shown."""
    if not _REPO.fullmatch(repo):
        raise SettingsError(
            f"{repo!r} is not the name of a repository on the hub.", "USER/NAME, such as maria/cats-and-dogs", ""
        )
    if revision is not None and not _REVISION.fullmatch(revision):
        raise SettingsError(f"{revision!r} is not a revision.", "a branch, a tag or the hash of a commit", "")
    if token is not None and not _TOKEN.fullmatch(token):
        raise SettingsError(
            "The token that was given cannot be one: it is empty, or holds blanks or line breaks.",
            "one word, such as hf_...",
            "copy it again from the settings of your account on the hub",
        )


@contextlib.contextmanager
def asked(repo: str, token: str | None, *, writes: bool = False) -> Iterator[HfApi]:
    """Yield the hub's client; whatever it raises becomes an error of regraft's.

    Args:
        repo: What it is asked about, for errors.
        token: None takes HF_TOKEN, or that of `hf auth login`.
        writes: Whether it is asked to write, which takes a token.

    Raises:
        SettingsError: There is no token, the hub does not accept it, or there is no such repository.
        WeightsError: The hub cannot be reached, is not available, or the connection broke off.
    """
    from huggingface_hub import HfApi, constants, get_session, get_token

    if writes and token is None and get_token() is None:
        raise SettingsError(
            f"Writing to {repo!r} takes a token of the hub, and there is none.",
            "a token with the right to write",
            "`hf auth login`, or set HF_TOKEN",
        )
    if not is_hub_reachable():
        why = "HF_HUB_OFFLINE forbids to ask it" if constants.HF_HUB_OFFLINE else "it does not answer"
        raise WeightsError(
            f"The hub ({constants.ENDPOINT}) cannot be reached: {why}.",
            "a network connection",
            "set HF_ENDPOINT to a mirror of the hub, or copy the model folder by hand: `regraft predict` takes it",
        )
    session = get_session()
    before = session.timeout
    session.timeout = SECONDS  # the library itself would wait for ever
    try:
        yield HfApi(endpoint=constants.ENDPOINT, token=token)
    except RegraftError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError | ValueError) and not _is_foreign(error):
            raise
        raise _told(error, repo, constants.ENDPOINT, writes=writes) from error
    finally:
        session.timeout = before


def _is_foreign(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _FOREIGN


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: Exception, repo: str, endpoint: str, *, writes: bool) -> RegraftError:
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RevisionNotFoundError

    causes = list(_causes(error))
    codes = [getattr(getattr(cause, "response", None), "status_code", None) for cause in causes]
    status = next((code for code in codes if isinstance(code, int)), None)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return SettingsError(
            f"The owner of {repo!r} wants to be asked before it is fetched.",
            "",
            f"ask for it at {endpoint}/{repo}, and give your token: `hf auth login`, or set HF_TOKEN",
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return SettingsError(f"{repo!r} has no such revision.", "a branch, a tag or the hash of a commit", "")
    if status == 401:
        return SettingsError(
            f"The hub asks for another token for {repo!r}, or for one at all (401).",
            "a token of an account that may see the repository",
            "`hf auth login`, or set HF_TOKEN",
        )
    if status == 403:
        return SettingsError(
            f"The token has no right to {'write to' if writes else 'read'} {repo!r} (403).",
            "a token of its owner, with that right",
            "choose it in the settings of your account on the hub",
        )
    if any(isinstance(cause, EntryNotFoundError) for cause in causes) and status == 404:
        return WeightsError(f"{repo!r} lacks a file that its manifest.json lists.", "a whole model", "push it again")
    if status == 404:
        return SettingsError(
            f"There is no {repo!r} at {endpoint}, or the token may not see it (404).",
            "USER/NAME of a model",
            "for a private one `hf auth login`, or set HF_TOKEN",
        )
    reason = f"it answers {status}" if status is not None else f"{type(causes[-1]).__name__}: {_short(causes[-1])}"
    return WeightsError(
        f"The hub ({endpoint}) did not do what it was asked for {repo!r}: {reason}.",
        "",
        "the same command again, later; nothing is left half done",
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or "no reason given"
