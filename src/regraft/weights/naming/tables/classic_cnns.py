"""What the layers of ResNet (also ResNet-RS and that of CLIP), VGG, AlexNet, SqueezeNet and DenseNet are called; the
form of the tables is that of `families`.
"""

from __future__ import annotations

__all__ = ["CLASSIC_CNNS"]

_RESNET = """
[torchvision] begins:1.0
conv1 = stem.conv
bn1 = stem.norm
layer<s>.<b>.conv<i> = block<block>.<i>.conv
layer<s>.<b>.bn<i> = block<block>.<i>.norm
layer<s>.<b>.downsample.0 = block<block>.shortcut.conv
layer<s>.<b>.downsample.1 = block<block>.shortcut.norm
fc = classifier

[torchvision children] sparse begins:4.0
0 = stem.conv
1 = stem.norm
<s>.<b>.conv<i> = block<block>.<i>.conv
<s>.<b>.bn<i> = block<block>.<i>.norm
<s>.<b>.downsample.0 = block<block>.shortcut.conv
<s>.<b>.downsample.1 = block<block>.shortcut.norm

[keras] begins:2.1
conv1_conv = stem.conv
conv1_bn = stem.norm
conv<s>_block<b>_0_conv = block<block>.shortcut.conv
conv<s>_block<b>_0_bn = block<block>.shortcut.norm
conv<s>_block<b>_<i:123>_conv = block<block>.<i>.conv
conv<s>_block<b>_<i:123>_bn = block<block>.<i>.norm
{classifier}

[caffe] begins:2.a
conv1 = stem.conv
(bn|scale)_?conv1 = stem.norm
res<s><b:a>_branch1 = block<block>.shortcut.conv
(bn|scale)<s><b:a>_branch1 = block<block>.shortcut.norm
res<s><b:a>_branch2<i:abc> = block<block>.<i>.conv
(bn|scale)<s><b:a>_branch2<i:abc> = block<block>.<i>.norm
{classifier}

[tf-slim] begins:1.1
(resnet_v1_\\d+/)?conv1 = stem.conv
(resnet_v1_\\d+/)?conv1/BatchNorm = stem.norm
(*/)?block<s>/unit_<b>/bottleneck_v1/conv<i> = block<block>.<i>.conv
(*/)?block<s>/unit_<b>/bottleneck_v1/conv<i>/BatchNorm = block<block>.<i>.norm
(*/)?block<s>/unit_<b>/bottleneck_v1/shortcut = block<block>.shortcut.conv
(*/)?block<s>/unit_<b>/bottleneck_v1/shortcut/BatchNorm = block<block>.shortcut.norm
(*/)?logits = classifier

[detectron] begins:2.0
stem.conv1 = stem.conv
stem.conv1.norm = stem.norm
res<s>.<b>.conv<i> = block<block>.<i>.conv
res<s>.<b>.conv<i>.norm = block<block>.<i>.norm
res<s>.<b>.shortcut = block<block>.shortcut.conv
res<s>.<b>.shortcut.norm = block<block>.shortcut.norm

[transformers]
embedder.embedder.convolution = stem.conv
embedder.embedder.normalization = stem.norm
encoder.stages.<s>.layers.<b>.layer.<i>.convolution = block<block>.<i+1>.conv
encoder.stages.<s>.layers.<b>.layer.<i>.normalization = block<block>.<i+1>.norm
encoder.stages.<s>.layers.<b>.shortcut.convolution = block<block>.shortcut.conv
encoder.stages.<s>.layers.<b>.shortcut.normalization = block<block>.shortcut.norm
classifier.1 = classifier
"""

