"""What the layers of vision transformers are called; the form of the tables is that of `families`.

`qkv` in a file's names is what `attention` makes of separate queries, keys and values, and `kv`, `#q` and `#kv`
likewise. Single tensors (class tokens, bias tables) have lines of their own.
"""

from __future__ import annotations

__all__ = ["VISION_TRANSFORMERS"]

_VIT = """
[timm] own
cls_token = cls
reg_token = reg
dist_token = dist
pos_embed = pos
patch_embed.proj = patch
norm_pre = norm_pre
blocks.<b>.norm<i> = block<block>.norm<i>
blocks.<b>.attn.qkv = block<block>.qkv
blocks.<b>.attn.q_bias = block<block>.q_bias
blocks.<b>.attn.k_bias = block<block>.k_bias
blocks.<b>.attn.v_bias = block<block>.v_bias
blocks.<b>.attn.relative_position_bias_table = block<block>.table
blocks.<b>.attn.proj = block<block>.proj
blocks.<b>.ls<i>.gamma = block<block>.scale<i>
blocks.<b>.gamma_<i> = block<block>.scale<i>
blocks.<b>.mlp.fc<i> = block<block>.fc<i>
blocks.<b>.mlp.fc1_g = block<block>.gate
blocks.<b>.mlp.fc1_x = block<block>.fc1
(norm|fc_norm) = norm
attn_pool.latent = pool.latent
attn_pool.q = pool.q
attn_pool.kv = pool.kv
attn_pool.proj = pool.proj
attn_pool.norm = pool.norm
attn_pool.mlp.fc<i> = pool.fc<i>
head = classifier
head_dist = classifier2

[transformers]
embeddings.cls_token = cls
embeddings.distillation_token = dist
embeddings.position_embeddings = pos
embeddings.patch_embeddings.projection = patch
encoder.layer.<b>.layernorm_before = block<block>.norm1
encoder.layer.<b>.attention.attention.qkv = block<block>.qkv
encoder.layer.<b>.attention.attention.query.bias = block<block>.q_bias
encoder.layer.<b>.attention.attention.value.bias = block<block>.v_bias
encoder.layer.<b>.attention.attention.relative_position_bias.relative_position_bias_table = block<block>.table
encoder.layer.<b>.attention.output.dense = block<block>.proj
encoder.layer.<b>.layernorm_after = block<block>.norm2
encoder.layer.<b>.intermediate.dense = block<block>.fc1
encoder.layer.<b>.output.dense = block<block>.fc2
encoder.layer.<b>.lambda_<i> = block<block>.scale<i>
layers.<b>.layernorm_before = block<block>.norm1
layers.<b>.attention.qkv = block<block>.qkv
layers.<b>.attention.q_proj.bias = block<block>.q_bias
layers.<b>.attention.v_proj.bias = block<block>.v_bias
layers.<b>.relative_position_bias.relative_position_bias_table = block<block>.table
layers.<b>.attention.o_proj = block<block>.proj
layers.<b>.layernorm_after = block<block>.norm2
layers.<b>.mlp.fc<i> = block<block>.fc<i>
layers.<b>.lambda_<i> = block<block>.scale<i>
(layernorm|pooler.layernorm) = norm
(classifier|cls_classifier) = classifier
distillation_classifier = classifier2

[transformers dinov2]
embeddings.cls_token = cls
embeddings.register_tokens = reg
embeddings.position_embeddings = pos
embeddings.patch_embeddings.projection = patch
encoder.layer.<b>.norm<i> = block<block>.norm<i>
encoder.layer.<b>.attention.(attention.)?qkv = block<block>.qkv
encoder.layer.<b>.attention.(output.dense|o_proj) = block<block>.proj
encoder.layer.<b>.layer_scale<i>.lambda1 = block<block>.scale<i>
encoder.layer.<b>.mlp.fc<i> = block<block>.fc<i>
encoder.layer.<b>.mlp.weights_in = block<block>.fc1
encoder.layer.<b>.mlp.weights_out = block<block>.fc2
layernorm = norm

[transformers dinov3]
embeddings.cls_token = cls
embeddings.register_tokens = reg
embeddings.patch_embeddings = patch
(model.)?layer.<b>.norm<i> = block<block>.norm<i>
(model.)?layer.<b>.attention.qkv = block<block>.qkv
(model.)?layer.<b>.attention.q_proj.bias = block<block>.q_bias
(model.)?layer.<b>.attention.v_proj.bias = block<block>.v_bias
(model.)?layer.<b>.attention.o_proj = block<block>.proj
(model.)?layer.<b>.layer_scale<i>.lambda1 = block<block>.scale<i>
(model.)?layer.<b>.mlp.gate_proj = block<block>.gate
(model.)?layer.<b>.mlp.up_proj = block<block>.fc1
(model.)?layer.<b>.mlp.down_proj = block<block>.fc2
norm = norm

[transformers clip] unbiased
embeddings.class_embedding = cls
embeddings.position_embedding.weight = pos
embeddings.patch_embedding = patch
pre_layrnorm = norm_pre
encoder.layers.<b>.layer_norm<i> = block<block>.norm<i>
encoder.layers.<b>.self_attn.qkv = block<block>.qkv
encoder.layers.<b>.self_attn.out_proj = block<block>.proj
encoder.layers.<b>.mlp.fc<i> = block<block>.fc<i>
post_layernorm = norm
visual_projection = classifier

[transformers siglip]
embeddings.position_embedding.weight = pos
embeddings.patch_embedding = patch
encoder.layers.<b>.layer_norm<i> = block<block>.norm<i>
encoder.layers.<b>.self_attn.qkv = block<block>.qkv
encoder.layers.<b>.self_attn.out_proj = block<block>.proj
encoder.layers.<b>.mlp.fc<i> = block<block>.fc<i>
post_layernorm = norm
head.probe = pool.latent
head.attention#q = pool.q
head.attention#kv = pool.kv
head.attention.out_proj = pool.proj
head.layernorm = pool.norm
head.mlp.fc<i> = pool.fc<i>

[clip] unbiased
class_embedding = cls
positional_embedding = pos
conv1 = patch
ln_pre = norm_pre
transformer.resblocks.<b>.ln_<i> = block<block>.norm<i>
transformer.resblocks.<b>.attn = block<block>.qkv
transformer.resblocks.<b>.attn.out_proj = block<block>.proj
transformer.resblocks.<b>.ls_<i>.gamma = block<block>.scale<i>
transformer.resblocks.<b>.mlp.c_fc = block<block>.fc1
transformer.resblocks.<b>.mlp.c_proj = block<block>.fc2
ln_post = norm
proj = classifier

[torchvision]
class_token = cls
encoder.pos_embedding = pos
conv_proj = patch
encoder.layers.encoder_layer_<b>.ln_<i> = block<block>.norm<i>
encoder.layers.encoder_layer_<b>.self_attention = block<block>.qkv
encoder.layers.encoder_layer_<b>.self_attention.out_proj = block<block>.proj
encoder.layers.encoder_layer_<b>.mlp.(0|linear_1) = block<block>.fc1
encoder.layers.encoder_layer_<b>.mlp.(3|linear_2) = block<block>.fc2
encoder.ln = norm
heads.head = classifier

[mmpretrain]
cls_token = cls
pos_embed = pos
patch_embed.projection = patch
pre_norm = norm_pre
layers.<b>.ln<i> = block<block>.norm<i>
layers.<b>.attn.qkv = block<block>.qkv
layers.<b>.attn.proj = block<block>.proj
layers.<b>.attn.gamma1.weight = block<block>.scale1
layers.<b>.ffn.gamma2.weight = block<block>.scale2
layers.<b>.ffn.layers.0.0 = block<block>.fc1
layers.<b>.ffn.layers.1 = block<block>.fc2
(ln1|norm1) = norm
(head.layers.head|head.fc) = classifier
"""

