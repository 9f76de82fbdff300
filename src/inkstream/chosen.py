"""Which model an admin has chosen while the server ran: one small file in the data folder.

It outlives the server, and counts for as long as the server is configured as it was then: whoever configures
another model since has the later word. A model named on the command line comes before it and ends it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from inkstream.config import Settings
from inkstream.disk import sync_folder
from inkstream.errors import LogUnwritable

FILE = "model.json"


@dataclass(frozen=True, slots=True)
class Chosen:
    """``model`` answers, in place of the configured one, ``instead_of``.

    ``trying`` is a model whose engine has been started and has not yet been ready: until it is, ``model`` is
    the one to come back to.
    """

    model: str
    instead_of: str
    trying: str = ""


def read(folder: Path) -> Chosen | None:
    """What has been chosen; None for nothing, and for what cannot be read."""
    try:
        return decode((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None


def decode(written: bytes) -> Chosen:
    """Raises ValueError for what ``write`` has not written."""
    told = json.loads(written)
    match told:
        case {"model": str(model), "instead_of": str(instead_of), "trying": str(trying)} if len(told) == 3:
            return Chosen(model, instead_of, trying)
    raise ValueError(f"{FILE} tells of no model")


def write(folder: Path, chosen: Chosen) -> None:
    """Whole or not at all, whatever dies meanwhile. Raises LogUnwritable."""
    path = folder / FILE
    part = path.with_suffix(".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(chosen), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise LogUnwritable(f"{path} cannot be written: {error.strerror}.") from error


def in_effect(settings: Settings) -> Settings:
    """With the chosen model, where one counts."""
    chosen = read(settings.data_dir)
    if chosen is None or chosen.instead_of != settings.model:
        return settings
    return replace(settings, model=chosen.model)


def begin(settings: Settings, *, is_named: bool) -> Settings:
    """What a server starts with. ``is_named``: the model is named on the command line.

    What does not count any more is forgotten, and so is an attempt that the last server did not bring to its
    end. Raises LogUnwritable.
    """
    chosen = read(settings.data_dir)
    if chosen is None:
        return settings
    if is_named or chosen.instead_of != settings.model:
        _forget(settings.data_dir)
        return settings
    if chosen.trying:
        write(settings.data_dir, replace(chosen, trying=""))
    return replace(settings, model=chosen.model)


def _forget(folder: Path) -> None:
    try:
        (folder / FILE).unlink()
    except OSError as error:
        raise LogUnwritable(f"{folder / FILE} cannot be removed: {error.strerror}.") from error