_RESNET_RS = """
[timm] own begins:1.0
conv1.0 = stem1.conv
conv1.1 = stem1.norm
conv1.3 = stem2.conv
conv1.4 = stem2.norm
conv1.6 = stem3.conv
bn1 = stem3.norm
maxpool.0 = stem4.conv
maxpool.1 = stem4.norm
layer<s>.<b>.conv<i> = block<block>.<i>.conv
layer<s>.<b>.bn<i> = block<block>.<i>.norm
layer<s>.<b>.se.fc<i> = block<block>.se<i>
layer<s>.<b>.downsample.1 = block<block>.shortcut.conv
layer<s>.<b>.downsample.2 = block<block>.shortcut.norm
fc = classifier

[keras] begins:2.0
(*_)?stem_conv_<i> = stem<i>.conv
(*_)?stem_batch_norm_<i> = stem<i>.norm
BlockGroup<s>__block_<b>__conv_<i> = block<block>.<i>.conv
BlockGroup<s>__block_<b>_(_)?batch_norm_<i> = block<block>.<i>.norm
BlockGroup<s>__block_<b>__se_se_reduce = block<block>.se1
BlockGroup<s>__block_<b>__se_se_expand = block<block>.se2
BlockGroup<s>__block_<b>__projection_conv = block<block>.shortcut.conv
BlockGroup<s>__block_<b>__projection_batch_norm = block<block>.shortcut.norm
{classifier}
"""

_RESNET_CLIP = """
[timm] own
stem.conv<i>.conv = stem<i>.conv
stem.conv<i>.bn = stem<i>.norm
stages.<s>.<b>.conv<i>_\\w+.conv = block<block>.<i>.conv
stages.<s>.<b>.conv<i>_\\w+.bn = block<block>.<i>.norm
stages.<s>.<b>.shortcut.conv.conv = block<block>.shortcut.conv
stages.<s>.<b>.shortcut.conv.bn = block<block>.shortcut.norm
head.pos_embed = pos
head.q = q
head.k = k
head.v = v
head.qkv = qkv
head.proj = classifier

[clip] begins:1.0
conv<i> = stem<i>.conv
bn<i> = stem<i>.norm
layer<s>.<b>.conv<i> = block<block>.<i>.conv
layer<s>.<b>.bn<i> = block<block>.<i>.norm
layer<s>.<b>.downsample.0 = block<block>.shortcut.conv
layer<s>.<b>.downsample.1 = block<block>.shortcut.norm
attnpool.positional_embedding = pos
attnpool.q_proj = q
attnpool.k_proj = k
attnpool.v_proj = v
attnpool.qkv = qkv
attnpool.c_proj = classifier
"""

_RESNET_V2 = """
[timm]
stem.conv = stem.conv
stages.<s>.blocks.<b>.conv<i> = block<block>.conv<i>
stages.<s>.blocks.<b>.norm<i> = block<block>.norm<i>
stages.<s>.blocks.<b>.downsample.conv = block<block>.shortcut
norm = norm
head.fc = classifier

[keras] begins:2.1
conv1_conv = stem.conv
conv<s>_block<b>_preact_bn = block<block>.norm1
conv<s>_block<b>_0_conv = block<block>.shortcut
conv<s>_block<b>_<i:123>_conv = block<block>.conv<i>
conv<s>_block<b>_1_bn = block<block>.norm2
conv<s>_block<b>_2_bn = block<block>.norm3
post_bn = norm
{classifier}

[tf-slim] begins:1.1
(resnet_v2_\\d+/)?conv1 = stem.conv
(*/)?block<s>/unit_<b>/bottleneck_v2/preact(/BatchNorm)? = block<block>.norm1
(*/)?block<s>/unit_<b>/bottleneck_v2/conv<i> = block<block>.conv<i>
(*/)?block<s>/unit_<b>/bottleneck_v2/conv1/BatchNorm = block<block>.norm2
(*/)?block<s>/unit_<b>/bottleneck_v2/conv2/BatchNorm = block<block>.norm3
(*/)?block<s>/unit_<b>/bottleneck_v2/shortcut = block<block>.shortcut
(*/)?postnorm(/BatchNorm)? = norm
(*/)?logits = classifier
"""

