# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""make_corpus.py EXAMPLES CORPUS: the first inputs of the fuzzing targets, some kilobytes, apart from those of `packed`
(which are written by hand or by other programs) and what was found later."""

import json
import pathlib
import struct
import sys

examples, corpus = map(pathlib.Path, sys.argv[1:3])


def put(target, name, data):
    (corpus / target).mkdir(parents=True, exist_ok=True)
    (corpus / target / name).write_bytes(data.encode() if isinstance(data, str) else data)


def tensors(all_, metadata=None):
    header, body = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, data) in all_.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return json.dumps(header).encode() + b"\xff" + body


numbers = struct.pack("<4f", 1, 2, 3, 4)
# The first byte: '1' is odd, a header without its length; '0' is even, the file as it is.
put("safetensors", "framed", b"1" + tensors({"a": ("F32", [2, 2], numbers), "b": ("F16", [3], b"\0\x3c" * 3),
                                             "c": ("BOOL", [], b"\1"), "d": ("I64", [0, 3], b"")}, {"format": "pt"}))
whole = tensors({"a": ("BF16", [2, 1], b"\x80\x3f" * 2)}).split(b"\xff")
put("safetensors", "whole", b"0" + struct.pack("<Q", len(whole[0])) + whole[0] + b"\xff".join(whole[1:]))
put("safetensors", "huge_zero", b'1{"a":{"dtype":"U8","shape":[576460752303423488,0],"data_offsets":[0,0]}}')
put("safetensors", "repeated", b'1{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1,"__metadata__":{}}')
put("safetensors", "objects", b'1{"a":{"x":[' + b"{}," * 3000 + b"0]}}")

files = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
put("index", "two", json.dumps({"metadata": {"total_size": 32}, "weight_map": files}))
for name, file in {"parent": "../s", "directory": "dir", "pipe": "pipe", "none": "x", "empty": "", "single": "s"}.items():
    put("index", name, json.dumps({"weight_map": {"c": file}}))

for model in sorted((examples / "models").iterdir()):
    if (model / "config.json").exists():
        put("configuration", model.name, (model / "config.json").read_bytes())
llama = {"model_type": "llama", "vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64, "max_position_embeddings": 1 << 20,
         "rms_norm_eps": 1e-5, "eos_token_id": [2, 3],
         "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}
put("configuration", "yarn", json.dumps(llama))
moe = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
put("configuration", "experts", json.dumps({**llama, **moe, "rope_scaling": None}))
put("configuration", "longrope", json.dumps({**llama, "model_type": "phi3", "rope_scaling": {
    "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}}))
put("configuration", "bert", json.dumps({"model_type": "bert", "vocab_size": 30, "hidden_size": 32,
                                         "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                                         "max_position_embeddings": 64, "type_vocab_size": 2}))
put("configuration", "vit", json.dumps({"model_type": "vit", "image_size": 32, "patch_size": 8, "num_channels": 3,
                                        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                                        "intermediate_size": 64, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))

zeros = b"\0" * 64
for name, settings, shape, lines in [
    ("fp8", {"quant_method": "fp8", "weight_block_size": [8, 16]}, "16 32",
     ["layer.weight F8_E4M3 16 32 =3839", "layer.weight_scale_inv F32 2 2 =0000803f"]),
    ("modelopt", {"quant_method": "modelopt", "quant_algo": "FP8"}, "16 32",
     ["layer.weight F8_E4M3 16 32 =3839", "layer.weight_scale F32 =0000803f", "layer.input_scale F32 =0000803f"]),
    ("modelopt_nvfp4", {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, "16 32",
     ["layer.weight U8 16 16 =3b4c", "layer.weight_scale F8_E4M3 16 2 =38", "layer.weight_scale_2 F32 =0000803f",
      "layer.input_scale F32 =0000803f"]),
    ("mxfp4_experts", {"quant_method": "mxfp4"}, "16 32",
     ["layer_blocks U8 2 16 1 16 =3b4c", "layer_scales U8 2 16 1 =7f80"]),
    ("gptq_hidden_zero", {"quant_method": "gptq", "bits": 4, "group_size": 16}, "16 32",
     ["layer.qweight U8 576460752303423488 0 =00", "layer.qzeros I32 2 2 =00", "layer.scales F16 2 16 =003c",
      "layer.g_idx I32 32 =00000000"]),
]:
    put("packed", name, json.dumps(settings) + "\n" + shape + "\n" + "\n".join(lines) + "\n")


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    kind = 8 if isinstance(v[0], str) else 6 if isinstance(v[0], float) else 5
    items = [text(x) if kind == 8 else struct.pack("<f" if kind == 6 else "<i", x) for x in v]
    return struct.pack("<IIQ", 9, kind, len(v)) + b"".join(items)


def gguf(metadata, tensors_):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors_), len(metadata))
    head += b"".join(text(k) + value(v) for k, v in metadata.items())
    data = b""
    for name, kind, shape, size in tensors_:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, len(data))
        data += (b"\x3c\x00\x11\x22" * size)[:size]
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


words = ["<unk>", "<s>", "</s>", "▁a", "▁", "a", "b", "ab"]
tokenizer = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words,
             "tokenizer.ggml.scores": [float(-i) for i in range(8)], "tokenizer.ggml.token_type": [2, 3, 3] + [1] * 5,
             "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
sizes = {"general.architecture": "llama", "llama.context_length": 32, "llama.embedding_length": 32,
         "llama.block_count": 1, "llama.feed_forward_length": 32, "llama.attention.head_count": 2,
         "llama.attention.head_count_kv": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5}
b = "blk.0."
layers = [("token_embd.weight", 0, [32, 8], 1024), ("output_norm.weight", 0, [32], 128),
          (b + "attn_norm.weight", 0, [32], 128), (b + "ffn_norm.weight", 0, [32], 128),
          (b + "attn_q.weight", 2, [32, 32], 576), (b + "attn_k.weight", 8, [32, 16], 544),
          (b + "attn_v.weight", 1, [32, 16], 1024), (b + "attn_output.weight", 2, [32, 32], 576),
          (b + "ffn_gate.weight", 2, [32, 32], 576), (b + "ffn_up.weight", 3, [32, 32], 640),
          (b + "ffn_down.weight", 8, [32, 32], 1088)]
put("gguf", "llama", gguf({**sizes, **tokenizer}, layers))
put("gguf", "bpe", gguf({"general.architecture": "gpt2", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
                         "tokenizer.ggml.tokens": ["a", "b", "ab", "Ġ", "Ġab"],
                         "tokenizer.ggml.merges": ["a b", "Ġ ab"]}, [("x", 12, [256], 144), ("y", 14, [256], 210)]))
put("gguf", "empty", gguf({}, []))

bpe = {"version": "1.0", "added_tokens": [{"id": 5, "content": "<e>", "special": True, "single_word": False,
                                          "lstrip": False, "rstrip": False, "normalized": False}],
       "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                                                        "trim_offsets": True, "use_regex": True},
       "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<e>", "type_id": 0}},
                                                                   {"Sequence": {"id": "A", "type_id": 0}}],
                          "pair": [], "special_tokens": {"<e>": {"id": "<e>", "ids": [5], "tokens": ["<e>"]}}},
       "decoder": {"type": "ByteLevel"},
       "model": {"type": "BPE", "unk_token": None, "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4},
                 "merges": ["a b", "Ġ ab"]}}
put("tokenizer", "bpe", "0" + json.dumps(bpe))
unigram = {**bpe, "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0], ["a", -2.0],
                                                                     ["▁", -3.0], ["b", -4.0]]},
           "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
           "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}}
put("tokenizer", "unigram", "0" + json.dumps(unigram))
piece = {**bpe, "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                          "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2, "it": 3}},
         "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                        "strip_accents": None, "lowercase": True},
         "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
put("tokenizer", "word_piece", "0" + json.dumps(piece))
split = {**bpe, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"},
     "behavior": "Isolated", "invert": False}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]}}
put("tokenizer", "split", "0" + json.dumps(split))


def field(number, kind, data):
    key = bytes([number << 3 | kind])
    return key + (bytes([len(data)]) + data if kind == 2 else data)


pieces = b"".join(field(1, 2, field(1, 2, p.encode()) + field(2, 5, struct.pack("<f", -i)) + field(3, 0, bytes([k])))
                  for i, (p, k) in enumerate(zip(words, [2, 3, 3, 1, 1, 1, 1, 1])))
put("tokenizer", "sentence_piece", b"1" + pieces + field(2, 2, field(3, 0, b"\1") + field(4, 0, b"\x08")))
put("tokenizer", "vocab_merges", b"2" + b"\xff".join([json.dumps(bpe["model"]["vocab"]).encode(),
                                                     "#version: 0.2\na b\nĠ ab\n".encode(),
                                                     b'{"tokenizer_class": "GPT2Tokenizer", "eos_token": "ab"}']))
put("tokenizer", "vocab_txt", b"3[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nit\n\xff"
    b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')

tokens = struct.pack("<q", 5)
triangle = struct.pack("<6d", 2, 1, 0, 3, 1, 4)
put("stored", "hessian", b"1" + tensors({"up": ("F64", [6], triangle), "up.tokens": ("I64", [1], tokens)}))
put("stored", "many_tokens", b"1" + tensors({"up": ("F64", [6], triangle),
                                             "up.tokens": ("I64", [1], struct.pack("<q", 1 << 62))}))
put("stored", "no_features", b"1" + tensors({"up": ("F64", [0], b""), "up.tokens": ("I64", [1], tokens)}))
put("stored", "learned", b"3" + tensors({"q.low": ("F32", [4], numbers), "q.high": ("F32", [4], numbers),
                                         "losses": ("F64", [0], b"")}, {"fingerprint": "cbf29ce484222325"}))

for i, words_ in enumerate([
        "int4:g128:gptq", "int3:owq=2:g16:act", "int4:owq@4.2", "fp4:a=fp4:fpq:gptq", "fp4:search:metric=cosine", "int4:lwc:g8",
        "mxfp4:search", "nvfp4:gptq:act", "int8:a=int8@token:smooth=0.5", "nf4:b8x8:mse", "ternary:qronos", "int3:gptaq:f32",
        "e4m3:f32:hadamard=16", "int4:truncated:zeros:obq"]):
    for sizes_ in ("0", "2", "t", "9"):
        if sizes_ == "0" or i % 4 == 0:
            put("specification", f"{i}_{sizes_}", sizes_ + words_)
put("specification", "large_inputs", b"\x24fp4:a=fp4:fpq:gptq")  # '$' % 8 = 4, / 8 = 4

put("text", "u16", b"\0" + struct.pack("<4H", 0, 1, 65535, 7))
put("text", "u32", b"\1" + struct.pack("<3I", 0, 1 << 31, 7))
put("text", "jsonl", b"\2" + b'{"text": "a b"}\n\n{"text": "\\u00e9", "id": 3}\n')
put("text", "lines", b"\2" + b'{"text": 3}\n[]\n')
put("text", "plain", b"\3It was\xff a day")
