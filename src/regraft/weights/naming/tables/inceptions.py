"""What the layers of Xception and Inception are called; the form of the tables is that of `families`."""

from __future__ import annotations

__all__ = ["INCEPTIONS"]

_XCEPTION = """
[timm] begins:1.0
conv1 = stem1
bn1 = stem1.norm
conv2 = stem2
bn2 = stem2.norm
block<s>.rep.<b>.conv1 = sep<block>.dw
block<s>.rep.<b>.pointwise = sep<block>.pw
block<s>.rep.<b> = norm<at>
block<n>.skip = shortcut<n>
block<n>.skipbn = shortcut<n>.norm
conv3.conv1 = exit1.dw
conv3.pointwise = exit1.pw
bn3 = exit1.norm
conv4.conv1 = exit2.dw
conv4.pointwise = exit2.pw
bn4 = exit2.norm
fc = classifier

[keras] begins:2.1
block1_conv<i> = stem<i>
block1_conv<i>_bn = stem<i>.norm
block14_sepconv<i>#depthwise = exit<i>.dw
block14_sepconv<i>#pointwise = exit<i>.pw
block14_sepconv<i>_bn = exit<i>.norm
block<s>_sepconv<b>#depthwise = sep<block>.dw
block<s>_sepconv<b>#pointwise = sep<block>.pw
block<s>_sepconv<b>_bn = norm<block>
conv2d<n:?> = shortcut<n>
batch_normalization<n:?> = shortcut<n>.norm
{classifier}
"""

# Keras names these layers by the order in which they were created, which is the order in which timm's network runs.
_INCEPTION = """
[torchvision]
.*\\.conv = conv<at> if Mixed_5b.branch1x1.conv
.*\\.bn = norm<at> if Mixed_5b.branch1x1.conv
fc = classifier

[keras] unscaled
conv2d<n:?> = conv<n>
batch_normalization<n:?> = norm<n>
{classifier}

[tf-slim] unscaled
InceptionV3/Logits/Conv2d_1c_1x1 = classifier
InceptionV3/<n:(?:Conv2d|Mixed)_.*>/BatchNorm = norm<n>
InceptionV3/<n:(?:Conv2d|Mixed)_.*> = conv<n>
"""

INCEPTIONS = {"xception": _XCEPTION, "inception_v3": _INCEPTION}
