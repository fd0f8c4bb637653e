"""`panels(cfg)`: sheets of what a detector reconstructs, rendered as images (Figs. 2b, 6, A2 and A3)."""

from pathlib import Path

from omegaconf import DictConfig

from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
from uniad_lightning.rendering.decoder_checkpoint import load_decoder, reconstructing
from uniad_lightning.rendering.renderer import Renderer
from uniad_lightning.rendering.sheets import draw_category
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import refuse_in_the_way
from uniad_lightning.results.sheets import draw_sheet
from uniad_lightning.results.written_files import file_stem, note, remove_written
from uniad_lightning.training.build import build_saved_data
from uniad_lightning.training.checkpoint import load_checkpoint
from uniad_lightning.training.heatmaps import choose_images

PANELS, QUERIES = "panels", "queries.png"


@holds_output_dir
def panels(cfg: DictConfig) -> Path:
    """Draw what the detector `cfg.ckpt_path` reconstructs, rendered by `cfg.decoder`, below `cfg.output_dir`.

    Writes `panels/<category>.png` for each category, and `queries.png` for a network with learned queries; returns the
    folder of the panels.

    Raises InputError for a setting in `cfg` that cannot be used, and where there are panels already.
    """
    folder = Path(cfg.output_dir)
    if not isinstance(cfg.per_category, int) or cfg.per_category < 1:
        raise InputError(f"per_category={cfg.per_category}: expected a whole number of at least 1")
    own, others = _load_renderers(cfg)
    if (folder / PANELS).exists() and not cfg.overwrite:
        raise InputError(f"output_dir={folder} already holds panels; choose another output_dir, or overwrite=true")
    refuse_in_the_way(folder, (PANELS, QUERIES))
    data = build_saved_data(load_checkpoint(cfg.ckpt_path), own.engine.module, cfg.data)
    data.prepare_data()
    data.setup()
    remove_written(folder, stays=lambda name: Path(name).parts[0] not in (PANELS, QUERIES))
    (folder / PANELS).mkdir(parents=True, exist_ok=True)
    for category in data.splits.categories:
        records = [data.splits.test[i] for i in choose_images(data.splits.test, category, cfg.per_category)]
        references = [r for r in data.splits.train if r.category == category and not r.tile]  # an image's first tile
        if records:
            path = folder / PANELS / f"{file_stem(category)}.png"
            note(path)
            draw_category(records, references, own, others).save(path)
    queries = own.render_queries()
    if queries:
        label = "learned queries, straight through the output projection"
        note(folder / QUERIES)
        draw_sheet({name: [image] for name, image in queries.items()}, [label]).save(folder / QUERIES)
    print_stdout(f"panels: {folder / PANELS}   learned queries: {folder / QUERIES if queries else 'there are none'}")
    return folder / PANELS


def _load_renderers(cfg: DictConfig) -> tuple[Renderer, dict[str, Renderer]]:
    """Renderers of `cfg.ckpt_path` and of `cfg.others` by name; InputError for detectors of different regions."""
    if cfg.others is not None and not isinstance(cfg.others, DictConfig):
        raise InputError(f"others={cfg.others}: expected names with checkpoints, such as 'others={{mlp:MLP.ckpt}}'")
    paths = {str(name): str(path) for name, path in (cfg.others or {}).items()}
    device = find_device(cfg.device)

    def load(path: str) -> Renderer:
        engine = load_engine(path, device)
        module = reconstructing(engine.module, path)
        decoder = load_decoder(cfg.decoder, module.backbone, engine.image_size, ckpt_path=path)
        return Renderer(engine=engine, module=module, decoder=decoder)

    own, others = load(cfg.ckpt_path), {name: load(path) for name, path in paths.items()}
    for name, other in others.items():
        if other.engine.framing.plain() != own.engine.framing.plain():
            raise InputError(
                f"others.{name}={paths[name]}: its data.framing is not that of {cfg.ckpt_path}; expected detectors "
                "that inspect the same part of an image"
            )
    return own, others