_VGG = """
[timm] sparse
features.<b> = <kind><block>
pre_logits.fc1 = fc1
pre_logits.fc2 = fc2
head.fc = classifier

[torchvision] sparse
features.<b> = <kind><block>
classifier.0 = fc1
classifier.3 = fc2
classifier.6 = classifier

[keras] begins:1.1
block<s>_conv<b> = <kind><block>
fc1 = fc1
fc2 = fc2
{classifier}

[caffe] begins:1.1
conv<s>_<b> = <kind><block>
fc6 = fc1
fc7 = fc2
fc8.* = classifier
{classifier}

[tf-slim] begins:1.1
vgg_\\w+/conv\\d/conv<s>_<b> = <kind><block>
vgg_\\w+/fc6 = fc1
vgg_\\w+/fc7 = fc2
vgg_\\w+/fc8 = classifier
"""

_ALEXNET = """
[torchvision] sparse
features.<b> = <kind><block>
classifier.1 = fc1
classifier.4 = fc2
classifier.6 = classifier

[caffe] begins:1
conv<b> = <kind><block>
fc6 = fc1
fc7 = fc2
fc8.* = classifier

[module] begins:1
(.*\\.)?conv<b> = <kind><block>
(.*\\.)?fc6 = fc1
(.*\\.)?fc7 = fc2
(.*\\.)?fc8 = classifier

[tf-slim] begins:1
alexnet_v2/conv<b> = <kind><block>
alexnet_v2/fc6 = fc1
alexnet_v2/fc7 = fc2
alexnet_v2/fc8 = classifier
"""

_SQUEEZENET = """
[torchvision] sparse begins:3
features.0 = stem
features.<b>.squeeze = fire<block>.squeeze
features.<b>.expand<i:13>x\\d = fire<block>.expand<i>
classifier.1 = classifier

[caffe] begins:2
conv1 = stem
fire<b>/squeeze1x1 = fire<block>.squeeze
fire<b>/expand<i:13>x\\d = fire<block>.expand<i>
conv10 = classifier
"""

_DENSENET = """
[torchvision] begins:1.1
features.conv0 = stem.conv
features.norm0 = stem.norm
features.denseblock<s>.denselayer<b>.norm\\.?<i> = block<block>.norm<i>
features.denseblock<s>.denselayer<b>.conv\\.?<i> = block<block>.conv<i>
features.transition<n>.norm = transition<n>.norm
features.transition<n>.conv = transition<n>.conv
features.norm5 = norm
classifier = classifier

[keras] begins:2.1
conv1[/_]conv = stem.conv
conv1[/_]bn = stem.norm
conv<s>_block<b>_0_bn = block<block>.norm1
conv<s>_block<b>_1_bn = block<block>.norm2
conv<s>_block<b>_<i:12>_conv = block<block>.conv<i>
pool<n>_bn = transition<n>.norm
pool<n>_conv = transition<n>.conv
bn = norm
{classifier}

[caffe] begins:2.1
conv1 = stem.conv
conv1/(bn|scale) = stem.norm
conv<s>_<b>/x<i>/(bn|scale) = block<block>.norm<i>
conv<s>_<b>/x<i> = block<block>.conv<i>
conv5_blk/(bn|scale) = norm
conv<n>_blk/(bn|scale) = transition<n>.norm
conv<n>_blk = transition<n>.conv
fc6 = classifier

[tf-slim] begins:1.1
densenet\\d+/conv1 = stem.conv
densenet\\d+/conv1/BatchNorm = stem.norm
densenet\\d+/dense_block<s>/conv_block<b>/x<i>/BatchNorm = block<block>.norm<i>
densenet\\d+/dense_block<s>/conv_block<b>/x<i>/Conv = block<block>.conv<i>
densenet\\d+/transition_block<n>/blk/BatchNorm = transition<n>.norm
densenet\\d+/transition_block<n>/blk/Conv = transition<n>.conv
densenet\\d+/final_block/BatchNorm = norm
densenet\\d+/logits = classifier
"""

CLASSIC_CNNS = {
    "resnet": _RESNET,
    "resnetv2": _RESNET_V2,
    "resnetrs": _RESNET_RS,
    "resnet of clip": _RESNET_CLIP,
    "vgg": _VGG,
    "alexnet": _ALEXNET,
    "squeezenet": _SQUEEZENET,
    "densenet": _DENSENET,
}
