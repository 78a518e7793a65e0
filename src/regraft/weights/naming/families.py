"""What the layers of known networks are called: one table for each family, one column of names for each dialect.

Each line reads `name of a layer = address`. `<s>` and `<b>` in a name are the stage and the block, which are counted
through the whole network as `<block>`; `<n>` is counted as `<n>`; `<i>` stands for itself (a, b, c for 1, 2, 3).
Without more, a mark is a number; `<b:a>` is a letter and maybe a number (`a`, `b12`), `<i:123>` one of these
characters, `<n:?>` a number that may be absent (`conv2d`, `conv2d_1`); anything with a star is a pattern of its own.
`*` stands for one component of a path. In an address, `<kind>` is the kind of the layer and `<at>` its place in the
order of execution among the layers of its line; `<i+1>` is one more than the mark says. A line may end with `if` or
`unless` and a name that must, or must not, exist. Behind the dialect's name may stand `sparse` (gaps in its numbers
mean nothing), `unscaled` (its normalisations have no scale), `unbiased` (its classifier has no bias), `own` (where both
sides have its names, these are compared as they are) and `trunk` (a file may hold `features` alone, and then its names
lack that).
"""

from __future__ import annotations

from regraft.weights.naming.tables.modern_cnns import MODERN_CNNS
from regraft.weights.naming.tables.vision_transformers import VISION_TRANSFORMERS

__all__ = ["TABLES"]

_CLASSIFIER = "(predictions|probs|fc1000|logits|Logits|fc|classifier|head|top|dense(_<x>)?|conv_preds) = classifier"

_RESNET = """
[torchvision]
conv1 = stem.conv
bn1 = stem.norm
layer<s>.<b>.conv<i> = block<block>.<i>.conv
layer<s>.<b>.bn<i> = block<block>.<i>.norm
layer<s>.<b>.downsample.0 = block<block>.shortcut.conv
layer<s>.<b>.downsample.1 = block<block>.shortcut.norm
fc = classifier

[torchvision children] sparse
0 = stem.conv
1 = stem.norm
<s>.<b>.conv<i> = block<block>.<i>.conv
<s>.<b>.bn<i> = block<block>.<i>.norm
<s>.<b>.downsample.0 = block<block>.shortcut.conv
<s>.<b>.downsample.1 = block<block>.shortcut.norm

[keras]
conv1_conv = stem.conv
conv1_bn = stem.norm
conv<s>_block<b>_0_conv = block<block>.shortcut.conv
conv<s>_block<b>_0_bn = block<block>.shortcut.norm
conv<s>_block<b>_<i:123>_conv = block<block>.<i>.conv
conv<s>_block<b>_<i:123>_bn = block<block>.<i>.norm
{classifier}

[caffe]
conv1 = stem.conv
(bn|scale)_?conv1 = stem.norm
res<s><b:a>_branch1 = block<block>.shortcut.conv
(bn|scale)<s><b:a>_branch1 = block<block>.shortcut.norm
res<s><b:a>_branch2<i:abc> = block<block>.<i>.conv
(bn|scale)<s><b:a>_branch2<i:abc> = block<block>.<i>.norm
{classifier}

[tf-slim]
(resnet_v1_\\d+/)?conv1 = stem.conv
(resnet_v1_\\d+/)?conv1/BatchNorm = stem.norm
(*/)?block<s>/unit_<b>/bottleneck_v1/conv<i> = block<block>.<i>.conv
(*/)?block<s>/unit_<b>/bottleneck_v1/conv<i>/BatchNorm = block<block>.<i>.norm
(*/)?block<s>/unit_<b>/bottleneck_v1/shortcut = block<block>.shortcut.conv
(*/)?block<s>/unit_<b>/bottleneck_v1/shortcut/BatchNorm = block<block>.shortcut.norm
(*/)?logits = classifier

[detectron]
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

_RESNET_V2 = """
[timm]
stem.conv = stem.conv
stages.<s>.blocks.<b>.conv<i> = block<block>.conv<i>
stages.<s>.blocks.<b>.norm<i> = block<block>.norm<i>
stages.<s>.blocks.<b>.downsample.conv = block<block>.shortcut
norm = norm
head.fc = classifier

[keras]
conv1_conv = stem.conv
conv<s>_block<b>_preact_bn = block<block>.norm1
conv<s>_block<b>_0_conv = block<block>.shortcut
conv<s>_block<b>_<i:123>_conv = block<block>.conv<i>
conv<s>_block<b>_1_bn = block<block>.norm2
conv<s>_block<b>_2_bn = block<block>.norm3
post_bn = norm
{classifier}

