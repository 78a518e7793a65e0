"""What the layers of RegNet, ConvNeXt, PoolFormer and MobileViT are called; the form of the tables is that of
`families`.
"""

from __future__ import annotations

__all__ = ["MODERN_CNNS"]

_REGNET = """
[timm] own begins:1.1
stem.conv = stem.conv
stem.bn = stem.norm
s<s>.b<b>.conv<i>.conv = block<block>.<i>.conv
s<s>.b<b>.conv<i>.bn = block<block>.<i>.norm
s<s>.b<b>.se.fc<i> = block<block>.se<i>
s<s>.b<b>.downsample.conv = block<block>.shortcut.conv
s<s>.b<b>.downsample.bn = block<block>.shortcut.norm
head.fc = classifier

[torchvision] begins:1.0
stem.0 = stem.conv
stem.1 = stem.norm
trunk_output.block<s>.block\\d+-<b>.f.<i:abc>.0 = block<block>.<i>.conv
trunk_output.block<s>.block\\d+-<b>.f.<i:abc>.1 = block<block>.<i>.norm
trunk_output.block<s>.block\\d+-<b>.f.se.fc<i> = block<block>.se<i>
trunk_output.block<s>.block\\d+-<b>.proj.0 = block<block>.shortcut.conv
trunk_output.block<s>.block\\d+-<b>.proj.1 = block<block>.shortcut.norm
fc = classifier

[transformers]
embedder.embedder.convolution = stem.conv
embedder.embedder.normalization = stem.norm
encoder.stages.<s>.layers.<b>.layer.<i:01>.convolution = block<block>.<i+1>.conv
encoder.stages.<s>.layers.<b>.layer.<i:01>.normalization = block<block>.<i+1>.norm
encoder.stages.<s>.layers.<b>.layer.(2|3).convolution = block<block>.3.conv
encoder.stages.<s>.layers.<b>.layer.(2|3).normalization = block<block>.3.norm
encoder.stages.<s>.layers.<b>.layer.2.attention.0 = block<block>.se1
encoder.stages.<s>.layers.<b>.layer.2.attention.2 = block<block>.se2
encoder.stages.<s>.layers.<b>.shortcut.convolution = block<block>.shortcut.conv
encoder.stages.<s>.layers.<b>.shortcut.normalization = block<block>.shortcut.norm
classifier.1 = classifier

[keras]
(*_)?stem_conv = stem.conv
(*_)?stem_bn = stem.norm
(*_)?Stage_<s>_[XY]Block_<b>_conv_1x1_1 = block<block>.1.conv
(*_)?Stage_<s>_[XY]Block_<b>_conv_1x1_1_bn = block<block>.1.norm
(*_)?Stage_<s>_[XY]Block_<b>_conv_3x3 = block<block>.2.conv
(*_)?Stage_<s>_[XY]Block_<b>_conv_3x3_bn = block<block>.2.norm
(*_)?Stage_<s>_[XY]Block_<b>_conv_1x1_2 = block<block>.3.conv
(*_)?Stage_<s>_[XY]Block_<b>_conv_1x1_2_bn = block<block>.3.norm
(*_)?Stage_<s>_[XY]Block_<b>_squeeze_and_excite_squeeze = block<block>.se1
(*_)?Stage_<s>_[XY]Block_<b>_squeeze_and_excite_excite = block<block>.se2
(*_)?Stage_<s>_[XY]Block_<b>_skip_1x1 = block<block>.shortcut.conv
(*_)?Stage_<s>_[XY]Block_<b>_skip_bn = block<block>.shortcut.norm
\\w*head_dense = classifier
"""

