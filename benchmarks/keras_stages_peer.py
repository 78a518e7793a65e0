"""One run of Keras's two-stage guide on its torch backend, in its own environment; `accuracy.py` starts it.

    python keras_stages_peer.py PHOTOS WEIGHTS SPLIT LIMIT

"Transfer learning and fine-tuning" of keras.io: photos of 224 x 224 px in batches of 64, flips and rotations by layers,
a frozen base whose batch norms stay in inference mode, dropout 0.2 and a dense layer under Adam at 1e-3; then all is
trained at 1e-5. The base is timm's network with the weights that regraft has, wrapped by `TorchModuleWrapper`. The
guide leaves the number of epochs open: the first stage has half of LIMIT seconds since the process began, the second
the rest, evaluation included; as rates are constant, a stage may end within an epoch.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from peer_photos import NETWORK, SIZE, began, folder_of, overlay, print_result

os.environ["KERAS_BACKEND"] = "torch"
BATCH = 64


def main() -> None:
    photos, weights, split, limit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    start = began()
    import keras
    import timm
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, PILToTensor, Resize

    class Until(keras.callbacks.Callback):
        """Ends a stage when its time is over, and counts what it was trained on."""

        def __init__(self, end: float) -> None:
            super().__init__()
            self.end, self.batches, self.first = end, 0, time.time()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.batches += 1
            self.model.stop_training = time.time() > self.end

        def pace(self) -> float:
            return (time.time() - self.first) / self.batches

    keras.utils.set_random_seed(1)
    keras.config.set_image_data_format("channels_first")
    opened = Compose([Resize((SIZE, SIZE)), PILToTensor()])
    train, measured = (ImageFolder(folder_of(photos, name), opened) for name in ("train", split))
    options = {"num_workers": os.cpu_count() or 1, "persistent_workers": True}
    batches = DataLoader(train, BATCH, shuffle=True, **options)
    network = timm.create_model(NETWORK, pretrained=True, pretrained_cfg_overlay=overlay(weights), num_classes=0)
    base = keras.layers.TorchModuleWrapper(network, output_shape=(None, network.num_features))
    base.trainable = False
    inputs = keras.Input((3, SIZE, SIZE))
    varied = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    features = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(varied), training=False)
    outputs = keras.layers.Dense(len(train.classes))(keras.layers.Dropout(0.2)(features))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    stages, end = [], start + limit / 2
    for rate in (1e-3, 1e-5):
        stages.append(Until(end))
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(batches, epochs=sys.maxsize, verbose=0, callbacks=stages[-1:])
        base.trainable = True
        # What an image cost in the first stage, a forward pass with its augmentation, is what evaluation costs.
        end = start + limit - stages[0].pace() * len(measured) / BATCH
    found = model.predict(DataLoader(measured, BATCH, **options), verbose=0).argmax(1)
    right = [bool(one == label) for one, (_, label) in zip(found, measured.samples, strict=True)]
    seconds = time.time() - start
    epochs = [stage.batches / len(batches) for stage in stages]
    print_result([Path(path) for path, _ in measured.samples], folder_of(photos, split), right, seconds, epochs=epochs)


if __name__ == "__main__":
    main()
