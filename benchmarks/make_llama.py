#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a LLaMA of random weights in bf16 and a text of random tokens, to measure memory and time on.

make_llama.py DIR [--hidden 1024] [--intermediate 2816] [--layers 14] [--vocabulary 32000] [--shard-mb 500]

The directory is one of Hugging Face without a tokenizer; calibrate with DIR/text.u16.
"""

import argparse
import json
import random
import struct
from pathlib import Path


def bf16(generator, count, one=False):
    """Numbers of random sign and mantissa between 1/64 and 1/32 in size; ones for norms."""
    if one:
        return b"\x80\x3f" * count
    mask, exponent = (int.from_bytes(word * 4096, "little") for word in (b"\x7f\x80", b"\x80\x3c"))
    parts = []
    while count > 0:
        step = min(count, 4096)
        bits = int.from_bytes(generator.randbytes(8192), "little") & mask | exponent
        parts.append(bits.to_bytes(8192, "little")[: 2 * step])
        count -= step
    return b"".join(parts)


def tensors(o):
    """Names and shapes, as LLaMA has them."""
    keys = o.hidden // 4
    yield "model.embed_tokens.weight", (o.vocabulary, o.hidden)
    for i in range(o.layers):
        name = f"model.layers.{i}."
        yield name + "input_layernorm.weight", (o.hidden,)
        yield name + "self_attn.q_proj.weight", (o.hidden, o.hidden)
        yield name + "self_attn.k_proj.weight", (keys, o.hidden)
        yield name + "self_attn.v_proj.weight", (keys, o.hidden)
        yield name + "self_attn.o_proj.weight", (o.hidden, o.hidden)
        yield name + "post_attention_layernorm.weight", (o.hidden,)
        yield name + "mlp.gate_proj.weight", (o.intermediate, o.hidden)
        yield name + "mlp.up_proj.weight", (o.intermediate, o.hidden)
        yield name + "mlp.down_proj.weight", (o.hidden, o.intermediate)
    yield "model.norm.weight", (o.hidden,)
    yield "lm_head.weight", (o.vocabulary, o.hidden)


def size(shape):
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


def shards(o):
    """Tensors, in lists of at most as many bytes as a shard may have."""
    all_of, bytes_of = [[]], 0
    for name, shape in tensors(o):
        here = 2 * size(shape)
        if all_of[-1] and bytes_of + here > o.shard_mb * 10**6:
            all_of.append([])
            bytes_of = 0
        all_of[-1].append((name, shape))
        bytes_of += here
    return all_of


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    for name, value in [("hidden", 1024), ("intermediate", 2816), ("layers", 14), ("vocabulary", 32000),
                        ("shard-mb", 500), ("tokens", 65536)]:
        parser.add_argument("--" + name, type=int, default=value)
    o = parser.parse_args()
    generator = random.Random(24)
    o.directory.mkdir(parents=True, exist_ok=True)
    all_of, weight_map = shards(o), {}
    for i, shard in enumerate(all_of):
        file = f"model-{i + 1:05}-of-{len(all_of):05}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shard:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * size(shape)]}
            at += 2 * size(shape)
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(o.directory / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name, shape in shard:
                out.write(bf16(generator, size(shape), one=len(shape) == 1))
    (o.directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (o.directory / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": o.hidden,
        "intermediate_size": o.intermediate, "num_hidden_layers": o.layers, "num_attention_heads": o.hidden // 64,
        "num_key_value_heads": o.hidden // 256, "vocab_size": o.vocabulary, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}))
    (o.directory / "text.u16").write_bytes(struct.pack(f"<{o.tokens}H", *(
        generator.randrange(o.vocabulary) for _ in range(o.tokens))))
    print(f"{sum(size(shape) for _, shape in tensors(o)) / 1e6:.1f} million weights in {len(all_of)} files")


if __name__ == "__main__":
    main()
