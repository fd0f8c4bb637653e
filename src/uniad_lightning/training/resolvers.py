"""What the YAML files compute by themselves; imported for its effect, wherever they are read."""

from omegaconf import OmegaConf


def without_epochs(steps: int, epochs: int | None) -> int:
    """`steps` as max_steps where no number of `epochs` sets the end of a training, else -1 for no limit."""
    return steps if epochs in (-1, None) else -1


OmegaConf.register_new_resolver("without_epochs", without_epochs, replace=True)