_SWIN = """
[timm] sparse own
patch_embed.proj = stem.conv
patch_embed.norm = stem.norm
layers.<n>.downsample.norm = transition<n>.norm
layers.<n>.downsample.reduction = transition<n>.reduction
layers.<s>.blocks.<b>.norm<i> = block<block>.norm<i>
layers.<s>.blocks.<b>.attn.qkv = block<block>.qkv
layers.<s>.blocks.<b>.attn.proj = block<block>.proj
layers.<s>.blocks.<b>.attn.q_bias = block<block>.q_bias
layers.<s>.blocks.<b>.attn.v_bias = block<block>.v_bias
layers.<s>.blocks.<b>.attn.logit_scale = block<block>.logit_scale
layers.<s>.blocks.<b>.attn.cpb_mlp.<i> = block<block>.cpb<i>
layers.<s>.blocks.<b>.attn.relative_position_bias_table = block<block>.table
layers.<s>.blocks.<b>.mlp.fc<i> = block<block>.fc<i>
norm = norm
(head|head.fc) = classifier

[torchvision] sparse begins:1.0
features.0.0 = stem.conv
features.0.2 = stem.norm
features.<n>.norm = transition<n>.norm
features.<n>.reduction = transition<n>.reduction
features.<s>.<b>.norm<i> = block<block>.norm<i>
features.<s>.<b>.attn.qkv = block<block>.qkv
features.<s>.<b>.attn.proj = block<block>.proj
features.<s>.<b>.attn.qkv.bias#q = block<block>.q_bias
features.<s>.<b>.attn.qkv.bias#v = block<block>.v_bias
features.<s>.<b>.attn.logit_scale = block<block>.logit_scale
features.<s>.<b>.attn.cpb_mlp.<i> = block<block>.cpb<i>
features.<s>.<b>.attn.relative_position_bias_table = block<block>.table
features.<s>.<b>.mlp.0 = block<block>.fc1
features.<s>.<b>.mlp.3 = block<block>.fc2
norm = norm
head = classifier

[transformers] sparse
embeddings.patch_embeddings.projection = stem.conv
embeddings.norm = stem.norm
encoder.layers.<n>.downsample.norm = transition<n>.norm
encoder.layers.<n>.downsample.reduction = transition<n>.reduction
encoder.layers.<s>.blocks.<b>.layernorm_before = block<block>.norm1
encoder.layers.<s>.blocks.<b>.layernorm_after = block<block>.norm2
encoder.layers.<s>.blocks.<b>.attention.(self.)?qkv = block<block>.qkv
encoder.layers.<s>.blocks.<b>.attention.(self.query|q_proj).bias = block<block>.q_bias
encoder.layers.<s>.blocks.<b>.attention.(self.value|v_proj).bias = block<block>.v_bias
encoder.layers.<s>.blocks.<b>.attention.(output.dense|o_proj) = block<block>.proj
encoder.layers.<s>.blocks.<b>.attention.self.logit_scale = block<block>.logit_scale
encoder.layers.<s>.blocks.<b>.attention.self.continuous_position_bias_mlp.<i> = block<block>.cpb<i>
encoder.layers.<s>.blocks.<b>.attention.*.relative_position_bias_table = block<block>.table
encoder.layers.<s>.blocks.<b>.(intermediate.dense|mlp.fc1) = block<block>.fc1
encoder.layers.<s>.blocks.<b>.(output.dense|mlp.fc2) = block<block>.fc2
layernorm = norm
classifier = classifier

[openmmlab] sparse
patch_embed.projection = stem.conv
patch_embed.norm = stem.norm
stages.<n>.downsample.norm = transition<n>.norm
stages.<n>.downsample.reduction = transition<n>.reduction
stages.<s>.blocks.<b>.norm<i> = block<block>.norm<i>
stages.<s>.blocks.<b>.attn.w_msa.qkv = block<block>.qkv
stages.<s>.blocks.<b>.attn.w_msa.proj = block<block>.proj
stages.<s>.blocks.<b>.attn.w_msa.relative_position_bias_table = block<block>.table
stages.<s>.blocks.<b>.ffn.layers.0.0 = block<block>.fc1
stages.<s>.blocks.<b>.ffn.layers.1 = block<block>.fc2
norm3 = norm
(head|head.fc) = classifier
"""

