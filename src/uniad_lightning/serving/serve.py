"""`serve(cfg)`: a detector over HTTP, until it is stopped."""

from importlib.util import find_spec

from omegaconf import DictConfig

from uniad_lightning.errors import InputError
from uniad_lightning.serving.settings import settings_of

_NEEDED = {
    "fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}  # fmt: skip


def serve(cfg: DictConfig) -> None:
    """Serve `cfg.ckpt_path` at `cfg.host` and `cfg.port`; returns when it is stopped.

    Raises InputError for settings that cannot be used, and without the extra `serve`.
    """
    absent = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if absent:
        raise InputError(f"uniad serve: {', '.join(absent)} not installed; pip install 'uniad-lightning[serve]'")
    settings = settings_of(cfg)
    from uniad_lightning.serving.server import run

    run(settings)
