"""Write quantised folders of ``fixtures`` with the libraries of their formats, and their logits.

    python record_quantized.py

A small LLaMA is rounded by each library's own quantiser, packed by its own module, and put into a folder as its tools do.
Logits are those of transformers with the weights that the library gives back, its scales widened. Last recorded with
torch 2.13.0, transformers 4.57.6, auto-gptq 0.7.1, autoawq 0.2.9 and compressed-tensors 0.20.0; of the first two only
the modules of layers are imported, as their packages want CUDA and data sets.
"""

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

FIXTURES = Path(__file__).parent.parent / "fixtures"
TOKENS = [[3, 77, 270, 12, 0, 131, 200, 5, 9, 64]]  # modulo the size of the vocabulary
LAST = 5  # positions whose logits are kept
CONFIG = dict(
    vocab_size=32,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
    bos_token_id=1,
    eos_token_id=2,
)


def without_init(package: str) -> None:
    """Make modules of a package importable without what its ``__init__`` imports."""
    place = importlib.util.find_spec(package).submodule_search_locations
    bare = types.ModuleType(package)
    bare.__path__ = list(place)
    sys.modules[package] = bare


def model():
    """A LLaMA whose weights are drawn by a seed, exact in float16."""
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).eval()
    for parameter in made.parameters():
        wide = parameter.dim() > 1
        noise = torch.randn(parameter.shape) * (parameter.shape[-1] ** -0.5 if wide else 0.2)
        parameter.data = (noise + (0 if wide else 0.5)).half().float()
    return made


def products(made):
    """Names and modules that are rounded."""
    found = [(n, m) for n, m in made.named_modules() if isinstance(m, nn.Linear)]
    return [(name, module) for name, module in found if name != "lm_head"]


def keep(made, name: str, state: dict, settings: dict, dtype=torch.float16) -> None:
    """The folder and the logits of ``made``, whose weights are by now those that the library gives back."""
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for key, value in made.state_dict().items():
        module, _, last = key.rpartition(".")
        if module not in {one for one, _ in products(made)}:
            state[key] = value.to(dtype)
            value.copy_(state[key])
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-6}
    config |= {**CONFIG, "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    with torch.no_grad():
        logits = made(torch.tensor(TOKENS) % CONFIG["vocab_size"]).logits[:, -LAST:]
    np.save(FIXTURES / f"{name}.npy", logits.numpy().astype(np.float32))
    print(name, f"largest {logits.abs().max():.2f}")


def gptq(name: str, *, bits: int, size: int, sym: bool, ordered: bool) -> None:
    from auto_gptq.nn_modules.qlinear.qlinear_cuda import QuantLinear
    from auto_gptq.quantization.quantizer import Quantizer

    made, state = model(), {}
    for key, module in products(made):
        num_in = module.in_features
        group = num_in if size == -1 else size
        g_idx = torch.arange(num_in) // group
        if ordered:
            g_idx = g_idx[torch.randperm(num_in)]
        scales, zeros = [], []
        for g in range(num_in // group):
            quantizer = Quantizer()
            quantizer.configure(bits, perchannel=True, sym=sym, mse=False)
            rows = module.weight.data[:, g_idx == g]
            quantizer.find_params(rows, weight=True)
            quantizer.scale = quantizer.scale.half().float()
            module.weight.data[:, g_idx == g] = quantizer.quantize(rows)
            scales.append(quantizer.scale)
            zeros.append(quantizer.zero)
        packed = QuantLinear(
            bits, size, num_in, module.out_features, False, weight_dtype=torch.float32
        )
        scale, zero = (torch.cat(one, 1) for one in (scales, zeros))
        packed.pack(module, scale, zero, g_idx.int())
        module.weight.data = packed(torch.eye(num_in)).T.contiguous()  # its own reading
        packed.scales = packed.scales.half()
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            state[f"{key}.{part}"] = getattr(packed, part)
    settings = dict(quant_method="gptq", bits=bits, group_size=size, sym=sym, desc_act=ordered)
    keep(made, name, state, settings | {"checkpoint_format": "gptq", "damp_percent": 0.01})


def awq(name: str, *, size: int) -> None:
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    made, state = model(), {}
    for key, module in products(made):
        rows = module.weight.data.reshape(module.out_features, -1, size)
        most, least = rows.amax(-1), rows.amin(-1)
        scales = ((most - least).clamp(min=1e-5) / 15).half().float()
        zeros = (-torch.round(least / scales)).clamp(0, 15)
        packed = WQLinear_GEMM.from_linear(module, 4, size, False, scales.T.contiguous(), zeros.T.contiguous())  # fmt: skip
        weight = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales.float(), 4, size)
        module.weight.data = weight.T.contiguous()
        for part in ("qweight", "qzeros", "scales"):
            state[f"{key}.{part}"] = getattr(packed, part)
    settings = dict(quant_method="awq", bits=4, group_size=size, version="gemm", zero_point=True)
    keep(made, name, state, settings | {"modules_to_not_convert": None})


def compressed(name: str, *, bits: int, format: str, dtype, **weights) -> None:
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme  # fmt: skip
    from compressed_tensors.quantization.utils import calculate_qparams

    made, state = model(), {}
    args = QuantizationArgs(num_bits=bits, type="int", **weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=format)
    compressor = BaseCompressor.get_value_from_registry(format)
    for key, module in products(made):
        weight = module.weight.data.to(dtype)
        rows = weight.reshape(len(weight), -1, args.group_size or weight.shape[1])
        scale, zero = calculate_qparams(rows.amin(-1), rows.amax(-1), args)
        given = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
        small = compressor.compress(given, scheme)
        wide = {**small, "weight_scale": small["weight_scale"].float()}
        module.weight.data = compressor.decompress(wide, scheme)["weight"].float()
        state |= {f"{key}.{part}": value for part, value in small.items()}
    config = QuantizationConfig(config_groups={"group_0": scheme}, format=format, ignore=["lm_head"], quantization_status="compressed")  # fmt: skip
    settings = json.loads(config.model_dump_json(exclude={"quant_method"}))
    keep(made, name, state, settings | {"quant_method": "compressed-tensors"}, dtype)


def main() -> None:
    for package in ("auto_gptq", "awq"):
        without_init(package)
    gptq("llama-gptq4", bits=4, size=32, sym=True, ordered=False)
    gptq("llama-gptq8", bits=8, size=-1, sym=True, ordered=False)
    gptq("llama-gptq4-ordered", bits=4, size=32, sym=False, ordered=True)
    awq("llama-awq", size=32)
    bfloat16, half = torch.bfloat16, torch.float16
    compressed("llama-packed4", bits=4, format="pack-quantized", dtype=bfloat16, strategy="group", group_size=32, symmetric=True)  # fmt: skip
    compressed("llama-packed4-zeros", bits=4, format="pack-quantized", dtype=half, strategy="group", group_size=64, symmetric=False)  # fmt: skip
    compressed("llama-packed8", bits=8, format="pack-quantized", dtype=half, strategy="channel", symmetric=True)  # fmt: skip
    compressed("llama-int8", bits=8, format="int-quantized", dtype=bfloat16, strategy="channel", symmetric=True)  # fmt: skip


if __name__ == "__main__":
    main()
