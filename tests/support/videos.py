"""A video whose frames can be told by their colour."""

import numpy as np

from uniad_lightning.prediction.sources.opencv import opencv


def film(path, code, frames=30):
    """A video whose frame i is red, as bright as 8 i, and green on its right half."""
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
    assert writer.isOpened()
    for i in range(frames):
        frame = np.zeros((48, 64, 3), dtype=np.uint8)
        frame[:, :, 2] = min(8 * i, 255)
        frame[:, 32:] = 0, 200, 0
        writer.write(frame)
    writer.release()
    return path