_CONVNEXT = """
[timm] own
stem.0 = stem.conv
stem.1 = stem.norm
stages.<n>.downsample.0 = transition<n>.norm
stages.<n>.downsample.1 = transition<n>.conv
stages.<s>.blocks.<b>.conv_dw = block<block>.dw
stages.<s>.blocks.<b>.norm = block<block>.norm
stages.<s>.blocks.<b>.mlp.fc<i> = block<block>.fc<i>
stages.<s>.blocks.<b>.mlp.grn = block<block>.grn
stages.<s>.blocks.<b>.gamma = block<block>.scale
(norm_pre|head.norm) = norm
head.fc = classifier

[original]
downsample_layers.0.0 = stem.conv
downsample_layers.0.1 = stem.norm
downsample_layers.<n>.0 = transition<n>.norm
downsample_layers.<n>.1 = transition<n>.conv
stages.<s>.<b>.(dwconv|depthwise_conv) = block<block>.dw
stages.<s>.<b>.norm = block<block>.norm
stages.<s>.<b>.(pwconv|pointwise_conv)<i> = block<block>.fc<i>
stages.<s>.<b>.grn = block<block>.grn
stages.<s>.<b>.gamma = block<block>.scale
(norm|norm3) = norm
(head|head.fc) = classifier

[transformers]
embeddings.patch_embeddings = stem.conv
embeddings.layernorm = stem.norm
encoder.stages.<n>.downsampling_layer.0 = transition<n>.norm
encoder.stages.<n>.downsampling_layer.1 = transition<n>.conv
encoder.stages.<s>.layers.<b>.dwconv = block<block>.dw
encoder.stages.<s>.layers.<b>.layernorm = block<block>.norm
encoder.stages.<s>.layers.<b>.pwconv<i> = block<block>.fc<i>
encoder.stages.<s>.layers.<b>.grn = block<block>.grn
encoder.stages.<s>.layers.<b>.layer_scale_parameter = block<block>.scale
layernorm = norm
classifier = classifier

[transformers dinov3]
(model.)?stages.0.downsample_layers.0 = stem.conv
(model.)?stages.0.downsample_layers.1 = stem.norm
(model.)?stages.<n>.downsample_layers.0 = transition<n>.norm
(model.)?stages.<n>.downsample_layers.1 = transition<n>.conv
(model.)?stages.<s>.layers.<b>.depthwise_conv = block<block>.dw
(model.)?stages.<s>.layers.<b>.layer_norm = block<block>.norm
(model.)?stages.<s>.layers.<b>.pointwise_conv<i> = block<block>.fc<i>
(model.)?stages.<s>.layers.<b>.gamma = block<block>.scale
layer_norm = norm

[torchvision] sparse begins:1.0
features.0.0 = stem.conv
features.0.1 = stem.norm
features.<n:[2468]*>.0 = transition<n>.norm unless features.<n>.0.block.0
features.<n:[2468]*>.1 = transition<n>.conv unless features.<n>.0.block.0
features.<s>.<b>.block.0 = block<block>.dw
features.<s>.<b>.block.2 = block<block>.norm
features.<s>.<b>.block.3 = block<block>.fc1
features.<s>.<b>.block.5 = block<block>.fc2
features.<s>.<b>.layer_scale = block<block>.scale
classifier.0 = norm
classifier.2 = classifier

[keras]
(*_)?stem_conv = stem.conv
(*_)?stem_layernorm = stem.norm
(*_)?downsampling_layernorm_<n> = transition<n>.norm
(*_)?downsampling_conv_<n> = transition<n>.conv
(*_)?stage_<s>_block_<b>_depthwise_conv = block<block>.dw
(*_)?stage_<s>_block_<b>_layernorm = block<block>.norm
(*_)?stage_<s>_block_<b>_pointwise_conv_<i> = block<block>.fc<i>
(*_)?stage_<s>_block_<b>_layer_scale/\\w+ = block<block>.scale
(*_)?head_layernorm = norm
layer_normalization = norm
(*_)?head_dense = classifier
"""

_POOLFORMER = """
[timm] own
stem.conv = stem.conv
stages.<n>.downsample.conv = transition<n>.conv
stages.<s>.blocks.<b>.norm<i> = block<block>.norm<i>
stages.<s>.blocks.<b>.mlp.fc<i> = block<block>.fc<i>
stages.<s>.blocks.<b>.layer_scale<i>.scale = block<block>.scale<i>
(norm|head.norm) = norm
head.fc = classifier

[transformers]
encoder.patch_embeddings.0.projection = stem.conv
encoder.patch_embeddings.<n>.projection = transition<n>.conv
encoder.block.<s>.<b>.before_norm = block<block>.norm1
encoder.block.<s>.<b>.after_norm = block<block>.norm2
encoder.block.<s>.<b>.output.conv<i> = block<block>.fc<i>
encoder.block.<s>.<b>.layer_scale_<i> = block<block>.scale<i>
norm = norm
classifier = classifier

[original]
patch_embed.proj = stem.conv
network.<n:[1357]*>.proj = transition<n>.conv
network.<s>.<b>.norm<i> = block<block>.norm<i>
network.<s>.<b>.mlp.fc<i> = block<block>.fc<i>
network.<s>.<b>.layer_scale_<i> = block<block>.scale<i>
norm = norm
head = classifier
"""

