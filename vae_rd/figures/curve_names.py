"""How curves of one figure are told apart: the fields that name them; their labels, colours and markers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.typing import ColorType

from vae_rd.analysis import naming
from vae_rd.catalogue import LIKELIHOODS, PRIORS
from vae_rd.figures import style

DIRECT_LABELS = 4  # up to so many curves are labelled in the panels, more in the key
KINDS = {"prior": list(PRIORS), "likelihood": list(LIKELIHOODS)}  # no quantities: their colours should show no order


def differing(curves: pd.DataFrame, facet: Sequence[str]) -> list[str]:
    """The columns in which curves of one panel differ: what names a curve. Beta does not."""
    fields = curves.columns[:curves.columns.get_loc("partition")].drop("beta")  # those of Config come first
    names = {name for name in fields if name not in facet and curves[name].nunique(dropna=False) > 1}
    others = [name for name in fields if name in {*names, *facet} - {"imports"}]
    if others and curves.groupby(others, dropna=False)["imports"].nunique().max() == 1:
        names -= {"imports"}  # another field says why they were imported
    if names & {"architecture", "num_layers"}:
        names |= {"architecture", "num_layers"} - set(facet)
    return [name for name in fields if name in names]


def looks(curves: pd.DataFrame, names: list[str]) -> dict[tuple, tuple[str, ColorType, str]]:
    """Label, colour and marker of every curve, by the values that name it."""
    values = curves[names].drop_duplicates() if names else pd.DataFrame(index=[0])
    values = values.sort_values(names, key=_order) if names else values
    keys = list(values.itertuples(index=False, name=None)) or [()]
    most = len(style.COLOURS) if set(names) & set(KINDS) else DIRECT_LABELS
    ordered = len(keys) > most or names in (["num_train"], ["latent_dim"])
    colours: Sequence[ColorType] = style.ordered_colours(len(keys)) if ordered else style.COLOURS
    return {key: (naming.describe(dict(zip(names, key))), colours[index], style.MARKERS[index % len(style.MARKERS)])
            for index, key in enumerate(keys)}


def _order(column: pd.Series) -> pd.Series:
    """What the values of a field of Config are sorted by."""
    if column.name == "split":
        return column.map(naming.split_order)
    known = KINDS.get(str(column.name), [])
    return column.map(lambda value: (known.index(value) if value in known else len(known), value)) if known else column


def rows(curves: pd.DataFrame, names: list[str], key: tuple) -> pd.DataFrame:
    """The rows of the curve that these values of these columns name."""
    chosen = np.ones(len(curves), bool)
    for name, value in zip(names, key):
        if not chosen.any():  # most curves of a large figure are in few of its panels
            break
        chosen &= (curves[name] == value).to_numpy(bool, na_value=False)
    return curves[chosen]