_MAXVIT = """
[timm] own
stem.conv<i> = stem<i>
stem.norm1 = stem.norm
stages.<s>.blocks.<b>.conv.shortcut.expand = block<block>.shortcut
stages.<s>.blocks.<b>.conv.pre_norm = block<block>.norm
stages.<s>.blocks.<b>.conv.conv1_1x1 = block<block>.expand
stages.<s>.blocks.<b>.conv.norm1 = block<block>.expand.norm
stages.<s>.blocks.<b>.conv.conv2_kxk = block<block>.dw
stages.<s>.blocks.<b>.conv.norm2 = block<block>.dw.norm
stages.<s>.blocks.<b>.conv.se.fc<i> = block<block>.se<i>
stages.<s>.blocks.<b>.conv.conv3_1x1 = block<block>.project
stages.<s>.blocks.<b>.attn_block.norm<i> = block<block>.block.norm<i>
stages.<s>.blocks.<b>.attn_block.attn.qkv = block<block>.block.qkv
stages.<s>.blocks.<b>.attn_block.attn.proj = block<block>.block.proj
stages.<s>.blocks.<b>.attn_block.attn.rel_pos.relative_position_bias_table = block<block>.block.table
stages.<s>.blocks.<b>.attn_block.mlp.fc<i> = block<block>.block.fc<i>
stages.<s>.blocks.<b>.attn_grid.norm<i> = block<block>.grid.norm<i>
stages.<s>.blocks.<b>.attn_grid.attn.qkv = block<block>.grid.qkv
stages.<s>.blocks.<b>.attn_grid.attn.proj = block<block>.grid.proj
stages.<s>.blocks.<b>.attn_grid.attn.rel_pos.relative_position_bias_table = block<block>.grid.table
stages.<s>.blocks.<b>.attn_grid.mlp.fc<i> = block<block>.grid.fc<i>
head.norm = norm
head.pre_logits.fc = fc
head.fc = classifier

[torchvision] unbiased
stem.0.0 = stem1
stem.0.1 = stem.norm
stem.1.0 = stem2
blocks.<s>.layers.<b>.layers.MBconv.proj.(0|1) = block<block>.shortcut
blocks.<s>.layers.<b>.layers.MBconv.layers.pre_norm = block<block>.norm
blocks.<s>.layers.<b>.layers.MBconv.layers.conv_a.0 = block<block>.expand
blocks.<s>.layers.<b>.layers.MBconv.layers.conv_a.1 = block<block>.expand.norm
blocks.<s>.layers.<b>.layers.MBconv.layers.conv_b.0 = block<block>.dw
blocks.<s>.layers.<b>.layers.MBconv.layers.conv_b.1 = block<block>.dw.norm
blocks.<s>.layers.<b>.layers.MBconv.layers.squeeze_excitation.fc<i> = block<block>.se<i>
blocks.<s>.layers.<b>.layers.MBconv.layers.conv_c = block<block>.project
blocks.<s>.layers.<b>.layers.window_attention.attn_layer.0 = block<block>.block.norm1
blocks.<s>.layers.<b>.layers.window_attention.attn_layer.1.to_qkv = block<block>.block.qkv
blocks.<s>.layers.<b>.layers.window_attention.attn_layer.1.merge = block<block>.block.proj
blocks.<s>.layers.<b>.layers.window_attention.attn_layer.1.relative_position_bias_table = block<block>.block.table
blocks.<s>.layers.<b>.layers.window_attention.mlp_layer.0 = block<block>.block.norm2
blocks.<s>.layers.<b>.layers.window_attention.mlp_layer.1 = block<block>.block.fc1
blocks.<s>.layers.<b>.layers.window_attention.mlp_layer.3 = block<block>.block.fc2
blocks.<s>.layers.<b>.layers.grid_attention.attn_layer.0 = block<block>.grid.norm1
blocks.<s>.layers.<b>.layers.grid_attention.attn_layer.1.to_qkv = block<block>.grid.qkv
blocks.<s>.layers.<b>.layers.grid_attention.attn_layer.1.merge = block<block>.grid.proj
blocks.<s>.layers.<b>.layers.grid_attention.attn_layer.1.relative_position_bias_table = block<block>.grid.table
blocks.<s>.layers.<b>.layers.grid_attention.mlp_layer.0 = block<block>.grid.norm2
blocks.<s>.layers.<b>.layers.grid_attention.mlp_layer.1 = block<block>.grid.fc1
blocks.<s>.layers.<b>.layers.grid_attention.mlp_layer.3 = block<block>.grid.fc2
classifier.2 = norm
classifier.3 = fc
classifier.5 = classifier
"""

