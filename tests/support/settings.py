"""Settings of the smallest sensible model, and the installed program that takes them."""

import sys
from pathlib import Path

SMALL = [
    "backbone=tiny",
    "backbone.weights=random",
    "model.grid=[8,8]",
    "model.hidden_dim=32",
    "model.num_heads=4",
    "model.feedforward_dim=64",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=2",
    "model.neighbor_size=3",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "optimizer.lr=1e-3",
    "trainer=cpu",
    "trainer.max_epochs=2",
]

QUICK = [*SMALL, "trainer.max_epochs=1"]

UNIAD = Path(sys.executable).with_name("uniad")

# Of SMALL, what holds for any method that works on a backbone's features.
FEATURES = [
    word for word in SMALL
    if not word.startswith(("model.", "optimizer.", "trainer.max_epochs"))
] + ["model.grid=[8,8]"]  # fmt: skip