[tf-slim]
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

[keras]
block<s>_conv<b> = <kind><block>
fc1 = fc1
fc2 = fc2
{classifier}

[caffe]
conv<s>_<b> = <kind><block>
fc6 = fc1
fc7 = fc2
fc8.* = classifier
{classifier}

[tf-slim]
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

[caffe]
conv<b> = <kind><block>
fc6 = fc1
fc7 = fc2
fc8.* = classifier

[module]
(.*\\.)?conv<b> = <kind><block>
(.*\\.)?fc6 = fc1
(.*\\.)?fc7 = fc2
(.*\\.)?fc8 = classifier

[tf-slim]
alexnet_v2/conv<b> = <kind><block>
alexnet_v2/fc6 = fc1
alexnet_v2/fc7 = fc2
alexnet_v2/fc8 = classifier
"""

_SQUEEZENET = """
[torchvision] sparse
features.0 = stem
features.<b>.squeeze = fire<block>.squeeze
features.<b>.expand<i:13>x\\d = fire<block>.expand<i>
classifier.1 = classifier

[caffe]
conv1 = stem
fire<b>/squeeze1x1 = fire<block>.squeeze
fire<b>/expand<i:13>x\\d = fire<block>.expand<i>
conv10 = classifier
"""

_DENSENET = """
[torchvision]
features.conv0 = stem.conv
features.norm0 = stem.norm
features.denseblock<s>.denselayer<b>.norm\\.?<i> = block<block>.norm<i>
features.denseblock<s>.denselayer<b>.conv\\.?<i> = block<block>.conv<i>
features.transition<n>.norm = transition<n>.norm
features.transition<n>.conv = transition<n>.conv
features.norm5 = norm
classifier = classifier

[keras]
conv1[/_]conv = stem.conv
conv1[/_]bn = stem.norm
conv<s>_block<b>_0_bn = block<block>.norm1
conv<s>_block<b>_1_bn = block<block>.norm2
conv<s>_block<b>_<i:12>_conv = block<block>.conv<i>
pool<n>_bn = transition<n>.norm
pool<n>_conv = transition<n>.conv
bn = norm
{classifier}

[caffe]
conv1 = stem.conv
conv1/(bn|scale) = stem.norm
conv<s>_<b>/x<i>/(bn|scale) = block<block>.norm<i>
conv<s>_<b>/x<i> = block<block>.conv<i>
conv5_blk/(bn|scale) = norm
conv<n>_blk/(bn|scale) = transition<n>.norm
conv<n>_blk = transition<n>.conv
fc6 = classifier

[tf-slim]
densenet\\d+/conv1 = stem.conv
densenet\\d+/conv1/BatchNorm = stem.norm
densenet\\d+/dense_block<s>/conv_block<b>/x<i>/BatchNorm = block<block>.norm<i>
densenet\\d+/dense_block<s>/conv_block<b>/x<i>/Conv = block<block>.conv<i>
densenet\\d+/transition_block<n>/blk/BatchNorm = transition<n>.norm
densenet\\d+/transition_block<n>/blk/Conv = transition<n>.conv
densenet\\d+/final_block/BatchNorm = norm
densenet\\d+/logits = classifier
"""

# timm's builder calls the layers of a block by their place in it, so what `conv_pw` and `bn1` are depends on the block.
_MOBILE = """
[timm]
conv_stem = stem.conv
bn1 = stem.norm
blocks.<s>.<b>.conv_dw = block<block>.dw
blocks.<s>.<b>.se.conv_reduce = block<block>.se.reduce
blocks.<s>.<b>.se.conv_expand = block<block>.se.expand
blocks.<s>.<b>.conv = block<block>.project
blocks.<s>.<b>.bn1 = block<block>.project.norm if blocks.<s>.<b>.conv
blocks.<s>.<b>.conv_exp = block<block>.expand
blocks.<s>.<b>.bn1 = block<block>.expand.norm if blocks.<s>.<b>.conv_exp
blocks.<s>.<b>.bn2 = block<block>.project.norm if blocks.<s>.<b>.conv_exp
blocks.<s>.<b>.conv_pw = block<block>.expand if blocks.<s>.<b>.conv_pwl
blocks.<s>.<b>.bn1 = block<block>.expand.norm if blocks.<s>.<b>.conv_pwl
blocks.<s>.<b>.bn2 = block<block>.dw.norm if blocks.<s>.<b>.conv_pwl
blocks.<s>.<b>.bn3 = block<block>.project.norm if blocks.<s>.<b>.conv_pwl
blocks.<s>.<b>.conv_pwl = block<block>.project
blocks.<s>.<b>.conv_pw = block<block>.project
blocks.<s>.<b>.bn1 = block<block>.dw.norm
blocks.<s>.<b>.bn2 = block<block>.project.norm
conv_head = head.conv
bn2 = head.norm
classifier = classifier