_PVT = """
[timm] own
patch_embed.proj = patch0
patch_embed.norm = patch0.norm
stages.<i>.downsample.proj = patch<i>
stages.<i>.downsample.norm = patch<i>.norm
stages.<s>.blocks.<b>.norm<i> = block<s>-<b>.norm<i>
stages.<s>.blocks.<b>.attn.q = block<s>-<b>.q
stages.<s>.blocks.<b>.attn.kv = block<s>-<b>.kv
stages.<s>.blocks.<b>.attn.proj = block<s>-<b>.proj
stages.<s>.blocks.<b>.attn.sr = block<s>-<b>.sr
stages.<s>.blocks.<b>.attn.norm = block<s>-<b>.sr.norm
stages.<s>.blocks.<b>.mlp.fc<i> = block<s>-<b>.fc<i>
stages.<s>.blocks.<b>.mlp.dwconv = block<s>-<b>.dw
stages.<s>.norm = norm<s>
head = classifier

[transformers]
encoder.layers.<i>.patch_embedding.proj = patch<i>
encoder.layers.<i>.patch_embedding.layer_norm = patch<i>.norm
encoder.layers.<s>.blocks.<b>.layer_norm_<i> = block<s>-<b>.norm<i>
encoder.layers.<s>.blocks.<b>.attention.query = block<s>-<b>.q
encoder.layers.<s>.blocks.<b>.attention.kv = block<s>-<b>.kv
encoder.layers.<s>.blocks.<b>.attention.proj = block<s>-<b>.proj
encoder.layers.<s>.blocks.<b>.attention.spatial_reduction = block<s>-<b>.sr
encoder.layers.<s>.blocks.<b>.attention.layer_norm = block<s>-<b>.sr.norm
encoder.layers.<s>.blocks.<b>.mlp.dense<i> = block<s>-<b>.fc<i>
encoder.layers.<s>.blocks.<b>.mlp.dwconv.dwconv = block<s>-<b>.dw
encoder.layers.<s>.layer_norm = norm<s>
classifier = classifier
"""