_MOBILEVIT = """
[timm] own
stem.conv = stem.conv
stem.bn = stem.norm
stages.<s>.<b>.conv1_1x1.conv = block<s>-<b>.expand
stages.<s>.<b>.conv1_1x1.bn = block<s>-<b>.expand.norm
stages.<s>.<b>.conv2_kxk.conv = block<s>-<b>.dw
stages.<s>.<b>.conv2_kxk.bn = block<s>-<b>.dw.norm
stages.<s>.<b>.conv3_1x1.conv = block<s>-<b>.project
stages.<s>.<b>.conv3_1x1.bn = block<s>-<b>.project.norm
stages.<s>.1.conv_kxk.conv = block<s>-1.local
stages.<s>.1.conv_kxk.bn = block<s>-1.local.norm
stages.<s>.1.conv_1x1 = block<s>-1.in
stages.<s>.1.transformer.<i>.norm<x> = block<s>-1.<i>.norm<x>
stages.<s>.1.transformer.<i>.attn.qkv = block<s>-1.<i>.qkv
stages.<s>.1.transformer.<i>.attn.proj = block<s>-1.<i>.proj
stages.<s>.1.transformer.<i>.mlp.fc<x> = block<s>-1.<i>.fc<x>
stages.<s>.1.norm = block<s>-1.norm
stages.<s>.1.conv_proj.conv = block<s>-1.out
stages.<s>.1.conv_proj.bn = block<s>-1.out.norm
stages.<s>.1.conv_fusion.conv = block<s>-1.fusion
stages.<s>.1.conv_fusion.bn = block<s>-1.fusion.norm
final_conv.conv = head.conv
final_conv.bn = head.norm
head.fc = classifier

[transformers]
conv_stem.convolution = stem.conv
conv_stem.normalization = stem.norm
encoder.layer.<s>.layer.<b>.expand_1x1.convolution = block<s>-<b>.expand
encoder.layer.<s>.layer.<b>.expand_1x1.normalization = block<s>-<b>.expand.norm
encoder.layer.<s>.layer.<b>.conv_3x3.convolution = block<s>-<b>.dw
encoder.layer.<s>.layer.<b>.conv_3x3.normalization = block<s>-<b>.dw.norm
encoder.layer.<s>.layer.<b>.reduce_1x1.convolution = block<s>-<b>.project
encoder.layer.<s>.layer.<b>.reduce_1x1.normalization = block<s>-<b>.project.norm
encoder.layer.<s>.downsampling_layer.expand_1x1.convolution = block<s>-0.expand
encoder.layer.<s>.downsampling_layer.expand_1x1.normalization = block<s>-0.expand.norm
encoder.layer.<s>.downsampling_layer.conv_3x3.convolution = block<s>-0.dw
encoder.layer.<s>.downsampling_layer.conv_3x3.normalization = block<s>-0.dw.norm
encoder.layer.<s>.downsampling_layer.reduce_1x1.convolution = block<s>-0.project
encoder.layer.<s>.downsampling_layer.reduce_1x1.normalization = block<s>-0.project.norm
encoder.layer.<s>.conv_kxk.convolution = block<s>-1.local
encoder.layer.<s>.conv_kxk.normalization = block<s>-1.local.norm
encoder.layer.<s>.conv_1x1.convolution = block<s>-1.in
encoder.layer.<s>.transformer.layer.<i>.layernorm_before = block<s>-1.<i>.norm1
encoder.layer.<s>.transformer.layer.<i>.attention.attention.qkv = block<s>-1.<i>.qkv
encoder.layer.<s>.transformer.layer.<i>.attention.output.dense = block<s>-1.<i>.proj
encoder.layer.<s>.transformer.layer.<i>.layernorm_after = block<s>-1.<i>.norm2
encoder.layer.<s>.transformer.layer.<i>.intermediate.dense = block<s>-1.<i>.fc1
encoder.layer.<s>.transformer.layer.<i>.output.dense = block<s>-1.<i>.fc2
encoder.layer.<s>.layernorm = block<s>-1.norm
encoder.layer.<s>.conv_projection.convolution = block<s>-1.out
encoder.layer.<s>.conv_projection.normalization = block<s>-1.out.norm
encoder.layer.<s>.fusion.convolution = block<s>-1.fusion
encoder.layer.<s>.fusion.normalization = block<s>-1.fusion.norm
conv_1x1_exp.convolution = head.conv
conv_1x1_exp.normalization = head.norm
classifier = classifier
"""

MODERN_CNNS = {
    "regnet": _REGNET,
    "convnext": _CONVNEXT,
    "poolformer": _POOLFORMER,
    "mobilevit": _MOBILEVIT,
}
