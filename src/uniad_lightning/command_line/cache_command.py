"""`uniad cache [keep=SIZE]`: list the feature cache, and bound its size."""

import os
import re
import time

from uniad_lightning.data.feature_cache.usage import bound, stores
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.printing import LEFT, RIGHT, print_table

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def show_kept_features(arguments: list[str]) -> None:
    """Print the stores of the cache, most recently used first; `keep=SIZE`, such as keep=20GB, deletes the oldest.

    The cache is $UNIAD_CACHE or ~/.cache/uniad-lightning. Raises InputError for any other argument.
    """
    cache = expand(os.environ.get("UNIAD_CACHE", "~/.cache/uniad-lightning"))
    for argument in arguments:
        size = re.fullmatch(r"keep=(\d+(?:\.\d+)?)\s*([kmgt]?b)?", argument.lower())
        if not size:
            raise InputError(f"uniad cache {argument}: expected keep=SIZE, such as keep=20GB, keep=0 for nothing")
        most = int(float(size[1]) * UNITS[size[2] or ""])
        for store in bound(cache, most):
            print_stdout(f"deleted {store.folder} ({store.images} images)")
        if sum(store.size for store in stores(cache)) > most:
            print_stdout(f"more than {argument} is left: these are in use")
    saved, rows = stores(cache), []
    for store in saved:
        about = store.about
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used))
        separators = {"levels": ",", "grid": "x", "image_size": "x"}
        sizes = [separator.join(map(str, about.get(name, ()))) for name, separator in separators.items()]
        backbone = about.get("backbone", "(about.json is damaged)")
        rows.append([store.folder.name, backbone, *sizes, store.images, f"{store.size / 1e6:.1f}", used])
    columns = [("folder", LEFT), ("backbone", LEFT)]
    columns += [(title, RIGHT) for title in ("levels", "grid", "image size", "images", "MB", "last used")]
    print_table(f"features in {cache}", columns, rows)
    print_stdout(f"{len(saved)} settings, {sum(store.size for store in saved) / 1e9:.2f} GB")
