"""`uniad cache [keep=SIZE]`: what the feature cache holds, and its bound."""

import os
import re
import time

from uniad_lightning.data.feature_cache.usage import bound, stores
from uniad_lightning.errors import InputError, say
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.tables import LEFT, RIGHT, print_table

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
        most = int(float(size[1]) * UNITS[size[2] or ""])
        for store in bound(cache, most):
            say(f"deleted {store.folder} ({store.images} images)")
        if sum(store.size for store in stores(cache)) > most:
            say(f"more than {word} is left: these are in use")
    kept, rows = stores(cache), []
    for store in kept:
        about = store.about
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used))
        signs = (("levels", ","), ("grid", "x"), ("image_size", "x"))
        sizes = [sign.join(map(str, about.get(name, ()))) for name, sign in signs]
        backbone = about.get("backbone", "(about.json is damaged)")
        rows.append([store.folder.name, backbone, *sizes, store.images, f"{store.size / 1e6:.1f}", used])
    columns = [("folder", LEFT), ("backbone", LEFT)]
    columns += [(title, RIGHT) for title in ("levels", "grid", "image size", "images", "MB", "last used")]
    print_table(f"features in {cache}", columns, rows)
    say(f"{len(kept)} settings, {sum(store.size for store in kept) / 1e9:.2f} GB")
