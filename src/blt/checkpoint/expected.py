"""Whether a file holds what a model needs: tensors of the right names, all used, and of floating-point numbers.

One way for our own folders and for those of other software, so that nothing is dropped without a word.
"""

from collections.abc import Callable, Collection

import torch

from blt.errors import BLTError, ModelFolderError

FLOATING_POINT = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types whose numbers are the weights themselves, by safetensors' names: all others need scales, or are no weights."""
_SHOWN = 3


def require_names(
    found: Collection[str],
    wanted: Collection[str],
    *,
    where: object,
    unused: Collection[str] = (),
    called: Callable[[str], str] = str,
    error: type[BLTError] = ModelFolderError,
) -> None:
    """Refuse files that lack a tensor, or hold one that there is no place for, such as a bias or a scale.

    Args:
        found: names in the files.
        wanted: names that must be there.
        where: file or folder, for messages.
        unused: names that may be there, and change nothing.
        called: returns the name that messages show.
        error: what is raised.

    Raises:
        ModelFolderError: (or the given class) a name is missing or left over.
    """
    differing = {
        "missing": set(wanted) - set(found),
        "left over": set(found) - set(wanted) - set(unused),
    }
    parts = [f"{what}: {_listed(sorted(map(called, names)))}" for what, names in differing.items() if names]
    if parts:
        raise error(f"{where}: its tensors are not those of the model that it describes; {'; '.join(parts)}")


def require_floating_point(
    dtype: str | torch.dtype, name: str, *, where: object, error: type[BLTError] = ModelFolderError
) -> None:
    """Refuse a tensor that holds codes or truth values, which only scales or rules turn into weights.

    Args:
        dtype: its type, or safetensors' name of it.
        name: its name, for the message.
        where: file or folder, for the message.
        error: what is raised.

    Raises:
        ModelFolderError: (or the given class) it is of such a type.
    """
    if dtype not in FLOATING_POINT and dtype not in FLOATING_POINT.values():
        found = str(dtype).removeprefix("torch.")
        raise error(
            f"{where}: {name} holds {found}; weights are floating-point numbers: save the model unquantised first"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