[lukemelas]
_conv_stem = stem.conv
_bn0 = stem.norm
_blocks.<b>._expand_conv = block<block>.expand
_blocks.<b>._bn0 = block<block>.expand.norm
_blocks.<b>._depthwise_conv = block<block>.dw
_blocks.<b>._bn1 = block<block>.dw.norm
_blocks.<b>._se_reduce = block<block>.se.reduce
_blocks.<b>._se_expand = block<block>.se.expand
_blocks.<b>._project_conv = block<block>.project
_blocks.<b>._bn2 = block<block>.project.norm
_conv_head = head.conv
_bn1 = head.norm
_fc = classifier

[keras efficientnet]
stem_conv = stem.conv
stem_bn = stem.norm
block<s><b:a>_expand_conv = block<block>.expand
block<s><b:a>_expand_bn = block<block>.expand.norm
block<s><b:a>_dwconv2? = block<block>.dw
block<s><b:a>_bn = block<block>.dw.norm
block<s><b:a>_se_reduce = block<block>.se.reduce
block<s><b:a>_se_expand = block<block>.se.expand
block<s><b:a>_project_conv = block<block>.project
block<s><b:a>_project_bn = block<block>.project.norm
top_conv = head.conv
top_bn = head.norm
{classifier}

[keras mobilenet]
conv1 = stem.conv
conv1_bn = stem.norm
conv_dw_<b> = block<block>.dw
conv_dw_<b>_bn = block<block>.dw.norm
conv_pw_<b> = block<block>.project
conv_pw_<b>_bn = block<block>.project.norm
{classifier}

[keras mobilenetv2]
Conv1 = stem.conv
(bn_Conv1|Conv1_bn|Conv1_BN) = stem.norm
expanded_conv_depthwise = block0.dw
expanded_conv_depthwise_(BN|bn) = block0.dw.norm
expanded_conv_project = block0.project
expanded_conv_project_(BN|bn) = block0.project.norm
block_<i>_expand = block<i>.expand
block_<i>_expand_(BN|bn) = block<i>.expand.norm
block_<i>_depthwise = block<i>.dw
block_<i>_depthwise_(BN|bn) = block<i>.dw.norm
block_<i>_project = block<i>.project
block_<i>_project_(BN|bn) = block<i>.project.norm
Conv_1 = head.conv
Conv_1_(BN|bn) = head.norm
{classifier}

[keras mobilenetv3]
(Conv|conv) = stem.conv
(Conv/BatchNorm|conv_bn) = stem.norm
expanded_conv[/_]depthwise = block0.dw
expanded_conv[/_]depthwise(/BatchNorm|_bn) = block0.dw.norm
expanded_conv[/_]squeeze_excite[/_](Conv|conv) = block0.se.reduce
expanded_conv[/_]squeeze_excite[/_](Conv|conv)_1 = block0.se.expand
expanded_conv[/_]project = block0.project
expanded_conv[/_]project(/BatchNorm|_bn) = block0.project.norm
expanded_conv_<i>[/_]expand = block<i>.expand
expanded_conv_<i>[/_]expand(/BatchNorm|_bn) = block<i>.expand.norm
expanded_conv_<i>[/_]depthwise = block<i>.dw
expanded_conv_<i>[/_]depthwise(/BatchNorm|_bn) = block<i>.dw.norm
expanded_conv_<i>[/_]squeeze_excite[/_](Conv|conv) = block<i>.se.reduce
expanded_conv_<i>[/_]squeeze_excite[/_](Conv|conv)_1 = block<i>.se.expand
expanded_conv_<i>[/_]project = block<i>.project
expanded_conv_<i>[/_]project(/BatchNorm|_bn) = block<i>.project.norm
(Conv|conv)_1 = last.project
((Conv|conv)_1/BatchNorm|conv_1_bn) = last.project.norm
(Conv|conv)_2 = head.conv
{classifier}

[torchvision mobilenet_v2] trunk
features.0.0 = stem.conv
features.0.1 = stem.norm
features.<b:1>.conv.0.0 = block<block>.dw
features.<b:1>.conv.0.1 = block<block>.dw.norm
features.<b:1>.conv.1 = block<block>.project
features.<b:1>.conv.2 = block<block>.project.norm
features.<b>.conv.0.0 = block<block>.expand
features.<b>.conv.0.1 = block<block>.expand.norm
features.<b>.conv.1.0 = block<block>.dw
features.<b>.conv.1.1 = block<block>.dw.norm
features.<b>.conv.2 = block<block>.project
features.<b>.conv.3 = block<block>.project.norm
features.18.0 = head.conv
features.18.1 = head.norm
classifier.1 = classifier

