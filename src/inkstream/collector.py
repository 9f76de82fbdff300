"""The garbage collector, in processes whose event loop must not stand still while it looks at everything."""

from __future__ import annotations

import gc

COLLECTIONS = 10_000, 20, 20  # at so many objects of each age; see gc.set_threshold


def settle() -> None:
    """Leave alone what is there now, look at what is young in larger portions, and at everything seldom.

    What ends is freed at once, for nothing of a run or a request refers to itself. The collector is there for
    the rest. Looking at everything takes 0.3 s for what torch and transformers load, and 0.1 ms for every run
    with its reader.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
