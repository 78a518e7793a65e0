"""The two-stage VGG16 recipe in Keras 3 on TensorFlow, in its own environment; `against_keras.py` starts it.

    python keras_peer.py PHOTOS WEIGHTS PIPELINE PRECISION SEED HEAD_EPOCHS BLOCK5_EPOCHS

PIPELINE is `generator` (ImageDataGenerator, as the recipe was published, with a worker for each processor) or `data`
(the present guide: image_dataset_from_directory, decoded once into memory, augmentation layers mapped in parallel).
Prints a JSON line: the seconds of every epoch with its validation, the accuracies, and the seconds in all since the
process began.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
SIZE, BATCH = (150, 150), 20


def generators(photos: Path, valid: str) -> tuple[object, object]:
    """Training and validation images as the published recipe makes them."""
    import tensorflow as tf
    from keras.applications.vgg16 import preprocess_input

    kind = tf.keras.preprocessing.image.ImageDataGenerator
    varied = kind(
        rotation_range=40,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=11.5,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
        preprocessing_function=preprocess_input,
    )
    options = {"target_size": SIZE, "batch_size": BATCH, "class_mode": "sparse"}
    train = varied.flow_from_directory(photos / "train", **options)
    val = kind(preprocessing_function=preprocess_input).flow_from_directory(photos / valid, shuffle=False, **options)
    for given in (train, val):
        given.workers, given.max_queue_size = os.cpu_count() or 1, 16
    return train, val


def datasets(photos: Path, valid: str) -> tuple[object, object]:
    """The same through tf.data: decoded once, augmented in parallel."""
    import keras
    import tensorflow as tf
    from keras.applications.vgg16 import preprocess_input

    layers = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(40 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            keras.layers.RandomShear(0.2, 0.0, fill_mode="nearest"),
            keras.layers.RandomZoom(0.2, fill_mode="nearest"),
        ]
    )

    def opened(folder: Path) -> tf.data.Dataset:
        found = keras.utils.image_dataset_from_directory(
            folder, image_size=SIZE, batch_size=None, shuffle=False, label_mode="int", verbose=False
        )
        return found.cache()

    def vary(images: object, labels: object) -> tuple[object, object]:
        return preprocess_input(layers(images, training=True)), labels

    train = opened(photos / "train")
    train = train.shuffle(int(train.cardinality())).batch(BATCH).map(vary, num_parallel_calls=tf.data.AUTOTUNE)
    val = opened(photos / valid).batch(BATCH).map(lambda images, labels: (preprocess_input(images), labels))
    return train.prefetch(tf.data.AUTOTUNE), val.prefetch(tf.data.AUTOTUNE)


def main() -> None:
    photos, weights, pipeline, precision, seed, *epochs = sys.argv[1:]
    import keras
    import psutil

    began = psutil.Process(os.getpid()).create_time()

    class Times(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            values = {"accuracy": float((logs or {})["val_accuracy"]), "seconds": time.perf_counter() - self.start}
            log[-1].append(values)

    keras.utils.set_random_seed(int(seed))
    keras.mixed_precision.set_global_policy(precision)
    valid = next(name for name in ("validation", "val", "valid") if (Path(photos) / name).is_dir())
    train, val = (generators if pipeline == "generator" else datasets)(Path(photos), valid)
    base = keras.applications.VGG16(include_top=False, weights=weights, input_shape=(*SIZE, 3))
    base.trainable = False
    hidden = keras.layers.Dense(256, activation="relu")(keras.layers.Flatten()(base.output))
    outputs = keras.layers.Dense(2, activation="softmax", dtype="float32")(keras.layers.Dropout(0.5)(hidden))
    model = keras.Model(base.input, outputs)
    log: list[list[dict[str, float]]] = []
    for number, rate in enumerate((1e-3, 1e-5)):
        if number:
            base.trainable = True
            for layer in base.layers:
                layer.trainable = layer.name.startswith("block5")
        log.append([])
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(train, validation_data=val, epochs=int(epochs[number]), verbose=0, callbacks=[Times()])
    print(json.dumps({"stages": log, "seconds": time.time() - began}))


if __name__ == "__main__":
    main()