[torchvision mobilenet_v3] trunk
features.0.0 = stem.conv
features.0.1 = stem.norm
features.<b>.block.0.0 = block<block>.expand if features.<b>.block.3.0
features.<b>.block.0.1 = block<block>.expand.norm if features.<b>.block.3.0
features.<b>.block.0.0 = block<block>.dw if features.<b>.block.1.fc1
features.<b>.block.0.1 = block<block>.dw.norm if features.<b>.block.1.fc1
features.<b>.block.0.0 = block<block>.expand if features.<b>.block.2.0
features.<b>.block.0.1 = block<block>.expand.norm if features.<b>.block.2.0
features.<b>.block.0.0 = block<block>.dw
features.<b>.block.0.1 = block<block>.dw.norm
features.<b>.block.1.0 = block<block>.dw if features.<b>.block.2.*
features.<b>.block.1.1 = block<block>.dw.norm if features.<b>.block.2.*
features.<b>.block.1.0 = block<block>.project
features.<b>.block.1.1 = block<block>.project.norm
features.<b>.block.<i:12>.fc1 = block<block>.se.reduce
features.<b>.block.<i:12>.fc2 = block<block>.se.expand
features.<b>.block.<i:23>.0 = block<block>.project
features.<b>.block.<i:23>.1 = block<block>.project.norm
features.<b>.0 = block<block>.project
features.<b>.1 = block<block>.project.norm
classifier.0 = head.conv
classifier.3 = classifier

[torchvision efficientnet] trunk
features.0.0 = stem.conv
features.0.1 = stem.norm
features.<s>.<b>.block.0.0 = block<block>.expand if features.<s>.<b>.block.3.0
features.<s>.<b>.block.0.1 = block<block>.expand.norm if features.<s>.<b>.block.3.0
features.<s>.<b>.block.1.0 = block<block>.dw if features.<s>.<b>.block.3.0
features.<s>.<b>.block.1.1 = block<block>.dw.norm if features.<s>.<b>.block.3.0
features.<s>.<b>.block.0.0 = block<block>.dw if features.<s>.<b>.block.1.fc1
features.<s>.<b>.block.0.1 = block<block>.dw.norm if features.<s>.<b>.block.1.fc1
features.<s>.<b>.block.0.0 = block<block>.expand if features.<s>.<b>.block.1.0
features.<s>.<b>.block.0.1 = block<block>.expand.norm if features.<s>.<b>.block.1.0
features.<s>.<b>.block.0.0 = block<block>.project
features.<s>.<b>.block.0.1 = block<block>.project.norm
features.<s>.<b>.block.<i:12>.fc1 = block<block>.se.reduce
features.<s>.<b>.block.<i:12>.fc2 = block<block>.se.expand
features.<s>.<b>.block.<i:123>.0 = block<block>.project
features.<s>.<b>.block.<i:123>.1 = block<block>.project.norm
features.\\d+.0 = head.conv
features.\\d+.1 = head.norm
classifier.1 = classifier

[transformers efficientnet]
embeddings.convolution = stem.conv
embeddings.batchnorm = stem.norm
encoder.blocks.<i>.expansion.expand_conv = block<i>.expand
encoder.blocks.<i>.expansion.expand_bn = block<i>.expand.norm
encoder.blocks.<i>.depthwise_conv.depthwise_conv = block<i>.dw
encoder.blocks.<i>.depthwise_conv.depthwise_norm = block<i>.dw.norm
encoder.blocks.<i>.squeeze_excite.reduce = block<i>.se.reduce
encoder.blocks.<i>.squeeze_excite.expand = block<i>.se.expand
encoder.blocks.<i>.projection.project_conv = block<i>.project
encoder.blocks.<i>.projection.project_bn = block<i>.project.norm
encoder.top_conv = head.conv
encoder.top_bn = head.norm
classifier = classifier

[transformers mobilenet_v1] sparse
conv_stem.convolution = stem.conv
conv_stem.normalization = stem.norm
layer.<n:\\d*[02468]>.convolution = block<n>.dw
layer.<n:\\d*[02468]>.normalization = block<n>.dw.norm
layer.<n:\\d*[13579]>.convolution = block<n>.project
layer.<n:\\d*[13579]>.normalization = block<n>.project.norm
classifier = classifier

