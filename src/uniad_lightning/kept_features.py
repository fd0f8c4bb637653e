"""`uniad cache [keep=SIZE]`: what the feature cache holds, and its bound."""

import os
import re
import time

from rich.table import Table

from uniad_lightning.data.cache_space import bound, stores
from uniad_lightning.errors import InputError
from uniad_lightning.home import expand
from uniad_lightning.results.tables import print_table

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def show_kept_features(words: list[str]) -> None:
    """Print the stores of the cache, those used last first; `keep=SIZE`, such as keep=20GB, deletes the last ones.

    The cache is $UNIAD_CACHE or ~/.cache/uniad-lightning. Raises InputError for a size that is none.
    """
    cache = expand(os.environ.get("UNIAD_CACHE", "~/.cache/uniad-lightning"))
    for word in words:
        size = re.fullmatch(r"keep=(\d+(?:\.\d+)?)\s*([kmgt]?b)?", word.lower())
        if not size:
            raise InputError(f"uniad cache {word}: expected keep=SIZE, such as keep=20GB, keep=0 for nothing")
        for store in bound(cache, int(float(size[1]) * UNITS[size[2] or ""])):
            print(f"deleted {store.folder} ({store.images} images)")
    table = Table(title=f"features in {cache}", title_justify="left")
    table.add_column("folder")
    table.add_column("backbone")
    for column in ("levels", "grid", "image size", "images", "MB", "last used"):
        table.add_column(column, justify="right")
    kept = stores(cache)
    for store in kept:
        about = store.about
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used))
        sizes = (",".join(map(str, about["levels"])), "x".join(map(str, about["grid"])))
        table.add_row(
            store.folder.name, about["backbone"], *sizes, "x".join(map(str, about["image_size"])), str(store.images),
            f"{store.size / 1e6:.1f}", used,
        )  # fmt: skip
    print_table(table)
    print(f"{len(kept)} settings, {sum(store.size for store in kept) / 1e9:.2f} GB")
