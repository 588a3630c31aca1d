"""The Hugging Face Hub: models down, models up, and one clear line where that cannot be.

Cache, tokens, mirrors and working offline are those of `huggingface_hub`, with its environment variables: `HF_HOME`,
`HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. No pickle is ever downloaded.
"""

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blt.checkpoint import FolderKind
from blt.configuration import check
from blt.errors import ModelFolderError

WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "entropy_model/params.json", "README.md")
"""What is downloaded: what some reader of this package reads."""
LIBRARY = "blt"
MADE_BY_THE_HUB = ".gitattributes"
"""What a new model on the Hub holds."""
LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass token"


def is_hub_name(name: str) -> bool:
    """Whether a name is of the form that models on the Hub have: owner/model."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def check_options(hub: Mapping[str, Any]) -> None:
    """Refuse options that nothing reads.

    Raises:
        ConfigurationError: `huggingface_hub.snapshot_download` has no such option.
    """
    import huggingface_hub

    known = [*inspect.signature(huggingface_hub.snapshot_download).parameters]
    for name in hub:
        check(name in known, f"{name}: no such option; known: dtype, device, {', '.join(known[1:])}")


def fetch(name: str, **hub: Any) -> Path:
    """Return the local copy of a model, downloaded where it is not in the cache.

    Args:
        name: owner/model.
        hub: passed to `huggingface_hub.snapshot_download`.

    Raises:
        ModelFolderError: no such model or revision, no way to it, or nothing in it that is ever read.
    """
    import huggingface_hub

    options = {"library_name": LIBRARY, "allow_patterns": list(WANTED)} | hub
    try:
        folder = Path(huggingface_hub.snapshot_download(name, **options))
    except Exception as error:
        reason = _why(error, revision=hub.get("revision"))
        raise ModelFolderError(f"{name}: no such folder, and not to be had from the Hub: {reason}") from error
    if not any(folder.glob("*.safetensors")):
        raise ModelFolderError(
            f"{name}: has no .safetensors file on the Hub; pickled weights (.bin, .pt) are never loaded, as they can "
            "run code: ask its owner for safetensors, or convert them where you trust them"
        )
    return folder


def upload(
    folder: Path,
    name: str,
    *,
    kind: FolderKind,
    replace: bool,
    message: str,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    endpoint: str | None,
) -> str:
    """Make a model on the Hub what a folder is, in one commit.

    The rule is that of `check_replaceable`: only an absent model, an empty one, or one of the same kind is replaced.
    Weights of an earlier version that the folder does not have, such as other shards, are deleted; no other files are.

    Args:
        folder: what is uploaded.
        name: owner/model, or a model of one's own; made if it is not there.
        kind: what the folder is.
        replace: whether what is there may be of any kind.
        message: of the commit.
        private: only for a new model; None: as the owner's settings are.
        token: of the Hub; None: the one that is logged in.
        revision: branch, made if it is not there; None: the main one.
        endpoint: address of the Hub; None: as `HF_ENDPOINT` says.

    Returns:
        The address of the commit.

    Raises:
        ModelFolderError: something else is there, not allowed, or no way to the Hub.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi(endpoint=endpoint, token=token, library_name=LIBRARY)
    try:
        name = hub.create_repo(name, private=private, exist_ok=True).repo_id
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        held = hub.list_repo_files(name, revision=revision)
        if not replace:
            _check_replaceable(hub, name, held, kind=kind, revision=revision)
        files = {path.name: path for path in sorted(folder.iterdir())}
        stale = [path for path in held if _is_weights(path)]
        operations: list[Any] = [huggingface_hub.CommitOperationDelete(path) for path in stale if path not in files]
        operations += [huggingface_hub.CommitOperationAdd(file, path) for file, path in files.items()]
        return str(hub.create_commit(name, operations, commit_message=message, revision=revision).commit_url)
    except ModelFolderError:
        raise
    except Exception as error:
        raise ModelFolderError(f"{name}: not uploaded: {_why(error, revision=revision)}") from error


def _check_replaceable(hub: Any, name: str, held: list[str], *, kind: FolderKind, revision: str | None) -> None:
    """Refuse a model on the Hub that holds files, unless its `config.json` is of the same kind."""
    if not set(held) - {MADE_BY_THE_HUB}:
        return
    with tempfile.TemporaryDirectory() as scratch:
        if "config.json" in held:
            hub.hf_hub_download(name, "config.json", revision=revision, local_dir=scratch)
        if not kind.is_own(Path(scratch)):
            shown = ", ".join(sorted(set(held) - {MADE_BY_THE_HUB})[:3])
            raise kind.error(
                f"{name}: holds {shown} on the Hub, and is no {kind.noun}; give another name, or replace=True to put "
                "this model in its place"
            )


def _is_weights(path: str) -> bool:
    return "/" not in path and path.endswith((".safetensors", ".safetensors.index.json"))


def _why(error: BaseException, *, revision: str | None) -> str:
    """Return one line on what went wrong, and the way out."""
    from huggingface_hub import errors

    causes = [error, *_causes(error)]
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return f"it is gated; ask for access on its page, then {LOG_IN}"
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return f"no such model there, or a private one; for your own, {LOG_IN}"
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return f"no revision {revision!r} there; give a branch, a tag or a commit"
    if isinstance(error, errors.LocalEntryNotFoundError):
        names = [type(cause).__name__ for cause in causes[1:]]
        where = f"no answer: {names[-1]}" if names and names[0] != "OfflineModeIsEnabled" else "offline by choice"
        return f"it is not whole in the cache ({where}); go online once, and it stays"
    statuses = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    for status in statuses & {401, 403}:
        return f"not allowed ({status}); {LOG_IN}, with the right to do this"
    lines = [line.strip() for cause in causes for line in str(cause).splitlines()]
    return next(filter(None, lines), type(error).__name__)


def _causes(error: BaseException) -> list[BaseException]:
    causes = []
    cause = error.__cause__
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    return causes
