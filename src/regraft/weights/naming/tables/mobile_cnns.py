"""What the layers of MobileNet and EfficientNet are called; the form of the tables is that of `families`."""

from __future__ import annotations

__all__ = ["MOBILE_CNNS"]

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

[keras efficientnet] begins:1.a
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

[keras mobilenet] begins:1
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

[torchvision mobilenet_v2] trunk begins:1
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

[torchvision mobilenet_v3] trunk begins:1
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

[torchvision efficientnet] trunk begins:1.0
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

[tf-slim mobilenet_v1] begins:1
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

MOBILE_CNNS = {"mobilenet and efficientnet": _MOBILE}
