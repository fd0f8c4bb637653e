"""The limit of a feature cache on the disk: room for more features, at the cost of the oldest."""

import shutil

from uniad_lightning.data.feature_cache.store import NO_ROOM, SPARE_BYTES, DiskStore, StoreError
from uniad_lightning.data.feature_cache.usage import bound, size_of, stores

SHARE_OF_DISK = 0.1  # that a cache may take by default


def make_room(store: DiskStore, count: int, most: int | None) -> None:
    """Delete other stores until the features of `count` more images have room in the cache and on the disk.

    `most` is the limit of the whole cache in bytes, None for a tenth of the disk. Raises StoreError where there is
    still no room.
    """
    if not count:
        return
    disk, needed = shutil.disk_usage(store.folder), store.bytes_of(count)
    most = int(SHARE_OF_DISK * disk.total) if most is None else most
    if size_of(store.folder) + needed > most:
        size = f"the features of {count} images take {needed / 1e9:.3g} GB and the limit is {most / 1e9:.3g} GB"
        raise StoreError(f"data.cache_dir={store.cache}: {size}; data.cache_size=... allows more")
    kept = sum(other.size for other in stores(store.cache))
    lacking = max(kept + needed - most, needed + SPARE_BYTES - disk.free)
    if lacking > 0:
        bound(store.cache, kept - lacking)
        if sum(other.size for other in stores(store.cache)) + needed > most:
            raise StoreError(
                f"data.cache_dir={store.cache}: what other runs use leaves no room; data.cache_size=... allows more"
            )
    if not store.room_for(count):
        raise StoreError(f"data.cache_dir={store.cache}: {NO_ROOM}")
