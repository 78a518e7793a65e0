"""Networks of `keras.applications` as torch modules: what timm's have to become, and how Keras lists their layers."""