[transformers mobilenet_v2]
conv_stem.first_conv.convolution = stem.conv
conv_stem.first_conv.normalization = stem.norm
conv_stem.conv_3x3.convolution = block0.dw
conv_stem.conv_3x3.normalization = block0.dw.norm
conv_stem.reduce_1x1.convolution = block0.project
conv_stem.reduce_1x1.normalization = block0.project.norm
layer.<i>.expand_1x1.convolution = block<i+1>.expand
layer.<i>.expand_1x1.normalization = block<i+1>.expand.norm
layer.<i>.conv_3x3.convolution = block<i+1>.dw
layer.<i>.conv_3x3.normalization = block<i+1>.dw.norm
layer.<i>.reduce_1x1.convolution = block<i+1>.project
layer.<i>.reduce_1x1.normalization = block<i+1>.project.norm
conv_1x1.convolution = head.conv
conv_1x1.normalization = head.norm
classifier = classifier

[tf-slim mobilenet_v1]
MobilenetV1/Conv2d_0 = stem.conv
MobilenetV1/Conv2d_0/BatchNorm = stem.norm
MobilenetV1/Conv2d_<b>_depthwise = block<block>.dw
MobilenetV1/Conv2d_<b>_depthwise/BatchNorm = block<block>.dw.norm
MobilenetV1/Conv2d_<b>_pointwise = block<block>.project
MobilenetV1/Conv2d_<b>_pointwise/BatchNorm = block<block>.project.norm
MobilenetV1/Logits/Conv2d_1c_1x1 = classifier

[tf-slim mobilenet_v2]
MobilenetV2/Conv = stem.conv
MobilenetV2/Conv/BatchNorm = stem.norm
MobilenetV2/expanded_conv/depthwise = block0.dw
MobilenetV2/expanded_conv/depthwise/BatchNorm = block0.dw.norm
MobilenetV2/expanded_conv/project = block0.project
MobilenetV2/expanded_conv/project/BatchNorm = block0.project.norm
MobilenetV2/expanded_conv_<i>/expand = block<i>.expand
MobilenetV2/expanded_conv_<i>/expand/BatchNorm = block<i>.expand.norm
MobilenetV2/expanded_conv_<i>/depthwise = block<i>.dw
MobilenetV2/expanded_conv_<i>/depthwise/BatchNorm = block<i>.dw.norm
MobilenetV2/expanded_conv_<i>/project = block<i>.project
MobilenetV2/expanded_conv_<i>/project/BatchNorm = block<i>.project.norm
MobilenetV2/Conv_1 = head.conv
MobilenetV2/Conv_1/BatchNorm = head.norm
MobilenetV2/Logits/Conv2d_1c_1x1 = classifier

[tensorflow efficientnet]
*/stem/conv2d = stem.conv
*/stem/tpu_batch_normalization = stem.norm
*/blocks_<b>/depthwise_conv2d = block<block>.dw
*/blocks_<b>/se/conv2d = block<block>.se.reduce
*/blocks_<b>/se/conv2d_1 = block<block>.se.expand
*/blocks_<b>/conv2d = block<block>.expand if */blocks_<b>/conv2d_1
*/blocks_<b>/conv2d = block<block>.project
*/blocks_<b>/conv2d_1 = block<block>.project
*/blocks_<b>/tpu_batch_normalization = block<block>.expand.norm if */blocks_<b>/conv2d_1
*/blocks_<b>/tpu_batch_normalization_1 = block<block>.dw.norm if */blocks_<b>/conv2d_1
*/blocks_<b>/tpu_batch_normalization = block<block>.dw.norm
*/blocks_<b>/tpu_batch_normalization_1 = block<block>.project.norm
*/blocks_<b>/tpu_batch_normalization_2 = block<block>.project.norm
*/head/conv2d = head.conv
*/head/tpu_batch_normalization = head.norm
*/head/dense = classifier
"""

_XCEPTION = """
[timm]
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

[keras]
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

TABLES: dict[str, str] = {
    name: text.replace("{classifier}", _CLASSIFIER)
    for name, text in {
        "resnet": _RESNET,
        "resnetv2": _RESNET_V2,
        "vgg": _VGG,
        "alexnet": _ALEXNET,
        "squeezenet": _SQUEEZENET,
        "densenet": _DENSENET,
        "mobilenet and efficientnet": _MOBILE,
        "xception": _XCEPTION,
        "inception_v3": _INCEPTION,
        **MODERN_CNNS,
        **VISION_TRANSFORMERS,
    }.items()
}