_FOCALNET = """
[timm] own
stem.proj = stem.conv
stem.norm = stem.norm
layers.<n>.downsample.proj = transition<n>.conv
layers.<n>.downsample.norm = transition<n>.norm
layers.<s>.blocks.<b>.norm<i> = block<block>.norm<i>
layers.<s>.blocks.<b>.ls<i>.gamma = block<block>.scale<i>
layers.<s>.blocks.<b>.modulation.f = block<block>.in
layers.<s>.blocks.<b>.modulation.h = block<block>.context
layers.<s>.blocks.<b>.modulation.proj = block<block>.out
layers.<s>.blocks.<b>.modulation.norm = block<block>.norm
layers.<s>.blocks.<b>.modulation.focal_layers.<i>.0 = block<block>.focal<i>
layers.<s>.blocks.<b>.mlp.fc<i> = block<block>.fc<i>
norm = norm
head.fc = classifier

[transformers]
embeddings.patch_embeddings.projection = stem.conv
embeddings.norm = stem.norm
encoder.stages.<n>.downsample.projection = transition<n>.conv
encoder.stages.<n>.downsample.norm = transition<n>.norm
encoder.stages.<s>.layers.<b>.norm<i> = block<block>.norm<i>
encoder.stages.<s>.layers.<b>.gamma_<i> = block<block>.scale<i>
encoder.stages.<s>.layers.<b>.modulation.projection_in = block<block>.in
encoder.stages.<s>.layers.<b>.modulation.projection_context = block<block>.context
encoder.stages.<s>.layers.<b>.modulation.projection_out = block<block>.out
encoder.stages.<s>.layers.<b>.modulation.layernorm = block<block>.norm
encoder.stages.<s>.layers.<b>.modulation.focal_layers.<i>.0 = block<block>.focal<i>
encoder.stages.<s>.layers.<b>.mlp.fc<i> = block<block>.fc<i>
layernorm = norm
classifier = classifier
"""

_LEVIT = """
[timm] own
stem.conv<i>.linear = stem<i>
stem.conv<i>.bn = stem<i>.norm
stages.<n:\\d*\\.blocks\\.\\d*>.attn.qkv.linear = block<n>.qkv
stages.<n:\\d*\\.blocks\\.\\d*>.attn.qkv.bn = block<n>.qkv.norm
stages.<n:\\d*\\.blocks\\.\\d*>.attn.proj.ln.linear = block<n>.proj
stages.<n:\\d*\\.blocks\\.\\d*>.attn.proj.ln.bn = block<n>.proj.norm
stages.<n:\\d*\\.blocks\\.\\d*>.attn.attention_biases = block<n>.biases
stages.(\\d+.blocks.\\d+|\\d+.downsample).mlp.ln1.linear = mlp<at>.fc1
stages.(\\d+.blocks.\\d+|\\d+.downsample).mlp.ln1.bn = mlp<at>.fc1.norm
stages.(\\d+.blocks.\\d+|\\d+.downsample).mlp.ln2.linear = mlp<at>.fc2
stages.(\\d+.blocks.\\d+|\\d+.downsample).mlp.ln2.bn = mlp<at>.fc2.norm
stages.<n>.downsample.attn_downsample.kv.linear = transition<n>.kv
stages.<n>.downsample.attn_downsample.kv.bn = transition<n>.kv.norm
stages.<n>.downsample.attn_downsample.q.ln.linear = transition<n>.q
stages.<n>.downsample.attn_downsample.q.ln.bn = transition<n>.q.norm
stages.<n>.downsample.attn_downsample.proj.ln.linear = transition<n>.proj
stages.<n>.downsample.attn_downsample.proj.ln.bn = transition<n>.proj.norm
stages.<n>.downsample.attn_downsample.attention_biases = transition<n>.biases
head.bn = head.norm
head.linear = classifier
head_dist.bn = head2.norm
head_dist.linear = classifier2

[transformers] sparse
patch_embeddings.embedding_layer_<i>.convolution = stem<i>
patch_embeddings.embedding_layer_<i>.batch_norm = stem<i>.norm
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.queries_keys_values.linear = block<n>.qkv
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.queries_keys_values.batch_norm = block<n>.qkv.norm
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.projection.linear = block<n>.proj
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.projection.batch_norm = block<n>.proj.norm
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.attention_biases = block<n>.biases
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.linear_up.linear = mlp<n>.fc1
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.linear_up.batch_norm = mlp<n>.fc1.norm
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.linear_down.linear = mlp<n>.fc2
encoder.stages.<n:\\d*\\.layers\\.\\d*>.module.linear_down.batch_norm = mlp<n>.fc2.norm
encoder.stages.<n>.layers.\\d+.keys_values.linear = transition<n>.kv
encoder.stages.<n>.layers.\\d+.keys_values.batch_norm = transition<n>.kv.norm
encoder.stages.<n>.layers.\\d+.queries.linear = transition<n>.q
encoder.stages.<n>.layers.\\d+.queries.batch_norm = transition<n>.q.norm
encoder.stages.<n>.layers.\\d+.projection.linear = transition<n>.proj
encoder.stages.<n>.layers.\\d+.projection.batch_norm = transition<n>.proj.norm
encoder.stages.<n>.layers.\\d+.attention_biases = transition<n>.biases
classifier.batch_norm = head.norm
classifier.linear = classifier
classifier_distill.batch_norm = head2.norm
classifier_distill.linear = classifier2
"""

VISION_TRANSFORMERS = {
    "vit": _VIT,
    "swin": _SWIN,
    "maxvit": _MAXVIT,
    "pvt_v2": _PVT,
    "focalnet": _FOCALNET,
    "levit": _LEVIT,
}
